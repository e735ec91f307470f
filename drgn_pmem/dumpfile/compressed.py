# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Compressed pages in bulk
------------------------

Reads the pages of a kdump-compressed dump many at a time. Descriptors and data are read in large
pieces, and equal pages are found before they are decompressed: the same page compresses to the same
bytes. Pages that share their data in the file are equal; of neighbours with the same size the bytes
are compared, all at once; every other page is looked up by its compressed bytes among those that
were decompressed lately. In an array of struct pages nearly all pages are equal, so that nearly
none is decompressed.

Offsets and sizes come from the file and may be damaged or hostile: what they name is checked
against the file, and the memory that they cost is bounded.

Layout: ``struct page_desc`` in makedumpfile's diskdump_mod.h.
"""

from collections.abc import Iterator
from dataclasses import dataclass
import struct
import threading

import numpy as np
import numpy.typing as npt

from drgn_pmem.compare import repeats
from drgn_pmem.dumpfile.bitmap import COMPRESSION, Bitmaps, read_descriptors
from drgn_pmem.dumpfile.coverage import U64, Coverage, State
from drgn_pmem.dumpfile.decompress import DecompressError, decompress
from drgn_pmem.errors import DumpFileError
from drgn_pmem.ranges import distinct

__all__ = ("CompressedPages", "Stretch")

_BATCH = 1 << 14
"""Pages whose descriptors are looked at in one piece."""
_READ = 8 << 20
"""Bytes of compressed data that are looked at in one piece."""
_KEPT = 16 << 20
"""Bytes of decompressed pages that are kept."""
_APART = 4096
"""Bytes between the data of two pages that are read rather than skipped."""
_FLAGS = sum(COMPRESSION)
_DESCRIPTOR_SIZE = 24
_BAD_DESCRIPTOR = "its descriptor is damaged, or the file ends in it"

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Stretch:
    """Equal pages, one after the other."""

    count: int
    """How many."""
    data: bytes | None
    """What is in each of them; ``None`` if they are damaged."""
    why: str = ""
    """What is wrong with damaged ones, and where."""


class CompressedPages:
    """
    The dumped pages of a kdump-compressed dump. Several threads may read at once.

    :param coverage: What the dump holds, by its own bitmaps.
    """

    def __init__(self, bitmaps: Bitmaps, coverage: Coverage) -> None:
        self._bitmaps = bitmaps
        self.page_size = bitmaps.block_size
        # Dumped pages are numbered in the order of their addresses; lost ones keep their number.
        parts = [coverage.runs(state) for state in (State.SAVED, State.TRUNCATED, State.DAMAGED)]
        starts = np.concatenate([starts for starts, _ in parts])
        sizes = np.concatenate([lasts - starts + np.uint64(1) for starts, lasts in parts])
        order = np.argsort(starts)
        self._starts: U64 = starts[order]
        self._pages: Numbers = (sizes[order] // np.uint64(self.page_size)).astype(np.int64)
        self._numbers: Numbers = np.cumsum(self._pages) - self._pages
        self.count = int(self._pages.sum())
        """Pages that were dumped."""
        self._kept: dict[tuple[int, bytes], bytes | DecompressError] = {}
        self._most = max(16, _KEPT // self.page_size)
        self._lock = threading.Lock()

    @property
    def compression(self) -> list[str]:
        """Names of the compressions of the first pages."""
        table = read_descriptors(self._bitmaps, 0, min(_BATCH, self.count))
        held = table["flags"][table["size"] != 0]
        return sorted({_name(int(flags)) for flags in distinct(held & _FLAGS)} - {""})

    def number(self, address: int) -> int:
        """
        Number of the page at an address, in the order of dumping.

        :raises DumpFileError: if the page was not dumped
        """
        run = int(np.searchsorted(self._starts, np.uint64(address), side="right")) - 1
        if run >= 0:
            page = (address - int(self._starts[run])) // self.page_size
            if page < int(self._pages[run]):
                return int(self._numbers[run]) + page
        raise DumpFileError(f"{self._bitmaps.source.path}: memory at {address:#x} is not in it")

    def numbers(self, address: int, size: int) -> Numbers:
        """
        Numbers of the pages that hold some bytes.

        :raises DumpFileError: if one of them was not dumped
        """
        first, last = self.number(address), self.number(address + size - 1)
        if last - first != (address + size - 1) // self.page_size - address // self.page_size:
            raise DumpFileError(
                f"{self._bitmaps.source.path}: not all memory from {address:#x} on is in it"
            )
        return np.arange(first, last + 1)

    def zero_pages(self) -> int:
        """
        Pages whose descriptors share one page of zeroes. makedumpfile, unless it keeps pages of
        zeroes (-d), and QEMU write that page before all others and point each such page to it
        (write_kdump_pages_and_bitmap_cyclic(), pd_zero).
        """
        shared, count, first = 1 << 64, 0, 0
        for number in range(0, self.count, _BATCH):
            table = read_descriptors(self._bitmaps, number, min(_BATCH, self.count - number))
            there = np.flatnonzero(table["size"] != 0)
            if not len(there):
                continue
            offsets = table["offset"][there]
            lowest = int(offsets.min())
            if lowest < shared:
                shared, count = lowest, 0
                first = number + int(there[int(offsets.argmin())])
            if lowest == shared:
                count += int((offsets == lowest).sum())
        if not count:
            return 0
        try:
            return 0 if any(self.page(first)) else count
        except DecompressError:
            # not a problem: a page that is damaged is not one of zeroes
            return 0

    def stretches(self, numbers: Numbers) -> Iterator[Stretch]:
        """
        What pages hold, equal neighbours together.

        :param numbers: of the pages, see :meth:`number`
        """
        for first in range(0, len(numbers), _BATCH):
            offset, size, flags = self.descriptors(numbers[first : first + _BATCH])
            bad = self._impossible(offset, size, flags)
            size[bad] = 0
            ends = np.cumsum(size)
            start = 0
            while start < len(size):
                before = int(ends[start - 1]) if start else 0
                stop = int(np.searchsorted(ends, before + _READ, side="right"))
                part = slice(start, max(stop, start + 1))
                yield from self._batch(offset[part], size[part], flags[part], bad[part])
                start = part.stop

    def descriptors(self, numbers: Numbers) -> tuple[U64, Numbers, Numbers]:
        """Offset and size in the file, and compression flags, of pages by number; size 0 where the
        file has no descriptor. As the file has them: nothing is checked."""
        offset = np.zeros(len(numbers), np.uint64)
        size, flags = np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.int64)
        step = np.diff(numbers)
        edges = np.concatenate(([0], np.flatnonzero((step != 0) & (step != 1)) + 1, [len(numbers)]))
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            low, high = int(numbers[start]), int(numbers[stop - 1])
            table = read_descriptors(self._bitmaps, low, high - low + 1)
            at = numbers[start:stop] - low
            there = at < len(table)
            at = at[there]
            offset[start:stop][there] = table["offset"][at]
            size[start:stop][there] = table["size"][at]
            flags[start:stop][there] = table["flags"][at] & _FLAGS
        return offset, size, flags

    def _impossible(self, offset: U64, size: Numbers, flags: Numbers) -> Mask:
        """Descriptors of no page. No compression makes a page longer than twice its size; a damaged
        size may be 4 GiB."""
        bad = (size == 0) | (size > 2 * self.page_size)
        bad |= (flags == 0) & (size != self.page_size)
        bad |= self._bitmaps.source.room(offset) < size.astype(np.uint64)
        return bad

    def _batch(self, offset: U64, size: Numbers, flags: Numbers, bad: Mask) -> Iterator[Stretch]:
        data, at = self._read(offset, size, bad)
        same = np.zeros(len(size), bool)  # as the page before
        alike = (size[1:] == size[:-1]) & (flags[1:] == flags[:-1]) & (bad[1:] == bad[:-1])
        same[1:] = alike & (bad[1:] | (at[1:] == at[:-1]))
        follows = alike & ~bad[1:] & (at[1:] == at[:-1] + size[:-1])
        edges = np.flatnonzero(np.diff(np.concatenate(([False], follows, [False])).astype(np.int8)))
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            rows = data[int(at[start]) : int(at[stop]) + int(size[stop])]
            same[start + 1 : stop + 1] = _equal_rows(rows, int(size[start]))
        first = np.flatnonzero(~same)
        counts = np.diff(first, append=len(same)).tolist()
        for page, count in zip(first.tolist(), counts, strict=True):
            where = f"damaged page at offset {offset[page]}"
            if bad[page]:
                yield Stretch(count, None, f"{where}: {_BAD_DESCRIPTOR}")
                continue
            raw = data[int(at[page]) : int(at[page]) + int(size[page])].tobytes()
            found = self._decoded(int(flags[page]), raw)
            if isinstance(found, bytes):
                yield Stretch(count, found)
            else:
                yield Stretch(count, None, f"{where}: {found}")

    def _read(self, offset: U64, size: Numbers, bad: Mask) -> tuple[npt.NDArray[np.uint8], Numbers]:
        """
        Bytes of pages, and where in them each page's are. Pages of size 0 are not read.

        :param bad: Set for those that the file holds no longer: it was cut short since.
        """
        at = np.zeros(len(size), np.int64)
        chosen = np.flatnonzero(size)
        if not len(chosen):
            return np.zeros(0, np.uint8), at
        # In the order of the file; makedumpfile writes them in the order of their addresses.
        chosen = chosen[np.argsort(offset[chosen], kind="stable")]
        starts = offset[chosen].astype(np.int64)
        ends = np.maximum.accumulate(starts + size[chosen])
        apart = np.flatnonzero(starts[1:] > ends[:-1] + _APART) + 1
        edges = np.concatenate(([0], apart, [len(chosen)]))
        parts, length = [], 0
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            low, high = int(starts[start]), int(ends[stop - 1])
            raw = self._bitmaps.source.read(low, high - low)
            if len(raw) < high - low:
                pages = chosen[start:stop]
                bad[pages[starts[start:stop] + size[pages] > low + len(raw)]] = True
            parts.append(raw.ljust(high - low, b"\0"))
            at[chosen[start:stop]] = starts[start:stop] - low + length
            length += high - low
        return np.frombuffer(parts[0] if len(parts) == 1 else b"".join(parts), np.uint8), at

    def page(self, number: int) -> bytes:
        """
        One page.

        :param number: see :meth:`number`
        :raises DecompressError: if it is damaged; the message says where
        """
        bitmaps = self._bitmaps
        raw = bitmaps.source.read(bitmaps.descriptors + number * _DESCRIPTOR_SIZE, _DESCRIPTOR_SIZE)
        order = "<" if bitmaps.byteorder == "little" else ">"
        offset, size, flags = struct.unpack(f"{order}QII", raw.ljust(16, b"\0")[:16])
        flags &= _FLAGS
        found: bytes | DecompressError = DecompressError(_BAD_DESCRIPTOR)
        if 0 < size <= 2 * self.page_size and (flags or size == self.page_size):
            data = bitmaps.source.read(offset, size)
            if len(data) == size:
                found = self._decoded(flags, data)
        if isinstance(found, bytes):
            return found
        raise DecompressError(f"damaged page at offset {offset}: {found}")

    def _decoded(self, flags: int, raw: bytes) -> bytes | DecompressError:
        how = _name(flags)
        if not how:
            return raw
        key = (flags, raw)
        found = self._kept.get(key)
        if found is None:
            try:
                found = decompress(how, raw, self.page_size)
            except DecompressError as error:
                found = error
            with self._lock:
                if len(self._kept) >= self._most:
                    del self._kept[next(iter(self._kept))]
                self._kept[key] = found
        return found


def _name(flags: int) -> str:
    """How a page is compressed; of several flags the first counts, as in libkdumpfile."""
    return next((name for flag, name in COMPRESSION.items() if flags & flag), "")


def _equal_rows(rows: npt.NDArray[np.uint8], size: int) -> Mask:
    """Of rows of ``size`` bytes, from the second on: whether each is equal to the one before."""
    count = len(rows) // size - 1
    if repeats(rows[: (count + 1) * size], size):
        return np.ones(count, bool)
    differs = rows[size:] != rows[:-size]
    return ~differs.reshape(count, size).any(axis=1)
