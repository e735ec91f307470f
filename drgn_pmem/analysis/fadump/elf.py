# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The elfcorehdr of a firmware-assisted dump
------------------------------------------

Rebuilt as the kernel's generation builds it, and compared with the one in memory and with the
dump's own program headers.

Source: arch/powerpc/kernel/fadump.c: ``fadump_create_elfcore_headers()`` of the crashing kernel
(before 6.10), ``fadump_populate_elfcorehdr()`` of the capture kernel (since).
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from drgn import Program

from drgn_pmem.analysis.headers.compare import implied_elfcorehdr
from drgn_pmem.analysis.headers.rebuild import linear_map
from drgn_pmem.dumpfile import State, dump_of
from drgn_pmem.errors import PmemError
from drgn_pmem.formats.elfcompare import compare_elfcorehdr
from drgn_pmem.formats.elfcorehdr import (
    CrashHeader,
    ProgramHeader,
    build_elfcorehdr,
    parse_elfcorehdr,
)
from drgn_pmem.formats.elfprepare import fadump_create_elfcore_headers
from drgn_pmem.formats.fadump import FadumpHeader
from drgn_pmem.kernel.fadump import FwDump, relocated_vmcoreinfo
from drgn_pmem.kernel.kexec import read_physical
from drgn_pmem.kernel.memblock import for_each_mem_range
from drgn_pmem.kernel.pagetable import translate
from drgn_pmem.ranges import Range, RangeSet

__all__ = ("FadumpElf", "fadump_elf", "fadump_ranges")

_MAX_HEADER = 1 << 20


@dataclass(frozen=True)
class FadumpElf:
    """The elfcorehdr of a firmware-assisted dump."""

    rebuilt: CrashHeader
    found: CrashHeader | None
    """The one in memory, if the dump holds it."""
    identical: bool | None
    """Whether what was found is what is rebuilt, byte for byte."""
    matches_dump: bool | None
    """Whether the dump's PT_LOADs are the rebuilt ones; None if it was not made from them."""
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            **self.rebuilt.to_json(),
            "found": None if self.found is None else self.found.to_json(),
            "identical": self.identical,
            "matches_dump": self.matches_dump,
            "problems": list(self.problems),
        }


def fadump_ranges(prog: Program, conf: FwDump) -> list[tuple[int, int]]:
    """
    Memory above the boot memory, without the reserve area: start and end (exclusive). An empty
    range is a program header that the capture kernel counts but leaves empty.

    :raises PmemError: if memblock cannot be read
    """
    ranges: list[tuple[int, int]] = []
    for region in for_each_mem_range(prog):
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
            # fadump_add_mem_range() folds what is adjacent, above the boot memory only
            if ranges and ranges[-1][1] == piece[0]:
                ranges[-1] = (ranges[-1][0], piece[1])
            else:
                ranges.append(piece)
    return ranges


def _without(start: int, end: int, cut_start: int, cut_end: int) -> list[tuple[int, int]]:
    gaps = RangeSet([Range(cut_start, cut_end)]).gaps(start, end)
    return [(gap.start, gap.end) for gap in gaps]


def fadump_elf(prog: Program, conf: FwDump, header: FadumpHeader) -> FadumpElf:
    """
    Rebuild the elfcorehdr and compare it.

    :param header: The crash info header, found or reconstructed.
    :raises PmemError: if what it is built from cannot be read
    """
    problems: list[str] = []
    rebuilt = _rebuild(prog, conf, header)
    found = None
    try:
        found = _find(prog, conf, header)
    except PmemError as error:
        problems.append(f"elfcorehdr: {error}")
    identical = None
    if found is not None:
        size = len(rebuilt.raw or b"")
        identical = size > 0 and (found.raw or b"")[:size] == rebuilt.raw
        problems += [
            f"elfcorehdr: {difference.words}" for difference in compare_elfcorehdr(found, rebuilt)
        ]
    matches, words = _compare_dump(prog, conf, rebuilt)
    return FadumpElf(rebuilt, found, identical, matches, (*problems, *words))


def _rebuild(prog: Program, conf: FwDump, header: FadumpHeader) -> CrashHeader:
    notes = (0, 0)
    if conf.cpu_notes_buf_vaddr:
        # filled in by the capture kernel only
        notes = (translate(prog, conf.cpu_notes_buf_vaddr), conf.cpu_notes_buf_size)
    if header.vmcoreinfo_raddr is not None and header.vmcoreinfo_size is not None:
        vmcoreinfo = (header.vmcoreinfo_raddr, header.vmcoreinfo_size)
    else:
        place = relocated_vmcoreinfo(prog, conf)
        vmcoreinfo = (place.start, place.size)
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
    empty = ProgramHeader(0, 0, 0, 0, 0, 0, 0, what="empty")
    phdrs = tuple(
        empty if phdr.memory_size == 0 and phdr.what == "memory" else phdr for phdr in built.phdrs
    )
    built = dataclasses.replace(built, phdrs=phdrs)
    return dataclasses.replace(built, raw=build_elfcorehdr(built))


def _find(prog: Program, conf: FwDump, header: FadumpHeader) -> CrashHeader | None:
    """The elfcorehdr in memory: behind the crash info header, or in the capture kernel's own
    buffer."""
    if header.elfcorehdr_addr is not None:
        address = header.elfcorehdr_addr
        size = conf.reserve_end - address
    elif conf.elfcorehdr_vaddr and conf.elfcorehdr_size:
        address, size = translate(prog, conf.elfcorehdr_vaddr), conf.elfcorehdr_size
    else:
        return None
    if not _saved(prog, address):
        return None
    return parse_elfcorehdr(read_physical(prog, address, min(max(size, 64), _MAX_HEADER)), "found")


def _saved(prog: Program, address: int) -> bool:
    return dump_of(prog).coverage.state(address) is State.SAVED


def _compare_dump(
    prog: Program, conf: FwDump, rebuilt: CrashHeader
) -> tuple[bool | None, list[str]]:
    try:
        implied = implied_elfcorehdr(prog)
    except PmemError as error:
        return None, [f"the dump's program headers: {error}"]
    if any(phdr.what == "pages" for phdr in implied.phdrs) or _saved(prog, conf.reserve_start):
        # a page bitmap, or a dump of all memory: not made from an elfcorehdr
        return None, []
    mine = [(p.physical, p.virtual, p.memory_size, p.flags) for p in rebuilt.loads]
    its = [(p.physical, p.virtual, p.memory_size, p.flags) for p in implied.loads]
    if mine == its:
        return True, []
    words = [f"PT_LOADs: {item.words}" for item in compare_elfcorehdr(implied, rebuilt)]
    cut = any(s.file_size < s.memory_size for s in dump_of(prog).segments)
    if cut and all(" PT_LOADs in " in item for item in words):
        return None, []
    return False, words
