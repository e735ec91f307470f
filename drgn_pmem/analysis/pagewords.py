# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Words of struct pages
---------------------

Flags and counts of the struct pages of a set of PFNs, read in runs: for questions about the pages
of files, which are few and scattered, where a scan of the whole namespace would read everything.
"""

from dataclasses import dataclass

from drgn import Program
import numpy as np
import numpy.typing as npt

from drgn_pmem.dumpfile import State
from drgn_pmem.errors import PmemError
from drgn_pmem.kernel.page_layout import DaxGeneration, PageLayout, page_layout
from drgn_pmem.kernel.pagetable import kernel_coverage, read_saved

__all__ = ("PageWords", "read_page_words")

_MAX_GAP = 64
"""Struct pages between two that are asked for: cheaper to read than to skip."""

_CHUNK = 1 << 16
"""Struct pages that are read at once."""


@dataclass(frozen=True)
class PageWords:
    """Of those PFNs whose struct page the dump holds, in order."""

    pfns: "npt.NDArray[np.uint64]"
    flags: "npt.NDArray[np.uint64]"
    refcount: "npt.NDArray[np.int32]"
    mapcount: "npt.NDArray[np.int32]"
    """As it is stored: -1 for none."""
    word: "npt.NDArray[np.uint64]"
    """pgmap, or the head of a tail page with bit 0 set."""
    missing: int
    """PFNs whose struct page the dump does not hold."""
    layout: PageLayout

    def hwpoison(self) -> "npt.NDArray[np.uint64]":
        """PFNs with PG_hwpoison."""
        bit = self.layout.hwpoison_bit
        if bit is None:
            return self.pfns[:0]
        return self.pfns[(self.flags & np.uint64(bit)) != 0]

    def maybe_pinned(self, idle: int) -> "npt.NDArray[np.uint64]":
        """
        PFNs that may be held beyond idle and their mappings; what is left out is not.

        :param idle: Reference count of a page that nobody uses.
        """
        tail = (self.word & np.uint64(1)) != 0
        expected = np.full(len(self.pfns), idle, np.int64)
        if self.layout.generation is DaxGeneration.FOLIO:
            expected += np.maximum(self.mapcount.astype(np.int64) + 1, 0)
        bit = self.layout.head_bit
        large = (self.flags & np.uint64(bit)) != 0 if bit else np.zeros(len(self.pfns), bool)
        busy = self.refcount.astype(np.int64) > expected
        # A large folio keeps its mapcount elsewhere, and its tails keep nothing.
        return self.pfns[~tail & (busy | (large & (self.refcount > idle)))]


def _dtype(layout: PageLayout) -> "np.dtype[np.void]":
    order = "<" if layout.little_endian else ">"
    return np.dtype(
        {
            "names": ["flags", "refcount", "mapcount", "word"],
            "formats": [f"{order}u8", f"{order}i4", f"{order}i4", f"{order}u8"],
            "offsets": [layout.flags, layout.refcount, layout.mapcount, layout.word],
            "itemsize": layout.size,
        }
    )


def read_page_words(prog: Program, pfns: "npt.NDArray[np.uint64]") -> PageWords:
    """
    Read the struct pages of a set of PFNs.

    :param pfns: In any order.
    :raises MissingDebugInfo: if the layout of struct page is not known
    """
    layout = page_layout(prog)
    dtype = _dtype(layout)
    wanted = np.unique(pfns)
    found: list[npt.NDArray[np.uint64]] = []
    words: list[npt.NDArray[np.void]] = []
    if len(wanted):
        breaks = np.nonzero(np.diff(wanted) > np.uint64(_MAX_GAP))[0] + 1
        for run in np.split(wanted, breaks):
            first, last = int(run[0]), int(run[-1])
            for start in range(first, last + 1, _CHUNK):
                end = min(start + _CHUNK, last + 1)
                for at, data in _saved(prog, layout, start, end):
                    array = np.frombuffer(data, dtype)
                    inside = run[(run >= np.uint64(at)) & (run < np.uint64(at + len(array)))]
                    found.append(inside)
                    words.append(array[(inside - np.uint64(at)).astype(np.int64)])
    pages = np.concatenate(words) if words else np.zeros(0, dtype)
    known = np.concatenate(found) if found else np.zeros(0, np.uint64)
    return PageWords(
        known,
        pages["flags"].astype(np.uint64),
        pages["refcount"].astype(np.int32),
        pages["mapcount"].astype(np.int32),
        pages["word"].astype(np.uint64),
        len(wanted) - len(known),
        layout,
    )


def _saved(prog: Program, layout: PageLayout, start: int, end: int) -> "list[tuple[int, bytes]]":
    """(first PFN, bytes) of the runs of whole struct pages that the dump holds."""
    virtual, size = layout.address(start), (end - start) * layout.size
    pieces = []
    for first, last, state in kernel_coverage(prog, virtual, size):
        if state is not State.SAVED:
            continue
        low = start + -(-(first - virtual) // layout.size)
        high = start + (last - virtual) // layout.size
        if low < high:
            try:
                data = read_saved(prog, layout.address(low), (high - low) * layout.size)
            except PmemError:
                continue
            pieces.append((low, data))
    return pieces
