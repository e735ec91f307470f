# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Split dumps
-----------

``makedumpfile --split`` writes several files at once. Each has the headers and both bitmaps of the
whole dump, but descriptors and data only of the pages in its own range of page frames.
:class:`SplitSource` reads the file that ``makedumpfile --reassemble`` would make of them, without
making it: the first file's headers, the descriptors of all, and after them each file as it is, to
which the offsets of its descriptors are moved.

Pages of a file that is not given have no descriptor, as those that makedumpfile could not write.

Layout: ``struct kdump_sub_header`` in makedumpfile.h (``split``, ``start_pfn``, ``end_pfn``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
import itertools

import numpy as np

from drgn_pmem.dumpfile.bitmap import Bitmaps, read_descriptors
from drgn_pmem.dumpfile.coverage import U64
from drgn_pmem.dumpfile.flattened import MAGIC as FLATTENED_MAGIC, FlattenedSource
from drgn_pmem.dumpfile.kdump import (
    MAGICS,
    KdumpHeader,
    bitmaps_of,
    open_kdump,
    parse_header,
    place_of_split,
)
from drgn_pmem.dumpfile.records import DumpFile
from drgn_pmem.dumpfile.source import ByteSource, FileSource
from drgn_pmem.errors import DumpFileError, UsageError

__all__ = ("MAX_FILES", "SplitSource", "open_split")

MAX_FILES = 256
_ROW = 24
_NOWHERE = np.uint64(1 << 63)
"""Offset of data that the file does not hold."""
_CHUNK = 1 << 20
_COMPARED = 1 << 16
"""Bytes of the bitmaps that are compared in one piece."""
_COMPARISONS = 256
"""Pieces of the bitmaps that are compared, spread evenly."""


@dataclass
class _File:
    """One file of a split dump."""

    source: ByteSource
    header: KdumpHeader
    bitmaps: Bitmaps
    first_row: int = 0
    """Number of its first page in the order of dumping."""
    rows: int = 0
    base: int = 0
    """Where the file begins in the whole one (bytes)."""


class SplitSource:
    """
    The reassembled view of the files of a split dump.

    :param sources: The files, in any order.
    :raises DumpFileError: if they are not of one dump, or their ranges overlap
    """

    complete = True
    in_order = False

    def __init__(self, sources: Sequence[ByteSource]) -> None:
        self.path = " ".join(source.path for source in sources)
        files = [_open(source) for source in sources]
        files.sort(key=lambda file: file.header.start_pfn)
        first = self._first = files[0]
        for file in files[1:]:
            _check_same(first, file)
            _check_bitmaps(first, file)
        for before, after in itertools.pairwise(files):
            if before.header.end_pfn > after.header.start_pfn:
                raise DumpFileError(
                    f"{after.source.path}: holds page frames that {before.source.path} holds, too:"
                    " give each file of the split dump once"
                )
        self.missing = list(_gaps(files))
        self._table = first.bitmaps.descriptors
        place = 0
        pages = 0
        for file in files:
            pages += _dumped(first, place, file.header.start_pfn)
            file.first_row = pages
            file.rows = _dumped(first, file.header.start_pfn, file.header.end_pfn)
            pages, place = pages + file.rows, file.header.end_pfn
        pages += _dumped(first, place, first.bitmaps.pages)
        self._end = self._table + _ROW * pages
        base = self._end
        for file in files:
            file.base, base = base, base + file.source.size
        self.size = base
        self._files = files
        order = "<" if first.header.byteorder == "little" else ">"
        self._row = np.dtype([("offset", f"{order}u8"), ("size", f"{order}u4"), ("rest", "V12")])
        self._bases = np.array([file.base for file in files], np.uint64)
        self._ends = np.array([file.base + file.source.size for file in files], np.uint64)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the reassembled file."""
        parts = []
        end = min(offset + size, self.size)
        while 0 <= offset < end:
            if offset < self._table:
                part = self._headers(offset, min(end, self._table) - offset)
            elif offset < self._end:
                part = self._descriptors(offset, min(end, self._end) - offset)
            else:
                file = self._files[self._at(offset)]
                stop = min(end, file.base + file.source.size)
                part = file.source.read(offset - file.base, stop - offset)
                part = part.ljust(stop - offset, b"\0") if stop < end else part
            if not part:
                break
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def _at(self, offset: int) -> int:
        return int(np.searchsorted(self._bases, np.uint64(offset), side="right")) - 1

    def _headers(self, offset: int, size: int) -> bytes:
        """Of the first file, as if it were not split."""
        data = bytearray(self._first.source.read(offset, size))
        flag = place_of_split(self._first.header)
        low, high = max(flag, offset), min(flag + 4, offset + len(data))
        if low < high:
            data[low - offset : high - offset] = bytes(high - low)
        return bytes(data)

    def _descriptors(self, offset: int, size: int) -> bytes:
        first = (offset - self._table) // _ROW
        last = -(-(offset + size - self._table) // _ROW)
        rows = np.zeros(last - first, self._row)
        for file in self._files:
            low, high = max(first, file.first_row), min(last, file.first_row + file.rows)
            if low >= high:
                continue
            raw = read_descriptors(file.bitmaps, low - file.first_row, high - low).tobytes()
            own = np.frombuffer(raw, self._row).copy()
            inside = own["offset"] < np.uint64(file.source.size)
            moved = own["offset"].astype(np.uint64) + np.uint64(file.base)
            own["offset"] = np.where(inside, moved, _NOWHERE)
            rows[low - first : low - first + len(own)] = own
        skip = offset - self._table - first * _ROW
        return rows.tobytes()[skip : skip + size]

    def room(self, offsets: U64) -> U64:
        """Bytes from each offset to the end of the file that it is in."""
        end = np.uint64(self._end)
        file = np.maximum(np.searchsorted(self._bases, offsets, side="right") - 1, 0)
        ends = np.where(offsets < end, end, self._ends[file])
        return ends - np.minimum(offsets, ends)

    def next_data(self, offset: int) -> int:
        """Skip holes of the bitmaps."""
        if offset < self._table:
            return min(self._first.source.next_data(offset), self._table)
        return min(offset, self.size)


def _open(source: ByteSource) -> _File:
    if not source.read(0, 16).startswith(MAGICS):
        raise UsageError(
            f"{source.path}: one dump is one file, or the files of a split one (makedumpfile"
            " --split); raw images of memory are FILE@ADDRESS, with the physical address of the"
            " first byte (FILE@0, FILE@0x100000000)"
        )
    header = parse_header(source, split=True)
    if not header.split:
        raise UsageError(f"{source.path}: not a file of a split dump: give it alone")
    if not header.start_pfn <= header.end_pfn <= header.max_mapnr:
        raise DumpFileError(f"{source.path}: damaged kdump header: its range of page frames")
    bitmaps = bitmaps_of(source, header)
    if bitmaps.cut_short():
        raise DumpFileError(f"{source.path}: the file ends inside its bitmaps")
    return _File(source, header, bitmaps)


def _check_same(first: _File, other: _File) -> None:
    def known(file: _File) -> KdumpHeader:
        # Where notes are differs: the first file alone has them.
        return replace(
            file.header, start_pfn=0, end_pfn=0, status=0, offset_vmcoreinfo=0, size_vmcoreinfo=0,
            offset_note=0, size_note=0, offset_eraseinfo=0, size_eraseinfo=0,
        )  # fmt: skip

    if known(first) != known(other):
        raise DumpFileError(
            f"{other.source.path}: not of the same dump as {first.source.path}: its header differs"
        )


def _gaps(files: Sequence[_File]) -> Iterator[tuple[int, int]]:
    """Page frames, end exclusive, that no file holds."""
    place = 0
    for file in files:
        if file.header.start_pfn > place:
            yield place, file.header.start_pfn
        place = file.header.end_pfn
    if place < files[0].header.max_mapnr:
        yield place, files[0].header.max_mapnr


def _check_bitmaps(first: _File, other: _File) -> None:
    """
    Each file of a split dump has all of the bitmaps: those of two dumps of one machine, whose
    headers are alike, differ in the pages that were saved.

    :raises DumpFileError: if they differ
    """
    size = first.bitmaps.size
    step = max(_COMPARED, -(-size // _COMPARISONS))
    for at in range(0, size, step):
        offset, length = first.bitmaps.dumped_offset + at, min(_COMPARED, size - at)
        if first.source.read(offset, length) != other.source.read(offset, length):
            raise DumpFileError(
                f"{other.source.path}: not of the same dump as {first.source.path}: other pages "
                "were saved in it"
            )


def _dumped(file: _File, start: int, end: int) -> int:
    """Pages of a range of page frames that were dumped."""
    bitmaps = file.bitmaps
    end = min(end, bitmaps.pages)
    count, at = 0, start // 8
    while 8 * at < end:
        data_at = file.source.next_data(bitmaps.dumped_offset + at) - bitmaps.dumped_offset
        if data_at > at:
            at = data_at
            continue
        raw = file.source.read(bitmaps.dumped_offset + at, min(_CHUNK, -(-end // 8) - at))
        if not raw:
            break
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        count += int(bits[max(start - 8 * at, 0) : end - 8 * at].sum(dtype=np.int64))
        at += len(raw)
    return count


def open_split(paths: Sequence[str]) -> DumpFile:
    """
    Open the files of a split dump as one.

    :raises UsageError: if they are none
    :raises DumpFileError: if they do not belong together, or are damaged
    """
    if len(paths) > MAX_FILES:
        raise UsageError(f"{len(paths)} files; at most {MAX_FILES} are read")
    sources: list[ByteSource] = []
    for path in paths:
        file = FileSource(path)
        flattened = file.read(0, 16).startswith(FLATTENED_MAGIC)
        sources.append(FlattenedSource(file) if flattened else file)
    source = SplitSource(sources)
    dump = open_kdump(source)
    return replace(
        dump,
        summary=f"{dump.summary}, {len(paths)} files of a split dump",
        joined=True,
        missing=tuple(source.missing),
        size_of_files=sum(part.size for part in sources),
    )
