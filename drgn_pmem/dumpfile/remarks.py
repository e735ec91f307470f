# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is said of a dump when it is opened: erased, missing, truncated, damaged."""

from collections.abc import Iterator

from drgn_pmem.dumpfile.coverage import State
from drgn_pmem.dumpfile.records import DumpFile

__all__ = ("remarks_on",)

_SHOWN = 5
"""Erase commands, and ranges of PFNs, that are shown."""


def remarks_on(dump: DumpFile) -> Iterator[str]:
    """One line each."""
    if dump.erased:
        yield (
            f"{dump.path}: makedumpfile erased data from this dump, every byte of it reads as X:"
            f" {'; '.join(dump.erased[:_SHOWN])}"
            f"{f' and {len(dump.erased) - _SHOWN} more' if len(dump.erased) > _SHOWN else ''}"
        )
    if dump.missing:
        frames = ", ".join(f"{start:#x} to {end - 1:#x}" for start, end in dump.missing[:_SHOWN])
        yield (
            f"{dump.path}: not all files of the split dump were given (-c FILE for each): PFN"
            f" {frames} are in none of them and shown as truncated"
        )
    elif dump.truncated:
        yield (
            f"{dump.path}: the file is truncated: it ends before the data that its headers"
            " describe; what is missing is shown as truncated"
        )
    damaged = dump.coverage.count().get(State.DAMAGED, 0)
    if damaged:
        yield (
            f"{dump.path}: the file's entries for {damaged} bytes of memory cannot be right; what"
            " they name cannot be read and is shown as damaged"
        )
