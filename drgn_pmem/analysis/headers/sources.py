# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Crash headers of a dump
-----------------------

The elfcorehdr *found* in memory, the one *implied* by the dump file, and the notes that a header
points to.
"""

from drgn import Program

from drgn_pmem.dumpfile import DumpFile, DumpFormat, State, dump_of
from drgn_pmem.errors import FormatError, NotFound
from drgn_pmem.formats.architecture import find_architecture
from drgn_pmem.formats.clayout import ByteOrder
from drgn_pmem.formats.elfcorehdr import (
    PF_RWX,
    PT_LOAD,
    CrashHeader,
    HeaderSource,
    ProgramHeader,
    Role,
    imply_elfcorehdr,
    parse_elfcorehdr,
)
from drgn_pmem.kernel.kexec import CrashImage, elfcorehdr_segment
from drgn_pmem.kernel.physical import read_physical
from drgn_pmem.partial import Cause, Partial, Problem, Problems

__all__ = ("find_elfcorehdr", "implied_elfcorehdr", "note_contents")

_MAX_HEADER = 1 << 24
"""Bytes of an elfcorehdr: 300,000 program headers are more than any machine has."""

_MAX_NOTE = 1 << 20
"""Bytes of a note buffer: a vmcoreinfo note of 64 KiB pages is the largest."""

_EHDR, _PHDR, _NOTE_HEAD = 64, 56, 12


def find_elfcorehdr(prog: Program, image: CrashImage) -> CrashHeader:
    """
    The elfcorehdr in the memory that is reserved for the crash kernel: only dumps of the
    whole memory (QEMU, libvirt, live) hold it.

    :raises NotSaved: if it is not in the dump
    :raises NotFound: if no segment of the crash image holds one: it was overwritten
    :raises FormatError: if what is there is no crash header
    """
    segment = elfcorehdr_segment(prog, image)
    if segment is None:
        raise NotFound(
            "no segment of the crash image begins with an ELF core header: the memory reserved "
            "for the crash kernel was overwritten"
        )
    raw = read_physical(prog, segment.physical, min(segment.size, _MAX_HEADER))
    return parse_elfcorehdr(raw, HeaderSource.FOUND)


def implied_elfcorehdr(prog: Program) -> Partial[CrashHeader]:
    """
    The elfcorehdr according to the dump file itself: its program headers, or its page bitmap.

    :raises NotFound: for a live kernel
    :raises DumpFileError: if the program has no dump file
    """
    dump = dump_of(prog)
    if dump.contained is DumpFormat.LIVE:
        raise NotFound("a live kernel has no dump")
    if dump.contained is DumpFormat.IMAGE:
        raise NotFound("raw memory has no program headers")
    if dump.contained is DumpFormat.KDUMP:
        return _of_bitmap(dump)
    start = dump.read(0, _EHDR)
    parsed = parse_elfcorehdr(dump.read(0, _headers_end(start)), HeaderSource.IMPLIED)
    return Partial(imply_elfcorehdr(parsed, join=_was_split(parsed)))


def _headers_end(start: bytes) -> int:
    """Bytes of a dump up to the end of its program headers (and of the section header that counts
    them, if they are too many for e_phnum)."""
    if len(start) < _EHDR:
        raise FormatError("the ELF header of the dump is truncated")
    order: ByteOrder = "big" if start[5] == 2 else "little"

    def number(offset: int, size: int) -> int:
        return int.from_bytes(start[offset : offset + size], order)

    count = number(56, 2)
    end = number(32, 8) + count * _PHDR
    if count == 0xFFFF and number(40, 8):
        end = _MAX_HEADER
    return min(max(end, _EHDR), _MAX_HEADER)


def _was_split(header: CrashHeader) -> bool:
    """Whether makedumpfile rewrote the program headers: it cuts them where it leaves pages out."""
    return any(phdr.file_size < phdr.memory_size for phdr in header.loads)


def _of_bitmap(dump: DumpFile) -> Partial[CrashHeader]:
    """The compressed format has no program headers, only which pages existed."""
    problems = Problems()
    found = find_architecture(dump.machine)
    if found is None:
        why = f"unknown machine {dump.machine!r} in the dump's header"
        problems.add(Problem(cause=Cause.UNSUPPORTED, why=why, what="implied header"))
    phdrs: list[ProgramHeader] = []
    for item in dump.coverage.extent():
        if item.state is State.ABSENT:
            continue
        if phdrs and phdrs[-1].end == item.start:
            length = phdrs[-1].memory_size + item.end - item.start
            phdrs[-1] = _page_range(phdrs[-1].physical, length)
        else:
            phdrs.append(_page_range(item.start, item.end - item.start))
    header = CrashHeader(
        source=HeaderSource.IMPLIED,
        phdrs=tuple(phdrs),
        machine=None if found is None else found.e_machine,
        byteorder="big" if dump.byteorder == "big" else "little",
    )
    return problems.partial(header)


def _page_range(start: int, size: int) -> ProgramHeader:
    return ProgramHeader(
        type=PT_LOAD,
        flags=PF_RWX,
        offset=start,
        physical=start,
        file_size=size,
        memory_size=size,
        role=Role.PAGES,
    )


def note_contents(prog: Program, header: CrashHeader) -> Partial[dict[int, bytes]]:
    """
    The notes that the header points to, as far as the dump holds them, without the unused rest of
    each buffer.

    :return: Physical address of the note -> its bytes. CPUs that have not crashed have no notes.
    """
    problems = Problems()
    contents = {}
    for phdr in header.notes:
        with problems.trying(phdr.what):
            data = read_physical(prog, phdr.physical, min(phdr.memory_size, _MAX_NOTE))
            if end := _notes_end(data, header.byteorder):
                contents[phdr.physical] = data[:end]
    return problems.partial(contents)


def _notes_end(data: bytes, byteorder: ByteOrder) -> int:
    """A note without a name ends a buffer, as ``/proc/vmcore`` reads it."""
    end = 0
    while end + _NOTE_HEAD <= len(data):
        name, description = (
            int.from_bytes(data[end + at : end + at + 4], byteorder) for at in (0, 4)
        )
        size = _NOTE_HEAD + -(-name // 4) * 4 + -(-description // 4) * 4
        if not name or end + size > len(data):
            break
        end += size
    return end
