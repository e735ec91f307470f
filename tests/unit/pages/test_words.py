# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What users type for a page, on a machine of which only the persistent memory is known."""

from types import SimpleNamespace
from typing import Any

from drgn import Program
import pytest

from drgn_pmem.analysis.pages import words
from drgn_pmem.analysis.pages.words import Reading, parse_page, resolve_page
from drgn_pmem.errors import NotFound, UsageError
from drgn_pmem.kernel.dax import DaxDevice
from drgn_pmem.partial import Cause, Incomplete, Partial
from drgn_pmem.ranges import Range

from .memmap import FIRST, STRUCT_PAGES, VMEMMAP, Kernel
from .physical import PAGE


@pytest.fixture(scope="module")
def prog() -> Program:
    """Its iomem cannot be read: it has no such variable."""
    return Kernel("6.1", {}).prog


def test_a_pfn_of_persistent_memory_needs_nothing_else(prog: Program) -> None:
    found = resolve_page(prog, f"{FIRST:#x}")
    assert (found.value.pfn, found.value.kind, found.complete) == (FIRST, Reading.PFN, True)
    assert found.value.to_json() == {
        "pfn": FIRST,
        "kind": "pfn",
        "text": f"{FIRST:#x}",
        "note": f"{FIRST:#x} taken as a PFN (DAX memory, physical {FIRST * PAGE:#x})",
    }


def test_an_address_might_be_a_pfn_of_memory_that_is_not_known(prog: Program) -> None:
    found = resolve_page(prog, f"{FIRST * PAGE + 17:#x}")
    assert (found.value.pfn, found.value.kind) == (FIRST, Reading.PHYSICAL)
    assert not found.complete
    with pytest.raises(Incomplete):
        parse_page(prog, f"{FIRST * PAGE + 17:#x}")


def test_what_a_number_is_can_be_said(prog: Program) -> None:
    assert parse_page(prog, f"phys:{FIRST * PAGE + 17:#x}") == FIRST
    assert parse_page(prog, f"pfn:{FIRST}") == FIRST
    assert parse_page(prog, "pfn:5") == 5


def test_memory_that_is_not_known_is_not_said_to_be_none(prog: Program) -> None:
    """The old answer was: no memory there, neither as a PFN nor as a physical address."""
    with pytest.raises(Incomplete, match=r"0x7000000: .*iomem_resource"):
        resolve_page(prog, "0x7000000")
    with pytest.raises(Incomplete, match="iomem_resource"):
        resolve_page(prog, f"{VMEMMAP + 64 * 5:#x}")


def test_a_number_that_could_be_either(prog: Program) -> None:
    """The dump has memory at both readings, and nothing says which is which."""
    page = STRUCT_PAGES // PAGE
    assert resolve_page(prog, f"{page:#x}").value.pfn == page
    both = Kernel("6.1", {})
    both.machine.write(page - page % PAGE, bytes(PAGE))
    found = resolve_page(both.changed(), f"{page:#x}")
    assert any("pfn: or phys:" in str(problem) for problem in found.problems)
    assert {problem.cause for problem in found.problems} >= {Cause.NOT_SAVED}


@pytest.mark.parametrize("text", ["", "abc", "pfn:", "phys:abc", "0x" + "f" * 17, "1" * 60])
def test_words_that_name_no_page(prog: Program, text: str) -> None:
    with pytest.raises(UsageError):
        resolve_page(prog, text)


def test_a_struct_page_by_its_address(prog: Program) -> None:
    found = resolve_page(prog, f"{VMEMMAP + 64 * FIRST + 8:#x}").whole()
    assert (found.pfn, found.kind) == (FIRST, Reading.PAGE)
    assert found.note == f"8 bytes into the struct page of PFN {FIRST:#x}"


def dax(name: str, *ranges: Range) -> DaxDevice:
    nothing: Any = None
    return DaxDevice(
        chardev=name,
        size=sum(r.size for r in ranges),
        target_node=None,
        align=PAGE,
        mode="devdax",
        ranges=ranges,
        region=0,
        pgmap=0,
        memory_blocks=None,
        object=nothing,
    )


@pytest.fixture
def devices(prog: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A DAX device without a namespace, of two ranges, and two that share a namespace."""
    own = dax("dax1.0", Range(0x200000, 0x300000)), dax("dax1.1", Range(0x300000, 0x400000))
    alone = dax("dax4.0", Range(0x900000, 0x902000), Range(0x800000, 0x801000))
    regions: Any = [SimpleNamespace(devices=own), SimpleNamespace(devices=(alone,))]
    namespace: Any = SimpleNamespace(
        dev="namespace1.0",
        devices=("dax1.0", "dax1.1"),
        daxregion=regions[0],
        data_offset=0x100000,
        mode="devdax",
        resource=0x100000,
        size=0x200000,
        name=None,
        uuid=None,
        raw_uuid=None,
        blockdev=None,
        chardev=None,
    )
    monkeypatch.setattr(words, "for_each_namespace", lambda _: Partial([namespace]))
    monkeypatch.setattr(words, "for_each_dax_region", lambda _: Partial(regions), raising=False)
    monkeypatch.setattr(words, "_below", lambda prog, text, device, offset: (device, offset, ""))
    return prog


@pytest.mark.parametrize(
    ("text", "physical"),
    [
        ("dax4.0+0x1000", 0x901000),
        ("/dev/dax4.0+0x2fff", 0x800FFF),
        ("dax1.0+0x1000", 0x201000),
        ("dax1.1+0x1000", 0x301000),  # not of the data of the namespace
        ("namespace1.0+0x1000", 0x201000),
    ],
)
def test_an_offset_in_a_dax_device_is_of_its_own_ranges(
    devices: Program, text: str, physical: int
) -> None:
    found = resolve_page(devices, text).whole()
    assert (found.pfn, found.kind) == (physical // PAGE, Reading.OFFSET)
    assert str(found.note).endswith(f"= physical {physical:#x}")


def test_an_offset_after_the_end_of_a_dax_device(devices: Program) -> None:
    with pytest.raises(NotFound, match=r"dax4\.0 ends at byte 0x3000"):
        resolve_page(devices, "dax4.0+0x3000")
