# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Examining a firmware-assisted dump
----------------------------------

The crash info header *found* in memory, or *reconstructed* where the dump leaves it out (a real
fadump /proc/vmcore has everything but the reserve area, which contains the header); the verdict of
the kernel's own compatibility check; the elfcorehdr rebuilt and compared with the dump.
"""

from collections.abc import Iterator
from typing import Any

from drgn import Program

from drgn_pmem.analysis.fadump.area import (
    AreaPart,
    RtasOverlap,
    reserve_area,
    reserve_area_problems,
    rtas_overlap,
)
from drgn_pmem.analysis.fadump.elf import FadumpElf, fadump_elf
from drgn_pmem.analysis.fadump.header import (
    FadumpField,
    FadumpSource,
    byteorder_of,
    compared_fields,
    found_fields,
    of_the_reader,
    parse_header,
    read_header,
    reconstruct_header,
)
from drgn_pmem.dumpfile import State, coverage_of, dump_of
from drgn_pmem.errors import FormatError, MissingDebugInfo, NotFound
from drgn_pmem.formats.fadump import FadumpHeader, build_fadump_header, find_fadump_headers
from drgn_pmem.formats.fadump_check import (
    FadumpVerdict,
    fadump_header_problems,
    is_fadump_header_compatible,
)
from drgn_pmem.formats.fadump_rtas import RtasFadumpMem, check_rtas_fadump_mem
from drgn_pmem.kernel.fadump import (
    BootRegion,
    FadumpLayout,
    FadumpPlatform,
    FwDump,
    fadump_layout,
    firmware_structure,
    fw_dump,
)
from drgn_pmem.kernel.physical import read_physical
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems
from drgn_pmem.record import Record, Show, shown

__all__ = ("Fadump", "read_fadump", "scan_for_headers")


class Fadump(Record):
    """Everything about a firmware-assisted dump."""

    state: str
    conf: FwDump | None
    """None without debug info: the header was found by a scan."""
    address: int | None = shown(Show.ADDRESS)
    """Physical address of the crash info header."""
    source: FadumpSource
    header: FadumpHeader
    fields: tuple[FadumpField, ...]
    verdict: FadumpVerdict
    area: tuple[AreaPart, ...]
    overlap: RtasOverlap | None = None
    """With the firmware's run-time services; also among what is wrong."""
    elf: FadumpElf | None
    wrong: tuple[str, ...]
    """What is wrong, one sentence each."""

    @property
    def boot_regions(self) -> tuple[BootRegion, ...]:
        return self.conf.boot_regions if self.conf is not None else ()

    def to_json(self) -> dict[str, Any]:
        platform = None if self.conf is None else self.conf.platform
        return {
            "state": self.state,
            "platform": None if platform is None else platform.value,
            "header": {
                "source": self.source.value,
                "address": None if self.address is None else f"{self.address:#x}",
                "layout": self.header.layout,
                "byteorder": self.header.byteorder,
                "fields": {field.name: field.to_json() for field in self.fields},
            },
            "verdict": self.verdict.words,
            "compatible": self.verdict.compatible,
            "reason": self.verdict.reason.value,
            "reserve_area": [part.to_json() for part in self.area],
            "boot_regions": [region.to_json() for region in self.boot_regions],
            "elfcorehdr": None if self.elf is None else self.elf.to_json(),
            "problems": list(self.wrong),
        }


