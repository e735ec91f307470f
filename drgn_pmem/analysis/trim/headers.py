# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Program headers for a dump without any
--------------------------------------

A kdump-compressed dump lacks the program headers of /proc/vmcore. They were those of the crash
header, which is in memory or can be rebuilt from the kernel's state.
"""

from collections.abc import Callable
from dataclasses import replace

from drgn import Program

from drgn_pmem.analysis.headers.compare import read_crash_headers
from drgn_pmem.analysis.headers.rebuild import linear_map
from drgn_pmem.dumpfile.records import DumpFile, DumpFormat, Segment
from drgn_pmem.dumpfile.writing.contents import Runs
from drgn_pmem.errors import NotFound
from drgn_pmem.formats.elfcorehdr import ProgramHeader
from drgn_pmem.partial import Problems
from drgn_pmem.ranges import Range, RangeSet

__all__ = ("filling_of", "segments_of")

_RWX = 7


def segments_of(
    prog: Program, dump: DumpFile, filling: RangeSet, problems: Problems
) -> list[Segment]:
    """
    Program headers: those of the file. Without any, those of the crash header for memory that the
    file covers, and one for each other run of memory that it covers.

    :param filling: What :func:`filling_of` gives.
    """
    if dump.contained is DumpFormat.ELF and not dump.hypervisor:
        return list(dump.segments)
    direct = _direct_map(prog, problems)
    if dump.contained is DumpFormat.ELF:
        # QEMU without page tables: the virtual addresses are physical ones.
        return [
            replace(s, virtual=direct(s.physical))
            if s.physical is not None and s.physical == s.virtual
            else s
            for s in dump.segments
        ]
    covered = Runs.of(dump.coverage.covered())
    segments: list[Segment] = []
    loads = _loads(prog, dump, problems)
    for load in loads:
        for part in _to_the_ends(list(covered.within(load.physical, load.end)), load, dump):
            virtual = part.start + load.virtual - load.physical
            segments.append(_segment(len(segments), part, virtual, load.flags))
    for part in covered.subtract(_named(loads)).subtract(filling):
        segments.append(_segment(len(segments), part, direct(part.start), _RWX))
    return segments


def _to_the_ends(parts: list[Range], load: ProgramHeader, dump: DumpFile) -> list[Range]:
    """Extended to the pages in which memory begins and ends, which a bitmap may lack."""
    page = dump.kdump.block_size if dump.kdump is not None else 1
    if parts and parts[0].start - load.physical < page:
        parts[0] = Range(load.physical, parts[0].end)
    if parts and load.end - parts[-1].end < page:
        parts[-1] = Range(parts[-1].start, load.end)
    return parts


def filling_of(prog: Program, dump: DumpFile, page_size: int, problems: Problems) -> RangeSet:
    """What a compressed dump covers only because its unit is a page: the rest of pages in which
    memory of the crash header begins or ends."""
    if dump.contained is not DumpFormat.KDUMP:
        return RangeSet()
    named = _named(_loads(prog, dump, problems))
    found = []
    for part in Runs.of(dump.coverage.covered()).subtract(named):
        first = part.start // page_size * page_size
        last = (part.end - 1) // page_size * page_size
        for page in {first, last}:
            if named.size(page, page + page_size):
                found.append(Range(max(part.start, page), min(part.end, page + page_size)))
    return RangeSet(found)


def _loads(prog: Program, dump: DumpFile, problems: Problems) -> tuple[ProgramHeader, ...]:
    if dump.hypervisor:
        return ()  # it holds all memory, not what a crash header lists
    own = Problems()
    headers = None
    with own.trying("crash header"):
        try:
            headers = own.take(read_crash_headers(prog))
        except NotFound:
            # not a problem: no crash kernel was loaded; all covered memory gets headers anyway
            return ()
    # That this file has no headers of its own is the reason for making them.
    problems.extend(problem for problem in own if problem.degrades)
    if headers is None:
        return ()
    header = headers.found or headers.rebuilt
    return () if header is None else tuple(header.loads)


def _named(loads: tuple[ProgramHeader, ...]) -> RangeSet:
    return RangeSet(Range(load.physical, load.end) for load in loads)


def _segment(index: int, part: Range, virtual: int, flags: int) -> Segment:
    return Segment(
        index=index,
        type="PT_LOAD",
        physical=part.start,
        virtual=virtual,
        file_offset=0,
        file_size=0,
        memory_size=part.size,
        flags=flags,
    )


def _direct_map(prog: Program, problems: Problems) -> Callable[[int], int]:
    with problems.trying("direct map"):
        return linear_map(prog)
    return lambda physical: physical
