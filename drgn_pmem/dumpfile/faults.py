# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Faults instead of zeroes and crashes
------------------------------------

drgn answers with zeroes for what an ELF dump left out (``p_filesz < p_memsz``), and with a fault
for what a kdump-compressed dump left out. :func:`fault_on_excluded` makes the first behave like the
second, so that no walker, drgn's own helpers included, reads a list, a flag or a pointer out of
bytes that the dump does not have.

Of a kdump-compressed dump that was cut short, libkdumpfile reads what is behind the end of the file
as zeroes, and a page that goes on there may kill the process: it maps the file and does not look
where it ends (SIGBUS; seen with the one in drgn 0.3.0). Those pages fault, too.
"""

from collections.abc import Iterator
import contextlib
import importlib

import drgn

from drgn_pmem.dumpfile.coverage import Coverage, State
from drgn_pmem.dumpfile.opener import dump_of
from drgn_pmem.dumpfile.records import DumpFile, DumpFormat
from drgn_pmem.dumpfile.segments import Pieces, SegmentTable, elf_coverage
from drgn_pmem.dumpfile.vmcoreinfo import vmcoreinfo_of

__all__ = ("PAGE_TABLE_READER", "fault_on_excluded")

PAGE_TABLE_READER = "drgn_pmem.dumpfile.page_table_reader"
"""Set in ``prog.cache`` if drgn translates kernel addresses itself, not libkdumpfile."""

_KEY = "drgn_pmem.fault_on_excluded"

# Not public: without it, only physical addresses are guarded.
_read_vm = getattr(importlib.import_module("_drgn"), "_linux_helper_read_vm", None)


def fault_on_excluded(prog: drgn.Program) -> bool:
    """
    Let reads of memory that the dump does not hold raise :class:`drgn.FaultError`.

    Does nothing for live targets and where drgn faults anyway, and nothing the second time.

    :return: Whether the dump left anything out that drgn would not notice.
    :raises DumpFileError: if the program has no dump file
    """
    if _KEY not in prog.cache:
        dump = dump_of(prog)
        if dump.contained is DumpFormat.ELF:
            prog.cache[_KEY] = _guard_excluded(prog, dump)
        elif dump.contained is DumpFormat.KDUMP:
            prog.cache[_KEY] = _guard_truncated(prog, dump)
        else:
            prog.cache[_KEY] = False
    return bool(prog.cache[_KEY])


def _guard_excluded(prog: drgn.Program, dump: DumpFile) -> bool:
    guarded = False
    spaces = [(dump.coverage, True)]
    if isinstance(dump.segments, SegmentTable) and dump.source is not None:
        # drgn reads kernel virtual addresses through p_vaddr before it asks the page tables.
        pieces = Pieces.virtual(dump.segments, dump.bits)
        spaces.append((elf_coverage(dump.source, pieces), False))
    for coverage, physical in spaces:
        firsts, lasts = coverage.runs(State.EXCLUDED)
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            prog.add_memory_segment(first, last + 1 - first, _fault_excluded, physical)
            guarded = True
    return guarded


def _fault_excluded(address: int, count: int, offset: int, physical: bool) -> bytes:
    what = "physical memory" if physical else "memory"
    raise drgn.FaultError(f"the dump left this {what} out (excluded)", address)


def _guard_truncated(prog: drgn.Program, dump: DumpFile) -> bool:
    if not dump.coverage.has(State.TRUNCATED):
        return False
    for start, end in _spans(dump.coverage):
        prog.add_memory_segment(start, end - start, _fault_truncated, True)
    if not prog.cache.get(PAGE_TABLE_READER):
        _read_through_page_tables(prog)
    saved, _ = dump.coverage.runs(State.SAVED)
    if len(saved):
        # libkdumpfile looks for the kernel's page tables at its first read of any address, and
        # fails that read if they are cut off; only that one.
        with contextlib.suppress(drgn.FaultError):
            prog.read(int(saved[0]), 1, physical=True)
    return True


def _spans(coverage: Coverage) -> Iterator[tuple[int, int]]:
    """Memory between saved pages where something is truncated; few, though pages may be many."""
    start = end = -1
    for part in coverage.extent():
        if part.state is State.SAVED:
            if start >= 0:
                yield start, end
            start = -1
        elif part.state is State.TRUNCATED:
            start, end = (part.start if start < 0 else start), part.end
    if start >= 0:
        yield start, end


def _fault_truncated(address: int, count: int, offset: int, physical: bool) -> bytes:
    raise drgn.FaultError("the file ends before this physical memory (truncated)", address)


def _read_through_page_tables(prog: drgn.Program) -> None:
    """Have drgn translate kernel addresses, as DRGN_PREFER_PGTABLE_READER would have."""
    if _read_vm is None:
        return
    info = vmcoreinfo_of(prog)
    table = info.symbols.get("swapper_pg_dir")
    if table is None:
        return

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        return _read_vm(prog, table, address, count)

    prog.add_memory_segment(0, (1 << 64) - 1, read, False)
