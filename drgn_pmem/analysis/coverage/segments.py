# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Segments
--------

Each ``PT_LOAD`` of a dump, what is at its addresses, and contradictions. A kdump-compressed dump
has no program headers: the ranges of its page bitmap are listed, and iomem and the regions show
which of them were persistent memory.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

from drgn import Program

from drgn_pmem.analysis.coverage.writer import (
    LOW_MEMORY,
    Loader,
    Writer,
    does_low_memory_tell,
    fadump_area,
    guess_loader,
    writer_by_kernel,
)
from drgn_pmem.analysis.inventory.machine import MachineMap, namespace_names, read_machine
from drgn_pmem.dumpfile import DumpFile, DumpFormat, Segment, State, dump_of
from drgn_pmem.formats.architecture import X86_64, find_architecture
from drgn_pmem.kernel.iomem import Resource
from drgn_pmem.kernel.kmod import has_kernel_debug_info
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.ranges import Range, RangeSet, short_size
from drgn_pmem.record import Record, Show, shown

__all__ = ("DumpSegment", "SegmentsAnswer", "read_segments")

_PAGE = 4096
"""Less than a page is never in a bitmap, and the kernel does not use it either."""

NO_CXL = "QEMU never dumps CXL memory; --qemu reads it while the guest runs"
"""CXL memory is I/O to QEMU, not RAM."""

_MAX_ROWS = 80_000
"""Rows of one answer: each takes five kilobytes of memory on its way to JSON."""


class DumpSegment(Record):
    """One ``PT_LOAD``, or one range of the bitmap, and what it holds."""

    index: int
    type: str
    """``"PT_LOAD"``; ``"bitmap"`` for a range of pages of a kdump-compressed dump; ``"memory"`` for
    one of a running guest."""
    physical: int | None = shown(Show.ADDRESS)
    virtual: int | None = shown(Show.ADDRESS)
    file_offset: int | None
    file_size: int = shown(Show.SIZE)
    """bytes in the file; of a bitmap's range, bytes of the pages that are saved (uncompressed)"""
    memory_size: int = shown(Show.SIZE)
    flags: int | None
    """``p_flags``, raw; None where the format has none."""
    pmem: bool | None
    """By ``PF_DEV``; where there are no flags by iomem and the regions. None if these cannot be
    read, or not in full: then what is not all RAM may be several ranges, of RAM and of pmem."""
    iomem: tuple[Resource, ...]
    namespaces: tuple[str, ...]
    states: dict[State, int]
    """bytes by what the dump holds of them"""
    notes: tuple[str, ...]
    """Contradictions."""

    @property
    def end(self) -> int | None:
        """Physical, exclusive."""
        return None if self.physical is None else self.physical + self.memory_size

    @property
    def iomem_names(self) -> list[str]:
        """Names of the outermost resources, each once."""
        return list(dict.fromkeys(r.name for r in self.iomem if r.depth == 0 and r.name))


class SegmentsAnswer(Record):
    """All segments, and what is wrong beyond a single one."""

    segments: list[DumpSegment]
    loader: Loader
    missing_ram: list[Range]
    """RAM that no segment covers and that was not left out on purpose."""
    notes: list[str]


def read_segments(prog: Program) -> Partial[SegmentsAnswer]:
    """
    The segments of the dump of a program. Works without debug info: then only with what is in
    the file.

    :raises DumpFileError: if the program has no dump file
    """
    problems = Problems()
    dump = dump_of(prog)
    machine = problems.take(read_machine(prog))
    table = list(dump.segments[:_MAX_ROWS])
    if dump.format is DumpFormat.LIVE:
        # vmalloc memory and modules of /proc/kcore have no physical address.
        table = [segment for segment in table if segment.physical is not None]
    area, by_kernel = None, None
    if has_kernel_debug_info(prog):  # else a problem of the machine says so
        what = "who wrote the headers"
        area = problems.attempt(what, lambda: fadump_area(prog))
        by_kernel = problems.attempt(what, lambda: writer_by_kernel(prog, area))
    loader = guess_loader(dump, by_kernel, table, low_tells=does_low_memory_tell(prog, dump))
    outside = dump.format is DumpFormat.LIVE or loader.by_order is Writer.HYPERVISOR
    reader = _Reader(dump, machine, outside, table)
    segments = list(reader.read())
    missing, notes = _missing_ram(dump, machine, loader, area)
    problems.extend(reader.problems())
    return problems.partial(
        SegmentsAnswer(
            segments=segments,
            loader=loader,
            missing_ram=missing,
            notes=[*reader.notes(), *notes],
        )
    )


