# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The drgn plugin: registers the commands. drgn imports this at every start of every user, so it
imports nothing heavy: the commands' functions import what they need when they run.
"""

from drgn_pmem.commands import load_commands
from drgn_pmem.spec import register

__all__ = ()

for _spec in load_commands():
    register(_spec)
