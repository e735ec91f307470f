# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""One struct page of every kernel generation, by the members that the generation has."""

from dataclasses import replace

from drgn import Architecture, Program
import pytest

from drgn_pmem.commands.common import flags_text
from drgn_pmem.dumpfile import State
from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel import page_layout as layouts
from drgn_pmem.kernel.page import DaxGeneration, idle_refcount, page_layout, pages_pgmap, read_page
from drgn_pmem.kernel.pageflags import flag_names
from drgn_pmem.kernel.pagestate import PageState
from drgn_pmem.kernel.pagetable import translate
from drgn_pmem.kernel.pgmap import Altmap
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem

from .memmap import (
    COUNT,
    FIRST,
    FLAGS,
    GENERATIONS,
    HEAD,
    HWPOISON,
    MAPPING,
    PGMAP,
    RESERVED,
    STRUCT_PAGES,
    VMEMMAP,
    Kernel,
    Page,
    masked_tail,
    tail,
)
from .physical import Machine

EARLY, LATE = ("6.1", "6.6"), ("6.15", "7.1")
BUSY = FIRST + 100


def page_of(prog: Program, pfn: int) -> PageState:
    return read_page(prog, pfn).value


def idle(generation: str) -> int:
    return 0 if generation in LATE else 1


@pytest.mark.parametrize("generation", GENERATIONS)
def test_idle_page(generation: str) -> None:
    prog = Kernel(generation, {}).prog
    page = page_of(prog, BUSY)
    assert (page.state, page.reason) == (State.SAVED, None)
    assert page.refcount == idle(generation) == idle_refcount(prog)
    assert (page.pins, page.pinned, page.shared, page.hwpoison) == (0, False, False, False)
    assert (page.mapping, page.mapping_address, page.index) == (0, None, None)
    assert (page.order, page.head_pfn, page.flag_names) == (0, BUSY, ("PG_reserved",))
    assert (page.pgmap, page.pgmap_known) == (PGMAP, True)
    assert page.page == VMEMMAP + 64 * BUSY
    assert page.page_physical == STRUCT_PAGES + 64 * 100
    assert page.physical == BUSY << 12


def test_a_bit_has_one_name_and_that_of_anonymous_memory_only_there() -> None:
    flags = 1 << FLAGS["PG_dirty"] | 1 << FLAGS["PG_referenced"]
    prog = Kernel("6.6", {BUSY: Page(flags=flags, mapping=MAPPING, refcount=2)}).prog
    assert page_of(prog, BUSY).flag_names == ("PG_referenced", "PG_dirty")
    assert flag_names(prog, flags) == ("PG_referenced", "PG_dirty")
    assert flag_names(prog, flags, anonymous=True) == ("PG_referenced", "PG_anon_exclusive")
    assert flag_names(prog, 1 << 60) == ()  # a zone


def test_bits_of_zone_and_node_are_no_flags() -> None:
    state = page_of(Kernel("6.6", {BUSY: Page(flags=1 << 60, refcount=1)}).prog, BUSY)
    assert flags_text(state) == "none"
    assert flags_text(replace(state, flag_names=None)) == f"{1 << 60:#x}"


@pytest.mark.parametrize(
    ("functions", "index"),
    [
        (("dax_finish_sync_fault",), None),  # 4.18
        (("dax_finish_sync_fault", "dax_lock_mapping_entry"), 7),  # 4.19
        (("dax_finish_sync_fault", "dax_lock_page"), 7),  # 5.4
        (("dax_finish_sync_fault", "dax_lock_folio"), 7),
        ((), 7),  # no symbols
    ],
)
def test_the_index_of_a_page_is_unknown_where_dax_does_not_set_it(
    functions: tuple[str, ...], index: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        layouts, "symbol_address", lambda prog, name: 1 if name in functions else None
    )
    page = page_of(Kernel("6.1", {BUSY: Page(mapping=MAPPING, index=7)}).prog, BUSY)
    assert (page.mapping_address, page.index) == (MAPPING, index)


