# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What is said of live memory, on a sample that is taken for it: RAM can be read, pmem cannot, as with
/proc/kcore. Real live kernels are what tests/live is for.
"""

from dataclasses import replace
import json

from drgn import Program
import pytest

from drgn_pmem.dumpfile import DumpFormat, dump_of, set_dump
from drgn_pmem.dumpfile.live import readable_coverage
from drgn_pmem.ranges import Range, RangeSet

from ..samples import CASES, Case, open_crash, run_answer, run_json, run_text

CASE = next(case for case in CASES if str(case) == "6.1-fileload:raw")
RAM = "System RAM"


def ram(case: Case) -> RangeSet:
    parts = []
    for line in case.truth("iomem").splitlines():
        place, _, name = line.strip().partition(" : ")
        if name == RAM:
            start, last = (int(number, 16) for number in place.split("-"))
            parts.append(Range(start, last + 1))
    return RangeSet(parts)


def as_live(case: Case, memory: RangeSet, *, guest: bool) -> Program:
    prog = open_crash(case.sample, case.dump)
    coverage = readable_coverage(memory)
    live = replace(
        dump_of(prog),
        format=DumpFormat.LIVE,
        contained=DumpFormat.LIVE,
        segments=(),
        source=None,
        memory_builder=None,
        hypervisor=guest,
        coverage_builder=lambda: coverage,
    )
    set_dump(prog, live)
    return prog


@pytest.fixture(scope="module")
def live() -> Program:
    return as_live(CASE, ram(CASE), guest=False)


def test_pmem_of_a_live_kernel_is_absent_not_saved(live: Program) -> None:
    for item in run_json(live, "pmem-coverage"):
        assert set(item["userdata"]) <= {"absent"}
        assert set(item["infoblock"]) <= {"absent"}
        assert "initialised again" not in item["verdict"]
        if item["location"] == "pmem":
            assert set(item["struct_pages"]) == {"absent"}
            assert "none were saved" in item["verdict"]
            assert "--live-pmem" in item["advice"]


def test_no_info_block_of_a_live_kernel_is_damaged_or_missing(live: Program) -> None:
    """They are not in /proc/kcore: nothing is known of them."""
    memmaps = [item for item in run_json(live, "pmem-memmap") if "mode" in item]
    assert {item["infoblock_media_state"] for item in memmaps} == {"absent"}
    for block in run_json(live, "pmem-infoblocks"):
        assert not block.get("infoblock"), block
    text = "".join(run_text(live, "pmem-infoblocks")) + "".join(run_text(live, "pmem-memmap"))
    assert "damaged" not in text
    assert "no info block there" not in text


def test_struct_pages_that_cannot_be_read_are_absent_not_truncated(live: Program) -> None:
    states = {item["state"] for item in run_json(live, "pmem-pages")}
    assert "truncated" not in states
    assert "absent" in states


def test_a_live_kernel_has_a_page_report_and_segments(live: Program) -> None:
    usage = run_json(live, "pmem-usage")
    assert usage["pmem_metadata"].keys() == {"absent"}
    assert usage["truncated"] == 0
    out, notes = run_text(live, "pmem-segments")
    assert "not in /proc/kcore" in notes
    assert "headers written by" not in notes
    assert "contents were overwritten" not in out


def test_the_report_of_a_live_kernel_has_every_section(live: Program) -> None:
    sections = json.loads(run_answer(live, "pmem-report --json")[1])
    assert sections


def test_a_guest_seen_from_outside_has_its_pmem() -> None:
    """All of its memory, as QEMU's monitor gives it: here what the dump holds."""
    everything = RangeSet(Range(r.start, r.end) for r in dump_of(CASE.prog).coverage.covered())
    guest = as_live(CASE, everything, guest=True)
    for item in run_json(guest, "pmem-coverage"):
        assert set(item["struct_pages"]) <= {"saved"}
        assert item["check"] is None or item["check"]["destroyed"] is False
    assert "can be read" in run_text(guest, "pmem-segments")[1]
