# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Scans of struct page arrays, against reading the same pages one by one."""

from collections.abc import Iterator
from dataclasses import replace
import itertools
from pathlib import Path
from typing import Any

from drgn import Program
from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

from drgn_pmem.analysis.pages import blocks, decode, readers, states
from drgn_pmem.analysis.pages.decode import Decoder
from drgn_pmem.analysis.pages.filter import Filter, parse_refcount
from drgn_pmem.analysis.pages.runs import EMPTY, KEY, Kind, hold_back, join
from drgn_pmem.analysis.pages.scan import scan_pages
from drgn_pmem.analysis.pages.states import PageReport, read_page_report
from drgn_pmem.analysis.pages.stream import for_each_runs, scan_ranges
from drgn_pmem.dumpfile import Coverage, State, open_dump, set_coverage, set_dump
from drgn_pmem.errors import UsageError
from drgn_pmem.kernel import page_layout as layouts
from drgn_pmem.kernel.page import page_layout, pages_pgmap, read_page
from drgn_pmem.kernel.pgmap import Altmap
from drgn_pmem.partial import Cause, Partial, Problem, Problems

from ..dumpfile.writers import Kdump
from .memmap import (
    COUNT,
    FIRST,
    GENERATIONS,
    HWPOISON,
    MAPPING,
    PGMAP,
    RESERVED,
    STRUCT_PAGES,
    VMEMMAP,
    Kernel,
    Page,
    tail,
)
from .physical import PAGE
from .test_page import folio

RANGE = [(FIRST, FIRST + COUNT, Kind.PAGE)]


