# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Crash headers; the independent readers are pyelftools and, where it is installed, readelf."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import random
import shutil
import struct
import subprocess

from elftools.elf.elffile import ELFFile
from hypothesis import given, settings, strategies as st
import pytest

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.elfcompare import DifferenceKind, compare_elfcorehdr
from drgn_pmem.formats.elfcorehdr import (
    PF_DEV,
    CrashHeader,
    HeaderSource,
    ProgramHeader,
    build_elfcorehdr,
    imply_elfcorehdr,
    parse_elfcorehdr,
    to_elf_file,
)
from drgn_pmem.formats.elfprepare import (
    CrashRange,
    crash_exclude_mem_range,
    crash_prepare_elf64_headers,
    elfcorehdr_size,
    fadump_create_elfcore_headers,
)
from tests.unit.calls import calls_of

MIB = 1 << 20
DIRECT = 0xFFFF888000000000


def u(bits):
    return st.integers(0, (1 << bits) - 1)


phdrs = st.builds(
    ProgramHeader,
    type=st.sampled_from([1, 4]) | u(32),
    flags=u(32),
    offset=u(64),
    virtual=u(64),
    physical=u(64),
    file_size=u(64),
    memory_size=u(64),
    align=u(64),
)
headers = st.builds(
    CrashHeader,
    source=st.sampled_from(HeaderSource),
    phdrs=st.lists(phdrs, max_size=12).map(tuple),
    machine=u(16),
    byteorder=st.sampled_from(["little", "big"]),
    e_flags=u(32),
)


def x86(*, ranges=None, cpus=2, text=0x1000000, **change):
    """
    What ``kexec_file_load()`` writes for a machine of two CPUs and 1 GiB, 256 MiB of it reserved.
    """
    ranges = ranges or [
        CrashRange(start=1 * MIB, end=512 * MIB),
        CrashRange(start=768 * MIB, end=1024 * MIB),
    ]
    arguments = {
        "machine": 62,
        "cpu_notes": [(0x3FE2A000 + cpu * 0x100000, 0x164) for cpu in range(cpus)],
        "vmcoreinfo": (0x3FFF0000, 0x1024),
        "kernel_text": text and (text, 0xFFFFFFFF81000000, 32 * MIB),
        "ranges": ranges,
        "virtual": lambda address: DIRECT + address,
        "size": elfcorehdr_size(4, len(ranges)),
    }
    return crash_prepare_elf64_headers(**{**arguments, **change})


def vmcore(header, merged_notes=True):
    """The program headers of the dump that /proc/vmcore makes of a header."""
    offset = 0x10000
    note = ProgramHeader(
        type=4, flags=0, offset=0x1000, physical=0, file_size=0x400, memory_size=0x400, align=4
    )
    loads = []
    for phdr in header.loads:
        loads.append(dataclasses.replace(phdr, offset=offset))
        offset += phdr.memory_size
    return dataclasses.replace(header, source=HeaderSource.IMPLIED, phdrs=(note, *loads), raw=None)


def test_the_header_is_byte_for_byte_what_the_kernel_lays_out():
    ehdr = b"\x7fELF\2\1\1" + bytes(9)
    ehdr += struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 6, 0, 0, 0)
    note, load = "<IIQQQQQQ", "<IIQQQQQQ"
    text = 0xFFFFFFFF81000000
    expected = ehdr + b"".join(
        [
            struct.pack(note, 4, 0, 0x3FE2A000, 0, 0x3FE2A000, 0x164, 0x164, 0),
            struct.pack(note, 4, 0, 0x3FF2A000, 0, 0x3FF2A000, 0x164, 0x164, 0),
            struct.pack(note, 4, 0, 0x3FFF0000, 0, 0x3FFF0000, 0x1024, 0x1024, 0),
            struct.pack(load, 1, 7, 0x1000000, text, 0x1000000, 32 * MIB, 32 * MIB, 0),
            struct.pack(load, 1, 7, MIB, DIRECT + MIB, MIB, 511 * MIB, 511 * MIB, 0),
            struct.pack(
                load, 1, 7, 768 * MIB, DIRECT + 768 * MIB, 768 * MIB, 256 * MIB, 256 * MIB, 0
            ),
        ]
    )
    header = x86()
    assert header.raw == expected.ljust(4096, b"\0")
    assert [phdr.what for phdr in header.phdrs] == [
        "CPU notes 0",
        "CPU notes 1",
        "vmcoreinfo",
        "kernel text",
        "memory",
        "memory",
    ]
    assert parse_elfcorehdr(header.raw, HeaderSource.REBUILT) == header
    assert [phdr.what for phdr in parse_elfcorehdr(header.raw).phdrs] == [
        phdr.what for phdr in header.phdrs
    ]


