# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Memory whose reads are recorded, and memory without one page.

Both lay segments of their own over the program's memory, which drgn asks before the dump: over
physical addresses, and over the virtual ones through which drgn reads physical memory without
asking the page tables (``p_vaddr`` of ELF headers, the fixed linear map of POWER). All other
virtual addresses are translated by page tables that drgn reads by physical address. What reads the
file without drgn is given the same view: coverage, :attr:`DumpFile.memory`, the reader of struct
pages.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
import sys
from typing import Any

import drgn
from drgn import Program

from drgn_pmem.analysis.pages import readers
from drgn_pmem.analysis.pages.blocks import Block
from drgn_pmem.dumpfile import dump_of
from drgn_pmem.dumpfile.coverage import Coverage, CoverageRange, State
from drgn_pmem.dumpfile.opener import set_dump
from drgn_pmem.dumpfile.records import DumpFile, PhysicalMemory
from drgn_pmem.dumpfile.segments import Pieces, SegmentTable, elf_coverage
from drgn_pmem.dumpfile.vmcoreinfo import vmcoreinfo_of
from drgn_pmem.errors import DumpFileError

__all__ = ("Reads", "page_size_of", "record_reads", "take_away", "virtual_aliases", "watch_reads")

Reads = dict[int, set[str]]
"""Physical address of each page that was read -> the functions of drgn_pmem that read it."""

_KERNEL_ADDRESSES = 1 << 63
_POWER_LINEAR_MAP = 0xC000000000000000

_PACKAGE = str(Path(readers.__file__).parents[2])


def page_size_of(prog: Program) -> int:
    """Size of the crashed kernel's pages (bytes)."""
    size = vmcoreinfo_of(prog).page_size
    assert size
    return size


def _saved(coverage: Coverage) -> Iterator[tuple[int, int]]:
    firsts, lasts = coverage.runs(State.SAVED)
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        yield first, last + 1


def _linear_maps(prog: Program, dump: DumpFile) -> Iterator[tuple[int, int, int]]:
    """(virtual, physical, size) of saved memory that drgn reads without page tables."""
    if dump.contained.value == "elf" and isinstance(dump.segments, SegmentTable):
        pieces = Pieces.virtual(dump.segments, dump.bits)
        assert dump.source is not None
        coverage = elf_coverage(dump.source, pieces)
        for first, last, segment, base in zip(
            pieces.first.tolist(),
            pieces.last.tolist(),
            pieces.segment.tolist(),
            pieces.base.tolist(),
            strict=True,
        ):
            physical = dump.segments[segment].physical
            if first < _KERNEL_ADDRESSES or physical is None:
                continue
            for part in coverage.ranges(first, last + 1):
                if part.state is State.SAVED:
                    yield part.start, physical + part.start - base, part.size
    if prog.platform is not None and prog.platform.arch is drgn.Architecture.PPC64:
        for start, end in _saved(dump.coverage):
            yield _POWER_LINEAR_MAP + start, start, end - start


def virtual_aliases(prog: Program, physical: int, size: int) -> list[tuple[int, int, int]]:
    """(virtual, physical, size) of the parts of a page that are read without page tables."""
    found = []
    for virtual, start, length in _linear_maps(prog, dump_of(prog)):
        low, high = max(start, physical), min(start + length, physical + size)
        if low < high:
            found.append((virtual + low - start, low, high - low))
    return found


_GENERIC = ("dumpfile/", "kernel/debuginfo", "kernel/memory", "kernel/walk", "partial", "ranges")
"""Modules through which everything is read: who called them is of interest."""


def _reader() -> str:
    """The innermost function of drgn_pmem that is running and knows what it reads."""
    frame = sys._getframe(1)
    found = "drgn"
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_PACKAGE):
            found = f"{code.co_filename[len(_PACKAGE) + 1 : -3]}:{code.co_name}"
            if not found.startswith(_GENERIC) and not code.co_name.startswith("<"):
                return found
        frame = frame.f_back  # type: ignore[assignment]
    return found


