# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Reads of memory that the dump does not hold
-------------------------------------------

drgn reads zeroes for what an ELF dump left out (``p_filesz < p_memsz``). A list, a flag or a
pointer of zeroes is a wrong answer, so :func:`guard_reads` makes such reads fault, as those of a
kdump-compressed dump do. Only ours: a read that comes from a function of this package, through
drgn's helpers or not, faults; one of the user's own code or of drgn's own commands gets the zeroes
that it gets without this package, because a search, or ``%crash ps -a``, continues past them.

QEMU's ELF dumps give each segment its physical address as virtual address, too, so that drgn reads
physical memory through a NULL or small pointer. Such reads fault as well: no kernel has memory of
its own there. In a program that :mod:`drgn_pmem.dumpfile.program` opened, they do so for everyone.

A truncated or damaged kdump-compressed dump is different. libkdumpfile maps the file, and a page
that goes on after the file's end kills the process (SIGBUS); its first read of any memory walks the
page tables and may touch such a page. All memory of these dumps is read without libkdumpfile,
whoever reads it.
"""

from collections.abc import Callable
import importlib
import sys

import drgn
import numpy as np

from drgn_pmem.dumpfile.coverage import Coverage, State
from drgn_pmem.dumpfile.opener import dump_of, has_dump
from drgn_pmem.dumpfile.records import DumpFile, DumpFormat, PhysicalMemory
from drgn_pmem.dumpfile.segments import ElfMemory, Pieces, SegmentTable, elf_coverage
from drgn_pmem.dumpfile.vmcoreinfo import vmcoreinfo_of
from drgn_pmem.errors import DumpFileError
from drgn_pmem.partial import Cause, Partial, Problem, Problems

__all__ = (
    "NO_IDENTITY",
    "PAGE_TABLE_READER",
    "Reader",
    "add_memory",
    "add_over_all",
    "guard_reads",
    "reading_for_us",
)

Reader = Callable[[int, int, int, bool], bytes]
"""What :meth:`drgn.Program.add_memory_segment` calls: address, count, offset, physical."""

PAGE_TABLE_READER = "drgn_pmem.dumpfile.page_table_reader"
"""Set in ``prog.cache`` if drgn translates kernel addresses itself, not libkdumpfile."""

NO_IDENTITY = "drgn_pmem.dumpfile.no_identity"
"""Set in ``prog.cache`` if no one may read physical memory through small virtual addresses."""

_KEY = "drgn_pmem.guard_reads"
_TOP = (1 << 64) - 1
_STEP = 64
"""Program headers whose memory is replaced at once."""

# Not public. Without it, a truncated kdump-compressed dump that drgn itself opened cannot be read
# at kernel addresses; one that open_program() opened can.
_read_vm = getattr(importlib.import_module("_drgn"), "_linux_helper_read_vm", None)

_PACKAGE = "drgn_pmem."
_PASS_ON = ("drgn_pmem.shell.", "drgn_pmem.plugin", "drgn_pmem.__main__")
"""Modules of ours that run what the user types, drgn's own commands included."""


def guard_reads(prog: drgn.Program) -> Partial[bool]:
    """
    Make our reads of memory that the dump does not hold raise :class:`drgn.FaultError`.

    Does nothing for live targets and where drgn faults anyway, and nothing the second time.

    :return: Whether there is memory that drgn alone reads wrongly; a problem where a program
        cannot be guarded.
    """
    guarded: Partial[bool] | None = prog.cache.get(_KEY)
    if guarded is None:
        problems = Problems()
        guarded = prog.cache[_KEY] = problems.partial(_guard(prog, problems))
    return guarded


def _guard(prog: drgn.Program, problems: Problems) -> bool:
    if not has_dump(prog):
        return False  # memory that was added segment by segment: what is not there faults
    try:
        dump = dump_of(prog)
    except DumpFileError as error:
        problems.add(
            Problem(
                cause=Cause.UNSUPPORTED,
                why=f"{error}; memory that was left out of this dump may be read as zeroes",
            )
        )
        return False
    if dump.contained is DumpFormat.ELF:
        return _guard_excluded(prog, dump)
    if dump.contained is DumpFormat.KDUMP and dump.lost_pages:
        if prog.core_dump_path is not None:
            add_memory(prog, dump)
        if not prog.cache.get(PAGE_TABLE_READER):
            add_over_all(prog, dump, _translating_reader(prog, problems), False)
        return True
    return False


def reading_for_us() -> bool:
    """Whether a function of this package, other than one that runs the user's input, is among the
    callers of the current one."""
    frame = sys._getframe(1)
    here = frame.f_globals
    while frame is not None:
        if frame.f_globals is not here:
            name = frame.f_globals.get("__name__") or ""
            if name.startswith(_PACKAGE) and not name.startswith(_PASS_ON):
                return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _guard_identity(prog: drgn.Program, dump: DumpFile) -> bool:
    """Make reads through the virtual addresses of a hypervisor's ELF dump fault."""

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        if prog.cache.get(NO_IDENTITY) or reading_for_us():
            raise drgn.FaultError("not an address of the kernel", address)
        return prog.read(address, count, True)

    found = False
    for segment in dump.segments:
        if segment.virtual == segment.physical and segment.memory_size:
            prog.add_memory_segment(segment.virtual, segment.memory_size, read, False)
            found = True
    return found


