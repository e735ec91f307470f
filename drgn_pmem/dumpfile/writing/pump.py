# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Reading and compressing on all cores
------------------------------------

Memory is processed in batches of 1 MiB: several threads read and compress them, the caller writes
the results in order. Only a few batches are in memory at a time.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
import os
from typing import TypeVar

from drgn_pmem.dumpfile.records import ERASED, PhysicalMemory
from drgn_pmem.dumpfile.writing.contents import Contents, Runs
from drgn_pmem.errors import DumpFileError
from drgn_pmem.ranges import Range

__all__ = ("BATCH", "batches", "in_order", "read_pages", "threads")

T = TypeVar("T")

BATCH = 1 << 20
"""Bytes of memory that a thread works on at a time."""
_AHEAD = 3
"""Batches for each thread that are in memory at most."""


def threads() -> int:
    """Number of threads: the processors that this process may use."""
    return len(os.sched_getaffinity(0))


def batches(runs: Runs) -> Iterator[list[Range]]:
    """Runs in pieces of no more than :data:`BATCH` bytes together."""
    batch: list[Range] = []
    room = BATCH
    for run in runs:
        start = run.start
        while start < run.end:
            part = Range(start, min(run.end, start + room))
            batch.append(part)
            room -= part.size
            start = part.end
            if room == 0:
                yield batch
                batch, room = [], BATCH
    if batch:
        yield batch


def in_order(work: Callable[[list[Range]], T], runs: Runs) -> Iterator[tuple[list[Range], T]]:
    """The batches and the result of the work on each, in order of address."""
    count = threads()
    with ThreadPoolExecutor(count, "trim") as pool:
        pending: deque[tuple[list[Range], Future[T]]] = deque()
        try:
            for batch in batches(runs):
                pending.append((batch, pool.submit(work, batch)))
                if len(pending) >= count * _AHEAD:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def read_pages(
    contents: Contents, memory: PhysicalMemory, part: Range, damaged: list[Range]
) -> bytes:
    """
    Memory as it is written, parts that share a page with metadata overwritten.

    :param damaged: Pages that the file has and that cannot be decompressed are added here; they
        read as X.
    """
    pieces = []
    for piece, is_blank in contents.blank.split(part.start, part.end):
        if is_blank:
            pieces.append(ERASED * piece.size)
            continue
        try:
            pieces.append(memory.read(piece.start, piece.size))
        except DumpFileError:
            # not a problem: damaged pages are reported by the caller
            pieces.append(_page_by_page(contents, memory, piece, damaged))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _page_by_page(
    contents: Contents, memory: PhysicalMemory, part: Range, damaged: list[Range]
) -> bytes:
    size = contents.page_size
    pieces = []
    start = part.start
    while start < part.end:
        page = Range(start, min(part.end, start // size * size + size))
        try:
            pieces.append(memory.read(page.start, page.size))
        except DumpFileError:
            # not a problem: the caller reports it
            damaged.append(page)
            pieces.append(ERASED * page.size)
        start = page.end
    return b"".join(pieces)
