# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Readers of blocks of struct pages
---------------------------------

Uncompressed ELF dumps and kdump-compressed dumps are read as files: that needs no
:class:`drgn.Program`, so that several threads can do it, and it is faster. Of a compressed dump,
equal pages are found without decompressing them, and come as one page and how often it follows
itself. Everything else is read through drgn.
"""

from collections.abc import Iterator
from dataclasses import dataclass
import os
import threading
from typing import TYPE_CHECKING, Protocol
import weakref

from drgn import FaultError, Program
import numpy as np

from drgn_pmem.analysis.pages import blocks
from drgn_pmem.analysis.pages.blocks import Block
from drgn_pmem.compare import equal_at, repeats_at
from drgn_pmem.dumpfile import DumpFile, DumpFormat, dump_of
from drgn_pmem.dumpfile.compressed import CompressedPages, Stretch
from drgn_pmem.dumpfile.decompress import has_decoder
from drgn_pmem.dumpfile.segments import SegmentTable
from drgn_pmem.errors import DumpFileError
from drgn_pmem.ranges import paint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]

__all__ = ("Part", "Reader", "reader_of")

_COMPRESSED = 8
"""Factor by which blocks of a compressed dump are larger: most of their bytes are never
produced."""
_REPEATED = 8
"""From this many equal pages on, they are not copied into one piece with their neighbours."""

_LARGE = 8
"""Factor by which blocks of an uncompressed dump are larger: each costs some work."""
_STEP = 1 << 20
"""Bytes that are read, and compared, at once: they stay in the processor's cache."""
_PERIOD = 64
"""Struct pages that stand for a step of equal ones."""

_LINE = 64
"""Bytes of a line of the processor's cache."""

_PROBE = 4096
"""Bytes compared to check that the path still names the same file."""


@dataclass(frozen=True)
class Part:
    """Bytes of a block."""

    size: int
    """How many, with all repetitions."""
    data: "Bytes | None"
    """Valid until the same thread reads on; None if they are damaged."""
    times: int = 1
    """How often :attr:`data` follows itself."""
    why: str = ""
    """What is wrong with damaged ones."""


class Reader(Protocol):
    """Fetches blocks."""

    parallel: bool
    """Whether several threads may read at once."""
    blocks: int
    """How large blocks should be, in :data:`~drgn_pmem.analysis.pages.blocks.BLOCK_SIZE`."""
    note: str
    """What would make it faster; empty if nothing."""

    def read(self, block: Block, size: int) -> "Bytes":
        """
        Bytes of a block; valid until the same thread reads the next one.

        :param size: bytes
        :raises DumpFileError: if they cannot be read after all
        """
        ...

    def parts(self, block: Block, size: int, unit: int) -> Iterator[Part]:
        """
        The same in parts, in order.

        :param unit: Size of a struct page (bytes): what is repeated is a number of them.
        :raises DumpFileError: if all of it cannot be read
        """
        ...


class _ProgramReader:
    """Through drgn: flattened ELF dumps, live targets, a compression that cannot be read here. One
    thread only."""

    parallel = False
    blocks = 1

    def __init__(self, prog: Program, note: str = "") -> None:
        self._prog = prog
        self.note = note

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

    def parts(self, block: Block, size: int, unit: int) -> Iterator[Part]:
        yield Part(size, self.read(block, size))


class _FileReader:
    """The file of an uncompressed ELF dump, by offset."""

    parallel = True
    blocks = _LARGE
    note = ""

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

    def _buffer(self) -> "_Buffer":
        buffer: _Buffer | None = getattr(self._buffers, "buffer", None)
        if buffer is None:
            buffer = self._buffers.buffer = _Buffer(blocks.BLOCK_SIZE)
        return buffer

    def _steps(self, block: Block, size: int, step: int) -> Iterator[tuple[int, int]]:
        """The first *size* bytes of a block: offset in the file and size of pieces of *step* bytes
        at most."""
        for physical, length in block.pieces:
            end = physical + min(length, size)
            size -= end - physical
            while physical < end:
                run = int(np.searchsorted(self._first, np.uint64(physical), "right")) - 1
                if run < 0 or physical > int(self._last[run]):
                    raise DumpFileError(f"{self._path}: no program header has {physical:#x}")
                offset = int(self._offset[run]) - int(self._first[run])
                stop = min(end, int(self._last[run]) + 1)
                for start in range(physical, stop, step):
                    yield start + offset, min(step, stop - start)
                physical = stop

    def _fill(self, data: memoryview, offset: int) -> None:
        while data:
            try:
                got = os.preadv(self._fd, (data,), offset)
            except OSError:
                got = 0
            if got <= 0:
                raise DumpFileError(
                    f"{self._path}: cannot read at offset {offset}: the file was cut short "
                    "while it was read"
                )
            data, offset = data[got:], offset + got

    def read(self, block: Block, size: int) -> "Bytes":
        buffer, at = _Buffer(size), 0
        for offset, take in self._steps(block, size, size):
            self._fill(buffer.view[at : at + take], offset)
            at += take
        return buffer.array

    def parts(self, block: Block, size: int, unit: int) -> Iterator[Part]:
        """A row of equal struct pages comes as some of them and how often they follow each other:
        most of an array is such rows, and they are compared where they were read."""
        period = unit * _PERIOD
        step = min(_STEP, blocks.BLOCK_SIZE)
        step -= step % period if step > period else 0
        buffer, row = self._buffer(), _Buffer(period)
        array, view, start = buffer.array, buffer.view, buffer.address
        at = held = times = 0  # bytes of the block; of the buffer; how often the row follows
        for offset, take in self._steps(block, size, step):
            if held + take > len(array):
                yield Part(held, array[:held])
                held = 0
            self._fill(view[held : held + take], offset)
            place = start + held
            whole = not take % period and not at % unit and repeats_at(place, unit, take)
            if whole and times and equal_at(place, row.address, unit):
                times += take // period
                at += take
                continue
            if times:
                yield Part(times * period, row.array, times)
                times = 0
            if whole:
                if held:
                    yield Part(held, array[:held])
                row = _Buffer(period)  # what was yielded may still be in use
                row.array[:] = array[held : held + period]
                held, times = 0, take // period
            else:
                held += take
            at += take
        if held:
            yield Part(held, array[:held])
        if times:
            yield Part(times * period, row.array, times)


