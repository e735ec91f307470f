# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Device DAX
----------

DAX regions and their character devices, as ``daxctl list`` shows them. Sources: drivers/dax/bus.c,
drivers/dax/dax-private.h.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from drgn import Object, Program, cast, container_of
from drgn.helpers.linux.mm import (
    decode_memory_block_state,
    for_each_memory_block,
    memory_block_size_bytes,
)
from drgn.helpers.linux.mmzone import for_each_online_pgdat
from drgn.helpers.linux.sysfs import kobject_path

from drgn_pmem.kernel.debuginfo import find_type, member, optional_member
from drgn_pmem.kernel.device import device_name, driver_name, for_each_device
from drgn_pmem.kernel.walk import bounded
from drgn_pmem.partial import Partial, Problems, WalkError
from drgn_pmem.ranges import Range
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "DaxDevice",
    "DaxRegion",
    "MemoryBlocks",
    "for_each_dax_device",
    "for_each_dax_region",
    "read_dax_region",
)

_MAX_RANGES = 1 << 12

_MODES = {"device_dax": "devdax", "kmem": "system-ram", "fsdev_dax": "fsdev"}
"""Driver of a ``struct dev_dax`` -> daxctl's mode. fsdev_dax: 7.x."""


class MemoryBlocks(Record):
    """Hotplugged memory blocks of a device in system-ram mode, as daxctl counts them."""

    online: int = shown(key="online_memblocks")
    total: int = shown(key="total_memblocks")
    movable: bool | None = shown(optional=True)
    """Whether all that are online are in ZONE_MOVABLE; None if none is, or it is not known."""


class DaxDevice(Record):
    """``struct dev_dax``: /dev/daxX.Y."""

    chardev: str
    size: int = shown(Show.SIZE)
    """bytes"""
    target_node: int | None
    """NUMA node that its memory is when it is online as RAM. None: kernels before v5.1."""
    align: int
    mode: str | None
    """``"devdax"``, ``"system-ram"``; None if no driver is bound."""
    ranges: tuple[Range, ...]
    region: int = shown(Show.ADDRESS)
    """Address of its ``struct dax_region``."""
    pgmap: int = shown(Show.ADDRESS)
    """Address of its ``struct dev_pagemap``; 0 if it has none."""
    memory_blocks: MemoryBlocks | None
    """In system-ram mode, the memory blocks in its range; None if they could not be read."""
    object: Object = shown(Show.HIDDEN)
    """``struct dev_dax *``"""

    def to_json(self) -> dict[str, Any]:
        return {
            "chardev": self.chardev,
            "size": self.size,
            **({} if self.target_node is None else {"target_node": self.target_node}),
            "align": self.align,
            "mode": self.mode or "unknown",
            **({} if self.mode else {"state": "disabled"}),
            **(self.memory_blocks.to_json() if self.memory_blocks else {}),
        }


class DaxRegion(Record):
    """``struct dax_region``."""

    id: int
    path: str
    """Its parent device, relative to /sys/devices as daxctl prints it."""
    range: Range
    align: int
    devices: tuple[DaxDevice, ...]
    object: Object = shown(Show.HIDDEN)
    """``struct dax_region *``"""

    @property
    def size(self) -> int:
        """bytes"""
        return self.range.size

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "id": self.id,
            "size": self.size,
            "align": self.align,
            "devices": [d.to_json() for d in self.devices],
        }


def _ranges(dev_dax: Object) -> tuple[Range, ...]:
    # Since Linux kernel commit 60e93dc097f7 ("device-dax: add dis-contiguous resource support") (in
    # v5.10) a device has several ranges.
    number = optional_member(dev_dax, "nr_range")
    if number is not None:
        count = number.value_()
        if not 0 <= count <= _MAX_RANGES:
            raise WalkError(f"implausible nr_range {count}")
        entries = [dev_dax.ranges[i].range for i in range(count)]
    else:
        entries = [dev_dax.region.res]
    return tuple(Range(e.start.value_(), e.end.value_() + 1) for e in entries)


