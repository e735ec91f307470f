# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Memory blocks
-------------

The units in which hotplugged memory goes online and offline (``/sys/devices/system/memory``).
Sources: drivers/base/memory.c, mm/memory_hotplug.c.
"""

from collections.abc import Iterable

from drgn import Object, Program, container_of
from drgn.helpers.linux.mm import (
    decode_memory_block_state,
    memory_block_size_bytes,
)
from drgn.helpers.linux.mmzone import for_each_online_pgdat

from drgn_pmem.kernel.debuginfo import optional_member
from drgn_pmem.kernel.device import devices_of_bus
from drgn_pmem.kernel.strings import kernel_string
from drgn_pmem.partial import WalkError
from drgn_pmem.ranges import Range
from drgn_pmem.record import Record, Show, shown

__all__ = ("MemoryBlock", "memory_blocks_of")


class MemoryBlock(Record):
    """``struct memory_block``."""

    name: str
    """``"memory44"``, as sysfs names it."""
    range: Range
    online: bool
    zone: str | None
    """Of an online block: ``"Movable"``; empty if it is in no single zone, None if that is not
    known."""
    memmap_pages: int = 0
    """Pages at its start that hold its own struct pages (memmap_on_memory)."""
    object: Object = shown(Show.HIDDEN)
    """``struct memory_block *``"""


def memory_blocks_of(prog: Program, ranges: Iterable[Range]) -> list[MemoryBlock]:
    """
    Memory blocks that are in some ranges as a whole (kmem drops what is less than a block).

    :param ranges: Of physical addresses.
    :raises WalkError: if they could not be read
    """
    ranges = tuple(ranges)
    section = 1 << prog["SECTION_SIZE_BITS"].value_()
    size = memory_block_size_bytes(prog).value_()
    if size <= 0 or size % section:
        raise WalkError(f"memory_block_size_bytes: {size} is not a number of sections: damaged")
    found = []
    for device in devices_of_bus(prog["memory_subsys"].address_of_(), "memory_subsys"):
        block = container_of(device, "struct memory_block", "dev")
        start = block.start_section_nr.value_() * section
        span = Range(start, start + size)
        if not any(r.start <= span.start and span.end <= r.end for r in ranges):
            continue
        online = _is_online(block)
        zone = _zone_name(prog, block, span) if online else None
        found.append(
            MemoryBlock(
                name=f"memory{start // size}",
                range=span,
                online=online,
                zone=zone,
                memmap_pages=_memmap_pages(block),
                object=block,
            )
        )
    return sorted(found, key=lambda block: block.range.start)


def _is_online(block: Object) -> bool:
    try:
        return bool(decode_memory_block_state(block) == "MEM_ONLINE")
    except KeyError as error:
        # drgn's table of the states before they were an enum
        state = block.state.value_()
        raise WalkError(f"a memory block has no state {state:#x}: it is damaged") from error


def _memmap_pages(block: Object) -> int:
    # Since Linux kernel commit 1a8c64e11043 ("mm/memory_hotplug: embed vmem_altmap details in
    # memory block") (in v6.6) in the altmap.
    altmap = optional_member(block, "altmap")
    if altmap is not None:
        return int(altmap.free.value_()) if altmap else 0
    # Since commit a08a2ae34613 ("mm,memory_hotplug: allocate memmap from the added memory range")
    # (in v5.13).
    pages = optional_member(block, "nr_vmemmap_pages")
    return 0 if pages is None else int(pages.value_())


def _zone_name(prog: Program, block: Object, span: Range) -> str | None:
    """
    Zone of an online memory block, as ``valid_zones`` of sysfs shows it; None if not known.

    :param block: ``struct memory_block *``
    :param span: Where the block is.
    """
    # Since Linux kernel commit 395f6081bad4 ("drivers/base/memory: determine and store zone for
    # single-zone memory blocks") (in v5.18).
    own = optional_member(block, "zone")
    if own is not None:
        return kernel_string(own.name) if own else ""
    # Before, the one zone that spans it. Pages of memory blocks are never in ZONE_DEVICE.
    shift = prog["PAGE_SHIFT"].value_()
    names = set()
    for node in for_each_online_pgdat(prog):
        for zone in node.node_zones:
            start = zone.zone_start_pfn.value_() << shift
            if start < span.end and span.start < start + (zone.spanned_pages.value_() << shift):
                names.add(kernel_string(zone.name))
    names.discard("Device")
    return names.pop() if len(names) == 1 else None
