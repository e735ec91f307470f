# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sample dumps, page by page: drgn, or libkdumpfile through it, reads what coverage calls saved
and nothing else, and what we read of a compressed dump ourselves is the same."""

from collections.abc import Iterator
from pathlib import Path
import subprocess
import sys

import drgn
import pytest

from drgn_pmem.dumpfile import DumpFormat, State, open_dump
from drgn_pmem.dumpfile.program import open_program
from tests.samples import CASES, CUT_SHORT, Case
from tests.unit.dumpfile.test_faults import READ_ALL

PIECE = 16 << 20
MAX_COPY = 256 << 20


@pytest.fixture(params=[c for c in CASES if not c.format.endswith(CUT_SHORT)], ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def faults(prog: drgn.Program, address: int, size: int) -> bool:
    try:
        prog.read(address, size, physical=True)
    except drgn.FaultError:
        return True
    return False


def chosen(start: int, end: int, page: int) -> Iterator[int]:
    """Pages near both ends of a run, and every 64th between: each fault costs much."""
    near = 8 * page
    for address in range(start, end, page):
        if address - start < near or end - address <= near or address // page % 64 == 0:
            yield address


def compare(path: Path) -> set[State]:
    """Read every page that can be read, pages of every other run, and the pages around the runs."""
    prog, _ = open_program(path)
    dump = open_dump(path)
    page = dump.kdump.block_size if dump.kdump is not None else 4096
    readable = {State.SAVED}
    if dump.contained is DumpFormat.ELF:
        readable.add(State.EXCLUDED)  # drgn reads zeroes there, no more
    seen = set()
    for item in dump.coverage.extent():
        seen.add(item.state)
        if item.state in readable:
            for start in range(item.start, item.end, PIECE):
                size = min(PIECE, item.end - start)
                data = prog.read(start, size, physical=True)
                assert item.state is State.SAVED or not any(data)
                if dump.contained is DumpFormat.KDUMP:
                    assert dump.memory.read(start, size) == data
        else:
            assert all(faults(prog, a, page) for a in chosen(item.start, item.end, page))
        for address in (item.start - page, item.end):
            if dump.coverage.state(address) is State.ABSENT and 0 <= address < 1 << 64:
                assert faults(prog, address, page)
    return seen


def test_drgn_reads_the_pages_that_are_saved_and_no_others(case):
    assert State.SAVED in compare(case.dump)


@pytest.mark.parametrize("percent", [35, 80])
def test_a_sample_cut_short(case, tmp_path, percent):
    path = case.dump
    whole = open_dump(path)
    if path.stat().st_size > MAX_COPY:
        pytest.skip("too large to copy")
    data = path.read_bytes()
    cut = tmp_path / "vmcore-incomplete"
    cut.write_bytes(data[: len(data) * percent // 100])
    seen = compare(cut)
    assert State.TRUNCATED in seen
    part = open_dump(cut)
    assert part.truncated
    assert not whole.truncated
    assert part.coverage.extent()[-1].end == whole.coverage.extent()[-1].end
    before, after = whole.coverage.count(), part.coverage.count()
    assert after.get(State.SAVED, 0) + after[State.TRUNCATED] == before[State.SAVED]


def test_the_formats_of_one_crash_agree(case):
    """What any format has is in the raw copy; makedumpfile's formats differ in zero pages only."""
    if case.format == "raw" or "raw" not in case.sample.formats or case.format.startswith("qemu"):
        pytest.skip("this crash has no raw dump from /proc/vmcore beside this one")
    raw = open_dump(case.sample.dump("raw"))
    dump = open_dump(case.dump)
    assert dump.vmcoreinfo == raw.vmcoreinfo
    for item in dump.coverage.extent():
        # makedumpfile rounds to pages; BIOS memory below 640 KiB ends inside one.
        held = raw.coverage.count(item.start, item.end).get(State.SAVED, 0)
        assert item.size - held < 4096
    if dump.segments:
        flags = {(segment.physical, segment.flags) for segment in raw.segments if segment.pmem}
        assert all(
            any(segment.physical >= start and segment.flags == bits for start, bits in flags)
            for segment in dump.segments
            if segment.pmem
        )
        assert any(segment.pmem for segment in dump.segments) == bool(flags)
    for item in dump.coverage.extent()[::7]:
        if item.state is State.SAVED:
            size = min(item.size, 4096)
            assert dump.memory.read(item.start, size) == raw.memory.read(item.start, size)


COMPRESSED = [
    case
    for case in CASES
    if case.format in ("zlib", "lzo", "snappy", "zstd") and case.sample is CASES[0].sample
]


@pytest.mark.parametrize("case", COMPRESSED, ids=str)
def test_no_read_of_a_cut_sample_ends_the_process(case, tmp_path):
    """libkdumpfile's first read walks the page tables: at 17579013 bytes of the lzo dump of 6.1 one
    of them goes on after the end of the file."""
    data = case.dump.read_bytes()
    paths = []
    for size in (17579013, 17579013 - 100, len(data) - 1, len(data) - 5000, len(data) * 7 // 8):
        if size < len(data):
            paths.append(tmp_path / str(size))
            paths[-1].write_bytes(data[:size])
    run = subprocess.run(
        [sys.executable, "-c", READ_ALL, *paths], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("read ") == len(paths)