@pytest.mark.parametrize("generation", EARLY)
def test_mapped_page_before_folios(generation: str) -> None:
    prog = Kernel(generation, {BUSY: Page(mapping=MAPPING, index=7)}).prog
    page = page_of(prog, BUSY)
    assert (page.mapping_address, page.index, page.pins, page.mapcount) == (MAPPING, 7, 0, None)


@pytest.mark.parametrize("generation", LATE)
def test_mapped_page_of_folios_holds_a_reference_for_each_mapping(generation: str) -> None:
    mapped = Page(mapping=MAPPING, index=7, mapcount=1, refcount=2)
    prog = Kernel(generation, {BUSY: mapped}).prog
    page = page_of(prog, BUSY)
    assert (page.mapping_address, page.index) == (MAPPING, 7)
    assert (page.refcount, page.mapcount, page.pins, page.pinned) == (2, 2, 0, False)


@pytest.mark.parametrize(
    ("generation", "refcount", "mapcount", "pins"),
    [("6.1", 2, -1, 1), ("6.6", 1025, -1, 1024), ("6.15", 1, -1, 1), ("7.1", 1026, 1, 1024)],
)
def test_pinned_page(generation: str, refcount: int, mapcount: int, pins: int) -> None:
    pinned = Page(mapping=MAPPING, mapcount=mapcount, refcount=refcount)
    page = page_of(Kernel(generation, {BUSY: pinned}).prog, BUSY)
    assert (page.pins, page.pinned) == (pins, True)


@pytest.mark.parametrize("generation", EARLY)
def test_shared_extent_is_mapping_one_before_folios(generation: str) -> None:
    page = page_of(Kernel(generation, {BUSY: Page(mapping=1, index=2)}).prog, BUSY)
    assert (page.shared, page.share, page.index, page.mapping_address) == (True, 2, None, None)


def test_mark_without_sharers_is_stale() -> None:
    page = page_of(Kernel("6.1", {BUSY: Page(mapping=1, index=0)}).prog, BUSY)
    assert (page.shared, page.share, page.mapping_address) == (False, None, None)


@pytest.mark.parametrize("generation", LATE)
def test_shared_folio_has_no_mapping_but_a_share_count(generation: str) -> None:
    page = page_of(Kernel(generation, {BUSY: Page(index=1, refcount=0)}).prog, BUSY)
    assert (page.shared, page.share, page.index) == (True, 1, None)


@pytest.mark.parametrize("generation", EARLY)
def test_index_without_mapping_is_no_share_count_before_folios(generation: str) -> None:
    page = page_of(Kernel(generation, {BUSY: Page(index=5)}).prog, BUSY)
    assert (page.shared, page.share, page.index) == (False, None, None)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_poisoned_page(generation: str) -> None:
    prog = Kernel(generation, {BUSY: Page(flags=RESERVED | HWPOISON)}).prog
    assert page_of(prog, BUSY).hwpoison is True
    assert "PG_hwpoison" in page_of(prog, BUSY).flag_names
    assert page_of(prog, BUSY + 1).hwpoison is False


