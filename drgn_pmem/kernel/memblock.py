# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
memblock
--------

The boot-time map of memory. ppc64 and arm64 keep it for good and build their crash headers from it;
x86_64 throws it away after boot. Source: ``struct memblock`` in include/linux/memblock.h.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from drgn import FaultError, Object, Program

from drgn_pmem.errors import NotFound
from drgn_pmem.kernel.debuginfo import find_variable, has_member
from drgn_pmem.partial import WalkError

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


@dataclass(frozen=True)
class MemblockRegion:
    """One ``struct memblock_region``."""

    start: int
    """First byte, physical."""
    end: int
    """End, exclusive."""
    flags: int
    """``MEMBLOCK_*``"""

    @property
    def size(self) -> int:
        """bytes"""
        return self.end - self.start

    def to_json(self) -> dict[str, Any]:
        return {"start": f"{self.start:#x}", "size": self.size, "flags": self.flags}


def memblock_is_kept(prog: Program) -> bool:
    """
    Whether ``memblock`` outlives the boot (``CONFIG_ARCH_KEEP_MEMBLOCK``): without that it lies in
    the init section, whose pages the kernel has given away.
    """
    try:
        memblock = prog["memblock"].address_
        start, end = prog.symbol("__init_begin").address, prog.symbol("__init_end").address
    except LookupError:
        return False
    return memblock is not None and not start <= memblock < end


def for_each_memblock_region(prog: Program, kind: str = "memory") -> Iterator[MemblockRegion]:
    """
    Regions of ``memblock.memory`` or ``memblock.reserved``, in address order.

    :param kind: ``"memory"`` or ``"reserved"``
    :raises NotFound: if this kernel threw memblock away after boot
    :raises WalkError: after what could be read
    """
    memblock = find_variable(prog, "memblock", "vmlinux")
    if not memblock_is_kept(prog):
        raise NotFound("this kernel gave memblock away after boot; /proc/iomem has its memory map")
    table = memblock.member_(kind)
    try:
        count = table.cnt.value_()
    except FaultError as error:
        raise WalkError(f"memblock.{kind}: {error}") from None
    # cnt is checked against max too: one of the two may be what is damaged
    if count > min(table.max.value_(), _MAX_REGIONS):
        raise WalkError(f"memblock.{kind}: {count} regions are more than it can hold")
    for index in range(count):
        try:
            region = table.regions[index].read_()
        except FaultError as error:
            raise WalkError(f"memblock.{kind}: stopped after {index} regions: {error}") from None
        yield _region(region)


def _region(region: Object) -> MemblockRegion:
    start = region.base.value_()
    flags = region.flags.value_() if has_member(region, "flags") else 0
    return MemblockRegion(start, start + region.size.value_(), flags)


def for_each_mem_range(prog: Program) -> Iterator[MemblockRegion]:
    """
    What the kernel's ``for_each_mem_range()`` yields: memory, without ``MEMBLOCK_NOMAP``.

    Source: mm/memblock.c, ``should_skip_region()``.
    """
    for region in for_each_memblock_region(prog):
        if not region.flags & MEMBLOCK_NOMAP:
            yield region
