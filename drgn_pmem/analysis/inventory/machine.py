# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Map of the machine
------------------

What physical memory was which, as far as the dump tells: persistent memory from iomem, the regions
and the page maps, namespaces, the crash kernel's reservation, RAM. Every source may be missing;
with no debug info at all, persistent memory is what the dump file itself marks with ``PF_DEV``.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
import contextlib
from dataclasses import dataclass, field
from functools import cached_property
import re
from typing import Any

from drgn import Program

from drgn_pmem.dumpfile import dump_of
from drgn_pmem.errors import DumpFileError
from drgn_pmem.kernel.iomem import (
    IORESOURCE_SYSTEM_RAM,
    PERSISTENT_MEMORY,
    Resource,
    for_each_iomem,
)
from drgn_pmem.kernel.kexec import NamedRange, crash_reservations
from drgn_pmem.kernel.namespace import Namespace, for_each_namespace
from drgn_pmem.kernel.pgmap import PhysicalRange, for_each_pgmap
from drgn_pmem.kernel.region import for_each_region
from drgn_pmem.kernel.walk import collect

__all__ = ("MachineMap", "RangeSet", "merge_ranges", "namespace_names", "read_machine")

_CACHE_KEY = "drgn_pmem.machine"

_NAMESPACE_NAME = re.compile(r"namespace\d+\.\d+")


def merge_ranges(ranges: Iterable[PhysicalRange]) -> list[PhysicalRange]:
    """Ordered, empty ones dropped, overlapping ones joined; adjacent ones (two regions) are not."""
    merged: list[PhysicalRange] = []
    for item in sorted(ranges, key=lambda r: r.start):
        if item.start >= item.end:
            continue
        if merged and item.start < merged[-1].end:
            merged[-1] = PhysicalRange(merged[-1].start, max(merged[-1].end, item.end))
        else:
            merged.append(item)
    return merged


class RangeSet:
    """Physical ranges, for questions about overlap: a binary search each."""

    def __init__(self, ranges: Iterable[PhysicalRange]) -> None:
        self.ranges = merge_ranges(ranges)
        self._starts = [r.start for r in self.ranges]

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def overlap(self, start: int, end: int) -> list[PhysicalRange]:
        """The parts of ``[start, end)`` that are in the set, in order."""
        parts: list[PhysicalRange] = []
        if not self.ranges:
            return parts
        for item in self.ranges[max(0, bisect_right(self._starts, start) - 1) :]:
            if item.start >= end:
                break
            low, high = max(start, item.start), min(end, item.end)
            if low < high:
                parts.append(PhysicalRange(low, high))
        return parts

    def size(self, start: int, end: int) -> int:
        """Bytes of ``[start, end)`` that are in the set."""
        return sum(part.size for part in self.overlap(start, end))

    def gaps(self, start: int, end: int) -> list[PhysicalRange]:
        """The parts of ``[start, end)`` that are not in the set, in order."""
        gaps = []
        for part in self.overlap(start, end):
            if start < part.start:
                gaps.append(PhysicalRange(start, part.start))
            start = part.end
        if start < end:
            gaps.append(PhysicalRange(start, end))
        return gaps


@dataclass(frozen=True)
class MachineMap:
    """Physical memory of the crashed machine."""

    iomem: list[Resource]
    pmem: RangeSet
    """Persistent memory, from whatever source there is."""
    pmem_sources: tuple[str, ...]
    """What tells it: ``"iomem"``, ``"regions"``, ``"page maps"``, ``"PF_DEV"``."""
    namespaces: list[Namespace]
    """Those with capacity; empty without debug info of libnvdimm."""
    reservations: list[NamedRange]
    """Of the crash kernel."""
    problems: list[str] = field(default_factory=list)
    """What could not be read, in words."""

    @cached_property
    def system_ram(self) -> RangeSet:
        """RAM by iomem, any depth: hotplugged RAM on pmem (``System RAM (kmem)``) included."""
        return RangeSet(
            PhysicalRange(r.start, r.end + 1)
            for r in self.iomem
            if r.flags & IORESOURCE_SYSTEM_RAM == IORESOURCE_SYSTEM_RAM
        )

    @cached_property
    def device_pmem(self) -> RangeSet:
        """Persistent memory without what the kernel used as RAM: what PF_DEV is for."""
        ram = self.system_ram
        return RangeSet(gap for r in self.pmem.ranges for gap in ram.gaps(r.start, r.end))


def namespace_names(machine: MachineMap, start: int, end: int) -> list[str]:
    """
    Names of the namespaces that overlap a physical range; by iomem where libnvdimm cannot be read.

    :param end: exclusive
    """
    if machine.namespaces:
        return [n.dev for n in machine.namespaces if n.range.start < end and start < n.range.end]
    return [
        r.name
        for r in machine.iomem
        if _NAMESPACE_NAME.fullmatch(r.name) and r.start < end and start <= r.end
    ]


def _flagged(prog: Program) -> list[PhysicalRange]:
    """What PF_DEV marks. To be checked against the kernel, so it counts only without one."""
    with contextlib.suppress(DumpFileError):
        return [
            PhysicalRange(s.physical, s.physical + s.memory_size)
            for s in dump_of(prog).segments
            if s.pmem and s.physical is not None
        ]
    return []


def read_machine(prog: Program) -> MachineMap:
    """The map; kept in ``prog.cache``. Never raises for what the dump lacks."""
    cached = prog.cache.get(_CACHE_KEY)
    if cached is None:
        cached = prog.cache[_CACHE_KEY] = _read(prog)
    machine: MachineMap = cached
    return machine


def _read(prog: Program) -> MachineMap:
    problems: list[str] = []

    def read(walk: Callable[[Program], Iterable[Any]]) -> list[Any]:
        def entries() -> Iterable[Any]:
            yield from walk(prog)

        records, stopped = collect(entries())
        problems.extend(line for line in stopped if line not in problems)
        return records

    iomem = read(for_each_iomem)
    if problems and not iomem:
        # No debug info of the kernel itself: one line says it all.
        flagged = _flagged(prog)
        return MachineMap([], RangeSet(flagged), ("PF_DEV",) if flagged else (), [], [], problems)
    regions = [r.range for r in read(for_each_region) if r.type == "pmem"]
    pgmaps = [r for p in read(for_each_pgmap) if p.type.endswith("FS_DAX") for r in p.ranges]
    namespaces = [n for n in read(for_each_namespace) if n.raw_size > 0 and not n.seed]
    namespaces.sort(key=lambda n: n.resource)
    sources: dict[str, Sequence[PhysicalRange]] = {
        "iomem": [PhysicalRange(r.start, r.end + 1) for r in iomem if r.desc in PERSISTENT_MEMORY],
        "regions": regions,
        "page maps": pgmaps,
    }
    used = tuple(name for name, ranges in sources.items() if ranges)
    return MachineMap(
        iomem,
        RangeSet(item for ranges in sources.values() for item in ranges),
        used,
        namespaces,
        read(crash_reservations),
        problems,
    )