def folio(generation: str, head: int, order: int = 9) -> dict[int, Page]:
    """A mapped compound page; the first tail has its order and mapcount."""
    pages = {head: Page(flags=RESERVED | HEAD, mapping=MAPPING, index=512, refcount=2)}
    for pfn in range(head + 1, head + (1 << order)):
        pages[pfn] = masked_tail(order) if generation == "7.1" else tail(head)
    first = pages[head + 1]
    if generation == "6.1":
        pages[head + 1] = Page(word=first.word, byte17=order, refcount=0)
    else:
        flags = RESERVED | order  # the low byte of folio->_flags_1
        pages[head + 1] = Page(word=first.word, flags=flags, large_mapcount=0, refcount=0)
    return pages


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("inside", [0, 1, 2, 300, 511])
def test_every_page_of_a_folio_is_told_from_its_head(generation: str, inside: int) -> None:
    head = FIRST + 512
    page = page_of(Kernel(generation, folio(generation, head)).prog, head + inside)
    assert (page.head_pfn, page.order) == (head, 9)
    assert (page.mapping_address, page.index, page.refcount) == (MAPPING, 512 + inside, 2)
    assert (page.pgmap, page.pgmap_known) == (PGMAP, True)
    if generation in LATE:
        assert (page.mapcount, page.pins) == (1, 1)
    # The first tail's flags are the folio's order; that is no set of flags.
    assert page.flag_names == (("PG_head", "PG_reserved") if not inside else ("PG_reserved",))


def test_device_dax_idles_at_one_on_every_kernel() -> None:
    for generation in GENERATIONS:
        kernel = Kernel(generation, {BUSY: Page(refcount=1)}, type="MEMORY_DEVICE_GENERIC")
        assert idle_refcount(kernel.prog, "MEMORY_DEVICE_GENERIC") == 1
        assert page_of(kernel.prog, BUSY).pins == 0


def test_struct_pages_of_the_altmap_itself() -> None:
    altmap = Altmap(
        base_pfn=FIRST, end_pfn=FIRST + COUNT - 1, reserve=2, free=30, align=0, alloc=16
    )
    garbage = Page(flags=0xFFFF, mapping=MAPPING, refcount=77)
    own = Page(word=VMEMMAP + 64 * (FIRST + 31) + 8)
    pages = {FIRST + i: garbage for i in range(33)} | {FIRST + 31: own}
    prog = Kernel("6.1", pages, altmap=altmap).prog
    never = page_of(prog, FIRST + 1)
    assert (never.initialised, never.refcount, never.mapping, never.flags) == (
        False, None, None, None)  # fmt: skip
    assert "never initialised" in (never.reason or "")
    assert never.holds == "info block"
    memmap = page_of(prog, FIRST + 31)
    assert (memmap.initialised, memmap.reason, memmap.holds) == (True, None, "memmap")
    assert (memmap.refcount, memmap.flag_names) == (1, ("PG_reserved",))
    assert (memmap.pgmap, memmap.pgmap_known, memmap.pins) == (None, None, None)
    data = page_of(prog, FIRST + 32)
    assert (data.refcount, data.holds) == (77, None)


def test_tails_of_an_optimised_memmap_are_aliases() -> None:
    head = FIRST + 512
    pages = folio("6.6", head)
    pages[head + 64] = tail(head, flags=RESERVED | HWPOISON)
    kernel = Kernel("6.6", pages, type="MEMORY_DEVICE_GENERIC", shift=9, aliased=True)
    first, in_second, alias = (page_of(kernel.prog, head + i) for i in (0, 64, 64 * 5))
    assert not first.aliased
    assert in_second.aliased
    assert alias.aliased
    # What the shared page says of poison holds for none of them alone.
    assert (in_second.hwpoison, alias.hwpoison) == (None, None)
    assert (alias.head_pfn, alias.index, alias.order) == (head, 512 + 320, 9)


@pytest.mark.parametrize(("excluded", "state"), [(True, State.EXCLUDED), (False, State.ABSENT)])
def test_nothing_is_said_of_a_struct_page_that_is_not_in_the_dump(
    excluded: bool, state: State
) -> None:
    kernel = Kernel("6.1", {BUSY: Page(mapping=MAPPING, refcount=3)})
    prog = kernel.lose(BUSY, excluded)
    page = page_of(prog, BUSY)
    assert page.state is state
    assert "not in the dump" in (page.reason or "")
    known = (page.flags, page.refcount, page.mapping, page.pins, page.shared, page.aliased)
    assert (*known, page.hwpoison) == (None,) * 7


