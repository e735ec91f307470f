# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Page report
-----------

The lines of makedumpfile's report for an existing dump, including those of pmem. As in
makedumpfile, a page counts if a segment has its beginning. Unlike makedumpfile, a page that is in
two segments (the kernel image, RAM on pmem) counts once.
"""

from collections.abc import Iterator
from typing import Any

from drgn import Program
import numpy as np

from drgn_pmem.analysis.coverage.namespaces import read_namespace_coverage
from drgn_pmem.analysis.coverage.records import NamespaceCoverage
from drgn_pmem.analysis.inventory.machine import read_machine
from drgn_pmem.analysis.inventory.parts import USERDATA
from drgn_pmem.dumpfile import (
    Coverage,
    DumpFile,
    DumpFormat,
    Segment,
    State,
    coverage_of,
    dump_of,
    vmcoreinfo_of,
)
from drgn_pmem.dumpfile.compressed import CompressedPages
from drgn_pmem.errors import NotFound
from drgn_pmem.partial import Cause, Partial, Problems
from drgn_pmem.ranges import Range, RangeSet, distinct
from drgn_pmem.record import Record, shown

__all__ = ("Usage", "UsageLine", "read_usage")

_STATES = (State.SAVED, State.EXCLUDED, State.TRUNCATED, State.DAMAGED, State.ABSENT)


class UsageLine(Record):
    """One line of the report."""

    name: str
    """makedumpfile's wording."""
    depth: int = shown(json=False)
    """How far makedumpfile indents it."""
    pages: int | None
    """None if that is not known."""
    states: dict[State, int]
    """Pages by state."""


class Usage(Record):
    """Pages of a dump. All numbers are pages."""

    page_size: int
    """bytes"""
    total: int
    """Page frames up to the last one in the dump."""
    original: int
    """Pages that the dump covers."""
    saved: int
    truncated: int
    damaged: int = 0
    """Pages that the file's own entries do not lead to."""
    pmem_metadata: dict[State, int]
    """Info blocks and struct pages on pmem: what the devm_memmap_vmcore list has."""
    pmem_userdata: dict[State, int]
    """All other persistent memory."""
    pmem_known: bool = True
    """Whether it is known what was persistent memory, and what of it is metadata; a machine
    without any is known too."""
    partial_pages: int = 0
    """Pages that a segment has only the beginning of, as where RAM ends within a page; makedumpfile
    leaves them out of a compressed dump."""
    overlap: int | None = 0
    """Pages that more than one segment has; makedumpfile counts them again. None where the format
    has no segments."""
    zero: int | None = None
    """Of the saved pages, those that are zero and share their data in the file: makedumpfile counts
    them as excluded. None where the format has no descriptors of pages."""
    notes: tuple[str, ...] = ()

    @property
    def excluded(self) -> int:
        """Left out by makedumpfile."""
        return self.original - self.remaining

    @property
    def remaining(self) -> int:
        """Not left out, whether they can be read or not."""
        return self.saved + self.truncated + self.damaged

    @property
    def hole(self) -> int:
        """Page frames that no segment covers."""
        return self.total - self.original

    def lines(self) -> Iterator[UsageLine]:
        """The report."""
        held = {
            State.SAVED: self.saved,
            State.TRUNCATED: self.truncated,
            State.DAMAGED: self.damaged,
        }
        there = held | {State.EXCLUDED: self.excluded}
        hole = {State.ABSENT: self.hole}
        zero = (
            ()
            if self.zero is None
            else (("Pages filled with zero", 2, self.zero, {State.SAVED: self.zero}),)
        )
        for name, depth, pages, states in (
            ("Original pages", 0, self.original, there),
            ("Excluded pages", 1, self.excluded, {State.EXCLUDED: self.excluded}),
            ("Remaining pages", 1, self.remaining, held),
            *zero,
            ("Memory Hole", 0, self.hole, hole),
            ("Total pages", 0, self.total, there | hole),
        ):
            yield UsageLine(name=name, depth=depth, pages=pages, states=_nonzero(states))
        for name, states in (
            ("pmem metadata pages", self.pmem_metadata),
            ("pmem userdata pages", self.pmem_userdata),
        ):
            known = sum(states.values()) if self.pmem_known else None
            yield UsageLine(name=name, depth=0, pages=known, states=states)

    def _pmem_json(self, states: dict[State, int]) -> dict[str, int] | None:
        return {s.value: n for s, n in states.items()} if self.pmem_known else None

    def to_json(self) -> dict[str, Any]:
        return {
            "page_size": self.page_size,
            "original": self.original,
            "excluded": self.excluded,
            "remaining": self.remaining,
            "truncated": self.truncated,
            "damaged": self.damaged,
            "memory_hole": self.hole,
            "total": self.total,
            "overlap": self.overlap,
            "partial_pages": self.partial_pages,
            "zero": self.zero,
            "pmem_metadata": self._pmem_json(self.pmem_metadata),
            "pmem_userdata": self._pmem_json(self.pmem_userdata),
        }


def _nonzero(states: dict[State, int]) -> dict[State, int]:
    return {state: pages for state, pages in states.items() if pages}


