# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Runs of equal pages
-------------------

Runs of equal struct pages, which :class:`~drgn_pmem.analysis.pages.decode.Decoder` makes of blocks,
and how those of neighbouring blocks are joined.

A run's index increases by one from page to page where the page belongs to a file (``mapping`` is a
pointer), and is the same in all of its pages otherwise.
"""

import enum
from typing import TYPE_CHECKING

import numpy as np

from drgn_pmem.dumpfile import Coverage, State

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Runs = NDArray[np.void]
    Bytes = NDArray[np.uint8]

__all__ = (
    "EMPTY",
    "KEY",
    "RUN",
    "UNKNOWN_FOLIO",
    "UNKNOWN_MAPCOUNT",
    "Kind",
    "cut_tails",
    "gap",
    "hold_back",
    "join",
    "of_memmap",
    "open_folios",
    "settled",
    "uninitialised",
)

RUN = np.dtype(
    [
        ("pfn", "u8"),
        ("count", "u8"),
        ("index", "u8"),
        ("kind", "u1"),
        ("state", "u1"),
        ("shared", "u1"),
        ("folio", "u4"),
        ("refcount", "i4"),
        ("mapcount", "i4"),
        ("flags", "u8"),
        ("mapping", "u8"),
        ("word", "u8"),
    ]
)
"""
A run of pages: first PFN, number of pages, index of the first page, :class:`Kind`, state (number as
in :meth:`Coverage.code`), whether a shared extent, pages of the folio (compound page) that each
belongs to (0 if that is not known), refcount and mapcount (of the folio; -1 if not known), flags,
mapping, and the first word: the pgmap. Of a tail page whose head is not next to it (``Kind.TAIL``),
mapping is the PFN of the head.
"""

KEY = ("kind", "state", "shared", "folio", "refcount", "mapcount", "flags", "mapping", "word")
"""What is equal in all pages of a run."""

EMPTY = np.zeros(0, RUN)

UNKNOWN_MAPCOUNT = -(1 << 31)
"""Mapcount of a large folio whose first tail is in the next block."""

UNKNOWN_FOLIO = 0
"""Pages of a folio whose end is not in the dump."""


class Kind(enum.IntEnum):
    """What a run consists of."""

    PAGE = 0
    """Pages, or whole folios."""
    TAIL = 1
    """Tail pages apart from their head: one between them is poisoned, or the head is outside of the
    scan."""
    UNINITIALISED = 2
    """Struct pages that the kernel never wrote: those of the info block of a map=dev namespace."""
    GAP = 3
    """Struct pages that are not in the dump; ``state`` has the reason."""
    TORN = 4
    """Invalid struct pages: tails without a head."""
    HEAD = 5
    """A head whose tails are not known yet; never in the result of a scan."""
    MEMMAP = 6
    """Pages that hold the struct pages of a map=dev namespace: reserved, of no page map."""
    CUT = 7
    """Tail pages whose head, or a tail between, is not in the dump; ``index`` is the PFN of the
    head."""


def gap(pfn: int, count: int, state: State) -> "Runs":
    """A run of struct pages that the dump does not hold."""
    run = np.zeros(1, RUN)
    run["pfn"], run["count"], run["kind"], run["state"] = pfn, count, Kind.GAP, Coverage.code(state)
    return run


def uninitialised(pfn: int, count: int, state: State) -> "Runs":
    """A run of struct pages that the kernel never wrote."""
    run = gap(pfn, count, state)
    run["kind"] = Kind.UNINITIALISED
    return run


def of_memmap(runs: "Runs") -> "Runs":
    """Runs of the altmap's own pages: their first word is a list head that points to itself."""
    pages = runs["kind"] == Kind.PAGE
    runs["kind"][pages] = Kind.MEMMAP
    runs["word"][pages] = 0
    return join([runs])


def join(parts: "list[Runs]") -> "Runs":
    """
    Put runs together: tails to the heads before them, equal neighbours into one.

    :param parts: Runs in order of PFN.
    """
    runs = np.concatenate(parts) if len(parts) != 1 else parts[0]
    if len(runs) < 2:
        return runs
    if (runs["kind"] == Kind.TAIL).any():
        # The tails of a head first, and nothing else: heads that may get tails stay separate.
        runs = _fold(_merge(runs, runs["kind"] == Kind.TAIL))
    return _merge(runs)


