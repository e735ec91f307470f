# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Memory blocks of persistent memory that is used as RAM: what all of their pages are used for, and
which keep a block from going offline."""

from drgn import Object
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import page_to_pfn, pfn_to_page, pfn_to_virt
from drgn.helpers.linux.pid import find_task
import pytest

from drgn_pmem.analysis.findings.case import Facts, judge
from drgn_pmem.analysis.findings.diagnose import RULES, _declare
from drgn_pmem.analysis.findings.model import Outcome
from drgn_pmem.analysis.pages import ramowners
from drgn_pmem.analysis.pages.readers import _ProgramReader
from drgn_pmem.analysis.pages.states import read_page_report
from drgn_pmem.kernel.freelists import zones_of
from drgn_pmem.kernel.memoryblocks import memory_blocks_of
from drgn_pmem.kernel.page import read_page
from drgn_pmem.kernel.page_layout import page_layout
from drgn_pmem.kernel.pageuse import page_marks
from drgn_pmem.kernel.ramuse import RamUse, ram_use_of
from drgn_pmem.kernel.tasks import Tasks
from drgn_pmem.partial import Cause, Partial, Problem, WalkError
from drgn_pmem.ranges import Range

from ..samples import CASES, Case, open_crash, run_answer, run_json, run_text
from ..synthetic import poke, poke_physical

NAMESPACE = "namespace4.0"

RAM = [
    case
    for case in CASES
    if str(case) in ("6.1-fileload:elf", "6.1-fileload:lzo", "7.2-fileload:raw", "arm64-6.12:elf")
]


@pytest.fixture(scope="module", params=RAM, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def pages_by_status(groups: "list[dict[str, object]]") -> dict[str, int]:
    counts: dict[str, int] = {}
    for group in groups:
        counts[str(group["status"])] = counts.get(str(group["status"]), 0) + int(
            str(group["pages"])
        )
    return counts


def test_a_damaged_state_of_a_memory_block_is_named() -> None:
    prog = open_crash(RAM[0].sample, RAM[0].dump)
    (block,) = memory_blocks_of(prog, [Range(0, 1 << 63)])[-1:]
    poke(prog, block.object.state.address_, (0x1B01).to_bytes(8, "little"))
    with pytest.raises(WalkError, match="no state 0x1b01"):
        memory_blocks_of(prog, [block.range])


def test_every_page_of_the_block_that_the_kernel_onlined_has_a_use(case: Case) -> None:
    groups = case.json(f"pmem-pages {NAMESPACE}")
    (block,) = {group["memory_block"] for group in groups}
    assert block == case.truth("system-ram").strip()
    assert sum(group["pages"] for group in groups) == (128 << 20) // 4096
    assert pages_by_status(groups).keys() == {
        "free",
        "free on a CPU",
        "page cache",
        "anonymous",
    }
    assert not any(group["blocks_offline"] for group in groups)


def test_free_pages_are_those_on_the_lists_of_the_buddy_allocator(case: Case) -> None:
    ranges = case.json(f"pmem-pages {NAMESPACE} --ranges --limit 50000")
    first, end = ranges[0]["pfn"], ranges[-1]["pfn"] + ranges[-1]["pages"]
    free = {
        pfn
        for item in ranges
        if item["status"] == "free"
        for pfn in range(item["pfn"], item["pfn"] + item["pages"])
    }
    listed = set()
    for zone in zones_of(case.prog, first, end):
        for order, area in enumerate(zone.free_area):
            for head in area.free_list:
                for page in list_for_each_entry("struct page", head.address_of_(), "lru"):
                    pfn = page_to_pfn(page).value_()
                    listed |= {p for p in range(pfn, pfn + (1 << order)) if first <= p < end}
    assert listed
    assert free == listed


def test_page_tables_of_a_process_are_page_tables() -> None:
    """Not only where the kernel has memory cgroups."""
    prog = next(case for case in CASES if str(case) == "6.1-fileload:elf").prog
    tables = []
    level = [Object(prog, "unsigned long *", find_task(prog, 1).mm.pgd.value_())]
    for _ in range(3):
        entries = [table[at].value_() for table in level for at in range(256)]
        tables = [(entry & 0xFFFFFFFFFF000) >> 12 for entry in entries if entry & 1]
        level = [Object(prog, "unsigned long *", pfn_to_virt(prog, t).value_()) for t in tables]
    assert tables
    for pfn in tables:
        ram = ram_use_of(prog, read_page(prog, pfn).value).value
        assert (ram.use, ram.blocks_offline) == (RamUse.PAGE_TABLE, True)


def test_ranges_say_of_a_page_what_pmem_page_says(case: Case) -> None:
    ranges = case.json(f"pmem-pages {NAMESPACE} --ranges --limit 50000")
    at = 0
    for item in ranges[::5]:
        pfn = item["pfn"] + item["pages"] // 2
        page = read_page(case.prog, pfn).value
        ram = ram_use_of(case.prog, page).value
        assert ram.use is not None
        assert (ram.use.value, ram.blocks_offline, ram.extra) == (
            item["status"],
            item["blocks_offline"],
            item["extra"],
        )
        assert item["refcount"] == page.refcount
        if ram.users:
            assert any(f"{user.task.tgid}/" in item["owner"] for user in ram.users)
        if ram.inode is not None:
            assert f"(ino {ram.inode.ino})" in item["owner"]
            assert ram.offset == (item["index"] + pfn - item["pfn"]) * 4096
        at += 1
    assert at > 10


def test_filters_choose_pages_of_ram(case: Case) -> None:
    ranges = case.json(f"pmem-pages {NAMESPACE} --ranges --limit 50000")
    owner = next(item["owner"] for item in ranges if item["status"] == "page cache")
    chosen = case.json(f"pmem-pages {NAMESPACE} --owner '{owner}'")
    mine = sum(item["pages"] for item in ranges if item["owner"] == owner)
    assert sum(group["pages"] for group in chosen) == mine
    dirty = case.json(f"pmem-pages {NAMESPACE} --flags dirty --ranges")
    assert dirty
    assert all("PG_dirty" in item["flag_names"] for item in dirty if item["flag_names"])
    assert case.json(f"pmem-pages {NAMESPACE} --shared") == []


def test_all_namespaces_include_ram(case: Case) -> None:
    whole = [g for g in case.json("pmem-pages") if g["namespace"] == NAMESPACE]
    assert whole == case.json(f"pmem-pages {NAMESPACE}")


class Held:
    """A dump with pages of RAM that were changed: one of each kind that stays where it is."""

    def __init__(self) -> None:
        case = next(case for case in CASES if str(case) == "6.1-fileload:elf")
        self.prog = prog = open_crash(case.sample, case.dump)
        prog.cache["drgn_pmem.scan_reader"] = _ProgramReader(prog)
        ranges = read_page_report(prog, NAMESPACE, ranges=True).value.ranges
        used = [r for r in ranges if r.group.status == "page cache" and r.group.pages > 1]
        self.pinned, self.slab, self.reserved, self.kernel, self.table = (r.pfn for r in used[:5])
        free = [r for r in ranges if r.group.status == "free on a CPU" and r.group.pages == 1]
        self.unknown = free[0].pfn
        layout, marks = page_layout(prog), page_marks(prog)
        self.change(self.pinned, layout.refcount, 4, 3, add=True)
        self.change(self.slab, layout.flags, 8, marks.slab, add=True)
        self.change(self.reserved, layout.flags, 8, marks.reserved, add=True)
        self.change(self.kernel, layout.mapping, 8, 0)
        self.change(self.table, layout.mapcount, 4, 0xFFFFFFFF & ~0x200)
        self.change(self.unknown, layout.refcount, 4, 1)
        self.change(self.unknown, layout.mapcount, 4, 0xFFFFFFFF & ~0x400)  # PG_guard
        prog.cache.pop("drgn_pmem.namespaces", None)

    def change(self, pfn: int, offset: int, size: int, value: int, *, add: bool = False) -> None:
        page = pfn_to_page(self.prog, pfn).value_() + offset
        if add:
            value += int.from_bytes(self.prog.read(page, size), "little")
        data = value.to_bytes(size, "little")
        physical = read_page(self.prog, pfn).value.page_physical
        assert physical is not None
        poke(self.prog, page, data)
        poke_physical(self.prog, physical + offset, data)


@pytest.fixture(scope="module")
def held() -> Held:
    return Held()


def test_pages_that_keep_a_memory_block_from_going_offline_are_named(held: Held) -> None:
    ranges = run_json(held.prog, f"pmem-pages {NAMESPACE} --busy --ranges")
    assert {item["pfn"]: item["status"] for item in ranges} == {
        held.pinned: "page cache",
        held.slab: "slab",
        held.reserved: "reserved",
        held.kernel: "allocated",
        held.table: "page table",
    }
    assert {item["pfn"]: item["extra"] for item in ranges}[held.pinned] == 3
    for item in ranges:
        (page,) = run_json(held.prog, f"pmem-page pfn:{item['pfn']:#x}")
        assert (page["use"], page["blocks_offline"]) == (item["status"], True)


def test_the_diagnosis_names_what_cannot_go_offline(held: Held) -> None:
    _declare()
    ruling = judge(RULES["kmem-held"], Facts(held.prog))
    (finding,) = ruling.findings
    assert finding.subject == "memory44 of dax4.0"
    assert finding.finding.startswith("cannot go offline: 5 pages cannot be moved (")
    for kind in ("1 page cache with extra references", "1 slab", "1 page table", "1 reserved"):
        assert kind in finding.finding
    (pinned,) = [text for text in finding.evidence if f"pfn:{held.pinned:#x}," in text]
    assert pinned.endswith(", 3 extra references each")
    assert "(ino " in pinned
    # One page is not understood: there may be more.
    assert not ruling.complete


def test_nothing_is_found_where_all_pages_can_move(case: Case) -> None:
    _declare()
    assert judge(RULES["kmem-held"], Facts(case.prog)).outcome is Outcome.NOT_FOUND
    _, notes = run_text(case.prog, f"pmem-pages {NAMESPACE} --busy")
    assert "no page keeps a memory block of it from going offline" in notes


def test_a_page_that_is_not_understood_is_unknown_with_the_reason(held: Held) -> None:
    out, notes = run_text(held.prog, f"pmem-page pfn:{held.unknown:#x}")
    assert "unknown" in out
    assert f"use of PFN {held.unknown:#x}: page type 0xfffffbff" in notes
    out, notes = run_text(held.prog, f"pmem-pages {NAMESPACE}")
    assert "unknown" in out
    assert f"what 1 pages are used for is not known: pmem-page pfn:{held.unknown:#x}" in notes


def test_a_free_page_of_a_cpu_is_no_unknown_one() -> None:
    prog = next(case for case in CASES if str(case) == "6.1-fileload:elf").prog
    (page,) = run_json(prog, "pmem-page pfn:0x160001")
    assert (page["use"], page["blocks_offline"]) == ("free on a CPU", False)


def test_owners_that_are_not_all_known_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the processes, anonymous memory is not that of no process."""
    case = next(case for case in CASES if str(case) == "6.1-fileload:elf")
    why = Problem(cause=Cause.NOT_SAVED, why="tasks were not saved")
    none = Tasks(tasks=(), by_mm={})
    monkeypatch.setattr(ramowners, "tasks_of", lambda prog: Partial(none, (why,)))
    groups = {group["status"]: group for group in run_json(case.prog, f"pmem-pages {NAMESPACE}")}
    assert groups["anonymous"]["owner"] is None
    assert groups["page cache"]["owner"] is not None
    answer, _, notes = run_answer(case.prog, f"pmem-pages {NAMESPACE}")
    assert answer is not None
    assert not answer.whole
    assert "tasks were not saved" in notes
