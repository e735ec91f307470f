# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Struct pages without debug info
-------------------------------

Where the struct pages of a namespace lie, from vmcoreinfo and the page tables alone: what
:mod:`drgn_pmem.analysis.memmap.sources` tells where debug info is loaded.
"""

from drgn import Program

from drgn_pmem.analysis.inventory.machine import read_machine
from drgn_pmem.analysis.memmap.place import StructPages
from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.kernel.page_layout import page_layout
from drgn_pmem.kernel.pagetable import for_each_extent
from drgn_pmem.partial import Problems
from drgn_pmem.ranges import Range, RangeSet

__all__ = ("struct_pages_of_data",)


def struct_pages_of_data(prog: Program, namespace: int, start: int, end: int) -> StructPages:
    """
    Struct pages of a range of a namespace: where they are, what of them the dump holds.

    :param namespace: Physical address at which the namespace begins.
    :param start: Physical address of the first page that has an initialised struct page.
    :param end: End of that, exclusive.
    :raises MissingDebugInfo: if vmcoreinfo does not tell the layout of struct page
    """
    layout = page_layout(prog)
    first, pfn_end = start >> layout.page_shift, end >> layout.page_shift
    virtual, size = layout.address(first), (pfn_end - first) * layout.size
    # What lies between the info block and the data is persistent memory, whoever else says so.
    pmem = RangeSet([*Problems().take(read_machine(prog)).pmem.ranges, Range(namespace, end)])
    coverage = coverage_of(prog)
    on_pmem = in_ram = unmapped = unknown = 0
    why_unknown = None
    states: dict[State, int] = {}
    places: list[int] = []
    for extent in for_each_extent(prog, virtual, virtual + size):
        counts = {extent.state: extent.size}
        if extent.state is State.UNMAPPED:
            unmapped += extent.size
        elif extent.physical is None:
            unknown += extent.size
            why_unknown = why_unknown or extent.reason
        else:
            inside = pmem.size(extent.physical, extent.physical + extent.size)
            on_pmem, in_ram = on_pmem + inside, in_ram + extent.size - inside
            counts = coverage.count(extent.physical, extent.physical + extent.size)
            places += [extent.physical, extent.physical + extent.size - layout.size]
        for state, count in counts.items():
            states[state] = states.get(state, 0) + count
    return StructPages(
        first,
        pfn_end - first,
        virtual,
        size,
        on_pmem,
        in_ram,
        unmapped,
        states,
        None,
        places[0] if places else None,
        places[-1] if places else None,
        unknown,
        why_unknown,
    )
