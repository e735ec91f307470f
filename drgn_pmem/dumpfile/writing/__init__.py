# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writing a dump: kdump-compressed or ELF, from the memory and the notes of another."""
