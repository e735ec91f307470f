# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Firmware-assisted dump headers. The expected bytes are put together by ``struct`` from the offsets
in the kernel's headers, independently of the declarations under test.
"""

import contextlib
import dataclasses
import json
import random
import struct
import time

from hypothesis import given, settings, strategies as st
import pytest

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.fadump import (
    FADUMP_CPU_UNKNOWN,
    FadumpHeader,
    build_fadump_header,
    find_fadump_headers,
    parse_fadump_header,
)
from drgn_pmem.formats.fadump_check import fadump_header_problems, is_fadump_header_compatible

REGS = bytes(range(256)) + bytes(128)
SIZES = {"pt_regs_sz": 384, "cpu_mask_sz": 256}


def u(bits):
    return st.integers(0, (1 << bits) - 1)


def mask(*cpus, byteorder="little", size=256):
    words = [0] * (size // 8)
    for cpu in cpus:
        words[cpu // 64] |= 1 << cpu % 64
    return b"".join(word.to_bytes(8, byteorder) for word in words)


def header(layout="FADMPSIG", byteorder="little", **change):
    fields = {
        "FADMPINF": {"elfcorehdr_addr": 0x20000000 + 24 + 640},
        "FADMPSIG": {"version": 1, "vmcoreinfo_raddr": 0x18000000, "vmcoreinfo_size": 0x1024},
        "FADMPSIG-v7": {
            "version": 1,
            "elfcorehdr_addr": 0x20001000,
            "elfcorehdr_size": 0x1000,
            "vmcoreinfo_raddr": 0x18000000,
            "vmcoreinfo_size": 0x1024,
        },
    }[layout]
    if layout != "FADMPINF":
        fields |= SIZES
    values = {
        "crashing_cpu": 3,
        "regs": REGS,
        "cpu_mask": mask(0, 1, 3, 65, byteorder=byteorder),
        **fields,
        **change,
    }
    return FadumpHeader(layout=layout, byteorder=byteorder, **values)


ALL = [
    header(layout, byteorder)
    for layout in ("FADMPINF", "FADMPSIG", "FADMPSIG-v7")
    for byteorder in ("little", "big")
]
IDS = [f"{record.layout}-{record.byteorder}" for record in ALL]


def words(record):
    """The bytes of a header by the offsets in fadump-internal.h."""
    order = "<" if record.byteorder == "little" else ">"
    if record.layout == "FADMPINF":
        head = struct.pack(
            order + "QQI4x", 0x4641444D50494E46, record.elfcorehdr_addr, record.crashing_cpu
        )
    else:
        head = struct.pack(order + "QII", 0x4641444D50534947, 1, record.crashing_cpu)
        if record.layout == "FADMPSIG-v7":
            head += struct.pack(order + "QQ", record.elfcorehdr_addr, record.elfcorehdr_size)
        head += struct.pack(
            order + "QQII", record.vmcoreinfo_raddr, record.vmcoreinfo_size, 384, 256
        )
    return head + record.regs + record.cpu_mask


@pytest.mark.parametrize("record", ALL, ids=IDS)
def test_every_layout_in_both_orders(record):
    data = words(record)
    assert build_fadump_header(record) == data
    assert parse_fadump_header(data, **SIZES) == record
    assert parse_fadump_header(data + bytes(999), **SIZES) == record
    assert record.size == len(data)
    assert record.cpus == (0, 1, 3, 65)


@pytest.mark.parametrize("record", ALL[2:], ids=IDS[2:])
def test_the_new_layouts_are_told_apart_without_debug_info(record):
    assert parse_fadump_header(words(record)) == record


def test_the_old_layout_keeps_registers_to_itself_without_debug_info():
    record = parse_fadump_header(words(header("FADMPINF")))
    assert (record.regs, record.cpu_mask, record.cpus) == (b"", b"", ())
    assert record.elfcorehdr_addr == 0x20000000 + 24 + 640


def test_the_magic_is_text_on_big_endian_and_reversed_on_little():
    assert words(header(byteorder="big"))[:8] == b"FADMPSIG"
    assert words(header())[:8] == b"GISPMDAF"


def test_json_names_the_fields_of_the_layout_only():
    record = header("FADMPINF", crashing_cpu=FADUMP_CPU_UNKNOWN).to_json()
    assert record["fields"] == {"elfcorehdr_addr": "0x20000298", "crashing_cpu": None}
    record = header().to_json()
    assert record["fields"] == {
        "crashing_cpu": 3,
        "version": 1,
        "vmcoreinfo_raddr": "0x18000000",
        "vmcoreinfo_size": 0x1024,
        "pt_regs_sz": 384,
        "cpu_mask_sz": 256,
    }
    json.dumps(record)


@given(
    st.sampled_from(["FADMPINF", "FADMPSIG", "FADMPSIG-v7"]),
    st.sampled_from(["little", "big"]),
    u(32),
    # Version 7 has this address where the merged layout has the sizes.
    st.integers(0, 1 << 50).map(lambda page: page << 12),
    u(64),
    st.integers(44, 128),
    st.integers(1, 128),
    st.data(),
)
def test_round_trip(layout, byteorder, cpu, address, number, regs, longs, data):
    fields = dict.fromkeys(header(layout).fields, number)
    for name in fields:
        if name.endswith(("_addr", "_raddr")):
            fields[name] = address
    fields |= {"crashing_cpu": cpu}
    sizes = {"pt_regs_sz": 8 * regs, "cpu_mask_sz": 8 * longs}
    if layout != "FADMPINF":
        fields |= {**sizes, "version": number & 0xFFFFFFFF}
    record = FadumpHeader(
        layout=layout,
        byteorder=byteorder,
        **fields,
        regs=data.draw(st.binary(min_size=8 * regs, max_size=8 * regs)),
        cpu_mask=data.draw(st.binary(min_size=8 * longs, max_size=8 * longs)),
    )
    assert parse_fadump_header(build_fadump_header(record), **sizes) == record


def patched(offset, value):
    data = bytearray(words(header()))
    data[offset : offset + len(value)] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason", "text"),
    [
        (words(header()), "ok", "accepts"),
        (words(header("FADMPINF")), "old magic", "older than Linux 6.10"),
        (words(header(byteorder="big")), "endianness", "crashed kernel is big-endian"),
        (patched(0, b"!"), "corrupted", "magic 0x4641444d50534921"),
        (patched(0x20, b"\x90\1\0\0"), "pt_regs size", "400 bytes in the header, 384 in"),
        (patched(0x24, b"\0\2\0\0"), "cpu_mask size", "512 bytes in the header, 256 in"),
        # The kernel looks neither at the version nor at addresses.
        (patched(0x08, b"\2"), "ok", "accepts"),
        (patched(0x10, b"\xff" * 16), "ok", "accepts"),
        # Same magic and version, so the kernel reads an address as the sizes.
        (words(header("FADMPSIG-v7")), "pt_regs size", "402653184 bytes in the header"),
    ],
)
def test_the_verdict_of_the_kernel(data, reason, text):
    verdict = is_fadump_header_compatible(data, byteorder="little", **SIZES)
    assert verdict.reason.value == reason
    assert verdict.compatible == (reason == "ok")
    assert text in verdict.words
    assert verdict.to_json()["reason"] == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (words(header("FADMPINF")), "ok"),
        (words(header()), "new magic"),
        (words(header("FADMPINF", "big")), "endianness"),
        (bytes(1000), "corrupted"),
    ],
)
def test_the_verdict_of_a_kernel_before_6_10(data, reason):
    verdict = is_fadump_header_compatible(data, byteorder="little", old_kernel=True, **SIZES)
    assert (verdict.reason.value, verdict.compatible) == (reason, reason == "ok")


def test_a_verdict_needs_the_bytes_that_the_kernel_looks_at():
    with pytest.raises(FormatError, match="needs 40 bytes"):
        is_fadump_header_compatible(words(header())[:39], byteorder="little", **SIZES)


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (header(version=2), "version 2 is not 1"),
        (header(cpu_mask=mask()), "the CPU mask is empty"),
        (header(crashing_cpu=2), "crashing_cpu 2 is not in the CPU mask"),
        (header(vmcoreinfo_size=0), "vmcoreinfo_size 0 cannot"),
        (header(vmcoreinfo_size=1 << 40), "vmcoreinfo_size 1099511627776 cannot"),
        (header(vmcoreinfo_raddr=0), "vmcoreinfo_raddr is 0"),
        (header(vmcoreinfo_raddr=0x20000100), "is in the header itself"),
        (
            header("FADMPINF", elfcorehdr_addr=0x123),
            "elfcorehdr_addr 0x123 is not the end",
        ),
        (parse_fadump_header(patched(0x20, b"\xff" * 4)), "pt_regs_sz 4294967295"),
    ],
)
def test_each_damaged_field_has_its_words(record, text):
    (problem,) = fadump_header_problems(record, 0x20000000)
    assert text in problem


@pytest.mark.parametrize("record", ALL, ids=IDS)
def test_good_headers_have_no_problems(record):
    assert fadump_header_problems(record, 0x20000000) == []
    before = dataclasses.replace(record, crashing_cpu=FADUMP_CPU_UNKNOWN)
    assert fadump_header_problems(before, 0x20000000) == []


@pytest.mark.parametrize("size", [0, 7, 8, 23, 600])
def test_a_header_cut_short_is_an_error(size):
    for record in ALL:
        with pytest.raises(FormatError, match=r"cut short|needs \d+ bytes|not a fadump header"):
            parse_fadump_header(words(record)[:size], **SIZES)


def test_a_cut_header_of_version_7_is_taken_for_a_damaged_one():
    record = parse_fadump_header(words(header("FADMPSIG-v7"))[:55])
    assert record.layout == "FADMPSIG"
    assert "cannot be right" in fadump_header_problems(record)[0]


def test_a_header_that_does_not_fit_is_an_error():
    with pytest.raises(FormatError, match="does not fit version"):
        build_fadump_header(header(version=1 << 32))
    with pytest.raises(FormatError, match="not a layout"):
        build_fadump_header(dataclasses.replace(header(), layout="FADMP"))


@settings(max_examples=200)
@given(st.binary(max_size=100), st.sampled_from([b"", b"FADMPSIG", b"GISPMDAF", b"FADMPINF"]))
def test_any_bytes_give_a_record_or_a_format_error(data, magic):
    for sizes in ({}, SIZES):
        with contextlib.suppress(FormatError):
            record = parse_fadump_header(magic + data, **sizes)
            json.dumps(record.to_json())
            fadump_header_problems(record, 0)


def test_ten_thousand_mutations_give_a_record_or_a_format_error():
    chance = random.Random(20)
    slowest = 0.0
    for index in range(10000):
        data = bytearray(words(ALL[index % len(ALL)]))
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(64)] = chance.randrange(256)
        begin = time.process_time()
        with contextlib.suppress(FormatError):
            record = parse_fadump_header(bytes(data))
            fadump_header_problems(record, 0x20000000)
            is_fadump_header_compatible(bytes(data), byteorder="little", **SIZES)
            record.to_json()
        slowest = max(slowest, time.process_time() - begin)
    assert slowest < 1


def test_a_scan_finds_every_layout_and_nothing_else():
    memory = bytearray(4 << 20)
    for index, record in enumerate(ALL):
        address = 0x100000 + index * 0x10000
        if record.layout == "FADMPINF":
            record = dataclasses.replace(record, elfcorehdr_addr=address + record.size)
        data = words(record) + b"\x7fELF"
        memory[address : address + len(data)] = data
    for at, data in (
        (0x200800, words(header())),  # not where a page begins
        (0x210000, patched(0x20, b"\xff" * 4)),  # sizes that cannot be
        (0x220000, words(header("FADMPINF"))),  # no ELF header behind it
        (0x3FFF00 + 0x100 - 4096, b"GISPMDAF"),  # the magic alone
    ):
        memory[at : at + len(data)] = data
    found = list(find_fadump_headers(lambda at, size: bytes(memory[at : at + size]), 1, 4 << 20))
    assert [(at, record.layout, record.byteorder) for at, record in found] == [
        (0x100000 + index * 0x10000, record.layout, record.byteorder)
        for index, record in enumerate(ALL)
    ]


def test_a_scan_goes_around_holes():
    data = words(header())

    def read(address, size):
        if size > 4096 or not 0x5000 <= address < 0x6000:
            return None
        return data[address - 0x5000 : address - 0x5000 + size]

    assert [address for address, _ in find_fadump_headers(read, 0, 1 << 20)] == [0x5000]
    assert list(find_fadump_headers(lambda address, size: None, 0, 1 << 24)) == []
