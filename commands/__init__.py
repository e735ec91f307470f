# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a user can type: one file per command, a spec and a thin function."""
