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
from typing import Any

from drgn import Object, Program, cast, container_of

from drgn_pmem.kernel.debuginfo import find_type, optional_member
from drgn_pmem.kernel.device import device_name, driver_name, for_each_nd_device
from drgn_pmem.kernel.strings import kernel_string
from drgn_pmem.kernel.walk import bounded
from drgn_pmem.partial import Partial, Problems, WalkError
from drgn_pmem.ranges import Range
from drgn_pmem.record import Record, Show, shown

__all__ = ("DpaMapping", "Region", "for_each_region")

# enum in drivers/nvdimm/nd.h / include/linux/libnvdimm.h; anonymous, so not in the debug info by
# name.
_ND_REGION_PERSIST_CACHE = 1 << 1
_ND_REGION_PERSIST_MEMCTRL = 1 << 2

_NDD_ALIASING = 1 << 0
_NDD_LABELING = 1 << 6

_MAX_MAPPINGS = 1 << 10


class DpaMapping(Record):
    """``struct nd_mapping``: what a DIMM gives to a region."""

    dimm: str
    offset: int
    """DIMM physical address, bytes."""
    length: int
    """bytes"""
    position: int


class Region(Record):
    """``struct nd_region``."""

    dev: str
    bus: str
    size: int = shown(Show.SIZE)
    """bytes"""
    resource: int = shown(Show.ADDRESS)
    """Physical address of the first byte."""
    align: int | None
    """None: kernels before v5.7, which have no such attribute."""
    available_size: int | None
    """Free bytes; None if the dump does not hold the DIMMs' allocations."""
    max_available_extent: int | None
    type: str
    """``"pmem"``, or ``"volatile"`` (memory that the NFIT or the device tree calls so)."""
    numa_node: int
    target_node: int | None
    """None: kernels before v5.1."""
    iset_id: int | None
    mappings: tuple[DpaMapping, ...] | None
    """None if the dump does not hold them."""
    persistence_domain: str
    enabled: bool
    object: Object = shown(Show.HIDDEN)
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
            # ndctl_region_get_type() knows no volatile regions.
            "type": "pmem",
            "numa_node": self.numa_node if self.numa_node >= 0 else None,
            "target_node": None if (self.target_node or 0) < 0 else self.target_node,
            "iset_id": self.iset_id,
            "mappings": [m.to_json() for m in self.mappings or ()] or None,
            "state": None if self.enabled else "disabled",
            "persistence_domain": self.persistence_domain,
        }
        return {"dev": self.dev} | {k: v for k, v in values.items() if v is not None}


def for_each_region(prog: Program) -> Partial[list[Region]]:
    """Regions of every bus, disabled ones included."""
    problems = Problems()
    found = []
    with problems.trying(""):
        find_type(prog, "struct nd_region", "libnvdimm")
        for device in problems.take(for_each_nd_device(prog, "region")):
            with problems.trying(device_name(device)):
                region = container_of(device, "struct nd_region", "dev")
                found.append(_read_region(region, problems))
    return problems.partial(found)


def _read_region(region: Object, problems: Problems) -> Region:
    device = region.dev.address_of_()
    name = device_name(device)
    mappings = problems.attempt(name, lambda: _mappings(region))
    # Since Linux kernel commit 2522afb86a8c ("libnvdimm/region: Introduce an 'align' attribute")
    # (in v5.7).
    align = optional_member(region, "align")
    # Since Linux kernel commit 8fc5c73554db ("acpi/nfit, device-dax: Identify differentiated memory
    # with a unique numa-node") (in v5.1).
    target_node = optional_member(region, "target_node")
    records = holes = iset_id = None
    if mappings is not None:
        step = 1 if align is None else align.value_()
        records = problems.attempt(
            f"{name}: mappings", lambda: tuple(_read_mapping(m) for m in mappings)
        )
        holes = problems.attempt(f"{name}: allocations", lambda: _holes(mappings, step))
        iset_id = problems.attempt(
            f"{name}: interleave set", lambda: _interleave_set(region, mappings)
        )
    return Region(
        dev=name,
        bus=device_name(region.dev.parent),
        size=region.ndr_size.value_(),
        resource=region.ndr_start.value_(),
        align=None if align is None else align.value_(),
        available_size=None
        if holes is None
        else sum(end - start for hole in holes for start, end in hole),
        max_available_extent=None if holes is None else _max_extent(holes) * len(holes),
        type="volatile" if _is_volatile(region) else "pmem",
        numa_node=region.numa_node.value_(),
        target_node=None if target_node is None else target_node.value_(),
        iset_id=iset_id,
        mappings=records,
        persistence_domain=_persistence_domain(region.flags.value_()),
        enabled=driver_name(device) is not None,
        object=region,
    )


def _mappings(region: Object) -> list[Object]:
    count = region.ndr_mappings.value_()
    if count > _MAX_MAPPINGS:
        raise WalkError(f"implausible ndr_mappings {count}")
    return [region.mapping[i] for i in range(count)]


def _read_mapping(mapping: Object) -> DpaMapping:
    return DpaMapping(
        dimm=device_name(mapping.nvdimm.dev.address_of_()),
        offset=mapping.start.value_(),
        length=mapping.size.value_(),
        position=mapping.position.value_(),
    )


def _is_volatile(region: Object) -> bool:
    type_ = region.dev.type
    return bool(type_) and bool(type_.name) and kernel_string(type_.name) == "nd_volatile"


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
    """``set_cookie`` of sysfs: which cookie depends on the version of the DIMM's labels. None for a
    region without labels (``nd_region_to_nstype()``), of which ndctl prints none."""
    nd_set = region.nd_set.read_()
    if not nd_set or not any(_has_labels(mapping) for mapping in mappings):
        return None
    ndd = _drvdata(mappings[0]) if mappings else None
    if ndd is None:
        return nd_set.cookie1.value_()
    if ndd.ns_current.value_() >= 0 and ndd.data:
        index = _current_index(ndd)
        if (index.major.value_(), index.minor.value_()) == (1, 1):
            return nd_set.cookie1.value_()
    return nd_set.cookie2.value_()


def _has_labels(mapping: Object) -> bool:
    # Since Linux kernel commit a0e374525def ("libnvdimm/region: Introduce NDD_LABELING") (in v5.8);
    # before, NDD_ALIASING, which is only set on DIMMs with labels since then, too.
    return bool(mapping.nvdimm.flags.value_() & (_NDD_LABELING | _NDD_ALIASING))


def _current_index(ndd: Object) -> Object:
    """``to_current_namespace_index()``: one of two copies, one after the other."""
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