def read_fadump(prog: Program) -> Partial[Fadump]:
    """
    Examine the firmware-assisted dump that was saved, or that the kernel in the dump prepared.

    :raises NotFound: if there is none
    :raises PmemError: if its header can be neither read nor reconstructed
    """
    try:
        conf = fw_dump(prog)
        layout = fadump_layout(prog)
    except MissingDebugInfo as missing:
        return _examine_blindly(prog, missing)
    if not conf.fadumphdr_addr:
        raise NotFound(f"there is no firmware-assisted dump: {conf.state}")
    problems = Problems()
    wrong: list[str] = []
    raw: bytes | None = None
    header: FadumpHeader | None = None
    try:
        raw = read_header(prog, conf, layout)
        header = parse_header(raw, layout)
    except NotSaved as error:
        if conf.active:
            raise NotSaved(
                "the crash info header cannot be read, and the dump is of the capture kernel, whose"
                f" variables do not say what the kernel that crashed wrote into it: {error}",
                address=error.address,
                state=error.state,
            ) from error
        # The capture kernel's /proc/vmcore leaves the reserve area out.
        inherent = error.state is State.ABSENT and not dump_of(prog).hypervisor
        why = f"the crash info header is reconstructed: {error}"
        problems.add(
            Problem(cause=Cause.FORMAT if inherent else Cause.NOT_SAVED, why=why, state=error.state)
        )
    except FormatError as error:
        # The magic is invalid: the verdict is on these bytes, the fields are the expected ones.
        wrong.append(str(error))
        why = "the crash info header is damaged; the fields shown are the expected ones"
        problems.add(Problem(cause=Cause.DAMAGED, why=why))
    if header is None:
        header, fields = reconstruct_header(prog, conf, layout, problems)
        if conf.active:
            fields = [of_the_reader(field) for field in fields]
        source = FadumpSource.RECONSTRUCTED
    else:
        source = FadumpSource.FOUND
        fields = found_fields(prog, header, problems)
        fields = compared_fields(prog, conf, layout, fields, problems)
        wrong += fadump_header_problems(header, conf.fadumphdr_addr)
    verdict = _judge(prog, build_fadump_header(header) if raw is None else raw, layout)
    firmware = problems.attempt(
        "what was registered with the firmware", lambda: _firmware(prog, conf)
    )
    if firmware is not None and conf.active:
        wrong += check_rtas_fadump_mem(firmware)
    area = problems.take(reserve_area_problems(prog, conf, layout.size, firmware))
    wrong += area
    overlap = problems.attempt("check of the reserve area", lambda: rtas_overlap(prog, conf))
    if overlap is not None:
        wrong.append(overlap.words)
    known = header
    elf = None
    if conf.active and source is FadumpSource.RECONSTRUCTED:
        why = "it is made from the crash info header of the kernel that crashed"
        problems.add(Problem(cause=Cause.DAMAGED, what="elfcorehdr", why=why))
    else:
        taken = problems.attempt("elfcorehdr", lambda: fadump_elf(prog, conf, known))
        elf = None if taken is None else problems.take(taken, "elfcorehdr")
    if elf is not None:
        wrong += elf.wrong
    return problems.partial(
        Fadump(
            state=conf.state,
            conf=conf,
            address=conf.fadumphdr_addr,
            source=source,
            header=header,
            fields=tuple(fields),
            verdict=verdict,
            area=tuple(reserve_area(conf, layout.size)),
            overlap=overlap,
            elf=elf,
            wrong=tuple(wrong),
        )
    )


def _judge(prog: Program, raw: bytes, layout: FadumpLayout) -> FadumpVerdict:
    """The verdict on the header by the check of the kernel in the dump."""
    return is_fadump_header_compatible(
        raw,
        byteorder=byteorder_of(prog),
        pt_regs_sz=layout.pt_regs_size,
        cpu_mask_sz=layout.cpu_mask_size,
        old_kernel=layout.name == "FADMPINF",
    )


def _firmware(prog: Program, conf: FwDump) -> RtasFadumpMem | None:
    if conf.platform is not FadumpPlatform.RTAS or not (conf.registered or conf.active):
        return None
    return firmware_structure(prog)


def scan_for_headers(prog: Program) -> Iterator[tuple[int, FadumpHeader]]:
    """
    Look for crash info headers in all memory that the dump holds: no debug info is needed.

    :return: Physical address and header.
    """

    def read(address: int, size: int) -> bytes | None:
        try:
            return read_physical(prog, address, size)
        except (NotSaved, NotFound):
            # not a problem: only what the dump holds is searched
            return None

    for part in coverage_of(prog).extent():
        if part.state is State.SAVED:
            yield from find_fadump_headers(read, part.start, part.end)


def _examine_blindly(prog: Program, missing: MissingDebugInfo) -> Partial[Fadump]:
    first = next(scan_for_headers(prog), None)
    if first is None:
        raise missing
    address, header = first
    problems = Problems()
    problems.add(missing, "found by a scan of memory")
    verdict = is_fadump_header_compatible(
        build_fadump_header(header).ljust(64, b"\0"),
        byteorder=byteorder_of(prog),
        pt_regs_sz=header.pt_regs_sz or 0,
        cpu_mask_sz=header.cpu_mask_sz or 0,
        old_kernel=header.layout == "FADMPINF",
    )
    return problems.partial(
        Fadump(
            state="crashed" if header.crashed else "registered",
            conf=None,
            address=address,
            source=FadumpSource.FOUND,
            header=header,
            fields=tuple(found_fields(prog, header, problems)),
            verdict=verdict,
            area=(),
            elf=None,
            wrong=tuple(fadump_header_problems(header, address)),
        )
    )