def record_reads(prog: Program, other: Program) -> Reads:
    """
    Have every read of saved memory recorded from now on.

    :param other: Another program of the same dump, which gives the bytes.
    """
    reads: Reads = defaultdict(set)
    page = page_size_of(prog)

    def note(physical: int, size: int) -> None:
        who = _reader()
        for address in range(physical // page * page, physical + size, page):
            reads[address].add(who)

    watch_reads(prog, other, note)
    return reads


def watch_reads(prog: Program, other: Program, note: Callable[[int, int], None]) -> None:
    """
    Have a function called for every read of saved memory from now on.

    :param other: Another program of the same dump, which gives the bytes.
    :param note: Called with the physical address and the bytes that are read there.
    """
    dump = dump_of(prog)

    def through(shift: int) -> Callable[[int, int, int, bool], bytes]:
        def read(address: int, count: int, offset: int, physical: bool) -> bytes:
            note(address + shift, count)
            return other.read(address + shift, count, physical=True)

        return read

    for start, end in _saved(dump.coverage):
        prog.add_memory_segment(start, end - start, through(0), True)
    for virtual, physical, size in _linear_maps(prog, dump):
        prog.add_memory_segment(virtual, size, through(physical - virtual), False)
    if dump.memory is not None:
        _replace(dump, memory=_Recorded(dump.memory, note))
    # Struct pages in bulk come from the file itself; here they come through drgn.
    readers._find_reader = readers._ProgramReader  # type: ignore[assignment]


def take_away(prog: Program, physical: int, state: State) -> None:
    """
    Make a page unreadable: drgn faults on each of its addresses, and whatever asks the dump sees
    that it was not saved.

    :param physical: Physical address of the page.
    :param state: In which way it is missing.
    """
    page = page_size_of(prog)
    dump = dump_of(prog)

    def fault(address: int, count: int, offset: int, physical: bool) -> bytes:
        raise drgn.FaultError("taken away", address)

    prog.add_memory_segment(physical, page, fault, True)
    for virtual, _, size in virtual_aliases(prog, physical, page):
        prog.add_memory_segment(virtual, size, fault, False)
    values: dict[str, Any] = {"coverage": _without(dump.coverage, physical, page, state)}
    if dump.memory is not None:
        values["memory"] = _Without(dump.memory, dump.path, physical, physical + page)
    _replace(dump, **values)
    set_dump(prog, dump)  # forgets the coverage that was there

    find_reader = readers._find_reader

    def find(asked: Program) -> Any:
        reader = find_reader(asked)
        # pmem-diff opens the dump a second time, and there it has all of its pages.
        if asked is prog and not isinstance(reader, readers._ProgramReader):
            for name in ("read", "parts"):
                setattr(reader, name, _outside(getattr(reader, name), physical, page))
        return reader

    prog.cache.pop("drgn_pmem.scan_reader", None)
    readers._find_reader = find


def _outside(method: Callable[..., Any], physical: int, size: int) -> Callable[..., Any]:
    """A reader's method that may not read a page."""

    def guarded(block: Block, *args: int) -> Any:
        for start, length in block.pieces:
            assert start + length <= physical or physical + size <= start, "reads what is not saved"
        return method(block, *args)

    return guarded


def _replace(dump: DumpFile, **values: Any) -> None:
    """Set what a dump computes at first use."""
    dump.__dict__.update(values)


def _without(coverage: Coverage, physical: int, size: int, state: State) -> Coverage:
    ranges = [
        *(item for item in coverage.ranges(0, physical) if item.state is not State.ABSENT),
        CoverageRange(physical, physical + size, state),
        *(item for item in coverage.ranges(physical + size) if item.state is not State.ABSENT),
    ]
    return Coverage.from_ranges(ranges)


class _Recorded:
    """Physical memory of the file, each read recorded."""

    def __init__(self, memory: PhysicalMemory, note: Callable[[int, int], None]) -> None:
        self._memory = memory
        self.pages = getattr(memory, "pages", None)  # their descriptors are no memory
        self._note = note

    def read(self, address: int, size: int) -> bytes:
        self._note(address, size)
        return self._memory.read(address, size)

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        for address, data in self._memory.chunks():
            self._note(address, len(data))
            yield address, data


class _Without:
    """Physical memory of the file without ``[start, end)``."""

    def __init__(self, memory: PhysicalMemory, path: str, start: int, end: int) -> None:
        self._memory = memory
        self.pages = getattr(memory, "pages", None)  # struct pages in bulk
        self._path = path
        self._start = start
        self._end = end

    def read(self, address: int, size: int) -> bytes:
        if address < self._end and self._start < address + size:
            raise DumpFileError(f"{self._path}: memory at {address:#x} is not in the dump")
        return self._memory.read(address, size)

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        for address, data in self._memory.chunks():
            for low, high in ((address, self._start), (self._end, address + len(data))):
                low, high = max(low, address), min(high, address + len(data))
                if low < high:
                    yield low, data[low - address : high - address]