class _Buffer:
    """Bytes that are read into, and compared, many times over: what each needs is made once. They
    begin at a line of the processor's cache: the kernel copies half as fast again into one."""

    __slots__ = ("address", "array", "view")

    def __init__(self, size: int) -> None:
        data = np.empty(size + _LINE, np.uint8)
        begin = -data.ctypes.data % _LINE
        self.array = data[begin : begin + size]
        self.view = self.array.data
        self.address = self.array.ctypes.data


class _CompressedReader:
    """The file of a kdump-compressed dump, page by page."""

    parallel = True
    blocks = _COMPRESSED
    note = ""

    def __init__(self, pages: CompressedPages) -> None:
        self._pages = pages

    def read(self, block: Block, size: int) -> "Bytes":
        parts = []
        for part in self.parts(block, size, 1):
            if part.data is None:
                raise DumpFileError(part.why)
            parts += [part.data] * part.times
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def parts(self, block: Block, size: int, unit: int) -> Iterator[Part]:
        page = self._pages.page_size
        done, pending, held = 0, list[bytes](), 0
        for count, start, end, stretch in self._cut(block, size):
            data = stretch.data
            if data is not None and (
                count < _REPEATED or end - start != page or page % unit or done % unit
            ):
                # In pieces that are no larger than a block of other dumps.
                length = end - start
                while count:
                    take = min(count, max(1, (blocks.BLOCK_SIZE - held) // length))
                    pending.append(data[start:end] * take if length != page else data * take)
                    held, count, done = held + take * length, count - take, done + take * length
                    if held >= blocks.BLOCK_SIZE:
                        yield _joined(pending)
                        pending, held = [], 0
                continue
            if pending:
                yield _joined(pending)
                pending, held = [], 0
            length = count * (end - start)
            done += length
            if data is None:
                yield Part(length, None, 1, stretch.why)
            else:
                yield Part(length, np.frombuffer(data, np.uint8), count)
        if pending:
            yield _joined(pending)

    def _cut(self, block: Block, size: int) -> Iterator[tuple[int, int, int, Stretch]]:
        """Stretches of pages: how many, and which bytes of each belong to the block (of the first
        and last page of a piece it may be a part)."""
        page, numbers, ends = self._pages.page_size, [], []
        for physical, length in block.pieces:
            length = min(length, size)
            size -= length
            if not length:
                break
            numbers.append(self._pages.numbers(physical, length))
            count, skip = len(numbers[-1]), physical % page
            ends.append((count, skip, skip + length - (count - 1) * page))
        edges = iter(ends)
        left = start = end = 0
        for stretch in self._pages.stretches(np.concatenate(numbers)):
            count = stretch.count
            while count:
                if not left:
                    left, start, end = next(edges)
                # One that is cut stands alone; those between are whole.
                last = left == 1
                take = 1 if start or last else min(count, left - 1)
                yield take, start, end if last else page, stretch
                count, left, start = count - take, left - take, 0


def _joined(parts: list[bytes]) -> Part:
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    return Part(len(data), np.frombuffer(data, np.uint8))


def reader_of(prog: Program) -> Reader:
    """The fastest reader for the dump that a program was opened on; kept in ``prog.cache``."""
    reader = prog.cache.get("drgn_pmem.scan_reader")
    if reader is None:
        reader = prog.cache["drgn_pmem.scan_reader"] = _find_reader(prog)
    return reader


def _find_reader(prog: Program) -> Reader:
    try:
        dump = dump_of(prog)
    except DumpFileError:
        return _ProgramReader(prog)
    if dump.contained is DumpFormat.KDUMP:
        pages: CompressedPages | None = getattr(dump.memory, "pages", None)
        if pages is None:
            return _ProgramReader(prog)
        missing = [how for how in pages.compression if not has_decoder(how)]
        if missing:
            return _ProgramReader(
                prog,
                f"struct pages are read through drgn, slowly: no library for {missing[0]};"
                " pip install 'drgn-pmem[fast]'",
            )
        return _CompressedReader(pages)
    if dump.format is not DumpFormat.ELF or not isinstance(dump.segments, SegmentTable):
        return _ProgramReader(prog)
    try:
        return _FileReader(dump, dump.segments)
    except OSError:
        return _ProgramReader(prog)
