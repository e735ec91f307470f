# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Segments
--------

Each ``PT_LOAD`` of a dump beside what lay at its addresses, and what contradicts. A
kdump-compressed dump has no program headers any more: its place is taken by the ranges of the
bitmap that says which pages exist, and what of them was persistent memory is told from iomem and
the regions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from drgn import FaultError, Program

from drgn_pmem.analysis.inventory.machine import MachineMap, namespace_names, read_machine
from drgn_pmem.dumpfile import DumpFile, DumpFormat, Segment, State, dump_of
from drgn_pmem.errors import PmemError
from drgn_pmem.kernel.fadump import fw_dump
from drgn_pmem.kernel.iomem import Resource
from drgn_pmem.kernel.kexec import crash_image
from drgn_pmem.partial import Problems
from drgn_pmem.ranges import Range, RangeSet

__all__ = ("DumpSegment", "Loader", "SegmentsAnswer", "guess_loader", "read_segments")

_LOW = 1 << 20
"""x86_64 reserves the first MiB since 5.5, and kexec_file_load leaves it out."""

_PAGE = 4096
"""Less than a page is never in a bitmap, and the kernel does not hand it out either."""

_MAX_ROWS = 1 << 17
_MAX_PMEM = 1 << 10


@dataclass(frozen=True)
class DumpSegment:
    """One ``PT_LOAD``, or one range of the bitmap, and what it holds."""

    index: int
    type: str
    """``"PT_LOAD"``, or ``"bitmap"`` for a range of pages of a kdump-compressed dump."""
    physical: int | None
    virtual: int | None
    file_offset: int | None
    file_size: int
    """bytes in the file; of a bitmap's range, bytes of the pages that are saved (uncompressed)"""
    memory_size: int
    flags: int | None
    """``p_flags``, raw; None where the format has none."""
    pmem: bool | None
    """By ``PF_DEV``; told from iomem and the regions where there are no flags, None if they cannot
    be read either."""
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

    def to_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "type": self.type,
            "physical": None if self.physical is None else f"{self.physical:#x}",
            "virtual": None if self.virtual is None else f"{self.virtual:#x}",
            "file_offset": self.file_offset,
            "file_size": self.file_size,
            "memory_size": self.memory_size,
            "flags": self.flags,
            "pmem": self.pmem,
            "iomem": [r.to_json() for r in self.iomem],
            "namespaces": list(self.namespaces),
            "states": {state.value: size for state, size in self.states.items()},
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Loader:
    """Who wrote the crash header that became the dump."""

    by_order: str | None
    """``"kexec_file_load"``, ``"kexec-tools"``, ``"QEMU"``; None if the headers do not tell."""
    reason: str
    """What in the headers tells it, or why they do not."""
    by_kernel: str | None
    """The same by ``kexec_crash_image`` of the crashed kernel, or ``"firmware-assisted dump"``, had
    it registered one; None if neither can be read."""

    @property
    def text(self) -> str:
        """One line for a reader."""
        if self.by_order is None and self.by_kernel is None:
            return f"who wrote the headers is unknown: {self.reason}"
        line = f"headers written by {self.by_order} ({self.reason})"
        if self.by_kernel is None or self.by_order == "QEMU":
            return line
        if self.by_order is None:
            return f"headers: {self.reason}; the crashed kernel says {self.by_kernel}"
        if self.by_order == self.by_kernel:
            return f"{line}; the crashed kernel says the same"
        return f"{line}; but the crashed kernel says {self.by_kernel}"

    def to_json(self) -> dict[str, Any]:
        return {"by_order": self.by_order, "reason": self.reason, "by_kernel": self.by_kernel}


