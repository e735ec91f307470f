# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the dump holds of each namespace, and what to change for the next dump."""
