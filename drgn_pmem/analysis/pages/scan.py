# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Scanning struct pages
---------------------

Whole struct page arrays in bulk: :func:`~drgn_pmem.analysis.pages.stream.for_each_runs` yields runs
of equal pages, :func:`scan_pages` counts them by (flags, refcount, mapping) and keeps those asked
for. Memory use does not depend on the size of the array; Ctrl-C returns what was done so far.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from drgn import Program
import numpy as np

from drgn_pmem.analysis.pages.runs import (
    EMPTY,
    KEY,
    RUN,
    Kind,
)
from drgn_pmem.analysis.pages.stream import for_each_runs, joined_memmap, never_written
from drgn_pmem.dumpfile import Coverage, State
from drgn_pmem.partial import Cause, Partial, Problem, Problems

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Runs = NDArray[np.void]
    Mask = NDArray[np.bool_]

__all__ = (
    "GROUP",
    "RUN",
    "Kind",
    "Scan",
    "scan_pages",
    "scan_some",
)

GROUP = np.dtype([(name, RUN[name]) for name in KEY] + [("pages", "u8"), ("runs", "u8")])
"""Pages that are equal but for their index, wherever they are."""

_PENDING = 1 << 17
"""Runs that are collected before they are grouped."""
_MAX_GROUPS = 1 << 19

Progress = Callable[[int, int], Any]


@dataclass
class Scan:
    """What a scan found."""

    pages: int = 0
    """Pages looked at."""
    total: int = 0
    """Pages to look at."""
    groups: "Runs" = field(default_factory=lambda: np.zeros(0, GROUP))
    """Array of :data:`GROUP`, the largest first."""
    runs: "Runs" = field(default_factory=lambda: EMPTY)
    """Array of :data:`RUN`: those that were asked for, in order of PFN."""
    dropped: int = 0
    """Runs that were asked for beyond the limit."""

    def count(self, state: State) -> int:
        """Pages whose struct page is in this state (initialised ones only)."""
        groups = self.groups
        mask = (groups["state"] == Coverage.code(state)) & (groups["kind"] != Kind.UNINITIALISED)
        return int(groups["pages"][mask].sum())


class _Groups:
    """Counts runs by their key."""

    def __init__(self) -> None:
        self._pending: list[Runs] = []
        self._size = 0
        self.overflow = 0
        """Pages in groups beyond the limit."""

    def add(self, runs: "Runs") -> None:
        groups = np.zeros(len(runs), GROUP)
        for name in KEY:
            groups[name] = runs[name]
        groups["pages"], groups["runs"] = runs["count"], 1
        self._pending.append(groups)
        self._size += len(groups)
        if self._size > max(_PENDING, 2 * len(self._pending[0])):
            self.reduce()

    def reduce(self) -> "Runs":
        groups = np.concatenate([np.zeros(0, GROUP), *self._pending])
        groups = groups[np.lexsort([groups[name] for name in KEY])]
        if len(groups):
            new = np.zeros(len(groups), bool)
            new[0] = True
            for name in KEY:
                new[1:] |= groups[name][1:] != groups[name][:-1]
            starts = np.flatnonzero(new)
            pages = np.add.reduceat(groups["pages"], starts)
            runs = np.add.reduceat(groups["runs"], starts)
            groups = groups[starts]
            groups["pages"], groups["runs"] = pages, runs
            groups = groups[np.argsort(groups["pages"], kind="stable")[::-1]]
            self.overflow += int(groups["pages"][_MAX_GROUPS:].sum())
            groups = groups[:_MAX_GROUPS]
        self._pending, self._size = [groups], len(groups)
        return groups


