# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What firmware writes for a firmware-assisted dump; expected bytes by ``struct``, not by the
declarations under test.
"""

import contextlib
import dataclasses
import json
import struct

from hypothesis import given, settings, strategies as st
import pytest

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.fadump_rtas import (
    RtasFadumpMem,
    RtasSection,
    check_rtas_fadump_mem,
    parse_rtas_fadump_mem,
)
from tests.builders import build_rtas_fadump_mem

MIB = 1 << 20


def u(bits):
    return st.integers(0, (1 << bits) - 1)


def section(kind, source, length, destination, dumped=None, errors=0):
    dumped = length if dumped is None else dumped
    return RtasSection(
        request_flag=1,
        source_data_type=kind,
        error_flags=errors,
        source_address=source,
        source_len=length,
        bytes_dumped=dumped,
        destination_address=destination,
    )


CPU, HPTE = section(1, 0, 0x5000, 0x20000000), section(2, 0, 0x400, 0x20005000)
BOOT = section(0x11, 0, 256 * MIB, 0x20010000)
MORE = section(0x11, 512 * MIB, 64 * MIB, 0x30010000)
PARAM = section(0x100, 0x7000, 2048, 0x7000)


@pytest.mark.parametrize(
    "sections", [(CPU, HPTE, BOOT), (CPU, HPTE, BOOT, MORE, PARAM)], ids=["fixed", "array"]
)
def test_dump_sections_of_both_generations(sections):
    data = struct.pack(">IHHIIQQII", 1, len(sections), 0, 40, 0, 0, 0, 0, 0)
    for item in sections:
        data += struct.pack(">IHHQQQQ", *dataclasses.astuple(item))
    mem = RtasFadumpMem(sections=sections)
    assert parse_rtas_fadump_mem(data) == mem
    assert build_rtas_fadump_mem(mem) == data
    assert check_rtas_fadump_mem(mem) == []
    names = ["CPU state", "HPTE region", "boot memory", "boot memory", "parameter area"]
    json_sections = json.loads(json.dumps(mem.to_json()))["sections"]
    assert [item["what"] for item in json_sections] == names[: len(sections)]
    assert json_sections[2]["destination_address"] == "0x20010000"


@pytest.mark.parametrize(
    ("mem", "text"),
    [
        (RtasFadumpMem(sections=(CPU, HPTE, BOOT), dump_status_flag=0x2000), "its dump failed"),
        (
            RtasFadumpMem(sections=(dataclasses.replace(CPU, error_flags=2),)),
            "CPU state has error flags",
        ),
        (
            RtasFadumpMem(sections=(dataclasses.replace(BOOT, error_flags=2),)),
            "boot memory has error flags",
        ),
        (RtasFadumpMem(sections=(dataclasses.replace(CPU, bytes_dumped=0),)), "no CPU state"),
        (
            RtasFadumpMem(sections=(CPU, BOOT, dataclasses.replace(MORE, bytes_dumped=5))),
            "5 of 67108864 bytes of boot memory at 0x20000000",
        ),
    ],
)
def test_why_a_capture_kernel_refuses_the_dump(mem, text):
    (problem,) = check_rtas_fadump_mem(mem)
    assert text in problem


sections = st.builds(
    section, kind=u(16), source=u(64), length=u(64), destination=u(64), dumped=u(64), errors=u(16)
)


@given(
    st.builds(
        RtasFadumpMem,
        sections=st.lists(sections, min_size=1, max_size=10).map(tuple),
        dump_format_version=u(32),
        dump_status_flag=u(16),
        offset_first_dump_section=st.integers(40, 100),
        max_time_auto=u(32),
    )
)
def test_dump_sections_round_trip(mem):
    assert parse_rtas_fadump_mem(build_rtas_fadump_mem(mem)) == mem
    check_rtas_fadump_mem(mem)


def test_dump_sections_that_cannot_be():
    data = build_rtas_fadump_mem(RtasFadumpMem(sections=(CPU,)))
    for count in (0, 11, 0xFFFF):
        with pytest.raises(FormatError, match=f"{count} dump sections"):
            parse_rtas_fadump_mem(data[:4] + struct.pack(">H", count) + data[6:])
    with pytest.raises(FormatError, match="needs 40 bytes at offset 4294967295"):
        parse_rtas_fadump_mem(data[:8] + b"\xff" * 4 + data[12:])
    with pytest.raises(FormatError, match="no section can be at offset 8"):
        build_rtas_fadump_mem(RtasFadumpMem(sections=(CPU,), offset_first_dump_section=8))


@settings(max_examples=300)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", struct.pack(">IHHI", 1, 3, 0, 40)]),
)
def test_any_bytes_give_a_record_or_a_format_error(data, prefix):
    data = prefix + data
    with contextlib.suppress(FormatError):
        json.dumps(parse_rtas_fadump_mem(data).to_json())
