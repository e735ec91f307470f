# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Kernel page tables
------------------

Where kernel virtual addresses are in physical memory, by the page tables, on every architecture:
the one address translation of this package. The struct pages of persistent memory may be on the
pmem itself, in RAM, or both in turn; only the page tables of the vmemmap show where.

Unmapped and unknown are distinct: ``UNMAPPED`` is returned only if the tables were read in full,
from a root that was verified (:mod:`drgn_pmem.kernel.root`). A table that was not saved, vmcoreinfo
that does not fit the memory, an unreadable ``vmemmap_list`` have a state and a reason of their own.

:func:`kernel_coverage` returns what the dump holds of virtual addresses: page tables first, then
    the
coverage of the physical memory that they map.
"""

from collections.abc import Iterator

from drgn import FaultError, Program

from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.kernel.root import walk_verified
from drgn_pmem.kernel.tablewalk import Extent
from drgn_pmem.partial import NotSaved, WalkError

__all__ = ("Extent", "for_each_extent", "kernel_coverage", "read_saved", "translate")


def for_each_extent(prog: Program, virtual_start: int, virtual_end: int) -> Iterator[Extent]:
    """
    Where a range of kernel virtual addresses is in physical memory.

    The extents are a partition of the range, in order; adjacent ones are merged. What is not
    mapped, and what is not known because the dump lacks something, has no physical address but a
    state and a reason.

    :param virtual_start: First virtual address.
    :param virtual_end: End, exclusive.
    :raises DumpFileError: if the program has no dump
    """
    if virtual_start >= virtual_end:
        return iter(())
    return walk_verified(prog, virtual_start, virtual_end)


def translate(prog: Program, virtual: int) -> int:
    """
    Physical address of a kernel virtual address.

    :raises NotSaved: if nothing is mapped there (its state is ``UNMAPPED``) or that is not known
    """
    if not 0 <= virtual < 1 << 64:
        raise WalkError(f"{virtual:#x} is not an address")
    extent = next(for_each_extent(prog, virtual, virtual + 1))
    if extent.physical is None:
        raise _not_saved(extent)
    return extent.physical


def _not_saved(extent: Extent) -> NotSaved:
    return NotSaved(
        f"{extent.virtual:#x}: {extent.reason}", address=extent.virtual, state=extent.state
    )


def kernel_coverage(prog: Program, virtual: int, size: int) -> list[tuple[int, int, State]]:
    """
    What the dump holds of a range of kernel virtual addresses.

    :param virtual: First virtual address.
    :param size: bytes
    :return: (first, end, state): virtual addresses, end exclusive; a partition of the range, in
        order, merged. ``UNMAPPED`` where the page tables map nothing; where a table itself is not
        in the dump, the state of that table; ``UNKNOWN`` where the translation is not known for
        another reason.
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
            raise _not_saved(extent)
        for part in coverage.ranges(extent.physical, extent.physical + extent.size):
            if part.state is not State.SAVED:
                raise NotSaved(
                    f"physical {part.start:#x} is {part.state.value}",
                    address=extent.virtual + part.start - extent.physical,
                    state=part.state,
                )
        try:
            pieces.append(prog.read(extent.physical, extent.size, True))
        except FaultError as error:
            # The file has it, and it cannot be read.
            raise NotSaved(str(error), address=extent.virtual, state=State.DAMAGED) from error
    return b"".join(pieces)