def _read_dax_device(dev_dax: Object, problems: Problems) -> DaxDevice:
    name = device_name(dev_dax.dev.address_of_())
    ranges = _ranges(dev_dax)
    driver = driver_name(dev_dax.dev.address_of_())
    region = dev_dax.region
    target_node = optional_member(dev_dax, "target_node")
    pgmap = member(dev_dax, "pgmap")
    blocks = None
    if driver == "kmem":
        blocks = problems.attempt(
            f"{name}: memory blocks", lambda: _memory_blocks(dev_dax.prog_, ranges)
        )
    return DaxDevice(
        chardev=name,
        size=sum(r.size for r in ranges),
        target_node=None if target_node is None else target_node.value_(),
        align=member(dev_dax, "align", "region.align").value_(),
        mode=None if driver is None else _MODES.get(driver, driver),
        ranges=ranges,
        region=region.value_(),
        # Before v5.10 the page map is embedded.
        pgmap=pgmap.value_() if pgmap.type_.kind.name == "POINTER" else 0,
        memory_blocks=blocks,
        object=dev_dax,
    )


def _memory_blocks(prog: Program, ranges: tuple[Range, ...]) -> MemoryBlocks:
    """Memory blocks that lie in the ranges whole (kmem drops what is less than a block)."""
    section = 1 << prog["SECTION_SIZE_BITS"].value_()
    size = memory_block_size_bytes(prog).value_()
    total = online = movable = 0
    known = True
    for block in bounded(for_each_memory_block(prog), "memory blocks"):
        start = block.start_section_nr.value_() * section
        if not any(r.start <= start and start + size <= r.end for r in ranges):
            continue
        total += 1
        if decode_memory_block_state(block) != "MEM_ONLINE":
            continue
        online += 1
        zone = _zone_name(prog, block, Range(start, start + size))
        known &= zone is not None
        movable += zone == b"Movable"
    return MemoryBlocks(
        online=online, total=total, movable=movable == online if online and known else None
    )


def _zone_name(prog: Program, block: Object, span: Range) -> bytes | None:
    """
    Zone of an online memory block, as ``valid_zones`` of sysfs shows it; None if not known.

    :param block: ``struct memory_block *``
    :param span: Where the block is.
    """
    # Since Linux kernel commit 395f6081bad4 ("drivers/base/memory: determine and store zone for
    # single-zone memory blocks") (in v5.18).
    own = optional_member(block, "zone")
    if own is not None:
        return own.name.string_() if own else b""
    # Before, the one zone that spans it. Pages of memory blocks are never in ZONE_DEVICE.
    shift = prog["PAGE_SHIFT"].value_()
    names = set()
    for node in for_each_online_pgdat(prog):
        for zone in node.node_zones:
            start = zone.zone_start_pfn.value_() << shift
            if start < span.end and span.start < start + (zone.spanned_pages.value_() << shift):
                names.add(zone.name.string_())
    names.discard(b"Device")
    return names.pop() if len(names) == 1 else None


def for_each_dax_device(prog: Program) -> Partial[list[DaxDevice]]:
    """Devices of the dax bus, those without capacity included."""
    problems = Problems()
    found = []
    with problems.trying(""):
        find_type(prog, "struct dev_dax", "device_dax")
        for device in problems.take(for_each_device(prog, "dax_bus_type", "dax")):
            with problems.trying(f"dax device at {device.value_():#x}"):
                dev_dax = container_of(device, "struct dev_dax", "dev")
                found.append(_read_dax_device(dev_dax, problems))
    return problems.partial(found)


def _device_path(device: Object) -> str:
    path = kobject_path(device.kobj.address_of_()).decode("utf-8", "backslashreplace")
    return path.removeprefix("/sys").removeprefix("/devices")


def read_dax_region(region: Object, devices: Iterable[DaxDevice]) -> DaxRegion:
    """
    Record of a DAX region.

    :param region: ``struct dax_region *``
    :param devices: All of the dax bus.
    :raises FaultError: if the dump does not hold it
    """
    resource = region.res
    return DaxRegion(
        id=region.id.value_(),
        path=_device_path(region.dev),
        range=Range(resource.start.value_(), resource.end.value_() + 1),
        align=region.align.value_(),
        devices=tuple(d for d in devices if d.region == region.value_()),
        object=region,
    )


def for_each_dax_region(prog: Program) -> Partial[list[DaxRegion]]:
    """DAX regions that have devices, as ``daxctl list -R``."""
    problems = Problems()
    devices: Sequence[DaxDevice] = problems.take(for_each_dax_device(prog))
    regions = []
    with problems.trying(""):
        if devices:
            find_type(prog, "struct dax_region", "dax")
        for address in dict.fromkeys(d.region for d in devices):
            with problems.trying(f"dax region at {address:#x}"):
                pointer = cast("struct dax_region *", Object(prog, "unsigned long", address))
                regions.append(read_dax_region(pointer, devices))
    return problems.partial(regions)
