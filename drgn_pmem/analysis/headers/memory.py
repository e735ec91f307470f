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

from drgn import FaultError, Program

from drgn_pmem.errors import NotFound
from drgn_pmem.formats.architecture import AARCH64, PPC64, X86_64, Architecture
from drgn_pmem.formats.elfcorehdr import PF_DEV, PF_RWX
from drgn_pmem.formats.elfprepare import CrashRange, crash_exclude_mem_range
from drgn_pmem.kernel.debuginfo import has_variable
from drgn_pmem.kernel.iomem import (
    IORESOURCE_BUSY,
    IORESOURCE_SYSTEM_RAM,
    Resource,
    for_each_iomem,
)
from drgn_pmem.kernel.kexec import (
    BackupRegion,
    CrashImage,
    NamedRange,
    crash_reservations,
    keeps_backup_region,
)
from drgn_pmem.kernel.memblock import for_each_mem_range
from drgn_pmem.partial import NotSaved
from drgn_pmem.record import Record

__all__ = (
    "CrashMemory",
    "crash_memory",
    "kexec_tools_memory",
    "system_ram",
)

_LOW_1M = NamedRange(name="low 1M", start=0, end=1 << 20)
"""Always reserved on x86_64 since 5.5, and always left out."""

_PPC64_BACKUP = 1 << 16
"""``BACKUP_SRC_SIZE``: the capture kernel needs the first 64 KiB, so they are copied away."""


class CrashMemory(Record):
    """Ranges of a crash header, and exclusions that the kernel may have cut out wrongly."""

    ranges: tuple[CrashRange, ...]
    cut_wrongly: tuple[NamedRange, ...] = ()
    """Exclusions of which the kernel's algorithm leaves a part in the header."""


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
        ranges.append(CrashRange(start=max(start, resource.start), end=resource.end + 1))
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


def crash_memory(
    prog: Program, arch: Architecture | None, image: CrashImage | None, *, pmem: bool
) -> CrashMemory:
    """
    Memory that ``kexec_file_load()`` and crash hotplug put into an elfcorehdr, as of the crash.

    :param pmem: Whether this kernel adds persistent memory (the RFC's patch).
    :raises NotFound: for another architecture
    :raises Incomplete: if the memory map or the reservations cannot be read in full
    """
    if arch == PPC64:
        return _ppc64(prog, image)
    if arch not in (X86_64, AARCH64):
        raise NotFound(f"how {_name(arch)} builds its elfcorehdr is not supported")
    resources = for_each_iomem(prog).whole() if pmem or arch == X86_64 else []
    exclusions = crash_reservations(prog).whole()
    backup: BackupRegion | None = None
    if arch == X86_64:
        ranges = system_ram(resources)
        if keeps_backup_region(prog):
            backup = image.backup if image is not None else None
        else:
            exclusions = [_LOW_1M, *exclusions]
    else:
        ranges = [CrashRange(start=r.start, end=r.end) for r in for_each_mem_range(prog).whole()]
    if pmem:
        wanted = _pmem_resources(resources)
        ranges += _walk(resources, lambda resource: resource in wanted)
    memory = _exclude(ranges, exclusions)
    if backup is not None:
        memory = dataclasses.replace(memory, ranges=_saved_elsewhere(memory.ranges, backup))
    return dataclasses.replace(memory, ranges=_mark(memory.ranges, resources)) if pmem else memory


def _name(arch: Architecture | None) -> str:
    return "this architecture" if arch is None else arch.name


def _saved_elsewhere(
    ranges: tuple[CrashRange, ...], backup: BackupRegion
) -> tuple[CrashRange, ...]:
    """The range that is the backup region is read from where it was copied to:
    prepare_elf_headers() of kernels before 5.5 changes its ``p_offset``."""
    return tuple(
        dataclasses.replace(item, offset=backup.physical)
        if (item.start, item.end - item.start) == (backup.start, backup.size)
        else item
        for item in ranges
    )