def _adjacent(runs: "Runs") -> "NDArray[np.bool_]":
    return runs["pfn"][1:] == runs["pfn"][:-1] + runs["count"][:-1]


def _merge(runs: "Runs", only: "NDArray[np.bool_] | None" = None) -> "Runs":
    """Equal neighbours into one; *only*: mask of those that may."""
    a, b = runs[:-1], runs[1:]
    same = _adjacent(runs) & (b["kind"] != Kind.HEAD)
    if only is not None:
        same &= only[1:]
    for name in KEY:
        column = runs[name]
        same &= column[1:] == column[:-1]
    in_file = (b["mapping"] > 3) & (b["kind"] == Kind.PAGE)
    same &= b["index"] == a["index"] + np.where(in_file, a["count"], np.uint64(0))
    if not same.any():
        return runs
    starts = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(~same) + 1))
    merged = runs[starts]
    merged["count"] = np.add.reduceat(runs["count"], starts)
    return merged


def _fold(runs: "Runs") -> "Runs":
    """A head and the clean tails right after it are one folio."""
    clean = (runs["kind"][1:] == Kind.TAIL) & (runs["flags"][1:] == 0) & _adjacent(runs)
    kind, folio = runs["kind"][:-1], runs["folio"][:-1]
    heads = (kind == Kind.HEAD) | ((kind == Kind.PAGE) & (folio > 1))
    heads &= runs["count"][:-1] == folio
    joined = clean & heads & (runs["mapping"][1:] == runs["pfn"][:-1])
    if not joined.any():
        return runs
    tails = np.flatnonzero(joined) + 1
    runs["count"][tails - 1] += runs["count"][tails]
    runs["folio"][tails - 1] += runs["count"][tails].astype(np.uint32)
    runs["kind"][tails - 1] = Kind.PAGE
    keep = np.ones(len(runs), bool)
    keep[tails] = False
    return runs[keep]


def settled(runs: "Runs") -> "Runs":
    """Final runs: heads without tails are pages."""
    runs["kind"][runs["kind"] == Kind.HEAD] = Kind.PAGE
    return runs


def open_folios(runs: "Runs", head_bit: int) -> list[int]:
    """Which runs end in a folio that may go on in struct pages that are not in the dump."""
    kind, lacks = runs["kind"][:-1], runs["kind"][1:] == Kind.GAP
    if not lacks.any():
        return []
    heads = ((kind == Kind.HEAD) | (kind == Kind.PAGE)) & _adjacent(runs) & lacks
    heads &= runs["flags"][:-1] & np.uint64(head_bit) != 0
    found: list[int] = np.flatnonzero(heads & (runs["folio"][:-1] > UNKNOWN_FOLIO)).tolist()
    return found


def cut_tails(runs: "Runs", gap_end: int) -> int:
    """
    Mark tails that are cut off from their head by struct pages that are not in the dump.

    :param gap_end: PFN at which the last of these before the runs ends.
    :return: The same for the runs that follow.
    """
    gaps = runs["kind"] == Kind.GAP
    ends = np.where(gaps, runs["pfn"] + runs["count"], np.uint64(0))
    ends = np.maximum(np.maximum.accumulate(ends), np.uint64(gap_end))
    # A poisoned tail stays one, so that its flag is kept.
    cut = (runs["kind"] == Kind.TAIL) & (runs["flags"] == 0) & (ends > runs["mapping"])
    runs["kind"][cut] = Kind.CUT
    runs["index"][cut] = runs["mapping"][cut]
    runs["mapping"][cut] = 0
    return int(ends[-1]) if len(ends) else gap_end


def hold_back(runs: "Runs") -> "tuple[Runs, Runs]":
    """
    Split off what the next block may continue: the last run, its last folio separate.

    :return: Runs that are done; runs to put before those of the next block.
    """
    if not len(runs):
        return runs, runs
    last = runs[-1:]
    folio, count = int(last["folio"][0]), int(last["count"][0])
    if folio <= 1 or count <= folio:
        return runs[:-1], last
    # Of several folios only the last one can grow.
    pair = np.repeat(last, 2)
    before = np.uint64(count - folio)
    pair["count"] = count - folio, folio
    pair["pfn"][1] += before
    if pair["mapping"][1] > 3:
        pair["index"][1] += before
    return runs[:-1], pair
