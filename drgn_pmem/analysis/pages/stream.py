# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The runs of a range of PFNs, in order
-------------------------------------

Blocks of struct pages read and decoded, ahead of their use by other threads where the reader allows
it; gaps, and the altmap's own pages, among them.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
import os
from typing import TYPE_CHECKING

from drgn import Program
import numpy as np

from drgn_pmem.analysis.pages.blocks import Block, Gap, for_each_block
from drgn_pmem.analysis.pages.decode import Decoder, MemmapDecoder
from drgn_pmem.analysis.pages.readers import Reader, reader_of
from drgn_pmem.analysis.pages.runs import (
    EMPTY,
    UNKNOWN_FOLIO,
    UNKNOWN_MAPCOUNT,
    Kind,
    cut_tails,
    gap,
    hold_back,
    join,
    of_memmap,
    open_folios,
    settled,
    uninitialised,
)
from drgn_pmem.dumpfile import State
from drgn_pmem.errors import DumpFileError
from drgn_pmem.kernel.page_layout import PageLayout, page_layout
from drgn_pmem.kernel.pagetable import read_saved
from drgn_pmem.kernel.pgmap import Pgmap
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Runs = NDArray[np.void]
    Mask = NDArray[np.bool_]

__all__ = ("for_each_runs", "joined_memmap", "never_written", "scan_ranges")

_NO_BYTES = np.zeros(0, np.uint8)
_MAX_WORKERS = 4


def scan_ranges(pgmaps: Iterable[Pgmap]) -> list[tuple[int, int, Kind]]:
    """
    The ranges of page maps to scan.

    :return: (first PFN, end PFN exclusive, what they are: ``PAGE``, and of a map=dev namespace
        ``UNINITIALISED`` and ``MEMMAP``)
    """
    ranges = []
    for pgmap in pgmaps:
        for part in pgmap.ranges:
            start, end = part.start >> pgmap.page_shift, part.end >> pgmap.page_shift
            memmap = min(max(start, pgmap.memmap_pfn), end)
            data = min(max(start, pgmap.first_pfn), end)
            parts = (
                (start, memmap, Kind.UNINITIALISED),
                (memmap, data, Kind.MEMMAP),
                (data, end, Kind.PAGE),
            )
            ranges += [part for part in parts if part[0] < part[1]]
    return sorted(ranges)


