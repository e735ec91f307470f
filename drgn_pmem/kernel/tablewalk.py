# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Walks of kernel page tables
---------------------------

Reads page tables in bulk, whole tables at a time, and yields what they map as merged extents. What
is walked here is not verified: everything but :mod:`drgn_pmem.kernel.root` asks
:mod:`drgn_pmem.kernel.pagetable`.
"""

from collections.abc import Iterable, Iterator
import itertools
from typing import Any

from drgn import FaultError, Program
from drgn.helpers.linux.mm import follow_phys
import numpy as np

from drgn_pmem.dumpfile import Coverage, DumpFormat, State, coverage_of, dump_of
from drgn_pmem.dumpfile.opener import has_dump
from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel.debuginfo import find_variable
from drgn_pmem.kernel.mmu import Mmu
from drgn_pmem.record import Record, Show, shown

__all__ = ("Extent", "merge", "not_known", "unmapped", "walk_tables", "walk_with_drgn")

_MAX_TABLES = 1 << 20
"""Tables that one walk reads: 2 TiB of base pages on x86. More is a loop."""

_MAX_KEPT = 1 << 14
"""Entries that are kept of all walks together, 3 MB: those of the upper tables, which neighbouring
mappings share, are asked for again and again."""

_MAX_PAGES = 1 << 18
"""Pages that all walks of a program together look up one by one, where the tables cannot be read in
bulk: some ten microseconds each."""


class Extent(Record):
    """Virtually contiguous memory, and where it is."""

    virtual: int = shown(Show.ADDRESS)
    physical: int | None = shown(Show.ADDRESS)
    """None if nothing is mapped or the translation is not known; :attr:`state` says which."""
    size: int = shown(Show.SIZE)
    """bytes"""
    state: State = State.SAVED
    """``SAVED`` if it was translated (that says nothing of the physical memory), ``UNMAPPED`` if
    the tables were read in full and map nothing. Anything else: not known, with the state of the
    table or list entry that could not be read, or ``UNKNOWN`` for another reason."""
    reason: str | None = None
    """Why there is no physical address."""

    @property
    def end(self) -> int:
        """Virtual, exclusive."""
        return self.virtual + self.size


def unmapped(start: int, end: int) -> Extent:
    """The tables map nothing from *start* to *end* (virtual, exclusive)."""
    return Extent(
        virtual=start, physical=None, size=end - start, state=State.UNMAPPED, reason="not mapped"
    )


def not_known(start: int, end: int, reason: str, state: State | None = None) -> Extent:
    """
    Where *start* to *end* (virtual, exclusive) is cannot be determined.

    :param state: Of the table that could not be read; None if that is not why.
    """
    return Extent(
        virtual=start,
        physical=None,
        size=end - start,
        state=State.UNKNOWN if state in (None, State.SAVED, State.UNMAPPED) else state,
        reason=reason,
    )


def mapped(start: int, end: int, physical: int) -> Extent:
    """*start* to *end* (virtual, exclusive) is at *physical*."""
    return Extent(virtual=start, physical=physical, size=end - start)


def _follows(extent: Extent, following: Extent) -> bool:
    if extent.end != following.virtual or extent.state is not following.state:
        return False
    if extent.physical is None or following.physical is None:
        return extent.physical is following.physical and extent.reason == following.reason
    return extent.physical + extent.size == following.physical


def merge(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join extents that continue each other."""
    current: Extent | None = None
    for extent in extents:
        if current is not None and _follows(current, extent):
            current = Extent(
                virtual=current.virtual,
                physical=current.physical,
                size=current.size + extent.size,
                state=current.state,
                reason=current.reason,
            )
            continue
        if current is not None:
            yield current
        current = extent
    if current is not None:
        yield current


_KEPT = "drgn_pmem.tablewalk"


