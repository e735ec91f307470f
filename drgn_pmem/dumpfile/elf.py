# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
ELF dumps
---------

ELF cores of a crashed kernel: ``/proc/vmcore`` as saved, ``makedumpfile -E``, QEMU's and libvirt's
dumps; 32 and 64 bit, both byte orders. pyelftools declares the headers; the program header table,
of which a fragmented dump has tens of thousands, is read in one piece with the layout that
pyelftools declares for it.

Layouts: include/uapi/linux/elf.h; headers of kdump: fs/proc/vmcore.c, kernel/crash_core.c.
"""

import functools
import io
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.elf.structs import ELFStructs
import numpy as np
import numpy.typing as npt

from drgn_pmem.dumpfile.records import HYPERVISOR_NOTES, DumpFile, DumpFormat, Note
from drgn_pmem.dumpfile.segments import ElfMemory, Pieces, SegmentTable, bytes_there, elf_coverage
from drgn_pmem.dumpfile.source import ByteSource
from drgn_pmem.dumpfile.vmcoreinfo import printable
from drgn_pmem.errors import DumpFileError

__all__ = (
    "MAX_ERASEINFO",
    "MAX_NOTES",
    "MAX_NOTE_BYTES",
    "MAX_PROGRAM_HEADERS",
    "MAX_VMCOREINFO",
    "check_note_size",
    "erase_commands",
    "open_elf",
    "read_elf_headers",
    "read_notes",
)

PT_NULL, PT_LOAD, PT_NOTE = 0, 1, 4
PN_XNUM = 0xFFFF
DUMP_ELF_INCOMPLETE = 0x1
"""``e_flags`` of a file that makedumpfile could not finish (makedumpfile.h)."""

MAX_PROGRAM_HEADERS = 1 << 18
"""More than this are refused: each takes a kilobyte of memory by the time a command answers, 300
bytes of it in drgn. A kernel writes at most 65535; makedumpfile begins a new one after 256 excluded
pages (PFN_EXCLUDED), so that a dump of 512 GiB has fewer even with every other MiB left out."""
MAX_NOTES = 1 << 17
"""Notes beyond this many are not listed (one per CPU and a few more are normal)."""
MAX_NOTE_BYTES = 1 << 27
"""A dump with more bytes of notes is refused: drgn reads them all into memory (device dumps, the
largest, are tens of megabytes)."""
MAX_VMCOREINFO = 1 << 20
"""A VMCOREINFO note of more bytes is refused (the kernel's is a page or two)."""
MAX_ERASEINFO = 1 << 20
"""Bytes of erase commands; longer ones are refused."""
_WINDOW = 1 << 16
"""Bytes of a note segment that are read at once; longer descriptors are not."""
_MAX_NAME = 256
"""Bytes of a note's name that are kept."""

# e_flags bit 0 has a meaning of its own on these (ABI version, compressed code), so it cannot say
# "incomplete".
_FLAG_BIT_TAKEN = frozenset({"EM_PPC64", "EM_RISCV", "EM_MIPS", "EM_LOONGARCH"})


def _phdr_dtype(structs: ELFStructs) -> np.dtype[np.void]:
    """numpy's view of pyelftools' program header: same fields, same order, same widths."""
    fields = []
    for item in structs.Elf_Phdr.subcons:
        width = item.sizeof()
        order = "<" if structs.little_endian else ">"
        fields.append((item.name, f"{order}u{width}"))
    return np.dtype(fields)


def read_elf_headers(source: ByteSource) -> tuple[ELFStructs, Any, npt.NDArray[np.void]]:
    """
    ELF header and program headers of a core.

    :return: Layouts of its class and byte order, the header, the program header table.
    :raises DumpFileError: if it is not an ELF core, or its program headers are not in the file
    """
    structs, header = _parse_header(source)
    table, _ = _program_headers(source, structs, header)
    return structs, header, table


def open_elf(source: ByteSource, outer: DumpFormat = DumpFormat.ELF) -> DumpFile:
    """
    Open an ELF core.

    :param source: The file, reassembled if it was flattened.
    :param outer: Format to report: ``ELF``, or ``FLATTENED`` if the file was.
    :raises DumpFileError: if it is not an ELF core, or its program headers are not in the file.
    """
    structs, header = _parse_header(source)
    bits, byteorder = structs.elfclass, "little" if structs.little_endian else "big"
    table, cut = _program_headers(source, structs, header)
    notes, notes_cut = _all_notes(source, structs, table)
    vmcoreinfo = None
    for note in notes:
        if note.name == b"VMCOREINFO":  # drgn takes the last one
            check_note_size(source.path, "VMCOREINFO note", note.size, MAX_VMCOREINFO)
            vmcoreinfo = source.read(note.offset, note.size).rstrip(b"\0") or None
    erased: tuple[str, ...] = ()
    for note in notes:
        if note.name == b"ERASEINFO":
            check_note_size(source.path, "ERASEINFO note", note.size, MAX_ERASEINFO)
            erased += erase_commands(source.read(note.offset, note.size))
    loads = SegmentTable(table, np.flatnonzero(table["p_type"] == PT_LOAD).astype(np.int64), bits)
    # All p_paddr 0 and nothing that says "kernel": a core of a process. One segment at 0 may be a
    # whole guest.
    kernel = vmcoreinfo is not None or any(note.name == b"QEMU" for note in notes)
    physical = kernel or len(loads) == 1 or bool((loads.physical != 0).any())
    machine = header.e_machine if isinstance(header.e_machine, str) else None
    flagged = bool(header.e_flags & DUMP_ELF_INCOMPLETE) and machine not in _FLAG_BIT_TAKEN
    # makedumpfile writes program headers as it goes: those that it did not come to are PT_NULL.
    unknown = bool((table["p_type"] == PT_NULL).any()) or cut
    there = bytes_there(source, loads)
    short = bool((there < np.minimum(loads.file_size, loads.memory_size)).any())
    incomplete = unknown or notes_cut or short or flagged or not source.complete
    pieces = Pieces.physical(loads, bits, physical)
    what = "ELF core" if outer is DumpFormat.ELF else "flattened ELF core"
    return DumpFile(
        path=source.path,
        format=outer,
        contained=DumpFormat.ELF,
        segments=loads,
        notes=notes,
        vmcoreinfo=vmcoreinfo,
        incomplete=incomplete,
        machine=machine,
        byteorder=byteorder,
        bits=bits,
        summary=f"{what}, {bits}-bit {byteorder}-endian, {len(loads)} PT_LOAD",
        coverage_builder=functools.partial(elf_coverage, source, pieces, unknown),
        memory_builder=functools.partial(ElfMemory, source, pieces),
        has_sections=outer is DumpFormat.FLATTENED and header.e_shoff != 0,
        source=source,
        erased=erased,
        hypervisor=_is_of_hypervisor(notes, loads),
        physical_addresses=physical,
    )


def erase_commands(text: bytes) -> tuple[str, ...]:
    """The lines of ERASEINFO, escaped."""
    return tuple(printable(line) for line in text.split(b"\0", 1)[0].split(b"\n") if line.strip())


def _is_of_hypervisor(notes: "list[Note]", loads: SegmentTable) -> bool:
    """QEMU adds notes of its own on some machines, not on arm64. Its segments have no flags
    anywhere; those of the kernel and of makedumpfile are readable, at least."""
    if any(note.name in HYPERVISOR_NOTES for note in notes):
        return True
    return len(loads) > 0 and not loads.flags.any()


def _parse_header(source: ByteSource) -> tuple[ELFStructs, Any]:
    ident = source.read(0, 16)
    if len(ident) < 16:
        raise DumpFileError(f"{source.path}: too short for an ELF header; the dump was cut short")
    if ident[4] not in (1, 2) or ident[5] not in (1, 2):
        raise DumpFileError(
            f"{source.path}: damaged ELF header (class {ident[4]}, data {ident[5]})"
        )
    structs = ELFStructs(little_endian=ident[5] == 1, elfclass=32 * ident[4])
    structs.create_basic_structs()
    try:
        header = struct_parse(structs.Elf_Ehdr, io.BytesIO(source.read(0, 64)))
    except ELFError as error:
        raise DumpFileError(
            f"{source.path}: the file ends inside the ELF header; the dump was cut short"
        ) from error
    if header.e_type != "ET_CORE":
        what = {
            "ET_EXEC": "an executable",
            "ET_DYN": "a program or library",
            "ET_REL": "an object file",
        }
        raise DumpFileError(
            f"{source.path}: an ELF file but not a dump: {what.get(header.e_type, 'not ET_CORE')}"
            " (a vmlinux goes after -s)"
        )
    machine = header.e_machine if isinstance(header.e_machine, str) else None
    structs.create_advanced_structs("ET_CORE", machine, header.e_ident.EI_OSABI)
    return structs, header


def _program_headers(
    source: ByteSource, structs: ELFStructs, header: Any
) -> tuple[npt.NDArray[np.void], bool]:
    dtype = _phdr_dtype(structs)
    count = header.e_phnum
    if count == PN_XNUM:
        # More headers than e_phnum can count: the number is in sh_info of section 0 (elf(5)).
        try:
            raw = source.read(header.e_shoff, structs.Elf_Shdr.sizeof()) if header.e_shoff else b""
            count = struct_parse(structs.Elf_Shdr, io.BytesIO(raw)).sh_info if raw else count
        except ELFError as error:
            raise DumpFileError(
                f"{source.path}: more than 65534 program headers, and the section header that"
                " counts them is not in the file; the dump was cut short"
            ) from error
    if count == 0:
        if _has_xen_pages(source, structs, header):
            raise DumpFileError(
                f"{source.path}: a dump of a Xen guest (xl dump-core), whose memory is in the"
                " section .xen_pages; crash opens it, drgn does not"
            )
        raise DumpFileError(
            f"{source.path}: an ELF core with no program headers: nothing was saved"
        )
    if count > MAX_PROGRAM_HEADERS:
        raise DumpFileError(
            f"{source.path}: damaged ELF header: {count} program headers"
            f" (at most {MAX_PROGRAM_HEADERS} are read)"
        )
    if header.e_phentsize != dtype.itemsize:
        raise DumpFileError(
            f"{source.path}: damaged ELF header: program headers of {header.e_phentsize} bytes"
            f" instead of {dtype.itemsize}"
        )
    # A flattened file that was cut short reads as zeroes where no record wrote.
    room = int(source.room(np.array([header.e_phoff], np.uint64))[0])
    raw = source.read(header.e_phoff, min(count * dtype.itemsize, room))
    whole = len(raw) // dtype.itemsize
    if whole == 0:
        last = "" if source.complete else ", which makedumpfile -F -E writes last"
        raise DumpFileError(
            f"{source.path}: the file ends before its program headers"
            f" (offset {header.e_phoff}){last}; the dump was cut short, and which memory the rest"
            " of it holds is not known"
        )
    return np.frombuffer(raw, dtype, count=whole), whole < count


def check_note_size(path: str, what: str, size: int, limit: int) -> None:
    """:raises DumpFileError: if notes are longer than any that a kernel writes"""
    if size > limit:
        raise DumpFileError(f"{path}: damaged headers: {what} of {size} bytes (at most {limit})")


def _has_xen_pages(source: ByteSource, structs: ELFStructs, header: Any) -> bool:
    """Whether a section is named ``.xen_pages`` (xen/tools/libs/ctrl/xc_core.h)."""
    size = structs.Elf_Shdr.sizeof()
    if header.e_shentsize != size:
        return False
    raw = source.read(header.e_shoff, header.e_shnum * size)
    sections = [
        struct_parse(structs.Elf_Shdr, io.BytesIO(raw[at : at + size]))
        for at in range(0, len(raw) // size * size, size)
    ]
    if header.e_shstrndx >= len(sections):
        return False
    names = sections[header.e_shstrndx]
    return b"\0.xen_pages\0" in source.read(names.sh_offset, min(names.sh_size, 1 << 16))


def _all_notes(
    source: ByteSource, structs: ELFStructs, table: npt.NDArray[np.void]
) -> tuple[list[Note], bool]:
    rows = table[table["p_type"] == PT_NOTE]
    offsets, sizes = rows["p_offset"].astype(np.uint64), rows["p_filesz"].astype(np.uint64)
    there = np.minimum(sizes, source.room(offsets))
    # As floats: the sum of hostile sizes does not fit into 64 bits.
    check_note_size(source.path, "notes", int(there.astype(float).sum()), MAX_NOTE_BYTES)
    notes: list[Note] = []
    budget = MAX_NOTES
    for offset, size, align in zip(
        offsets.tolist(), there.tolist(), rows["p_align"].tolist(), strict=True
    ):
        found = read_notes(source, offset, size, structs, 8 if align == 8 else 4, budget)
        notes.extend(found)
        budget -= max(len(found), 1)  # an empty one costs too, so that millions of them end
        if budget <= 0:
            break
    return notes, bool((there < sizes).any())


def read_notes(
    source: ByteSource,
    offset: int,
    size: int,
    structs: ELFStructs,
    align: int = 4,
    limit: int = MAX_NOTES,
) -> list[Note]:
    """
    Walk the notes of a note segment. Descriptors stay in the file.

    :param offset: File offset of the segment (bytes).
    :param size: Its size (bytes); the file may end before.
    :param structs: Layouts of the file's class and byte order.
    :param align: Alignment of names and descriptors (bytes): 4, or 8 where ``p_align`` is 8.
    :param limit: Stop after this many.
    """
    notes: list[Note] = []
    header = structs.Elf_Nhdr.sizeof()
    window, window_at, position = b"", 0, 0
    while position + header <= size and len(notes) < limit:
        at = position - window_at
        if at + header + _MAX_NAME > len(window):
            window = source.read(offset + position, min(_WINDOW, size - position))
            window_at, at = position, 0
        head = window[at : at + header]
        if len(head) < header or not any(head):
            break  # the end of the file, or padding: a CPU's notes end with an empty one
        stream = io.BytesIO(head)
        name_size, data_size, kind = (structs.Elf_word("").parse_stream(stream) for _ in range(3))
        name_at = position + header
        data_at = (name_at + name_size + align - 1) & -align
        if data_at > size:
            break
        name = window[at + header : at + header + min(name_size, _MAX_NAME)].split(b"\0", 1)[0]
        notes.append(Note(name=name, type=kind, offset=offset + data_at, size=data_size))
        position = (data_at + data_size + align - 1) & -align
    return notes
