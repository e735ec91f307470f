# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The rules of pmem-diagnose, one small function each; importing a module declares its rules."""
