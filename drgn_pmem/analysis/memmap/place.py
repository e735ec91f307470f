# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The struct pages of a page map
------------------------------

Where they lie by page table, whatever ``map=`` says, and how much of them the dump holds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from drgn import Program
from drgn.helpers.linux.mm import pfn_to_page

from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.kernel.debuginfo import find_type
from drgn_pmem.kernel.pagetable import for_each_extent
from drgn_pmem.kernel.pgmap import Pgmap
from drgn_pmem.ranges import Range

__all__ = ("StructPages", "address_text", "read_struct_pages")


def address_text(value: int | None) -> str | None:
    """Physical address as JSON and tables show it."""
    return None if value is None else f"{value:#x}"


@dataclass(frozen=True)
class StructPages:
    """The struct page array of one page map."""

    first_pfn: int
    npfns: int
    virtual: int
    """``struct page *`` of :attr:`first_pfn`"""
    size: int
    """bytes"""
    on_pmem: int
    """bytes of it that lie on pmem"""
    in_ram: int
    """bytes of it that lie in RAM"""
    unmapped: int
    """bytes that the page tables map nowhere"""
    states: dict[State, int]
    """bytes by what the dump holds of them"""
    pmem_range: Range | None
    """Smallest physical range that holds :attr:`on_pmem`."""
    first_physical: int | None
    """Physical address of the first struct page, by page table."""
    last_physical: int | None
    """Physical address of the last struct page, by page table."""
    unknown: int = 0
    """bytes whose place cannot be determined"""
    why_unknown: str | None = None
    """Why, of the first of them."""

    @property
    def saved(self) -> int:
        """bytes that the dump holds"""
        return self.states.get(State.SAVED, 0)

    @property
    def place(self) -> str:
        """``"pmem"``, ``"RAM"``, ``"pmem + RAM"`` or ``"unknown"``."""
        places = [name for name, size in (("pmem", self.on_pmem), ("RAM", self.in_ram)) if size]
        return " + ".join(places) or "unknown"

    def to_json(self) -> dict[str, Any]:
        return {
            "first_pfn": self.first_pfn,
            "npfns": self.npfns,
            "virtual": f"{self.virtual:#x}",
            "size": self.size,
            "on_pmem": self.on_pmem,
            "in_ram": self.in_ram,
            "unmapped": self.unmapped,
            "unknown": self.unknown,
            "why_unknown": self.why_unknown,
            "saved": self.saved,
            "states": {state.value: size for state, size in self.states.items()},
            "pmem_range": self.pmem_range.to_json() if self.pmem_range else None,
            "first_physical": address_text(self.first_physical),
            "last_physical": address_text(self.last_physical),
        }


def read_struct_pages(prog: Program, pgmap: Pgmap, pmem: Iterable[Range]) -> StructPages:
    """
    Where the struct pages of a page map are by page table, and what of them the dump holds.

    Only the struct pages that the kernel initialised count, not those of the altmap's own pages.

    :param pmem: What is persistent memory.
    """
    regions = list(pmem)
    coverage = coverage_of(prog)
    page_size = find_type(prog, "struct page", "vmlinux").size or 0
    first, end = pgmap.first_pfn, pgmap.end_pfn
    virtual = pfn_to_page(prog, first).value_()
    size = max(0, end - first) * page_size
    on_pmem = in_ram = unmapped = unknown = 0
    why_unknown = None
    states: dict[State, int] = {}
    pmem_start: int | None = None
    pmem_end = 0
    first_physical = last_physical = None
    for extent in for_each_extent(prog, virtual, virtual + size):
        if extent.physical is None:
            if extent.state is State.UNMAPPED:
                unmapped += extent.size
            else:
                unknown += extent.size
                why_unknown = why_unknown or extent.reason
            states[extent.state] = states.get(extent.state, 0) + extent.size
            continue
        if extent.virtual == virtual:
            first_physical = extent.physical
        if extent.end == virtual + size:
            last_physical = extent.physical + extent.size - page_size
        if any(extent.physical in region for region in regions):
            on_pmem += extent.size
            if pmem_start is None or extent.physical < pmem_start:
                pmem_start = extent.physical
            pmem_end = max(pmem_end, extent.physical + extent.size)
        else:
            in_ram += extent.size
        for state, count in coverage.count(extent.physical, extent.physical + extent.size).items():
            states[state] = states.get(state, 0) + count
    return StructPages(
        first,
        max(0, end - first),
        virtual,
        size,
        on_pmem,
        in_ram,
        unmapped,
        states,
        None if pmem_start is None else Range(pmem_start, pmem_end),
        first_physical,
        last_physical,
        unknown,
        why_unknown,
    )
