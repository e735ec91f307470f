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
        return _count(self.groups, state)


def _count(groups: "Runs", state: State) -> int:
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
    own = _Groups()  # of the pages that hold the struct pages
    try:
        for start, end, kind in todo:
            if kind is Kind.UNINITIALISED:
                parts = never_written(prog, start, end)
            else:
                parts = for_each_runs(prog, start, end, problems, kind=kind, workers=workers)
            for runs in joined_memmap(parts) if kind is Kind.MEMMAP else parts:
                groups.add(runs)
                kept.add(runs)
                if kind is Kind.MEMMAP:
                    own.add(runs)
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
    _name_missing(scan, own.reduce(), problems)
    return problems.partial(scan)


def _name_missing(scan: Scan, own: "Runs", problems: Problems) -> None:
    """
    Struct pages that the dump should hold and does not. Those that are not mapped never existed.

    Counted as pmem-coverage does: those of the pages of a namespace, and apart from them those of
    the pages that hold the struct pages.

    :param own: Array of :data:`GROUP`: of the pages that hold the struct pages.
    """
    own_total = sum(_count(own, state) for state in State)
    total = sum(scan.count(state) for state in State) - own_total
    for state in State:
        if state in (State.SAVED, State.UNMAPPED) or not scan.count(state):
            continue
        of_own = _count(own, state)
        which = _which(scan.count(state) - of_own, total, of_own, own_total)
        why = f"{which}: {state.value}; pmem-coverage shows why, pmem-files does not need them"
        problems.add(Problem(cause=Cause.NOT_SAVED, why=why, state=state))


def _which(count: int, total: int, of_own: int, own_total: int) -> str:
    """``"2 of 9 struct pages are not in the dump"``, or of the memmap's own pages, or both."""
    own = f"the {own_total}" if of_own == own_total else f"{of_own} of the {own_total}"
    if not count:
        return f"{own} struct pages of the memmap's own pages are not in the dump"
    which = f"none of the {total} struct pages is in the dump"
    if count < total:
        which = f"{count} of {total} struct pages are not in the dump"
    return f"{which}, nor are {own} of the memmap's own pages" if of_own else which
