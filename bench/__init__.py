# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Speed, compared with the alternatives: ``python -m bench``."""

import os

# As installed, modules are compiled once. Without, each process that is measured compiles them all:
# a third of what pmem-rmap does.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("PYTHONPYCACHEPREFIX", os.path.abspath("build/pycache"))
