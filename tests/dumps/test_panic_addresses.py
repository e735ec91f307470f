# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kernel addresses of pages that the lab recorded: direct map, vmemmap, ioremap of a namespace."""

from drgn import cast
from drgn.helpers.linux.mm import pfn_to_page, phys_to_virt
import pytest

from drgn_pmem.analysis.findings.addresses import Window, pmem_address
from drgn_pmem.kernel.namespace import for_each_namespace
from drgn_pmem.kernel.pagetable import translate
from drgn_pmem.partial import NotSaved, State

from ..samples import CASES, Case
from .test_poison import expected as poisoned

CHOSEN = ("6.1-fileload:elf", "7.2-fileload:raw", "arm64-6.12:elf")


@pytest.fixture(params=[case for case in CASES if str(case) in CHOSEN], ids=str)
def chosen(request: pytest.FixtureRequest) -> Case:
    case: Case = request.param
    return case


def files(case: Case) -> dict[int, str]:
    """PFN -> what the lab wrote down about the bad page: file and offset."""
    return {
        pfn: f"{event['path']} offset {event['offset'] // case.page * case.page:#x}"
        for pfn, event in poisoned(case).items()
        if event["path"]
    }


def test_an_address_in_the_direct_map_is_that_of_the_file(chosen: Case) -> None:
    """Also where the kernel unmapped the page because it is bad."""
    wanted = files(chosen)
    assert wanted
    for pfn, name in wanted.items():
        address = int(phys_to_virt(chosen.prog, pfn * chosen.page + 8))
        found = pmem_address(chosen.prog, address).value
        assert found is not None
        assert (found.window, found.pfn) == (Window.DIRECT_MAP, pfn)
        assert found.words.startswith(f"{name} (PFN {pfn:#x} of namespace")


def test_bad_pages_are_not_mapped_any_more() -> None:
    """Else the test above would not show that the page tables are not needed."""
    case = next(case for case in CASES if str(case) == "6.1-fileload:elf")
    unmapped = 0
    for pfn in files(case):
        try:
            translate(case.prog, int(phys_to_virt(case.prog, pfn * case.page)))
        except NotSaved as error:
            unmapped += error.state is State.UNMAPPED
    assert unmapped


def test_the_address_of_a_struct_page_is_that_of_the_page_it_describes(chosen: Case) -> None:
    for pfn, name in files(chosen).items():
        found = pmem_address(chosen.prog, pfn_to_page(chosen.prog, pfn).value_() + 8).value
        assert found is not None
        assert (found.window, found.pfn) == (Window.VMEMMAP, pfn)
        assert found.words.startswith(f"the struct page of {name} (PFN ")


def test_a_raw_namespace_is_mapped_by_ioremap(chosen: Case) -> None:
    """By the driver's own pointer to it."""
    raws = [n for n in for_each_namespace(chosen.prog).value if n.mode == "raw" and n.blockdev]
    assert raws
    for raw in raws:
        assert raw.object is not None
        common = cast("struct nd_namespace_common *", raw.object)
        pmem = cast("struct pmem_device *", common.dev.driver_data)
        found = pmem_address(chosen.prog, pmem.virt_addr.value_() + 3 * chosen.page).value
        assert found is not None
        pfn = raw.resource // chosen.page + 3
        assert (found.window, found.pfn) == (Window.MAPPED, pfn)
        assert found.words == f"PFN {pfn:#x} of {raw.dev}, mapped by ioremap or the like"


def test_addresses_of_ram_and_of_nothing_are_none(chosen: Case) -> None:
    for address in (
        chosen.prog["init_task"].address_,
        chosen.prog["init_task"].stack.value_(),
        0xFFFF_DEAD_0000_0000,
    ):
        answer = pmem_address(chosen.prog, int(address or 0))
        assert answer.value is None
        assert answer.complete
