# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Struct pages without debug info
-------------------------------

Where the struct pages of a namespace are, from vmcoreinfo and the page tables alone: what
:mod:`drgn_pmem.analysis.memmap.sources` reads where debug info is loaded.
"""

from drgn import Program

from drgn_pmem.analysis.inventory.machine import read_machine
from drgn_pmem.analysis.memmap.place import StructPages, struct_pages_of
from drgn_pmem.kernel.page_layout import page_layout
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.ranges import Range

__all__ = ("struct_pages_of_data",)


def struct_pages_of_data(
    prog: Program, namespace: int, start: int, end: int
) -> Partial[StructPages]:
    """
    Struct pages of a range of a namespace: where they are, what of them the dump holds.

    :param namespace: Physical address at which the namespace begins.
    :param start: Physical address of the first page that has an initialised struct page.
    :param end: End of that, exclusive.
    :raises MissingDebugInfo: if vmcoreinfo does not have the layout of struct page
    """
    shift = page_layout(prog).page_shift
    problems = Problems()
    # What is between info block and data is persistent memory, whatever the other sources say.
    pmem = problems.take(read_machine(prog)).pmem.union([Range(namespace, end)])
    pages = problems.take(struct_pages_of(prog, [(start >> shift, end >> shift)], pmem))
    return problems.partial(pages)
