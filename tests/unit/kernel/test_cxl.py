# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""CXL memory devices and regions, of kernels before and since 6.15; no sample has any."""

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.inventory import cxl as facts
from drgn_pmem.errors import FormatError
from drgn_pmem.formats.cxlpoison import parse_poison_list
from drgn_pmem.kernel import cxl
from drgn_pmem.partial import NotSaved, Partial, Problems
from drgn_pmem.ranges import Range

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
        last_poison_list=None,
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


def answer(*records: tuple[int, int], flags: int = 0, reserved: int = 0) -> bytes:
    """In a buffer of 256 bytes: addresses with their source, and units of 64 bytes."""
    head = struct.pack("<BBQH20s", flags, reserved, 0, len(records), b"")
    return (head + b"".join(struct.pack("<QII", *r, 0) for r in records)).ljust(256, b"\0")


DEVICE = (Range(0, 1 << 28),)


def test_the_last_poison_list_is_decoded_as_cxl_list_shows_it() -> None:
    found = parse_poison_list(answer((0x1000 | 3, 1), (0x20000 | 2, 64), flags=1), DEVICE)
    assert found is not None
    assert found.to_json() == {
        "media_errors": [
            {"offset": 0x1000, "length": 64, "source": "Injected"},
            {"offset": 0x20000, "length": 4096, "source": "Internal"},
        ],
        "more": True,
        "overflow": False,
        "scanning": False,
    }
    assert parse_poison_list(answer(), DEVICE) is None


@pytest.mark.parametrize(
    "buffer",
    [
        answer((0x1003, 1), flags=0x40),
        answer((0x1003, 1), reserved=1),
        answer((0x1003, 0)),
        answer((0x1004, 1)),
        answer((0x1008, 1)),
        answer(((1 << 28) - 64 | 1, 2)),
        answer(*[(0x1003, 1)] * 15),
        bytes(range(256)),
    ],
)
def test_a_buffer_that_no_device_has_filled_is_no_poison_list(buffer: bytes) -> None:
    with pytest.raises(FormatError):
        parse_poison_list(buffer[:256], DEVICE)


class Buffer:
    """A driver's pointer, and the memory that it points to."""

    def __init__(self, data: bytes | None) -> None:
        self.data = data

    def value_(self) -> int:
        return 0xFF000

    def read(self, address: int, size: int) -> bytes:
        if self.data is None:
            raise NotSaved("not in the dump")
        assert (address, size) == (0xFF000, 256)
        return self.data


@pytest.mark.parametrize("own_mailbox", [True, False])
def test_the_poison_list_is_in_the_buffer_of_the_driver(
    monkeypatch: pytest.MonkeyPatch, own_mailbox: bool
) -> None:
    def optional(obj: Any, name: str) -> Any:
        for part in name.split("."):
            obj = getattr(obj, part, None)
        return obj

    def read(data: bytes | None) -> Any:
        buffer = Buffer(data)
        device = SimpleNamespace(poison=SimpleNamespace(list_out=buffer), payload_size=value(256))
        monkeypatch.setattr(cxl, "_memory_class", lambda state: device)
        monkeypatch.setattr(cxl, "memory_of", lambda prog: buffer)
        state: Any = SimpleNamespace(dpa_res=resource(0, 1 << 28), prog_=NOTHING)
        if own_mailbox:
            state.cxl_mbox, device.payload_size = SimpleNamespace(payload_size=value(256)), None
        return cxl._last_poison_list(state)

    monkeypatch.setattr(cxl, "optional_member", optional)
    monkeypatch.setattr(cxl, "member", getattr)
    (error,) = read(answer((0x1003, 1))).media_errors
    assert (error.offset, error.length, error.source) == (0x1000, 64, "Injected")
    assert read(bytes(range(256))) is None, "kvmalloc() leaves what was there"
    problems = Problems()
    with problems.trying("mem0"):
        read(None)
    assert "not in the dump" in str(problems.partial(None).problems[0])
