# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Kernel page tables
------------------

Where kernel virtual addresses are in physical memory, read from the page tables in bulk: whole
tables at a time, as merged extents. The struct pages of persistent memory may be on the pmem
itself, in RAM, or both by turns; only the page tables of the vmemmap tell.

:func:`kernel_coverage` is the law of the house for virtual addresses: page tables first, then what
the dump holds of the physical memory behind them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
import itertools
from typing import Any

from drgn import Architecture, FaultError, Program
from drgn.helpers.linux.mm import follow_phys
import numpy as np

from drgn_pmem.dumpfile import Coverage, State, coverage_of
from drgn_pmem.kernel.debuginfo import find_variable
from drgn_pmem.kernel.mmu import Mmu, find_mmu, ppc64_is_radix
from drgn_pmem.kernel.vmemmap_list import PPC64_PAGE_OFFSET, for_each_backing
from drgn_pmem.partial import NotSaved

__all__ = (
    "Extent",
    "for_each_extent",
    "kernel_coverage",
    "read_saved",
    "translate",
)

_MAX_TABLES = 1 << 20
"""Tables that one walk reads: 2 TiB of base pages on x86. More is a loop, not a kernel."""

_MAX_PAGES = 1 << 18
"""Pages that are looked up one by one where the tables cannot be read in bulk."""


@dataclass(frozen=True)
class Extent:
    """Virtually contiguous memory, and where it is."""

    virtual: int
    physical: int | None
    """None if nothing is mapped or no one can tell; :attr:`state` and :attr:`reason` say which."""
    size: int
    """bytes"""
    state: State = State.SAVED
    """``SAVED`` if it was translated (that says nothing about the memory behind it), ``UNMAPPED``
    if the tables map nothing, otherwise the state of the table that the dump does not hold."""
    reason: str | None = None

    @property
    def end(self) -> int:
        """Virtual, exclusive."""
        return self.virtual + self.size

    def to_json(self) -> dict[str, Any]:
        return {
            "virtual": f"{self.virtual:#x}",
            "physical": None if self.physical is None else f"{self.physical:#x}",
            "size": self.size,
            "state": self.state.value,
            "reason": self.reason,
        }


def _follows(extent: Extent, following: Extent) -> bool:
    if extent.end != following.virtual or extent.state is not following.state:
        return False
    if extent.physical is None or following.physical is None:
        return extent.physical is following.physical and extent.reason == following.reason
    return extent.physical + extent.size == following.physical


def _merge(extents: Iterator[Extent]) -> Iterator[Extent]:
    current: Extent | None = None
    for extent in extents:
        if current is not None and _follows(current, extent):
            current = Extent(
                current.virtual,
                current.physical,
                current.size + extent.size,
                current.state,
                current.reason,
            )
            continue
        if current is not None:
            yield current
        current = extent
    if current is not None:
        yield current


class _Walker:
    """One walk of the kernel's page tables."""

    def __init__(self, prog: Program, mmu: Mmu) -> None:
        self._prog = prog
        self._mmu = mmu
        self._coverage = coverage_of(prog)
        self._tables = 0

    def walk(self, start: int, end: int) -> Iterator[Extent]:
        for valid_start, valid_end in self._mmu.valid:
            low, high = max(start, valid_start), min(end, valid_end)
            if low >= high:
                continue
            if start < low:
                yield _unmapped(start, low)
            yield from self._walk(self._mmu.root, 0, low, high)
            start = high
        if start < end:
            yield _unmapped(start, end)

    def _walk(self, table: int, level: int, start: int, end: int) -> Iterator[Extent]:
        shift, bits = self._mmu.levels[level].shift, self._mmu.levels[level].bits
        first = (start >> shift) & ((1 << bits) - 1)
        count = ((end - 1) >> shift) - (start >> shift) + 1
        entries = self._read(table + 8 * first, count)
        if isinstance(entries, Extent):
            yield Extent(start, None, end - start, entries.state, entries.reason)
            return
        decoded = self._mmu.decode(entries, level)
        kind = decoded.leaf.astype(np.int8) + 2 * decoded.table.astype(np.int8)
        # One run: nothing mapped, or leaves that follow one another. Tables stand alone.
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
                yield Extent(run_start, int(decoded.physical[i]) + into, run_end - run_start)
            else:
                yield _unmapped(run_start, run_end)

    def _read(self, address: int, count: int) -> "Any":
        """Entries of a table as native integers, or an extent that says why there are none."""
        self._tables += 1
        if self._tables > _MAX_TABLES:
            reason = f"more than {_MAX_TABLES} page tables: not sound"
            return Extent(0, None, 0, State.ABSENT, reason)
        state = _state_of(self._coverage, address, 8 * count)
        reason = f"the page table at physical {address:#x} is {state.value}"
        if state is not State.SAVED:
            return Extent(0, None, 0, state, reason)
        try:
            data = self._prog.read(address, 8 * count, True)
        except FaultError as error:
            return Extent(0, None, 0, State.ABSENT, f"page table: {error}")
        return np.frombuffer(data, self._mmu.dtype).astype(np.uint64)


def _unmapped(start: int, end: int) -> Extent:
    return Extent(start, None, end - start, State.UNMAPPED, "not mapped")


