# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The prompt_toolkit shell and the drgn-pmem command line."""