class _Kept:
    """Runs that were asked for, up to a limit."""

    def __init__(self, where: "Callable[[Runs], Mask] | None", limit: int) -> None:
        self._where, self._limit = where, limit
        self._parts: list[Runs] = []
        self._size = 0
        self.dropped = 0

    def add(self, runs: "Runs") -> None:
        if not self._limit:
            return
        if self._where is not None:
            runs = runs[self._where(runs)]
        room = max(self._limit - self._size, 0)
        self.dropped += max(len(runs) - room, 0)
        if room and len(runs):
            self._parts.append(runs[:room].copy())
            self._size += len(self._parts[-1])

    def runs(self) -> "Runs":
        return np.concatenate([EMPTY, *self._parts])


def scan_pages(
    prog: Program,
    ranges: Iterable[tuple[int, int, Kind]],
    *,
    where: "Callable[[Runs], Mask] | None" = None,
    keep: int = 1 << 20,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Partial[Scan]:
    """
    Scan struct pages: count them by state, flags, refcount and mapping, and keep runs.

    :param ranges: (first PFN, end PFN exclusive, kind), see :func:`scan_ranges`. Struct pages that
        the kernel never initialised are counted, not read.
    :param where: Which runs to keep: function of an array of :data:`RUN` that returns a mask; all
        if None.
    :param keep: How many runs to keep at most; 0 for groups only.
    :param workers: as :func:`for_each_runs`
    :param progress: Called with (pages done, pages in all) now and then.
    :return: What was found; after Ctrl-C what was found until then. Struct pages that are not in
        the dump are counted by their state, and are problems too.
    :raises MissingDebugInfo: if the layout of struct page is not known
    """
    partial = scan_some(prog, ranges, where=where, keep=keep, workers=workers, progress=progress)
    problems = Problems()
    scan = problems.take(partial)
    if scan.dropped:
        why = f"{scan.dropped} more runs of pages were not kept (limit {keep})"
        problems.add(Problem(cause=Cause.LIMIT, why=why))
    return problems.partial(scan)


def scan_some(
    prog: Program,
    ranges: Iterable[tuple[int, int, Kind]],
    *,
    where: "Callable[[Runs], Mask] | None",
    keep: int,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Partial[Scan]:
    """As :func:`scan_pages`, where some of the runs are enough: those beyond the limit are no
    problem, :attr:`Scan.dropped` counts them."""
    todo = list(ranges)
    scan = Scan(total=sum(end - start for start, end, _ in todo))
    groups, kept, problems = _Groups(), _Kept(where, keep), Problems()
    try:
        for start, end, kind in todo:
            if kind is Kind.UNINITIALISED:
                parts = never_written(prog, start, end)
            else:
                parts = for_each_runs(prog, start, end, problems, kind=kind, workers=workers)
            for runs in joined_memmap(parts) if kind is Kind.MEMMAP else parts:
                groups.add(runs)
                kept.add(runs)
                scan.pages += int(runs["count"].sum())
                if progress is not None:
                    progress(scan.pages, scan.total)
    except KeyboardInterrupt:
        why = f"interrupted: {scan.pages} of {scan.total} pages were looked at"
        problems.add(Problem(cause=Cause.INTERRUPTED, why=why))
    scan.groups, scan.runs = groups.reduce(), kept.runs()
    if groups.overflow:
        why = f"{groups.overflow} pages are not grouped: too many groups"
        problems.add(Problem(cause=Cause.LIMIT, why=why))
    scan.dropped = kept.dropped
    _name_missing(scan, problems)
    return problems.partial(scan)


def _name_missing(scan: Scan, problems: Problems) -> None:
    """Struct pages that the dump should hold and does not. Those that are not mapped never
    existed."""
    every = sum(scan.count(state) for state in State)
    for state in State:
        count = 0 if state in (State.SAVED, State.UNMAPPED) else scan.count(state)
        if count:
            which = f"none of the {every} struct pages is in the dump"
            if count < every:
                which = f"{count} of {every} struct pages are not in the dump"
            why = f"{which}: {state.value}; pmem-coverage shows why, pmem-files does not need them"
            problems.add(Problem(cause=Cause.NOT_SAVED, why=why, state=state))
