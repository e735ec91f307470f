# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""ELF dumps: what is read is what was written, and drgn reads exactly where coverage says saved."""

import os
import struct
import time

import drgn
import pytest

from drgn_pmem.dumpfile import DumpFormat, Segment, State, coverage_of, dump_of, open_dump
from drgn_pmem.dumpfile.program import open_program
from drgn_pmem.errors import DumpFileError
from drgn_pmem.session import open_core
from tests.unit.dumpfile.writers import PAGE, VMCOREINFO, Elf, Load, note, page_bytes

KINDS = [
    pytest.param(64, "<", "x86_64", id="64-bit little"),
    pytest.param(64, ">", "ppc64", id="64-bit big"),
    pytest.param(32, "<", "386", id="32-bit little"),
    pytest.param(32, ">", "s390", id="32-bit big"),
]

VMCOREINFO_NOTE = note(b"VMCOREINFO", 0, VMCOREINFO)


def pages(*pfns: int) -> bytes:
    return b"".join(page_bytes(pfn) for pfn in pfns)


def segment(index, kind, physical, virtual, offset, file_size, memory_size, flags) -> Segment:
    return Segment(
        index=index,
        type=kind,
        physical=physical,
        virtual=virtual,
        file_offset=offset,
        file_size=file_size,
        memory_size=memory_size,
        flags=flags,
    )


def readable(prog: drgn.Program, address: int, size: int = 1) -> bool:
    try:
        prog.read(address, size, physical=True)
    except drgn.FaultError:
        return False
    return True


def program(path) -> drgn.Program:
    prog = drgn.Program()
    prog.set_core_dump(path)
    return prog


@pytest.mark.parametrize(("bits", "order", "machine"), KINDS)
def test_segments_and_notes_are_what_was_written(tmp_path, bits, order, machine):
    elf = Elf(
        [
            Load(0x1000, 0x2000, pages(1, 2), virtual=0x80001000, flags=0x17),
            Load(0x8000, 0x3000, pages(8), virtual=0x80008000, flags=0xDEAD0010),
            Load((1 << bits) - 1, 0x1000, pages(0), virtual=0x90000000, flags=5),
            Load(0x20000, 0, b"", virtual=0x80020000, flags=0),
        ],
        note(b"CORE", 1, b"prstatus", order) + note(b"VMCOREINFO", 0, VMCOREINFO, order),
        bits,
        order,
        machine,
    )
    dump = open_dump(elf.write(tmp_path / "core"))
    start = {64: 64 + 5 * 56, 32: 52 + 5 * 32}[bits] + len(elf.notes)
    assert list(dump.segments) == [
        segment(1, "PT_LOAD", 0x1000, 0x80001000, start, 0x2000, 0x2000, 0x17),
        segment(2, "PT_LOAD", 0x8000, 0x80008000, start + 0x2000, 0x1000, 0x3000, 0xDEAD0010),
        segment(3, "PT_LOAD", None, 0x90000000, start + 0x3000, 0x1000, 0x1000, 5),
        segment(4, "PT_LOAD", 0x20000, 0x80020000, start + 0x4000, 0, 0, 0),
    ]
    assert [segment.pmem for segment in dump.segments] == [True, True, False, False]
    assert dump.format is dump.contained is DumpFormat.ELF
    assert (dump.bits, dump.byteorder) == (bits, "little" if order == "<" else "big")
    assert dump.vmcoreinfo == VMCOREINFO
    assert [(item.name, item.type) for item in dump.notes] == [(b"CORE", 1), (b"VMCOREINFO", 0)]
    assert dump.note_data(dump.notes[0]) == b"prstatus"
    assert not dump.truncated
    assert dump.coverage.count(0, 0x30000) == {
        State.SAVED: 0x3000,
        State.EXCLUDED: 0x2000,
        State.ABSENT: 0x30000 - 0x5000,
    }


def test_segment_to_json(tmp_path):
    elf = Elf([Load(0x100000, 0x2000, pages(1), virtual=0xFFFF888000100000, flags=0x16)])
    dump = open_dump(elf.write(tmp_path / "core"))
    assert dump.segments[0].to_json() == {
        "index": 0,
        "type": "PT_LOAD",
        "physical": "0x100000",
        "virtual": "0xffff888000100000",
        "file_offset": 120,
        "file_size": 4096,
        "memory_size": 8192,
        "flags": 0x16,
        "pmem": True,
    }
    assert (
        open_dump(
            Elf([Load((1 << 64) - 1, PAGE, pages(1))], VMCOREINFO_NOTE).write(tmp_path / "none")
        )
        .segments[0]
        .to_json()["physical"]
        is None
    )