@dataclass(frozen=True)
class SegmentsAnswer:
    """All segments, and what is wrong beyond a single one."""

    segments: list[DumpSegment]
    loader: Loader
    missing_ram: list[Range]
    """RAM that no segment covers and that no one left out on purpose."""
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What could not be read."""
    lacks: list[str] = field(default_factory=list)
    """What the file does not have."""


def read_segments(prog: Program) -> SegmentsAnswer:
    """
    The segments of the dump behind a program. Works without debug info: then only with what the
    file itself says.

    :raises DumpFileError: if the program has no dump file
    """
    dump = dump_of(prog)
    problems = Problems()
    machine = problems.take(read_machine(prog))
    if dump.format is DumpFormat.LIVE:
        return SegmentsAnswer([], Loader(None, "live memory", None), [], ["live memory: no file"])
    table = list(dump.segments[:_MAX_ROWS])
    area = _fadump_area(prog)
    loader = guess_loader(dump, _loader_of_kernel(prog, area), table)
    reader = _Reader(dump, machine, loader.by_order == "QEMU", table)
    segments = list(reader.read())
    missing, notes = _missing_ram(dump, machine, loader, area)
    return SegmentsAnswer(
        segments,
        loader,
        missing,
        [*reader.notes(), *notes],
        list(map(str, problems)),
        reader.lacks(),
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
        """The dump was taken by a hypervisor: no flags, the crash kernel's memory included."""
        self.reserved = RangeSet(Range(r.start, r.end) for r in machine.reservations)
        self.cut = 0

    def read(self) -> Iterator[DumpSegment]:
        if self.dump.contained is DumpFormat.KDUMP:
            yield from self._bitmap()
            return
        self.cut = len(self.dump.segments) - len(self.segments)
        for segment in self.segments:
            yield self._segment(segment)

    def notes(self) -> list[str]:
        notes = []
        if self.cut:
            notes.append(f"{self.cut} more segments are not shown: too many to be sound")
        if self.outside and self.dump.contained is not DumpFormat.KDUMP:
            notes.append("a hypervisor's dump: it never sets PF_DEV and leaves nothing out")
        return notes

    def lacks(self) -> list[str]:
        lacks = []
        if self.dump.contained is DumpFormat.KDUMP:
            told = " and ".join(self.machine.pmem_sources) or "nothing"
            lacks.append(
                "kdump-compressed: p_flags are gone; ranges are those of the page bitmap, "
                f"what is pmem is told from {told}"
            )
        if self.dump.truncated:
            lacks.append("the file is cut short or marked incomplete: see the truncated bytes")
        return lacks

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
            segment.index,
            segment.type,
            physical,
            segment.virtual,
            segment.file_offset,
            segment.file_size,
            segment.memory_size,
            segment.flags,
            segment.pmem,
            self._iomem(start, end) if use else (),
            tuple(namespace_names(self.machine, start, end)) if use else (),
            self._states(start, segment) if use else {},
            tuple(notes),
        )

    @cached_property
    def _plain(self) -> bool:
        """No segment lies over another, and the file has all that they promise."""
        counts = self.dump.coverage.count()
        covered = sum(size for state, size in counts.items() if state is not State.ABSENT)
        sizes = sum(s.memory_size for s in self.segments if s.physical is not None)
        return covered == sizes and not self.dump.truncated

    def _states(self, start: int, segment: Segment) -> dict[State, int]:
        size, saved = segment.memory_size, segment.file_size
        if not self._plain:
            return self.dump.coverage.count(start, start + size)
        # The same without a search each: a dump may have tens of thousands of segments.
        states = {State.SAVED: min(saved, size), State.EXCLUDED: max(0, size - saved)}
        return {state: count for state, count in states.items() if count}

    def _iomem(self, start: int, end: int) -> tuple[Resource, ...]:
        return tuple(r for r in self.machine.iomem if r.start < end and start <= r.end)

    def _contradictions(self, start: int, end: int, flagged: bool) -> Iterator[str]:
        pmem = self.machine.pmem.size(start, end)
        device = self.machine.device_pmem.size(start, end)
        if device and not flagged and not self.outside:
            yield f"pmem without PF_DEV ({device} bytes)"
        known = bool(self.machine.iomem or self.machine.pmem)
        if flagged and pmem > device and not self.outside:
            yield f"{pmem - device} bytes were used as RAM (kmem): PF_DEV makes them user data"
        if flagged and known and pmem < end - start:
            what = "no pmem lies there" if not pmem else f"{end - start - pmem} bytes are no pmem"
            yield f"PF_DEV without pmem ({what})"
        if not self.outside:
            yield from self._reserved(start, end)

    def _reserved(self, start: int, end: int) -> Iterator[str]:
        for part in self.reserved.overlap(start, end):
            yield (
                f"overlaps the crash kernel's reservation at {part.start:#x}-{part.end:#x}: "
                "what it holds was overwritten"
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
                    index,
                    "bitmap",
                    part.start,
                    None,
                    None,
                    states.get(State.SAVED, 0),
                    part.size,
                    None,
                    pmem if self.machine.pmem_sources else None,
                    self._iomem(part.start, part.end),
                    tuple(namespace_names(self.machine, part.start, part.end)),
                    states,
                    () if self.outside else tuple(self._reserved(part.start, part.end)),
                )
                index += 1


def _loader_of_kernel(prog: Program, area: Range | None) -> str | None:
    if area is not None:
        return "firmware-assisted dump"
    try:
        image = crash_image(prog)
    except (PmemError, FaultError):
        return None
    if image is None:
        return None
    return "kexec_file_load" if image.file_mode else "kexec-tools"


def _fadump_area(prog: Program) -> Range | None:
    """Where the firmware keeps the dump that the crashed kernel had registered; None if none."""
    try:
        conf = fw_dump(prog)
    except (PmemError, FaultError):
        return None
    if not conf.registered or not 0 < conf.reserve_size < 1 << 64:
        return None
    return Range(conf.reserve_start, conf.reserve_end)


