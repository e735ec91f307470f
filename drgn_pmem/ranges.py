# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Ranges
------

The half-open range and the set of ranges that every layer uses for addresses: union, intersection,
difference, overlap, and which of several overlapping ranges wins.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
import heapq
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    U64 = npt.NDArray[np.uint64]
    Index = npt.NDArray[np.int64]

__all__ = ("Range", "RangeSet", "distinct", "paint", "percent", "short_size")


@dataclass(frozen=True, repr=False)
class Range:
    """Bytes from :attr:`start` to :attr:`end`, end exclusive."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """bytes"""
        return self.end - self.start

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end

    def overlaps(self, other: "Range") -> bool:
        """Whether any byte is in both."""
        return max(self.start, other.start) < min(self.end, other.end)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.start:#x}, {self.end:#x})"

    def __str__(self) -> str:
        return f"{self.start:#x}-{self.end:#x}"

    def to_json(self) -> dict[str, Any]:
        return {"start": f"{self.start:#x}", "end": f"{self.end:#x}", "size": self.size}


class RangeSet:
    """
    Bytes in ranges; a question about overlap is a binary search.

    The ranges are kept in order, without empty ones. Overlapping ones are joined; adjacent ones
    (two regions side by side) stay apart until :meth:`contiguous` joins them.
    """

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        merged: list[Range] = []
        for item in sorted(ranges, key=lambda r: r.start):
            if item.start >= item.end:
                continue
            if merged and item.start < merged[-1].end:
                merged[-1] = Range(merged[-1].start, max(merged[-1].end, item.end))
            else:
                merged.append(Range(item.start, item.end))
        self.ranges: tuple[Range, ...] = tuple(merged)
        self._starts = [r.start for r in self.ranges]

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __iter__(self) -> Iterator[Range]:
        return iter(self.ranges)

    def __len__(self) -> int:
        """Number of ranges."""
        return len(self.ranges)

    def __contains__(self, address: int) -> bool:
        at = bisect_right(self._starts, address) - 1
        return at >= 0 and address in self.ranges[at]

    def __eq__(self, other: object) -> bool:
        """Whether the same bytes are in both, however they are cut."""
        if not isinstance(other, RangeSet):
            return NotImplemented
        return self.contiguous().ranges == other.contiguous().ranges

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RangeSet([{', '.join(map(repr, self.ranges))}])"

    @property
    def total(self) -> int:
        """bytes"""
        return sum(item.size for item in self.ranges)

    def overlap(self, start: int, end: int) -> list[Range]:
        """The parts of ``[start, end)`` that are in the set, in order."""
        return [part for part, inside in self.split(start, end) if inside]

    def gaps(self, start: int, end: int) -> list[Range]:
        """The parts of ``[start, end)`` that are not in the set, in order."""
        return [part for part, inside in self.split(start, end) if not inside]

    def size(self, start: int, end: int) -> int:
        """Bytes of ``[start, end)`` that are in the set."""
        return sum(part.size for part in self.overlap(start, end))

    def split(self, start: int, end: int) -> Iterator[tuple[Range, bool]]:
        """Cut ``[start, end)`` where the set begins and ends: parts, and whether they are in it."""
        at = max(0, bisect_right(self._starts, start) - 1)
        while start < end and at < len(self.ranges) and self.ranges[at].start < end:
            item = self.ranges[at]
            at += 1
            if item.end <= start:
                continue
            if start < item.start:
                yield Range(start, item.start), False
                start = item.start
            yield Range(start, min(end, item.end)), True
            start = min(end, item.end)
        if start < end:
            yield Range(start, end), False

    def contiguous(self) -> "RangeSet":
        """The same bytes with adjacent ranges joined."""
        joined: list[Range] = []
        for item in self.ranges:
            if joined and item.start == joined[-1].end:
                joined[-1] = Range(joined[-1].start, item.end)
            else:
                joined.append(item)
        return RangeSet(joined)

    def union(self, other: "Iterable[Range]") -> "RangeSet":
        """What is in either."""
        return RangeSet([*self.ranges, *other])

    def intersect(self, other: "RangeSet") -> "RangeSet":
        """What is in both, cut as this set is."""
        return RangeSet(
            part for item in self.ranges for part in other.overlap(item.start, item.end)
        )

    def subtract(self, other: "RangeSet") -> "RangeSet":
        """What is in this set and not in the other, cut as this set is."""
        return RangeSet(part for item in self.ranges for part in other.gaps(item.start, item.end))


def distinct(values: "npt.NDArray[Any]") -> "npt.NDArray[Any]":
    """The distinct values of an array, ascending. As ``numpy.unique()``, which imports masked
    arrays (10 ms) where the counts are not asked for."""
    import numpy as np

    return np.unique(values, return_counts=True)[0]


def paint(starts: "U64", lasts: "U64") -> "tuple[U64, U64, Index]":
    """
    Split overlapping ranges into disjoint ones; of those that overlap, the later in the list wins.

    An ELF core may map one physical address by several ``PT_LOAD`` headers, and a flattened dump
    may write one offset several times: in both, a reader gets the later one. Works on arrays: a
    dump may have millions.

    :param starts: First address of each range.
    :param lasts: Last address of each range (inclusive, so that one may end at 2\\ :sup:`64`), not
        below its start.
    :return: Starts, lasts and the index of the winning range of each piece, sorted by start.
    """
    import numpy as np  # on use: callers with only ranges do not import it

    if len(starts) == 0:
        return starts, lasts, np.empty(0, np.int64)
    order = np.argsort(starts, kind="stable")
    begin, last = starts[order], lasts[order]
    reach = np.maximum.accumulate(last)
    # Most ranges of a real dump overlap nothing: only clusters of several are swept.
    cluster = np.concatenate(([0], np.flatnonzero(begin[1:] > reach[:-1]) + 1, [len(begin)]))
    sizes = np.diff(cluster)
    alone = cluster[:-1][sizes == 1]
    out_start, out_last, out_index = [begin[alone]], [last[alone]], [order[alone]]
    several = sizes > 1
    for first, size in zip(cluster[:-1][several].tolist(), sizes[several].tolist(), strict=True):
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
    """Sweep over ranges sorted by start; every step adds or ends one: O(n log n) for any input."""
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


def percent(part: int, whole: int) -> str:
    """
    A share as text: rounded to a whole number, but never to ``"0%"`` what is not nothing, nor to
    ``"100%"`` what is not all.

    :param whole: Not 0.
    """
    if part == whole:
        return "100%"
    share = 100 * part / whole
    if 0 < share < 1:
        return "<1%"
    return ">99%" if share > 99 else f"{share:.0f}%"


def short_size(size: int) -> str:
    """
    A size for a sentence, exact below 1 MiB: ``"650240 bytes"``, ``"128 MiB"``, ``"1.5 GiB"``.

    :param size: bytes
    """
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB")):
        if size >> shift:
            return f"{size / (1 << shift):.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} byte{'' if size == 1 else 's'}"
