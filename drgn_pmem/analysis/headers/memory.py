# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Memory that a crash header covers
---------------------------------

Which physical ranges the kernel, or kexec-tools, puts into an elfcorehdr, in its order and with its
exclusions, from the state of the crashed kernel.

Sources: arch/x86/kernel/crash.c (``prepare_elf_headers()``), arch/powerpc/kexec/ranges.c
(``get_crash_memory_ranges()``; before 6.11 in file_load_64.c), arch/arm64/kernel/
machine_kexec_file.c (``prepare_elf_headers()``); kexec-tools' kexec/arch/i386/crashdump-x86.c and
kexec/crashdump-elf.c for kexec_load.
"""

from collections.abc import Callable, Sequence
import dataclasses
from dataclasses import dataclass

from drgn import Program

from drgn_pmem.errors import NotFound
from drgn_pmem.formats.elfcorehdr import PF_DEV, PF_RWX
from drgn_pmem.formats.elfprepare import CrashRange, crash_exclude_mem_range
from drgn_pmem.kernel.iomem import (
    IORESOURCE_BUSY,
    IORESOURCE_SYSTEM_RAM,
    Resource,
    for_each_iomem,
)
from drgn_pmem.kernel.kexec import CrashImage, NamedRange, crash_reservations
from drgn_pmem.kernel.memblock import for_each_mem_range

__all__ = (
    "CrashMemory",
    "crash_memory",
    "kexec_tools_memory",
    "system_ram",
)

_LOW_1M = NamedRange("low 1M", 0, 1 << 20)
"""Always reserved on x86_64 since 5.5, and always left out."""

_PPC64_BACKUP = 1 << 16
"""``BACKUP_SRC_SIZE``: the capture kernel needs the first 64 KiB, they are copied away."""


@dataclass(frozen=True)
class CrashMemory:
    """Ranges of a crash header, and how they came about."""

    ranges: tuple[CrashRange, ...]
    cut_wrongly: tuple[NamedRange, ...] = ()
    """Exclusions of which the kernel's own algorithm leaves a part in."""
    order: str = "kernel"


def system_ram(resources: Sequence[Resource]) -> list[CrashRange]:
    """
    What ``walk_system_ram_res()`` visits: busy System RAM of any depth and descriptor, each byte
    once.

    Source: ``find_next_iomem_res()`` in kernel/resource.c.

    :param resources: All of iomem, parents before children.
    """
    flags = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY
    return _walk(resources, lambda resource: resource.flags & flags == flags)


def _walk(resources: Sequence[Resource], wanted: Callable[[Resource], bool]) -> list[CrashRange]:
    ranges = []
    start = 0
    for resource in resources:
        if resource.end < start or not wanted(resource):
            continue
        ranges.append(CrashRange(max(start, resource.start), resource.end + 1))
        start = resource.end + 1
    return ranges


def _pmem_resources(resources: Sequence[Resource]) -> list[Resource]:
    return [r for r in resources if r.desc == "IORES_DESC_PERSISTENT_MEMORY"]


def _mark(ranges: Sequence[CrashRange], resources: Sequence[Resource]) -> tuple[CrashRange, ...]:
    """The patch marks every range that begins in persistent memory, also what is RAM by now: the
    "System RAM (kmem)" of a dax device."""
    pmem = _pmem_resources(resources)
    return tuple(
        dataclasses.replace(item, flags=PF_RWX | PF_DEV)
        if any(r.start <= item.start <= r.end for r in pmem)
        else item
        for item in ranges
    )


