# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What persistent memory the machine had, from the kernel and from the media."""
