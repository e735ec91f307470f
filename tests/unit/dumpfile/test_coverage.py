# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Coverage and intervals against a plain list of bytes."""

import itertools

import drgn
from hypothesis import given, strategies as st
import numpy as np
import pytest

from drgn_pmem.dumpfile import (
    Coverage,
    CoverageRange,
    DumpFormat,
    State,
    coverage_of,
    dump_of,
    live_dump,
    set_coverage,
    set_dump,
)
from drgn_pmem.errors import DumpFileError
from drgn_pmem.ranges import Range

SPACE = 1 << 64
TOP = SPACE - 64


states = st.sampled_from([State.SAVED, State.EXCLUDED, State.TRUNCATED, State.ABSENT])


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8), states), max_size=12),
    st.sampled_from([0, TOP]),
    st.integers(-3, 70),
    st.integers(-3, 70),
)
def test_coverage_agrees_with_a_list_of_bytes(gaps, base, start, end):
    truth = [State.ABSENT] * 64
    ranges, at = [], 0
    for gap, size, state in gaps:
        at += gap
        size = min(size, 64 - at) if at < 64 else 0
        if size <= 0:
            break
        ranges.append(CoverageRange(base + at, base + at + size, state))
        truth[at : at + size] = [state] * size
        at += size
    coverage = Coverage.from_ranges(ranges)
    start, end = start + base, end + base

    def true_state(address):
        inside = base <= address < base + 64
        return truth[address - base] if inside else State.ABSENT

    low, high = max(start, 0), min(end, SPACE)
    expected = [true_state(address) for address in range(low, high)]
    got = list(coverage.ranges(start, end))
    assert [item.state for item in got for _ in range(item.size)] == expected
    for before, after in itertools.pairwise(got):
        assert before.end == after.start
        assert before.state is not after.state, "not merged"
    assert coverage.count(start, end) == {
        state: expected.count(state) for state in State if state in expected
    }
    for address in (start, end - 1):
        if 0 <= address < SPACE:
            assert coverage.state(address) is true_state(address)
    there = {base + at for at, state in enumerate(truth) if state is not State.ABSENT}
    covered = coverage.covered()
    assert {x for part in covered for x in range(part.start, part.end)} == there
    assert all(one.end < other.start for one, other in itertools.pairwise(covered))
    size = end - start
    inside = start >= 0 and end <= SPACE
    assert coverage.saved(start, size) == (
        size <= 0 or (inside and all(state is State.SAVED for state in expected))
    )
    if inside and size > 0:
        each = coverage.saved_each(np.arange(start, end, dtype=np.uint64), 3)
        assert each.tolist() == [coverage.saved(address, 3) for address in range(start, end)]


def test_extent_leaves_out_what_is_absent():
    ranges = [
        CoverageRange(0x2000, 0x3000, State.EXCLUDED),
        CoverageRange(0x1000, 0x2000, State.SAVED),
        CoverageRange(0x3000, 0x4000, State.EXCLUDED),
    ]
    assert Coverage.from_ranges(ranges).extent() == [
        CoverageRange(0x1000, 0x2000, State.SAVED),
        CoverageRange(0x2000, 0x4000, State.EXCLUDED),
    ]


def test_the_whole_address_space_is_counted():
    assert Coverage.everywhere(State.SAVED).covered() == [Range(0, SPACE)]
    assert Coverage.everywhere(State.SAVED).count() == {State.SAVED: SPACE}
    partly = Coverage.from_ranges([CoverageRange(0, 5, State.SAVED)])
    assert partly.count() == {State.SAVED: 5, State.ABSENT: SPACE - 5}
    assert partly.state(-1) is State.ABSENT
    assert partly.state(SPACE) is State.ABSENT


def test_overlapping_ranges_are_refused():
    with pytest.raises(ValueError, match="overlap"):
        Coverage.from_ranges(
            [CoverageRange(0, 10, State.SAVED), CoverageRange(9, 12, State.EXCLUDED)]
        )
    with pytest.raises(ValueError, match="address space"):
        Coverage.from_ranges([CoverageRange(SPACE - 1, SPACE + 1, State.SAVED)])


def test_ranges_to_json():
    assert CoverageRange(0x1000, 0x3000, State.TRUNCATED).to_json() == {
        "start": "0x1000",
        "end": "0x3000",
        "size": 8192,
        "state": "truncated",
    }


def test_a_program_without_a_dump_has_no_coverage_until_it_is_set():
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    with pytest.raises(DumpFileError, match="no dump file"):
        coverage_of(prog)
    coverage = Coverage.from_ranges([CoverageRange(0, 4096, State.SAVED)])
    set_coverage(prog, coverage)
    assert coverage_of(prog) is coverage


def test_a_live_target_is_saved_everywhere():
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    set_dump(prog, live_dump())
    assert dump_of(prog).format is DumpFormat.LIVE
    assert coverage_of(prog).saved(0, SPACE)
    assert coverage_of(prog) is coverage_of(prog)


def test_runs_come_in_pieces_and_are_the_same() -> None:
    """As many as take several pieces, the end of the last one on and off a boundary."""
    for count in (4095, 4096, 4097, 9000):
        runs = [CoverageRange(n << 13, (n << 13) + 4096, State.SAVED) for n in range(count)]
        coverage = Coverage.from_ranges(runs)
        parts = list(coverage.ranges())
        assert [part for part in parts if part.state is State.SAVED] == runs
        assert parts[-1].end == 1 << 64
        assert all(a.end == b.start for a, b in itertools.pairwise(parts))
        assert list(coverage.ranges(1, 2)) == [CoverageRange(1, 2, State.SAVED)]