def test_head_that_is_not_in_the_dump() -> None:
    head = FIRST + 512
    kernel = Kernel("6.15", folio("6.15", head))
    page = page_of(kernel.lose(head), head + 300)
    assert (page.state, page.head_pfn, page.refcount) == (State.ABSENT, head, None)
    assert f"the head of the compound page (PFN {head:#x}) is not in the dump" in (
        page.reason or ""
    )


@pytest.mark.parametrize("word", [1, 0x41414141, VMEMMAP + 64 * (BUSY + 1) | 1, VMEMMAP + 8 | 1])
def test_tail_of_no_head_is_torn(word: int) -> None:
    page = page_of(Kernel("6.1", {BUSY: Page(word=word, mapping=MAPPING)}).prog, BUSY)
    assert (page.mapping, page.refcount) == (None, None)
    assert "overwritten or corrupt" in (page.reason or "")


def test_page_map_that_the_kernel_does_not_have() -> None:
    """A capture kernel wrote the struct page anew: what it says is not of the crashed kernel."""
    other = Page(word=PGMAP + 0x1000, mapping=MAPPING, refcount=3)
    page = page_of(Kernel("6.1", {BUSY: other}).prog, BUSY)
    assert page.pgmap_known is False
    assert "overwritten after the crash" in (page.reason or "")
    assert (page.mapping, page.refcount, page.pins, page.shared) == (None,) * 4


@pytest.mark.parametrize("covered", [True, False])
def test_fields_are_not_known_if_a_page_map_that_could_not_be_read_may_be_its_own(
    covered: bool,
) -> None:
    other = Page(word=PGMAP + 0x1000, mapping=MAPPING, refcount=1)
    prog = Kernel("6.1", {BUSY: other}).prog
    lost = Problem(cause=Cause.NOT_SAVED, why="pgmap_array")
    known = pages_pgmap(prog).value
    prog.cache["drgn_pmem.pgmaps"] = Partial(known if covered else [], (lost,))
    partial = read_page(prog, BUSY)
    page = partial.value
    assert not partial.complete
    assert "overwritten after the crash is not known" in (page.reason or "")
    assert (page.mapping, page.refcount, page.pins, page.pgmap_known) == (None,) * 4
    assert page.aliased is (False if covered else None)
    if covered:
        assert read_page(prog, BUSY + 1).value.refcount == 1


def test_pfn_without_a_struct_page() -> None:
    prog = Kernel("6.1", {}).prog
    for pfn in (FIRST - 1, 5, 1 << 50, 1 << 62):
        page = page_of(prog, pfn)
        assert page.state is State.UNMAPPED
        assert "no struct page" in (page.reason or "")


def test_record_in_json_has_addresses_as_text() -> None:
    record = page_of(Kernel("6.1", {BUSY: Page(mapping=MAPPING, index=7)}).prog, BUSY).to_json()
    assert record["pfn"] == BUSY
    assert record["mapping"] == f"{MAPPING:#x}"
    assert (record["state"], record["index"], record["pinned"]) == ("saved", 7, False)


def test_vmcoreinfo_alone() -> None:
    """Without debug info: the fields as stored, and that no one knows whether they are sound."""
    prog = Kernel("6.1", {BUSY: Page(mapping=MAPPING, index=7)}, debug_info=False).prog
    layout = page_layout(prog)
    assert (layout.source, layout.index, layout.vmemmap) == ("vmcoreinfo", 32, VMEMMAP)
    assert layout.generation is None
    page = page_of(prog, BUSY)
    assert (page.mapping, page.refcount, page.pins) == (MAPPING, 1, None)
    with pytest.raises(MissingDebugInfo, match="-s VMLINUX"):
        idle_refcount(prog)


