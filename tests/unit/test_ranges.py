# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ranges against plain sets of integers."""

from collections.abc import Iterable
import subprocess
import sys

from hypothesis import given, strategies as st
import numpy as np

from drgn_pmem.ranges import Range, RangeSet, paint

members = st.lists(
    st.tuples(st.integers(0, 120), st.integers(0, 40)).map(lambda t: Range(t[0], t[0] + t[1])),
    max_size=8,
)


def elements(parts: Iterable[Range]) -> list[int]:
    return [x for part in parts for x in range(part.start, part.end)]


@given(members, st.integers(0, 160), st.integers(0, 100))
def test_range_sets_are_sets(ranges: list[Range], start: int, size: int) -> None:
    end = start + size
    inside = set(elements(ranges))
    wanted = set(range(start, end))
    found = RangeSet(ranges)
    assert elements(found.overlap(start, end)) == sorted(inside & wanted)
    assert elements(found.gaps(start, end)) == sorted(wanted - inside)
    assert found.size(start, end) == len(inside & wanted)
    assert found.total == len(inside)
    assert (start in found) == (start in inside)


@given(members, st.integers(0, 160), st.integers(0, 100))
def test_a_split_is_a_partition(ranges: list[Range], start: int, size: int) -> None:
    found = RangeSet(ranges)
    parts = list(found.split(start, start + size))
    assert elements(part for part, _ in parts) == list(range(start, start + size))
    for part, inside in parts:
        assert part.size > 0
        assert {x in found for x in elements([part])} == {inside}


@given(members, members)
def test_sets_of_two(one: list[Range], other: list[Range]) -> None:
    a, b = RangeSet(one), RangeSet(other)
    left, right = set(elements(one)), set(elements(other))
    assert elements(a.union(b)) == sorted(left | right)
    assert elements(a.intersect(b)) == sorted(left & right)
    assert elements(a.subtract(b)) == sorted(left - right)
    assert (a == b) == (left == right)
    assert elements(a.contiguous()) == sorted(left)
    assert all(x.end < y.start for x, y in zip(a.contiguous(), [*a.contiguous()][1:], strict=False))


@given(members, members)
def test_ranges_overlap_where_they_have_a_byte_in_common(
    one: list[Range], other: list[Range]
) -> None:
    for a in one:
        for b in other:
            assert a.overlaps(b) == bool(set(elements([a])) & set(elements([b])))


def test_adjacent_ranges_stay_apart_until_they_are_joined() -> None:
    two = RangeSet([Range(8, 12), Range(0, 4), Range(4, 8), Range(5, 5)])
    assert list(two) == [Range(0, 4), Range(4, 8), Range(8, 12)]
    assert list(two.contiguous()) == [Range(0, 12)]
    assert two == RangeSet([Range(0, 12)])


def test_a_range_reads_as_addresses() -> None:
    assert repr(Range(4096, 8192)) == "Range(0x1000, 0x2000)"
    assert str(Range(4096, 8192)) == "0x1000-0x2000"
    assert Range(4096, 8192).to_json() == {"start": "0x1000", "end": "0x2000", "size": 4096}
    assert 4096 in Range(4096, 8192)
    assert 8192 not in Range(4096, 8192)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), max_size=25))
def test_paint_gives_each_address_to_the_last_range_that_has_it(
    intervals: list[tuple[int, int]],
) -> None:
    truth: dict[int, int] = {}
    for index, (start, size) in enumerate(intervals):
        truth.update(dict.fromkeys(range(start, start + size), index))
    starts = np.array([start for start, _ in intervals], np.uint64)
    lasts = np.array([start + size - 1 for start, size in intervals], np.uint64)
    first, last, winner = paint(starts, lasts)
    painted: dict[int, int] = {}
    for low, high, index in zip(first.tolist(), last.tolist(), winner.tolist(), strict=True):
        for address in range(low, high + 1):
            assert address not in painted, "pieces overlap"
            painted[address] = index
    assert painted == truth
    assert first.tolist() == sorted(first.tolist())


def test_ranges_need_no_numpy() -> None:
    code = "import sys, drgn_pmem.ranges; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