def each(runs: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every page of runs with what the run says of it."""
    for run in runs:
        for number in range(int(run["count"])):
            values = {name: int(run[name]) for name in run.dtype.names}
            if values["kind"] == Kind.PAGE and values["mapping"] > 3:
                values["index"] += number
            yield values["pfn"] + number, values


def check_against_pages(prog: Program, runs: np.ndarray) -> None:
    """Every page of a scan is what reading the page alone gives."""
    pfns = []
    for pfn, run in each(runs):
        pfns.append(pfn)
        page = read_page(prog, pfn).value
        if run["kind"] == Kind.GAP:
            assert run["state"] == Coverage.code(page.state)
            continue
        if run["kind"] == Kind.TORN:
            assert page.refcount is None
            continue
        if run["kind"] in (Kind.TAIL, Kind.CUT):
            assert page.head_pfn == run["mapping" if run["kind"] == Kind.TAIL else "index"]
            continue
        assert page.refcount == run["refcount"]
        assert page.mapping == run["mapping"]
        assert page.shared == bool(run["shared"])
        assert (page.mapcount or 0) == run["mapcount"]
        assert 1 << (page.order or 0) == run["folio"]
        assert page.pgmap == run["word"]
        if page.shared:
            assert page.share == run["index"]
        elif page.mapping_address is not None:
            assert page.index == run["index"]
    assert pfns == list(range(FIRST, FIRST + COUNT))


def mixed(generation: str) -> dict[int, Page]:
    """A file, a hole in it, shared pages, pins, poison, folios, and what is none of these."""
    late = generation in ("6.15", "7.1")
    pages = {FIRST + 10 + i: Page(mapping=MAPPING, index=40 + i) for i in range(100)}
    pages[FIRST + 50] = Page(mapping=MAPPING, index=7)
    pages[FIRST + 60] = Page(mapping=MAPPING, index=90, refcount=3)
    pages[FIRST + 70] = Page(flags=RESERVED | HWPOISON, mapping=MAPPING, index=100)
    for i in range(5):
        pages[FIRST + 200 + i] = Page(mapping=0 if late else 1, index=2 + i // 3)
    pages[FIRST + 300] = Page(word=0x41414141, mapping=MAPPING)
    for head in (FIRST + 512, FIRST + 528):
        pages |= folio(generation, head, order=4)
    return pages


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("block", [4096, 1 << 22])
@pytest.mark.parametrize("sub", [7, 4096])
def test_scan_is_what_reading_each_page_gives(
    generation: str, block: int, sub: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_SIZE", block)
    monkeypatch.setattr(decode, "_SUB_PAGES", sub)
    prog = Kernel(generation, mixed(generation)).prog
    scan = scan_pages(prog, RANGE).whole()
    assert (scan.pages, scan.total) == (COUNT, COUNT)
    check_against_pages(prog, scan.runs)
    assert scan.groups["pages"].sum() == COUNT


def test_runs_are_as_long_as_they_can_be() -> None:
    prog = Kernel("6.1", mixed("6.1")).prog
    runs = scan_pages(prog, RANGE).value.runs
    for a, b in itertools.pairwise(runs):
        same = all(a[name] == b[name] for name in KEY)
        follows = a["index"] + (a["count"] if a["mapping"] > 3 else 0) == b["index"]
        assert not (same and follows), f"{a} and {b} are one run"


@pytest.mark.parametrize("sub", [7, 4096])
def test_pages_of_a_file_are_one_run_where_dax_does_not_set_their_index(
    sub: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4.18: the index is 0 in all of them."""
    monkeypatch.setattr(
        layouts,
        "symbol_address",
        lambda prog, name: 1 if name == "dax_finish_sync_fault" else None,
    )
    monkeypatch.setattr(decode, "_SUB_PAGES", sub)
    pages = {FIRST + 10 + i: Page(mapping=MAPPING) for i in range(100)}
    pages |= {FIRST + 110 + i: Page(mapping=MAPPING + 8) for i in range(10)}
    prog = Kernel("6.1", pages).prog
    found = scan_pages(prog, RANGE).whole().runs
    files = [(int(run["pfn"]), int(run["count"])) for run in found if run["mapping"] > 3]
    assert files == [(FIRST + 10, 100), (FIRST + 110, 10)]


def test_blocks_do_not_show_in_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    prog = Kernel("7.1", mixed("7.1")).prog
    whole = scan_pages(prog, RANGE).value.runs
    monkeypatch.setattr(blocks, "BLOCK_SIZE", 64 * 5)
    assert np.array_equal(scan_pages(prog, RANGE).value.runs, whole)


PAGES = st.sampled_from(
    [Page(), Page(), Page(mapping=MAPPING), Page(mapping=MAPPING, index=1), Page(refcount=2),
     Page(mapping=1, index=2), Page(mapping=MAPPING + 8, index=1), Page(flags=RESERVED | HWPOISON),
     tail(FIRST), tail(FIRST + 2), tail(FIRST + 2, flags=RESERVED | HWPOISON), Page(word=1)]
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(pages=st.lists(PAGES, min_size=1, max_size=24), cuts=st.sets(st.integers(1, 23)))
def test_decoding_in_pieces_is_decoding_at_once(pages: list[Page], cuts: set[int]) -> None:
    decoder = Decoder(_LAYOUT)
    data = np.frombuffer(b"".join(page.encode() for page in pages), np.uint8)
    whole = decoder.decode(data, FIRST)
    done, held = [], EMPTY
    edges = [0, *sorted(cut for cut in cuts if cut < len(pages)), len(pages)]
    for start, end in itertools.pairwise(edges):
        part = decoder.decode(data[64 * start : 64 * end], FIRST + start)
        ready, held = hold_back(join([held, part]))
        done.append(ready)
    pieces = np.concatenate([*done, join([held])])
    assert np.array_equal(pieces, whole)
    assert int(whole["count"].sum()) == len(pages)
    # The naive answer for everything but tails.
    for pfn, run in each(whole):
        page = pages[pfn - FIRST]
        if run["kind"] == Kind.PAGE and run["folio"] == 1:
            assert (page.flags, page.refcount, page.mapping) == (
                run["flags"],
                run["refcount"],
                run["mapping"],
            )
            if page.mapping:
                assert page.index == run["index"]
        elif run["kind"] == Kind.PAGE:
            head = pages[run["pfn"] - FIRST]
            assert pfn == run["pfn"] or page.word == (VMEMMAP + 64 * run["pfn"]) | 1
            assert (head.flags, head.mapping) == (run["flags"], run["mapping"])
        else:
            assert page.word & 1


_LAYOUT = page_layout(Kernel("6.1", {}).prog)


def test_poisoned_tail_stands_apart() -> None:
    head = FIRST + 512
    pages = folio("6.6", head)
    pages[head + 100] = tail(head, flags=RESERVED | HWPOISON)
    runs = scan_pages(Kernel("6.6", pages).prog, RANGE).value.runs
    mask = runs["flags"] & np.uint64(HWPOISON) != 0
    assert [(int(r["pfn"]), int(r["count"]), int(r["mapping"])) for r in runs[mask]] == [
        (head + 100, 1, head)
    ]


@pytest.mark.parametrize("excluded", [True, False])
def test_lost_struct_pages_are_gaps_and_their_neighbours_stand(excluded: bool) -> None:
    kernel = Kernel("6.1", mixed("6.1"))
    prog = kernel.lose(FIRST + 130, excluded)
    partial = scan_pages(prog, RANGE)
    scan = partial.value
    state = State.EXCLUDED if excluded else State.ABSENT
    assert [(p.cause, p.state) for p in partial.problems] == [(Cause.NOT_SAVED, state)]
    assert scan.count(state) == 64
    assert scan.count(State.SAVED) == COUNT - 64
    gaps = scan.runs[scan.runs["kind"] == Kind.GAP]
    assert [(int(g["pfn"]), int(g["count"])) for g in gaps] == [(FIRST + 128, 64)]
    check_against_pages(prog, scan.runs)


def test_struct_pages_of_zeroes_are_left_out_ones() -> None:
    """``makedumpfile -E`` writes fewer than 256 pages that it leaves out as zeroes."""
    zeroes = Page(flags=0, word=0, mapping=0, index=0, mapcount=0, refcount=0)
    prog = Kernel("6.1", {FIRST + 100 + i: zeroes for i in range(64)}).prog
    page = read_page(prog, FIRST + 100).value
    assert (page.state, page.flags, page.refcount) == (State.EXCLUDED, None, None)
    assert "reads as zeroes" in str(page.reason)
    runs = scan_pages(prog, RANGE).value.runs
    check_against_pages(prog, runs)
    gaps = runs[runs["kind"] == Kind.GAP]
    assert [(int(run["pfn"]), int(run["count"])) for run in gaps] == [(FIRST + 100, 64)]


def test_head_in_a_gap_leaves_its_tails_without_owner() -> None:
    head = FIRST + 448
    pages = folio("6.6", head, order=7)
    prog = Kernel("6.6", pages).lose(head)
    runs = scan_pages(prog, RANGE).value.runs
    (run,) = runs[runs["kind"] == Kind.CUT]
    assert (int(run["pfn"]), int(run["count"]), int(run["index"])) == (head + 64, 64, head)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("block", [4096, 1 << 22])
@pytest.mark.parametrize("lost", range(512, 1024, 64))
def test_folio_of_which_struct_pages_are_lost_is_not_a_smaller_one(
    generation: str, block: int, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_SIZE", block)
    head = FIRST + 512
    prog = Kernel(generation, folio(generation, head)).lose(FIRST + lost)
    groups = [g for g in report_of(prog).value.groups if g.state is State.SAVED]
    (idle, *rest) = sorted(groups, key=lambda group: group.status == "unknown" or group.flags == 0)
    assert (idle.pages, idle.folio_pages) == (512, 1)
    assert sum(group.pages for group in rest) == 512 - 64
    assert {group.folio_pages for group in rest} == {None}
    for group in rest:
        assert (group.flags, group.status) == (None, "unknown") or group.mapping == MAPPING
    ranges = report_of(prog, ranges=True).value.ranges
    assert {r.head_pfn for r in ranges if r.group.status == "unknown"} <= {head}


@pytest.mark.parametrize("order", [5, 6])
def test_folio_before_lost_struct_pages_keeps_its_size_if_its_order_says_it(order: int) -> None:
    size = 1 << order
    pages = {}
    for head in range(FIRST + 512, FIRST + 640, size):
        pages |= folio("6.6", head, order)
    prog = Kernel("6.6", pages).lose(FIRST + 640)
    (group,) = [g for g in report_of(prog).value.groups if g.mapping is not None]
    assert (group.pages, group.folio_pages) == (128, size)


def test_without_all_page_maps_nothing_is_known_of_pages_that_point_to_none() -> None:
    prog = Kernel("6.1", {FIRST + 300: Page(word=PGMAP + 0x1000, refcount=3)}).prog
    lost = Problem(cause=Cause.NOT_SAVED, why="pgmap_array")
    prog.cache["drgn_pmem.pgmaps"] = Partial(pages_pgmap(prog).value, (lost,))
    partial = report_of(prog)
    (group,) = [g for g in partial.value.groups if g.pages == 1]
    assert (group.status, group.pgmap_known, group.refcount) == ("unknown", None, None)
    assert any("overwritten after the crash is not known" in str(p) for p in partial.problems)


def test_only_the_struct_pages_of_the_reserve_are_not_initialised() -> None:
    """Those that the altmap sets aside for struct pages are, and were all called uninitialised."""
    altmap = Altmap(
        base_pfn=FIRST, end_pfn=FIRST + COUNT - 1, reserve=2, free=30, align=0, alloc=16
    )
    pages = {FIRST + i: Page(refcount=99, mapping=MAPPING) for i in range(2)}
    for i in range(2, 32):
        pages[FIRST + i] = Page(word=VMEMMAP + 64 * (FIRST + i) + 8, refcount=1)
    kernel = Kernel("6.1", pages, altmap=altmap)
    prog = kernel.prog
    ranges = scan_ranges(pages_pgmap(prog).value)
    assert ranges == [
        (FIRST, FIRST + 2, Kind.UNINITIALISED),
        (FIRST + 2, FIRST + 32, Kind.MEMMAP),
        (FIRST + 32, FIRST + COUNT, Kind.PAGE),
    ]
    scan = scan_pages(prog, ranges).value
    kinds = {int(g["kind"]): (int(g["pages"]), int(g["runs"])) for g in scan.groups}
    assert kinds == {
        Kind.UNINITIALISED: (2, 1),
        Kind.MEMMAP: (30, 1),
        Kind.PAGE: (COUNT - 32, 1),
    }
    assert not (scan.groups["refcount"] == 99).any()
    groups = {g.status: g for g in report_of(prog).value.groups}
    own = groups["memmap"]
    assert (own.pages, own.flag_names, own.refcount) == (30, ("PG_reserved",), 1)
    # A run for each page made the scan of 64 GiB a sixth slower.
    own_runs = for_each_runs(prog, FIRST + 2, FIRST + 32, Problems(), kind=Kind.MEMMAP)
    assert sum(map(len, own_runs)) == 1
    page = read_page(prog, FIRST + 2).value
    assert (page.holds, page.refcount, page.initialised, page.pgmap) == ("memmap", 1, True, None)
    answer = scan_pages(kernel.lose(FIRST), ranges)
    lost = answer.value
    # As pmem-coverage counts: the struct pages of the memmap's own pages apart from the others.
    assert [str(problem).partition(":")[0] for problem in answer.problems] == [
        "32 of 992 struct pages are not in the dump, nor are the 30 of the memmap's own pages"
    ]
    (never,) = lost.runs[lost.runs["kind"] == Kind.UNINITIALISED]
    assert int(never["state"]) == Coverage.code(State.ABSENT)


def test_poisoned_pages_of_the_memmap_itself_are_listed() -> None:
    """The kernel of RHEL 8.1 marks them."""
    altmap = Altmap(
        base_pfn=FIRST, end_pfn=FIRST + COUNT - 1, reserve=2, free=30, align=0, alloc=16
    )
    pages = {FIRST + i: Page(word=VMEMMAP + 64 * (FIRST + i) + 8) for i in range(2, 32)}
    pages[FIRST + 9] = replace(pages[FIRST + 9], flags=RESERVED | HWPOISON, refcount=2)
    pages[FIRST + 99] = Page(flags=RESERVED | HWPOISON)
    prog = Kernel("6.1", pages, altmap=altmap).prog

    def listed(chosen: Filter) -> list[int]:
        return [r.pfn for r in report_of(prog, chosen=chosen, ranges=True).value.ranges]

    assert listed(Filter(hwpoison=True)) == [FIRST + 9, FIRST + 99]
    assert listed(Filter(flags=HWPOISON)) == [FIRST + 9, FIRST + 99]
    assert listed(Filter(hwpoison=True, busy=True)) == []


def test_chosen_runs_and_a_limit() -> None:
    prog = Kernel("6.1", mixed("6.1")).prog
    scan = scan_pages(prog, RANGE, where=lambda runs: runs["mapping"] == MAPPING).value
    assert (scan.runs["mapping"] == MAPPING).all()
    assert scan.groups["pages"].sum() == COUNT
    few = scan_pages(prog, RANGE, where=lambda runs: runs["mapping"] == MAPPING, keep=2)
    assert np.array_equal(few.value.runs, scan.runs[:2])
    more = len(scan.runs) - 2
    assert [str(p) for p in few.problems] == [f"{more} more runs of pages were not kept (limit 2)"]
    assert not few.complete


def test_ctrl_c_gives_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_SIZE", 64 * 64)
    prog = Kernel("6.1", mixed("6.1")).prog
    seen = []

    def interrupt(done: int, total: int) -> None:
        seen.append((done, total))
        if done > 300:
            raise KeyboardInterrupt

    partial = scan_pages(prog, RANGE, progress=interrupt)
    scan = partial.value
    assert not partial.complete
    assert 300 < scan.pages < COUNT
    assert scan.groups["pages"].sum() == scan.pages == seen[-1][0]
    (problem,) = partial.problems
    assert problem.cause is Cause.INTERRUPTED
    assert str(problem) == f"interrupted: {scan.pages} of {COUNT} pages were looked at"


def elf_dump(path: Path, kernel: Kernel) -> None:
    """The struct pages as an ELF core: two segments over the same memory, the later one right."""
    data = bytes(
        b"".join(kernel.machine.pages[STRUCT_PAGES + PAGE * i] for i in range(COUNT * 64 // PAGE))
    )
    header = bytearray(64)
    header[:20] = b"\x7fELF\x02\x01\x01" + bytes(9) + (4).to_bytes(2, "little") + b"\x3e\0"
    header[32:40] = (64).to_bytes(8, "little")
    header[52:58] = b"\x40\0\x38\0\x02\0"

    def segment(offset: int, physical: int, size: int) -> bytes:
        words = (offset, 0, physical, size, size, 0)
        return b"\x01\0\0\0\x17\0\0\0" + b"".join(w.to_bytes(8, "little") for w in words)

    wrong = b"\xff" * 8192
    table = segment(4096, STRUCT_PAGES + 4096, 8192) + segment(12288, STRUCT_PAGES, len(data))
    path.write_bytes((bytes(header) + table).ljust(4096, b"\0") + wrong + data)


@pytest.mark.parametrize(
    ("workers", "block", "period"),
    [(1, 100, 64), (2, 100, 64), (4, 100, 64), (1, 30, 2), (2, 9, 3)],
)
def test_elf_file_is_read_as_a_file(
    tmp_path: Path, workers: int, block: int, period: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps of a whole block and in small ones, of which those of equal pages are repeated."""
    monkeypatch.setattr(blocks, "BLOCK_SIZE", 64 * block)
    monkeypatch.setattr(readers, "_STEP", 64 * (block // 3))
    monkeypatch.setattr(readers, "_PERIOD", period)
    kernel = Kernel("6.15", mixed("6.15"))
    expected = scan_pages(kernel.prog, RANGE).value.runs
    path = tmp_path / "vmcore"
    elf_dump(path, kernel)
    kernel.changed()
    set_dump(kernel.prog, open_dump(path))
    set_coverage(kernel.prog, Coverage.everywhere(State.SAVED))

    def no_read(*args: object) -> bytes:
        raise AssertionError("the struct pages were read through the program")

    assert readers.reader_of(kernel.prog).parallel
    monkeypatch.setattr(readers._ProgramReader, "read", no_read)
    repeated = []
    monkeypatch.setattr(
        Decoder,
        "repeated",
        lambda *args, whole=Decoder.repeated: repeated.append(args[2]) or whole(*args),
    )
    runs = np.concatenate(
        list(for_each_runs(kernel.prog, *RANGE[0][:2], Problems(), workers=workers))
    )
    assert np.array_equal(runs, expected)
    assert (max(repeated, default=0) > 1) == (period < 64)


def test_file_that_ends_early_while_it_is_read(tmp_path: Path) -> None:
    kernel = Kernel("6.1", {})
    path = tmp_path / "vmcore"
    elf_dump(path, kernel)
    kernel.changed()
    set_dump(kernel.prog, open_dump(path))
    set_coverage(kernel.prog, Coverage.everywhere(State.SAVED))
    assert readers.reader_of(kernel.prog).parallel
    path.write_bytes(path.read_bytes()[:20000])
    scan = scan_pages(kernel.prog, RANGE).value
    assert scan.count(State.TRUNCATED) == COUNT


def test_another_file_under_the_same_name_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel("6.1", {})
    monkeypatch.chdir(tmp_path)
    elf_dump(Path("vmcore"), kernel)
    kernel.changed()
    set_dump(kernel.prog, open_dump("vmcore"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("vmcore").write_bytes(b"something else")
    assert not readers.reader_of(kernel.prog).parallel


def test_every_page_different_is_not_slow_and_not_large() -> None:
    """No page of its own costs an object: a million of them in seconds, grouped."""
    decoder = Decoder(_LAYOUT)
    count = 1 << 18
    pages = np.zeros((count, 8), np.uint64)
    pages[:, 0], pages[:, 1] = RESERVED, PGMAP
    pages[:, 3] = MAPPING + 64 * np.arange(count, dtype=np.uint64)
    pages[:, 6] = 0x00000001FFFFFFFF
    runs = decoder.decode(pages.view(np.uint8).reshape(-1), FIRST)
    assert len(runs) == count
    assert (runs["count"] == 1).all()


def report_of(prog: Program, **more: Any) -> Partial[PageReport]:
    """read_page_report() of the one page map, without namespaces around it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states, "need_kernel_debug_info", lambda *_: None)
        names = {pgmap.address: "one" for pgmap in pages_pgmap(prog).value}
        patch.setattr(states, "pgmap_names", lambda *_: Partial(names))
        patch.setattr(states, "describe_mapping", lambda _, mapping: Partial(f"{mapping:#x}"))
        return read_page_report(prog, ram=False, **more)


def test_an_unknown_mapcount_makes_no_page_pinned() -> None:
    # A folio whose head is the last struct page of 4 KiB: the first tail is in the next ones.
    pages = {FIRST + 511 + i: page for i, page in enumerate(folio("6.15", FIRST + 511, 6).values())}
    kernel = Kernel("6.15", pages)
    whole = report_of(kernel.prog).value
    assert {g.status for g in whole.groups if g.folio_pages == 64} == {"pinned"}
    partial = report_of(kernel.lose(FIRST + 512))
    (group,) = [g for g in partial.value.groups if g.mapping is not None]
    assert (group.status, group.pins, group.mapcount) == ("file", None, None)
    assert not partial.complete
    assert any("is unknown" in str(problem) for problem in partial.problems)
    assert report_of(kernel.prog, chosen=Filter(busy=True)).value.groups == ()
    page = read_page(kernel.prog, FIRST + 511)
    assert (page.value.pins, page.value.pinned) == (None, None)
    assert not page.complete


def kdump_of(path: Path, kernel: Kernel, how: str = "zlib") -> Kdump:
    """The struct pages as a kdump-compressed dump, which the kernel's program is of from now on."""
    contents = {at // PAGE: bytes(data) for at, data in kernel.machine.pages.items()}
    pfns = set(contents)
    kdump = Kdump(pfns, pfns, max(pfns) + 1, how=how, contents=contents)
    open_as(kdump.write(path), kernel)
    return kdump


def open_as(path: Path, kernel: Kernel) -> None:
    kernel.changed()
    dump = open_dump(path)
    set_dump(kernel.prog, dump)
    set_coverage(kernel.prog, dump.coverage)
    assert isinstance(readers.reader_of(kernel.prog), readers._CompressedReader)


@pytest.mark.parametrize("repeated", [1, 2, 8])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_compressed_dump_is_read_as_a_file(
    tmp_path: Path, generation: str, repeated: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal pages are looked at once, whatever they hold: idle ones, tails, files, heads."""
    monkeypatch.setattr(readers, "_REPEATED", repeated)
    pages = {pfn: page for pfn, page in mixed(generation).items() if pfn < FIRST + 512}
    pages |= folio(generation, FIRST + 512, order=9)
    kernel = Kernel(generation, pages)
    expected = scan_pages(kernel.prog, RANGE).value.runs
    check_against_pages(kernel.prog, expected)
    kdump_of(tmp_path / "vmcore", kernel)
    monkeypatch.setattr(blocks, "BLOCK_SIZE", 3 * PAGE)
    for workers in (1, 2):
        assert np.array_equal(
            scan_pages(kernel.prog, RANGE, workers=workers).whole().runs, expected
        )


@given(
    st.sampled_from(GENERATIONS),
    st.lists(
        st.tuples(
            st.integers(1, 20),
            st.sampled_from(["idle", "file", "same", "poison", "zero", "torn"]),
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 70),
)
@settings(max_examples=60, deadline=None)
def test_repeated_pages_are_what_all_of_them_are(
    generation: str, rows: list[tuple[int, str]], count: int
) -> None:
    kinds = {
        "idle": Page(),
        "file": Page(mapping=MAPPING, index=7),
        "same": Page(mapping=1, index=2),
        "poison": Page(flags=RESERVED | HWPOISON),
        "zero": Page(flags=0, refcount=0, word=0),
        "torn": Page(word=0x41414141),
    }
    decoder = Decoder(page_layout(Kernel(generation, {}).prog))
    one = b"".join(kinds[kind].encode() * times for times, kind in rows)
    alone = decoder.repeated(np.frombuffer(one, np.uint8), count, FIRST)
    whole = decoder.decode(np.frombuffer(one * count, np.uint8), FIRST)
    assert np.array_equal(join([EMPTY, alone]), join([EMPTY, whole]))


def test_damaged_pages_of_a_compressed_dump_are_named_and_the_rest_stands(tmp_path: Path) -> None:
    kernel = Kernel("6.1", mixed("6.1"))
    expected = dict(each(scan_pages(kernel.prog, RANGE).value.runs))
    path = tmp_path / "vmcore"
    kdump_of(path, kernel)
    dump = open_dump(path)
    pages = dump.memory.pages  # type: ignore[union-attr]
    at = pages._bitmaps.descriptors + 24 * pages.number(STRUCT_PAGES + 2 * PAGE)
    data = bytearray(path.read_bytes())
    offset = int.from_bytes(data[at : at + 8], "little")
    data[offset + 8 : offset + 12] = b"\xff" * 4
    path.write_bytes(data)
    open_as(path, kernel)
    partial = scan_pages(kernel.prog, RANGE)
    found = dict(each(partial.value.runs))
    lost = set(range(FIRST + 128, FIRST + 192))
    assert {pfn for pfn, run in found.items() if run["kind"] == Kind.GAP} == lost
    for pfn in set(found) - lost:
        assert found[pfn]["mapping"] == expected[pfn]["mapping"]
    damaged = [problem for problem in partial.problems if problem.cause is Cause.DAMAGED]
    assert len(damaged) == 1
    assert f"64 struct pages from PFN {FIRST + 128:#x} on: damaged page at offset" in str(
        damaged[0]
    )


def test_without_a_library_a_compressed_dump_is_read_through_drgn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel("6.1", mixed("6.1"))
    expected = scan_pages(kernel.prog, RANGE).value.runs
    kdump_of(tmp_path / "vmcore", kernel, "zstd")
    kernel.changed()
    set_dump(kernel.prog, open_dump(tmp_path / "vmcore"))
    monkeypatch.setattr(readers, "has_decoder", lambda how: how != "zstd")
    reader = readers.reader_of(kernel.prog)
    assert isinstance(reader, readers._ProgramReader)
    assert "no library for zstd; pip install 'drgn-pmem[fast]'" in reader.note
    assert np.array_equal(scan_pages(kernel.prog, RANGE).value.runs, expected)


def test_a_range_of_reference_counts_the_wrong_way_round() -> None:
    """It chose no page, which reads as if there were none."""
    with pytest.raises(UsageError, match="at least 5 and at most 2"):
        parse_refcount("5-2")


def test_pages_that_were_overwritten_are_one_group_whatever_is_in_them() -> None:
    """Of each nothing but the number is shown, and each may differ from all others."""
    pages = {FIRST + i: Page(word=8 * i, refcount=i, mapping=0x1000 * i) for i in range(5, 205)}
    pages |= {FIRST + i: Page(word=8 * i) for i in range(300, 310)}
    pages |= {FIRST + i: Page(word=(16 * i) | 1) for i in range(205, 215)}
    report = report_of(Kernel("6.1", pages).prog, ranges=True).value
    groups = {g.status: (g.pages, g.ranges) for g in report.groups}
    assert {status: pages for status, (pages, _) in groups.items() if status != "idle"} == {
        "overwritten": 210,
        "torn": 10,
    }
    assert len(report.groups) == 3
    assert [g.pages for g in report.groups] == sorted((p for p, _ in groups.values()), reverse=True)
    shown = [(r.pfn - FIRST, r.group.pages) for r in report.ranges if r.group.status != "idle"]
    assert shown == [(5, 200), (205, 10), (300, 10)]
