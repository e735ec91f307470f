# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Regions
-------

Regions (interleave sets) and the capacity that is left in them. Sources:
drivers/nvdimm/region_devs.c, dimm_devs.c (``nd_pmem_available_dpa()``,
``nd_pmem_max_contiguous_dpa()``), nd.h.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from drgn import Object, Program, cast, container_of

from drgn_pmem.kernel.debuginfo import find_type, has_member
from drgn_pmem.kernel.device import attempt, device_name, driver_name, for_each_nd_device
from drgn_pmem.kernel.walk import bounded
from drgn_pmem.ranges import Range

__all__ = ("DpaMapping", "Region", "find_region", "for_each_region")

# enum in drivers/nvdimm/nd.h / include/linux/libnvdimm.h; anonymous, so not in the debug info by
# name.
_ND_REGION_PERSIST_CACHE = 1 << 1
_ND_REGION_PERSIST_MEMCTRL = 1 << 2

_MAX_MAPPINGS = 1 << 10


@dataclass(frozen=True)
class DpaMapping:
    """``struct nd_mapping``: what a DIMM gives to a region."""

    dimm: str
    offset: int
    """DIMM physical address, bytes."""
    length: int
    """bytes"""
    position: int

    def to_json(self) -> dict[str, Any]:
        return {
            "dimm": self.dimm,
            "offset": self.offset,
            "length": self.length,
            "position": self.position,
        }


@dataclass(frozen=True)
class Region:
    """``struct nd_region``."""

    dev: str
    bus: str
    size: int
    """bytes"""
    resource: int
    """Physical address of the first byte."""
    align: int | None
    available_size: int | None
    """Free bytes; None if the dump does not hold the DIMMs' allocations."""
    max_available_extent: int | None
    type: str
    numa_node: int
    target_node: int
    iset_id: int | None
    mappings: tuple[DpaMapping, ...]
    persistence_domain: str
    enabled: bool
    problems: tuple[str, ...]
    """What of it could not be read, in words."""
    object: Object = field(repr=False, compare=False)
    """``struct nd_region *``"""

    @property
    def range(self) -> Range:
        return Range(self.resource, self.resource + self.size)

    def to_json(self) -> dict[str, Any]:
        values = {
            "size": self.size,
            "align": self.align,
            "available_size": self.available_size,
            "max_available_extent": self.max_available_extent,
            "type": self.type,
            "numa_node": self.numa_node if self.numa_node >= 0 else None,
            "target_node": self.target_node if self.target_node >= 0 else None,
            "iset_id": self.iset_id,
            "mappings": [m.to_json() for m in self.mappings] or None,
            "state": None if self.enabled else "disabled",
            "persistence_domain": self.persistence_domain,
        }
        return {"dev": self.dev} | {k: v for k, v in values.items() if v is not None}


def for_each_region(prog: Program) -> Iterator[Region]:
    """
    Regions of every bus, disabled ones included.

    :raises MissingDebugInfo: without debug info of libnvdimm
    :raises WalkError: after what could be read
    """
    find_type(prog, "struct nd_region", "libnvdimm")
    for device in for_each_nd_device(prog, "region"):
        yield _read_region(container_of(device, "struct nd_region", "dev"))


def find_region(prog: Program, name: str) -> Region | None:
    """Region by its device name."""
    return next((r for r in for_each_region(prog) if r.dev == name), None)