@pytest.mark.parametrize(("bits", "order", "machine"), KINDS)
def test_drgn_reads_where_coverage_says_saved_and_nothing_but_zeroes_elsewhere(
    tmp_path, bits, order, machine
):
    elf = Elf(
        [
            Load(0x1000, 0x4000, pages(1, 2)),
            Load(0x3000, 0x1000, pages(0x33)),
            Load(0x8000, 0x4000, pages(8, 9, 10, 11)),
            Load(0x9000, 0x2000, pages(0x99)),
            Load(0x8800, 0x400, pages(0x88)[:0x400]),
            Load(0x10000, 0x1000, b""),
            Load((1 << bits) - 0x1000, 0x1000, pages(0xFF)),
            Load((1 << bits) - 0x3000, 0x9000, pages(1, 2, 3, 4) * 2)
            if bits == 64
            else Load(0x14000, 0x1000, pages(0x14)),
        ],
        note(b"VMCOREINFO", 0, VMCOREINFO, order),
        bits,
        order,
        machine,
    )
    path = elf.write(tmp_path / "core")
    prog = program(path)
    coverage = open_dump(path).coverage
    window = [*range(0, 0x18000, 0x200), *range((1 << bits) - 0x4000, 1 << bits, 0x200)]
    seen = set()
    for address in window:
        state = coverage.state(address)
        seen.add(state)
        # drgn zero-fills what was excluded and faults where nothing is
        assert readable(prog, address, 0x200) == (state in (State.SAVED, State.EXCLUDED))
        if state is State.SAVED:
            assert prog.read(address, 0x200, physical=True) != bytes(0x200)
        elif state is State.EXCLUDED:
            assert prog.read(address, 0x200, physical=True) == bytes(0x200)
    assert seen == {State.SAVED, State.EXCLUDED, State.ABSENT}


def test_memory_is_read_as_drgn_reads_it(tmp_path):
    elf = Elf(
        [
            Load(0x1000, 0x4000, pages(1, 2, 3, 4)),
            Load(0x2000, 0x1000, pages(0x22)),
            Load(0x5000, 0x1000, pages(5)),
        ],
        VMCOREINFO_NOTE,
    )
    path = elf.write(tmp_path / "core")
    dump = open_dump(path)
    prog = program(path)
    for address, size in ((0x1000, 0x5000), (0x1FF0, 0x20), (0x2FFF, 2), (0x4FFF, 0x1001)):
        assert dump.memory.read(address, size) == prog.read(address, size, physical=True)
    with pytest.raises(DumpFileError, match="not in the dump"):
        dump.memory.read(0x5FFF, 2)
    chunks = b"".join(data for _, data in dump.memory.chunks())
    assert chunks == prog.read(0x1000, 0x5000, physical=True)


@pytest.mark.parametrize("cut", [1, 0x800, 0x1000, 0x1800, 0x3000])
def test_bytes_beyond_the_end_of_the_file_are_truncated(tmp_path, cut):
    elf = Elf([Load(0x1000, 0x1000, pages(1)), Load(0x4000, 0x3000, pages(4, 5))], VMCOREINFO_NOTE)
    path = tmp_path / "core"
    path.write_bytes(elf.bytes()[:-cut])
    dump = open_dump(path)
    assert dump.truncated
    lost = min(cut, 0x3000)
    count = dump.coverage.count()
    assert count[State.TRUNCATED] == lost
    assert count[State.EXCLUDED] == 0x1000
    assert count.get(State.SAVED, 0) == 0x3000 - lost
    prog = program(path)
    for address in range(0, 0x8000, 0x100):
        state = dump.coverage.state(address)
        whole = dump.coverage.saved(address, 0x100)
        if state is State.EXCLUDED:
            assert readable(prog, address, 0x100)
        else:
            assert readable(prog, address, 0x100) == whole


