# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Segments of an ELF dump
-----------------------

Which ``PT_LOAD`` header holds which physical address, what of it the file has, and the bytes.
Headers may overlap (x86 dumps map the kernel's image twice); drgn reads the later one (its
memory_reader.c), so that one counts here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from drgn_pmem.dumpfile.coverage import ADDRESS_SPACE, U64, Coverage, State
from drgn_pmem.dumpfile.records import PF_DEV, Segment
from drgn_pmem.dumpfile.source import ByteSource
from drgn_pmem.errors import DumpFileError
from drgn_pmem.ranges import paint

__all__ = ("CHUNK", "ElfMemory", "Pieces", "SegmentTable", "bytes_there", "elf_coverage")

PHYSICAL_BITS = 52
"""Physical addresses have no more bits on any architecture."""
CHUNK = 1 << 22
"""Bytes of memory that :meth:`ElfMemory.chunks` gives at once."""


class SegmentTable(Sequence[Segment]):
    """``PT_LOAD`` headers as a sequence of records that are made when asked for; the table itself
    stays an array."""

    def __init__(
        self, table: npt.NDArray[np.void], index: npt.NDArray[np.int64], bits: int
    ) -> None:
        self._index = index
        self._no_physical = (1 << bits) - 1
        rows = table[index]
        self.physical: U64 = rows["p_paddr"].astype(np.uint64)
        self.virtual: U64 = rows["p_vaddr"].astype(np.uint64)
        self.file_offset: U64 = rows["p_offset"].astype(np.uint64)
        self.file_size: U64 = rows["p_filesz"].astype(np.uint64)
        self.memory_size: U64 = rows["p_memsz"].astype(np.uint64)
        self.flags: npt.NDArray[np.uint32] = rows["p_flags"].astype(np.uint32)

    @property
    def has_physical(self) -> npt.NDArray[np.bool_]:
        """Of each segment, whether it maps physical memory: ``p_paddr`` is not -1."""
        return self.physical != np.uint64(self._no_physical)

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, item: int) -> Segment: ...
    @overload
    def __getitem__(self, item: slice) -> list[Segment]: ...
    def __getitem__(self, item: int | slice) -> Segment | list[Segment]:
        if isinstance(item, slice):
            return list(self._records(item))
        position = range(len(self))[item]
        return next(self._records(slice(position, position + 1)))

    def __iter__(self) -> Iterator[Segment]:
        return self._records(slice(None))

    def _records(self, which: slice) -> Iterator[Segment]:
        # Columns as lists: a number at a time out of an array takes four times as long.
        columns = (
            self._index,
            self.physical,
            self.virtual,
            self.file_offset,
            self.file_size,
            self.memory_size,
            self.flags,
        )
        for index, physical, virtual, offset, file_size, memory_size, flags in zip(
            *(c[which].tolist() for c in columns), strict=True
        ):
            yield Segment(
                index=index,
                type="PT_LOAD",
                physical=None if physical == self._no_physical else physical,
                virtual=virtual,
                file_offset=offset,
                file_size=file_size,
                memory_size=memory_size,
                flags=flags,
            )


def bytes_there(source: ByteSource, loads: SegmentTable) -> U64:
    """Of each segment's ``p_filesz``, how many bytes the file really has."""
    return np.minimum(loads.file_size, source.room(loads.file_offset))


@dataclass(frozen=True, eq=False)
class Pieces:
    """Memory cut so that each piece belongs to one segment."""

    loads: SegmentTable
    first: U64
    """First address of each piece, ascending."""
    last: U64
    """Last one, inclusive."""
    segment: npt.NDArray[np.int64]
    """Position in ``loads`` of the segment that holds the piece."""
    base: U64
    """Where that segment begins."""

    @classmethod
    def physical(cls, loads: SegmentTable, bits: int, meant: bool = True) -> "Pieces":
        """
        Pieces of physical memory.

        :param loads: All segments, in file order.
        :param bits: 32 or 64: where addresses end.
        :param meant: Whether ``p_paddr`` means anything.
        """
        return cls._of(loads, loads.physical, loads.has_physical & meant, bits)

    @classmethod
    def virtual(cls, loads: SegmentTable, bits: int) -> "Pieces":
        """Pieces of the kernel virtual memory that segments name."""
        return cls._of(loads, loads.virtual, np.ones(len(loads), bool), bits)

    @classmethod
    def _of(
        cls, loads: SegmentTable, starts: U64, wanted: npt.NDArray[np.bool_], bits: int
    ) -> "Pieces":
        use = np.flatnonzero(wanted & (loads.memory_size > 0))
        start = starts[use]
        top = np.uint64((1 << bits) - 1 if bits == 32 else ADDRESS_SPACE - 1)
        # A segment that leaves the address space ends with it.
        reach = np.minimum(loads.memory_size[use] - np.uint64(1), top - start)
        first, last, winner = paint(start, start + reach)
        return cls(loads, first, last, use[winner], start[winner])


