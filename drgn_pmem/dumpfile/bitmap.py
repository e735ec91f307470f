# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Bitmaps of a kdump-compressed dump
----------------------------------

Two bitmaps, one bit per page frame, least significant bit first: the first says which pages exist,
the second which were dumped. The descriptors of the dumped pages follow in the order of the second.
A machine of 16 TiB has 512 MiB of each, so they are read piece by piece and kept as runs.

Layout: ``struct page_desc`` in makedumpfile's diskdump_mod.h.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drgn_pmem.dumpfile.coverage import U64, Coverage, State
from drgn_pmem.dumpfile.source import ByteSource
from drgn_pmem.errors import DumpFileError

__all__ = ("COMPRESSION", "MAX_RUNS", "Bitmaps", "bitmap_coverage", "read_descriptors")

COMPRESSION = {0x1: "zlib", 0x2: "lzo", 0x4: "snappy", 0x20: "zstd"}
"""Compression by flag (``DUMP_DH_COMPRESSED_*``), of the header's status and of each page."""
MAX_RUNS = 1 << 25
"""More runs than this are taken for damage: every second page of 256 GiB."""
CHUNK = 1 << 18
"""Bytes of a bitmap that are looked at in one piece."""
DESCRIPTORS = 1 << 18
"""Page descriptors that are looked at in one piece."""
SCAN_ALL = 1 << 22
"""Up to this many descriptors are all checked against the end of the file; of more, a sample
first."""

_DESCRIPTOR_SIZE = 24
_ONES, _ZEROES = b"\xff" * CHUNK, bytes(CHUNK)

_ABSENT, _EXCLUDED = Coverage.code(State.ABSENT), Coverage.code(State.EXCLUDED)
_SAVED, _TRUNCATED = Coverage.code(State.SAVED), Coverage.code(State.TRUNCATED)
_DAMAGED = Coverage.code(State.DAMAGED)