def read_usage(prog: Program) -> Partial[Usage]:
    """
    Count the pages of the dump of a program.

    Of a live kernel, what can be read of its memory counts as saved.

    :raises DumpFileError: if the program has no dump file
    """
    dump = dump_of(prog)
    coverage = coverage_of(prog)
    size = dump.kdump.block_size if dump.kdump else vmcoreinfo_of(prog).page_size or 4096
    original, end = _present(coverage, size)
    problems = Problems()
    notes: list[str] = []
    if dump.contained is DumpFormat.LIVE:
        notes.append("live memory: pages that can be read count as saved")
    metadata, userdata, known = _pmem(prog, coverage, size, notes, problems)
    cut = _cut_through(coverage, size)
    usage = Usage(
        page_size=size,
        total=dump.kdump.max_mapnr if dump.kdump else -(-end // size),
        original=original,
        saved=_begun(coverage, State.SAVED, size) - cut,
        truncated=_begun(coverage, State.TRUNCATED, size) + cut,
        damaged=_begun(coverage, State.DAMAGED, size),
        pmem_metadata=metadata,
        pmem_userdata=userdata,
        pmem_known=known,
        overlap=_overlap(dump, size, original),
        partial_pages=0 if dump.kdump else sum(_end(s) % size != 0 for s in dump.segments),
        zero=_zero(dump),
        notes=tuple(notes),
    )
    return problems.partial(usage)


def _begun(coverage: Coverage, state: State, size: int) -> int:
    """Pages whose first byte is in a state."""
    first, last = coverage.runs(state)
    step = np.uint64(size)
    low = first // step + (first % step != 0).astype(np.uint64)
    high = last // step + np.uint64(1)
    return int((high - np.minimum(low, high)).sum())


def _cut_through(coverage: Coverage, size: int) -> int:
    """Pages whose beginning is saved and whose end is truncated: they count as truncated."""
    step = np.uint64(size)
    first, _ = coverage.runs(State.TRUNCATED)
    pages = distinct(first[first % step != 0] // step * step)
    return sum(coverage.state(page) is State.SAVED for page in pages.tolist())


def _zero(dump: DumpFile) -> int | None:
    pages: CompressedPages | None = getattr(dump.memory, "pages", None)
    return None if dump.kdump is None or pages is None else pages.zero_pages()


def _overlap(dump: DumpFile, size: int, original: int) -> int | None:
    """Pages that more than one segment has: by how much the sum of the segments is too large."""
    if dump.kdump is not None:
        return None
    places = [(s.physical, s.memory_size) for s in dump.segments]
    pages = (-(-(p + n) // size) - -(-p // size) for p, n in places if p is not None and n)
    return max(0, sum(pages) - original)


def _end(segment: Segment) -> int:
    physical = segment.physical
    return 0 if physical is None else physical + segment.memory_size


def _present(coverage: Coverage, size: int) -> tuple[int, int]:
    """Pages that are not absent; end of the last one in bytes."""
    parts = coverage.covered()
    pages = sum(-(-part.end // size) - -(-part.start // size) for part in parts)
    return pages, parts[-1].end if parts else 0


def _pmem(
    prog: Program, coverage: Coverage, size: int, notes: list[str], problems: Problems
) -> tuple[dict[State, int], dict[State, int], bool]:
    """Pages of pmem metadata and user data by state, and whether those are all."""
    ranges: list[Range] = []
    everything: list[Range] = []
    namespaces: tuple[NamespaceCoverage, ...] = ()
    with problems.trying("pmem pages"):
        try:
            namespaces = problems.take(read_namespace_coverage(prog)).namespaces
        except NotFound as error:
            notes.append(str(error))
    for item in namespaces:
        if item.end is None or not item.is_persistent:
            continue
        everything.append(Range(item.start, item.end))
        if item.map == "dev":
            data = min((s.start for s in item.stretches if s.kind == USERDATA), default=item.end)
            ranges.append(Range(item.start, data))
    partial = read_machine(prog)
    machine = problems.take(partial)
    # Without debug info, only what the dump itself has is asked for.
    unread = any(p.degrades and p.cause is not Cause.NO_DEBUG_INFO for p in partial.problems)
    known = {n.namespace for n in namespaces if not n.unknown or n.mode in ("raw", "sector")}
    # Without an info block it is not known what of a namespace is metadata.
    mixed = any(item.end is None for item in namespaces)
    mixed |= any(n.enabled is not False and n.dev not in known for n in machine.namespaces)
    # makedumpfile does not count pmem used as RAM as persistent memory.
    pmem = machine.pmem.union(everything).subtract(machine.system_ram)
    if machine.pmem_sources and "PF_DEV" not in machine.pmem_sources and not dump_of(prog).segments:
        notes.append(f"what is pmem is known from {', '.join(machine.pmem_sources)}")
    metadata = RangeSet(ranges)
    meta, data_states = dict.fromkeys(_STATES, 0), dict.fromkeys(_STATES, 0)
    for part in pmem:
        for piece, is_metadata in metadata.split(part.start, part.end):
            _add(meta if is_metadata else data_states, coverage, piece)
    pages = _pages(meta, size), _pages(data_states, size)
    return *pages, not unread and not mixed and bool(any(pages) or machine.iomem)


def _add(states: dict[State, int], coverage: Coverage, part: Range) -> None:
    for state, size in coverage.count(part.start, part.end).items():
        states[state] += size


def _pages(states: dict[State, int], size: int) -> dict[State, int]:
    pages = {state: count // size for state, count in states.items() if count}
    if State.TRUNCATED in pages:
        # A page that the end of the file cuts through is truncated.
        pages[State.TRUNCATED] += sum(states.values()) // size - sum(pages.values())
    return pages