class _BlockDecoder:
    """Runs of the blocks of a reader."""

    def __init__(self, reader: Reader, layout: PageLayout, kind: Kind) -> None:
        self._reader = reader
        self._decoder = (MemmapDecoder if kind is Kind.MEMMAP else Decoder)(layout)
        self._unit = layout.size

    def decode(self, block: Block) -> "Partial[Runs]":
        """Struct pages that cannot be read after all are gaps, and a problem."""
        problems = Problems()
        runs = list(self._parts(block, problems))
        return problems.partial(runs[0] if len(runs) == 1 else join([EMPTY, *runs]))

    def _parts(self, block: Block, problems: Problems) -> Iterator["Runs"]:
        unit, decoder = self._unit, self._decoder
        done = position = 0  # struct pages; bytes of the block
        rest: Bytes = _NO_BYTES  # the start of a struct page
        lost = first = 0
        why = ""
        try:
            for part in self._reader.parts(block, block.count * unit, unit):
                position += part.size
                if part.data is None:
                    # A struct page that is damaged in part is damaged.
                    end = min(-(-position // unit), block.count)
                    if end > done:
                        yield gap(block.pfn + done, end - done, State.DAMAGED)
                    first, why = first if lost else done, why or part.why
                    lost += end - done
                    done, rest = end, _NO_BYTES
                elif part.times > 1:
                    yield decoder.repeated(part.data, part.times, block.pfn + done)
                    done += part.size // unit
                else:
                    data = np.concatenate((rest, part.data)) if len(rest) else part.data
                    data = data[max(0, done * unit - (position - len(data))) :]
                    count = len(data) // unit
                    if count:
                        yield decoder.decode(data[: count * unit], block.pfn + done)
                    done, rest = done + count, data[count * unit :].copy()
        except DumpFileError as error:
            yield gap(block.pfn + done, block.count - done, State.TRUNCATED)
            first, why = first if lost else done, str(error)
            lost += block.count - done
        if lost:
            what = f"{lost} struct pages from PFN {block.pfn + first:#x} on"
            problems.add(Problem(cause=Cause.DAMAGED, what=what, why=why))


def _in_order(
    prog: Program, start_pfn: int, end_pfn: int, problems: Problems, workers: int, kind: Kind
) -> Iterator["Runs"]:
    """Runs of every block and gap, in order; blocks are decoded ahead by other threads where the
    reader allows it."""
    layout, reader = page_layout(prog), reader_of(prog)
    decoder = _BlockDecoder(reader, layout, kind)
    blocks = for_each_block(prog, layout, start_pfn, end_pfn, reader.blocks)
    if workers < 2 or not reader.parallel:
        for part in blocks:
            if isinstance(part, Gap):
                yield gap(part.pfn, part.count, part.state)
            else:
                yield problems.take(decoder.decode(part))
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="scan")
    try:
        ahead: deque[Future[Partial[Runs]] | Runs] = deque()
        while True:
            todo = next(blocks, None)
            if isinstance(todo, Gap):
                ahead.append(gap(todo.pfn, todo.count, todo.state))
            elif todo is not None:
                ahead.append(pool.submit(decoder.decode, todo))
            elif not ahead:
                return
            if todo is None or len(ahead) > 2 * workers:
                runs = ahead.popleft()
                yield problems.take(runs.result()) if isinstance(runs, Future) else runs
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def never_written(prog: Program, start_pfn: int, end_pfn: int) -> Iterator["Runs"]:
    """Struct pages that are not read: whether the dump holds them."""
    for part in for_each_block(prog, page_layout(prog), start_pfn, end_pfn):
        state = part.state if isinstance(part, Gap) else State.SAVED
        yield uninitialised(part.pfn, part.count, state)


def joined_memmap(parts: Iterable["Runs"]) -> Iterator["Runs"]:
    """Runs of the altmap's own pages, merged: by their first words, no two of them are equal."""
    held: Runs = EMPTY
    for runs in parts:
        joined = join([held, of_memmap(runs)])
        if len(joined) > 1:
            yield joined[:-1]
        held = joined[-1:]
    if len(held):
        yield held


def _resolve_mapcounts(prog: Program, runs: "Runs") -> None:
    """Read the mapcount of large folios whose first tail is in the next block."""
    layout = page_layout(prog)
    for at in np.flatnonzero(runs["mapcount"] == UNKNOWN_MAPCOUNT).tolist():
        runs["mapcount"][at] = -1
        if layout.large_mapcount is None:
            continue
        try:
            address = layout.address(int(runs["pfn"][at])) + layout.large_mapcount
            data = read_saved(prog, address, 4)
        except NotSaved:
            # not a problem: it stays -1, unknown, and with it whether the page is pinned
            continue
        order = "little" if layout.little_endian else "big"
        runs["mapcount"][at] = max(0, int.from_bytes(data, order, signed=True) + 1)  # type: ignore[arg-type]


def _without_ends(prog: Program, runs: "Runs") -> "Runs":
    """Of folios that end where struct pages are not in the dump, how many pages they have: what
    their order says, if it was saved and they end there; else it is not known."""
    layout = page_layout(prog)
    found = open_folios(runs, layout.head_bit or 0)
    if not found:
        return runs
    parts, done = [], 0
    for at in found:
        count, folio = int(runs["count"][at]), int(runs["folio"][at])
        first = int(runs["pfn"][at]) + count - folio
        if _pages_of_folio(prog, first) == folio:
            continue
        last = runs[at : at + 1].copy()
        last["pfn"], last["count"], last["folio"] = first, folio, UNKNOWN_FOLIO
        parts.append(runs[done : at + 1].copy())
        if count == folio:
            parts[-1] = parts[-1][:-1]
        else:
            parts[-1]["count"][-1] -= folio
            if last["mapping"][0] > 3:
                last["index"] += np.uint64(count - folio)
        parts.append(last)
        done = at + 1
    return np.concatenate([*parts, runs[done:]])


def _pages_of_folio(prog: Program, pfn: int) -> int | None:
    """Pages of the folio with this head; None if that is not known."""
    layout = page_layout(prog)
    if layout.order is None:
        return None
    try:
        (order,) = read_saved(prog, layout.address(pfn) + layout.order, 1)
    except NotSaved:
        # not a problem: that struct page is counted among those that are not in the dump
        return None
    return 1 << order


def for_each_runs(
    prog: Program,
    start_pfn: int,
    end_pfn: int,
    problems: Problems,
    *,
    kind: Kind = Kind.PAGE,
    workers: int | None = None,
) -> Iterator["Runs"]:
    """
    Runs of equal pages of a range of PFNs, in order and merged: arrays of :data:`RUN`, one for each
    few MiB of struct pages.

    :param start_pfn: First PFN; the kernel must have initialised the struct pages.
    :param end_pfn: End, exclusive.
    :param problems: Gets what could not be read although the dump should hold it.
    :param kind: ``PAGE``, or ``MEMMAP`` for the pages that hold the struct pages of a map=dev
        namespace.
    :param workers: Threads that read and decode; None: one for each CPU, up to four.
    :raises MissingDebugInfo: if the layout of struct page is not known
    """
    held: Runs = EMPTY
    gap_end = 0
    workers = min(os.cpu_count() or 1, _MAX_WORKERS) if workers is None else workers
    for runs in _in_order(prog, start_pfn, end_pfn, problems, workers, kind):
        _resolve_mapcounts(prog, runs)
        done, held = hold_back(_without_ends(prog, join([held, runs])))
        if len(done):
            gap_end = cut_tails(done, gap_end)
            yield settled(done)
    if len(held):
        held = join([held])
        cut_tails(held, gap_end)
        yield settled(held)