def _read_region(region: Object) -> Region:
    device = region.dev.address_of_()
    name = device_name(device)
    problems: list[str] = []
    count = region.ndr_mappings.value_()
    if count > _MAX_MAPPINGS:
        problems.append(f"{name}: ndr_mappings {count} is not sound")
        count = 0
    mappings = [region.mapping[i] for i in range(count)]
    # Since Linux kernel commit 2522afb86a8c ("libnvdimm/region: Introduce an 'align' attribute")
    # (in v5.7).
    align = region.align.value_() if has_member(region, "align") else None
    holes = attempt(problems, f"{name}: allocations", lambda: _holes(mappings, align or 1))
    return Region(
        name,
        device_name(region.dev.parent),
        region.ndr_size.value_(),
        region.ndr_start.value_(),
        align,
        None if holes is None else sum(end - start for hole in holes for start, end in hole),
        None if holes is None else _max_extent(holes) * count,
        "volatile" if _is_volatile(region) else "pmem",
        region.numa_node.value_(),
        region.target_node.value_(),
        attempt(problems, f"{name}: interleave set", lambda: _interleave_set(region, mappings)),
        tuple(
            DpaMapping(
                device_name(m.nvdimm.dev.address_of_()),
                m.start.value_(),
                m.size.value_(),
                m.position.value_(),
            )
            for m in mappings
        ),
        _persistence_domain(region.flags.value_()),
        driver_name(device) is not None,
        tuple(problems),
        region,
    )


def _is_volatile(region: Object) -> bool:
    type_ = region.dev.type
    return bool(type_) and bool(type_.name) and type_.name.string_() == b"nd_volatile"


def _persistence_domain(flags: int) -> str:
    if flags & _ND_REGION_PERSIST_CACHE:
        return "cpu_cache"
    return "memory_controller" if flags & _ND_REGION_PERSIST_MEMCTRL else "unknown"


def _drvdata(mapping: Object) -> Object | None:
    """``struct nvdimm_drvdata *`` of an enabled DIMM (``to_ndd()``)."""
    device = mapping.nvdimm.dev
    if not device.driver:
        return None
    ndd = cast("struct nvdimm_drvdata *", device.driver_data)
    return ndd if ndd else None


def _interleave_set(region: Object, mappings: list[Object]) -> int | None:
    """``set_cookie`` of sysfs: which cookie depends on the version of the DIMM's labels."""
    nd_set = region.nd_set.read_()
    if not nd_set:
        return None
    ndd = _drvdata(mappings[0]) if mappings else None
    if ndd is None:
        return nd_set.cookie1.value_()
    if ndd.ns_current.value_() >= 0 and ndd.data:
        index = _current_index(ndd)
        if (index.major.value_(), index.minor.value_()) == (1, 1):
            return nd_set.cookie1.value_()
    return nd_set.cookie2.value_()


def _current_index(ndd: Object) -> Object:
    """``to_current_namespace_index()``: the two copies stand one after the other."""
    prog = ndd.prog_
    first = cast("struct nd_namespace_index *", ndd.data)
    size = first.mysize.value_() if ndd.ns_current.value_() == 1 else 0
    return Object(prog, "struct nd_namespace_index *", first.value_() + size)


def _allocations(ndd: Object) -> list[tuple[int, int]]:
    """DIMM physical ranges that namespaces hold, [start, end)."""
    entries = []
    resource = ndd.dpa.child.read_()

    def siblings() -> Iterator[Object]:
        entry = resource
        while entry:
            yield entry
            entry = entry.sibling.read_()

    for entry in bounded(siblings(), "DIMM allocations"):
        entries.append((entry.start.value_(), entry.end.value_() + 1))
    return sorted(entries)


def _holes(mappings: list[Object], align: int) -> list[list[tuple[int, int]]]:
    """
    Free ranges of each mapping, between its allocations rounded outwards to the alignment.

    :param align: The region's; each of its n DIMMs gives an n-th of it (``dpa_align()``).
    """
    result = []
    for mapping in mappings:
        ndd = _drvdata(mapping)
        holes: list[tuple[int, int]] = []
        if ndd is not None:
            step = max(1, align // len(mappings))
            start, end = mapping.start.value_(), mapping.start.value_() + mapping.size.value_()
            at = start
            for first, last in _allocations(ndd):
                first, last = first // step * step, -(-last // step) * step
                if last <= start or first >= end:
                    continue
                if first > at:
                    holes.append((at, first))
                at = max(at, last)
            if at < end:
                holes.append((at, end))
        result.append(holes)
    return result


def _max_extent(holes: list[list[tuple[int, int]]]) -> int:
    """Largest hole of the DIMM that has the least of it (``min_not_zero()``)."""
    largest = [max((end - start for start, end in h), default=0) for h in holes]
    return min((size for size in largest if size), default=0)
