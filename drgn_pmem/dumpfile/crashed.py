# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The crashed kernel in a dump of its capture kernel
--------------------------------------------------

Where kdump or a firmware-assisted dump fails, the hung machine is dumped from outside. That dump
holds two kernels: the capture kernel, and the one that crashed, whose memory the capture kernel was
to save as /proc/vmcore. This module makes that file, in place: of the crash header that the
capture kernel was given, the notes that it leads to, and the memory where it says that the bytes
are. The crashed kernel's boot memory, which the firmware moved (POWER) or the purgatory copied
(x86_64 before 5.5), is read from there.

Sources: fs/proc/vmcore.c (``parse_crash_elf64_headers()``, ``merge_note_headers_elf64()``),
arch/powerpc/kernel/fadump.c (``fadump_create_elfcore_headers()``), kernel/kexec_file.c
(``crash_prepare_elf64_headers()``).
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
import os
import struct

import numpy as np

from drgn_pmem.dumpfile.coverage import U64, Coverage, State
from drgn_pmem.dumpfile.elf import open_elf
from drgn_pmem.dumpfile.records import DumpFile, PhysicalMemory
from drgn_pmem.dumpfile.vmcoreinfo import Vmcoreinfo
from drgn_pmem.errors import DumpFileError, FormatError
from drgn_pmem.formats.elfcorehdr import (
    PT_LOAD,
    PT_NOTE,
    CrashHeader,
    ProgramHeader,
    parse_elfcorehdr,
)
from drgn_pmem.ranges import Range, RangeSet

__all__ = ("CrashedKernel", "find_crashed_kernels", "open_crashed", "write_headers")

