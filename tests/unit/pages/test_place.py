# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where struct pages are, and what that lets one say."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.coverage import advice as advice_module
from drgn_pmem.analysis.coverage.advice import Advice, advise, decide
from drgn_pmem.analysis.coverage.records import NamespaceCoverage
from drgn_pmem.analysis.memmap.place import StructPages, struct_pages_of
from drgn_pmem.dumpfile import State, live_dump, set_dump
from drgn_pmem.partial import Cause, Partial, Problems
from drgn_pmem.ranges import Range, RangeSet

from .memmap import COUNT, FIRST, STRUCT_PAGES, VMEMMAP, Kernel
from .physical import PAGE

SIZE = 64 * COUNT
PMEM = RangeSet([Range(STRUCT_PAGES + 5 * PAGE, STRUCT_PAGES + SIZE)])


def places(kernel: Kernel) -> Partial[StructPages]:
    return struct_pages_of(kernel.prog, [(FIRST, FIRST + COUNT)], PMEM)


@pytest.mark.parametrize("debug_info", [True, False])
def test_an_extent_that_begins_in_ram_and_goes_on_on_pmem(debug_info: bool) -> None:
    """One run of page table entries, of which the old answer with debug info was: all in RAM."""
    pages = places(Kernel("6.1", {}, debug_info=debug_info)).whole()
    assert (pages.in_ram, pages.on_pmem) == (5 * PAGE, SIZE - 5 * PAGE)
    assert (pages.unmapped, pages.unknown, pages.place) == (0, 0, "pmem + RAM")
    assert pages.pmem_range == PMEM.ranges[0]
    assert pages.first_physical == STRUCT_PAGES
    assert pages.last_physical == STRUCT_PAGES + SIZE - 64
    assert pages.states == {State.SAVED: SIZE}
    assert pages.to_json()["virtual"] == f"{VMEMMAP + 64 * FIRST:#x}"


def test_ranges_of_one_page_map_count_without_what_is_between_them() -> None:
    prog = Kernel("6.1", {}).prog
    apart = [(FIRST, FIRST + 64), (FIRST + 512, FIRST + 640)]
    pages = struct_pages_of(prog, apart, PMEM).whole()
    assert (pages.npfns, pages.size) == (192, 192 * 64)
    assert (pages.in_ram, pages.on_pmem) == (PAGE, 2 * PAGE)


def without_tables() -> Kernel:
    kernel = Kernel("6.1", {})
    del kernel.machine.pages[kernel.tables.tables[2, VMEMMAP + 64 * FIRST >> 21]]
    kernel.changed()
    return kernel


def coverage(known: StructPages, **more: Any) -> NamespaceCoverage:
    values: dict[str, Any] = {
        "namespace": "namespace0.0",
        "mode": "fsdax",
        "map": "dev",
        "start": FIRST * PAGE,
        "end": (FIRST + COUNT) * PAGE,
        "stretches": (),
        "infoblock": {},
        "metadata": {},
        "userdata": {State.ABSENT: COUNT * PAGE},
        "unknown": {},
        "struct_pages": known.states,
        "pages": known,
        "check": None,
    }
    return NamespaceCoverage(**values | more)


def test_a_lost_page_table_makes_them_unknown_and_not_unmapped() -> None:
    kernel = without_tables()
    partial = places(kernel)
    pages = partial.value
    assert not partial.complete
    assert {problem.cause for problem in partial.problems} == {Cause.NOT_SAVED}
    assert (pages.unknown, pages.unmapped, pages.on_pmem, pages.in_ram) == (SIZE, 0, 0, 0)
    assert (pages.states, pages.place) == ({State.UNKNOWN: SIZE}, "unknown")
    assert (pages.first_physical, pages.last_physical) == (None, None)


