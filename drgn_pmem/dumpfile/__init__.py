# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The dump file on disk: what is in it and where. Knows no kernel structure."""

from drgn_pmem.dumpfile.coverage import Coverage, CoverageRange, State
from drgn_pmem.dumpfile.opener import (
    coverage_of,
    dump_of,
    live_dump,
    open_dump,
    set_coverage,
    set_dump,
)
from drgn_pmem.dumpfile.records import PF_DEV, DumpFile, DumpFormat, Note, Segment
from drgn_pmem.dumpfile.vmcoreinfo import Vmcoreinfo, vmcoreinfo_of

__all__ = (
    "PF_DEV",
    "Coverage",
    "CoverageRange",
    "DumpFile",
    "DumpFormat",
    "Note",
    "Segment",
    "State",
    "Vmcoreinfo",
    "coverage_of",
    "dump_of",
    "live_dump",
    "open_dump",
    "set_coverage",
    "set_dump",
    "vmcoreinfo_of",
)