class _Reader:
    def __init__(
        self,
        dump: DumpFile,
        machine: MachineMap,
        outside: bool,
        segments: Sequence[Segment] | None = None,
    ) -> None:
        self.dump = dump
        self.segments = dump.segments if segments is None else segments
        self.machine = machine
        self.outside = outside
        """Live memory, or a hypervisor's dump: no flags, the crash kernel's memory included."""
        self.reserved = RangeSet(Range(r.start, r.end) for r in machine.reservations)
        self.cut = 0

    def read(self) -> Iterator[DumpSegment]:
        live = self.dump.contained is DumpFormat.LIVE
        if self.dump.contained in (DumpFormat.KDUMP, DumpFormat.IMAGE) or (
            live and not self.segments
        ):
            yield from self._bitmap()
            return
        self.cut = 0 if live else len(self.dump.segments) - len(self.segments)
        for segment in self.segments:
            yield self._segment(segment)

    def notes(self) -> list[str]:
        return [self._of_outside()] if self.outside else []

    def _of_outside(self) -> str:
        """What a dump taken from outside, or live memory, has of persistent memory."""
        covered = self.dump.coverage
        absent = sum(
            covered.count(r.start, r.end).get(State.ABSENT, 0)
            for r in self.machine.device_pmem.ranges
        )
        lacks = f"{short_size(absent)} of persistent memory"
        if self.dump.contained is DumpFormat.LIVE:
            if not absent:
                return "live memory: all persistent memory that is known can be read"
            if self.dump.hypervisor:
                return f"live memory of a guest: {lacks} is not in it"
            return (
                f"live memory: {lacks} is not in /proc/kcore "
                "(--live-pmem reads it where the kernel allows it)"
            )
        line = "a hypervisor's dump: it never sets PF_DEV"
        if absent:
            cxl = any(self.machine.cxl.overlap(r.start, r.end) for r in self.machine.pmem.ranges)
            why = f" ({NO_CXL})" if cxl else ""
            return f"{line}, and {lacks} is not in it{why}"
        if self.machine.lost_sources:
            return f"{line}, and all persistent memory that is known is in it"
        return f"{line} and leaves no persistent memory out"

    def problems(self) -> Iterator[Problem]:
        if self.cut:
            why = f"{self.cut} more segments are not shown (at most {_MAX_ROWS} are)"
            yield Problem(cause=Cause.LIMIT, why=why)
        if self.dump.contained is DumpFormat.KDUMP:
            sources = " and ".join(self.machine.pmem_sources)
            how = f"pmem is identified by {sources}" if sources else "pmem is not identified"
            why = f"kdump-compressed: no p_flags; ranges are those of the page bitmap, and {how}"
            yield Problem(cause=Cause.FORMAT, why=why)
        if self.dump.contained is DumpFormat.IMAGE:
            why = "raw memory: there are no program headers; ranges are those of the images"
            yield Problem(cause=Cause.FORMAT, why=why)
        if self.dump.truncated:
            why = "file is truncated: it ends before the data its headers describe"
            yield Problem(cause=Cause.NOT_SAVED, why=why, state=State.TRUNCATED)

    def _segment(self, segment: Segment) -> DumpSegment:
        physical = segment.physical
        use = physical is not None and segment.memory_size > 0 and self.dump.physical_addresses
        start = physical or 0
        end = start + segment.memory_size
        notes = list(self._contradictions(start, end, segment.pmem)) if use else []
        if physical is None:
            notes.append("maps no physical memory (p_paddr is -1)")
        if segment.file_size > segment.memory_size:
            notes.append("p_filesz exceeds p_memsz")
        return DumpSegment(
            index=segment.index,
            type=segment.type,
            physical=physical,
            virtual=segment.virtual,
            file_offset=segment.file_offset,
            file_size=segment.file_size,
            memory_size=segment.memory_size,
            flags=segment.flags,
            pmem=segment.pmem,
            iomem=self._iomem(start, end) if use else (),
            namespaces=tuple(namespace_names(self.machine, start, end)) if use else (),
            states=self._states(start, segment) if use else {},
            notes=tuple(notes),
        )

    @cached_property
    def _plain(self) -> bool:
        """No segment overlaps another, and the file has all bytes that they describe."""
        counts = self.dump.coverage.count()
        covered = sum(size for state, size in counts.items() if state is not State.ABSENT)
        # Of all of them: the list may be cut.
        sizes = sum(s.memory_size for s in self.dump.segments if s.physical is not None)
        return covered == sizes and not self.dump.truncated

    def _states(self, start: int, segment: Segment) -> dict[State, int]:
        size, saved = segment.memory_size, segment.file_size
        if not self._plain:
            return self.dump.coverage.count(start, start + size)
        # The same without a search for each: a dump may have tens of thousands of segments.
        states = {State.SAVED: min(saved, size), State.EXCLUDED: max(0, size - saved)}
        return {state: count for state, count in states.items() if count}

    def _iomem(self, start: int, end: int) -> tuple[Resource, ...]:
        return tuple(r for r in self.machine.iomem if r.start < end and start <= r.end)

    def _contradictions(self, start: int, end: int, flagged: bool) -> Iterator[str]:
        lost = self.machine.lost_sources
        pmem = self.machine.pmem.size(start, end)
        device = self.machine.device_pmem.size(start, end)
        if device and not flagged and not self.outside and "iomem" not in lost:
            yield f"pmem without PF_DEV ({short_size(device)})"
        known = bool(self.machine.iomem or self.machine.pmem) and not lost
        if flagged and pmem > device and not self.outside:
            used = short_size(pmem - device)
            yield f"{used} was used as RAM (kmem): PF_DEV makes it user data"
        if flagged and known and pmem < end - start:
            what = f"{short_size(end - start - pmem)} is not pmem" if pmem else "no pmem there"
            yield f"PF_DEV without pmem ({what})"
        if not self.outside:
            yield from self._reserved(start, end)

    def _reserved(self, start: int, end: int) -> Iterator[str]:
        for part in self.reserved.overlap(start, end):
            yield (
                f"overlaps the crash kernel's reservation at {part.start:#x}-{part.end:#x}: "
                "its contents were overwritten"
            )

    def _bitmap(self) -> Iterator[DumpSegment]:
        """Ranges of pages that existed, cut where persistent memory begins and ends."""
        index = 0
        for there in self.dump.coverage.covered():
            for part, pmem in self.machine.device_pmem.split(there.start, there.end):
                if index >= _MAX_ROWS:
                    self.cut += 1
                    continue
                states = self.dump.coverage.count(part.start, part.end)
                yield DumpSegment(
                    index=index,
                    type="memory" if self.dump.contained is DumpFormat.LIVE else "bitmap",
                    physical=part.start,
                    virtual=None,
                    file_offset=None,
                    file_size=states.get(State.SAVED, 0),
                    memory_size=part.size,
                    flags=None,
                    pmem=self._pmem(part, pmem),
                    iomem=self._iomem(part.start, part.end),
                    namespaces=tuple(namespace_names(self.machine, part.start, part.end)),
                    states=states,
                    notes=() if self.outside else tuple(self._reserved(part.start, part.end)),
                )
                index += 1

    def _pmem(self, part: Range, found: bool) -> bool | None:
        """Whether a range of the bitmap was persistent memory."""
        if not self.machine.pmem_sources:
            return None
        lost = self.machine.lost_sources
        if not lost:
            return found
        if found:
            # System RAM that lies there may be among what could not be read.
            return None if "iomem" in lost else True
        return None if self.machine.system_ram.gaps(part.start, part.end) else False


