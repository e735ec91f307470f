# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device memory that is in no namespace has the name of its DAX device, resource or driver."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.inventory import daxonly, pgmapnames
from drgn_pmem.kernel.dax import DaxDevice, DaxRegion
from drgn_pmem.kernel.iomem import Resource
from drgn_pmem.partial import Cause, Partial, Problem
from drgn_pmem.ranges import Range

NOTHING: Any = None
HMEM = Range(0x100000000, 0x110000000)


def address(number: int) -> Any:
    return SimpleNamespace(value_=lambda: number)


def dax_device(*ranges: Range, pgmap: int = 0x1000) -> DaxDevice:
    return DaxDevice(
        chardev="dax2.0",
        size=sum(r.size for r in ranges),
        target_node=0,
        align=1 << 21,
        mode="devdax",
        ranges=ranges,
        region=0x500,
        pgmap=pgmap,
        memory_blocks=None,
        object=NOTHING,
    )


def region(*devices: DaxDevice) -> DaxRegion:
    return DaxRegion(
        id=2,
        path="/platform/hmem.0",
        range=HMEM,
        align=1 << 21,
        available_size=None,
        devices=devices,
        object=address(0x500),
    )


def resource(name: str, part: Range, depth: int) -> Resource:
    return Resource(
        name=name,
        start=part.start,
        end=part.end - 1,
        flags=0,
        desc="IORES_DESC_NONE",
        depth=depth,
        object=NOTHING,
    )


def pgmap(number: int, part: Range, operations: int = 0, owner: int = 0) -> Any:
    ops = SimpleNamespace(ops=address(operations))
    return SimpleNamespace(address=number, ranges=(part,), object=ops, owner=owner)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = SimpleNamespace(namespaces=[], regions=[], iomem=[])
    for module in (daxonly, pgmapnames):
        monkeypatch.setattr(module, "for_each_namespace", lambda prog: Partial(found.namespaces))
    monkeypatch.setattr(daxonly, "for_each_dax_region", lambda prog: Partial(found.regions))
    monkeypatch.setattr(pgmapnames, "for_each_iomem", lambda prog: Partial(found.iomem))
    monkeypatch.setattr(pgmapnames, "optional_member", lambda obj, name: getattr(obj, name, None))
    return found


def test_a_dax_device_without_a_namespace_is_shown_by_its_name(kernel: Any) -> None:
    kernel.regions = [region(dax_device(HMEM))]
    (item,) = daxonly.dax_without_namespace(NOTHING).whole()
    assert (item.dev, item.mode, item.range) == ("dax2.0", "devdax", HMEM)
    assert not item.is_persistent
    assert item.has_no_claim, "it has no info block"
    mapped = [pgmap(0x1000, HMEM), pgmap(0x2000, Range(0, 0x1000))]
    assert pgmapnames.pgmap_names(NOTHING, mapped).value[0x1000] == "dax2.0"


def test_a_device_of_two_ranges_is_one_for_each(kernel: Any) -> None:
    low, high = Range(HMEM.start, HMEM.start + 0x1000), Range(HMEM.end - 0x1000, HMEM.end)
    kernel.regions = [region(dax_device(low, high))]
    items = daxonly.dax_without_namespace(NOTHING).whole()
    assert [(i.dev, i.range) for i in items] == [("dax2.0", low), ("dax2.0[1]", high)]


def test_the_dax_device_of_a_namespace_is_the_namespaces(kernel: Any) -> None:
    own = region(dax_device(HMEM))
    kernel.regions = [own]
    kernel.namespaces = [
        SimpleNamespace(dev="namespace0.0", daxregion=own, range=Range(0, 1), pgmap=0x1000)
    ]
    assert daxonly.dax_without_namespace(NOTHING).whole() == []


def test_other_device_memory_is_named_by_its_resource_or_its_driver(kernel: Any) -> None:
    bar, private = Range(0x200000000, 0x200100000), Range(0x300000000, 0x300100000)
    kernel.iomem = [
        resource("PCI Bus 0000:00", Range(0x200000000, 0x280000000), 0),
        resource("0000:00:04.0", bar, 1),
    ]
    symbols = {0xFFFF: "dmirror_devmem_ops", 0xEEEE: "the_device"}

    def symbol(address: int) -> Any:
        if address not in symbols:
            raise LookupError("could not find symbol")
        return SimpleNamespace(name=symbols[address])

    prog: Any = SimpleNamespace(symbol=symbol)
    owned, unnamed = Range(0x400000000, 0x400100000), Range(0x500000000, 0x500100000)
    pgmaps = [
        pgmap(1, bar),
        pgmap(2, private, 0xFFFF, 0xEEEE),
        pgmap(3, owned, 0xDDDD, 0xEEEE),  # operations of a module without symbols
        pgmap(4, unnamed, 0, 0xCCCC),
    ]
    names = pgmapnames.pgmap_names(prog, pgmaps).whole()
    assert names == {1: "0000:00:04.0", 2: "dmirror_devmem_ops", 3: "the_device", 4: "pgmap 0x4"}


def test_memory_that_firmware_describes_is_not_named_after_its_kind(kernel: Any) -> None:
    """Coherent memory of a device was the memory of "Reserved"."""
    names = ("Reserved", "reserved", "Soft Reserved", "System RAM", "PCI Bus 0000:00")
    prog: Any = SimpleNamespace(symbol=lambda _: SimpleNamespace(name="dmirror_devmem_ops"))
    for name in names:
        kernel.iomem = [resource(name, HMEM, 0)]
        found = pgmapnames.pgmap_names(prog, [pgmap(1, HMEM, 0xFFFF)]).whole()
        assert found == {1: "dmirror_devmem_ops"}


def test_memory_of_a_pci_device_has_the_name_of_the_device_and_not_of_its_driver(
    kernel: Any,
) -> None:
    """Those of two NVMe drives were both called nvme."""
    bars = [Range(start, start + 0x4000000) for start in (0x200000000, 0x210000000)]
    for number, bar in enumerate(bars):
        kernel.iomem += [
            resource("PCI Bus 0000:00", Range(0x200000000, 0x280000000), 0),
            resource(f"0000:00:0{number}.0", bar, 1),
            resource("nvme", bar, 2),
        ]
    found = pgmapnames.pgmap_names(NOTHING, [pgmap(n, bar) for n, bar in enumerate(bars)]).whole()
    assert found == {0: "0000:00:00.0", 1: "0000:00:01.0"}


def test_without_all_namespaces_no_page_map_has_the_name_of_something_else(
    kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be that of a namespace that could not be read."""
    path = "/platform/ndbus0/region1/dax1.1"
    kernel.regions = [dataclasses.replace(region(dax_device(HMEM)), path=path)]
    kernel.iomem = [resource("Persistent Memory", HMEM, 0)]
    lost = Problem(cause=Cause.NOT_SAVED, why="region1")
    for module in (daxonly, pgmapnames):
        monkeypatch.setattr(module, "for_each_namespace", lambda prog: Partial([], (lost,)))
    assert daxonly.dax_without_namespace(NOTHING).value == []
    names = pgmapnames.pgmap_names(NOTHING, [pgmap(0x1000, HMEM)])
    assert names.value == {0x1000: "pgmap 0x1000"}
    assert not names.complete
