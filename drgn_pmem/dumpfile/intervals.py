# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Overlapping intervals
---------------------

Two file formats stack things on each other: an ELF core may map one physical address by several
``PT_LOAD`` headers, and a flattened dump may write one offset several times. In both the later one
is what a reader gets. :func:`paint` says, for a list of intervals in that order, which one is on
top where.
"""

import heapq

import numpy as np
import numpy.typing as npt

__all__ = ("U64", "paint")

U64 = npt.NDArray[np.uint64]
Index = npt.NDArray[np.int64]


def paint(starts: U64, lasts: U64) -> tuple[U64, U64, Index]:
    """
    Split overlapping intervals into disjoint ones; of those that overlap, the later in the list
    wins.

    :param starts: First address of each interval.
    :param lasts: Last address of each interval (inclusive, so that one may end at 2\\ :sup:`64`),
        not below its start.
    :return: Starts, lasts and the index of the winning interval of each piece, sorted by start.
    """
    if len(starts) == 0:
        return starts, lasts, np.empty(0, np.int64)
    order = np.argsort(starts, kind="stable")
    begin, last = starts[order], lasts[order]
    reach = np.maximum.accumulate(last)
    # Most intervals of a real dump overlap nothing: only the knots take the slow way.
    knot = np.concatenate(([0], np.flatnonzero(begin[1:] > reach[:-1]) + 1, [len(begin)]))
    sizes = np.diff(knot)
    alone = knot[:-1][sizes == 1]
    out_start, out_last, out_index = [begin[alone]], [last[alone]], [order[alone]]
    for first, size in zip(knot[:-1][sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        pieces = _sweep(
            begin[first : first + size].tolist(),
            last[first : first + size].tolist(),
            order[first : first + size].tolist(),
        )
        out_start.append(np.array([piece[0] for piece in pieces], np.uint64))
        out_last.append(np.array([piece[1] for piece in pieces], np.uint64))
        out_index.append(np.array([piece[2] for piece in pieces], np.int64))
    result_start = np.concatenate(out_start)
    sort = np.argsort(result_start, kind="stable")
    return result_start[sort], np.concatenate(out_last)[sort], np.concatenate(out_index)[sort]


def _sweep(starts: list[int], lasts: list[int], index: list[int]) -> list[tuple[int, int, int]]:
    """Sweep over intervals sorted by start; every step takes one in or ends one, so it is O(n log
    n) for any input."""
    pieces: list[tuple[int, int, int]] = []
    heap: list[tuple[int, int]] = []
    position = starts[0]
    taken = 0
    while True:
        while taken < len(starts) and starts[taken] <= position:
            heapq.heappush(heap, (-index[taken], lasts[taken]))
            taken += 1
        while heap and heap[0][1] < position:
            heapq.heappop(heap)
        if not heap:
            if taken == len(starts):
                return pieces
            position = starts[taken]
            continue
        winner, last = -heap[0][0], heap[0][1]
        if taken < len(starts):
            last = min(last, starts[taken] - 1)
        pieces.append((position, last, winner))
        position = last + 1
