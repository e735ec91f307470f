# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The reserve area of a firmware-assisted dump
--------------------------------------------

What lies where in the memory that a kernel reserves for the firmware to dump into, and what is
wrong with it.

Source: ``get_fadump_area_size()`` in arch/powerpc/kernel/fadump.c,
``rtas_fadump_init_mem_struct()`` and ``opal_fadump_init_mem_struct()``.
"""

from dataclasses import dataclass
import itertools
from typing import Any

from drgn import Program

from drgn_pmem.analysis.headers.memory import rtas_range
from drgn_pmem.errors import PmemError
from drgn_pmem.formats.fadump_rtas import RtasFadumpMem
from drgn_pmem.kernel.fadump import FwDump
from drgn_pmem.kernel.memblock import for_each_mem_range

__all__ = ("AreaPart", "draw_reserve_area", "reserve_area", "reserve_area_problems")

_PHDR, _EHDR = 56, 64


@dataclass(frozen=True)
class AreaPart:
    """A part of the reserve area."""

    what: str
    start: int
    size: int
    """bytes"""
    source: int | None = None
    """For a copy of boot memory: where it was."""

    @property
    def end(self) -> int:
        return self.start + self.size

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "start": f"{self.start:#x}",
            "size": self.size,
            "source": None if self.source is None else f"{self.source:#x}",
        }


def reserve_area(conf: FwDump, header_size: int) -> list[AreaPart]:
    """
    The parts of the reserve area, in address order; what no part covers is ``unused``.

    :param header_size: Bytes of the crash info header.
    """
    parts = []
    start = conf.reserve_start
    if conf.platform != "opal":
        parts.append(AreaPart("CPU state", start, conf.cpu_state_size))
        start += conf.cpu_state_size
        if conf.hpte_region_size:
            parts.append(AreaPart("HPTE region", start, conf.hpte_region_size))
    for index, region in enumerate(conf.boot_regions):
        what = f"boot memory {index}"
        parts.append(AreaPart(what, region.destination, region.size, region.start))
    if conf.fadumphdr_addr:
        parts.append(AreaPart("crash info header", conf.fadumphdr_addr, header_size))
        if not conf.built_by_capture_kernel:
            after = conf.fadumphdr_addr + header_size
            parts.append(AreaPart("elfcorehdr", after, max(conf.reserve_end - after, 0)))
    parts.sort(key=lambda part: part.start)
    return _fill(parts, conf)


def _fill(parts: list[AreaPart], conf: FwDump) -> list[AreaPart]:
    filled: list[AreaPart] = []
    at = conf.reserve_start
    for part in parts:
        if at < part.start <= conf.reserve_end:
            filled.append(AreaPart("unused", at, part.start - at))
        filled.append(part)
        at = max(at, part.end)
    if at < conf.reserve_end:
        filled.append(AreaPart("unused", at, conf.reserve_end - at))
    return filled


def draw_reserve_area(parts: list[AreaPart]) -> str:
    """The reserve area as a drawing, low addresses first."""
    if not parts:
        return ""
    width = max(len(part.what) for part in parts) + 2
    rule = " " * 13 + "+" + "-" * width + "+"
    lines = [rule]
    for part in parts:
        line = f"{part.start:>#12x} | {part.what:<{width - 2}} | {part.size} bytes"
        if part.source is not None:
            line += f", copied from {part.source:#x}-{part.source + part.size:#x}"
        lines += [line, rule]
    lines[-1] = f"{parts[-1].end:>#12x} {rule.strip()}"
    return "\n".join(lines)


def reserve_area_problems(
    prog: Program, conf: FwDump, header_size: int, firmware: RtasFadumpMem | None
) -> list[str]:
    """
    What is wrong with the reserve area, one sentence each.

    :param firmware: What was registered with RTAS.
    """
    if not conf.reserve_size:
        return ["no memory is reserved for a dump"]
    return [
        *_sizes(prog, conf, header_size),
        *_overlaps(conf),
        *_memory(prog, conf),
        *(_firmware(conf, firmware) if firmware is not None else ()),
    ]


def _sizes(prog: Program, conf: FwDump, header_size: int) -> list[str]:
    problems = []
    total = sum(region.size for region in conf.boot_regions)
    if total != conf.boot_memory_size:
        problems.append(
            f"the boot memory regions are {total} bytes, boot_memory_size says "
            f"{conf.boot_memory_size}"
        )
    page = int(prog["PAGE_SIZE"])
    front = conf.cpu_state_size + conf.hpte_region_size if conf.platform != "opal" else 0
    destination = conf.reserve_start + -(-front // page) * page
    if conf.boot_regions and conf.boot_mem_dest_addr != destination:
        problems.append(
            f"boot memory is copied to {conf.boot_mem_dest_addr:#x}, expected {destination:#x}"
        )
    header = conf.boot_mem_dest_addr + conf.boot_memory_size
    if conf.fadumphdr_addr != header:
        problems.append(
            f"the crash info header is at {conf.fadumphdr_addr:#x}, expected {header:#x}"
        )
    needed = conf.fadumphdr_addr + header_size
    if not conf.built_by_capture_kernel:
        needed += _EHDR + _PHDR
    if needed > conf.reserve_end:
        problems.append(
            f"the reserve area ends at {conf.reserve_end:#x}, its contents at {needed:#x}"
        )
    if conf.elfcorehdr_size is not None and conf.elfcorehdr_vaddr and not conf.elfcorehdr_size:
        problems.append("the elfcorehdr has an address but no size")
    return problems


def _overlaps(conf: FwDump) -> list[str]:
    problems = []
    for region in conf.boot_regions:
        if region.start < conf.reserve_end and conf.reserve_start < region.end:
            problems.append(
                f"boot memory {region.start:#x}-{region.end:#x} overlaps the reserve area that it "
                "is copied to"
            )
    ordered = sorted(conf.boot_regions, key=lambda region: region.start)
    for one, other in itertools.pairwise(ordered):
        if other.start < one.end:
            problems.append(f"two boot memory regions overlap at {other.start:#x}")
    return problems


def _memory(prog: Program, conf: FwDump) -> list[str]:
    problems = []
    try:
        ranges = [(r.start, r.end) for r in for_each_mem_range(prog)]
    except PmemError as error:
        return [str(error)]
    at = conf.reserve_start
    for start, end in ranges:
        if start <= at < end:
            at = end
    if at < conf.reserve_end:
        problems.append(
            f"the reserve area has a hole at {at:#x}: the firmware refuses to register it"
        )
    rtas = rtas_range(prog)
    if rtas is not None and rtas.start < conf.reserve_end and conf.reserve_start < rtas.end:
        problems.append(
            f"the firmware's run-time services at {rtas.start:#x}-{rtas.end:#x} lie in the reserve "
            "area: the dump overwrites them, and they overwrite what was dumped there"
        )
    return problems


def _firmware(conf: FwDump, firmware: RtasFadumpMem) -> list[str]:
    """Whether the firmware was told what the kernel believes."""
    problems = []
    told = [
        (section.source_address, section.source_len, section.destination_address)
        for section in firmware.sections
        if section.what == "boot memory"
    ]
    believed = [(r.start, r.size, r.destination) for r in conf.boot_regions]
    if told != believed:
        problems.append(
            f"the firmware was told of {len(told)} boot memory regions that are not those of the "
            "kernel"
        )
    for section in firmware.sections:
        if section.what == "CPU state" and section.destination_address != conf.reserve_start:
            problems.append(
                f"the firmware puts the CPU state at {section.destination_address:#x}, not at "
                f"{conf.reserve_start:#x}"
            )
    return problems
