# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Coverage
--------

What of the crashed machine's physical memory a dump holds. drgn returns zeroes for pages that
makedumpfile left out of an ELF dump; a ``struct page`` of zeroes reads as "idle, no owner". Whoever
decodes memory asks here first whether its bytes are in the file.

A :class:`Coverage` is a partition of the whole 64-bit physical address space into runs of one
:class:`State`, kept as two arrays, so that a question costs a binary search and a terabyte of saved
memory costs one run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from drgn_pmem.partial import State
from drgn_pmem.ranges import Range, distinct

__all__ = ("ADDRESS_SPACE", "U64", "Coverage", "CoverageRange", "State")

U64 = npt.NDArray[np.uint64]

ADDRESS_SPACE = 1 << 64
"""Addresses end here (bytes)."""


_PIECE = 1 << 12

_STATES = tuple(State)
_CODES = {state: code for code, state in enumerate(_STATES)}


@dataclass(frozen=True)
class CoverageRange(Range):
    """A run of physical memory (bytes) in one state."""

    state: State

    def to_json(self) -> dict[str, Any]:
        """Addresses as ``"0x..."``, the size in bytes, the state by name."""
        return {**super().to_json(), "state": self.state.value}


class Coverage:
    """
    State of every physical address.

    Build one with :meth:`from_ranges`, :meth:`from_arrays` or :meth:`everywhere`.
    """

    def __init__(self, starts: U64, states: npt.NDArray[np.uint8]) -> None:
        # Run i is [starts[i], starts[i + 1]); the first starts at 0, the last ends at 2**64,
        # neighbours differ.
        self._starts = starts
        self._codes = states

    @classmethod
    def everywhere(cls, state: State) -> "Coverage":
        """One state for the whole address space: ``SAVED`` for a live target."""
        return cls(np.zeros(1, np.uint64), np.array([_CODES[state]], np.uint8))

    @classmethod
    def from_arrays(
        cls,
        starts: U64,
        lasts: U64,
        states: npt.NDArray[np.uint8],
        default: State = State.ABSENT,
    ) -> "Coverage":
        """
        :param starts: First address of each run, ascending.
        :param lasts: Last address of each run (inclusive), below the next start.
        :param states: State of each run, as :meth:`code` numbers.
        :param default: State of all addresses between the runs.
        """
        count = len(starts)
        if count == 0:
            return cls.everywhere(default)
        # A gap follows a run unless the next one starts right after it or the address space ends.
        gap = np.ones(count, bool)
        gap[:-1] = lasts[:-1] + np.uint64(1) != starts[1:]
        gap[-1] = lasts[-1] != np.uint64(ADDRESS_SPACE - 1)
        slots = np.arange(count) + np.concatenate(([0], np.cumsum(gap)[:-1]))
        total = count + int(gap.sum())
        all_starts: U64 = np.empty(total, np.uint64)
        all_codes: npt.NDArray[np.uint8] = np.full(total, _CODES[default], np.uint8)
        all_starts[slots] = starts
        all_codes[slots] = states
        all_starts[slots[gap] + 1] = lasts[gap] + np.uint64(1)
        if all_starts[0] != 0:
            all_starts = np.concatenate((np.zeros(1, np.uint64), all_starts))
            all_codes = np.concatenate((np.array([_CODES[default]], np.uint8), all_codes))
        keep = np.ones(len(all_starts), bool)
        keep[1:] = all_codes[1:] != all_codes[:-1]
        return cls(all_starts[keep], all_codes[keep])

    @classmethod
    def from_ranges(
        cls, ranges: "list[CoverageRange]", default: State = State.ABSENT
    ) -> "Coverage":
        """
        :param ranges: In any order, not overlapping; empty ones are ignored.
        :param default: State of all other addresses.
        :raises ValueError: if ranges overlap or leave the address space.
        """
        runs = sorted((item for item in ranges if item.size > 0), key=lambda item: item.start)
        for before, after in itertools.pairwise(runs):
            if before.end > after.start:
                raise ValueError(f"ranges overlap at {after.start:#x}")
        if runs and (runs[0].start < 0 or runs[-1].end > ADDRESS_SPACE):
            raise ValueError("a range leaves the 64-bit address space")
        return cls.from_arrays(
            np.array([run.start for run in runs], np.uint64),
            np.array([run.end - 1 for run in runs], np.uint64),
            np.array([cls.code(run.state) for run in runs], np.uint8),
            default,
        )

    @staticmethod
    def code(state: State) -> int:
        """Number of a state in the arrays of :meth:`from_arrays`."""
        return _CODES[state]

    def __len__(self) -> int:
        """Number of runs, those that are absent included."""
        return len(self._starts)

    def _find(self, address: int) -> int:
        return int(self._starts.searchsorted(np.uint64(address), "right")) - 1

    def _end(self, run: int) -> int:
        return int(self._starts[run + 1]) if run + 1 < len(self._starts) else ADDRESS_SPACE

    def ranges(self, start: int = 0, end: int = ADDRESS_SPACE) -> Iterator[CoverageRange]:
        """
        Partition ``[start, end)`` into runs of one state, ordered and merged.

        :param start: Physical address (bytes); below 0 means 0.
        :param end: Physical address after the range (bytes); above 2\\ :sup:`64` means 2\\
            :sup:`64`.
        """
        start, end = max(start, 0), min(end, ADDRESS_SPACE)
        if start >= end:
            return
        first, last = self._find(start), self._find(end - 1)
        # In pieces: there may be millions of runs, and the caller may want the first of them only.
        for run in range(first, last + 1, _PIECE):
            stops = self._starts[run + 1 : min(run + _PIECE, last) + 1].tolist()
            codes = self._codes[run : min(run + _PIECE, last + 1)].tolist()
            if len(stops) < len(codes):
                stops.append(end)
            for stop, code in zip(stops, codes, strict=True):
                yield CoverageRange(start, stop, _STATES[code])
                start = stop

    def state(self, address: int) -> State:
        """State of one physical address; one outside the 64-bit address space is absent."""
        if not 0 <= address < ADDRESS_SPACE:
            return State.ABSENT
        return _STATES[self._codes[self._find(address)]]

    def saved(self, address: int, size: int) -> bool:
        """Whether all ``size`` bytes from a physical address on are in the dump file."""
        if size <= 0:
            return True
        if address < 0 or address + size > ADDRESS_SPACE:
            return False
        run = self._find(address)
        return _STATES[self._codes[run]] is State.SAVED and address + size <= self._end(run)

    def saved_each(self, addresses: U64, size: int) -> "npt.NDArray[np.bool_]":
        """Of each physical address, whether all ``size`` bytes (1 or more) from it on are in the
        dump file."""
        runs = self._starts.searchsorted(addresses, "right") - 1
        lasts = np.append(self._starts[1:], np.uint64(0)) - np.uint64(1)
        there = self._codes[runs] == _CODES[State.SAVED]
        within: npt.NDArray[np.bool_] = there & (lasts[runs] - addresses >= np.uint64(size - 1))
        return within

    def count(self, start: int = 0, end: int = ADDRESS_SPACE) -> dict[State, int]:
        """Bytes of ``[start, end)`` by state; only states that occur."""
        start, end = max(start, 0), min(end, ADDRESS_SPACE)
        if start >= end:
            return {}
        first, last = self._find(start), self._find(end - 1)
        if first == last:
            return {_STATES[self._codes[first]]: end - start}
        edges = self._starts[first : last + 1].copy()
        edges[0] = start
        # Differences modulo 2**64: right but for one run over the whole address space, see above.
        sizes = np.append(edges[1:], np.uint64(end % ADDRESS_SPACE)) - edges
        codes = self._codes[first : last + 1]
        counts: dict[State, int] = {}
        for code in distinct(codes).tolist():
            counts[_STATES[code]] = int(sizes[codes == code].sum(dtype=np.uint64))
        return counts

    def has(self, state: State) -> bool:
        """Whether any address is in a state."""
        return bool((self._codes == _CODES[state]).any())

    def extent(self) -> list[CoverageRange]:
        """All runs that are not absent, ordered and merged."""
        return [item for item in self.ranges() if item.state is not State.ABSENT]

    def covered(self) -> list[Range]:
        """All that is not absent, whatever state it is in: ordered, adjacent runs joined."""
        there = self._codes != _CODES[State.ABSENT]
        first = there & ~np.concatenate((np.zeros(1, bool), there[:-1]))
        after = ~there & np.concatenate((np.zeros(1, bool), there[:-1]))
        ends = self._starts[after].tolist()
        if there[-1]:
            ends.append(ADDRESS_SPACE)
        return [Range(*pair) for pair in zip(self._starts[first].tolist(), ends, strict=True)]

    def runs(self, state: State) -> tuple[U64, U64]:
        """First and last (inclusive) addresses of all runs of a state, as arrays."""
        lasts = np.append(self._starts[1:], np.uint64(0)) - np.uint64(1)
        chosen = self._codes == _CODES[state]
        return self._starts[chosen], lasts[chosen]

    def to_json(self) -> list[dict[str, Any]]:
        """All runs that are not absent."""
        return [item.to_json() for item in self.extent()]
