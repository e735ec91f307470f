# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The devm_memmap_vmcore list of kernels that never were: sound, cyclic, wild, absurd."""

from drgn import Program
import pytest

from drgn_pmem.errors import NotFound
from drgn_pmem.kernel.devm_memmap import (
    MemmapEntry,
    for_each_memmap_entry,
    for_each_memmap_entry_vmcoreinfo,
    judge_memmap_entries,
)
from drgn_pmem.partial import Incomplete, Partial

from ...synthetic import kernel, words

HEAD, ONE, TWO, WILD = (
    0xFFFFFFFF82000000,
    0xFFFF888000001000,
    0xFFFF888000002000,
    0xDEAD000000000100,
)
LINES = (
    f"SYMBOL(devm_memmap_vmcore_head)={HEAD:x}\n"
    "SIZE(devm_memmap_vmcore)=40\n"
    "OFFSET(devm_memmap_vmcore.entry)=0\n"
    "OFFSET(devm_memmap_vmcore.start)=16\n"
    "OFFSET(devm_memmap_vmcore.end)=24\n"
)


def node(next_: int, prev: int, start: int, end: int) -> bytes:
    return words(next_, prev, start, end, 0)


def pfns(prog: Program) -> tuple[list[tuple[int, int]], list[str]]:
    found = for_each_memmap_entry(prog)
    return [(e.start_pfn, e.end_pfn) for e in found.value], list(map(str, found.problems))


def test_sound_list() -> None:
    prog = kernel(
        LINES,
        {
            HEAD: words(ONE, TWO),
            ONE: node(TWO, HEAD, 0x100000, 0x100400),
            TWO: node(HEAD, ONE, 0x120000, 0x120200),
        },
    )
    assert pfns(prog) == ([(0x100000, 0x100400), (0x120000, 0x120200)], [])


def test_empty_list() -> None:
    assert pfns(kernel(LINES, {HEAD: words(HEAD, HEAD)})) == ([], [])


def test_head_that_is_a_whole_struct_with_its_entry_further_in() -> None:
    lines = LINES.replace("entry)=0", "entry)=8").replace("start)=16", "start)=24")
    lines = lines.replace("end)=24", "end)=32")
    prog = kernel(
        lines,
        {
            HEAD: words(0, ONE + 8, ONE + 8, 0, 0),
            ONE: words(0, HEAD + 8, HEAD + 8, 0x100, 0x200),
        },
    )
    assert pfns(prog) == ([(0x100, 0x200)], [])


def test_cycle_that_does_not_come_back_to_the_head() -> None:
    prog = kernel(
        LINES,
        {
            HEAD: words(ONE, TWO),
            ONE: node(TWO, HEAD, 0x100000, 0x100400),
            TWO: node(ONE, ONE, 0x120000, 0x120200),
        },
    )
    entries, (problem,) = pfns(prog)
    assert entries == [(0x100000, 0x100400), (0x120000, 0x120200)]
    assert f"cyclic at {ONE:#x}" in problem
    assert "\n" not in problem


def test_second_node_unreadable() -> None:
    prog = kernel(LINES, {HEAD: words(ONE, TWO), ONE: node(WILD, HEAD, 0x100000, 0x100400)})
    entries, (problem,) = pfns(prog)
    assert entries == [(0x100000, 0x100400)]
    assert "stopped after 1 entries" in problem
    assert f"{WILD:#x}"[:10] in problem


def test_list_that_never_ends_is_given_up() -> None:
    # Nodes 40 bytes apart, each pointing to the next: more than any machine has namespaces.
    base, count = 0xFFFF888010000000, (1 << 16) + 8
    memory = b"".join(node(base + 40 * (i + 1), 0, i * 16, i * 16 + 8) for i in range(count))
    entries, (problem,) = pfns(kernel(LINES, {HEAD: words(base, base), base: memory}))
    assert len(entries) == 1 << 16
    assert "too many" in problem


def test_range_that_is_none_is_not_live() -> None:
    prog = kernel(LINES, {HEAD: words(ONE, ONE), ONE: node(HEAD, HEAD, 0x200, 0x100)})
    (entry,) = for_each_memmap_entry(prog)
    assert entry.state == "stale"
    assert entry.reason == "PFNs 0x200 to 0x100 are not a range"


def test_kernel_without_the_list() -> None:
    with pytest.raises(NotFound, match="keeps no devm_memmap_vmcore list"):
        list(for_each_memmap_entry(kernel("", {})))


@pytest.mark.parametrize("member", ["entry", "start", "end"])
def test_a_missing_line_is_named(member: str) -> None:
    lines = "".join(line + "\n" for line in LINES.splitlines() if f".{member})" not in line)
    with pytest.raises(Incomplete, match=rf"no OFFSET\(devm_memmap_vmcore.{member}\)"):
        list(for_each_memmap_entry_vmcoreinfo(kernel(lines, {HEAD: words(HEAD, HEAD)})))


def entry(address: int, start: int, end: int, match: int | None = None) -> MemmapEntry:
    return MemmapEntry(address=address, start_pfn=start, end_pfn=end, match=match)


def test_entries_of_one_namespace_twice_are_duplicates() -> None:
    judged = judge_memmap_entries([entry(1, 0, 8, 0x10), entry(2, 16, 24, 0x10)], Partial([]), 12)
    assert [e.state for e in judged] == ["duplicate", "duplicate"]


def test_entries_that_overlap_are_said_to() -> None:
    judged = judge_memmap_entries([entry(1, 0, 8, 0x10), entry(2, 7, 24, 0x20)], Partial([]), 12)
    assert [e.state for e in judged] == ["overlapping", "overlapping"]


def test_entry_of_a_namespace_that_is_gone_is_stale() -> None:
    (judged,) = judge_memmap_entries([entry(1, 0, 8, 0x10)], Partial([]), 12)
    assert (judged.state, judged.reason) == ("stale", "its namespace is gone")
