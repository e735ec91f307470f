# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What CXL devices last answered when they were asked for their poison lists, as bad memory."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.findings.rules import poison
from drgn_pmem.formats.cxlpoison import CxlMediaError, CxlPoisonList
from drgn_pmem.kernel import cxl, devicepoison
from drgn_pmem.kernel.badblocks import BadList
from drgn_pmem.partial import Cause, Partial, Problem
from drgn_pmem.ranges import Range

from .test_cxl import memdev, region

NOTHING: Any = None
BASE = 0x100000000


def mapping(name: str, dpa: Range | None) -> cxl.CxlMapping:
    return cxl.CxlMapping(position=0, memdev=name, decoder="decoder2.0", dpa=dpa)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = SimpleNamespace(memdevs=[], regions=[], problems=())
    monkeypatch.setattr(devicepoison, "has_cxl_memory", lambda prog: True)
    monkeypatch.setattr(
        devicepoison, "for_each_cxl_memdev", lambda prog: Partial(found.memdevs, found.problems)
    )
    monkeypatch.setattr(devicepoison, "for_each_cxl_region", lambda prog: Partial(found.regions))
    return found


def listed(*offsets: int, length: int = 64, more: bool = False) -> cxl.CxlMemdev:
    errors = tuple(CxlMediaError(offset=o, length=length, source="Injected") for o in offsets)
    answer = CxlPoisonList(media_errors=errors, more=more, overflow=False, scanning=False)
    return replace(memdev("mem0", 0x11), last_poison_list=answer)


def test_an_error_in_a_region_of_one_device_has_a_physical_address(machine: Any) -> None:
    machine.memdevs = [listed(0x1040, more=True), memdev("mem1", 0x22)]
    own = mapping("mem0", Range(0x1000, 0x3000))
    machine.regions = [region("mem1"), replace(region("mem0"), mappings=(own,), cache_size=0x8000)]
    found = devicepoison.read_device_poison(NOTHING).whole()
    (bad,) = found.ranges
    assert (bad.kind, bad.source) == (BadList.DEVICE, "mem0 poison list")
    assert (bad.start, bad.length) == (BASE + 0x8000 + 0x40, 64)
    (note,) = found.notes
    assert note.startswith("mem0 poison list: what the device answered when it was last asked")
    assert "may be out of date; the device had more" in note


@pytest.mark.parametrize(
    ("ways", "dpa"), [(2, Range(0, 0x3000)), (1, Range(0x2000, 0x3000)), (1, None)]
)
def test_an_error_elsewhere_is_named_by_the_devices_own_address(
    machine: Any, ways: int, dpa: Range | None
) -> None:
    machine.memdevs = [listed(0x1040)]
    known = replace(region("mem0"), interleave_ways=ways, mappings=(mapping("mem0", dpa),))
    machine.regions = [known]
    found = devicepoison.read_device_poison(NOTHING).whole()
    assert found.ranges == ()
    assert "64 bytes at device address 0x1040 (Injected)" in found.notes[1]


def test_an_error_that_goes_on_after_its_region_is_bad_memory_up_to_there(machine: Any) -> None:
    """What follows the region in physical memory is not the device's."""
    machine.memdevs = [listed(0x2FC0, length=256)]
    own = mapping("mem0", Range(0x1000, 0x3000))
    machine.regions = [replace(region("mem0"), mappings=(own,))]
    found = devicepoison.read_device_poison(NOTHING).whole()
    assert [(bad.start, bad.length) for bad in found.ranges] == [(BASE + 0x1FC0, 64)]
    assert "192 bytes at device address 0x3000 (Injected)" in found.notes[1]


def test_an_error_of_two_regions_is_at_two_physical_addresses(machine: Any) -> None:
    machine.memdevs = [listed(0x2FC0, length=128)]
    machine.regions = [
        replace(region("mem0"), resource=base, mappings=(mapping("mem0", own),))
        for base, own in ((BASE, Range(0, 0x3000)), (BASE * 2, Range(0x3000, 0x4000)))
    ]
    found = devicepoison.read_device_poison(NOTHING).whole()
    assert [(bad.start, bad.length) for bad in found.ranges] == [
        (BASE + 0x2FC0, 64),
        (BASE * 2, 64),
    ]
    assert len(found.notes) == 1


def test_lists_that_could_not_be_read_are_missing(machine: Any) -> None:
    machine.problems = (Problem(cause=Cause.NOT_SAVED, why="mem0: its last poison list"),)
    assert not devicepoison.read_device_poison(NOTHING).complete


def test_a_machine_without_cxl_memory_is_not_asked_for_it(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devicepoison, "has_cxl_memory", lambda prog: False)
    monkeypatch.delattr(devicepoison, "for_each_cxl_memdev")
    assert devicepoison.read_device_poison(NOTHING).whole().ranges == ()


@pytest.mark.parametrize(
    ("providers", "paths", "has"),
    [
        (["ACPI.NFIT"], ["/platform/hmem.0"], False),
        (["CXL"], [], True),
        ([], ["/platform/ACPI0017:00/root0/region0"], True),
    ],
)
def test_cxl_memory_shows_in_buses_and_dax_regions(
    monkeypatch: pytest.MonkeyPatch, providers: list[str], paths: list[str], has: bool
) -> None:
    buses: Any = [SimpleNamespace(provider=provider) for provider in providers]
    regions: Any = [SimpleNamespace(path=path) for path in paths]
    monkeypatch.setattr(cxl, "for_each_bus", lambda prog: Partial(buses))
    monkeypatch.setattr(cxl, "for_each_dax_region", lambda prog: Partial(regions))
    assert cxl.has_cxl_memory(NOTHING) is has


def test_a_finding_of_such_a_list_alone_says_so() -> None:
    pages: Any = [SimpleNamespace(listed_only=True, sources=["mem0 poison list"])]
    assert poison._by_list(pages) == ", by the last mem0 poison list, which may be out of date"
    pages.append(SimpleNamespace(listed_only=False, sources=["ndbus0 badrange"]))
    assert poison._by_list(pages) == ""