_MAGIC = b"\x7fELF\x02"
_EHDR = struct.Struct("=16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("=IIQQQQQQ")
_ET_CORE = 4
_NOTE_HEAD = 12
_MAX_NOTE = 1 << 20
_MAX_FOUND = 64
"""Crash headers that are looked at; a machine has a few copies."""
_PAGE = 1 << 16
"""Memory begins at a multiple of this many bytes of the file: the largest page size."""
_NT_PRSTATUS = 1


@dataclass(frozen=True, eq=False)
class CrashedKernel:
    """A crash header in memory, and what it leads to."""

    address: int
    """Physical, of the header."""
    header: CrashHeader
    notes: bytes
    """All notes, merged as /proc/vmcore merges them."""
    cpus: int
    """CPUs whose registers were saved: of a kernel that has not crashed, none."""
    vmcoreinfo: Vmcoreinfo
    own: bool
    """Whether the header is in memory that it does not describe: the capture kernel's own."""


def find_crashed_kernels(dump: DumpFile) -> list[CrashedKernel]:
    """
    Every crash header in the memory of a dump that leads to a VMCOREINFO note, the likeliest first:
    with registers of CPUs, in the capture kernel's own memory, with the most headers.

    :param dump: An opened dump of all memory of a machine.
    """
    memory = dump.memory
    if memory is None:
        return []
    found: list[CrashedKernel] = []
    seen: set[bytes] = set()
    for address in _places(memory):
        kernel = _read_kernel(memory, address, dump.byteorder)
        if kernel is None:
            continue
        key = kernel.notes + bytes(repr(kernel.header.phdrs), "ascii")
        if key in seen and not kernel.own:
            continue
        seen.add(key)
        found.append(kernel)
        if len(found) >= _MAX_FOUND:
            break
    return sorted(found, key=lambda k: (k.cpus, k.own, len(k.header.phdrs)), reverse=True)


def _places(memory: PhysicalMemory) -> Iterator[int]:
    """Where an ELF header of a core is."""
    for base, data in memory.chunks():
        at = data.find(_MAGIC)
        while at >= 0:
            order = "<" if data[at + 5 : at + 6] == b"\x01" else ">"
            kind = data[at + 16 : at + 18]
            # The kernel's are aligned to 8 bytes at least, so none crosses two pieces of memory.
            core = len(kind) == 2 and struct.unpack(f"{order}H", kind)[0] == _ET_CORE
            if core and (base + at) % 8 == 0:
                yield base + at
            at = data.find(_MAGIC, at + 1)


def _read_kernel(memory: PhysicalMemory, address: int, byteorder: str) -> CrashedKernel | None:
    try:
        header = _read_header(memory, address)
        if header.byteorder != byteorder or not header.loads:
            return None
        notes = b"".join(_read_notes(memory, phdr, header) for phdr in header.notes)
    except (DumpFileError, FormatError):
        # not a problem: a core file in the page cache, or a header that was overwritten in part
        return None
    cpus, text = 0, None
    for name, kind, data in _split(notes, header):
        cpus += name == b"CORE" and kind == _NT_PRSTATUS
        if name == b"VMCOREINFO":
            text = data
    info = Vmcoreinfo.parse(text or b"")
    if info.osrelease is None:
        return None
    described = RangeSet(Range(p.offset, p.offset + p.file_size) for p in header.loads)
    return CrashedKernel(
        address=address,
        header=header,
        notes=notes,
        cpus=cpus,
        vmcoreinfo=info,
        own=address not in described,
    )


def _read_header(memory: PhysicalMemory, address: int) -> CrashHeader:
    start = memory.read(address, 64)
    order = "<" if start[5] == 1 else ">"
    (offset,) = struct.unpack_from(f"{order}Q", start, 32)
    size, count = struct.unpack_from(f"{order}HH", start, 54)
    end = offset + size * count
    if size != _PHDR.size or not 0 < count < 0xFFFF or offset > _MAX_NOTE:
        raise FormatError("not a crash header")
    return parse_elfcorehdr(memory.read(address, end))


def _read_notes(memory: PhysicalMemory, phdr: ProgramHeader, header: CrashHeader) -> bytes:
    """Notes of one PT_NOTE, without the unused rest of its buffer."""
    if phdr.offset != phdr.physical or not 0 < phdr.memory_size <= _MAX_NOTE:
        raise FormatError("not notes of a crash header")
    data = memory.read(phdr.offset, phdr.memory_size)
    return data[: max((end for end, *_ in _walk(data, header)), default=0)]


def _walk(data: bytes, header: CrashHeader) -> Iterator[tuple[int, bytes, int, bytes]]:
    """End, name, type and descriptor of each note, up to one without a name
    (``update_note_header_size_elf64()``)."""
    order = "<" if header.byteorder == "little" else ">"
    at = 0
    while at + _NOTE_HEAD <= len(data):
        name, size, kind = struct.unpack_from(f"{order}III", data, at)
        text = at + _NOTE_HEAD
        start = text + -(-name // 4) * 4
        end = start + -(-size // 4) * 4
        if not name or end > len(data):
            return
        yield end, data[text : text + name].rstrip(b"\0"), kind, data[start : start + size]
        at = end


def _split(notes: bytes, header: CrashHeader) -> Iterator[tuple[bytes, int, bytes]]:
    for _, name, kind, data in _walk(notes, header):
        yield name, kind, data


@dataclass(frozen=True)
class _Piece:
    """Bytes of the file, and where they are in the memory of the machine."""

    offset: int
    source: int
    size: int


class _Vmcore:
    """The file that /proc/vmcore would have been, as a source of bytes."""

    complete = True
    in_order = True

    def __init__(self, dump: DumpFile, kernel: CrashedKernel, memory: PhysicalMemory) -> None:
        self.path = dump.path
        self._memory = memory
        loads = list(_saved_loads(kernel.header, dump.coverage))
        count = len(loads) + 1
        start = -(-(_EHDR.size + _PHDR.size * count + len(kernel.notes)) // _PAGE) * _PAGE
        self.headers = _build(kernel, loads, start)
        self._pieces: list[_Piece] = []
        at = start
        for load, _ in loads:
            if load.file_size:
                self._pieces.append(_Piece(at, load.offset, load.file_size))
                at += -(-load.file_size // _PAGE) * _PAGE
        self._starts = [piece.offset for piece in self._pieces]
        self.size = max(at, len(self.headers))

    def read(self, offset: int, size: int) -> bytes:
        parts = []
        size = max(0, min(size, self.size - offset))
        if offset < len(self.headers):
            parts.append(self.headers[offset : offset + size])
            offset += len(parts[0])
            size -= len(parts[0])
        while size > 0:
            number = bisect_right(self._starts, offset) - 1
            piece = self._pieces[number] if number >= 0 else None
            if piece is not None and offset < piece.offset + piece.size:
                count = min(size, piece.offset + piece.size - offset)
                parts.append(self._memory.read(piece.source + offset - piece.offset, count))
            else:  # between two segments
                following = self._starts[number + 1 : number + 2] or [self.size]
                count = min(size, following[0] - offset)
                parts.append(bytes(count))
            offset += count
            size -= count
        return b"".join(parts)

    def room(self, offsets: U64) -> U64:
        end = np.uint64(self.size)
        return end - np.minimum(offsets, end)

    def next_data(self, offset: int) -> int:
        return min(offset, self.size)


def _saved_loads(header: CrashHeader, coverage: Coverage) -> Iterator[tuple[ProgramHeader, State]]:
    """The segments, cut where the dump lacks memory: what it left out has no bytes in the file,
    what it does not cover no segment."""
    for load in header.loads:
        for part in coverage.ranges(load.offset, load.offset + load.file_size):
            if part.state is State.ABSENT:
                continue
            into = part.start - load.offset
            saved = part.state is State.SAVED
            cut = replace(
                load,
                physical=load.physical + into,
                virtual=(load.virtual + into) % (1 << 64),
                offset=part.start,
                file_size=part.size if saved else 0,
                memory_size=part.size,
            )
            yield cut, part.state


def _build(kernel: CrashedKernel, loads: list[tuple[ProgramHeader, State]], start: int) -> bytes:
    header = kernel.header
    order = "<" if header.byteorder == "little" else ">"
    count, size = len(loads) + 1, len(kernel.notes)
    notes_at = _EHDR.size + _PHDR.size * count
    ident = b"\x7fELF" + bytes([2, 1 if order == "<" else 2, 1]) + bytes(9)
    parts = [
        struct.pack(
            order + _EHDR.format[1:], ident, _ET_CORE, header.machine or 0, 1, 0, _EHDR.size, 0,
            header.e_flags, _EHDR.size, _PHDR.size, count, 0, 0, 0,
        ),
        struct.pack(
            order + _PHDR.format[1:], PT_NOTE, 0, notes_at, 0, 0, size, size, 4
        ),
    ]  # fmt: skip
    at = start
    for load, _ in loads:
        offset = at if load.file_size else 0
        at += -(-load.file_size // _PAGE) * _PAGE
        parts.append(
            struct.pack(
                order + _PHDR.format[1:], PT_LOAD, load.flags, offset, load.virtual, load.physical,
                load.file_size, load.memory_size, 0,
            )
        )  # fmt: skip
    return b"".join(parts) + kernel.notes


def open_crashed(dump: DumpFile) -> tuple[DumpFile, bytes, list[str]]:
    """
    The crashed kernel in a dump of its capture kernel.

    :param dump: The dump, of all memory: by QEMU or libvirt, or raw images.
    :return: What /proc/vmcore would have been; its headers, up to the first memory; notes.
    :raises DumpFileError: if there is no crashed kernel in the dump
    """
    kernels = find_crashed_kernels(dump)
    if not kernels:
        raise DumpFileError(
            f"{dump.path}: no crashed kernel: memory holds no crash header that leads to notes of"
            " one; --crashed opens a dump of all memory, made while the capture kernel ran"
        )
    kernel = kernels[0]
    if not kernel.cpus:
        raise DumpFileError(
            f"{dump.path}: the crash header at {kernel.address:#x} has no registers of any CPU: the"
            " kernel that loaded it has not crashed; open the dump without --crashed"
        )
    memory = dump.memory
    assert memory is not None, "it was searched"
    source = _Vmcore(dump, kernel, memory)
    crashed = open_elf(source)
    lines = [
        f"{dump.path}: the crashed kernel (Linux {kernel.vmcoreinfo.osrelease}), by the crash"
        f" header at {kernel.address:#x}: registers of {kernel.cpus} CPUs"
    ]
    others = {k.vmcoreinfo.osrelease for k in kernels[1:] if k.cpus and k.notes != kernel.notes}
    if others:
        lines.append(
            f"{dump.path}: {len(others)} other crash headers have registers, too; the one in the"
            " capture kernel's own memory was taken"
        )
    summary = f"crashed kernel in: {dump.summary}"
    crashed = replace(crashed, summary=summary, incomplete=dump.incomplete)
    return crashed, source.headers, lines


def write_headers(headers: bytes, size: int) -> int:
    """
    A file that drgn opens as the crashed kernel's, in memory: headers and notes; its memory is read
    elsewhere.

    :param size: Of the whole file, bytes.
    :return: A file descriptor.
    """
    descriptor = os.memfd_create("vmcore", os.MFD_CLOEXEC)
    os.write(descriptor, headers)
    os.ftruncate(descriptor, size)
    return descriptor
