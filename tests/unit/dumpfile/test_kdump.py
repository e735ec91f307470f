# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdump-compressed and flattened dumps: libkdumpfile, through drgn, reads exactly the pages that
coverage calls saved."""

import random
import struct

import drgn
from hypothesis import HealthCheck, given, settings, strategies as st
import pytest

from drgn_pmem.analysis.coverage.writer import Writer, guess_loader
from drgn_pmem.dumpfile import DumpFormat, State, bitmap, kdump as kdump_module, open_dump
from drgn_pmem.dumpfile.kdump import layout_of
from drgn_pmem.errors import DumpFileError
from tests.unit.dumpfile.writers import (
    PAGE,
    VMCOREINFO,
    Elf,
    Kdump,
    Load,
    flatten,
    note,
    opened_or_said,
    page_bytes,
)

EXISTS = set(range(1, 100)) | set(range(200, 260)) | {400, 402, 404} | set(range(500, 600))
DUMPED = set(range(1, 40)) | {50} | set(range(60, 64)) | set(range(127, 130)) | {402, 599}
# 127 to 129 were dumped though the first bitmap does not have them: what counts is that they can be
# read.

LAYOUTS = [
    pytest.param(64, "<", False, "x86_64", id="64-bit little"),
    pytest.param(64, ">", False, "ppc64", id="64-bit big"),
    pytest.param(32, "<", True, "i686", id="i386"),
    pytest.param(32, "<", False, "armv7l", id="arm"),
    pytest.param(32, ">", False, "armv7b", id="32-bit big"),
]


def program(path, architecture=drgn.Architecture.X86_64) -> drgn.Program:
    prog = drgn.Program(drgn.Platform(architecture), vmcoreinfo=VMCOREINFO)
    prog.set_core_dump(path)
    return prog


def read(prog: drgn.Program, address: int, size: int = PAGE) -> bytes | None:
    try:
        return prog.read(address, size, physical=True)
    except drgn.FaultError:
        return None


def expected_state(kdump: Kdump, pfn: int) -> State:
    if pfn in kdump.dumped:
        return State.TRUNCATED if pfn in kdump.no_descriptor else State.SAVED
    if pfn in kdump.exists and pfn < kdump.max_mapnr:
        return State.EXCLUDED
    return State.ABSENT


@pytest.mark.parametrize(("bits", "order", "packed", "machine"), LAYOUTS)
@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_headers_of_every_version_and_machine(tmp_path, bits, order, packed, machine, version):
    kdump = Kdump(
        EXISTS,
        DUMPED,
        620,
        version=version,
        bits=bits,
        order=order,
        packed=packed,
        machine=machine,
        mapnr_32=600 if version == 6 else None,
    )
    dump = open_dump(kdump.write(tmp_path / "vmcore"))
    header = dump.kdump
    assert dump.format is dump.contained is DumpFormat.KDUMP
    assert (dump.bits, dump.byteorder) == (bits, "little" if order == "<" else "big")
    assert (header.version, header.block_size, header.max_mapnr) == (version, PAGE, 620)
    assert header.utsname["machine"] == dump.machine == machine
    assert header.utsname["release"] == "6.1.0-test"
    assert header.timestamp == 1700000000
    assert header.phys_base == 0x1000000
    assert header.dump_level == 31
    assert header.compression == ["zlib"]
    # The text is in the file from version 3 on, the note from version 4 on.
    assert dump.vmcoreinfo == (VMCOREINFO if version >= 3 else None)
    names = [item.name for item in dump.notes]
    assert names == ([b"CORE", b"VMCOREINFO"] if version >= 4 else [])
    assert not dump.truncated
    for pfn in range(700):
        assert dump.coverage.state(pfn * PAGE + 17) is expected_state(kdump, pfn)


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("stored", [False, True])
def test_drgn_reads_exactly_the_pages_that_are_saved(tmp_path, version, stored):
    kdump = Kdump(EXISTS, DUMPED, 620, version=version, stored=stored)
    path = kdump.write(tmp_path / "vmcore")
    dump = open_dump(path)
    prog = program(path)
    for pfn in range(700):
        data = read(prog, pfn * PAGE)
        saved = dump.coverage.saved(pfn * PAGE, PAGE)
        assert (data is not None) == saved
        if saved:
            assert data == page_bytes(pfn) == dump.memory.read(pfn * PAGE, PAGE)
        else:
            with pytest.raises(DumpFileError, match="not in the dump"):
                dump.memory.read(pfn * PAGE, 1)
    assert dump.memory.read(5 * PAGE - 8, 16) == page_bytes(4)[-8:] + page_bytes(5)[:8]
    assert {address for address, _ in dump.memory.chunks()} == {
        item.start for item in dump.coverage.extent() if item.state is State.SAVED
    }


def test_the_compression_of_a_damaged_page_is_named(tmp_path):
    kdump = Kdump(EXISTS, DUMPED, 620)
    kdump.stored = True
    data = bytearray(kdump.bytes())
    table = 4 * PAGE
    for position, flag in enumerate((0x2, 0x4, 0x20)):
        struct.pack_into("<I", data, table + 24 * position + 12, flag)
    (tmp_path / "c").write_bytes(data)
    dump = open_dump(tmp_path / "c")
    for pfn, name in ((1, "lzo"), (2, "snappy"), (3, "zstd")):
        with pytest.raises(DumpFileError, match=f"damaged page at offset .*: damaged {name}"):
            dump.memory.read(pfn * PAGE, PAGE)


def test_status_flags(tmp_path):
    kdump = Kdump(EXISTS, DUMPED, 620, status=0x2 | 0x8 | 0x10)
    dump = open_dump(kdump.write(tmp_path / "vmcore"))
    assert dump.kdump.compression == ["lzo"]
    assert dump.kdump.incomplete
    assert dump.kdump.excluded_vmemmap
    assert dump.truncated


def test_a_page_that_makedumpfile_could_not_write_is_truncated(tmp_path):
    lost = {7, 8, 9, 402, 599}
    kdump = Kdump(EXISTS, DUMPED, 620, status=0x9, no_descriptor=lost)
    path = kdump.write(tmp_path / "vmcore-incomplete")
    dump = open_dump(path)
    prog = program(path)
    for pfn in range(700):
        assert dump.coverage.state(pfn * PAGE) is expected_state(kdump, pfn)
        assert (read(prog, pfn * PAGE) is not None) == dump.coverage.saved(pfn * PAGE, PAGE)


def test_every_cut_of_the_pages_agrees_with_drgn(tmp_path):
    kdump = Kdump(EXISTS, DUMPED, 620)
    whole = kdump.bytes()
    table = 4 * PAGE
    generator = random.Random(1)
    cuts = [table, table + 24 * 3, table + 24 * len(DUMPED), len(whole) - 1]
    cuts += [generator.randrange(table, len(whole)) for _ in range(12)]
    for cut in cuts:
        path = tmp_path / "cut"
        path.write_bytes(whole[:cut])
        dump = open_dump(path)
        prog = program(path)
        lost = 0
        for pfn in range(620):
            state = dump.coverage.state(pfn * PAGE)
            assert (read(prog, pfn * PAGE) is not None) == (state is State.SAVED), (cut, pfn)
            if pfn in DUMPED:
                assert state in (State.SAVED, State.TRUNCATED)
                lost += state is State.TRUNCATED
            else:
                assert state is expected_state(kdump, pfn)
        assert lost == dump.coverage.count().get(State.TRUNCATED, 0) // PAGE
        assert lost > 0
        assert dump.truncated, cut


@pytest.mark.parametrize("cut", [2 * PAGE, 2 * PAGE + 20, 3 * PAGE, 3 * PAGE + 20])
def test_a_cut_in_the_bitmaps_promises_nothing(tmp_path, cut):
    kdump = Kdump(EXISTS, DUMPED, 620)
    path = tmp_path / "cut"
    path.write_bytes(kdump.bytes()[:cut])
    dump = open_dump(path)
    assert dump.truncated
    for pfn in range(620):
        # Nothing is saved: descriptors are behind the bitmaps. What existed is known up to the cut.
        state = dump.coverage.state(pfn * PAGE)
        assert state is not State.SAVED
        if pfn in DUMPED & EXISTS:
            assert state is State.TRUNCATED
        if pfn // 8 < cut - 2 * PAGE and pfn not in EXISTS | DUMPED:
            assert state is State.ABSENT


def test_a_single_bitmap_means_that_all_memory_was_dumped(tmp_path):
    # libkdumpfile: two bitmaps only if both halves can hold max_mapnr.
    kdump = Kdump(set(), DUMPED, 8 * PAGE - 8, single_bitmap=True)
    path = kdump.write(tmp_path / "vmcore")
    dump = open_dump(path)
    prog = program(path)
    for pfn in range(700):
        assert (read(prog, pfn * PAGE) is not None) == dump.coverage.saved(pfn * PAGE, PAGE)
        assert dump.coverage.saved(pfn * PAGE, PAGE) == (pfn in DUMPED)


def test_pages_behind_max_mapnr_are_absent(tmp_path):
    kdump = Kdump(EXISTS, DUMPED, 580)
    path = kdump.write(tmp_path / "vmcore")
    dump = open_dump(path)
    prog = program(path)
    assert 599 in DUMPED
    assert dump.coverage.state(599 * PAGE) is State.ABSENT
    assert read(prog, 599 * PAGE) is None
    assert dump.coverage.state(579 * PAGE) is State.EXCLUDED


def test_one_file_of_a_split_dump_is_refused_with_what_to_do(tmp_path):
    path = Kdump(EXISTS, DUMPED, 620, split=1).write(tmp_path / "vmcore1")
    with pytest.raises(DumpFileError, match=r"split dump.*makedumpfile --reassemble"):
        open_dump(path)


def test_diskdump_signature(tmp_path):
    path = Kdump(EXISTS, DUMPED, 620, signature=b"DISKDUMP").write(tmp_path / "vmcore")
    assert open_dump(path).kdump.signature == "DISKDUMP"


def test_text_of_the_header_is_escaped(tmp_path):
    path = Kdump(EXISTS, DUMPED, 620, machine="\x1b[31mred").write(tmp_path / "vmcore")
    assert open_dump(path).machine == "\\x1b[31mred"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sets(st.integers(0, 40_000), max_size=300),
    st.sets(st.integers(0, 40_000), max_size=300),
    st.sampled_from([40_001, 40_064, 65_536]),
)
def test_any_bitmaps(tmp_path_factory, exists, dumped, mapnr):
    kdump = Kdump(exists, dumped, mapnr, stored=True)
    dump = open_dump(kdump.write(tmp_path_factory.mktemp("k") / "vmcore"))
    for pfn in exists | dumped | {p + 1 for p in exists | dumped} | {0, mapnr - 1, mapnr}:
        assert dump.coverage.state(pfn * PAGE) is expected_state(kdump, pfn)
    held = dump.coverage.count()
    assert held.get(State.SAVED, 0) == len(dumped) * PAGE
    assert held.get(State.EXCLUDED, 0) == len(exists - dumped) * PAGE


@pytest.mark.parametrize("size", [8, 64, 1 << 18])
def test_pieces_of_the_bitmaps_that_are_all_ones_or_zeroes(tmp_path, size, monkeypatch):
    """Looked at by their bytes, not bit by bit: the same states."""
    monkeypatch.setattr(bitmap, "CHUNK", size)
    exists = {*range(64, 640), *range(1000, 1024), *range(2048, 4096), 4200}
    dumped = {*range(128, 256), 300, *range(1000, 1024), *range(3072, 3600), 4200, 4300}
    kdump = Kdump(exists, dumped, 8192, stored=True)
    dump = open_dump(kdump.write(tmp_path / "vmcore"))
    for pfn in range(8300):
        assert dump.coverage.state(pfn * PAGE) is expected_state(kdump, pfn), pfn


@pytest.mark.parametrize("tail", [None, 3 * PAGE])
def test_a_flattened_dump_reads_as_the_file_in_it(tmp_path, tail):
    kdump = Kdump(EXISTS, DUMPED, 620)
    plain = open_dump(kdump.write(tmp_path / "plain"))
    path = tmp_path / "flat"
    path.write_bytes(flatten(kdump.bytes(), tail=tail))
    dump = open_dump(path)
    assert (dump.format, dump.contained) == (DumpFormat.FLATTENED, DumpFormat.KDUMP)
    assert dump.vmcoreinfo == VMCOREINFO
    assert not dump.truncated
    assert dump.coverage.to_json() == plain.coverage.to_json()
    assert dump.read(100, 20_000) == plain.read(100, 20_000)
    assert dump.memory.read(PAGE, PAGE) == page_bytes(1)
    prog = program(path)
    for pfn in range(620):
        assert (read(prog, pfn * PAGE) is not None) == dump.coverage.saved(pfn * PAGE, PAGE)


def test_of_two_records_for_one_offset_the_later_counts(tmp_path):
    data = Kdump(EXISTS, DUMPED, 620).bytes()
    stale = data[:PAGE].replace(b"6.1.0-test", b"0.0.0-junk")
    flat = flatten(data, end=False)
    head, rest = flat[:4096], flat[4096:]
    path = tmp_path / "flat"
    path.write_bytes(head + struct.pack(">qq", 0, PAGE) + stale + rest + struct.pack(">qq", -1, -1))
    assert open_dump(path).kdump.utsname["release"] == "6.1.0-test"


@pytest.mark.parametrize("tail", [None, 3 * PAGE])
def test_every_cut_of_a_flattened_dump_keeps_what_is_there(tmp_path, tail):
    kdump = Kdump(EXISTS, DUMPED, 620)
    flat = flatten(kdump.bytes(), tail=tail)
    whole = open_dump(kdump.write(tmp_path / "plain"))
    generator = random.Random(2)
    opened = 0
    for cut in [len(flat) - 16, *(generator.randrange(4096, len(flat)) for _ in range(25))]:
        path = tmp_path / "cut"
        path.write_bytes(flat[:cut])
        dump = opened_or_said(path, "cut short", "not a dump")
        if dump is None:
            continue
        opened += 1
        assert dump.truncated
        for pfn in range(620):
            address = pfn * PAGE
            if dump.coverage.saved(address, PAGE):
                assert dump.memory.read(address, PAGE) == page_bytes(pfn)
            elif whole.coverage.saved(address, PAGE):
                # If the second bitmap is lost too, only the first one knows of the page.
                state = dump.coverage.state(address)
                assert state is State.TRUNCATED or (state is State.ABSENT and pfn not in EXISTS)
    assert opened >= 5


def test_a_flattened_elf_dump(tmp_path):
    elf = Elf(
        [Load(0x1000, 0x3000, page_bytes(1) + page_bytes(2)), Load(0x9000, PAGE, page_bytes(9))],
        note(b"VMCOREINFO", 0, VMCOREINFO),
    )
    path = tmp_path / "flat"
    path.write_bytes(flatten(elf.bytes(), record=777))
    dump = open_dump(path)
    assert (dump.format, dump.contained) == (DumpFormat.FLATTENED, DumpFormat.ELF)
    assert dump.coverage.count(0, 0xA000) == {
        State.SAVED: 0x3000,
        State.EXCLUDED: 0x1000,
        State.ABSENT: 0x6000,
    }
    assert dump.memory.read(0x9000, PAGE) == page_bytes(9)
    path.write_bytes(path.read_bytes()[:-3000])
    dump = open_dump(path)
    assert dump.truncated
    assert dump.coverage.state(0x9FFF) is State.TRUNCATED
    assert dump.coverage.state(0x1000) is State.SAVED


@pytest.mark.parametrize("bits", [32, 64])
def test_places_in_the_first_header_are_those_of_its_layout(bits):
    header = layout_of(bits, "little").disk_dump_header
    assert len(header) == kdump_module._HEADER_SIZE[bits]
    assert header.fields["block_size"].offset == kdump_module._BLOCK_SIZE[bits]


def test_a_header_that_names_no_system_is_qemus(tmp_path):
    """QEMU fills in the machine alone; makedumpfile copies the crashed kernel's utsname."""
    for name, by_qemu in (("", True), ("Linux", False)):
        path = Kdump({1, 2}, {1}, 100, sysname=name).write(tmp_path / "vmcore")
        dump = open_dump(path)
        assert dump.hypervisor is by_qemu
        loader = guess_loader(dump)
        assert (loader.by_order is Writer.HYPERVISOR) is by_qemu
