# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
memblock
--------

The boot-time map of memory. ppc64 and arm64 keep it and build their crash headers from it; x86_64
frees it after boot. Source: ``struct memblock`` in include/linux/memblock.h.
"""

from typing import Any

from drgn import FaultError, Object, Program

from drgn_pmem.errors import MissingDebugInfo, NotFound
from drgn_pmem.kernel.debuginfo import find_variable
from drgn_pmem.partial import Partial, Problems, WalkError
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "MEMBLOCK_NOMAP",
    "MemblockRegion",
    "for_each_mem_range",
    "for_each_memblock_region",
    "memblock_is_kept",
)

MEMBLOCK_NOMAP = 0x4
"""``enum memblock_flags``: not in the kernel's direct map, so never in a crash header."""

_MAX_REGIONS = 1 << 16


class MemblockRegion(Record):
    """One ``struct memblock_region``."""

    start: int = shown(Show.ADDRESS)
    """First byte, physical."""
    end: int = shown(Show.ADDRESS, json=False)
    """End, exclusive."""
    flags: int
    """``MEMBLOCK_*``"""

    @property
    def size(self) -> int:
        """bytes"""
        return self.end - self.start

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "size": self.size}


def memblock_is_kept(prog: Program) -> bool:
    """
    Whether ``memblock`` outlives the boot (``CONFIG_ARCH_KEEP_MEMBLOCK``): without that it is in
    the init section, whose pages the kernel frees.

    :raises MissingDebugInfo: without debug info or symbol table of vmlinux
    """
    memblock = find_variable(prog, "memblock", "vmlinux").address_
    try:
        start, end = prog.symbol("__init_begin").address, prog.symbol("__init_end").address
    except LookupError:
        raise MissingDebugInfo(
            "whether the kernel kept memblock after boot is unknown: the symbol table of vmlinux "
            "is not loaded (-s VMLINUX)",
            "vmlinux",
        ) from None
    return memblock is not None and not start <= memblock < end


def for_each_memblock_region(prog: Program) -> Partial[list[MemblockRegion]]:
    """
    Regions of ``memblock.memory``, in address order.

    :raises NotFound: if this kernel freed memblock after boot
    :raises MissingDebugInfo: without debug info or symbol table of vmlinux
    """
    problems = Problems()
    if not memblock_is_kept(prog):
        raise NotFound("this kernel freed memblock after boot; /proc/iomem has its memory map")
    regions: list[MemblockRegion] = []
    with problems.trying("memblock.memory"):
        table = find_variable(prog, "memblock", "vmlinux").memory
        count = table.cnt.value_()
        # cnt is checked against max too: either of the two may be damaged
        if count > min(table.max.value_(), _MAX_REGIONS):
            raise WalkError(f"implausible count {count}: more regions than fit")
        for index in range(count):
            try:
                region = table.regions[index].read_()
            except FaultError as error:
                raise WalkError(f"stopped after {index} regions: {error}") from None
            regions.append(_region(region))
    return problems.partial(regions)


def _region(region: Object) -> MemblockRegion:
    start = region.base.value_()
    return MemblockRegion(
        start=start,
        end=start + region.size.value_(),
        flags=region.flags.value_(),
    )


def for_each_mem_range(prog: Program) -> Partial[list[MemblockRegion]]:
    """
    What the kernel's ``for_each_mem_range()`` yields: memory, without ``MEMBLOCK_NOMAP``.

    Source: mm/memblock.c, ``should_skip_region()``.

    :raises NotFound: if this kernel freed memblock after boot
    :raises MissingDebugInfo: without debug info or symbol table of vmlinux
    """
    return for_each_memblock_region(prog).map(
        lambda regions: [region for region in regions if not region.flags & MEMBLOCK_NOMAP]
    )
