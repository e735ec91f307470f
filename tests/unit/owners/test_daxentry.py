# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""DAX entries are decoded as fs/dax.c writes them, out of sound trees and hostile ones."""

from itertools import count
import time

from drgn import Object
from hypothesis import given, settings, strategies as st
import pytest

from drgn_pmem.kernel.daxentry import DaxEntries, read_dax_entries
from drgn_pmem.partial import Partial

from .fake import BIG, LITTLE, Fake

XARRAY = 0xFFFF_8880_0000_0040
NODES = 0xFFFF_8880_0010_0000
NODE_SIZE = 0x400
FANOUT = 64

# fs/dax.c
LOCKED, PMD, ZERO, EMPTY = 1, 2, 4, 8
DIRTY, TOWRITE = 0, 2


def value_of(pfn: int, flags: int) -> int:
    """dax_make_entry(): xa_mk_value(flags | pfn << DAX_SHIFT)"""
    return (flags | pfn << 4) << 1 | 1


class Tree:
    """An XArray built as lib/xarray.c does: the least height, siblings behind large entries."""

    def __init__(self, fake: Fake) -> None:
        self.fake = fake
        self.addresses = count(NODES, NODE_SIZE)
        self.nodes = 0

    def build(self, entries: dict[int, tuple[int, int, set[int]]]) -> None:
        """index -> (word, order, marks)"""
        top = max((index + (1 << order) - 1 for index, (_, order, _) in entries.items()), default=0)
        shift = 0
        while top >> (shift + 6):
            shift += 6
        head = self._node(entries, 0, shift, 0, 0) | 2 if entries else 0
        self.fake.fill("xarray", XARRAY, xa_head=head)

    def _node(
        self,
        entries: dict[int, tuple[int, int, set[int]]],
        base: int,
        shift: int,
        parent: int,
        offset: int,
    ) -> int:
        address = next(self.addresses)
        self.nodes += 1
        self.fake.fill("xa_node", address, shift=shift, offset=offset, parent=parent)
        slots = address + self.fake.offset("xa_node", "slots")
        marks = address + self.fake.offset("xa_node", "marks")
        words = [0, 0, 0]
        below: dict[int, dict[int, tuple[int, int, set[int]]]] = {}
        for index, (word, order, set_marks) in entries.items():
            slot = (index - base) >> shift
            if order < shift:
                below.setdefault(slot, {})[index] = (word, order, set_marks)
                continue
            self.fake.word(slots + 8 * slot, word)
            for sibling in range(1, 1 << (order - shift)):
                self.fake.word(slots + 8 * (slot + sibling), slot << 2 | 2)
            for mark in set_marks:
                words[mark] |= 1 << slot
        for slot, inside in below.items():
            child = self._node(inside, base + (slot << shift), shift - 6, address, slot)
            self.fake.word(slots + 8 * slot, child | 2)
        for mark, word in enumerate(words):
            self.fake.word(marks + 8 * mark, word)
        return address


def read_partial(fake: Fake) -> Partial[DaxEntries]:
    return read_dax_entries(fake.prog, XARRAY)


def read(fake: Fake) -> DaxEntries:
    return read_partial(fake).whole()


def part(fake: Fake) -> tuple[DaxEntries, list[str]]:
    """What can be read of a tree that cannot be read whole, and why not."""
    answer = read_partial(fake)
    assert not answer.complete
    return answer.value, [str(problem) for problem in answer.problems]


@st.composite
def entry_sets(draw: st.DrawFn) -> dict[int, tuple[int, int, set[int]]]:
    """Entries of one page and of 512, that do not overlap, over up to five levels."""
    blocks = draw(st.sets(st.integers(0, 1 << draw(st.integers(1, 22))), max_size=12))
    entries: dict[int, tuple[int, int, set[int]]] = {}
    for block in blocks:
        if draw(st.booleans()):
            pages, order, flag = [0], 9, PMD
        else:
            pages, order, flag = sorted(draw(st.sets(st.integers(0, 511), min_size=1))), 0, 0
        for page in pages:
            flags = flag | draw(st.sampled_from([0, LOCKED, ZERO, EMPTY, LOCKED | ZERO]))
            pfn = draw(st.integers(0, (1 << 40) - 1))
            marks = draw(st.sets(st.sampled_from([DIRTY, TOWRITE])))
            entries[block * 512 + page] = (value_of(pfn, flags), order, marks)
    return entries


@settings(max_examples=60, deadline=None)
@given(entry_sets(), st.sampled_from([LITTLE, BIG]))
def test_every_entry_of_a_sound_tree_is_read(
    entries: dict[int, tuple[int, int, set[int]]], byte_order: object
) -> None:
    fake = Fake(byte_order)  # type: ignore[arg-type]
    Tree(fake).build(entries)
    answer = read(fake)
    assert [entry.index for entry in answer] == sorted(entries)
    for entry in answer:
        word, order, marks = entries[entry.index]
        flags, pfn = word >> 1 & 15, word >> 5
        assert entry.order == order
        assert entry.pfn == (None if flags & (ZERO | EMPTY) else pfn)
        assert (entry.locked, entry.pmd) == (bool(flags & LOCKED), bool(flags & PMD))
        assert (entry.zero, entry.empty) == (bool(flags & ZERO), bool(flags & EMPTY))
        assert (entry.dirty, entry.towrite) == (DIRTY in marks, TOWRITE in marks)
        for index in (entry.index, entry.index + (1 << order) - 1):
            found = answer.find(index)
            assert found == entry
            assert entry.pfn is None or entry.pfn_at(index) == pfn + (index - entry.index)
    assert sum(1 << e.order for e in answer if e.pfn is not None) == answer.pages()


