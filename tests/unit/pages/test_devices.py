# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pages of DAX devices, by the types and the owners that kernels gave them."""

import dataclasses
from types import SimpleNamespace
from typing import Any

from drgn import Program
import pytest

from drgn_pmem.analysis.inventory.pgmapnames import whose_device_memory
from drgn_pmem.analysis.owners import search
from drgn_pmem.analysis.owners.search import owners_of
from drgn_pmem.analysis.pages import groups, one, states, words
from drgn_pmem.analysis.pages.filter import Filter
from drgn_pmem.analysis.pages.one import read_pmem_page
from drgn_pmem.analysis.pages.states import read_page_report
from drgn_pmem.errors import NotFound
from drgn_pmem.kernel import ramuse
from drgn_pmem.kernel.page import page_layout
from drgn_pmem.kernel.pgmap import is_dax_type, is_driver_type
from drgn_pmem.kernel.ramuse import AnonymousUser
from drgn_pmem.partial import Cause, Partial, Problem, WalkError

from .memmap import COUNT, FIRST, FLAGS, GENERATIONS, HWPOISON, MAPPING, PGMAP, Kernel, Page
from .test_scan import report_of


@pytest.mark.parametrize("type_", ["MEMORY_DEVICE_GENERIC", "MEMORY_DEVICE_DEVDAX", "0"])
def test_device_dax_is_reported_by_each_type_that_kernels_gave_it(type_: str) -> None:
    kernel = Kernel("6.1", {FIRST + 9: Page(index=3, refcount=5)}, type=type_)
    report = report_of(kernel.prog)
    assert report.complete
    assert sum(group.pages for group in report.value.groups) == COUNT
    assert [g.pages for g in report.value.groups if g.status == "pinned"] == [1]


PRIVATE, COHERENT = "MEMORY_DEVICE_PRIVATE", "MEMORY_DEVICE_COHERENT"
DAX_TYPES = ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_GENERIC", "MEMORY_DEVICE_DEVDAX", "0")
DRIVER_TYPES = (PRIVATE, COHERENT, "MEMORY_DEVICE_PUBLIC", "MEMORY_DEVICE_PCI_P2PDMA")
UNKNOWN = "9"
ANON_VMA = MAPPING | 1
EXCLUSIVE = 1 << FLAGS["PG_anon_exclusive"]
"""Has another name in pages that are not anonymous."""


def no_ram(prog: Program, name: str | None = None) -> Partial[list[Any]]:
    """What ram_devices() says where all namespaces are known, and none is used as RAM."""
    if name is not None:
        raise NotFound(f"no namespace {name!r}")
    return Partial([])


def test_every_type_of_a_kernel_is_one_of_dax_or_of_a_driver() -> None:
    """One that is not known, of a later kernel or overwritten, is neither."""
    assert [is_dax_type(t) for t in (*DAX_TYPES, *DRIVER_TYPES, UNKNOWN)] == [True] * 4 + [
        False
    ] * 5
    assert [is_driver_type(t) for t in (*DRIVER_TYPES, *DAX_TYPES, UNKNOWN)] == [True] * 4 + [
        False
    ] * 5