def crash_memory(prog: Program, arch: str, image: CrashImage | None, *, pmem: bool) -> CrashMemory:
    """
    Memory that ``kexec_file_load()`` and crash hotplug put into an elfcorehdr, as of the crash.

    :param arch: ``"x86_64"``, ``"ppc64"`` or ``"aarch64"``
    :param pmem: Whether this kernel adds persistent memory (the RFC's patch).
    :raises NotFound: for another architecture
    """
    if arch == "ppc64":
        return _ppc64(prog, image)
    if arch not in ("x86_64", "aarch64"):
        raise NotFound(f"how {arch} builds its elfcorehdr is not known here")
    resources = list(for_each_iomem(prog)) if pmem or arch == "x86_64" else []
    if arch == "x86_64":
        ranges, reservations = system_ram(resources), [_LOW_1M, *crash_reservations(prog)]
    else:
        ranges = [CrashRange(r.start, r.end) for r in for_each_mem_range(prog)]
        reservations = crash_reservations(prog)
    if pmem:
        wanted = _pmem_resources(resources)
        ranges += _walk(resources, lambda resource: resource in wanted)
    memory = _exclude(ranges, reservations)
    return dataclasses.replace(memory, ranges=_mark(memory.ranges, resources)) if pmem else memory


def _exclude(ranges: list[CrashRange], exclusions: list[NamedRange]) -> CrashMemory:
    """
    Cut the exclusions out one after the other, as the kernel does.

    Kernels before 6.9 stop an exclusion at the first range that it cuts but does not remove, so one
    that spans two ranges leaves a part in. Nothing in the debug info tells the two algorithms
    apart; where they differ, the exclusion is named.
    """
    wrongly = []
    for exclusion in exclusions:
        new = crash_exclude_mem_range(ranges, exclusion.start, exclusion.end)
        old = crash_exclude_mem_range(ranges, exclusion.start, exclusion.end, stop_at_partial=True)
        if old != new:
            wrongly.append(exclusion)
        ranges = new
    return CrashMemory(tuple(ranges), tuple(wrongly))


def _ppc64(prog: Program, image: CrashImage | None) -> CrashMemory:
    ranges = []
    for region in for_each_mem_range(prog):
        start = region.start
        if start == 0:
            # the backup region gets an entry of its own
            start = min(_PPC64_BACKUP, region.end)
        if start < region.end:
            ranges.append(CrashRange(start, region.end))
    memory = _exclude(ranges, crash_reservations(prog))
    offset = image.backup_start if image is not None else None
    # add_mem_range() widens a range that overlaps instead of adding one: RTAS lies in memory, so
    # it is almost never a range of its own.
    ranges = list(memory.ranges)
    rtas = rtas_range(prog)
    if rtas is not None:
        ranges = _add_range(ranges, rtas)
    ranges.append(CrashRange(0, _PPC64_BACKUP, offset=offset))
    return dataclasses.replace(memory, ranges=tuple(sorted(ranges, key=lambda r: r.start)))


def _add_range(ranges: list[CrashRange], added: NamedRange) -> list[CrashRange]:
    for index, item in enumerate(ranges):
        if added.start < item.end - 1 and added.end - 1 > item.start:
            ranges[index] = dataclasses.replace(
                item, start=min(item.start, added.start), end=max(item.end, added.end)
            )
            return ranges
    return [*ranges, CrashRange(added.start, added.end)]


def rtas_range(prog: Program) -> NamedRange | None:
    """
    Where the firmware's run-time services are (ppc64), None if there are none.

    Source: ``struct rtas_t`` in arch/powerpc/include/asm/rtas.h.
    """
    try:
        rtas = prog["rtas"]
        base, size = rtas.base.value_(), rtas.size.value_()
    except (LookupError, AttributeError):
        return None
    return NamedRange("RTAS", base, base + size) if base and size else None


def kexec_tools_memory(prog: Program, arch: str) -> CrashMemory:
    """
    Memory that kexec-tools puts into the elfcorehdr of kexec_load, as of the crash.

    It takes every line of ``/proc/iomem`` with "System RAM" in it and cuts out what is called
    "Crash kernel"; the low megabyte stays, its first range as the backup region.

    :raises NotFound: for another architecture than x86_64
    """
    if arch != "x86_64":
        raise NotFound(f"how kexec-tools builds an elfcorehdr for {arch} is not known here")
    resources = list(for_each_iomem(prog))
    ranges = [CrashRange(r.start, r.end + 1) for r in resources if "System RAM" in r.name]
    for resource in resources:
        if resource.name == "Crash kernel":
            ranges = crash_exclude_mem_range(ranges, resource.start, resource.end + 1)
    return CrashMemory(tuple(ranges), order="kexec-tools")
