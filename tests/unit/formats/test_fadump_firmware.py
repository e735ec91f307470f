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
from drgn_pmem.formats.fadump_opal import (
    MemoryRegion,
    OpalFadumpMem,
    OpalMpipl,
    build_opal_fadump_mem,
    build_opal_mpipl,
    parse_hdat_threads,
    parse_opal_fadump_mem,
    parse_opal_mpipl,
)
from drgn_pmem.formats.fadump_rtas import (
    CpuRegisters,
    RegSaveArea,
    RtasFadumpMem,
    RtasSection,
    build_reg_save_area,
    build_rtas_fadump_mem,
    check_rtas_fadump_mem,
    parse_reg_save_area,
    parse_rtas_fadump_mem,
)

MIB = 1 << 20


def u(bits):
    return st.integers(0, (1 << bits) - 1)


def section(kind, source, length, destination, dumped=None, errors=0):
    dumped = length if dumped is None else dumped
    return RtasSection(1, kind, errors, source, length, dumped, destination)


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
    mem = RtasFadumpMem(sections)
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
        (RtasFadumpMem((CPU, HPTE, BOOT), dump_status_flag=0x2000), "its dump failed"),
        (RtasFadumpMem((dataclasses.replace(CPU, error_flags=2),)), "CPU state has error flags"),
        (RtasFadumpMem((dataclasses.replace(BOOT, error_flags=2),)), "boot memory has error flags"),
        (RtasFadumpMem((dataclasses.replace(CPU, bytes_dumped=0),)), "no CPU state"),
        (
            RtasFadumpMem((CPU, BOOT, dataclasses.replace(MORE, bytes_dumped=5))),
            "5 of 67108864 bytes of boot memory at 0x20000000",
        ),
    ],
)
def test_why_a_capture_kernel_refuses_the_dump(mem, text):
    (problem,) = check_rtas_fadump_mem(mem)
    assert text in problem


sections = st.builds(RtasSection, u(32), u(16), u(16), u(64), u(64), u(64), u(64))


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
    data = build_rtas_fadump_mem(RtasFadumpMem((CPU,)))
    for count in (0, 11, 0xFFFF):
        with pytest.raises(FormatError, match=f"{count} dump sections"):
            parse_rtas_fadump_mem(data[:4] + struct.pack(">H", count) + data[6:])
    with pytest.raises(FormatError, match="needs 40 bytes at offset 4294967295"):
        parse_rtas_fadump_mem(data[:8] + b"\xff" * 4 + data[12:])
    with pytest.raises(FormatError, match="no section can be at offset 8"):
        build_rtas_fadump_mem(RtasFadumpMem((CPU,), offset_first_dump_section=8))


def entry(name, value):
    return struct.pack(">8sQ", name, value)


def save_area(*entries, cpus=2):
    head = struct.pack(">8sII", b"REGSAVE", 1, 32)
    return head + bytes(16) + struct.pack(">I", cpus) + b"".join(entries)


CPU_0 = [entry(b"CPUSTRT", 0), entry(b"GPR00", 5), entry(b"NIA", 6), entry(b"CPUEND", 0)]
CPU_1 = [entry(b"CPUSTRT", 0x700000001), entry(b"MSR", 7), entry(b"CPUEND", 1)]


def test_registers_of_two_cpus():
    area = parse_reg_save_area(save_area(*CPU_0, *CPU_1) + bytes(100))
    assert area == RegSaveArea(
        1,
        32,
        # The CPU is the low half of the value.
        (CpuRegisters(0, (("GPR00", 5), ("NIA", 6))), CpuRegisters(1, (("MSR", 7),))),
    )
    assert area.to_json()["cpus"][0]["registers"] == {"GPR00": "0x5", "NIA": "0x6"}


@pytest.mark.parametrize(
    ("data", "cpus", "text"),
    [
        (save_area(*CPU_0), 1, "the data end before CPU entry 1 of 2"),
        (save_area(*CPU_0, *CPU_1[:-1]), 2, "CPU 1 has no CPUEND"),
        (save_area(*CPU_0, *CPU_0[1:]), 1, "CPU entry 1 of 2 begins with 'GPR00', not CPUSTRT"),
        (save_area(*CPU_0, cpus=0xFFFFFFFF), 1, "before CPU entry 1 of 4294967295"),
    ],
)
def test_a_broken_save_area_keeps_what_could_be_read(data, cpus, text):
    area = parse_reg_save_area(data)
    assert len(area.cpus) == cpus
    assert text in area.problems[0]


def test_more_cpus_than_a_kernel_has_are_not_read():
    area = parse_reg_save_area(save_area(*CPU_0[::3] * 8200, cpus=8200))
    assert len(area.cpus) == 8192
    assert area.problems == ("8200 CPUs; the kernel has at most 8192",)


def test_no_save_area_is_an_error():
    with pytest.raises(FormatError, match="not a register save area"):
        parse_reg_save_area(bytes(100))
    with pytest.raises(FormatError, match="beyond 16 bytes"):
        parse_reg_save_area(save_area()[:16])


