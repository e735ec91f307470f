# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which differences between the answers of two dumps count."""

import pytest

from drgn_pmem.analysis.trim.compare import Said, differences
from drgn_pmem.partial import Cause, Problem, State

PAGE = 4096
FAILED = "could not read memory from kdump: Decompresion failed: incorrect header check"
LEFT_OUT = "could not read memory from kdump: Excluded page (excluded)"


def found(
    before: Said, after: Said, command: str = "pmem-x", *, same: bool = True, damaged: int = 0
) -> list[str]:
    return list(
        differences(command, before, after, same_format=same, page_size=PAGE, damaged=damaged)
    )


def said(value: object, *problems: Problem) -> Said:
    return Said(json=value, problems=problems)


def test_another_value_is_named_with_its_place() -> None:
    assert found(said([{"a": {"b": 1}}]), said([{"a": {"b": 2}}])) == ["[0].a.b: 2, instead of 1"]
    assert found(said([1, 2]), said([1])) == ["value: 1 records, instead of 2 records"]
    assert found(said([(1, 2)]), said([[1, 2]])) == []


def test_an_error_is_a_difference_and_the_same_error_is_not() -> None:
    assert found(Said(error="no pmem"), Said(error="no pmem")) == []
    assert found(said([]), Said(error="no pmem")) == ["no pmem, instead of an answer"]


def test_a_new_problem_is_named_unless_user_data_is_left_out() -> None:
    lost = Problem(cause=Cause.NOT_SAVED, why="page 7")
    user = Problem(cause=Cause.NOT_SAVED, why="page 8", state=State.EXCLUDED)
    assert found(said([]), said([], lost)) == ["page 7"]
    assert found(said([], lost), said([], user, lost)) == []
    assert found(said([], lost), said([])) == ["complete, instead of incomplete"]


def segment(start: int, size: int) -> dict[str, object]:
    return {"physical": f"{start:#x}", "memory_size": size, "pmem": False}


@pytest.mark.parametrize(
    ("size", "same", "expected"),
    [
        (0x9F000, False, []),
        (0x9EC00, False, []),
        (0x9EC00, True, ["[0]: 0x9fc00-0xa0000 is missing"]),
        (0x9E000, False, ["[0]: 0x9f000-0xa0000 is missing"]),
        (0xA1000, False, ["[0]: 0xa0000-0xa2000 is not in this dump"]),
    ],
)
def test_only_a_part_of_a_page_may_be_missing_in_another_format(
    size: int, same: bool, expected: list[str]
) -> None:
    before = said([segment(0x1000, 0x9F000)])
    after = said([segment(0x1000, size)])
    assert found(before, after, "pmem-segments", same=same) == expected


def test_damaged_pages_are_excluded_ones_in_the_new_dump() -> None:
    before, after = said([{"notes": [f"tasks: {FAILED}: 0xf00"]}]), Said(json=None)
    after = said([{"notes": ["tasks: could not read memory from kdump: Excluded page: 0xf00"]}])
    assert found(before, after, damaged=1) == []
    assert len(found(before, after)) == 1
    assert found(Said(error=FAILED), Said(error=LEFT_OUT), damaged=1) == []
    assert found(Said(error=FAILED), Said(error=LEFT_OUT)) == [f"{LEFT_OUT}, instead of {FAILED}"]


@pytest.mark.parametrize(
    ("saved", "excluded", "damaged", "same"),
    [(9, 1, 1, True), (8, 2, 1, False), (9, 1, 0, False), (9, 0, 1, False), (10, 0, 1, True)],
)
@pytest.mark.parametrize("unit", [1, PAGE])
def test_as_many_pages_may_be_excluded_as_are_damaged(
    saved: int, excluded: int, damaged: int, same: bool, unit: int
) -> None:
    before = said({"metadata": {"saved": 10 * unit, "excluded": 0}})
    after = said({"metadata": {"saved": saved * unit, "excluded": excluded * unit}})
    assert (found(before, after, damaged=damaged) == []) is same


def test_what_pages_of_64_kib_share_with_user_data_is_no_difference() -> None:
    """The new file alone has erased user data, and segments that end within a page."""
    usage = {"partial_pages": 0, "original": 8}
    assert found(said(usage), said(usage | {"partial_pages": 2}), "pmem-usage") == []
    assert found(said(usage), said(usage | {"original": 7}), "pmem-usage")
    row = {"id": "dump-erased", "complete": True}
    assert found(said([]), said([row]), "pmem-diagnose") == []
    assert found(said([]), said([row | {"id": "dimm-failed"}]), "pmem-diagnose")
