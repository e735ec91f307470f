# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Speed, side by side with what a user would do without this tool: ``python -m bench``."""
