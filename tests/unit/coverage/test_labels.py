# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Label areas of which makedumpfile left out pages: zero pages hold nothing, others are named."""

import pytest

from drgn_pmem.analysis.inventory.labels import _read_area, find_labels
from drgn_pmem.dumpfile import Coverage, CoverageRange, State, set_coverage
from drgn_pmem.partial import NotSaved
from tests.builders import build_label_area

from ...synthetic import kernel
from ..formats.test_label import label

ADDRESS = 0xFFFF888010000000
PAGE = 4096


def area_with(labels: list[int], *pages: int) -> tuple[list[int], list[int]]:
    """Slots that are shown, and that are missed, if the dump holds these pages of the area."""
    data = build_label_area([label(slot) for slot in labels])
    held = {ADDRESS + n * PAGE: data[n * PAGE : (n + 1) * PAGE] for n in pages}
    area, without = _read_area(kernel("", held), ADDRESS, len(data))
    return [slot.index for slot in area.slots], without


def test_pages_of_free_slots_are_not_needed() -> None:
    assert area_with([0, 5], 0) == ([0, 5], [])


def test_a_label_in_a_page_that_was_left_out_is_missed_by_its_slot() -> None:
    # 256-byte labels after two 256-byte indexes: slot 14 begins the second page.
    assert area_with([13, 14, 40], 0, 2) == ([13, 40], [14])


def test_without_the_indexes_there_is_no_area() -> None:
    with pytest.raises(NotSaved):
        area_with([0], 1, 2)


PHYSICAL = 0x2220000


def searched(labels: list[int], *pages: int) -> tuple[list[int], list[str]]:
    """The same where nothing but memory tells, of a dump that reads as zero what it left out."""
    data = build_label_area([label(slot) for slot in labels])
    left_out = bytearray(data)
    parts = []
    for start in range(0, len(data), PAGE):
        end = min(start + PAGE, len(data))
        state = State.SAVED if start // PAGE in pages else State.EXCLUDED
        parts.append(CoverageRange(PHYSICAL + start, PHYSICAL + end, state))
        if state is State.EXCLUDED:
            left_out[start:end] = bytes(end - start)
    prog = kernel("", {})
    prog.add_memory_segment(
        PHYSICAL, len(data), lambda _, count, at, physical: bytes(left_out[at : at + count]), True
    )
    set_coverage(prog, Coverage.from_ranges(parts))
    answer = find_labels(prog)
    found, notes = answer.value, [str(problem) for problem in answer.problems]
    return [slot.index for item in found for slot in item.area.slots], notes


def test_free_slots_are_not_needed_where_an_area_is_searched_for() -> None:
    assert searched([0, 5], 0) == ([0, 5], [])


def test_a_label_that_was_left_out_is_missed_where_an_area_is_searched_for() -> None:
    slots, notes = searched([13, 14, 40], 0, 2)
    assert slots == [13, 40]
    assert notes == ["label area at 0x2220000: labels in slots 14 are not in the dump"]
