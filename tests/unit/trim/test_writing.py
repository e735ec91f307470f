# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A dump that is written is read back: by our readers, and by drgn with libkdumpfile."""

import os
from pathlib import Path
import random

import drgn
from hypothesis import given, strategies as st
import pytest

from drgn_pmem.dumpfile import DumpFormat, State, open_dump
from drgn_pmem.dumpfile.records import Segment
from drgn_pmem.dumpfile.writing.compress import COMPRESSIONS
from drgn_pmem.dumpfile.writing.contents import Contents, NoteData, Runs
from drgn_pmem.dumpfile.writing.elffile import write_elf
from drgn_pmem.dumpfile.writing.kdumpfile import write_kdump
from drgn_pmem.errors import DumpFileError, UsageError
from drgn_pmem.ranges import Range, RangeSet
from tests.unit.dumpfile.writers import VMCOREINFO

PAGE = 4096
DIRECT = 0xFFFF888000000000
COVERED = [Range(0, 0x40000), Range(0x100000, 0x180000)]
KEPT = [Range(0x1000, 0x3000), Range(0x8000, 0x9000), Range(0x100000, 0x120000)]
ZERO = Range(0x108000, 0x10A000)


class Memory:
    """Random bytes, some pages of zeroes, some that cannot be decompressed."""

    def __init__(self, damaged: tuple[int, ...] = ()) -> None:
        self.damaged = damaged

    def read(self, address: int, size: int) -> bytes:
        if any(address <= page < address + size for page in self.damaged):
            raise DumpFileError("damaged page")
        return b"".join(
            self.page(at) for at in range(address // PAGE, -(-(address + size) // PAGE))
        )[address % PAGE :][:size]

    def page(self, pfn: int) -> bytes:
        if pfn * PAGE in ZERO:
            return bytes(PAGE)
        dice = random.Random(pfn)
        # Some that compression makes longer, some that it makes shorter.
        return dice.randbytes(PAGE) if pfn % 3 else dice.randbytes(64) * (PAGE // 64)

    def chunks(self):
        raise NotImplementedError


def segment(
    index: int, physical: int, size: int, virtual: int | None = None, flags: int = 7
) -> Segment:
    return Segment(
        index=index,
        type="PT_LOAD",
        physical=physical,
        virtual=DIRECT + physical if virtual is None else virtual,
        file_offset=0,
        file_size=size,
        memory_size=size,
        flags=flags,
    )


def contents(**changed) -> Contents:
    memory = changed.pop("memory", None) or Memory()
    values = {
        "bits": 64,
        "byteorder": "little",
        "e_machine": 62,
        "e_flags": 0,
        "page_size": PAGE,
        "utsname": {
            name: value.encode()
            for name, value in {
                "sysname": "Linux",
                "nodename": "machine",
                "release": "6.1.0",
                "version": "#1",
                "machine": "x86_64",
                "domainname": "",
            }.items()
        },
        "timestamp": 1700000000,
        "cpus": 2,
        "phys_base": 0x1000000,
        "dump_level": 31,
        "status": 0,
        "notes": [
            NoteData(b"CORE", 1, bytes(336)),
            NoteData(b"CORE", 1, bytes(335)),
            NoteData(b"VMCOREINFO", 0, VMCOREINFO),
        ],
        "segments": [segment(n, r.start, r.size) for n, r in enumerate(COVERED)],
        "covered": Runs.of(COVERED),
        "kept": Runs.of(KEPT),
        "blank": RangeSet(),
        "reader": lambda: memory,
    }
    return Contents(**values | changed)


def written(path: Path, what: Contents, how: str) -> list[Range]:
    number = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        if how == "elf":
            return write_elf(number, what, lambda done, total: None)
        return write_kdump(number, what, how, lambda done, total: None)
    finally:
        os.close(number)


HOW = [*COMPRESSIONS, "elf"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_what_is_kept_is_saved_and_the_rest_excluded(
    how: str, byteorder: str, tmp_path: Path
) -> None:
    path = tmp_path / "dump"
    assert written(path, contents(byteorder=byteorder), how) == []
    dump = open_dump(path)
    assert dump.contained is (DumpFormat.ELF if how == "elf" else DumpFormat.KDUMP)
    assert not dump.truncated
    assert dump.vmcoreinfo == VMCOREINFO.rstrip(b"\0")
    assert [(n.name, n.type, n.size) for n in dump.notes] == [
        (b"CORE", 1, 336),
        (b"CORE", 1, 335),
        (b"VMCOREINFO", 0, len(VMCOREINFO)),
    ]
    extent = [(r.start, r.end) for r in dump.coverage.covered()]
    assert extent == [(r.start, r.end) for r in COVERED]
    saved = Runs.in_state(dump.coverage, State.SAVED)
    assert [(r.start, r.end) for r in saved] == [(r.start, r.end) for r in KEPT]
    assert dump.coverage.count(0, 1 << 52)[State.EXCLUDED] == 0x40000 + 0x80000 - 0x23000
    memory = dump.memory
    assert memory is not None
    for item in KEPT:
        assert memory.read(item.start, item.size) == Memory().read(item.start, item.size)


@pytest.mark.parametrize("how", HOW)
def test_drgn_reads_what_is_kept_and_faults_elsewhere_in_kdump(how: str, tmp_path: Path) -> None:
    path = tmp_path / "dump"
    written(path, contents(), how)
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64), vmcoreinfo=VMCOREINFO)
    prog.set_core_dump(path)
    for item in KEPT:
        assert prog.read(item.start, item.size, True) == Memory().read(item.start, item.size)
    if how != "elf":
        for address in (0, 0x3000, 0x120000, 0x60000):
            with pytest.raises(drgn.FaultError):
                prog.read(address, 8, True)


def test_bitmaps_are_made_in_pieces(tmp_path: Path) -> None:
    """Of a GiB each: runs that begin, end and go on at the edge of one, and far away."""
    piece = 8 * PAGE << 15
    kept = [
        Range(piece - PAGE, piece + PAGE),
        Range(2 * piece, 2 * piece + PAGE),
        Range(3 * piece - PAGE, 3 * piece),
        Range(1 << 40, (1 << 40) + PAGE),
    ]
    what = contents(covered=Runs.of([Range(0, 4 * piece), *kept]), kept=Runs.of(kept))
    written(tmp_path / "dump", what, "zlib")
    dump = open_dump(tmp_path / "dump")
    saved = Runs.in_state(dump.coverage, State.SAVED)
    assert [(r.start, r.end) for r in saved] == [(r.start, r.end) for r in kept]
    covered = [(r.start, r.end) for r in dump.coverage.covered()]
    assert covered == [(0, 4 * piece), (kept[-1].start, kept[-1].end)]
    assert (tmp_path / "dump").stat().st_blocks * 512 < 1 << 20


def test_a_page_that_exists_in_part_is_none_in_a_bitmap(tmp_path: Path) -> None:
    what = contents(covered=Runs.of([Range(0x1000, 0x4C00), Range(0x8100, 0xA000)]))
    what = what.without([Range(0x3000, 1 << 40)])
    written(tmp_path / "dump", what, "zlib")
    extent = [(r.start, r.end) for r in open_dump(tmp_path / "dump").coverage.covered()]
    assert extent == [(0x1000, 0x4000), (0x9000, 0xA000)]


def test_pages_of_zeroes_share_one_copy(tmp_path: Path) -> None:
    kept = Runs.of([ZERO])
    written(tmp_path / "two", contents(kept=kept), "zlib")
    written(
        tmp_path / "one", contents(kept=Runs.of([Range(ZERO.start, ZERO.start + PAGE)])), "zlib"
    )
    assert (tmp_path / "two").stat().st_size - (tmp_path / "one").stat().st_size == 24


def test_headers_of_an_elf_dump_stay_what_they_were(tmp_path: Path) -> None:
    """Kernel image twice, device memory with PF_DEV."""

    segments = [
        segment(1, 0x8000, 0x2000, 0xFFFFFFFF81000000),
        segment(2, 0, 0x40000),
        segment(3, 0x100000, 0x80000, flags=0x17),
    ]
    path = tmp_path / "dump"
    written(path, contents(segments=segments), "elf")
    got = [
        (s.physical, s.virtual, s.memory_size, s.file_size, s.flags)
        for s in open_dump(path).segments
    ]
    assert got == [
        (0x8000, 0xFFFFFFFF81000000, 0x2000, 0x1000, 7),
        (0, DIRECT, 0x1000, 0, 7),
        (0x1000, DIRECT + 0x1000, 0x7000, 0x2000, 7),
        (0x8000, DIRECT + 0x8000, 0x38000, 0x1000, 7),
        (0x100000, DIRECT + 0x100000, 0x80000, 0x20000, 0x17),
    ]
    page = open_dump(path).segments[0]
    assert path.read_bytes()[page.file_offset :][:PAGE] == Memory().page(8)


def test_more_program_headers_than_e_phnum_counts(tmp_path: Path) -> None:
    pieces = [Range(2 * number * 16, 2 * number * 16 + 16) for number in range(70000)]
    path = tmp_path / "dump"
    written(
        path,
        contents(segments=[segment(1, 0, 1 << 22)], kept=Runs.of(pieces)),
        "elf",
    )
    dump = open_dump(path)
    assert len(dump.segments) == 70000
    assert not dump.truncated
    assert Runs.in_state(dump.coverage, State.SAVED).total == 70000 * 16


def test_memory_in_too_many_pieces_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("drgn_pmem.dumpfile.writing.elffile._MAX_HEADERS", 3)
    with pytest.raises(UsageError, match="--format kdump"):
        written(tmp_path / "dump", contents(), "elf")


@pytest.mark.parametrize("how", HOW)
def test_blank_bytes_read_as_x(how: str, tmp_path: Path) -> None:
    path = tmp_path / "dump"
    blank = Range(0x8080, 0x8100)
    what = contents(
        blank=RangeSet([blank]),
        notes=[*contents().notes, NoteData(b"ERASEINFO", 0, b"erase something\n")],
    )
    written(path, what, how)
    dump = open_dump(path)
    assert dump.erased == ("erase something",)
    page = Memory().page(8)
    assert dump.memory is not None
    assert dump.memory.read(0x8000, PAGE) == page[:0x80] + b"X" * 0x80 + page[0x100:]


@pytest.mark.parametrize("how", HOW)
def test_damaged_pages_are_named(how: str, tmp_path: Path) -> None:
    what = contents(memory=Memory(damaged=(0x2000, 0x110000)))
    found = written(tmp_path / "dump", what, how)
    assert found == [Range(0x2000, 0x3000), Range(0x110000, 0x111000)]


def test_a_compression_without_a_library_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("drgn_pmem.dumpfile.writing.compress.library", lambda how: None)
    with pytest.raises(UsageError, match="--compress zlib"):
        written(tmp_path / "dump", contents(), "zstd")


RANGES = st.lists(
    st.tuples(st.integers(0, 300), st.integers(1, 40)).map(lambda x: Range(x[0], x[0] + x[1])),
    max_size=12,
)


@given(RANGES, RANGES, st.sampled_from([1, 4, 16]))
def test_runs_are_sets_of_bytes(one: list[Range], other: list[Range], size: int) -> None:
    def bytes_of(ranges) -> set[int]:
        return {address for item in ranges for address in range(item.start, item.end)}

    runs, few = Runs.of(one), RangeSet(other)
    mine, theirs = bytes_of(one), bytes_of(other)
    assert bytes_of(runs) == mine
    assert bytes_of(runs.intersect(few)) == mine & theirs
    assert bytes_of(runs.subtract(few)) == mine - theirs
    blocks = {address // size for address in mine}
    assert bytes_of(runs.touched(size)) == {
        block * size + at for block in blocks for at in range(size)
    }
    assert bytes_of(runs.within(50, 200)) == {address for address in mine if 50 <= address < 200}
    for result in (runs.intersect(few), runs.subtract(few), runs.touched(size)):
        assert all(a.end < b.start for a, b in zip(list(result), list(result)[1:], strict=False))
        assert result.total == len(bytes_of(result))
