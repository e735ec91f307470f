# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Blocks of struct pages
----------------------

Where the struct pages of a range of PFNs are, cut into blocks of a few MiB and gaps, and the
readers that fetch a block. Coverage comes first: a struct page any byte of which is not in the dump
is part of a gap.

An uncompressed ELF dump is read as a file: that needs no :class:`drgn.Program`, so that several
threads can do it, and it is faster. Everything else is read through drgn.
"""

from collections.abc import Iterator
from dataclasses import dataclass
import os
import threading
from typing import TYPE_CHECKING, Protocol
import weakref

from drgn import FaultError, Program
import numpy as np

from drgn_pmem.dumpfile import DumpFile, DumpFormat, State, coverage_of, dump_of
from drgn_pmem.dumpfile.segments import SegmentTable
from drgn_pmem.errors import DumpFileError
from drgn_pmem.kernel.page_layout import PageLayout
from drgn_pmem.kernel.pagetable import for_each_extent
from drgn_pmem.ranges import paint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

__all__ = ("BLOCK_SIZE", "Block", "Gap", "Reader", "for_each_block", "reader_of")

BLOCK_SIZE = 4 << 20
"""bytes; larger ones fall out of the cache between reading and counting."""

_PROBE = 4096
"""Bytes compared to check that the path still names the same file."""


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

    def __init__(self, layout: PageLayout, start_pfn: int, end_pfn: int) -> None:
        self._layout = layout
        self._end = end_pfn
        self._pfn = start_pfn
        self._pieces: list[tuple[int, int]] = []
        self._bytes = 0
        self._block = BLOCK_SIZE - BLOCK_SIZE % layout.size

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
    prog: Program, layout: PageLayout, start_pfn: int, end_pfn: int
) -> Iterator[Block | Gap]:
    """
    Blocks and gaps of the struct pages of a range of PFNs: a partition, in order.

    :param start_pfn: First PFN.
    :param end_pfn: End, exclusive.
    """
    coverage = coverage_of(prog)
    cutter = _Cutter(layout, start_pfn, end_pfn)
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


class Reader(Protocol):
    """Fetches blocks."""

    parallel: bool
    """Whether several threads may read at once."""

    def read(self, block: Block, size: int) -> "Bytes":
        """
        Bytes of a block; valid until the same thread reads the next one.

        :param size: bytes
        :raises DumpFileError: if they cannot be read after all
        """
        ...


class _ProgramReader:
    """Through drgn: kdump-compressed and flattened dumps, live targets. One thread only."""

    parallel = False

    def __init__(self, prog: Program) -> None:
        self._prog = prog

    def read(self, block: Block, size: int) -> "Bytes":
        parts = []
        for physical, length in block.pieces:
            take = min(length, size)
            size -= take
            try:
                parts.append(self._prog.read(physical, take, True))
            except FaultError as error:
                raise DumpFileError(f"physical {physical:#x}: {error}") from error
        return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), np.uint8)


class _FileReader:
    """The file of an uncompressed ELF dump, by offset."""

    parallel = True

    def __init__(self, dump: DumpFile, segments: SegmentTable) -> None:
        self._path = dump.path
        self._fd = os.open(dump.path, os.O_RDONLY | os.O_CLOEXEC)
        self._finalizer = weakref.finalize(self, os.close, self._fd)
        # A relative path may name another file by now.
        if os.pread(self._fd, _PROBE, 0) != dump.read(0, _PROBE):
            raise FileNotFoundError(dump.path)
        use = np.flatnonzero(segments.has_physical & (segments.memory_size > 0))
        start = segments.physical[use]
        reach = np.minimum(segments.memory_size[use] - np.uint64(1), ~np.uint64(0) - start)
        # As drgn does: of overlapping segments the later one wins.
        first, last, winner = paint(start, start + reach)
        self._first, self._last = first, last
        self._offset = segments.file_offset[use][winner] + (first - start[winner])
        self._buffers = threading.local()

    def _buffer(self) -> "Bytes":
        buffer = getattr(self._buffers, "array", None)
        if buffer is None:
            buffer = self._buffers.array = np.empty(BLOCK_SIZE, np.uint8)
        return buffer

    def _read(self, physical: int, view: memoryview) -> tuple[int, int]:
        """Read as far as one segment goes; bytes read, file offset."""
        run = int(np.searchsorted(self._first, np.uint64(physical), "right")) - 1
        if run < 0 or physical > int(self._last[run]):
            return 0, 0
        offset = int(self._offset[run]) + physical - int(self._first[run])
        take = min(len(view), int(self._last[run]) - physical + 1)
        try:
            return os.preadv(self._fd, [view[:take]], offset), offset
        except OSError:
            return 0, offset

    def read(self, block: Block, size: int) -> "Bytes":
        buffer = self._buffer()[:size]
        view = buffer.data
        at = 0
        for physical, length in block.pieces:
            end = min(at + length, size)
            while at < end:
                got, offset = self._read(physical, view[at:end])
                if got <= 0:
                    raise DumpFileError(
                        f"{self._path}: cannot read at offset {offset}: the file was cut short "
                        "while it was read"
                    )
                at, physical = at + got, physical + got
        return buffer


def reader_of(prog: Program) -> Reader:
    """The fastest reader for the dump behind a program; kept in ``prog.cache``."""
    reader = prog.cache.get("drgn_pmem.scan_reader")
    if reader is None:
        reader = prog.cache["drgn_pmem.scan_reader"] = _find_reader(prog)
    return reader


def _find_reader(prog: Program) -> Reader:
    try:
        dump = dump_of(prog)
    except DumpFileError:
        return _ProgramReader(prog)
    if dump.format is not DumpFormat.ELF or not isinstance(dump.segments, SegmentTable):
        return _ProgramReader(prog)
    try:
        return _FileReader(dump, dump.segments)
    except OSError:
        return _ProgramReader(prog)
