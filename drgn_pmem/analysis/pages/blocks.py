# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Blocks of struct pages
----------------------

Where the struct pages of a range of PFNs are, cut into blocks of a few MiB and gaps. Coverage comes
first: a struct page any byte of which is not in the dump is part of a gap.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from drgn import Program

from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.kernel.page_layout import PageLayout
from drgn_pmem.kernel.pagetable import for_each_extent

__all__ = ("BLOCK_SIZE", "Block", "Gap", "for_each_block")

BLOCK_SIZE = 4 << 20
"""bytes; larger ones fall out of the cache between reading and counting."""


@dataclass(frozen=True)
class Gap:
    """Struct pages that cannot be read."""

    pfn: int
    count: int
    state: State


@dataclass(frozen=True)
class Block:
    """Struct pages that can be read."""

    pfn: int
    count: int
    pieces: tuple[tuple[int, int], ...]
    """(physical address, bytes), one after the other."""


class _Cutter:
    """Cuts a row of pieces of virtual memory, each saved or not, into blocks and gaps of whole
    struct pages."""

    def __init__(self, layout: PageLayout, start_pfn: int, end_pfn: int, block: int) -> None:
        self._layout = layout
        self._end = end_pfn
        self._pfn = start_pfn
        self._pieces: list[tuple[int, int]] = []
        self._bytes = 0
        self._block = block - block % layout.size

    def saved(self, virtual: int, physical: int, size: int) -> Iterator[Block | Gap]:
        if not self._pieces:
            # A struct page that began in a gap is not whole.
            skip = self._layout.address(self._pfn) - virtual
            virtual, physical, size = virtual + skip, physical + skip, size - skip
        while size > 0:
            take = min(size, self._block - self._bytes)
            self._add(physical, take)
            physical, size = physical + take, size - take
            if self._bytes == self._block:
                yield from self.flush()

    def _add(self, physical: int, size: int) -> None:
        if self._pieces and sum(self._pieces[-1]) == physical:
            physical, size_before = self._pieces.pop()
            self._pieces.append((physical, size_before + size))
        else:
            self._pieces.append((physical, size))
        self._bytes += size

    def flush(self) -> Iterator[Block | Gap]:
        """The block of what was added; what is left of a struct page goes to the next gap."""
        count = min(self._bytes // self._layout.size, self._end - self._pfn)
        if count > 0:
            yield Block(self._pfn, count, tuple(self._pieces))
            self._pfn += count
        self._pieces, self._bytes = [], 0

    def missing(self, end: int, state: State) -> Iterator[Block | Gap]:
        """*end*: virtual address where the gap ends."""
        yield from self.flush()
        after = self._layout.vmemmap
        end_pfn = min(-(-(end - after) // self._layout.size), self._end)
        if end_pfn > self._pfn:
            yield Gap(self._pfn, end_pfn - self._pfn, state)
            self._pfn = end_pfn


def for_each_block(
    prog: Program, layout: PageLayout, start_pfn: int, end_pfn: int, blocks: int = 1
) -> Iterator[Block | Gap]:
    """
    Blocks and gaps of the struct pages of a range of PFNs: a partition, in order.

    :param start_pfn: First PFN.
    :param end_pfn: End, exclusive.
    :param blocks: Size of a block, in :data:`BLOCK_SIZE`; see :attr:`Reader.blocks`.
    """
    coverage = coverage_of(prog)
    cutter = _Cutter(layout, start_pfn, end_pfn, blocks * BLOCK_SIZE)
    for extent in for_each_extent(prog, layout.address(start_pfn), layout.address(end_pfn)):
        if extent.physical is None:
            yield from cutter.missing(extent.end, extent.state)
            continue
        offset = extent.virtual - extent.physical
        for part in coverage.ranges(extent.physical, extent.physical + extent.size):
            if part.state is State.SAVED:
                yield from cutter.saved(part.start + offset, part.start, part.size)
            else:
                yield from cutter.missing(part.end + offset, part.state)
    yield from cutter.flush()
