# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Label areas of which makedumpfile left out pages: zero pages hold nothing, others are named."""

import drgn
import pytest

from drgn_pmem.analysis.labels import _read_area
from drgn_pmem.formats.labelarea import build_label_area

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
    with pytest.raises(drgn.FaultError):
        area_with([0], 1, 2)