def test_70001_program_headers(tmp_path):
    count = 70_001
    data = page_bytes(7)
    loads = [
        Load(0x1000 + 0x3000 * index, 0x2000, virtual=index, offset=0, file_size=0x1000)
        for index in range(count)
    ]
    loads[0] = Load(0x1000, 0x2000, data)
    loads[-1].flags = 0x10
    path = Elf(loads, VMCOREINFO_NOTE).write(tmp_path / "core")
    begin = time.process_time()
    dump = open_dump(path)
    listed = [segment.to_json() for segment in dump.segments]
    states = dump.coverage.count()
    spent = time.process_time() - begin
    assert len(listed) == count
    assert [item["virtual"] for item in listed] == [hex(index) for index in range(count)]
    assert listed[-1]["index"] == count
    assert [item["index"] for item in listed if item["pmem"]] == [count]
    assert states[State.SAVED] == states[State.EXCLUDED] == 0x1000 * count
    assert spent < 2


def test_70001_nested_segments_end(tmp_path):
    count = 70_001
    loads = [Load(0x1000 * n, 0x1000 * (2 * (count - n)), offset=0) for n in range(1, count)]
    path = Elf(loads, VMCOREINFO_NOTE).write(tmp_path / "core")
    begin = time.process_time()
    dump = open_dump(path)
    assert dump.coverage.count() == {
        State.EXCLUDED: 0x1000 * (2 * count - 2),
        State.ABSENT: (1 << 64) - 0x1000 * (2 * count - 2),
    }
    assert time.process_time() - begin < 10


def test_note_segments_aligned_to_8_bytes(tmp_path):
    notes = note(b"CORE", 1, b"x" * 5, align=8) + note(b"VMCOREINFO", 0, VMCOREINFO, align=8)
    elf = Elf([Load(0, PAGE, pages(0))], notes, note_align=8)
    dump = open_dump(elf.write(tmp_path / "core"))
    assert dump.vmcoreinfo == VMCOREINFO
    assert program(tmp_path / "core")["VMCOREINFO"].string_() == VMCOREINFO


def test_the_last_vmcoreinfo_note_counts_as_in_drgn(tmp_path):
    second = VMCOREINFO.replace(b"6.1.0-test", b"6.2.0-test")
    elf = Elf([Load(0, PAGE, pages(0))], VMCOREINFO_NOTE + note(b"VMCOREINFO", 0, second))
    path = elf.write(tmp_path / "core")
    assert open_dump(path).vmcoreinfo == program(path)["VMCOREINFO"].string_() == second


def test_notes_cut_short_are_kept_as_far_as_they_go(tmp_path):
    whole = note(b"CORE", 1, b"a" * 8) + note(b"VMCOREINFO", 0, VMCOREINFO)
    for cut in range(0, len(whole), 7):
        dump = open_dump(Elf([Load(0, PAGE, pages(0))], whole[:cut]).write(tmp_path / "core"))
        assert [item.name for item in dump.notes] == [b"CORE", b"VMCOREINFO"][: len(dump.notes)]


def test_a_note_name_with_terminal_escapes_is_escaped(tmp_path):
    elf = Elf([Load(0, PAGE, pages(0))], note(b"\x1b]0;title\x07\x9b", 9, b""))
    dump = open_dump(elf.write(tmp_path / "core"))
    assert dump.notes[0].to_json()["name"] == "\\x1b]0;title\\x07\\x9b"


def test_an_incomplete_dump_of_makedumpfile_says_so(tmp_path):
    elf = Elf([Load(0, PAGE, pages(0))], VMCOREINFO_NOTE, e_flags=1)
    assert open_dump(elf.write(tmp_path / "core")).truncated
    # On ppc64 the bit is the ABI version.
    elf = Elf([Load(0, PAGE, pages(0))], VMCOREINFO_NOTE, e_flags=1, machine="ppc64")
    assert not open_dump(elf.write(tmp_path / "core")).truncated


def test_a_core_of_a_process_has_no_physical_memory(tmp_path):
    loads = [Load(0, PAGE, pages(n), virtual=0x400000 + n * PAGE) for n in range(2)]
    dump = open_dump(Elf(loads, note(b"CORE", 6, bytes(16))).write(tmp_path / "core"))
    assert not dump.physical_addresses
    assert dump.coverage.extent() == []
    guest = open_dump(Elf(loads[:1], note(b"QEMU", 0, bytes(16))).write(tmp_path / "guest"))
    assert guest.coverage.count()[State.SAVED] == PAGE


