# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The elfcorehdr of a firmware-assisted dump
------------------------------------------

Rebuilt as this kernel builds it, and compared with the one in memory and with the dump's own
program headers.

Source: arch/powerpc/kernel/fadump.c: ``fadump_create_elfcore_headers()`` of the crashing kernel
(before 6.10), ``fadump_populate_elfcorehdr()`` of the capture kernel (since).
"""

import dataclasses
from typing import Any

from drgn import Program

from drgn_pmem.analysis.headers.rebuild import linear_map
from drgn_pmem.analysis.headers.sources import implied_elfcorehdr
from drgn_pmem.dumpfile import State, coverage_of, dump_of
from drgn_pmem.formats.elfcompare import DifferenceKind, compare_elfcorehdr
from drgn_pmem.formats.elfcorehdr import (
    CrashHeader,
    HeaderSource,
    ProgramHeader,
    Role,
    build_elfcorehdr,
    parse_elfcorehdr,
)
from drgn_pmem.formats.elfprepare import fadump_create_elfcore_headers
from drgn_pmem.formats.fadump import FadumpHeader
from drgn_pmem.kernel.fadump import FwDump, relocated_vmcoreinfo
from drgn_pmem.kernel.memblock import for_each_mem_range
from drgn_pmem.kernel.physical import physical_of, read_physical
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.ranges import Range, RangeSet
from drgn_pmem.record import Record, shown

__all__ = ("FadumpElf", "fadump_elf", "fadump_ranges")

_MAX_HEADER = 1 << 20


class FadumpElf(Record):
    """The elfcorehdr of a firmware-assisted dump."""

    rebuilt: CrashHeader
    found: CrashHeader | None
    """The one in memory, if the dump holds it."""
    identical: bool | None
    """Whether the one found equals the rebuilt one, byte for byte."""
    matches_dump: bool | None
    """Whether the dump's PT_LOADs are the rebuilt ones; None if it was not made from them, or that
    is not known."""
    wrong: tuple[str, ...] = shown(key="problems")
    """What differs."""

    def to_json(self) -> dict[str, Any]:
        json = super().to_json()
        return {**json.pop("rebuilt"), **json}


def fadump_ranges(prog: Program, conf: FwDump) -> list[tuple[int, int]]:
    """
    Memory above the boot memory, without the reserve area: start and end (exclusive). An empty
    range is a program header that the capture kernel counts but leaves empty.

    :raises PmemError: if memblock cannot be read in full
    """
    ranges: list[tuple[int, int]] = []
    for region in for_each_mem_range(prog).whole():
        start, end = region.start, region.end
        if start < conf.boot_mem_top:
            if end <= conf.boot_mem_top:
                continue
            start = conf.boot_mem_top
        pieces = _without(start, end, conf.reserve_start, conf.reserve_end)
        if conf.built_by_capture_kernel:
            ranges += pieces or [(end, end)]
            continue
        for piece in pieces:
            # fadump_add_mem_range() merges adjacent ranges, above the boot memory only
            if ranges and ranges[-1][1] == piece[0]:
                ranges[-1] = (ranges[-1][0], piece[1])
            else:
                ranges.append(piece)
    return ranges


def _without(start: int, end: int, cut_start: int, cut_end: int) -> list[tuple[int, int]]:
    gaps = RangeSet([Range(cut_start, cut_end)]).gaps(start, end)
    return [(gap.start, gap.end) for gap in gaps]


def fadump_elf(prog: Program, conf: FwDump, header: FadumpHeader) -> Partial[FadumpElf]:
    """
    Rebuild the elfcorehdr and compare it.

    :param header: The crash info header, found or reconstructed.
    :raises PmemError: if what it is built from cannot be read in full
    """
    problems = Problems()
    wrong: list[str] = []
    rebuilt = _rebuild(prog, conf, header)
    found = problems.attempt("elfcorehdr in memory", lambda: _find(prog, conf, header))
    identical = None
    if found is not None:
        size = len(rebuilt.raw or b"")
        identical = size > 0 and (found.raw or b"")[:size] == rebuilt.raw
        wrong += [
            f"elfcorehdr: {difference.words}" for difference in compare_elfcorehdr(found, rebuilt)
        ]
    compared = problems.attempt(
        "the dump's program headers", lambda: _compare_dump(prog, conf, rebuilt, problems)
    )
    matches, words = compared or (None, [])
    return problems.partial(
        FadumpElf(
            rebuilt=rebuilt,
            found=found,
            identical=identical,
            matches_dump=matches,
            wrong=(*wrong, *words),
        )
    )


def _rebuild(prog: Program, conf: FwDump, header: FadumpHeader) -> CrashHeader:
    notes = (0, 0)
    if conf.cpu_notes_buf_vaddr:
        # filled in by the capture kernel only
        place = physical_of(prog, conf.cpu_notes_buf_vaddr, "fw_dump.cpu_notes_buf_vaddr")
        notes = (place, conf.cpu_notes_buf_size)
    if header.vmcoreinfo_raddr is not None and header.vmcoreinfo_size is not None:
        vmcoreinfo = (header.vmcoreinfo_raddr, header.vmcoreinfo_size)
    else:
        note = relocated_vmcoreinfo(prog, conf)
        vmcoreinfo = (note.start, note.size)
    ranges = fadump_ranges(prog, conf)
    built = fadump_create_elfcore_headers(
        cpu_notes=notes,
        vmcoreinfo=vmcoreinfo,
        boot_regions=[(region.start, region.size) for region in conf.boot_regions],
        boot_mem_dest_addr=conf.boot_mem_dest_addr,
        ranges=ranges,
        virtual=linear_map(prog),
        byteorder=header.byteorder,
    )
    if all(start < end for start, end in ranges):
        return built
    empty = ProgramHeader(type=0, flags=0, physical=0, file_size=0, memory_size=0, role=Role.EMPTY)
    phdrs = tuple(
        empty if phdr.memory_size == 0 and phdr.role is Role.MEMORY else phdr
        for phdr in built.phdrs
    )
    built = dataclasses.replace(built, phdrs=phdrs)
    return dataclasses.replace(built, raw=build_elfcorehdr(built))


def _find(prog: Program, conf: FwDump, header: FadumpHeader) -> CrashHeader | None:
    """
    The elfcorehdr in memory: after the crash info header, or in the capture kernel's own buffer.
    None if there is none, or if it is in the reserve area of a dump that leaves that out.
    """
    if header.elfcorehdr_addr is not None:
        address = header.elfcorehdr_addr
        size = conf.reserve_end - address
        if coverage_of(prog).state(address) is State.ABSENT:
            return None
    elif conf.elfcorehdr_vaddr and conf.elfcorehdr_size:
        address = physical_of(prog, conf.elfcorehdr_vaddr, "fw_dump.elfcorehdr_addr")
        size = conf.elfcorehdr_size
    else:
        return None
    data = read_physical(prog, address, min(max(size, 64), _MAX_HEADER))
    return parse_elfcorehdr(data, HeaderSource.FOUND)


def _compare_dump(
    prog: Program, conf: FwDump, rebuilt: CrashHeader, problems: Problems
) -> tuple[bool | None, list[str]]:
    implied = problems.take(implied_elfcorehdr(prog))
    coverage = coverage_of(prog)
    if implied.of_bitmap or coverage.state(conf.reserve_start) is not State.ABSENT:
        # a page bitmap, or a dump of all memory: not made from an elfcorehdr
        return None, []
    mine = [(p.physical, p.virtual, p.memory_size, p.flags) for p in rebuilt.loads]
    its = [(p.physical, p.virtual, p.memory_size, p.flags) for p in implied.loads]
    if mine == its:
        return True, []
    differences = compare_elfcorehdr(implied, rebuilt)
    cut = any(s.file_size < s.memory_size for s in dump_of(prog).segments)
    if cut and all(item.kind is DifferenceKind.SPLIT for item in differences):
        return None, []
    return False, [f"PT_LOADs: {item.words}" for item in differences]
