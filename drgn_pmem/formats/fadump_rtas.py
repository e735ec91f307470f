# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Firmware-assisted dump on pseries (RTAS)
----------------------------------------

The dump sections that the kernel registers with firmware, and the register save area that firmware
writes (:linux:`arch/powerpc/platforms/pseries/rtas-fadump.h`). All big-endian.
"""

from __future__ import annotations

from collections.abc import Iterator
import enum
from typing import Any

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.clayout import CLayout
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "MAX_CPUS",
    "CpuRegisters",
    "RegSaveArea",
    "RtasFadumpMem",
    "RtasSection",
    "SectionType",
    "check_rtas_fadump_mem",
    "parse_reg_save_area",
    "parse_rtas_fadump_mem",
)

_LAYOUT = CLayout("""
struct rtas_fadump_section_header {
    uint32_t dump_format_version;
    uint16_t dump_num_sections;
    uint16_t dump_status_flag;
    uint32_t offset_first_dump_section;
    uint32_t dd_block_size;
    uint64_t dd_block_offset;
    uint64_t dd_num_blocks;
    uint32_t dd_offset_disk_path;
    uint32_t max_time_auto;
};

struct rtas_fadump_section {
    uint32_t request_flag;
    uint16_t source_data_type;
    uint16_t error_flags;
    uint64_t source_address;
    uint64_t source_len;
    uint64_t bytes_dumped;
    uint64_t destination_address;
};

struct rtas_fadump_reg_save_area_header {
    char     magic_number[8];
    uint32_t version;
    uint32_t num_cpu_offset;
};
""")

_ERROR_FLAG = 0x2000
_MAX_SECTIONS = 10
MAX_CPUS = 8192


class SectionType(enum.IntEnum):
    """``source_data_type`` (``RTAS_FADUMP_*`` in the kernel)."""

    CPU_STATE = 1
    HPTE_REGION = 2
    BOOT_MEMORY = 0x11
    PARAMETER_AREA = 0x100


_SECTION_WORDS = {
    SectionType.CPU_STATE: "CPU state",
    SectionType.HPTE_REGION: "HPTE region",
    SectionType.BOOT_MEMORY: "boot memory",
    SectionType.PARAMETER_AREA: "parameter area",
}


class RtasSection(Record):
    """
    ``struct rtas_fadump_section``: what firmware copies at a crash; addresses physical, lengths in
    bytes.
    """

    request_flag: int
    source_data_type: int
    error_flags: int
    source_address: int = shown(Show.ADDRESS)
    source_len: int = shown(Show.SIZE)
    bytes_dumped: int = shown(Show.SIZE)
    destination_address: int = shown(Show.ADDRESS)

    @property
    def what(self) -> str:
        """What it is, in words."""
        try:
            return _SECTION_WORDS[SectionType(self.source_data_type)]
        except ValueError:
            return f"type {self.source_data_type:#x}"

    def to_json(self) -> dict[str, Any]:
        return {"what": self.what, **super().to_json()}


class RtasFadumpMem(Record):
    """
    ``struct rtas_fadump_mem_struct``: with three fixed sections, or (from Linux 6.10 on) with up to
    ten.
    """

    sections: tuple[RtasSection, ...]
    dump_format_version: int = 1
    dump_status_flag: int = 0
    offset_first_dump_section: int = 40
    dd_block_size: int = 0
    dd_block_offset: int = 0
    dd_num_blocks: int = 0
    dd_offset_disk_path: int = 0
    max_time_auto: int = 0


def parse_rtas_fadump_mem(data: bytes) -> RtasFadumpMem:
    """
    Decode the structure that the kernel registers (``fdm``) and firmware hands to the capture
    kernel (``fdm_active``).

    :raises FormatError: if there are too many sections, or they are not in *data*.
    """
    members = _LAYOUT.unpack("rtas_fadump_section_header", data, 0, "big")
    count = members.pop("dump_num_sections")
    if not 0 < count <= _MAX_SECTIONS:
        raise FormatError(f"{count} dump sections; the kernel registers 1 to {_MAX_SECTIONS}")
    size = _LAYOUT.size("rtas_fadump_section")
    first = members["offset_first_dump_section"]
    sections = tuple(
        RtasSection(**_LAYOUT.unpack("rtas_fadump_section", data, first + index * size, "big"))
        for index in range(count)
    )
    return RtasFadumpMem(sections=sections, **members)


def check_rtas_fadump_mem(mem: RtasFadumpMem) -> list[str]:
    """
    Why a capture kernel does not accept the dump: the checks of ``rtas_fadump_process()``, one
    sentence each.
    """
    problems = []
    if mem.dump_status_flag == _ERROR_FLAG:
        problems.append("the platform says that its dump failed (status 0x2000)")
    for section in mem.sections:
        if section.source_data_type not in (SectionType.CPU_STATE, SectionType.BOOT_MEMORY):
            continue
        if section.error_flags:
            problems.append(f"the {section.what} has error flags {section.error_flags:#x}")
        if section.source_data_type == SectionType.CPU_STATE and not section.bytes_dumped:
            problems.append("no CPU state was dumped")
        if (
            section.source_data_type == SectionType.BOOT_MEMORY
            and section.bytes_dumped != section.source_len
        ):
            problems.append(
                f"{section.bytes_dumped} of {section.source_len} bytes of boot memory"
                f" at {section.source_address:#x} were dumped"
            )
    return problems


class CpuRegisters(Record):
    """Registers of a CPU as firmware saved them."""

    cpu: int
    """Logical CPU."""
    registers: tuple[tuple[str, int], ...] = shown(
        json=lambda pairs: {name: f"{value:#x}" for name, value in pairs}
    )
    """Name and value, in firmware's order."""


