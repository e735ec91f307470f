# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Firmware-assisted dump on pseries (RTAS)
----------------------------------------

The dump sections that the kernel registers with firmware
(:linux:`arch/powerpc/platforms/pseries/rtas-fadump.h`). All big-endian.
"""

from __future__ import annotations

import enum
from typing import Any

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.clayout import CLayout
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "RtasFadumpMem",
    "RtasSection",
    "SectionType",
    "check_rtas_fadump_mem",
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
""")

_ERROR_FLAG = 0x2000
_MAX_SECTIONS = 10


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
