# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Map of the machine
------------------

What physical memory was which: persistent memory from iomem, the regions and the page maps,
namespaces, the crash kernel's reservation, RAM. Every source may be missing; without debug info
persistent memory is what the dump file itself marks with ``PF_DEV``.
"""

from collections.abc import Sequence
import contextlib
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
from drgn_pmem.kernel.kmod import has_kernel_debug_info
from drgn_pmem.kernel.mmu import physical_end
from drgn_pmem.kernel.namespace import Namespace, for_each_namespace
from drgn_pmem.kernel.pgmap import for_each_pgmap
from drgn_pmem.kernel.region import for_each_region
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.ranges import Range, RangeSet
from drgn_pmem.record import Record

__all__ = ("MachineMap", "namespace_names", "read_machine")

_CACHE_KEY = "drgn_pmem.machine"

_NAMESPACE_NAME = re.compile(r"namespace\d+\.\d+")


class MachineMap(Record):
    """Physical memory of the crashed machine."""

    iomem: list[Resource]
    pmem: RangeSet
    """Persistent memory, by every source."""
    pmem_sources: tuple[str, ...]
    """Those sources: ``"iomem"``, ``"regions"``, ``"page maps"``, ``"PF_DEV"``."""
    lost_sources: tuple[str, ...] = ()
    """Those that the dump does not hold in full: there may be more persistent memory, and without
    ``"iomem"`` more RAM. Debug info of modules does not count: iomem has the same facts."""
    namespaces: list[Namespace]
    """Those with capacity; empty without debug info of libnvdimm."""
    reservations: list[NamedRange]
    """Of the crash kernel."""
    reservations_known: bool = True

    @cached_property
    def system_ram(self) -> RangeSet:
        """RAM by iomem, any depth: hotplugged RAM on pmem (``System RAM (kmem)``) included."""
        return RangeSet(
            Range(r.start, r.end + 1)
            for r in self.iomem
            if r.flags & IORESOURCE_SYSTEM_RAM == IORESOURCE_SYSTEM_RAM
        )

    @cached_property
    def cxl(self) -> RangeSet:
        """Memory behind CXL host bridges (drivers/cxl/acpi.c, ``add_cxl_resources()``)."""
        return RangeSet(r.range for r in self.iomem if (r.name or "").startswith("CXL Window"))

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
        if r.name and _NAMESPACE_NAME.fullmatch(r.name) and r.start < end and start <= r.end
    ]


def _flagged(prog: Program) -> list[Range]:
    """What PF_DEV marks. To be checked against the kernel, so it counts only without one."""
    # not a problem: memory without a file has no flags
    with contextlib.suppress(DumpFileError):
        return [
            Range(s.physical, s.physical + s.memory_size)
            for s in dump_of(prog).segments
            if s.pmem and s.physical is not None
        ]
    return []


def _possible(
    prog: Program, source: str, ranges: Sequence[Range], problems: Problems
) -> list[Range]:
    """The ranges that can be physical memory; what ends after all of it is damaged."""
    most = physical_end(prog)
    found = []
    for item in ranges:
        if item.start < item.end <= most:
            found.append(item)
        elif item.start != item.end:
            why = (
                f"persistent memory at {item.start:#x}-{item.end:#x} was left out, because "
                f"physical memory ends at {most:#x}"
            )
            problems.add(Problem(cause=Cause.DAMAGED, what=source, why=why))
    return found


def _is_of_namespace(own: Range, resources: Partial[Any], iomem: Sequence[Resource]) -> bool:
    """
    Whether memory of a page map for a DAX file system is that of a namespace, which requests it by
    its name; virtiofs' DAX window, memory of the host, has such a page map, too.

    :param resources: Whether they are all that there are.
    """
    if not resources.complete:
        return True
    around = (r for r in iomem if r.start < own.end and own.start <= r.end)
    return any(_NAMESPACE_NAME.fullmatch(r.name or "") for r in around)


def _is_lost(partial: Partial[Any]) -> bool:
    return any(p.degrades and p.cause is not Cause.NO_DEBUG_INFO for p in partial.problems)


def read_machine(prog: Program) -> Partial[MachineMap]:
    """The map; kept in ``prog.cache``."""
    cached: Partial[MachineMap] | None = prog.cache.get(_CACHE_KEY)
    if cached is None:
        cached = prog.cache[_CACHE_KEY] = _read(prog)
    return cached


def _read(prog: Program) -> Partial[MachineMap]:
    problems = Problems()
    resources = for_each_iomem(prog)
    iomem = problems.take(resources)
    if not has_kernel_debug_info(prog):
        # One line about that is enough.
        flagged = _flagged(prog)
        return problems.partial(
            MachineMap(
                iomem=[],
                pmem=RangeSet(flagged),
                pmem_sources=("PF_DEV",) if flagged else (),
                namespaces=[],
                reservations=[],
                reservations_known=False,
            )
        )
    all_regions, all_pgmaps = for_each_region(prog), for_each_pgmap(prog)
    regions = [r.range for r in problems.take(all_regions) if r.type == "pmem"]
    pgmaps = problems.take(all_pgmaps)
    read = {"iomem": resources, "regions": all_regions, "page maps": all_pgmaps}
    # With capacity: the only namespace of a region without labels (e820, virtio-pmem) is also what
    # the kernel calls its seed.
    namespaces = [n for n in problems.take(for_each_namespace(prog)) if n.raw_size > 0]
    namespaces.sort(key=lambda n: n.resource)
    sources: dict[str, Sequence[Range]] = {
        "iomem": [r.range for r in iomem if r.desc in PERSISTENT_MEMORY],
        "regions": regions,
        "page maps": [
            r
            for p in pgmaps
            if p.is_fsdax
            for r in p.ranges
            if _is_of_namespace(r, resources, iomem)
        ],
    }
    sources = {name: _possible(prog, name, ranges, problems) for name, ranges in sources.items()}
    reservations = problems.attempt(
        "memory of the crash kernel", lambda: list(crash_reservations(prog))
    )
    return problems.partial(
        MachineMap(
            iomem=iomem,
            pmem=RangeSet(item for ranges in sources.values() for item in ranges),
            pmem_sources=tuple(name for name, ranges in sources.items() if ranges),
            lost_sources=tuple(name for name, partial in read.items() if _is_lost(partial)),
            namespaces=namespaces,
            reservations=reservations or [],
            reservations_known=reservations is not None,
        )
    )
