# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Persistent memory in Linux kernel crash dumps, on top of drgn."""