@pytest.mark.parametrize(("index", "shown"), [(7, 7), (0, None)])
def test_an_index_of_0_is_unknown_where_the_kernel_may_set_none(
    index: int, shown: int | None
) -> None:
    """VMCOREINFO does not say whether DAX sets it (since v4.19), unless the kernel is younger."""
    prog = Kernel("6.1", {BUSY: Page(mapping=MAPPING, index=index)}, debug_info=False).prog
    lacks = Problem(cause=Cause.NO_DEBUG_INFO, why="pgmap_array")
    prog.cache["drgn_pmem.pgmaps"] = Partial([], (lacks,))
    page = page_of(prog, BUSY)
    assert (page.mapping, page.index) == (MAPPING, shown)


def test_vmcoreinfo_of_7_1_tells_the_generation() -> None:
    prog = Kernel("7.1", {}, debug_info=False).prog
    assert page_layout(prog).generation is DaxGeneration.FOLIO


def test_layouts_of_all_generations() -> None:
    for generation in GENERATIONS:
        layout = page_layout(Kernel(generation, {}).prog)
        assert (layout.flags, layout.word, layout.mapping, layout.index) == (0, 8, 24, 32)
        assert (layout.mapcount, layout.refcount, layout.size) == (48, 52, 64)
        late = generation in LATE
        assert layout.generation is (DaxGeneration.FOLIO if late else DaxGeneration.MAPPING)
        assert layout.head_is_mask is (generation == "7.1")


@pytest.mark.parametrize("line", ["SIZE(page)=48", "OFFSET(page._refcount)=4000", "SIZE(page)=-64"])
def test_vmcoreinfo_that_is_not_sound(line: str) -> None:
    kernel = Kernel("6.1", {}, debug_info=False)
    text = kernel.prog["VMCOREINFO"].string_().decode() + line + "\n"
    prog = kernel.machine.program(text)
    with pytest.raises(MissingDebugInfo):
        page_layout(prog)


def test_machine_whose_page_tables_are_not_known_and_no_debug_info() -> None:
    machine = Machine(Architecture.S390X)
    prog = machine.program("PAGESIZE=4096\nSYMBOL(swapper_pg_dir)=1000000\n")
    with pytest.raises(
        NotSaved,
        match="init_mm is not known: no debug info of the kernel: give its vmlinux",
    ) as error:
        translate(prog, 0x1000)
    assert error.value.state is State.UNKNOWN


def test_sections_that_cannot_be_read_are_named_in_the_message() -> None:
    kernel = Kernel("6.1", {}, debug_info=False)
    text = kernel.prog["VMCOREINFO"].string_().decode()
    text = text.replace(f"SYMBOL(vmemmap)={VMEMMAP:x}\n", "")
    text += "SYMBOL(mem_section)=ffffffff81900000\nLENGTH(mem_section)=1\n"
    text += "SIZE(mem_section)=32\nOFFSET(mem_section.section_mem_map)=0\n"
    with pytest.raises(MissingDebugInfo, match=r"mem_section: 0xf.*: not mapped; load"):
        page_layout(kernel.machine.program(text))


def test_sections_are_looked_for_page_by_page_and_in_so_many_arrays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """130,000 pointers, each to memory without a section: one read each took 7 s."""
    kernel = Kernel("6.1", {}, debug_info=False)
    text = kernel.prog["VMCOREINFO"].string_().decode()
    text = text.replace(f"SYMBOL(vmemmap)={VMEMMAP:x}\n", "")
    text += "SYMBOL(mem_section)=ffffffff81900000\nLENGTH(mem_section)=131072\n"
    text += "SIZE(mem_section)=32\nOFFSET(mem_section.section_mem_map)=0\n"
    reads: list[int] = []
    garbage = lambda _, address, size: reads.append(address) or b"\x10" * size  # noqa: E731
    monkeypatch.setattr(layouts, "read_saved", garbage)
    with pytest.raises(MissingDebugInfo, match="none of the first 1024 arrays of sections"):
        page_layout(kernel.machine.program(text))
    assert len(reads) < 1100