def test_the_buffer_has_room_for_all_possible_cpus():
    # 64 + (1 + 1 + 69 + 1) * 56 = 4096
    assert elfcorehdr_size(1, 69) == 4096
    assert elfcorehdr_size(1, 70) == 8192


def test_json_has_the_promised_shape():
    record = x86().to_json()
    assert record["source"] == "rebuilt"
    assert record["bytes_sha256"] == hashlib.sha256(x86().raw[: 64 + 6 * 56]).hexdigest()
    assert record["phdrs"][4] == {
        "type": "PT_LOAD",
        "physical": "0x100000",
        "virtual": "0xffff888000100000",
        "offset": MIB,
        "size": 511 * MIB,
        "flags": 7,
        "what": "memory",
    }
    assert "bytes_sha256" not in imply_elfcorehdr(vmcore(x86())).to_json()


@given(headers)
def test_round_trip(header):
    data = build_elfcorehdr(header)
    assert len(data) % 4096 == 0
    again = parse_elfcorehdr(data, header.source)
    assert again == header
    assert again.raw == data
    json.dumps(again.to_json())


@given(headers)
def test_pyelftools_reads_what_is_built(header):
    elf = ELFFile(io.BytesIO(build_elfcorehdr(header)))
    assert (elf.little_endian, elf["e_flags"]) == (header.byteorder == "little", header.e_flags)
    fields = ("p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz", "p_flags", "p_align")
    read = [[segment[field] for field in fields] for segment in elf.iter_segments()]
    assert read == [
        [p.offset, p.virtual, p.physical, p.file_size, p.memory_size, p.flags, p.align]
        for p in header.phdrs
    ]


def many(count: int) -> CrashHeader:
    load = ProgramHeader(
        type=1, flags=7, virtual=DIRECT, physical=0, file_size=4096, memory_size=4096
    )
    loads = [dataclasses.replace(load, physical=i << 13, offset=i << 13) for i in range(count)]
    return CrashHeader(source=HeaderSource.FOUND, phdrs=tuple(loads), machine=62)


def test_seventy_thousand_program_headers():
    data = build_elfcorehdr(many(70001))
    assert struct.unpack_from("<H", data, 56) == (0xFFFF,)
    assert ELFFile(io.BytesIO(data)).num_segments() == 70001
    assert len(parse_elfcorehdr(data).phdrs) == 70001


def test_the_work_grows_as_the_program_headers_do():
    def work(header: CrashHeader, data: bytes) -> None:
        parse_elfcorehdr(data)
        rebuilt = dataclasses.replace(header, source=HeaderSource.REBUILT)
        assert compare_elfcorehdr(header, rebuilt) == ()

    headers = [many(count) for count in (1000, 2000)]
    data = [build_elfcorehdr(header) for header in headers]
    once, twice = (
        calls_of(functools.partial(work, *pair)) for pair in zip(headers, data, strict=True)
    )
    assert twice < 2.2 * once


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (0, b"\x7fELV", "not an ELF header"),
        (4, b"\1", "a 32-bit ELF header"),
        (4, b"\7", "a class 7 ELF header"),
        (5, b"\0", "neither little- nor big-endian"),
        (5, b"\2", "e_type is 1024, not ET_CORE"),
        (16, b"\2", "e_type is 2, not ET_CORE"),
        (32, b"\xff" * 8, "program headers at 0xffffffffffffffff do not fit"),
        (54, b"\x20", "e_phentsize is 32, not 56"),
        (56, b"\xfe\xff", "65534 program headers"),
        (56, b"\xff\xff", "65535 program headers"),
        (56, b"\xff\xff\x40\0\1\0", "the section header with the count is missing"),
    ],
)
def test_each_damaged_field_has_its_words(offset, value, words):
    data = bytearray(x86().raw)
    if len(value) == 6:
        data[40:48] = b"\xff" * 8
    data[offset : offset + len(value)] = value
    with pytest.raises(FormatError, match=words):
        parse_elfcorehdr(bytes(data))


def test_a_header_cut_short_is_an_error():
    with pytest.raises(FormatError, match="cut short"):
        parse_elfcorehdr(x86().raw[:63])
    with pytest.raises(FormatError, match="do not fit the 399 bytes"):
        parse_elfcorehdr(x86().raw[:399])
    assert len(parse_elfcorehdr(x86().raw[: 64 + 6 * 56]).phdrs) == 6


def test_a_field_that_does_not_fit_is_an_error():
    with pytest.raises(FormatError, match="does not fit"):
        build_elfcorehdr(CrashHeader(source=HeaderSource.REBUILT, phdrs=(), machine=1 << 16))
    with pytest.raises(FormatError, match="need 400 bytes, not 64"):
        build_elfcorehdr(x86(), 64)


