# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the struct pages are, by every source, and whether they are intact."""
