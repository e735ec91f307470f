# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Firmware-assisted dump on powernv (OPAL)
----------------------------------------

The kernel's metadata, firmware's result, and the registers of each thread as HDAT defines them
(:linux:`arch/powerpc/platforms/powernv/opal-fadump.h`). All big-endian.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.clayout import CLayout
from drgn_pmem.formats.fadump_rtas import MAX_CPUS, CpuRegisters

__all__ = (
    "MemoryRegion",
    "OpalFadumpMem",
    "OpalMpipl",
    "build_opal_fadump_mem",
    "build_opal_mpipl",
    "parse_hdat_threads",
    "parse_opal_fadump_mem",
    "parse_opal_mpipl",
)

_LAYOUT = CLayout("""
struct opal_fadump_mem_struct {
    uint8_t  version;
    char     reserved[3];
    uint16_t region_cnt;
    uint16_t registered_regions;
    uint64_t fadumphdr_addr;
};

struct opal_mpipl_fadump {
    uint8_t  version;
    char     reserved[7];
    uint32_t crashing_pir;
    uint32_t cpu_data_version;
    uint32_t cpu_data_size;
    uint32_t region_cnt;
};

struct opal_mpipl_region {
    uint64_t src;
    uint64_t dest;
    uint64_t size;
};

struct hdat_fadump_thread_hdr {
    uint32_t pir;
    uint8_t  core_state;
    char     reserved[3];
    uint32_t offset;            /* from this member to the register entries */
    uint32_t ecnt;
    uint32_t esize;
    uint32_t eactsz;
};

struct hdat_fadump_reg_entry {
    uint32_t reg_type;
    uint32_t reg_num;
    uint64_t reg_val;
};
""")

_MAX_REGIONS = 128
_CORE_INACTIVE = 0x0F
_SPR_NAMES = {
    1: "XER",
    8: "LR",
    9: "CTR",
    18: "DSISR",
    19: "DAR",
    0x7D0: "NIP",
    0x7D1: "MSR",
    0x7D2: "CCR",
}


@dataclass(frozen=True)
class MemoryRegion:
    """``struct opal_mpipl_region``: what firmware moves; physical addresses, bytes."""

    src: int
    dest: int
    size: int

    def to_json(self) -> dict[str, Any]:
        return {"src": f"{self.src:#x}", "dest": f"{self.dest:#x}", "size": self.size}


def _parse_regions(data: bytes, offset: int, count: int) -> tuple[MemoryRegion, ...]:
    if count > _MAX_REGIONS:
        raise FormatError(f"{count} memory regions; OPAL takes at most {_MAX_REGIONS}")
    size = _LAYOUT.size("opal_mpipl_region")
    return tuple(
        MemoryRegion(**_LAYOUT.unpack("opal_mpipl_region", data, offset + index * size, "big"))
        for index in range(count)
    )


def _build_regions(regions: tuple[MemoryRegion, ...]) -> bytes:
    return b"".join(
        _LAYOUT.pack("opal_mpipl_region", dataclasses.asdict(region), "big") for region in regions
    )


@dataclass(frozen=True)
class OpalFadumpMem:
    """
    ``struct opal_fadump_mem_struct``: the kernel's own metadata (``fw_dump.kernel_metadata``).
    """

    regions: tuple[MemoryRegion, ...]
    fadumphdr_addr: int
    registered_regions: int
    """How many of them firmware accepted."""
    version: int = 1

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "fadumphdr_addr": f"{self.fadumphdr_addr:#x}",
            "registered_regions": self.registered_regions,
            "regions": [region.to_json() for region in self.regions],
        }


def parse_opal_fadump_mem(data: bytes) -> OpalFadumpMem:
    """
    Decode the kernel metadata; of its 128 slots those that ``region_cnt`` counts.

    :raises FormatError: if the version is not 1, or there are more regions than slots.
    """
    members = _LAYOUT.unpack("opal_fadump_mem_struct", data, 0, "big")
    if members["version"] != 1:
        raise FormatError(f"version {members['version']} of the OPAL metadata is unknown")
    regions = _parse_regions(data, _LAYOUT.size("opal_fadump_mem_struct"), members["region_cnt"])
    return OpalFadumpMem(regions, members["fadumphdr_addr"], members["registered_regions"])


