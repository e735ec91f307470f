# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Before drgn is imported: libgomp, by which it reads debug info, waits for ever in a fork of a
process that has used several threads; and pytest has a process for each CPU.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