def _missing_ram(
    dump: DumpFile, machine: MachineMap, loader: Loader, area: Range | None
) -> tuple[list[Range], list[str]]:
    """RAM of iomem that the dump does not cover, except what is left out on purpose."""
    kept = RangeSet([area] if area else [])
    reserved = RangeSet([*kept.ranges, *(Range(r.start, r.end) for r in machine.reservations)])
    x86 = find_architecture(dump.machine) == X86_64
    by_file = Writer.FILE_LOAD in (loader.by_order, loader.by_kernel)
    missing, low, own = [], 0, 0
    for ram in machine.system_ram.ranges:
        for part in dump.coverage.ranges(ram.start, ram.end):
            if part.state is not State.ABSENT:
                continue
            own += kept.size(part.start, part.end)
            for gap in reserved.gaps(part.start, part.end):
                if x86 and gap.end <= LOW_MEMORY and by_file:
                    low += gap.size
                elif gap.size >= _PAGE:
                    missing.append(gap)
    why = "" if machine.reservations_known else "; whether it is the crash kernel's is not known"
    notes = [f"RAM {r} ({short_size(r.size)}) is not in the dump{why}" for r in missing]
    if why:
        missing = []
    if low:
        notes.append(
            f"{short_size(low)} of RAM below 1 MiB is not in the dump: kexec_file_load leaves it "
            "out"
        )
    if own:
        notes.append(
            f"{short_size(own)} of RAM is not in the dump: firmware-assisted dump had reserved it "
            "to store the dump"
        )
    return missing, notes
