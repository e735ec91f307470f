# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Faults instead of zeroes
------------------------

drgn answers with zeroes for what an ELF dump left out (``p_filesz < p_memsz``), and with a fault
for what a kdump-compressed dump left out. :func:`fault_on_excluded` makes the first behave like the
second, so that no walker, drgn's own helpers included, reads a list, a flag or a pointer out of
bytes that the dump does not have.
"""

import drgn

from drgn_pmem.dumpfile.coverage import State
from drgn_pmem.dumpfile.opener import dump_of
from drgn_pmem.dumpfile.records import DumpFormat

__all__ = ("fault_on_excluded",)

_KEY = "drgn_pmem.fault_on_excluded"

_MAX_SEGMENTS = 1 << 16
"""Excluded ranges that are guarded; makedumpfile makes a few hundred."""


def fault_on_excluded(prog: drgn.Program) -> bool:
    """
    Let reads of memory that an ELF dump left out raise :class:`drgn.FaultError`.

    Does nothing for other formats and live targets, and nothing the second time.

    :return: Whether the dump left anything out.
    :raises DumpFileError: if the program has no dump file
    """
    if _KEY not in prog.cache:
        prog.cache[_KEY] = _guard(prog)
    return bool(prog.cache[_KEY])


def _guard(prog: drgn.Program) -> bool:
    dump = dump_of(prog)
    if dump.contained is not DumpFormat.ELF or dump.source is None:
        return False
    guarded = 0
    for part in dump.coverage.extent():
        if part.state is State.EXCLUDED and guarded < _MAX_SEGMENTS:
            prog.add_memory_segment(part.start, part.size, _fault_physical, True)
            guarded += 1
    # drgn reads kernel virtual addresses through p_vaddr before it asks the page tables.
    for segment in dump.segments:
        missing = segment.memory_size - segment.file_size
        if missing > 0 and segment.virtual and guarded < _MAX_SEGMENTS:
            start = segment.virtual + segment.file_size
            prog.add_memory_segment(start, missing, _fault_virtual, False)
            guarded += 1
    return guarded > 0


def _fault_physical(address: int, count: int, offset: int, physical: bool) -> bytes:
    raise drgn.FaultError("the dump left this physical memory out (excluded)", address)


def _fault_virtual(address: int, count: int, offset: int, physical: bool) -> bytes:
    raise drgn.FaultError("the dump left this memory out (excluded)", address)
