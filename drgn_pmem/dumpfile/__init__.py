# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The dump file on disk: what is in it and where. Knows no kernel structure.

Names are imported on first use: opening the usual dump needs no numpy, and the first prompt does
not wait for it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drgn_pmem.dumpfile.coverage import Coverage, CoverageRange, State
    from drgn_pmem.dumpfile.live import live_dump
    from drgn_pmem.dumpfile.opener import (
        coverage_of,
        dump_of,
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

_MODULES = {
    "coverage": ("Coverage", "CoverageRange", "State"),
    "live": ("live_dump",),
    "opener": (
        "coverage_of",
        "dump_of",
        "open_dump",
        "set_coverage",
        "set_dump",
    ),
    "records": ("PF_DEV", "DumpFile", "DumpFormat", "Note", "Segment"),
    "vmcoreinfo": ("Vmcoreinfo", "vmcoreinfo_of"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
