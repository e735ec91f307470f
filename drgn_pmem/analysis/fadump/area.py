# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The reserve area of a firmware-assisted dump
--------------------------------------------

The layout of the memory that a kernel reserves for the firmware to dump into, and what is wrong
with it.

Source: ``get_fadump_area_size()`` in arch/powerpc/kernel/fadump.c,
``rtas_fadump_init_mem_struct()`` and ``opal_fadump_init_mem_struct()``.
"""

import itertools

from drgn import Program

from drgn_pmem.analysis.headers.memory import rtas_range
from drgn_pmem.formats.fadump_rtas import RtasFadumpMem, SectionType
from drgn_pmem.kernel.debuginfo import find_variable
from drgn_pmem.kernel.fadump import FadumpPlatform, FwDump
from drgn_pmem.kernel.kexec import NamedRange
from drgn_pmem.kernel.memblock import for_each_mem_range
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.ranges import Range, short_size
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "AreaPart",
    "RtasOverlap",
    "draw_reserve_area",
    "reserve_area",
    "reserve_area_problems",
    "rtas_overlap",
)

_PHDR, _EHDR = 56, 64


class AreaPart(Record):
    """A part of the reserve area."""

    what: str
    start: int = shown(Show.ADDRESS)
    size: int = shown(Show.SIZE)
    """bytes"""
    source: int | None = shown(Show.ADDRESS, default=None)
    """For a copy of boot memory: where it was."""

    @property
    def end(self) -> int:
        return self.start + self.size


def reserve_area(conf: FwDump, header_size: int) -> list[AreaPart]:
    """
    The parts of the reserve area, in address order; what no part covers is ``unused``.

    :param header_size: Bytes of the crash info header.
    """
    parts = []

    def add(what: str, start: int, size: int, source: int | None = None) -> None:
        parts.append(AreaPart(what=what, start=start, size=size, source=source))

    start = conf.reserve_start
    if conf.platform is not FadumpPlatform.OPAL:
        add("CPU state", start, conf.cpu_state_size)
        start += conf.cpu_state_size
        if conf.hpte_region_size:
            add("HPTE region", start, conf.hpte_region_size)
    for index, region in enumerate(conf.boot_regions):
        add(f"boot memory {index}", region.destination, region.size, region.start)
    if conf.fadumphdr_addr:
        add("crash info header", conf.fadumphdr_addr, header_size)
        if not conf.built_by_capture_kernel:
            after = conf.fadumphdr_addr + header_size
            add("elfcorehdr", after, max(conf.reserve_end - after, 0))
    parts.sort(key=lambda part: part.start)
    return _fill(parts, conf)


def _fill(parts: list[AreaPart], conf: FwDump) -> list[AreaPart]:
    filled: list[AreaPart] = []
    at = conf.reserve_start
    for part in parts:
        if at < part.start <= conf.reserve_end:
            filled.append(AreaPart(what="unused", start=at, size=part.start - at))
        filled.append(part)
        at = max(at, part.end)
    if at < conf.reserve_end:
        filled.append(AreaPart(what="unused", start=at, size=conf.reserve_end - at))
    return filled


class RtasOverlap(Record):
    """The firmware's run-time services (RTAS) in the reserve area."""

    rtas: NamedRange
    lost: tuple[Range, ...]
    """Boot memory that is copied to where they are: the dump has the firmware's code there."""

    @property
    def words(self) -> str:
        code = ", ".join(f"{part.start:#x}-{part.end:#x}" for part in self.lost)
        return (
            f"the firmware's run-time services at {self.rtas.start:#x}-{self.rtas.end:#x} are in"
            " the reserve area: the dump overwrites them, and they overwrite the dump"
            + (f"; {code} of the dump is firmware code, not the kernel's memory" if code else "")
        )