_HELD, _NONE, _BEYOND, _BAD = range(4)
"""Of a descriptor: it names bytes of the file; it is empty, or its page was not written; it names
bytes beyond the end of the file; it names no page at all."""
_STATE_OF_KIND = np.array([_SAVED, _TRUNCATED, _TRUNCATED, _DAMAGED], np.uint8)

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Bitmaps:
    """Where the two bitmaps and the descriptors are."""

    source: ByteSource
    block_size: int
    """Page size (bytes)."""
    offset: int
    """File offset of the first bitmap (bytes)."""
    blocks: int
    """Blocks of both bitmaps together."""
    max_mapnr: int
    """PFN after the last."""
    byteorder: str
    incomplete: bool = False
    """Whether the header says that the writer could not finish."""

    @property
    def separate(self) -> bool:
        """Whether there are two bitmaps; a dump of all memory (diskdump) has one, as libkdumpfile
        judges it."""
        return self.max_mapnr <= self.blocks * self.block_size * 8 // 2

    @property
    def size(self) -> int:
        """Size of one bitmap (bytes)."""
        return (self.blocks // 2 if self.separate else self.blocks) * self.block_size

    @property
    def exists_offset(self) -> int:
        """File offset of the bitmap of pages that exist."""
        return self.offset

    @property
    def dumped_offset(self) -> int:
        """File offset of the bitmap of pages that were dumped."""
        return self.offset + (self.size if self.separate else 0)

    @property
    def descriptors(self) -> int:
        """File offset of the page descriptors."""
        return self.offset + self.blocks * self.block_size

    @property
    def pages(self) -> int:
        """PFN after the last that has a bit."""
        return min(self.max_mapnr, self.size * 8)

    def cut_short(self) -> bool:
        """Whether the file ends before the descriptors."""
        length = self.blocks * self.block_size
        return int(self.source.room(np.array([self.offset], np.uint64))[0]) < length


def bitmap_coverage(bitmaps: Bitmaps) -> Coverage:
    """
    Coverage by the bitmaps, corrected by what the file really holds.

    :raises DumpFileError: if the bitmaps change state more often than :data:`MAX_RUNS` times.
    """
    starts, codes = _mark_lost(bitmaps, *_runs(bitmaps))
    keep = np.ones(len(codes), bool)
    keep[1:] = codes[1:] != codes[:-1]
    if not keep.all():
        starts, codes = starts[keep], codes[keep]
    starts *= np.uint64(bitmaps.block_size)
    return Coverage(starts, codes)


def _runs(bitmaps: Bitmaps) -> tuple[U64, Codes]:
    """First PFN and state of each run; the first starts at 0, the last is absent and has no end."""
    starts: list[U64] = []
    codes: list[Codes] = []
    total, last = 0, -1
    for first, state_starts, state_codes in _pieces(bitmaps):
        keep = np.ones(len(state_codes), bool)
        keep[1:] = state_codes[1:] != state_codes[:-1]
        keep[0] = state_codes[0] != last
        last = int(state_codes[-1])
        total += int(keep.sum())
        if total > MAX_RUNS:
            raise DumpFileError(
                f"{bitmaps.source.path}: damaged kdump bitmaps: more than {MAX_RUNS} changes"
            )
        starts.append(state_starts[keep] + np.uint64(first))
        codes.append(state_codes[keep])
    if last != _ABSENT:
        starts.append(np.array([bitmaps.pages], np.uint64))
        codes.append(np.array([_ABSENT], np.uint8))
    return np.concatenate(starts), np.concatenate(codes)


def _pieces(bitmaps: Bitmaps) -> Iterator[tuple[int, U64, Codes]]:
    """Runs of one piece of the bitmaps after the other: first PFN of the piece, starts relative to
    it, states."""
    source = bitmaps.source
    position, size = 0, (bitmaps.pages + 7) // 8
    while position < size:
        pfn = position * 8
        # A hole in both bitmaps is one run of absent pages.
        skip = min(
            source.next_data(bitmaps.exists_offset + position) - bitmaps.exists_offset,
            source.next_data(bitmaps.dumped_offset + position) - bitmaps.dumped_offset,
        )
        whole = np.array(
            [bitmaps.exists_offset + position, bitmaps.dumped_offset + position], np.uint64
        )
        room = source.room(whole)
        exists_room, dumped_room = int(room[0]), int(room[1])
        if skip > position and min(exists_room, dumped_room) > 0:
            hole = min(skip, size, position + min(exists_room, dumped_room)) - position
            yield pfn, np.zeros(1, np.uint64), np.array([_ABSENT], np.uint8)
            position += hole
            continue
        if exists_room == 0:
            yield pfn, np.zeros(1, np.uint64), np.array([_TRUNCATED], np.uint8)
            return
        length = min(CHUNK, size - position, exists_room, dumped_room or exists_room)
        held = source.read(bitmaps.exists_offset + position, length)
        if dumped_room and position + length < size:
            kept = source.read(bitmaps.dumped_offset + position, length)
            code = _uniform(held, kept) if len(kept) == length else None
            if code is not None:
                yield pfn, np.zeros(1, np.uint64), np.array([code], np.uint8)
                position += length
                continue
        exists = _words(held)
        if dumped_room == 0:
            # What exists may or may not have been dumped; its bit is lost.
            starts, bits = _bit_runs(exists, exists)
            yield pfn, starts, np.where(bits & 1, _TRUNCATED, _ABSENT).astype(np.uint8)
        else:
            dumped = _words(source.read(bitmaps.dumped_offset + position, length))
            starts, bits = _bit_runs(exists, dumped)
            table = np.array([_ABSENT, _EXCLUDED, _SAVED, _SAVED], np.uint8)
            yield pfn, starts, table[bits]
        position += length


def _uniform(exists: bytes, dumped: bytes) -> int | None:
    """State of all pages of a piece, if it is one by its bytes."""
    size = len(dumped)
    if dumped == _ONES[:size]:
        return _SAVED
    if dumped != _ZEROES[:size] or len(exists) != size:
        return None
    if exists == _ONES[:size]:
        return _EXCLUDED
    return _ABSENT if exists == _ZEROES[:size] else None


def _words(data: bytes) -> U64:
    return np.frombuffer(data.ljust((len(data) + 7) & -8, b"\0"), "<u8").astype(np.uint64)


def _bit_runs(exists: U64, dumped: U64) -> tuple[U64, Codes]:
    """Positions where either bitmap changes, the first being 0, and both bits from there on (bit 0,
    bit 1)."""
    changes = np.zeros(len(exists), np.uint64)
    one = np.uint64(1)
    for words in (exists, dumped):
        before = np.empty_like(words)  # the bit in front of each word
        before[0] = words[0] & one
        before[1:] = words[:-1] >> np.uint64(63)
        changes |= words ^ ((words << one) | before)
    changes[0] |= one
    touched = np.flatnonzero(changes)
    bits = np.unpackbits(
        changes[touched].astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little"
    )
    word, bit = np.nonzero(bits)
    starts = (touched[word] * 64 + bit).astype(np.uint64)
    place = bit.astype(np.uint64)
    has = ((exists[touched[word]] >> place) & one) | (
        ((dumped[touched[word]] >> place) & one) << one
    )
    return starts, has.astype(np.uint8)


def _mark_lost(bitmaps: Bitmaps, starts: U64, codes: Codes) -> tuple[U64, Codes]:
    """Split the saved runs where the file does not hold the page after all."""
    # After each run, the number of pages dumped so far; page number n is in the first run after
    # which there are more than n. There may be many runs, so this works in place.
    behind = np.empty_like(starts)
    np.subtract(starts[1:], starts[:-1], out=behind[:-1])
    behind[-1] = 0
    behind[codes != _SAVED] = 0
    np.cumsum(behind, out=behind)
    total = int(behind[-1])
    if total == 0 or not _suspect(bitmaps, total):
        return starts, codes
    edges, states = _states(bitmaps, total)
    if len(edges) == 0:
        return starts, codes
    run = np.searchsorted(behind, edges, side="right")
    cuts = starts[run + 1] - (behind[run] - edges)
    del behind
    inside = cuts != starts[run]
    starts = np.insert(starts, run[inside] + 1, cuts[inside])
    codes = np.insert(codes, run[inside] + 1, _SAVED)
    # From each edge to the next one, saved pages are in its state.
    places = np.searchsorted(starts, cuts)
    after = codes[places[0] :]
    found = np.repeat(states, np.diff(places, append=len(starts)))
    np.copyto(after, found, where=after == _SAVED)
    return starts, codes


def _suspect(bitmaps: Bitmaps, total: int) -> bool:
    """Whether some descriptors have to be looked at one by one: a few pages of a cut dump are
    always among the last."""
    if total <= SCAN_ALL or bitmaps.incomplete or not bitmaps.source.complete:
        return True
    sample = DESCRIPTORS // 64
    for first in np.linspace(0, total - sample, 64, dtype=np.int64).tolist():
        if _kinds(bitmaps, first, sample)[0].any():
            return True
    return False


def _states(bitmaps: Bitmaps, total: int) -> tuple[U64, Codes]:
    """Numbers of pages, in the order of dumping, where the state of the pages changes, and the
    state from there on; before the first they are saved."""
    edges: list[U64] = []
    kinds: list[Codes] = []
    source, kind, number = bitmaps.source, _HELD, 0
    highest, last = -1, -1
    while number < total:
        place = bitmaps.descriptors + number * _DESCRIPTOR_SIZE
        data = source.next_data(place)
        if data >= source.size:
            hole = total - number
        else:
            hole = min((data - place) // _DESCRIPTOR_SIZE, total - number)
        if hole:
            # Descriptors of zeroes, or none at all.
            found, count = np.full(1, _NONE, np.uint8), hole
        else:
            count = min(DESCRIPTORS, total - number)
            found, offset = _kinds(bitmaps, number, count)
            at = int(np.argmax(offset)) if len(offset) else 0
            if len(offset) and int(offset[at]) > highest:
                highest, last = int(offset[at]), number + at
        changes = np.flatnonzero(np.diff(np.concatenate(([kind], found)).astype(np.int8)))
        edges.append(changes.astype(np.uint64) + np.uint64(number))
        kinds.append(found[changes])
        kind = int(found[-1])
        number += count
    numbers, of = np.concatenate(edges), np.concatenate(kinds)
    states = _STATE_OF_KIND[of]
    # Pages are written in the order of their numbers: where a later page is in the file, the file
    # was not cut short before this one.
    if source.in_order:
        states[(of == _BEYOND) & (numbers < last)] = _DAMAGED
    return numbers, states


def _kinds(bitmaps: Bitmaps, first: int, count: int) -> tuple[Codes, npt.NDArray[np.int64]]:
    """Of pages by number, what their descriptors are; and the offsets of those that are held, 0 for
    the others."""
    source, size_of_page = bitmaps.source, bitmaps.block_size
    table = read_descriptors(bitmaps, first, count)
    offset, size = table["offset"].astype(np.uint64), table["size"].astype(np.uint64)
    empty = (offset == 0) & (size == 0) & (table["flags"] == 0)
    if not source.complete:
        place = np.arange(len(table), dtype=np.uint64) * np.uint64(_DESCRIPTOR_SIZE)
        place += np.uint64(bitmaps.descriptors + first * _DESCRIPTOR_SIZE)
        empty |= source.room(place) < np.uint64(_DESCRIPTOR_SIZE)
    stored = table["flags"] & sum(COMPRESSION) == 0
    # No compression makes a page longer than twice its size.
    bad = (size == 0) | (size > 2 * size_of_page) | (stored & (size != size_of_page))
    lost = source.room(offset) < size
    beyond = (offset >= np.uint64(1 << 63)) | (offset + size > np.uint64(source.size))
    kinds = np.full(count, _NONE, np.uint8)
    kinds[: len(table)] = np.select(
        [empty, bad, lost & beyond, lost], [_NONE, _BAD, _BEYOND, _NONE], _HELD
    )
    held = kinds[: len(table)] == _HELD
    return kinds, np.where(held, offset, 0).astype(np.int64)


def read_descriptors(bitmaps: Bitmaps, first: int, count: int) -> npt.NDArray[np.void]:
    """Page descriptors by number in the order of dumping; fewer if the file ends."""
    raw = bitmaps.source.read(
        bitmaps.descriptors + first * _DESCRIPTOR_SIZE, count * _DESCRIPTOR_SIZE
    )
    order = "<" if bitmaps.byteorder == "little" else ">"
    layout = np.dtype(
        [
            ("offset", f"{order}u8"),
            ("size", f"{order}u4"),
            ("flags", f"{order}u4"),
            ("page_flags", f"{order}u8"),
        ]
    )
    return np.frombuffer(raw, layout, count=len(raw) // _DESCRIPTOR_SIZE)
