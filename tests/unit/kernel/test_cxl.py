# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""CXL memory devices and regions, of kernels before and since 6.15; no sample has any."""

from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.inventory import cxl as facts
from drgn_pmem.kernel import cxl
from drgn_pmem.partial import Partial

NOTHING: Any = None


def value(number: int, **words: int) -> Any:
    """An integer, or an enumerator of a type that has these."""
    enumerators = [SimpleNamespace(name=name, value=word) for name, word in words.items()]
    type_ = SimpleNamespace(enumerators=enumerators)
    return SimpleNamespace(value_=lambda: number, type_=type_)


def resource(start: int, size: int) -> Any:
    """An empty one ends before it begins, in 64 bits."""
    return SimpleNamespace(start=value(start), end=value((start + size - 1) % (1 << 64)))


@pytest.fixture(autouse=True)
def members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cxl, "optional_member", lambda obj, name: getattr(obj, name, None))


def test_sizes_before_and_since_there_are_partitions() -> None:
    old: Any = SimpleNamespace(ram_res=resource(0, 0), pmem_res=resource(0, 1 << 28))
    assert cxl._partitions(old) == {"ram": 0, "pmem": 1 << 28}
    modes = {"CXL_PARTMODE_RAM": 0, "CXL_PARTMODE_PMEM": 1}
    parts = [
        SimpleNamespace(mode=value(0, **modes), res=resource(0, 1 << 20)),
        SimpleNamespace(mode=value(1, **modes), res=resource(1 << 20, 1 << 28)),
    ]
    new: Any = SimpleNamespace(nr_partitions=value(2), part=parts)
    assert cxl._partitions(new) == {"ram": 1 << 20, "pmem": 1 << 28}


def test_sizes_of_0_are_left_out_as_by_cxl_list() -> None:
    shown = memdev("mem0", 0x11).to_json()
    assert shown["pmem_size"] == 1 << 28
    assert "ram_size" not in shown


def test_the_kinds_of_regions_are_those_of_cxl_list() -> None:
    assert cxl._mode(value(2, CXL_DECODER_RAM=1, CXL_DECODER_PMEM=2)) == "pmem"
    assert cxl._mode(value(0, CXL_PARTMODE_RAM=0, CXL_PARTMODE_PMEM=1)) == "ram"


def memdev(name: str, serial: int) -> cxl.CxlMemdev:
    return cxl.CxlMemdev(
        memdev=name,
        pmem_size=1 << 28,
        ram_size=0,
        serial=serial,
        host="0000:0d:00.0",
        firmware_version=None,
        object=NOTHING,
    )


def region(*memdevs: str) -> cxl.CxlRegion:
    return cxl.CxlRegion(
        region="region0",
        resource=0x100000000,
        size=1 << 29,
        type="pmem",
        interleave_ways=len(memdevs),
        interleave_granularity=1024,
        decode_state="commit",
        uuid=None,
        mappings=tuple(
            cxl.CxlMapping(position=number, memdev=name, decoder=f"decoder{number + 2}.0")
            for number, name in enumerate(memdevs)
        ),
        object=NOTHING,
    )


def test_a_dimm_has_its_memory_device_and_its_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [memdev("mem0", 0x11), memdev("mem1", 0x22), memdev("mem2", 0x33)]
    monkeypatch.setattr(facts, "for_each_cxl_memdev", lambda prog: Partial(found))
    monkeypatch.setattr(
        facts, "for_each_cxl_region", lambda prog: Partial([region("mem0", "mem1")])
    )
    for name in ("Dimm", "Region", "DaxRegion"):
        monkeypatch.setattr(facts, name, type(name, (SimpleNamespace,), {}))
    inventory: Any = SimpleNamespace(buses=[SimpleNamespace(provider="CXL")], dax_regions=[])
    of = facts.cxl_facts(NOTHING, inventory).whole()
    dimm: Any = facts.Dimm
    shown = of(dimm(id="34"))["cxl"]
    assert (shown["memdev"], shown["serial"]) == ("mem1", 0x22)
    (own,) = shown["regions"]
    assert own["mappings"][1] == {"position": 1, "memdev": "mem1", "decoder": "decoder3.0"}
    assert of(dimm(id="51"))["cxl"]["regions"] == []
    assert of(dimm(id="8089-a2-1716-00003042")) == {}
    nd_region: Any = facts.Region
    assert of(nd_region(range=SimpleNamespace(start=0x100000000)))["cxl"]["interleave_ways"] == 2


def test_a_machine_without_cxl_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(facts, "for_each_cxl_memdev")
    inventory: Any = SimpleNamespace(buses=[SimpleNamespace(provider="ACPI.NFIT")], dax_regions=[])
    assert facts.cxl_facts(NOTHING, inventory).whole()(NOTHING) == {}
