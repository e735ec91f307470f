# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Pages of a kdump-compressed dump
--------------------------------

Reads pages that are stored as they are or compressed with zlib, which is in Python's library; the
other compressions are left to libkdumpfile, which drgn brings along.
"""

from collections.abc import Iterator
import zlib

import numpy as np

from drgn_pmem.dumpfile.bitmap import COMPRESSION, DESCRIPTORS, Bitmaps, read_descriptors
from drgn_pmem.dumpfile.coverage import Coverage, State
from drgn_pmem.errors import DumpFileError

__all__ = ("KdumpMemory",)

_BATCH = 256
"""Pages that :meth:`KdumpMemory.chunks` gives at once."""


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
        self._recent: tuple[tuple[int, int, int], bytes] | None = None

    def read(self, address: int, size: int) -> bytes:
        """
        :param address: Physical address (bytes).
        :raises DumpFileError: if one of the bytes is not in the file or cannot be decompressed
            here.
        """
        if not self._coverage.saved(address, size):
            raise DumpFileError(
                f"{self._bitmaps.source.path}: memory at {address:#x} is not in the dump"
            )
        if size <= 0:
            return b""
        block = self._bitmaps.block_size
        first = address // block * block
        count = (address + size - first + block - 1) // block
        data = b"".join(self._pages(first, count))
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
        path, block = self._bitmaps.source.path, self._bitmaps.block_size
        how = next((name for flag, name in COMPRESSION.items() if flags & flag), None)
        if how not in (None, "zlib"):
            raise DumpFileError(f"{path}: pages compressed with {how} are read through drgn only")
        data = self._bitmaps.source.read(offset, size)
        if how == "zlib":
            try:
                # A page, and no more: what a damaged one expands to is not of interest.
                data = zlib.decompressobj().decompress(data, block + 1)
            except zlib.error as error:
                raise DumpFileError(f"{path}: damaged page at offset {offset}: {error}") from error
        if len(data) != block:
            raise DumpFileError(
                f"{path}: damaged page at offset {offset}: {len(data)} bytes instead of {block}"
            )
        self._recent = (key, data)
        return data

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """All saved memory in pieces of at most a few hundred pages; damaged pages are left out."""
        block = self._bitmaps.block_size
        for item in self._coverage.extent():
            if item.state is not State.SAVED:
                continue
            for address in range(item.start, item.end, _BATCH * block):
                count = min(_BATCH, (item.end - address) // block)
                yield address, b"".join(self._pages(address, count))
