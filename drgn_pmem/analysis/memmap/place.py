# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The struct pages of a page map
------------------------------

Where they are by page table, whatever ``map=`` says, and how much of them the dump holds; with
debug info, or from vmcoreinfo and the page tables alone.
"""

from collections.abc import Iterable
from typing import Any

from drgn import Program

from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.kernel.page_layout import page_layout
from drgn_pmem.kernel.pagetable import Extent, for_each_extent
from drgn_pmem.kernel.pgmap import Pgmap
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.ranges import Range, RangeSet
from drgn_pmem.record import Record, Show, shown

__all__ = ("StructPages", "read_struct_pages", "struct_pages_of")


class StructPages(Record):
    """The struct page array of one page map."""

    first_pfn: int
    npfns: int
    virtual: int = shown(Show.ADDRESS)
    """``struct page *`` of :attr:`first_pfn`"""
    size: int = shown(Show.SIZE)
    on_pmem: int = shown(Show.SIZE)
    """bytes of it on pmem"""
    in_ram: int = shown(Show.SIZE)
    """bytes of it in RAM"""
    unmapped: int = shown(Show.SIZE)
    """bytes that the page tables, read in full, do not map"""
    unknown: int = shown(Show.SIZE, default=0)
    """bytes whose place cannot be determined: they may be anywhere"""
    why_unknown: str | None = None
    states: dict[State, int]
    """bytes by what the dump holds of them"""
    pmem_range: Range | None
    """Smallest physical range that holds :attr:`on_pmem`."""
    first_physical: int | None = shown(Show.ADDRESS)
    """Physical address of the first struct page, by page table."""
    last_physical: int | None = shown(Show.ADDRESS)
    """Physical address of the last struct page, by page table."""

    @property
    def saved(self) -> int:
        """bytes that the dump holds"""
        return self.states.get(State.SAVED, 0)

    @property
    def place(self) -> str:
        """``"pmem"``, ``"RAM"``, ``"pmem + RAM"`` (as far as it is known) or ``"unknown"``."""
        places = [name for name, size in (("pmem", self.on_pmem), ("RAM", self.in_ram)) if size]
        return " + ".join(places) or "unknown"

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"saved": self.saved}


def read_struct_pages(prog: Program, pgmap: Pgmap, pmem: RangeSet) -> Partial[StructPages]:
    """
    The struct pages of a page map that are of its pages, not of the altmap's own.

    :param pmem: What is persistent memory.
    :raises MissingDebugInfo: if the layout of struct page is not known
    """
    first, shift = pgmap.first_pfn, pgmap.page_shift
    pfns = [(max(first, r.start >> shift), r.end >> shift) for r in pgmap.ranges]
    return struct_pages_of(prog, [(low, high) for low, high in pfns if low < high], pmem)


def struct_pages_of(
    prog: Program, pfns: Iterable[tuple[int, int]], pmem: RangeSet
) -> Partial[StructPages]:
    """
    Where the struct pages of pages are by page table, and what of them the dump holds.

    :param pfns: First PFN and end (exclusive) of each range of pages, in order.
    :param pmem: What is persistent memory; everything else that is mapped counts as RAM.
    :return: Their place; it is complete if the page tables could be read, whatever the dump holds
        of the struct pages themselves.
    :raises MissingDebugInfo: if the layout of struct page is not known
    """
    layout = page_layout(prog)
    ranges = list(pfns)
    problems = Problems()
    count = _Counter(prog, pmem)
    first_physical = last_physical = None
    for first, end in ranges:
        last = layout.address(end) - layout.size
        for extent in for_each_extent(prog, layout.address(first), layout.address(end)):
            count.add(extent, problems)
            if extent.physical is None:
                continue
            if first == ranges[0][0] and extent.virtual == layout.address(first):
                first_physical = extent.physical
            if end == ranges[-1][1] and extent.virtual <= last < extent.end:
                last_physical = extent.physical + last - extent.virtual
    start = ranges[0][0] if ranges else 0
    npfns = sum(end - first for first, end in ranges)
    return problems.partial(
        StructPages(
            first_pfn=start,
            npfns=npfns,
            virtual=layout.address(start),
            size=npfns * layout.size,
            on_pmem=count.on_pmem,
            in_ram=count.in_ram,
            unmapped=count.states.get(State.UNMAPPED, 0),
            unknown=count.states.get(State.UNKNOWN, 0),
            why_unknown=count.why_unknown,
            states=count.states,
            pmem_range=count.pmem_range(),
            first_physical=first_physical,
            last_physical=last_physical,
        )
    )


class _Counter:
    """Adds up extents of struct pages by where they are and what the dump holds of them."""

    def __init__(self, prog: Program, pmem: RangeSet) -> None:
        self._coverage = coverage_of(prog)
        self._pmem = pmem
        self._on_pmem: list[Range] = []
        self.in_ram = 0
        self.why_unknown: str | None = None
        self.states: dict[State, int] = {}

    def add(self, extent: Extent, problems: Problems) -> None:
        if extent.physical is None:
            if extent.state is State.UNMAPPED:
                self._count(State.UNMAPPED, extent.size)
                return
            # Where they are is not known, so neither is what the dump holds of them.
            self._count(State.UNKNOWN, extent.size)
            self.why_unknown = self.why_unknown or extent.reason
            problems.add(
                Problem(
                    cause=Cause.NOT_SAVED,
                    what="place of its struct pages",
                    why=extent.reason or "not known",
                    state=extent.state,
                )
            )
            return
        end = extent.physical + extent.size
        # An extent may begin in RAM and go on on pmem.
        for part, is_pmem in self._pmem.split(extent.physical, end):
            if is_pmem:
                self._on_pmem.append(part)
            else:
                self.in_ram += part.size
        for state, size in self._coverage.count(extent.physical, end).items():
            self._count(state, size)

    def _count(self, state: State, size: int) -> None:
        self.states[state] = self.states.get(state, 0) + size

    @property
    def on_pmem(self) -> int:
        return sum(part.size for part in self._on_pmem)

    def pmem_range(self) -> Range | None:
        if not self._on_pmem:
            return None
        return Range(min(p.start for p in self._on_pmem), max(p.end for p in self._on_pmem))
