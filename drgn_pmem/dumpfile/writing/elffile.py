# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Writing an ELF core
-------------------

Each ``PT_LOAD`` header of the input is split: a new header covers a run of memory that is kept
(``p_filesz``) and what is left out after it (up to ``p_memsz``). Flags (``PF_DEV``) and virtual
addresses are kept. Memory that several headers cover is written once. Pages of zeroes become holes
of the file.

Layouts: include/uapi/linux/elf.h, fs/proc/vmcore.c.
"""

from collections.abc import Callable, Iterator
import os
import struct
import threading

import numpy as np

from drgn_pmem.dumpfile.records import Segment
from drgn_pmem.dumpfile.segments import PHYSICAL_BITS
from drgn_pmem.dumpfile.writing.contents import Contents, Runs
from drgn_pmem.dumpfile.writing.notes import pack_notes
from drgn_pmem.dumpfile.writing.pump import in_order, read_pages
from drgn_pmem.errors import UsageError
from drgn_pmem.ranges import Range

__all__ = ("write_elf",)

_ET_CORE, _EV_CURRENT = 4, 1
_PT_LOAD, _PT_NOTE = 1, 4
_PN_XNUM = 0xFFFF
_MAX_HEADERS = 1 << 20
"""What :mod:`drgn_pmem.dumpfile.elf` reads."""
_HOLE = 4096
"""bytes: zero blocks of this size become holes; the block size of file systems"""


def write_elf(number: int, contents: Contents, report: Callable[[int, int], None]) -> list[Range]:
    """
    Write a dump.

    :param number: File descriptor of an empty file.
    :param report: Called with bytes of memory done and in all.
    :return: Pages that cannot be decompressed; they are written as X.
    :raises UsageError: if it is in too many pieces for an ELF file
    """
    return _Writer(number, contents).write(report)


class _Writer:
    def __init__(self, number: int, contents: Contents) -> None:
        self.number = number
        self.contents = contents
        order = "<" if contents.byteorder == "little" else ">"
        wide = contents.bits == 64
        self.ehdr = struct.Struct(f"{order}16sHHI{'QQQ' if wide else 'III'}IHHHHHH")
        self.phdr = struct.Struct(f"{order}{'IIQQQQQQ' if wide else 'IIIIIIII'}")
        self.shdr = struct.Struct(f"{order}{'IIQQQQIIQQ' if wide else 'IIIIIIIIII'}")
        self.wide = wide
        self.own = threading.local()
        self.damaged: list[Range] = []

    def write(self, report: Callable[[int, int], None]) -> list[Range]:
        contents = self.contents
        notes, _ = pack_notes(contents.notes, contents.byteorder)
        count = 1 + sum(1 for _ in self._loads())
        if count > _MAX_HEADERS:
            raise UsageError(
                f"memory is in {count} pieces, more than ELF readers take ({_MAX_HEADERS}); "
                "use --format kdump"
            )
        section = self.shdr.size if count >= _PN_XNUM else 0
        note_at = self.ehdr.size + section + count * self.phdr.size
        data_at = -(-(note_at + len(notes)) // contents.page_size) * contents.page_size
        headers = [self._header(count), *self._counted(count)]
        headers.append(self._program_header(_PT_NOTE, 0, note_at, 0, 0, len(notes), len(notes)))
        places = _Places(contents.kept, data_at)
        for segment, start, kept, end in self._loads():
            virtual = segment.virtual + start - (segment.physical or 0)
            headers.append(
                self._program_header(
                    _PT_LOAD,
                    segment.flags,
                    places.of(start),
                    virtual % (1 << contents.bits),
                    start,
                    kept - start,
                    end - start,
                )
            )
        _put(self.number, 0, b"".join(headers) + notes)
        self._write_memory(data_at, report)
        return self.damaged

    def _header(self, count: int) -> bytes:
        contents, wide = self.contents, self.wide
        ident = b"\x7fELF" + bytes((2 if wide else 1, 1 if contents.byteorder == "little" else 2))
        many = count >= _PN_XNUM
        section = self.ehdr.size if many else 0
        return self.ehdr.pack(
            (ident + bytes((_EV_CURRENT,))).ljust(16, b"\0"),
            _ET_CORE,
            contents.e_machine,
            _EV_CURRENT,
            0,
            self.ehdr.size + (self.shdr.size if many else 0),
            section,
            contents.e_flags,
            self.ehdr.size,
            self.phdr.size,
            _PN_XNUM if many else count,
            self.shdr.size if many else 0,
            1 if many else 0,
            0,
        )

    def _counted(self, count: int) -> Iterator[bytes]:
        """The section header that has the number of program headers, if e_phnum cannot (elf(5))."""
        if count >= _PN_XNUM:
            yield self.shdr.pack(0, 0, 0, 0, 0, 0, 0, count, 0, 0)

    def _program_header(
        self, type_: int, flags: int, offset: int, virtual: int, physical: int, size: int, room: int
    ) -> bytes:
        if self.wide:
            return self.phdr.pack(type_, flags, offset, virtual, physical, size, room, 0)
        return self.phdr.pack(type_, offset, virtual, physical, size, room, flags, 0)

    def _loads(self) -> Iterator[tuple[Segment, int, int, int]]:
        """Of each new header: the old one, start, end of what is kept, end."""
        for segment in self.contents.segments:
            if segment.physical is None or segment.memory_size == 0:
                continue  # no memory that could be kept
            start = at = kept = segment.physical
            end = min(start + segment.memory_size, 1 << PHYSICAL_BITS)
            for run in self.contents.kept.within(start, end):
                if run.start > at:
                    # What comes before belongs to the header before, or has one of its own.
                    yield segment, at, kept, run.start
                    at = run.start
                kept = run.end
            yield segment, at, kept, end

    def _write_memory(self, place: int, report: Callable[[int, int], None]) -> None:
        total, done = self.contents.kept.total, 0
        for batch, parts in in_order(self._work, self.contents.kept):
            for part, data in zip(batch, parts, strict=True):
                _put_sparsely(self.number, place, data)
                place += len(data)
                done += part.size
            report(done, total)
        os.ftruncate(self.number, place)

    def _work(self, batch: list[Range]) -> list[bytes]:
        memory = getattr(self.own, "memory", None)
        if memory is None:
            memory = self.own.memory = self.contents.reader()
        return [read_pages(self.contents, memory, part, self.damaged) for part in batch]


class _Places:
    """Where in the file each kept byte is: runs one after the other."""

    def __init__(self, kept: Runs, first: int) -> None:
        self._kept = kept
        sizes = kept.ends - kept.starts
        self._offsets = np.cumsum(sizes) - sizes + np.uint64(first)

    def of(self, address: int) -> int:
        """File offset of memory that is kept; 0 for other."""
        at = int(np.searchsorted(self._kept.starts, np.uint64(address), side="right")) - 1
        if at < 0 or address >= int(self._kept.ends[at]):
            return 0
        return int(self._offsets[at]) + address - int(self._kept.starts[at])


def _put(number: int, place: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(number, view, place)
        view = view[count:]
        place += count


def _put_sparsely(number: int, place: int, data: bytes) -> None:
    """Write all but blocks of zeroes."""
    at = 0
    while at < len(data):
        end = min(len(data), at + _HOLE - (place + at) % _HOLE)
        if not _holds(data, at, end):
            at = end
            continue
        while end < len(data) and _holds(data, end, min(len(data), end + _HOLE)):
            end = min(len(data), end + _HOLE)
        _put(number, place + at, data[at:end])
        at = end


_ZEROES = bytes(_HOLE)


def _holds(data: bytes, start: int, end: int) -> bool:
    """Whether a part of no more than a block has another byte than zero."""
    return data[start:end] != _ZEROES[: end - start]