names = st.sampled_from(["GPR00", "GPR31", "NIA", "MSR", "CR", "XER", "LR", "CTR", "DAR", "DSISR"])


@given(
    st.builds(
        RegSaveArea,
        version=u(32),
        num_cpu_offset=st.integers(16, 64),
        cpus=st.lists(
            st.builds(
                CpuRegisters,
                cpu=u(32),
                registers=st.lists(st.tuples(names, u(64)), max_size=5).map(tuple),
            ),
            max_size=5,
        ).map(tuple),
    )
)
def test_save_areas_round_trip(area):
    assert parse_reg_save_area(build_reg_save_area(area)) == area


def test_a_save_area_that_does_not_fit_is_an_error():
    with pytest.raises(FormatError, match="cannot be at offset 3"):
        build_reg_save_area(RegSaveArea(1, 3, ()))
    with pytest.raises(FormatError, match="does not fit an entry"):
        build_reg_save_area(RegSaveArea(1, 32, (CpuRegisters(0, (("TOOLONGNAME", 1),)),)))


REGIONS = (MemoryRegion(0, 0x20000000, 256 * MIB), MemoryRegion(1 << 40, 0x30000000, 4096))
RAW = struct.pack(">6Q", 0, 0x20000000, 256 * MIB, 1 << 40, 0x30000000, 4096)


def test_opal_metadata_of_the_kernel():
    data = struct.pack(">B3xHHQ", 1, 2, 2, 0x30010000) + RAW
    mem = OpalFadumpMem(REGIONS, 0x30010000, 2)
    assert parse_opal_fadump_mem(data + bytes(5000)) == mem
    assert build_opal_fadump_mem(mem) == data
    assert json.loads(json.dumps(mem.to_json()))["fadumphdr_addr"] == "0x30010000"


def test_opal_result_of_firmware():
    data = struct.pack(">B7xIIII", 1, 0x48, 1, 0x2000, 2) + RAW
    result = OpalMpipl(REGIONS, 0x48, 1, 0x2000)
    assert parse_opal_mpipl(data) == result
    assert build_opal_mpipl(result) == data
    assert json.loads(json.dumps(result.to_json()))["regions"][0]["dest"] == "0x20000000"


def test_opal_metadata_that_cannot_be():
    with pytest.raises(FormatError, match="version 7 of the OPAL metadata"):
        parse_opal_fadump_mem(struct.pack(">B3xHHQ", 7, 0, 0, 0))
    for head, parse in (
        (struct.pack(">B3xHHQ", 1, 129, 0, 0), parse_opal_fadump_mem),
        (struct.pack(">B7xIIII", 1, 0, 1, 0, 129), parse_opal_mpipl),
    ):
        with pytest.raises(FormatError, match="129 memory regions"):
            parse(head + bytes(5000))
    with pytest.raises(FormatError, match="needs 24 bytes at offset 16"):
        parse_opal_fadump_mem(struct.pack(">B3xHHQ", 1, 1, 0, 0))


def thread(pir, state, *registers, size=128, offset=24):
    # The offset counts from its own member, 8 bytes into the header.
    data = struct.pack(">IB3xIIII", pir, state, offset - 8, len(registers), 16, 16)
    data = data.ljust(offset, b"\0")
    return (data + b"".join(struct.pack(">IIQ", *item) for item in registers)).ljust(size, b"\0")


def test_threads_of_opal():
    data = thread(0x48, 0, (1, 3, 5), (2, 0x7D0, 6), (2, 8, 7), offset=48)
    data += thread(0x49, 0x0F, (1, 0, 0), (2, 700, 9), (2, 9, 0), offset=48)
    assert parse_hdat_threads(data, 128) == (
        CpuRegisters(0x48, (("GPR3", 5), ("NIP", 6), ("LR", 7))),
        CpuRegisters(0x49, (("GPR0", 0), ("SPR700", 9), ("CTR", 0)), inactive=True),
    )
    # A last thread that was cut off is left out.
    assert len(parse_hdat_threads(data[:-1], 128)) == 1


def test_threads_that_cannot_be():
    data = thread(0x48, 0, (1, 3, 5))
    with pytest.raises(FormatError, match="4 bytes cannot hold"):
        parse_hdat_threads(data, 4)
    with pytest.raises(FormatError, match="are not inside 32 bytes"):
        parse_hdat_threads(data, 32)
    with pytest.raises(FormatError, match="4294967295 registers of 16 bytes"):
        parse_hdat_threads(data[:12] + b"\xff" * 4 + data[16:], 128)


@settings(max_examples=300)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"REGSAVE\0", struct.pack(">IHHI", 1, 3, 0, 40), b"\1\0\0\0\0\2"]),
    u(8),
)
def test_any_bytes_give_a_record_or_a_format_error(data, prefix, size):
    data = prefix + data
    for parse in (
        parse_rtas_fadump_mem,
        parse_reg_save_area,
        parse_opal_fadump_mem,
        parse_opal_mpipl,
    ):
        with contextlib.suppress(FormatError):
            json.dumps(parse(data).to_json())
    with contextlib.suppress(FormatError):
        for cpu in parse_hdat_threads(data, size):
            json.dumps(cpu.to_json())