def elf_coverage(source: ByteSource, pieces: Pieces, unknown: bool = False) -> Coverage:
    """
    The part beyond ``p_filesz`` was left out, the part beyond the end of the file is lost.

    :param unknown: Whether program headers are lost: then what the others do not cover may have
        been in the file.
    """
    loads, segment = pieces.loads, pieces.segment
    in_file = np.minimum(loads.file_size, loads.memory_size)[segment]
    there = np.minimum(bytes_there(source, loads), loads.memory_size)[segment]
    base = pieces.base
    low, high = pieces.first - base, pieces.last - base  # offsets into the segment, inclusive
    parts: list[tuple[U64, U64, State]] = []
    one = np.uint64(1)
    for begin, end, state in (
        (np.zeros_like(there), there, State.SAVED),
        (there, in_file, State.TRUNCATED),
        (in_file, None, State.EXCLUDED),
    ):
        lower = np.maximum(low, begin)
        if end is None:
            upper, keep = high, lower <= high
        else:
            upper = np.minimum(high, np.maximum(end, one) - one)
            keep = (lower < end) & (lower <= upper)
        parts.append((base[keep] + lower[keep], base[keep] + upper[keep], state))
    if unknown and not (pieces.last >> np.uint64(PHYSICAL_BITS)).any():
        edges = np.array([1 << PHYSICAL_BITS, ADDRESS_SPACE - 1], np.uint64)
        parts.append((edges[:1], edges[1:], State.ABSENT))
    starts = np.concatenate([part[0] for part in parts])
    order = np.argsort(starts, kind="stable")
    codes = [np.full(len(part[0]), Coverage.code(part[2]), np.uint8) for part in parts]
    return Coverage.from_arrays(
        starts[order],
        np.concatenate([part[1] for part in parts])[order],
        np.concatenate(codes)[order],
        State.TRUNCATED if unknown else State.ABSENT,
    )


class ElfMemory:
    """Physical memory of an ELF dump."""

    def __init__(self, source: ByteSource, pieces: Pieces, coverage: Coverage) -> None:
        self._source = source
        self._pieces = pieces
        self._coverage = coverage

    def read(self, address: int, size: int) -> bytes:
        """
        :param address: Physical address (bytes).
        :raises DumpFileError: if one of the bytes is not in the file.
        """
        if not self._coverage.saved(address, size):
            raise DumpFileError(f"{self._source.path}: memory at {address:#x} is not in the dump")
        return b"".join(
            self._source.read(place, count) for place, count in self._map(address, size)
        )

    def _map(self, address: int, size: int) -> Iterator[tuple[int, int]]:
        """File offsets and sizes of saved memory."""
        pieces = self._pieces
        piece = int(np.searchsorted(pieces.first, np.uint64(address), side="right")) - 1
        while size > 0:
            segment = int(pieces.segment[piece])
            count = min(int(pieces.last[piece]) + 1 - address, size)
            offset = address - int(pieces.base[piece])
            yield int(pieces.loads.file_offset[segment]) + offset, count
            address += count
            size -= count
            piece += 1

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """All saved memory in pieces of at most :data:`CHUNK` bytes; device memory last, holes of a
        sparse file left out."""
        pieces = self._pieces
        loads, segment = pieces.loads, pieces.segment
        there = np.minimum(bytes_there(self._source, loads), loads.memory_size)[segment]
        begin = pieces.first - pieces.base
        saved = begin < there
        count = np.minimum(pieces.last - pieces.base + np.uint64(1), there) - begin
        pmem = (loads.flags[segment] & PF_DEV) != 0
        for chosen in (saved & ~pmem, saved & pmem):
            columns = (pieces.first, loads.file_offset[segment] + begin, count)
            for address, place, size in zip(*(c[chosen].tolist() for c in columns), strict=True):
                yield from self._chunks(address, place, size)

    def _chunks(self, address: int, place: int, count: int) -> Iterator[tuple[int, bytes]]:
        position = 0
        while position < count:
            data = self._source.next_data(place + position) - place
            if data > position:
                position = data
                continue
            size = min(CHUNK, count - position)
            yield address + position, self._source.read(place + position, size)
            position += size