@pytest.mark.usefixtures("owned")
def test_memory_of_a_type_that_is_not_known_is_not_said_to_be_of_a_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its owners are looked for."""
    prog = Kernel("6.6", {FIRST: Page(refcount=1)}, type=UNKNOWN).prog
    said = "memory of 0000:00:04.0 (9): a type that is not known"
    assert said in read_pmem_page(prog, FIRST).value.notes[0]
    looked = []
    monkeypatch.setattr(search._Question, "_owners", lambda self: iter(looked.append(1) or ()))
    monkeypatch.setattr(search, "shared_of", lambda *_: Partial(None))
    monkeypatch.setattr(search, "explain", lambda *_: [])
    assert any(said in note for note in owners_of(prog, FIRST).value.notes)
    assert looked


def test_memory_of_a_driver_that_is_not_known() -> None:
    assert whose_device_memory(None, PRIVATE).startswith(f"{PRIVATE} memory: a driver's own")


@pytest.fixture
def owned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of what the page map belongs to, without the kernel's devices around it."""
    for module in (one, search):
        monkeypatch.setattr(module, "pgmap_name", lambda *_: Partial("0000:00:04.0"))
    monkeypatch.setattr(one, "namespace_of_pfn", lambda *_: Partial(None))
    monkeypatch.setattr(one, "bad_sources", lambda *_: Partial(()))
    monkeypatch.setattr("drgn_pmem.kernel.page.zone_of", lambda *_: {})
    monkeypatch.setattr(search, "namespaces_of", lambda *_: Partial([]))
    monkeypatch.setattr(states, "pgmap_names", lambda *_: Partial({PGMAP: "0000:00:04.0"}))
    task: Any = SimpleNamespace(tgid=70, comm="hmm")
    user = AnonymousUser(task=task, address=0x7F00)
    monkeypatch.setattr(ramuse, "_users", lambda *_: iter([user]))


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("type_", DRIVER_TYPES)
def test_memory_of_a_driver_is_listed_with_its_type_and_owner(
    type_: str, generation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pmem-pages left it out, pmem-page called its pages idle, or the pages of a file."""
    pages = {
        FIRST: Page(refcount=1),
        FIRST + 1: Page(refcount=0),
        FIRST + 2: Page(flags=EXCLUSIVE, refcount=2, mapping=ANON_VMA, index=7, mapcount=0),
        FIRST + 3: Page(flags=HWPOISON, refcount=1),
    }
    prog = Kernel(generation, pages, type=type_).prog
    monkeypatch.setattr(states, "ram_devices", no_ram)
    monkeypatch.setattr(states, "_compare_shared", lambda *_: ())
    free = "free" if type_ in (PRIVATE, COHERENT) else "device memory"
    expected = {
        FIRST: "device memory",
        FIRST + 1: free,
        FIRST + 2: "anonymous",
        FIRST + 3: "poisoned,device memory",
    }
    for pfn, status in expected.items():
        partial, found_owners = read_pmem_page(prog, pfn), owners_of(prog, pfn)
        page, owners = partial.value, found_owners.value
        # Page tables map no device-private memory: swap entries, which are not searched, name it.
        searched = not (status == "anonymous" and type_ == PRIVATE)
        assert partial.complete == found_owners.complete == searched
        user = "70/hmm at 0x7f00" if status == "anonymous" and searched else None
        assert (page.status, page.namespace, page.state.type) == (status, "0000:00:04.0", type_)
        assert page.state.pins is None, "what an idle page has is up to the driver"
        assert page.owner == user
        assert page.state.flag_names is not None
        assert ("PG_anon_exclusive" in page.state.flag_names) == (status == "anonymous")
        assert (f"anonymous memory of {user}" in owners.notes) == (user is not None)
        (note,) = page.notes
        assert f"memory of 0000:00:04.0 ({type_}): a driver's own, not persistent" in note
        unowned = True if searched else None
        assert (owners.namespace, owners.owners, owners.unowned) == ("0000:00:04.0", (), unowned)
        assert owners.to_json()["type"] == type_
        assert f"memory of 0000:00:04.0 ({type_})" in owners.notes[0]
    report = read_page_report(prog).whole()
    assert {g.type for g in report.groups} == {type_}
    assert {g.namespace for g in report.groups} == {"0000:00:04.0"}
    assert sum(g.pages for g in report.groups) == COUNT
    found = {g.status for g in report.groups}
    assert {"device memory", "anonymous", "poisoned", free} <= found
    assert not {"idle", "file", "shared", "pinned"} & found
    assert all(g.owner is None and g.pins is None and g.shared is None for g in report.groups)
    (anonymous,) = (g for g in report.groups if g.status == "anonymous")
    assert anonymous.flag_names == ("PG_anon_exclusive",)
    with pytest.raises(WalkError, match="a namespace 'pmem7' is not known"):
        read_page_report(prog, "pmem7")
    (named,) = {g.namespace for g in read_page_report(prog, "0000:00:04.0").whole().groups}
    assert named == "0000:00:04.0"
    for chosen in (Filter(busy=True), Filter(shared=True)):
        assert read_page_report(prog, chosen=chosen).value.groups == ()
    assert read_page_report(prog, ram=False).whole().groups == (), "poison and pins are of pmem"


@pytest.mark.usefixtures("owned")
@pytest.mark.parametrize("type_", ["MEMORY_DEVICE_GENERIC", "MEMORY_DEVICE_FS_DAX"])
def test_memory_of_dax_has_its_type_too(type_: str) -> None:
    prog = Kernel("6.6", {}, type=type_).prog
    report = read_page_report(prog, ram=False).whole()
    assert {(g.type, g.status) for g in report.groups} == {(type_, "idle")}


def test_a_number_in_memory_of_a_driver_is_not_called_persistent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for type_, what in (("MEMORY_DEVICE_GENERIC", "DAX memory"), (PRIVATE, "device memory")):
        prog = Kernel("6.6", {}, type=type_).prog
        monkeypatch.setattr(words, "for_each_iomem", lambda _: Partial([]))
        found = words.resolve_page(prog, hex(FIRST)).whole()
        assert (found.pfn, f"({what}, " in str(found.note)) == (FIRST, True)


def test_before_4_19_a_page_of_a_dax_device_without_mapping_is_not_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Device DAX set no mapping then: pages that processes map look as those that none maps."""
    pages = {FIRST + 9: Page(refcount=5), FIRST + 10: Page(flags=HWPOISON)}
    statuses = {}
    for type_ in ("0", "MEMORY_DEVICE_FS_DAX"):
        kernel = Kernel("6.1", pages, type=type_)
        layout = dataclasses.replace(page_layout(kernel.prog), keeps_index=False)
        for module in (groups, one):
            monkeypatch.setattr(module, "page_layout", lambda _, layout=layout: layout)
        report = report_of(kernel.prog)
        assert report.complete  # no dump has it
        notes = [p.why for p in report.problems if p.cause is Cause.FORMAT]
        assert [("pmem-rmap" in note) for note in notes] == ([True] if type_ == "0" else [])
        statuses[type_] = {g.status: g.pages for g in report.value.groups}
        monkeypatch.setattr(one, "namespace_of_pfn", lambda *_: Partial(None))
        monkeypatch.setattr(one, "pgmap_name", lambda *_: Partial(None))
        monkeypatch.setattr(one, "shared_of", lambda *_: Partial(False))
        singles = {pfn: read_pmem_page(kernel.prog, pfn).value.status for pfn in (FIRST, *pages)}
        assert singles == {
            FIRST: "unknown" if type_ == "0" else "idle",
            FIRST + 9: "pinned",
            FIRST + 10: "poisoned",
        }
    rest = COUNT - 2
    assert statuses["0"] == {"unknown": rest, "pinned": 1, "poisoned": 1}
    assert statuses["MEMORY_DEVICE_FS_DAX"] == {"idle": rest, "pinned": 1, "poisoned": 1}


def test_a_driver_may_have_memory_that_could_not_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(prog: Program, name: str) -> Any:
        raise NotFound(f"no namespace {name!r}")

    lost = Problem(cause=Cause.NOT_SAVED, why="a resource is not in the dump")
    monkeypatch.setattr(states, "find_namespace", none)
    prog = Kernel("6.6", {}, type=PRIVATE).prog
    for problems in ((), (lost,)):
        names = Partial({PGMAP: "hmm_dmirror"}, problems)
        monkeypatch.setattr(states, "pgmap_names", lambda *_, names=names: names)
        found = states.namespaces_to_scan(prog, "hmm_dmirror")
        assert [name for name, _ in found.value] == ["hmm_dmirror"]
        assert found.problems == problems