def guess_loader(
    dump: DumpFile, by_kernel: str | None = None, segments: Sequence[Segment] | None = None
) -> Loader:
    """
    Who wrote the headers, by their order.

    Both put the kernel image first. kexec_file_load then has RAM (on x86_64 without the first MiB)
    and appends persistent memory after all of it (``walk_pmem_res()`` runs last); kexec-tools
    follows ``/proc/iomem``, so persistent memory stands between RAM, and it has the first MiB.

    :param by_kernel: What the crashed kernel says, to go with it.
    :param segments: Those of the dump, where they have been read.
    """

    def loader(who: str | None, reason: str) -> Loader:
        return Loader(who, reason, by_kernel)

    if dump.hypervisor:
        if any(note.name == b"QEMU" for note in dump.notes):
            return loader("QEMU", "the dump has QEMU's notes")
        return loader("QEMU", "no segment has flags, as in QEMU's dumps")
    if dump.contained is DumpFormat.KDUMP:
        return loader(None, "kdump-compressed keeps no program headers")
    places = [s for s in segments or dump.segments if s.physical is not None and s.memory_size]
    direct = places[1:]  # the kernel image lies inside RAM, out of order
    order, why = _by_pmem(direct)
    if dump.machine in ("EM_X86_64", "x86_64") and direct:
        low = any(s.physical is not None and s.physical < _LOW for s in direct)
        who = "kexec-tools" if low else "kexec_file_load"
        reason = f"the first MiB of memory has {'a' if low else 'no'} segment"
        if order == who:
            reason = f"{why}; {reason}"
        elif order is not None:
            return loader(None, f"{reason}, as of {who}, but {why}, as of {order}")
        return loader(who, reason)
    if order is not None:
        return loader(order, why)
    return loader(None, "their order does not tell who wrote them")


def _by_pmem(segments: list[Segment]) -> tuple[str | None, str]:
    """Who wrote the headers, by where pmem stands among RAM and pmem."""
    pmem = [s for s in segments if s.pmem]
    if not pmem or len(pmem) > _MAX_PMEM:
        return None, ""
    # RAM on pmem (dax/kmem) carries PF_DEV among the RAM too, and comes again with its region:
    # /proc/iomem has it below that.
    ram = {inner.index for inner in pmem for outer in pmem if _is_part(inner, outer)}
    places = [(s.physical or 0, s.pmem and s.index not in ram) for s in segments]
    first = next((number for number, (_, flag) in enumerate(places) if flag), len(places))
    top = max((physical for physical, _ in places[:first]), default=0)
    if not all(flag for _, flag in places[first:]):
        return "kexec-tools", "pmem stands between RAM, in the order of /proc/iomem"
    if any(physical < top for physical, _ in places[first:]):
        return "kexec_file_load", "pmem stands after RAM that lies above it"
    return None, ""


def _is_part(inner: Segment, outer: Segment) -> bool:
    """Whether a segment lies in another, larger one."""
    start, base = inner.physical or 0, outer.physical or 0
    return (
        base <= start
        and start + inner.memory_size <= base + outer.memory_size
        and inner.memory_size < outer.memory_size
    )


def _missing_ram(
    dump: DumpFile, machine: MachineMap, loader: Loader, area: Range | None
) -> tuple[list[Range], list[str]]:
    """RAM of iomem that the dump does not cover, without what is left out on purpose."""
    kept = RangeSet([area] if area else [])
    reserved = RangeSet([*kept.ranges, *(Range(r.start, r.end) for r in machine.reservations)])
    x86 = dump.machine in ("EM_X86_64", "x86_64")
    by_file = "kexec_file_load" in (loader.by_order, loader.by_kernel)
    missing, low, own = [], 0, 0
    for ram in machine.system_ram.ranges:
        for part in dump.coverage.ranges(ram.start, ram.end):
            if part.state is not State.ABSENT:
                continue
            own += kept.size(part.start, part.end)
            for gap in reserved.gaps(part.start, part.end):
                if x86 and gap.end <= _LOW and by_file:
                    low += gap.size
                elif gap.size >= _PAGE:
                    missing.append(gap)
    notes = [f"RAM {r.start:#x}-{r.end:#x} ({r.size} bytes) is not in the dump" for r in missing]
    if low:
        notes.append(
            f"{low} bytes of RAM below 1 MiB are not in the dump: kexec_file_load leaves them out"
        )
    if own:
        notes.append(
            f"{own} bytes of RAM are not in the dump: firmware-assisted dump had reserved them, to "
            "keep the dump there"
        )
    return missing, notes
