# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Page report
-----------

The lines of makedumpfile's report for a dump that is already there, pmem's among them. As in
makedumpfile, a page that a segment has only the beginning of counts. Unlike it, a page that two
segments have (the kernel image, RAM on pmem) counts once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from drgn import Program
import numpy as np

from drgn_pmem.analysis.coverage.namespaces import read_namespace_coverage
from drgn_pmem.analysis.inventory.machine import read_machine
from drgn_pmem.dumpfile import Coverage, DumpFile, State, coverage_of, dump_of, vmcoreinfo_of
from drgn_pmem.errors import DumpFileError, MissingDebugInfo, NotFound
from drgn_pmem.partial import Problems
from drgn_pmem.ranges import Range, RangeSet

__all__ = ("Usage", "UsageLine", "read_usage")

_STATES = (State.SAVED, State.EXCLUDED, State.TRUNCATED, State.ABSENT)


@dataclass(frozen=True)
class UsageLine:
    """One line of the report."""

    name: str
    """makedumpfile's words."""
    depth: int
    pages: int | None
    """None if no one can tell."""
    states: dict[State, int]
    """Pages by state."""

    @property
    def text(self) -> str:
        """Indented as makedumpfile does."""
        return "  " * self.depth + self.name

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "pages": self.pages,
            "states": {state.value: pages for state, pages in self.states.items()},
        }


@dataclass(frozen=True)
class Usage:
    """Pages of a dump. All numbers are pages."""

    page_size: int
    """bytes"""
    total: int
    """Page frames up to the last one that the dump knows of."""
    original: int
    """Pages that there were: those that the dump covers."""
    saved: int
    truncated: int
    pmem_metadata: dict[State, int]
    """Info blocks and struct pages on pmem: what the devm_memmap_vmcore list has."""
    pmem_userdata: dict[State, int]
    """All other persistent memory."""
    pmem_known: bool = True
    """Whether anything told what was persistent memory; a machine without any is known too."""
    overlap: int = 0
    """Pages that more than one segment has; makedumpfile counts them again."""
    notes: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    """What could not be counted, and why."""

    @property
    def excluded(self) -> int:
        """Left out by makedumpfile."""
        return self.original - self.saved - self.truncated

    @property
    def hole(self) -> int:
        """Page frames that no segment covers."""
        return self.total - self.original

    def lines(self) -> Iterator[UsageLine]:
        """The report."""
        there = {
            State.SAVED: self.saved,
            State.EXCLUDED: self.excluded,
            State.TRUNCATED: self.truncated,
        }
        held = {State.SAVED: self.saved, State.TRUNCATED: self.truncated}
        yield UsageLine("Original pages", 0, self.original, _nonzero(there))
        yield UsageLine(
            "Excluded pages", 1, self.excluded, _nonzero({State.EXCLUDED: self.excluded})
        )
        yield UsageLine("Remaining pages", 1, self.saved + self.truncated, _nonzero(held))
        yield UsageLine("Memory Hole", 0, self.hole, _nonzero({State.ABSENT: self.hole}))
        yield UsageLine("Total pages", 0, self.total, _nonzero(there | {State.ABSENT: self.hole}))
        for name, states in (
            ("pmem metadata pages", self.pmem_metadata),
            ("pmem userdata pages", self.pmem_userdata),
        ):
            pages = sum(states.values()) if self.pmem_known else None
            yield UsageLine(name, 0, pages, states)

    def _pmem_json(self, states: dict[State, int]) -> dict[str, int] | None:
        return {s.value: n for s, n in states.items()} if self.pmem_known else None

    def to_json(self) -> dict[str, Any]:
        return {
            "page_size": self.page_size,
            "original": self.original,
            "excluded": self.excluded,
            "remaining": self.saved + self.truncated,
            "truncated": self.truncated,
            "memory_hole": self.hole,
            "total": self.total,
            "overlap": self.overlap,
            "pmem_metadata": self._pmem_json(self.pmem_metadata),
            "pmem_userdata": self._pmem_json(self.pmem_userdata),
        }


def _nonzero(states: dict[State, int]) -> dict[State, int]:
    return {state: pages for state, pages in states.items() if pages}