def test_a_page_between_entries_has_none() -> None:
    fake = Fake()
    Tree(fake).build({3: (value_of(7, 0), 0, set()), 5: (value_of(9, 0), 0, set())})
    assert read(fake).find(4) is None
    assert read(fake).find(2) is None
    assert read(fake).find(6) is None
    assert read(fake).find(1 << 70) is None


@pytest.mark.parametrize("shift", [23, 25, 27])
def test_marks_of_a_single_entry_are_in_xa_flags_wherever_this_kernel_has_them(shift: int) -> None:
    fake = Fake()
    word = value_of(0x1234, 0)
    fake.fill("xarray", XARRAY, xa_head=word, xa_flags=33 | 1 << shift | 1 << (shift + 2))
    (entry,) = read(fake)
    assert (entry.index, entry.pfn, entry.dirty, entry.towrite) == (0, 0x1234, True, True)
    fake.fill("xarray", XARRAY, xa_head=word, xa_flags=33)
    (entry,) = read(fake)
    assert (entry.dirty, entry.towrite) == (False, False)


def test_an_empty_tree_has_nothing_and_nothing_is_wrong() -> None:
    fake = Fake()
    fake.fill("xarray", XARRAY)
    assert len(read(fake)) == 0


def test_struct_pages_of_a_file_without_dax_are_no_entries() -> None:
    fake = Fake()
    Tree(fake).build({1: (0xFFFF_EA00_0000_1000, 0, set()), 2: (value_of(5, 0), 0, set())})
    answer = read(fake)
    assert [entry.index for entry in answer] == [2]


def test_a_node_that_is_its_own_child_is_read_once() -> None:
    fake = Fake()
    slots = NODES + fake.offset("xa_node", "slots")
    fake.fill("xarray", XARRAY, xa_head=NODES | 2)
    fake.fill("xa_node", NODES, shift=6)
    fake.word(slots + 8, NODES | 2)
    answer, problems = part(fake)
    assert len(answer) == 0
    assert "its parent and offset are not" in problems[0]


def test_a_tree_whose_slots_all_lead_to_one_node_is_no_explosion() -> None:
    fake = Fake()
    shared = NODES + NODE_SIZE
    fake.fill("xarray", XARRAY, xa_head=NODES | 2)
    fake.fill("xa_node", NODES, shift=6)
    fake.fill("xa_node", shared, shift=0, parent=NODES, offset=3)
    fake.word(shared + fake.offset("xa_node", "slots"), value_of(42, 0))
    for slot in range(FANOUT):
        fake.word(NODES + fake.offset("xa_node", "slots") + 8 * slot, shared | 2)
    answer, _ = part(fake)
    # Only at the place that the node itself names.
    assert [(entry.index, entry.pfn) for entry in answer] == [(3 * FANOUT, 42)]


@pytest.mark.parametrize("height", [1, 5, 64, 66, 200, 255])
def test_an_absurd_height_is_refused(height: int) -> None:
    fake = Fake()
    fake.fill("xarray", XARRAY, xa_head=NODES | 2)
    fake.fill("xa_node", NODES, shift=height)
    answer, problems = part(fake)
    assert len(answer) == 0
    assert "shift" in problems[0]


def test_a_child_of_the_wrong_height_is_left_out_and_its_sisters_stay() -> None:
    fake = Fake()
    tree = Tree(fake)
    tree.build({0: (value_of(1, 0), 0, set()), 70: (value_of(2, 0), 0, set())})
    fake.write(NODES + NODE_SIZE + fake.offset("xa_node", "shift"), b"\x06")
    answer, problems = part(fake)
    assert [entry.index for entry in answer] == [70]
    assert len(problems) == 1


def test_a_wild_node_costs_only_itself() -> None:
    fake = Fake()
    Tree(fake).build({0: (value_of(1, 0), 0, set()), 70: (value_of(2, 0), 0, set())})
    fake.word(NODES + fake.offset("xa_node", "slots") + 8, 0xDEAD_0000_0000_0002)
    answer, problems = part(fake)
    assert [entry.index for entry in answer] == [0]
    assert "0xdead" in problems[0]


def test_an_array_that_is_not_in_the_dump_is_a_problem_not_an_empty_file() -> None:
    answer, problems = part(Fake())
    assert len(answer) == 0
    assert problems


def test_a_hundred_thousand_entries_take_less_than_three_seconds() -> None:
    fake = Fake()
    Tree(fake).build({i: (value_of(0x100000 + i, 0), 0, {DIRTY}) for i in range(100_000)})
    start = time.process_time()
    answer = read(fake)
    assert time.process_time() - start < 3
    assert len(answer) == 100_000
    assert answer.pages("dirty") == 100_000


def test_marks_that_were_not_saved_are_unknown_and_the_entry_stands() -> None:
    fake = Fake()
    # xa_head begins the page after that of xa_flags.
    xarray = XARRAY + 0x1000 - XARRAY % 0x1000 - fake.offset("xarray", "xa_head")
    fake.word(xarray + fake.offset("xarray", "xa_head"), value_of(0x1234, 0))
    answer = read_dax_entries(fake.prog, xarray)
    (entry,) = answer.value
    assert (entry.index, entry.pfn, entry.dirty, entry.towrite) == (0, 0x1234, None, None)
    assert answer.value.pages("dirty") is None
    assert answer.value.pages() == 1
    assert not answer.complete


def test_an_object_is_as_good_as_its_address() -> None:
    fake = Fake()
    fake.fill("xarray", XARRAY, xa_head=value_of(7, 0), xa_flags=33)
    xarray = Object(fake.prog, "struct xarray", address=XARRAY)
    for named in (xarray, xarray.address_of_()):
        assert [entry.pfn for entry in read_dax_entries(fake.prog, named).whole()] == [7]
