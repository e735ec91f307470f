# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Pages of a kdump-compressed dump
--------------------------------

Reads pages from the file, without libkdumpfile: that one maps the file, and reading a page that
the file does not hold in full ends the process (SIGBUS).
"""

from collections.abc import Iterator

import numpy as np

from drgn_pmem.dumpfile.bitmap import COMPRESSION, DESCRIPTORS, Bitmaps, read_descriptors
from drgn_pmem.dumpfile.coverage import Coverage, State
from drgn_pmem.dumpfile.decompress import DecompressError, decompress
from drgn_pmem.errors import DumpFileError

__all__ = ("KdumpMemory",)

_BATCH = 256
"""Pages that :meth:`KdumpMemory.chunks` gives at once."""
_KEPT = 2048
"""Pages that are kept: page tables and structures are read many times."""


class KdumpMemory:
    """Physical memory of a kdump-compressed dump."""

    def __init__(self, bitmaps: Bitmaps, coverage: Coverage) -> None:
        self._bitmaps = bitmaps
        self._coverage = coverage
        # Dumped pages are numbered in the order of their addresses; lost ones keep their number.
        ranges = [
            item for item in coverage.extent() if item.state in (State.SAVED, State.TRUNCATED)
        ]
        size = bitmaps.block_size
        self._starts = np.array([item.start for item in ranges], np.uint64)
        pages = np.array([item.size // size for item in ranges], np.int64)
        self._numbers = np.cumsum(pages) - pages
        self._kept: dict[int, bytes] = {}
        self._recent: tuple[tuple[int, int, int], bytes] | None = None

    def read(self, address: int, size: int) -> bytes:
        """
        :param address: Physical address (bytes).
        :raises DumpFileError: if one of the bytes is not in the file or cannot be decompressed
            here.
        """
        block = self._bitmaps.block_size
        first = address // block * block
        kept = self._kept.get(first)
        if kept is not None and 0 < size <= first + block - address:
            return kept[address - first : address - first + size]
        if not self._coverage.saved(address, size):
            raise DumpFileError(
                f"{self._bitmaps.source.path}: memory at {address:#x} is not in the dump"
            )
        if size <= 0:
            return b""
        count = (address + size - first + block - 1) // block
        data = b"".join(self._pages(first, count))
        if count == 1:
            if len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[first] = data
        return data[address - first : address - first + size]

    def _pages(self, address: int, count: int) -> Iterator[bytes]:
        """Saved pages without a gap."""
        run = int(np.searchsorted(self._starts, np.uint64(address), side="right")) - 1
        number = int(self._numbers[run]) + (
            (address - int(self._starts[run])) // self._bitmaps.block_size
        )
        for first in range(number, number + count, DESCRIPTORS):
            part = min(DESCRIPTORS, number + count - first)
            table = read_descriptors(self._bitmaps, first, part)
            for offset, size, flags in zip(
                table["offset"].tolist(),
                table["size"].tolist(),
                table["flags"].tolist(),
                strict=True,
            ):
                yield self._page(offset, size, flags)

    def _page(self, offset: int, size: int, flags: int) -> bytes:
        key = (offset, size, flags)
        if self._recent is not None and self._recent[0] == key:
            return self._recent[1]  # all pages of zeroes share one copy
        data = self._decompressed(offset, size, flags)
        self._recent = (key, data)
        return data

    def _decompressed(self, offset: int, size: int, flags: int) -> bytes:
        path, block = self._bitmaps.source.path, self._bitmaps.block_size
        # No compression makes a page longer than this; a damaged size may be 4 GiB.
        data = self._bitmaps.source.read(offset, min(size, 2 * block))
        how = next((name for flag, name in COMPRESSION.items() if flags & flag), None)
        if how is not None:
            try:
                data = decompress(how, data, block)
            except DecompressError as error:
                raise DumpFileError(f"{path}: damaged page at offset {offset}: {error}") from error
        if len(data) != block:
            raise DumpFileError(
                f"{path}: damaged page at offset {offset}: {len(data)} bytes instead of {block}"
            )
        return data

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """All saved memory in pieces of at most a few hundred pages; damaged pages are left out."""
        block = self._bitmaps.block_size
        for item in self._coverage.extent():
            if item.state is not State.SAVED:
                continue
            for address in range(item.start, item.end, _BATCH * block):
                count = min(_BATCH, (item.end - address) // block)
                try:
                    yield address, b"".join(self._pages(address, count))
                except DumpFileError:
                    yield from self._undamaged(address, count)

    def _undamaged(self, address: int, count: int) -> Iterator[tuple[int, bytes]]:
        """Page by page, those that can be decompressed."""
        block = self._bitmaps.block_size
        for page in range(address, address + count * block, block):
            try:
                data = next(self._pages(page, 1))
            except DumpFileError:
                # not a problem: named when it is read by address
                continue
            yield page, data