def read_usage(prog: Program) -> Usage:
    """
    Count the pages of the dump behind a program.

    :raises DumpFileError: if the program has no dump file, or is live
    """
    dump = dump_of(prog)
    coverage = coverage_of(prog)
    if dump.source is None:
        raise DumpFileError("live memory has no page report: it is not a dump")
    size = dump.kdump.block_size if dump.kdump else vmcoreinfo_of(prog).page_size or 4096
    original, end = _present(coverage, size)
    metadata, userdata, notes, lacks = _pmem(prog, dump, coverage, size)
    cut = _cut_through(coverage, size)
    saved = _begun(coverage, State.SAVED, size)
    truncated = _begun(coverage, State.TRUNCATED, size)
    return Usage(
        size,
        dump.kdump.max_mapnr if dump.kdump else -(-end // size),
        original,
        saved - cut,
        truncated + cut,
        metadata,
        userdata,
        bool(metadata or userdata or Problems().take(read_machine(prog)).iomem),
        _overlap(dump, size, original),
        tuple(notes),
        tuple(lacks),
    )


def _begun(coverage: Coverage, state: State, size: int) -> int:
    """Pages whose first byte is in a state."""
    first, last = coverage.runs(state)
    step = np.uint64(size)
    low = first // step + (first % step != 0).astype(np.uint64)
    high = last // step + np.uint64(1)
    return int((high - np.minimum(low, high)).sum())


def _cut_through(coverage: Coverage, size: int) -> int:
    """Pages that are saved in front and truncated behind: they count as truncated."""
    step = np.uint64(size)
    first, _ = coverage.runs(State.TRUNCATED)
    pages = np.unique(first[first % step != 0] // step * step)
    return sum(coverage.state(page) is State.SAVED for page in pages.tolist())


def _overlap(dump: DumpFile, size: int, original: int) -> int:
    """Pages that more than one segment has: by how much the sum of the segments is too large."""
    if dump.kdump is not None:
        return 0
    places = [(s.physical, s.memory_size) for s in dump.segments]
    pages = (-(-(p + n) // size) - -(-p // size) for p, n in places if p is not None and n)
    return max(0, sum(pages) - original)


def _present(coverage: Coverage, size: int) -> tuple[int, int]:
    """Pages that are not absent; end of the last one in bytes."""
    parts = coverage.covered()
    pages = sum(-(-part.end // size) - -(-part.start // size) for part in parts)
    return pages, parts[-1].end if parts else 0


def _pmem(
    prog: Program, dump: DumpFile, coverage: Coverage, size: int
) -> tuple[dict[State, int], dict[State, int], list[str], list[str]]:
    """Pages of pmem metadata and user data by state, notes, and what could not be counted."""
    notes: list[str] = []
    lacks: list[str] = []
    ranges: list[Range] = []
    everything: list[Range] = []
    try:
        for item in read_namespace_coverage(prog).namespaces:
            everything.append(Range(item.start, item.end))
            if item.map != "dev":
                continue
            data = min((s.start for s in item.stretches if s.kind == "data"), default=item.end)
            ranges.append(Range(item.start, data))
    except MissingDebugInfo as error:
        lacks.append(f"pmem pages: {error}")
    except NotFound as error:
        notes.append(str(error))
    problems = Problems()
    machine = problems.take(read_machine(prog))
    # What was used as RAM is no persistent memory to makedumpfile.
    pmem = machine.pmem.union(everything).subtract(machine.system_ram)
    if machine.pmem_sources and "PF_DEV" not in machine.pmem_sources and not dump.segments:
        notes.append(f"what is pmem is told from {', '.join(machine.pmem_sources)}")
    metadata = RangeSet(ranges)
    meta, data_states = dict.fromkeys(_STATES, 0), dict.fromkeys(_STATES, 0)
    for part in pmem:
        for piece, is_metadata in metadata.split(part.start, part.end):
            _add(meta if is_metadata else data_states, coverage, piece)
    return _pages(meta, size), _pages(data_states, size), notes, lacks


def _add(states: dict[State, int], coverage: Coverage, part: Range) -> None:
    for state, size in coverage.count(part.start, part.end).items():
        states[state] += size


def _pages(states: dict[State, int], size: int) -> dict[State, int]:
    pages = {state: count // size for state, count in states.items() if count}
    if State.TRUNCATED in pages:
        # A page that the end of the file cuts through is truncated.
        pages[State.TRUNCATED] += sum(states.values()) // size - sum(pages.values())
    return pages
