# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
RAM pages mapped in place of DAX pages
--------------------------------------

Private copies (copy on write) and the zero page of holes: only the page tables of the processes
that map a DAX file lead to them.
"""

from drgn import Program

from drgn_pmem.analysis.owners.daxfiles import DaxFile, dax_files_of
from drgn_pmem.kernel.memory import cached
from drgn_pmem.kernel.pgmap import for_each_pgmap
from drgn_pmem.kernel.rmap import Vma, process_extents, vmas_of_mapping
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.ranges import RangeSet
from drgn_pmem.record import Record, Show, shown

__all__ = ("PrivateCopy", "is_hole", "private_copies_of", "ram_pages_of")

_MAX_PAGES = 1 << 20
"""Pages of DAX mappings that are looked at."""
_MAX_RAM_PAGES = 1 << 18
"""Pages of RAM in them that are kept: private copies of a GiB."""

Places = dict[int, list[tuple[DaxFile, Vma, int]]]
"""PFN -> the file, the VMA and the virtual address that it is mapped at."""


def _find(prog: Program) -> Partial[Places]:
    problems = Problems()
    places: Places = {}
    pmem = RangeSet(r for pgmap in problems.take(for_each_pgmap(prog)) for r in pgmap.ranges)
    shift = int(prog["PAGE_SHIFT"])
    left, ram_left = _MAX_PAGES, _MAX_RAM_PAGES
    for file in problems.take(dax_files_of(prog)).files:
        for vma in problems.take(vmas_of_mapping(prog, file.inode.mapping)):
            left -= max(vma.end - vma.start, 0) >> shift
            if left < 0:
                why = f"DAX mappings: stopped after {_MAX_PAGES} pages"
                problems.add(Problem(cause=Cause.LIMIT, why=why))
                return problems.partial(places)
            what = f"mapping of inode {file.inode.ino} on {file.device}"
            for extent in problems.take(process_extents(prog, vma.mm, vma.start, vma.end), what):
                if extent.physical is None:
                    continue
                for ram in pmem.gaps(extent.physical, extent.physical + extent.size):
                    ram_left -= ram.size >> shift
                    if ram_left < 0:
                        why = f"RAM in DAX mappings: stopped after {_MAX_RAM_PAGES} pages"
                        problems.add(Problem(cause=Cause.LIMIT, why=why))
                        return problems.partial(places)
                    for physical in range(ram.start, ram.end, 1 << shift):
                        address = extent.virtual + (physical - extent.physical)
                        places.setdefault(physical >> shift, []).append((file, vma, address))
    return problems.partial(places)


def ram_pages_of(prog: Program) -> Partial[Places]:
    """Pages of RAM that DAX mappings have in their page tables, found once per program."""
    places: Partial[Places] = cached(prog, "ram_pages", lambda: _find(prog))
    return places


class PrivateCopy(Record):
    """A page of RAM that a process has in place of a DAX page (copy on write)."""

    index: int
    """In the file, in pages."""
    pfn: int
    address: int = shown(Show.ADDRESS)
    """Where the process has it."""
    mm: int = shown(Show.ADDRESS)
    """Address of its ``struct mm_struct``."""


def is_hole(file: DaxFile, vma: Vma, index: int, problems: Problems) -> bool | None:
    """
    Whether a page of RAM in a DAX mapping is the zero page of a hole, else a private copy.

    :param index: In the file, in pages.
    :return: None if the DAX entries that show it could not be read.
    """
    entry = problems.take(file.entries).find(index)
    # A shared mapping has no private copies.
    if vma.shared or (entry is not None and entry.zero):
        return True
    return None if entry is None and not file.entries.complete else False


def private_copies_of(prog: Program) -> Partial[dict[int, tuple[PrivateCopy, ...]]]:
    """Address of a ``struct address_space`` -> private copies of its pages, in order of index; made
    once per program. Incomplete also where a page may be a copy or a hole."""

    def make() -> Partial[dict[int, tuple[PrivateCopy, ...]]]:
        problems = Problems()
        shift = int(prog["PAGE_SHIFT"])
        found: dict[int, list[PrivateCopy]] = {}
        for pfn, places in problems.take(ram_pages_of(prog)).items():
            for file, vma, address in places:
                index = vma.pgoff + ((address - vma.start) >> shift)
                if is_hole(file, vma, index, problems) is False:
                    copy = PrivateCopy(index=index, pfn=pfn, address=address, mm=vma.mm)
                    found.setdefault(file.inode.mapping, []).append(copy)
        order = {m: tuple(sorted(c, key=lambda c: (c.index, c.pfn))) for m, c in found.items()}
        return problems.partial(order)

    copies: Partial[dict[int, tuple[PrivateCopy, ...]]] = cached(prog, "private_copies", make)
    return copies