def _state_of(coverage: Coverage, address: int, size: int) -> State:
    """State of a physical range: saved, or what the first byte that is not saved is."""
    for part in coverage.ranges(address, address + size):
        if part.state is not State.SAVED:
            return part.state
    return State.SAVED


def _walk_ppc64_hash(prog: Program, start: int, end: int) -> Iterator[Extent]:
    """The hash MMU has no tables for the linear mapping and the vmemmap; both are known anyway."""
    linear_end = PPC64_PAGE_OFFSET + (1 << 51)
    if start < PPC64_PAGE_OFFSET:
        yield _unmapped(start, min(end, PPC64_PAGE_OFFSET))
    if start < linear_end and end > PPC64_PAGE_OFFSET:
        low, high = max(start, PPC64_PAGE_OFFSET), min(end, linear_end)
        yield Extent(low, low - PPC64_PAGE_OFFSET, high - low)
    start = max(start, linear_end)
    for backing in for_each_backing(prog):
        low, high = max(start, backing.virtual), min(end, backing.virtual + backing.size)
        if low >= high:
            continue
        if start < low:
            yield _unmapped(start, low)
        yield Extent(low, backing.physical + (low - backing.virtual), high - low)
        start = high
    if start < end:
        yield _unmapped(start, end)


def _walk_pages(prog: Program, start: int, end: int) -> Iterator[Extent]:
    """Page by page with drgn's own translation, for MMUs that are not known here."""
    page_size = find_variable(prog, "PAGE_SIZE", "vmlinux").value_()
    mm = find_variable(prog, "init_mm", "vmlinux").address_of_()
    for count, page in enumerate(range(start - start % page_size, end, page_size)):
        low, high = max(start, page), min(end, page + page_size)
        if count >= _MAX_PAGES:
            reason = f"more than {_MAX_PAGES} pages to look up one by one"
            yield Extent(low, None, end - low, State.ABSENT, reason)
            return
        try:
            physical = follow_phys(mm, low).value_()
        except (FaultError, NotImplementedError, ValueError) as error:
            mapped = "not mapped" not in str(error)
            state = State.ABSENT if mapped else State.UNMAPPED
            yield Extent(low, None, high - low, state, str(error) if mapped else "not mapped")
            continue
        yield Extent(low, physical, high - low)


def for_each_extent(prog: Program, virtual_start: int, virtual_end: int) -> Iterator[Extent]:
    """
    Where a range of kernel virtual addresses is in physical memory.

    The extents are a partition of the range, in order, merged as far as they go; what is not
    mapped, or cannot be told because the dump lacks a page table, has no physical address and a
    reason.

    :param virtual_start: First virtual address.
    :param virtual_end: End, exclusive.
    :raises MissingDebugInfo: on a machine whose page tables only drgn can read, without debug info
    """
    if virtual_start >= virtual_end:
        return iter(())
    mmu = find_mmu(prog)
    if mmu is not None:
        return _merge(_Walker(prog, mmu).walk(virtual_start, virtual_end))
    platform = prog.platform
    if platform is not None and platform.arch == Architecture.PPC64 and not ppc64_is_radix(prog):
        return _merge(_walk_ppc64_hash(prog, virtual_start, virtual_end))
    return _merge(_walk_pages(prog, virtual_start, virtual_end))


def translate(prog: Program, virtual: int) -> int | None:
    """Physical address of a kernel virtual address; None if it is not mapped or unknown."""
    return next(for_each_extent(prog, virtual, virtual + 1)).physical


def kernel_coverage(prog: Program, virtual: int, size: int) -> list[tuple[int, int, State]]:
    """
    What the dump holds of a range of kernel virtual addresses.

    :param virtual: First virtual address.
    :param size: bytes
    :return: (first, end, state): virtual addresses, end exclusive; a partition of the range, in
        order, merged. ``UNMAPPED`` where the page tables map nothing; where a table itself is not
        in the dump, the state of that table.
    """
    coverage = coverage_of(prog)
    parts: list[tuple[int, int, State]] = []

    def add(start: int, end: int, state: State) -> None:
        if parts and parts[-1][2] is state:
            start = parts.pop()[0]
        parts.append((start, end, state))

    for extent in for_each_extent(prog, virtual, virtual + size):
        if extent.physical is None:
            add(extent.virtual, extent.end, extent.state)
            continue
        offset = extent.virtual - extent.physical
        for part in coverage.ranges(extent.physical, extent.physical + extent.size):
            add(part.start + offset, part.end + offset, part.state)
    return parts


def read_saved(prog: Program, virtual: int, size: int) -> bytes:
    """
    Read kernel memory through the page tables, only if the dump holds every byte of it.

    :param virtual: First virtual address.
    :param size: bytes
    :raises NotSaved: with the state of the first byte that is not in the dump
    """
    coverage = coverage_of(prog)
    pieces = []
    for extent in for_each_extent(prog, virtual, virtual + size):
        if extent.physical is None:
            raise NotSaved(f"{extent.virtual:#x}: {extent.reason}", state=extent.state)
        for part in coverage.ranges(extent.physical, extent.physical + extent.size):
            if part.state is not State.SAVED:
                raise NotSaved(f"physical {part.start:#x} is {part.state.value}", state=part.state)
        try:
            pieces.append(prog.read(extent.physical, extent.size, True))
        except FaultError as error:
            raise NotSaved(str(error), state=State.ABSENT) from error
    return b"".join(pieces)