@settings(max_examples=200)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x7fELF\2\1\1", b"\x7fELF\2\2\1"]))
def test_any_bytes_give_a_record_or_a_format_error(data, prefix):
    with contextlib.suppress(FormatError):
        json.dumps(parse_elfcorehdr(prefix + data).to_json())


def test_ten_thousand_mutations_give_a_record_or_a_format_error():
    chance = random.Random(20)
    header = x86()
    original = header.raw[:448]
    most = 0

    def read(data: bytes) -> None:
        with contextlib.suppress(FormatError):
            parsed = parse_elfcorehdr(data)
            compare_elfcorehdr(parsed, header)
            parsed.to_json()

    for _ in range(10000):
        data = bytearray(original)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        most = max(most, calls_of(functools.partial(read, bytes(data))))
    assert most < 4 * calls_of(lambda: read(x86().raw))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    "header",
    [
        x86(),
        fadump_create_elfcore_headers(
            cpu_notes=(0, 0),
            vmcoreinfo=(0x1000, 64),
            boot_regions=[(0, MIB)],
            boot_mem_dest_addr=MIB,
            ranges=[],
            virtual=lambda address: address,
            byteorder="big",
        ),
    ],
    ids=["x86_64", "ppc64"],
)
def test_readelf_accepts_the_file(tmp_path, header, known):
    notes = {}
    if known:
        content = struct.pack("<III", 5, 4, 1) + b"CORE\0\0\0\0" + b"data"
        notes = {phdr.physical: content for phdr in header.notes} if header.machine == 62 else {}
    data = to_elf_file(header, notes)
    elf = ELFFile(io.BytesIO(data))
    assert [list(segment.iter_notes()) != [] for segment in elf.iter_segments("PT_NOTE")] == [
        True for _ in header.notes
    ]
    loads = list(elf.iter_segments("PT_LOAD"))
    assert [(s["p_paddr"], s["p_offset"], s["p_filesz"]) for s in loads] == [
        (p.physical, p.offset, p.file_size) for p in header.loads
    ]
    if readelf := shutil.which("readelf"):
        path = tmp_path / "elfcorehdr"
        path.write_bytes(data)
        done = subprocess.run([readelf, "-aW", path], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert "drgn-pmem" in done.stdout or notes


def pages(ranges):
    return {page for item in ranges for page in range(item.start, item.end)}


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=6), u(6), st.integers(0, 40)
)
def test_excluding_is_a_difference_of_sets(pieces, start, length):
    ranges, position = [], 0
    for gap, size in pieces:
        position += gap
        ranges.append(CrashRange(start=position, end=position + size, offset=position + 1000))
        position += size
    left = crash_exclude_mem_range(ranges, start, start + length)
    assert pages(left) == pages(ranges) - set(range(start, start + length))
    assert all(item.offset == item.start + 1000 for item in left)


def test_old_kernels_stop_at_the_first_range_that_they_cut():
    ranges = [CrashRange(start=start, end=start + 10) for start in (0, 10, 20, 30)]
    spans = [
        [
            (item.start, item.end)
            for item in crash_exclude_mem_range(ranges, 10, 35, stop_at_partial=stop)
        ]
        for stop in (False, True)
    ]
    assert spans == [[(0, 10), (35, 40)]] * 2
    left = crash_exclude_mem_range(ranges, 5, 25, stop_at_partial=True)
    assert [(item.start, item.end) for item in left] == [(0, 5), (10, 20), (20, 30), (30, 40)]


def test_fadump_headers_read_boot_memory_where_firmware_moved_it():
    header = fadump_create_elfcore_headers(
        cpu_notes=(0x7000, 0x800),
        vmcoreinfo=(0x8000, 0x1024),
        boot_regions=[(0, 256 * MIB), (512 * MIB, 64 * MIB)],
        boot_mem_dest_addr=1024 * MIB,
        ranges=[(576 * MIB, 900 * MIB)],
        virtual=lambda address: 0xC000000000000000 + address,
    )
    assert [(p.physical, p.offset, p.memory_size) for p in header.loads] == [
        (0, 1024 * MIB, 256 * MIB),
        (512 * MIB, 1280 * MIB, 64 * MIB),
        (576 * MIB, 576 * MIB, 324 * MIB),
    ]
    assert (header.machine, header.e_flags) == (21, 2)
    assert parse_elfcorehdr(header.raw, HeaderSource.REBUILT) == header


def test_what_a_dump_implies_equals_the_header_that_it_came_from():
    assert compare_elfcorehdr(x86(), imply_elfcorehdr(vmcore(x86()))) == ()


