# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Device DAX
----------

DAX regions and their character devices, as ``daxctl list`` shows them. Sources: drivers/dax/bus.c,
drivers/dax/dax-private.h.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from drgn import Object, Program, TypeKind, cast, container_of

from drgn_pmem.kernel.debuginfo import find_type, has_member, has_variable, member, optional_member
from drgn_pmem.kernel.device import (
    device_name,
    device_path,
    devices_of_class,
    driver_name,
    for_each_device,
)
from drgn_pmem.kernel.memoryblocks import memory_blocks_of
from drgn_pmem.kernel.mmu import physical_range
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

_DAX_STATIC = 1 << 0
"""``IORESOURCE_DAX_STATIC``, a macro of drivers/dax/bus.h since Linux kernel commit c2f3011ee697
("device-dax: add an allocation interface for device-dax instances") (in v5.10)."""

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
    """NUMA node of its memory once that is online as RAM. None: kernels before v5.1."""
    align: int
    """Of its mappings, bytes."""
    own_align: bool = shown(Show.HIDDEN, default=True)
    """Whether this kernel has an alignment of each device; before v5.10 it was the region's, and
    sysfs has no such attribute of a device."""
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
            # daxctl leaves out "no node", -1
            **(
                {}
                if self.target_node is None or self.target_node < 0
                else {"target_node": self.target_node}
            ),
            **({"align": self.align} if self.own_align else {}),
            # As daxctl: whatever is not bound to kmem is device DAX.
            "mode": self.mode or "devdax",
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
    available_size: int | None
    """Free bytes; None for a region whose devices cannot be changed (of pmem, and before v5.10)."""
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
            # daxctl leaves out 0
            **({"available_size": self.available_size} if self.available_size else {}),
            "align": self.align,
            "devices": [d.to_json() for d in self.devices],
        }


def _ranges(dev_dax: Object) -> tuple[Range, ...]:
    # Since Linux kernel commit 60e93dc097f7 ("device-dax: add dis-contiguous resource support") (in
    # v5.10) a device has several ranges.
    number = optional_member(dev_dax, "nr_range")
    if number is not None:
        entries = [dev_dax.ranges[i].range for i in range(_sound(number))]
    # Before v5.1 (commit 9910b7e1878e "device-dax: Remove multi-resource infrastructure"), several
    # resources.
    elif (number := optional_member(dev_dax, "num_resources")) is not None:
        entries = [dev_dax.res[i] for i in range(_sound(number))]
    else:
        # With commit c2f3011ee697 ("device-dax: add an allocation interface for device-dax
        # instances") (in v5.10) but without the first, one range; before, all of the region.
        entries = [member(dev_dax, "range", "region.res")]
    return tuple(
        physical_range(dev_dax.prog_, e.start.value_(), e.end.value_(), "dev_dax") for e in entries
    )


def _sound(number: Object) -> int:
    count = number.value_()
    if not 0 <= count <= _MAX_RANGES:
        raise WalkError(f"implausible number of ranges {count}")
    return int(count)


def _pgmap(dev_dax: Object) -> int:
    """Address of the page map; 0 if the device does not have it: it is then found by its range."""
    # Before v5.3 the driver of its region keeps it (struct dax_pmem).
    pgmap = optional_member(dev_dax, "pgmap")
    if pgmap is None:
        return 0
    # Since commit f5516ec5ef89 ("device-dax: make pgmap optional for instance creation") (in v5.10)
    # a pointer; before, embedded.
    return int((pgmap if pgmap.type_.kind == TypeKind.POINTER else pgmap.address_of_()).value_())


def _read_dax_device(dev_dax: Object, of_class: bool, problems: Problems) -> DaxDevice:
    name = device_name(dev_dax.dev.address_of_())
    ranges = _ranges(dev_dax)
    # Devices of a class have no driver: what registers them maps them.
    driver = "device_dax" if of_class else driver_name(dev_dax.dev.address_of_())
    # Since commit 8fc5c73554db ("acpi/nfit, device-dax: Identify differentiated memory with a
    # unique numa-node") (in v5.1).
    target_node = optional_member(dev_dax, "target_node")
    blocks = None
    if driver == "kmem":
        blocks = problems.attempt(
            f"{name}: memory blocks", lambda: _memory_blocks(dev_dax.prog_, ranges)
        )
    return DaxDevice(
        chardev=name,
        size=sum(r.size for r in ranges),
        target_node=None if target_node is None else target_node.value_(),
        # Since commit 33cf94d71766 ("device-dax: make align a per-device property") (in v5.10) of
        # the device; before, of its region.
        align=member(dev_dax, "align", "region.align").value_(),
        own_align=has_member(dev_dax, "align"),
        mode=None if driver is None else _MODES.get(driver, driver),
        ranges=ranges,
        region=dev_dax.region.value_(),
        pgmap=_pgmap(dev_dax),
        memory_blocks=blocks,
        object=dev_dax,
    )


def _memory_blocks(prog: Program, ranges: tuple[Range, ...]) -> MemoryBlocks:
    blocks = memory_blocks_of(prog, ranges)
    zones = [block.zone for block in blocks if block.online]
    known = bool(zones) and None not in zones
    return MemoryBlocks(
        online=len(zones),
        total=len(blocks),
        movable=all(zone == "Movable" for zone in zones) if known else None,
    )


def for_each_dax_device(prog: Program) -> Partial[list[DaxDevice]]:
    """Devices of the dax bus, or of the class "dax"; those without capacity included."""
    problems = Problems()
    found = []
    with problems.trying(""):
        find_type(prog, "struct dev_dax", "device_dax")
        of_class = problems.collect(_devices_of_class(prog))
        on_bus: list[Object] = []
        # Since commit d491ea9e5af9 ("device-dax: Introduce bus + driver model") (in v5.1).
        if has_variable(prog, "dax_bus_type") or not has_variable(prog, "dax_class"):
            on_bus = problems.take(for_each_device(prog, "dax_bus_type", "dax"))
        for number, device in enumerate([*of_class, *on_bus]):
            with problems.trying(f"dax device at {device.value_():#x}"):
                dev_dax = container_of(device, "struct dev_dax", "dev")
                found.append(_read_dax_device(dev_dax, number < len(of_class), problems))
    return problems.partial(found)


def _devices_of_class(prog: Program) -> Iterator[Object]:
    """``/sys/class/dax``: all devices before v5.1, those of dax_pmem_compat until v5.16."""
    if has_variable(prog, "dax_class") and prog["dax_class"]:
        yield from devices_of_class(prog["dax_class"].read_(), "dax_class")


def _available(region: Object) -> int | None:
    """
    Bytes of a region that no device has (``dax_region_avail_size()``).

    :param region: ``struct dax_region *``
    """
    # Since Linux kernel commit 0f3da14a4f05 ("device-dax: introduce 'seed' devices") (in v5.10)
    # devices can be made and resized.
    resource = region.res
    if optional_member(region, "youngest") is None or resource.flags.value_() & _DAX_STATIC:
        return None

    def siblings() -> Iterator[Object]:
        entry = resource.child.read_()
        while entry:
            yield entry
            entry = entry.sibling.read_()

    size = int(resource.end.value_()) + 1 - int(resource.start.value_())
    for entry in bounded(siblings(), "allocations of the DAX region"):
        size -= entry.end.value_() + 1 - entry.start.value_()
    return size


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
        path=device_path(region.dev),
        range=Range(resource.start.value_(), resource.end.value_() + 1),
        align=region.align.value_(),
        available_size=_available(region),
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