def _exclude(ranges: list[CrashRange], exclusions: list[NamedRange]) -> CrashMemory:
    """
    Cut the exclusions out one after the other, as the kernel does.

    Kernels before 6.9 stop an exclusion at the first range that it cuts but does not remove, so one
    that spans two ranges leaves a part in. Nothing in the debug info distinguishes the two
    algorithms; where they differ, the exclusion is named.
    """
    wrongly = []
    for exclusion in exclusions:
        new = crash_exclude_mem_range(ranges, exclusion.start, exclusion.end)
        old = crash_exclude_mem_range(ranges, exclusion.start, exclusion.end, stop_at_partial=True)
        if old != new:
            wrongly.append(exclusion)
        ranges = new
    return CrashMemory(ranges=tuple(ranges), cut_wrongly=tuple(wrongly))


def _ppc64(prog: Program, image: CrashImage | None) -> CrashMemory:
    ranges = []
    for region in for_each_mem_range(prog).whole():
        start = region.start
        if start == 0:
            # the backup region gets an entry of its own
            start = min(_PPC64_BACKUP, region.end)
        if start < region.end:
            ranges.append(CrashRange(start=start, end=region.end))
    memory = _exclude(ranges, crash_reservations(prog).whole())
    backup = image.backup if image is not None else None
    # add_mem_range() widens a range that overlaps instead of adding one: RTAS is in memory, so
    # it is almost never a range of its own.
    ranges = list(memory.ranges)
    rtas = rtas_range(prog)
    if rtas is not None:
        ranges = _add_range(ranges, rtas)
    offset = None if backup is None else backup.physical
    ranges.append(CrashRange(start=0, end=_PPC64_BACKUP, offset=offset))
    return dataclasses.replace(memory, ranges=tuple(sorted(ranges, key=lambda r: r.start)))


def _add_range(ranges: list[CrashRange], added: NamedRange) -> list[CrashRange]:
    for index, item in enumerate(ranges):
        if added.start < item.end - 1 and added.end - 1 > item.start:
            ranges[index] = dataclasses.replace(
                item, start=min(item.start, added.start), end=max(item.end, added.end)
            )
            return ranges
    return [*ranges, CrashRange(start=added.start, end=added.end)]


def rtas_range(prog: Program) -> NamedRange | None:
    """
    Where the firmware's run-time services are (ppc64), None if there are none.

    Source: ``struct rtas_t`` in arch/powerpc/include/asm/rtas.h; powernv kernels without pseries
    support have no such variable.

    :raises NotSaved: if that cannot be read
    """
    if not has_variable(prog, "rtas"):
        return None
    try:
        rtas = prog["rtas"]
        base, size = rtas.base.value_(), rtas.size.value_()
    except FaultError as error:
        raise NotSaved(f"rtas: {error}") from None
    return NamedRange(name="RTAS", start=base, end=base + size) if base and size else None


def kexec_tools_memory(prog: Program, arch: Architecture | None) -> CrashMemory:
    """
    Memory that kexec-tools puts into the elfcorehdr of kexec_load, as of the crash.

    Of x86_64 it takes every line of ``/proc/iomem`` with "System RAM" in it, of aarch64 those that
    are that, without RAM of dax devices; and cuts out what is called "Crash kernel". On x86_64 the
    low megabyte stays, its first range as the backup region.

    Source: ``crash_get_memory_ranges()`` in kexec-tools' kexec/arch/i386/crashdump-x86.c and
    kexec/arch/arm64/crashdump-arm64.c.

    :raises NotFound: for another architecture
    :raises Incomplete: if the memory map cannot be read in full
    """
    if arch not in (X86_64, AARCH64):
        raise NotFound(f"how kexec-tools builds an elfcorehdr for {_name(arch)} is not supported")
    resources = for_each_iomem(prog).whole()
    ranges = [
        CrashRange(start=r.start, end=r.end + 1)
        for r in resources
        if (r.name == "System RAM" if arch == AARCH64 else "System RAM" in (r.name or ""))
    ]
    for resource in resources:
        if resource.name == "Crash kernel":
            ranges = crash_exclude_mem_range(ranges, resource.start, resource.end + 1)
    return CrashMemory(ranges=tuple(ranges))