def draw_reserve_area(parts: list[AreaPart]) -> str:
    """The reserve area as a drawing, low addresses first."""
    if not parts:
        return ""
    width = max(len(part.what) for part in parts) + 2
    rule = " " * 13 + "+" + "-" * width + "+"
    lines = [rule]
    for part in parts:
        line = f"{part.start:>#12x} | {part.what:<{width - 2}} | {short_size(part.size)}"
        if part.source is not None:
            line += f", copied from {part.source:#x}-{part.source + part.size:#x}"
        lines += [line, rule]
    lines[-1] = f"{parts[-1].end:>#12x} {rule.strip()}"
    return "\n".join(lines)


def reserve_area_problems(
    prog: Program, conf: FwDump, header_size: int, firmware: RtasFadumpMem | None
) -> Partial[list[str]]:
    """
    What is wrong with the reserve area, one sentence each.

    :param firmware: What was registered with RTAS; None if nothing was, or it cannot be read.
    """
    if not conf.reserve_size:
        return Partial(["no memory is reserved for a dump"])
    problems = Problems()
    what = "check of the reserve area"
    wrong = problems.attempt(what, lambda: _sizes(prog, conf, header_size)) or []
    wrong += _overlaps(conf)
    wrong += problems.attempt(what, lambda: _holes(prog, conf)) or []
    if firmware is not None:
        wrong += _firmware(conf, firmware)
    return problems.partial(wrong)


def _sizes(prog: Program, conf: FwDump, header_size: int) -> list[str]:
    problems = []
    total = sum(region.size for region in conf.boot_regions)
    if total != conf.boot_memory_size:
        problems.append(
            f"the boot memory regions have {total} bytes, boot_memory_size says "
            f"{conf.boot_memory_size}"
        )
    page = int(find_variable(prog, "PAGE_SIZE", "vmlinux"))
    opal = conf.platform is FadumpPlatform.OPAL
    front = 0 if opal else conf.cpu_state_size + conf.hpte_region_size
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


def _holes(prog: Program, conf: FwDump) -> list[str]:
    """Holes of memblock in the area, if memblock can be read in full."""
    at = conf.reserve_start
    for region in for_each_mem_range(prog).whole():
        if region.start <= at < region.end:
            at = region.end
    if at < conf.reserve_end:
        return [f"the reserve area has a hole at {at:#x}: the firmware refuses to register it"]
    return []


def rtas_overlap(prog: Program, conf: FwDump) -> RtasOverlap | None:
    """
    Whether the firmware's run-time services are in the reserve area.

    :raises NotSaved: if that cannot be read
    """
    rtas = rtas_range(prog) if conf.reserve_size else None
    if rtas is None or rtas.start >= conf.reserve_end or conf.reserve_start >= rtas.end:
        return None
    lost = []
    for region in conf.boot_regions:
        start = max(rtas.start, region.destination)
        end = min(rtas.end, region.destination + region.size)
        if start < end:
            shift = region.start - region.destination
            lost.append(Range(start + shift, end + shift))
    return RtasOverlap(rtas=rtas, lost=tuple(lost))


def _firmware(conf: FwDump, firmware: RtasFadumpMem) -> list[str]:
    """Whether the firmware's record equals the kernel's."""
    wrong = []
    registered = [
        (section.source_address, section.source_len, section.destination_address)
        for section in firmware.sections
        if section.source_data_type == SectionType.BOOT_MEMORY
    ]
    own = [(r.start, r.size, r.destination) for r in conf.boot_regions]
    if registered != own:
        wrong.append(
            f"{len(registered)} boot memory regions are registered with the firmware, and they are "
            "not those of fw_dump"
        )
    for section in firmware.sections:
        if (
            section.source_data_type == SectionType.CPU_STATE
            and section.destination_address != conf.reserve_start
        ):
            wrong.append(
                f"the firmware puts the CPU state at {section.destination_address:#x}, not at "
                f"{conf.reserve_start:#x}"
            )
    return wrong