def test_no_advice_to_change_nothing_where_their_place_is_not_known() -> None:
    kernel = without_tables()
    item = coverage(places(kernel).value)
    assert (item.location, item.case, item.scope) == (None, None, None)
    assert "unknown" in item.verdict
    assert decide(kernel.prog, item, Problems()) is Advice.UNKNOWN


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"struct_pages": {State.SAVED: SIZE}}, Advice.ALL_SAVED),
        ({"struct_pages": {State.TRUNCATED: SIZE}}, Advice.MORE_ROOM),
        ({"struct_pages": {State.SAVED: SIZE - 64, State.DAMAGED: 64}}, Advice.COPY_AGAIN),
        ({"struct_pages": {State.SAVED: SIZE - 64, State.EXCLUDED: 64}}, Advice.SAVE_ALL),
        ({"struct_pages": {State.SAVED: 64, State.UNMAPPED: SIZE - 64}}, Advice.NOT_MAPPED),
        # What was lost counts, however much was never there.
        ({"struct_pages": {State.EXCLUDED: 64, State.UNMAPPED: SIZE - 64}}, Advice.SAVE_ALL),
        # Where they are was not found out, though debug info is loaded.
        ({"pages": None, "struct_pages": {}}, Advice.UNKNOWN),
        ({"pages": None, "struct_pages": {}, "mode": None, "map": None}, Advice.UNKNOWN),
        ({"pages": None, "struct_pages": {}, "mode": "sector", "map": None}, Advice.NO_MEMMAP),
        ({"kmem": PAGE}, Advice.LIKE_RAM),
    ],
)
def test_advice_is_decided_by_states(changes: dict[str, Any], advice: Advice) -> None:
    kernel = Kernel("6.1", {})
    item = coverage(places(kernel).value, **changes)
    set_dump(kernel.prog, live_dump())
    assert decide(kernel.prog, item, Problems()) is advice


@pytest.mark.parametrize(
    ("loaded", "truncated", "advice"),
    [
        (False, False, Advice.LOAD_KERNEL),
        (False, True, Advice.LOAD_KERNEL),
        (True, True, Advice.MORE_ROOM),
    ],
)
def test_debug_info_that_is_loaded_is_not_asked_for(
    loaded: bool, truncated: bool, advice: Advice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "drgn_pmem.analysis.coverage.advice.has_kernel_debug_info", lambda prog: loaded
    )
    kernel = Kernel("6.1", {})
    item = coverage(places(kernel).value, pages=None, struct_pages={})
    set_dump(kernel.prog, replace(live_dump(), incomplete=truncated))
    assert decide(kernel.prog, item, Problems()) is advice


def test_advice_that_destroys_comes_last_and_says_so() -> None:
    kernel = Kernel("6.1", {})
    item = coverage(places(kernel).value, struct_pages={State.ABSENT: SIZE})
    set_dump(kernel.prog, live_dump())
    text = advise(kernel.prog, item, Problems())
    assert text.index("virsh dump") < text.index("DESTROYS THE DATA") < text.index("ndctl create")


def test_advice_for_a_firmware_assisted_dump_is_not_that_for_kexec(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It never has pmem, whatever wrote a crash header; and its capture kernel writes over it."""
    kernel = Kernel("6.1", {})
    item = coverage(places(kernel).value, struct_pages={State.ABSENT: SIZE})
    set_dump(kernel.prog, live_dump())
    monkeypatch.setattr(advice_module, "_is_fadump", lambda prog, problems: True)
    bus = SimpleNamespace(provider="ibm,persistent-memory:ibm,pmemory@90000001")
    monkeypatch.setattr(advice_module, "for_each_bus", lambda prog: Partial([bus]))
    text = advise(kernel.prog, item, Problems())
    assert "kexec" not in text
    assert "writes new struct pages over those on the pmem" in text
    assert "keep nd_pmem, papr_scm out of it" in text


@pytest.mark.parametrize("cxl", [True, False])
def test_a_hypervisor_never_dumps_cxl_memory(cxl: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel("6.1", {})
    item = coverage(places(kernel).value, struct_pages={State.ABSENT: SIZE})
    set_dump(kernel.prog, replace(live_dump(), hypervisor=True))
    behind = RangeSet([Range(item.start, item.start + PAGE)] if cxl else [])
    machine = Partial(SimpleNamespace(cxl=behind))
    monkeypatch.setattr(advice_module, "read_machine", lambda prog: machine)
    text = advise(kernel.prog, item, Problems())
    assert ("--qemu" in text) == cxl
    assert ("virsh dump" in text) != cxl