def _guard_excluded(prog: drgn.Program, dump: DumpFile) -> bool:
    guarded = _guard_identity(prog, dump) if dump.hypervisor else False
    spaces = [(dump.coverage, True)]
    if isinstance(dump.segments, SegmentTable) and dump.source is not None:
        # drgn reads kernel virtual addresses through p_vaddr before it asks the page tables.
        pieces = Pieces.virtual(dump.segments, dump.bits)
        spaces.append((elf_coverage(dump.source, pieces), False))
    for coverage, physical in spaces:
        for state in (State.TRUNCATED, State.EXCLUDED):
            guarded |= _guard_runs(prog, coverage, state, physical)
    return guarded


def _guard_runs(prog: drgn.Program, coverage: Coverage, state: State, physical: bool) -> bool:
    firsts, lasts = coverage.runs(state)
    if len(firsts) == 0:
        return False
    if state is State.TRUNCATED:
        # drgn faults, too, unless an offset that no file has (2^63) makes it an OSError.
        read = _read_truncated
    elif _reads_zeroes(prog, int(firsts[0]), physical):
        read = _read_excluded
    else:
        return False  # without a VMCOREINFO note in the file, drgn faults itself
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        prog.add_memory_segment(first, last + 1 - first, read, physical)
    return state is State.EXCLUDED


def _reads_zeroes(prog: drgn.Program, address: int, physical: bool) -> bool:
    try:
        prog.read(address, 1, physical)
    except drgn.FaultError:
        # not a problem: that is the question
        return False
    return True


def _read_excluded(address: int, count: int, offset: int, physical: bool) -> bytes:
    if not reading_for_us():
        return bytes(count)
    what = "physical memory" if physical else "memory"
    raise drgn.FaultError(f"the dump left this {what} out (excluded)", address)


def _read_truncated(address: int, count: int, offset: int, physical: bool) -> bytes:
    raise drgn.FaultError(_WHY[State.TRUNCATED], address)


_WHY = {
    State.TRUNCATED: "the file ends before this memory (truncated)",
    State.DAMAGED: "the dump's entry for this page is damaged",
    State.EXCLUDED: "the dump left this memory out (excluded)",
    State.ABSENT: "the dump does not cover this memory (absent)",
}


def add_memory(prog: drgn.Program, dump: DumpFile) -> None:
    """Have a program read its memory from the file without libkdumpfile, what is missing faulting:
    physical memory, and the kernel virtual addresses that ELF program headers give."""
    if dump.memory is not None:
        add_over_all(prog, dump, _reader(dump.memory, dump.coverage), True)
    if isinstance(dump.segments, SegmentTable) and dump.source is not None:
        pieces = Pieces.virtual(dump.segments, dump.bits)
        coverage = elf_coverage(dump.source, pieces)
        read = _reader(ElfMemory(dump.source, pieces, coverage), coverage)
        for item in coverage.extent():
            prog.add_memory_segment(item.start, item.size, read, False)


def add_over_all(prog: drgn.Program, dump: DumpFile, read: Reader, physical: bool) -> None:
    """
    Have a program read all memory by a function, whatever it read it by before.

    From the last address on and in steps: to replace all of a dump's segments at once takes drgn a
    time that grows with the square of their number.

    :param dump: What the program reads.
    :param physical: Physical memory, or virtual.
    """
    end = _TOP
    if isinstance(dump.segments, SegmentTable):
        starts = dump.segments.physical if physical else dump.segments.virtual
        for start in np.sort(starts)[::-_STEP].tolist():
            if start < end:
                prog.add_memory_segment(start, end - start, read, physical)
                end = start
    if end:
        prog.add_memory_segment(0, end, read, physical)


def _reader(memory: PhysicalMemory, coverage: Coverage) -> Reader:
    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        try:
            return memory.read(address, count)
        except DumpFileError as error:
            for item in coverage.ranges(address, address + count):
                if item.state is not State.SAVED:
                    raise drgn.FaultError(_WHY[item.state], item.start) from error
            raise drgn.FaultError(str(error), address) from error

    return read


def _translating_reader(prog: drgn.Program, problems: Problems) -> Reader:
    """Have drgn translate kernel addresses, as DRGN_PREFER_PGTABLE_READER would have."""
    table = vmcoreinfo_of(prog).symbols.get("swapper_pg_dir")
    read_vm = _read_vm
    if read_vm is None or table is None:
        problems.add(
            Problem(
                cause=Cause.UNSUPPORTED,
                why="the file is truncated, and this drgn cannot read kernel addresses of such a"
                " dump by itself; open it with drgn-pmem",
            )
        )

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        if read_vm is None or table is None:
            raise drgn.FaultError("truncated dump: kernel addresses cannot be translated", address)
        data: bytes = read_vm(prog, table, address, count)
        return data

    return read