def build_opal_fadump_mem(mem: OpalFadumpMem) -> bytes:
    """The bytes of the metadata, with the slots that are in use."""
    members = {
        "version": mem.version,
        "region_cnt": len(mem.regions),
        "registered_regions": mem.registered_regions,
        "fadumphdr_addr": mem.fadumphdr_addr,
    }
    return _LAYOUT.pack("opal_fadump_mem_struct", members, "big") + _build_regions(mem.regions)


@dataclass(frozen=True)
class OpalMpipl:
    """``struct opal_mpipl_fadump``: what firmware did."""

    regions: tuple[MemoryRegion, ...]
    crashing_pir: int
    cpu_data_version: int
    cpu_data_size: int
    """Bytes of one thread's entry in the CPU state data."""
    version: int = 1

    def to_json(self) -> dict[str, Any]:
        return {
            **dataclasses.asdict(self),
            "regions": [region.to_json() for region in self.regions],
        }


def parse_opal_mpipl(data: bytes) -> OpalMpipl:
    """
    Decode firmware's result.

    :raises FormatError: if there are more regions than OPAL takes, or they are not in *data*.
    """
    members = _LAYOUT.unpack("opal_mpipl_fadump", data, 0, "big")
    del members["reserved"]
    count = members.pop("region_cnt")
    return OpalMpipl(_parse_regions(data, _LAYOUT.size("opal_mpipl_fadump"), count), **members)


def build_opal_mpipl(result: OpalMpipl) -> bytes:
    """The bytes of firmware's result."""
    members = {
        "version": result.version,
        "crashing_pir": result.crashing_pir,
        "cpu_data_version": result.cpu_data_version,
        "cpu_data_size": result.cpu_data_size,
        "region_cnt": len(result.regions),
    }
    return _LAYOUT.pack("opal_mpipl_fadump", members, "big") + _build_regions(result.regions)


def parse_hdat_threads(data: bytes, entry_size: int) -> tuple[CpuRegisters, ...]:
    """
    Decode OPAL's CPU state data: one entry per thread. As in the kernel, the first thread's header
    says for all of them where the registers are.

    :param data: All entries.
    :param entry_size: Bytes of each (:attr:`OpalMpipl.cpu_data_size`).
    :raises FormatError: if the registers are not inside their entry.
    """
    header_size = _LAYOUT.size("hdat_fadump_thread_hdr")
    register_size = _LAYOUT.size("hdat_fadump_reg_entry")
    if entry_size < header_size:
        raise FormatError(f"{entry_size} bytes cannot hold a thread's header ({header_size} bytes)")
    first = _LAYOUT.unpack("hdat_fadump_thread_hdr", data, 0, "big")
    start, count, stride = 8 + first["offset"], first["ecnt"], first["esize"]
    if count and (stride < register_size or start + count * stride > entry_size):
        raise FormatError(
            f"{count} registers of {stride} bytes at {start} are not inside {entry_size} bytes"
        )
    threads = []
    for at in range(0, min(len(data) // entry_size, MAX_CPUS) * entry_size, entry_size):
        header = _LAYOUT.unpack("hdat_fadump_thread_hdr", data, at, "big")
        registers = []
        for index in range(count):
            entry = _LAYOUT.unpack(
                "hdat_fadump_reg_entry", data, at + start + index * stride, "big"
            )
            number = entry["reg_num"]
            name = f"GPR{number}" if entry["reg_type"] == 1 else _SPR_NAMES.get(number)
            registers.append((name or f"SPR{number}", entry["reg_val"]))
        inactive = header["core_state"] == _CORE_INACTIVE
        threads.append(CpuRegisters(header["pir"], tuple(registers), inactive))
    return tuple(threads)
