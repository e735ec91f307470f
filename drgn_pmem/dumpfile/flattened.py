# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Flattened dumps
---------------

``makedumpfile -F`` writes to a pipe, where it cannot seek: each write becomes a record of offset,
size and data, all big-endian. QEMU writes its kdump-compressed dumps so, too.
:class:`FlattenedSource` finds all records and reads the file that ``makedumpfile -R`` would make of
them, without making it. An offset may be written twice: the later record counts.

Layout: makedumpfile_header and makedumpfile_data_header in makedumpfile.h.
"""

from array import array

from dissect.cstruct import cstruct
import numpy as np

from drgn_pmem.dumpfile.coverage import U64
from drgn_pmem.dumpfile.source import FileSource
from drgn_pmem.errors import DumpFileError
from drgn_pmem.ranges import paint

__all__ = ("MAGIC", "MAX_RECORDS", "FlattenedSource")

MAGIC = b"makedumpfile\0\0\0\0"
FIRST_RECORD = 4096
"""The header is padded to this many bytes (MAX_SIZE_MDF_HEADER)."""
MAX_RECORDS = 1 << 24
"""More records than this are not read (makedumpfile writes one for several pages)."""

_LAYOUT = cstruct(endian=">")
_LAYOUT.load(
    """
    struct makedumpfile_header {
        char signature[16];
        int64 type;
        int64 version;
    };
    struct makedumpfile_data_header {
        int64 offset;
        int64 buf_size;
    };
    """
)
_RECORD = np.dtype([("offset", ">i8"), ("buf_size", ">i8")])
_RECORD_SIZE = len(_LAYOUT.makedumpfile_data_header)


class FlattenedSource:
    """
    The reassembled view of a flattened file.

    :param outer: The file as it is.
    :raises DumpFileError: if its header or its first record is damaged.
    """

    in_order = True

    def __init__(self, outer: FileSource) -> None:
        self.path = outer.path
        self._outer = outer
        raw = outer.read(0, len(_LAYOUT.makedumpfile_header))
        if len(raw) < len(_LAYOUT.makedumpfile_header):
            raise DumpFileError(f"{self.path}: the file ends inside its flattened header")
        header = _LAYOUT.makedumpfile_header(raw)
        if header.type != 1 or header.version != 1:
            raise DumpFileError(
                f"{self.path}: unknown flattened format (type {header.type}, version"
                f" {header.version}); reassemble it with: makedumpfile -R NEWFILE < FILE"
            )
        targets, places, sizes, self.complete = self._records()
        if not targets:
            raise DumpFileError(
                f"{self.path}: a flattened dump with no data; the dump was cut short"
            )
        starts = np.frombuffer(targets, np.uint64)
        length = np.frombuffer(sizes, np.uint64)
        self._starts, self._lasts, winner = paint(starts, starts + (length - np.uint64(1)))
        # Where the byte at target offset 0 of each piece's record would be: file offset = target +
        # shift.
        shift = np.frombuffer(places, np.uint64) - starts  # modulo 2**64, as intended
        self._shift = shift[winner]
        self.size = int(self._lasts[-1]) + 1
        # Neighbours without a gap, for room().
        joined = self._lasts[:-1] + np.uint64(1) == self._starts[1:]
        self._run_starts = self._starts[np.concatenate(([True], ~joined))]
        self._run_ends = self._lasts[np.concatenate((~joined, [True]))] + np.uint64(1)

    def _records(self) -> tuple["array[int]", "array[int]", "array[int]", bool]:
        targets, places, sizes = array("Q"), array("Q"), array("Q")
        position = FIRST_RECORD
        while len(targets) < MAX_RECORDS:
            raw = self._outer.read(position, _RECORD_SIZE)
            if len(raw) < _RECORD_SIZE:
                return targets, places, sizes, False
            target = int.from_bytes(raw[:8], "big", signed=True)
            size = int.from_bytes(raw[8:], "big", signed=True)
            if target == -1:
                return targets, places, sizes, True
            position += _RECORD_SIZE
            if target < 0 or size <= 0 or target + size >= 1 << 63:
                if not targets:
                    raise DumpFileError(
                        f"{self.path}: damaged flattened dump: its first record has offset"
                        f" {target} and size {size}"
                    )
                return targets, places, sizes, False
            there = min(size, max(self._outer.size - position, 0))
            if there:
                targets.append(target)
                places.append(position)
                sizes.append(there)
            if there < size:
                return targets, places, sizes, False
            position += size
        return targets, places, sizes, False

    @property
    def records(self) -> int:
        """Number of pieces after what was written twice has been sorted out."""
        return len(self._starts)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the reassembled file; what no record wrote reads as zero, as it does after
        reassembly."""
        if offset < 0 or size <= 0 or offset >= self.size:
            return b""
        end = min(offset + size, self.size)
        parts: list[bytes] = []
        piece = int(np.searchsorted(self._starts, np.uint64(offset), side="right")) - 1
        while offset < end:
            if piece >= 0 and offset <= int(self._lasts[piece]):
                stop = min(int(self._lasts[piece]) + 1, end)
                place = (offset + int(self._shift[piece])) % (1 << 64)
                data = self._outer.read(place, stop - offset)
                parts.append(data.ljust(stop - offset, b"\0"))
                offset = stop
            if offset < end and piece + 1 < len(self._starts):
                gap = min(int(self._starts[piece + 1]), end) - offset
                parts.append(bytes(gap))
                offset += gap
            piece += 1
        return b"".join(parts)

    def room(self, offsets: U64) -> U64:
        """Bytes to the next gap; a file with its end mark has no gaps, what was not written is
        zero."""
        if self.complete:
            end = np.uint64(self.size)
            return end - np.minimum(offsets, end)
        run = np.searchsorted(self._run_starts, offsets, side="right") - 1
        ends = self._run_ends[np.maximum(run, 0)]
        return np.where(run >= 0, ends - np.minimum(offsets, ends), np.uint64(0))

    def next_data(self, offset: int) -> int:
        """Skip what no record wrote."""
        piece = int(np.searchsorted(self._lasts, np.uint64(max(offset, 0)), side="left"))
        if piece == len(self._starts):
            return self.size
        return max(offset, int(self._starts[piece]))
