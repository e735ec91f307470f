# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Map of the machine
------------------

What physical memory was which, as far as the dump tells: persistent memory from iomem, the regions
and the page maps, namespaces, the crash kernel's reservation, RAM. Every source may be missing;
with no debug info at all, persistent memory is what the dump file itself marks with ``PF_DEV``.
"""

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
from drgn_pmem.kernel.pgmap import for_each_pgmap
from drgn_pmem.kernel.region import for_each_region
from drgn_pmem.kernel.walk import collect
from drgn_pmem.ranges import Range, RangeSet

__all__ = ("MachineMap", "namespace_names", "read_machine")

_CACHE_KEY = "drgn_pmem.machine"

_NAMESPACE_NAME = re.compile(r"namespace\d+\.\d+")


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
            r.range for r in self.iomem if r.flags & IORESOURCE_SYSTEM_RAM == IORESOURCE_SYSTEM_RAM
        )

    @cached_property
    def device_pmem(self) -> RangeSet:
        """Persistent memory without what the kernel used as RAM: what PF_DEV is for."""
        return self.pmem.subtract(self.system_ram)


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


def _flagged(prog: Program) -> list[Range]:
    """What PF_DEV marks. To be checked against the kernel, so it counts only without one."""
    with contextlib.suppress(DumpFileError):
        return [
            Range(s.physical, s.physical + s.memory_size)
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
    sources: dict[str, Sequence[Range]] = {
        "iomem": [r.range for r in iomem if r.desc in PERSISTENT_MEMORY],
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
