# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``python -m drgn_pmem`` is ``drgn-pmem``."""

import sys

from drgn_pmem.shell.cli import main

if __name__ == "__main__":
    sys.exit(main())