class RegSaveArea(Record):
    """Register save area of RTAS firmware; as many CPUs as could be read."""

    version: int
    num_cpu_offset: int
    cpus: tuple[CpuRegisters, ...]
    problems: tuple[str, ...] = ()


def parse_reg_save_area(data: bytes) -> RegSaveArea:
    """
    Decode the CPU state data: for each CPU, entries of an 8-byte name and a value from ``CPUSTRT``
    to ``CPUEND``.

    :raises FormatError: without the magic ``REGSAVE``, or if the number of CPUs is not in *data*.
    """
    header = _LAYOUT.unpack("rtas_fadump_reg_save_area_header", data, 0, "big")
    if header["magic_number"] != b"REGSAVE\0":
        raise FormatError(f"not a register save area: {header['magic_number']!r} is not REGSAVE")
    offset = header["num_cpu_offset"]
    if offset + 4 > len(data):
        raise FormatError(f"the number of CPUs at {offset:#x} is beyond {len(data)} bytes")
    count = int.from_bytes(data[offset : offset + 4], "big")
    cpus: list[CpuRegisters] = []
    problems = []
    entries = _entries(data, offset + 4)
    while len(cpus) < min(count, MAX_CPUS):
        name, cpu = next(entries, ("", 0))
        if name != "CPUSTRT":
            problems.append(
                f"CPU entry {len(cpus)} of {count} begins with {name!r}, not CPUSTRT"
                if name
                else f"the data end before CPU entry {len(cpus)} of {count}"
            )
            break
        registers = []
        for name, value in entries:
            if name == "CPUEND":
                break
            registers.append((name, value))
        else:
            problems.append(f"CPU {cpu & 0xFFFFFFFF} has no CPUEND")
        cpus.append(CpuRegisters(cpu=cpu & 0xFFFFFFFF, registers=tuple(registers)))
    else:
        if count > MAX_CPUS:
            problems.append(f"{count} CPUs; the kernel has at most {MAX_CPUS}")
    return RegSaveArea(
        version=header["version"],
        num_cpu_offset=offset,
        cpus=tuple(cpus),
        problems=tuple(problems),
    )


def _entries(data: bytes, offset: int) -> Iterator[tuple[str, int]]:
    for at in range(offset, len(data) - 15, 16):
        name = bytes(data[at : at + 8]).rstrip(b"\0").decode("ascii", "backslashreplace")
        yield name, int.from_bytes(data[at + 8 : at + 16], "big")
