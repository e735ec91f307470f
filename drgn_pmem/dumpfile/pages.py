# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Pages of a kdump-compressed dump
--------------------------------

Reads pages from the file, without libkdumpfile, which maps the file: there, reading a page that the
file does not hold in full ends the process (SIGBUS).
"""

from collections.abc import Iterator

from drgn_pmem.dumpfile.bitmap import Bitmaps
from drgn_pmem.dumpfile.compressed import CompressedPages, Stretch
from drgn_pmem.dumpfile.coverage import Coverage, State
from drgn_pmem.dumpfile.decompress import DecompressError
from drgn_pmem.errors import DumpFileError

__all__ = ("KdumpMemory",)

_BATCH = 1024
"""Pages that :meth:`KdumpMemory.chunks` gives at once."""
_KEPT = 2048
"""Pages that are kept: page tables and structures are read many times."""


class KdumpMemory:
    """Physical memory of a kdump-compressed dump."""

    def __init__(self, bitmaps: Bitmaps, coverage: Coverage) -> None:
        self._path = bitmaps.source.path
        self._coverage = coverage
        self.pages = CompressedPages(bitmaps, coverage)
        self._kept: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> bytes:
        """
        :param address: Physical address (bytes).
        :raises DumpFileError: if one of the bytes is not in the file or cannot be decompressed
            here.
        """
        block = self.pages.page_size
        first = address // block * block
        kept = self._kept.get(first)
        if kept is not None and 0 < size <= first + block - address:
            return kept[address - first : address - first + size]
        if not self._coverage.saved(address, size):
            for item in self._coverage.ranges(address, address + size):
                if item.state is State.DAMAGED:
                    where = f"the page at {item.start:#x}"
                    raise DumpFileError(f"{self._path}: the file's entry for {where} is damaged")
            raise DumpFileError(f"{self._path}: memory at {address:#x} is not in the dump")
        if size <= 0:
            return b""
        count = (address + size - first + block - 1) // block
        if count == 1:
            data = self._page(first)
        else:
            data = b"".join(self._whole(item) for item in self._stretches(first, count))
        return data[address - first : address - first + size]

    def _page(self, address: int) -> bytes:
        try:
            data = self.pages.page(self.pages.number(address))
        except DecompressError as error:
            raise DumpFileError(f"{self._path}: {error}") from error
        if len(self._kept) >= _KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[address] = data
        return data

    def _whole(self, item: Stretch) -> bytes:
        if item.data is None:
            raise DumpFileError(f"{self._path}: {item.why}")
        return item.data * item.count

    def _stretches(self, address: int, count: int) -> Iterator[Stretch]:
        """Saved pages without a gap."""
        return self.pages.stretches(self.pages.numbers(address, count * self.pages.page_size))

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """All saved memory in pieces of at most a thousand pages; damaged pages are left out."""
        block = self.pages.page_size
        for item in self._coverage.ranges():
            if item.state is not State.SAVED:
                continue
            for start in range(item.start, item.end, _BATCH * block):
                address, count = start, min(_BATCH, (item.end - start) // block)
                parts: list[bytes] = []
                # A damaged page is not a problem here: it is named when it is read by address.
                for stretch in self._stretches(start, count):
                    if stretch.data is not None:
                        parts.append(stretch.data * stretch.count)
                        continue
                    if parts:
                        data = b"".join(parts)
                        yield address, data
                        address, parts = address + len(data), []
                    address += stretch.count * block
                if parts:
                    yield address, b"".join(parts)