class _Walker:
    """One walk of the kernel's page tables."""

    def __init__(self, prog: Program, mmu: Mmu) -> None:
        self._prog = prog
        self._mmu = mmu
        self._coverage = coverage_of(prog)
        self._tables = 0
        # The memory of a live kernel changes.
        fixed = has_dump(prog) and dump_of(prog).contained is not DumpFormat.LIVE
        self._kept: dict[tuple[str, int, int], tuple[int, int]] = (
            prog.cache.setdefault(_KEPT, {}) if fixed else {}
        )

    def walk(self, start: int, end: int) -> Iterator[Extent]:
        for valid_start, valid_end in self._mmu.valid:
            low, high = max(start, valid_start), min(end, valid_end)
            if low >= high:
                continue
            if start < low:
                yield unmapped(start, low)
            yield from self._walk(self._mmu.root, 0, low, high)
            start = high
        if start < end:
            yield unmapped(start, end)

    def _walk(self, table: int, level: int, start: int, end: int) -> Iterator[Extent]:
        shift, bits = self._mmu.levels[level].shift, self._mmu.levels[level].bits
        first = (start >> shift) & ((1 << bits) - 1)
        count = ((end - 1) >> shift) - (start >> shift) + 1
        if count == 1:
            yield from self._walk_entry(table + 8 * first, level, start, end)
            return
        entries = self._read(table + 8 * first, count)
        if isinstance(entries, tuple):
            yield not_known(start, end, *entries)
            return
        decoded = self._mmu.decode(entries, level)
        kind = decoded.leaf.astype(np.int8) + 2 * decoded.table.astype(np.int8)
        # One run: nothing mapped, or consecutive leaves. Tables are never merged.
        same = (kind[1:] == kind[:-1]) & (kind[1:] != 2)
        follows = decoded.physical[1:] - decoded.physical[:-1] == np.uint64(1 << shift)
        same &= (kind[1:] != 1) | follows
        bounds = [0, *(np.flatnonzero(~same) + 1).tolist(), count]
        base = (start >> shift) << shift
        for i, j in itertools.pairwise(bounds):
            run_start = max(start, base + (i << shift))
            run_end = min(end, base + (j << shift))
            if kind[i] == 2:
                yield from self._walk(int(decoded.physical[i]), level + 1, run_start, run_end)
            elif kind[i] == 1:
                into = run_start - (base + (i << shift))
                yield mapped(run_start, run_end, int(decoded.physical[i]) + into)
            else:
                yield unmapped(run_start, run_end)

    def _walk_entry(self, address: int, level: int, start: int, end: int) -> Iterator[Extent]:
        """What one entry of a table maps; for a range within it, numpy would cost more."""
        key = self._mmu.name, address, level
        entry = self._kept.get(key)
        if entry is None:
            read = self._read(address, 1)
            if isinstance(read, tuple):
                yield not_known(start, end, *read)
                return
            decoded = self._mmu.decode(read, level)
            entry = int(decoded.leaf[0]) + 2 * int(decoded.table[0]), int(decoded.physical[0])
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            self._kept[key] = entry
        kind, physical = entry
        if kind == 2:
            yield from self._walk(physical, level + 1, start, end)
        elif kind == 1:
            into = start & ((1 << self._mmu.levels[level].shift) - 1)
            yield mapped(start, end, physical + into)
        else:
            yield unmapped(start, end)

    def _read(self, address: int, count: int) -> "Any":
        """Entries of a table as native integers, or (reason, state) if it cannot be read."""
        self._tables += 1
        if self._tables > _MAX_TABLES:
            return f"more than {_MAX_TABLES} page tables: damaged", None
        state = _state_of(self._coverage, address, 8 * count)
        if state is not State.SAVED:
            return f"the page table at physical {address:#x} is {state.value}", state
        try:
            data = self._prog.read(address, 8 * count, True)
        except FaultError as error:
            return f"the page table at physical {address:#x} cannot be read: {error}", None
        return np.frombuffer(data, self._mmu.dtype).astype(np.uint64)


def _state_of(coverage: Coverage, address: int, size: int) -> State:
    """State of a physical range: saved, or what the first byte that is not saved is."""
    if coverage.saved(address, size):
        return State.SAVED
    for part in coverage.ranges(address, address + size):
        if part.state is not State.SAVED:
            return part.state
    return State.SAVED


def walk_tables(prog: Program, mmu: Mmu, start: int, end: int) -> Iterator[Extent]:
    """
    What page tables map.

    :param start: First virtual address.
    :param end: End, exclusive.
    """
    return merge(_Walker(prog, mmu).walk(start, end))


def walk_with_drgn(prog: Program, start: int, end: int) -> Iterator[Extent]:
    """
    Page by page with drgn's own translation, for MMUs whose tables are not supported. Never returns
    "unmapped": drgn reads tables that the dump left out as zeroes.

    :param start: First virtual address.
    :param end: End, exclusive.
    """
    try:
        page_size = find_variable(prog, "PAGE_SIZE", "vmlinux").value_()
        mm = find_variable(prog, "init_mm", "vmlinux").address_of_()
    except MissingDebugInfo as error:
        yield not_known(start, end, f"the page tables of this machine: {error}")
        return
    left: list[int] = prog.cache.setdefault("drgn_pmem.single_pages", [_MAX_PAGES])
    yield from merge(_drgn_pages(mm, page_size, start, end, left))


def _drgn_pages(mm: Any, page_size: int, start: int, end: int, left: list[int]) -> Iterator[Extent]:
    for page in range(start - start % page_size, end, page_size):
        low, high = max(start, page), min(end, page + page_size)
        if left[0] <= 0:
            yield not_known(low, end, f"more than {_MAX_PAGES} pages to look up one by one")
            return
        left[0] -= 1
        try:
            yield mapped(low, high, follow_phys(mm, low).value_())
        except (FaultError, NotImplementedError, ValueError) as error:
            yield not_known(low, high, str(error))