def test_pieces_that_makedumpfile_made_are_joined():
    dump = vmcore(x86())
    pieces = []
    for phdr in dump.phdrs:
        if phdr.what == "memory":
            half = phdr.memory_size // 2
            pieces += [
                dataclasses.replace(phdr, memory_size=half, file_size=half),
                dataclasses.replace(
                    phdr,
                    physical=phdr.physical + half,
                    virtual=phdr.virtual + half,
                    memory_size=half,
                    file_size=0,
                    offset=0,
                ),
            ]
        else:
            pieces.append(phdr)
    split = dataclasses.replace(dump, phdrs=tuple(pieces))
    assert compare_elfcorehdr(x86(), imply_elfcorehdr(split, join=True)) == ()
    (difference,) = compare_elfcorehdr(x86(), imply_elfcorehdr(split))
    assert difference.kind is DifferenceKind.SPLIT
    assert difference.words == "the same memory is 2 PT_LOADs in rebuilt, 4 in implied"


BASE = [CrashRange(start=1 * MIB, end=512 * MIB), CrashRange(start=768 * MIB, end=1024 * MIB)]
PMEM = CrashRange(start=4096 * MIB, end=5120 * MIB)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"machine": 183}, [("machine", None, "found is for x86_64, rebuilt for aarch64")]),
        ({"cpus": 1}, [("cpu notes", "found", "found has cpu notes at 0x3ff2a000, 356 bytes")]),
        (
            {"vmcoreinfo": (0x5000, 0x1024)},
            [
                ("vmcoreinfo", "found", "at 0x3fff0000"),
                ("vmcoreinfo", "rebuilt", "at 0x5000"),
            ],
        ),
        ({"text": None}, [("kernel text", "found", "at 0x1000000 to 0xffffffff81000000")]),
        (
            {"ranges": [*BASE, CrashRange(start=1024 * MIB, end=1280 * MIB)]},
            [("memory", "rebuilt", "0x40000000-0x50000000 (256 MiB) is in rebuilt")],
        ),
        (
            {"ranges": [CrashRange(start=2 * MIB, end=512 * MIB), BASE[1]]},
            [("memory", "found", "0x100000-0x200000 (1 MiB) is in found, not in rebuilt")],
        ),
        (
            {"virtual": lambda address: 0xFF11000000000000 + address},
            [("virtual", None, "0x100000 has virtual"), ("virtual", None, "0x30000000 has")],
        ),
        (
            {"ranges": [dataclasses.replace(BASE[0], offset=0x7000), BASE[1]]},
            [("offset", None, "0x100000 has offset 0x100000 in found, 0x7000 in rebuilt")],
        ),
        (
            {"ranges": [dataclasses.replace(BASE[0], flags=5), BASE[1]]},
            [("flags", None, "0x100000 has flags 0x7 in found, 0x5 in rebuilt")],
        ),
        ({"ranges": BASE[::-1]}, [("order", None, "another order")]),
        (
            {"ranges": [*BASE, dataclasses.replace(PMEM, flags=7 | PF_DEV)]},
            [("memory", "rebuilt", "0x100000000-0x140000000")],
        ),
    ],
)
def test_each_difference_has_its_words(change, expected):
    found = dataclasses.replace(x86(), source=HeaderSource.FOUND)
    differences = compare_elfcorehdr(found, x86(**change))
    assert len(differences) == len(expected), differences
    for difference, (kind, only_in, words) in zip(differences, expected, strict=True):
        assert (difference.kind.value, difference.to_json()["only_in"]) == (kind, only_in)
        assert words in difference.words
    json.dumps([difference.to_json() for difference in differences])


def test_pmem_that_only_one_header_marks_is_named():
    marked = x86(ranges=[*BASE, dataclasses.replace(PMEM, flags=7 | PF_DEV)])
    plain = dataclasses.replace(x86(ranges=[*BASE, PMEM]), source=HeaderSource.FOUND)
    (difference,) = compare_elfcorehdr(plain, marked)
    assert (difference.kind, difference.only_in) == (DifferenceKind.PMEM, HeaderSource.REBUILT)
    assert (difference.start, difference.end) == (PMEM.start, PMEM.end)
    assert marked.phdrs[-1].what == "pmem"


def test_a_byte_order_of_its_own_is_a_difference():
    (difference,) = compare_elfcorehdr(x86(), dataclasses.replace(x86(), byteorder="big"))
    assert difference.kind is DifferenceKind.BYTEORDER


@given(headers, headers)
def test_comparing_never_fails_and_a_header_equals_itself(left, right):
    left = parse_elfcorehdr(build_elfcorehdr(left))
    right = parse_elfcorehdr(build_elfcorehdr(right))
    for difference in compare_elfcorehdr(left, right):
        json.dumps(difference.to_json())
    imply_elfcorehdr(left, join=True)
