# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Writing a kdump-compressed dump
-------------------------------

Header, sub header with the notes, two bitmaps, descriptors, pages: the layouts are those of
:mod:`drgn_pmem.dumpfile.kdump`. How many pages there are is known before the first is written, so
that nothing is kept in memory: descriptors go to their place as the pages come. All pages of zeroes
share one copy, as with makedumpfile.
"""

from collections.abc import Callable
import os
import threading

import numpy as np

from drgn_pmem.dumpfile.bitmap import COMPRESSION
from drgn_pmem.dumpfile.kdump import layout_of
from drgn_pmem.dumpfile.writing.compress import Compress, compressor
from drgn_pmem.dumpfile.writing.contents import Contents, Runs
from drgn_pmem.dumpfile.writing.notes import pack_notes
from drgn_pmem.dumpfile.writing.pump import in_order, read_pages
from drgn_pmem.ranges import Range

__all__ = ("write_kdump",)

_EM_386 = 3
_VERSION = 6
_SIGNATURE = b"KDUMP   "
_PIECE = 1 << 15
"""Bytes of a bitmap that are made at a time."""
_FLAGS = {name: flag for flag, name in COMPRESSION.items()} | {"none": 0}


def write_kdump(
    number: int, contents: Contents, how: str, report: Callable[[int, int], None]
) -> list[Range]:
    """
    Write a dump.

    :param number: File descriptor of an empty file.
    :param how: Compression, one of :data:`~.compress.COMPRESSIONS`.
    :param report: Called with bytes of memory done and in all.
    :return: Pages that cannot be decompressed; they are written as X.
    """
    return _Writer(number, contents, how).write(report)


class _Writer:
    def __init__(self, number: int, contents: Contents, how: str) -> None:
        self.number = number
        self.contents = contents
        self.how = how
        self.size = contents.page_size
        self.pages = contents.kept.whole(self.size)
        # As makedumpfile does, leave out pages that exist only in part.
        self.covered = contents.covered.whole(self.size)
        end = int(self.covered.ends[-1]) if len(self.covered) else self.size
        self.max_mapnr = end // self.size
        self.bitmap = -(-self.max_mapnr // (8 * self.size)) * self.size
        self.order = "<" if contents.byteorder == "little" else ">"
        self.descriptor = np.dtype(
            [
                ("offset", f"{self.order}u8"),
                ("size", f"{self.order}u4"),
                ("flags", f"{self.order}u4"),
                ("page_flags", f"{self.order}u8"),
            ]
        )
        self.own = threading.local()
        self.damaged: list[Range] = []

    def write(self, report: Callable[[int, int], None]) -> list[Range]:
        header, sub = self._headers()
        _put(self.number, 0, header)
        _put(self.number, self.size, sub)
        bitmaps = self.size + len(sub)
        self._write_bitmap(bitmaps, self.covered)
        self._write_bitmap(bitmaps + self.bitmap, self.pages)
        self._write_pages(bitmaps + 2 * self.bitmap, report)
        return self.damaged

    def _headers(self) -> tuple[bytes, bytes]:
        contents, size = self.contents, self.size
        packed = contents.e_machine == _EM_386
        layout = layout_of(contents.bits, contents.byteorder, packed)
        before = len(layout.kdump_sub_header)
        # ERASEINFO has a place of its own, and is no note.
        erased = contents.note(b"ERASEINFO")
        others = [note for note in contents.notes if note.name != b"ERASEINFO"]
        notes, vmcoreinfo = pack_notes(others, contents.byteorder)
        place = size + before
        blocks = -(-(before + len(notes) + len(erased)) // size)
        header = layout.disk_dump_header(
            signature=_SIGNATURE,
            header_version=_VERSION,
            **{name: value[:64].ljust(65, b"\0") for name, value in contents.utsname.items()},
            tv_sec=contents.timestamp,
            tv_usec=0,
            status=contents.status | _FLAGS[self.how],
            block_size=size,
            sub_hdr_size=blocks,
            bitmap_blocks=2 * self.bitmap // size,
            max_mapnr=min(self.max_mapnr, (1 << 32) - 1),
            nr_cpus=contents.cpus,
        ).dumps()
        sub = layout.kdump_sub_header(
            phys_base=contents.phys_base % (1 << contents.bits),
            dump_level=contents.dump_level,
            offset_vmcoreinfo=place + vmcoreinfo.start if vmcoreinfo.size else 0,
            size_vmcoreinfo=vmcoreinfo.size,
            offset_note=place if notes else 0,
            size_note=len(notes),
            offset_eraseinfo=place + len(notes) if erased else 0,
            size_eraseinfo=len(erased),
            end_pfn=min(self.max_mapnr, (1 << 32) - 1) if contents.bits == 32 else self.max_mapnr,
            end_pfn_64=self.max_mapnr,
            max_mapnr_64=self.max_mapnr,
        ).dumps()
        return header.ljust(size, b"\0"), (sub + notes + erased).ljust(blocks * size, b"\0")

    def _write_bitmap(self, place: int, runs: Runs) -> None:
        """Set the bits of runs of pages; parts of the bitmap without any remain holes."""
        for first in range(0, self.bitmap, _PIECE):
            low, pages = first * 8, _PIECE * 8
            part = runs.within(low * self.size, (low + pages) * self.size)
            if not len(part):
                continue
            step = np.uint64(self.size)
            change = np.zeros(pages + 1, np.int8)
            change[(part.starts // step - np.uint64(low)).astype(np.int64)] += 1
            change[(part.ends // step - np.uint64(low)).astype(np.int64)] -= 1
            bits = np.cumsum(change[:-1], dtype=np.int8).astype(bool)
            data = np.packbits(bits, bitorder="little").tobytes()
            _put(self.number, place + first, data[: self.bitmap - first])
        os.ftruncate(self.number, place + self.bitmap)

    def _write_pages(self, descriptors: int, report: Callable[[int, int], None]) -> None:
        total = self.pages.total
        place = descriptors + total // self.size * self.descriptor.itemsize
        done, zero = 0, 0
        for batch, (sizes, flags, data) in in_order(self._work, self.pages):
            table = np.zeros(len(sizes), self.descriptor)
            lengths = np.array(sizes, np.uint64)
            is_zero = lengths == 0
            if is_zero.any() and not zero:
                compress = self._compressor()
                page = bytes(self.size) if compress is None else compress(bytes(self.size))
                zero, zero_size = place, len(page)
                zero_flags = 0 if compress is None else _FLAGS[self.how]
                _put(self.number, place, page)
                place += zero_size
            table["offset"] = np.uint64(place) + np.cumsum(lengths) - lengths
            table["size"], table["flags"] = lengths, flags
            if is_zero.any():
                table["offset"][is_zero] = zero
                table["size"][is_zero] = zero_size
                table["flags"][is_zero] = zero_flags
            _put(self.number, place, data)
            place += len(data)
            _put(self.number, descriptors, table.tobytes())
            descriptors += table.nbytes
            done += sum(part.size for part in batch)
            report(done, total)

    def _work(self, batch: list[Range]) -> tuple[list[int], list[int], bytes]:
        """Sizes and flags of the pages of a batch, and their bytes; size 0 for pages of zeroes."""
        memory = getattr(self.own, "memory", None)
        if memory is None:
            memory = self.own.memory = self.contents.reader()
        sizes: list[int] = []
        flags: list[int] = []
        out: list[bytes] = []
        size, flag, compress = self.size, _FLAGS[self.how], self._compressor()
        for part in batch:
            data = read_pages(self.contents, memory, part, self.damaged)
            words = np.frombuffer(data, np.uint64).reshape(-1, size // 8)
            zero = np.all(words == 0, axis=1)
            for at, is_zero in zip(range(0, len(data), size), zero.tolist(), strict=True):
                if is_zero:
                    sizes.append(0)
                    flags.append(0)
                    continue
                page = data[at : at + size]
                short = page if compress is None else compress(page)
                if len(short) < size:
                    page = short
                    flags.append(flag)
                else:
                    flags.append(0)
                sizes.append(len(page))
                out.append(page)
        return sizes, flags, b"".join(out)

    def _compressor(self) -> Compress | None:
        """The compressor of this thread."""
        if not hasattr(self.own, "compress"):
            self.own.compress = compressor(self.how, self.size)
        found: Compress | None = self.own.compress
        return found


def _put(number: int, place: int, data: bytes) -> None:
    """Write all bytes at an offset."""
    view = memoryview(data)
    while view:
        count = os.pwrite(number, view, place)
        view = view[count:]
        place += count
