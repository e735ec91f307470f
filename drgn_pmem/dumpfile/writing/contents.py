# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What is written
---------------

The contents of a dump, independent of its format: header fields, notes, and which physical memory
it holds. There may be millions of runs of memory, so they are kept as arrays.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from drgn_pmem.dumpfile.coverage import U64, Coverage, State
from drgn_pmem.dumpfile.records import PhysicalMemory, Segment
from drgn_pmem.ranges import Range, RangeSet

__all__ = ("Contents", "NoteData", "Runs")

_PIECE = 1 << 12
_LAST = (1 << 64) - 1
"""No memory is there, nor can an end be."""


@dataclass(frozen=True, eq=False)
class Runs:
    """Physical memory in ascending runs that do not touch; ends exclusive, below 2\\ :sup:`64`."""

    starts: U64
    ends: U64

    @classmethod
    def of(cls, ranges: Iterable[Range]) -> "Runs":
        """Ranges in any order."""
        joined = RangeSet(ranges).contiguous()
        return cls(
            np.array([item.start for item in joined], np.uint64),
            np.array([item.end for item in joined], np.uint64),
        )

    @classmethod
    def in_state(cls, coverage: Coverage, state: State) -> "Runs":
        """Memory of a dump in a state (not :attr:`~State.ABSENT`, which has no end)."""
        starts, lasts = coverage.runs(state)
        last = np.uint64(_LAST - 1)
        return cls(starts[starts <= last], np.minimum(lasts[starts <= last], last) + np.uint64(1))

    @property
    def total(self) -> int:
        """bytes"""
        return int((self.ends - self.starts).sum())

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Range]:
        for first in range(0, len(self), _PIECE):
            part = slice(first, first + _PIECE)
            for pair in zip(self.starts[part].tolist(), self.ends[part].tolist(), strict=True):
                yield Range(*pair)

    def within(self, start: int, end: int) -> "Runs":
        """The parts of ``[start, end)``."""
        start, end = min(start, _LAST), min(end, _LAST)
        first = int(np.searchsorted(self.ends, np.uint64(start), side="right"))
        after = int(np.searchsorted(self.starts, np.uint64(end), side="left"))
        if first >= after:
            return Runs(np.empty(0, np.uint64), np.empty(0, np.uint64))
        return Runs(
            np.maximum(self.starts[first:after], np.uint64(start)),
            np.minimum(self.ends[first:after], np.uint64(end)),
        )

    def intersect(self, ranges: RangeSet) -> "Runs":
        """What is in both; the ranges are few."""
        parts = [self.within(item.start, item.end) for item in ranges.contiguous()]
        if not parts:
            return Runs(np.empty(0, np.uint64), np.empty(0, np.uint64))
        return Runs(
            np.concatenate([part.starts for part in parts]),
            np.concatenate([part.ends for part in parts]),
        )

    def subtract(self, ranges: RangeSet) -> "Runs":
        """What is not in the ranges, which are few."""
        end = int(self.ends[-1]) if len(self) else 0
        return self.intersect(RangeSet(ranges.gaps(0, end)))

    def whole(self, size: int) -> "Runs":
        """The whole blocks of a size (bytes) that each run has."""
        step = np.uint64(size)
        starts = _round_up(self.starts, step)
        ends = self.ends // step * step
        keep = starts < ends
        return Runs(starts[keep], ends[keep])

    def touched(self, size: int) -> "Runs":
        """All blocks of a size (bytes) of which a run has a byte; runs that then touch are
        joined."""
        step = np.uint64(size)
        starts, ends = self.starts // step * step, _round_up(self.ends, step)
        if len(starts) == 0:
            return self
        new = np.concatenate(([True], starts[1:] > ends[:-1]))
        last = np.concatenate((np.flatnonzero(new)[1:] - 1, [len(starts) - 1]))
        return Runs(starts[new], ends[last])


def _round_up(values: U64, step: np.uint64) -> U64:
    return (values + (step - np.uint64(1))) // step * step


@dataclass(frozen=True)
class NoteData:
    """An ELF note."""

    name: bytes
    """Without the trailing NUL."""
    type: int
    data: bytes


@dataclass(frozen=True, eq=False, kw_only=True)
class Contents:
    """A dump that is to be written."""

    bits: int
    """32 or 64."""
    byteorder: str
    """``"little"`` or ``"big"``."""
    e_machine: int
    e_flags: int
    page_size: int
    """bytes"""
    utsname: dict[str, bytes]
    """sysname, nodename, release, version, machine, domainname."""
    timestamp: int
    """Seconds since 1970, 0 if not known."""
    cpus: int
    phys_base: int
    dump_level: int
    """makedumpfile's ``-d``, 0 if it did not write the dump."""
    status: int
    """Flags of a kdump header that are not about compression."""
    notes: Sequence[NoteData]
    """All, those of VMCOREINFO and ERASEINFO included."""
    segments: Iterable[Segment]
    """Program headers of an ELF file, before they are cut where memory is left out."""
    covered: Runs
    """Memory that the headers have, saved or not."""
    kept: Runs
    """Memory that is written; part of :attr:`covered`."""
    blank: RangeSet
    """What of :attr:`kept` is overwritten with X, because it shares a page with what is kept."""
    reader: Callable[[], PhysicalMemory]
    """Gives each thread its own reader of the memory."""

    def note(self, name: bytes) -> bytes:
        """Data of the last note of a name; empty if there is none."""
        return next((note.data for note in reversed(self.notes) if note.name == name), b"")

    def without(self, ranges: Iterable[Range]) -> "Contents":
        """The same without some memory."""
        return replace(self, kept=self.kept.subtract(RangeSet(ranges)))
