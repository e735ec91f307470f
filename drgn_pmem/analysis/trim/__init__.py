# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A dump without the user data of persistent memory: what is kept, and writing it."""