def test_a_program_knows_its_dump_once(tmp_path):
    path = Elf([Load(0x1000, PAGE, pages(1))], VMCOREINFO_NOTE).write(tmp_path / "core")
    prog = program(path)
    assert dump_of(prog) is dump_of(prog)
    assert dump_of(prog).path == str(path)
    assert coverage_of(prog).saved(0x1000, PAGE)


def test_memory_of_program_headers_that_were_never_written_is_truncated(tmp_path):
    """makedumpfile -E on a full disk: PT_NULL where it did not come to."""
    data = bytearray(
        Elf(
            [Load(0x1000, PAGE, page_bytes(1)), Load(0x5000, PAGE, page_bytes(5))], VMCOREINFO_NOTE
        ).bytes()
    )
    data[64 + 2 * 56 : 64 + 3 * 56] = bytes(56)
    path = tmp_path / "vmcore"
    path.write_bytes(data)
    dump = open_dump(path)
    assert dump.truncated
    assert [dump.coverage.state(at) for at in (0, 0x1000, 0x5000, 1 << 51, 1 << 52)] == [
        State.TRUNCATED,
        State.SAVED,
        State.TRUNCATED,
        State.TRUNCATED,
        State.ABSENT,
    ]
    prog, lines = open_program(path)
    assert "truncated" in lines[-1]
    assert prog.read(0x1000, PAGE, True) == page_bytes(1)
    with pytest.raises(drgn.FaultError, match="truncated"):
        prog.read(0x5000, 8, True)


def test_notes_longer_than_any_kernel_writes_never_reach_drgn(tmp_path):
    info = Elf([Load(0x1000, PAGE, page_bytes(1))], VMCOREINFO_NOTE).bytes()
    place = struct.unpack_from("<Q", info, 64 + 8)[0]
    path = tmp_path / "vmcore"
    for size, says in ((1 << 30, "notes of 1073741824 bytes"), (2 << 20, "VMCOREINFO note of")):
        data = bytearray(info)
        struct.pack_into("<Q", data, 64 + 32, size)
        struct.pack_into("<I", data, place + 4, size - 64)
        path.write_bytes(data)
        os.truncate(path, size + len(data))
        with pytest.raises(DumpFileError, match=says):
            open_dump(path)
        with pytest.raises(DumpFileError, match=says):
            open_program(path)
        if size == 1 << 30:
            with pytest.raises(DumpFileError, match=says):
                open_core(str(path))


def test_an_offset_that_no_file_has_is_a_fault(tmp_path):
    path = tmp_path / "vmcore"
    load = Load(0x1000, PAGE, b"", file_size=PAGE, offset=1 << 63)
    Elf([load, Load(0x5000, PAGE, page_bytes(5))], VMCOREINFO_NOTE).write(path)
    prog, _ = open_program(path)
    with pytest.raises(drgn.FaultError, match="truncated"):
        prog.read(0x1000, 8, True)


@pytest.mark.parametrize("offset", [1 << 45, 1 << 62, 1 << 63, (1 << 64) - 4096])
@pytest.mark.parametrize("field", [32, 40, 64 + 8, 64 + 56 + 8])
def test_an_offset_beyond_the_file_is_one_of_our_errors_or_truncated(tmp_path, field, offset):
    """e_phoff, e_shoff, p_offset of the notes and of a segment; no file system seeks that far."""
    data = bytearray(Elf([Load(0x1000, PAGE, page_bytes(1))], VMCOREINFO_NOTE).bytes())
    struct.pack_into("<Q", data, field, offset)
    path = tmp_path / "vmcore"
    path.write_bytes(data)
    if field in (32, 64 + 8):  # without its headers, or without VMCOREINFO, nothing can be read
        with pytest.raises(DumpFileError, match="vmcore"):
            open_core(str(path))
        return
    prog, lines = open_core(str(path))
    assert field == 40 or any("truncated" in line for line in lines)
    assert readable(prog, 0x1000) == (field == 40)


def test_more_program_headers_than_a_dump_can_have_are_refused(tmp_path):
    """Each costs 700 bytes of memory by the time a command answers, most of it in drgn."""
    header = struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 128, 64, 0, 64, 56, 0xFFFF, 64, 1, 0)
    section = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, (1 << 18) + 1, 0, 0)
    path = tmp_path / "vmcore"
    path.write_bytes(b"\x7fELF\2\1\1" + bytes(9) + header + section + bytes(4096))
    with pytest.raises(DumpFileError, match=r"262145 program headers \(at most 262144"):
        open_dump(path)
