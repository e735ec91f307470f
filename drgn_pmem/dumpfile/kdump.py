# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
kdump-compressed dumps
----------------------

makedumpfile's own format, which QEMU writes too: a header, a sub header, two bitmaps (which pages
exist, which were dumped), one descriptor per dumped page, the compressed pages. Program headers,
and with them ``PF_DEV``, are lost in it.

Layouts: ``struct disk_dump_header`` and ``struct page_desc`` in diskdump_mod.h, ``struct
kdump_sub_header`` in makedumpfile.h, as the compiler of the crashed machine laid them out: ``long``
and ``time_t`` are 4 or 8 bytes, and 64-bit members of a 32-bit structure are aligned to 4 bytes
(i386) or 8 (arm).
"""

import functools
from typing import Any, Literal

from dissect.cstruct import cstruct
from elftools.elf.structs import ELFStructs
import numpy as np

from drgn_pmem.dumpfile.bitmap import Bitmaps, bitmap_coverage
from drgn_pmem.dumpfile.elf import (
    MAX_ERASEINFO,
    MAX_NOTE_BYTES,
    MAX_VMCOREINFO,
    check_note_size,
    erase_commands,
    read_notes,
)
from drgn_pmem.dumpfile.pages import KdumpMemory
from drgn_pmem.dumpfile.records import (
    HYPERVISOR_NOTES,
    DumpFile,
    DumpFormat,
    KdumpHeader,
    Note,
)
from drgn_pmem.dumpfile.source import ByteSource
from drgn_pmem.dumpfile.vmcoreinfo import printable
from drgn_pmem.errors import DumpFileError

__all__ = (
    "MAGICS",
    "KdumpHeader",
    "bitmaps_of",
    "layout_of",
    "open_kdump",
    "parse_header",
    "place_of_split",
)

MAGICS = (b"KDUMP   ", b"DISKDUMP")

MAX_PFN = 1 << 38
"""More page frames than this (1 PiB of 4 KiB pages) are taken for damage."""

# utsname's members are spelled out: dissect.cstruct 4.7 forgets the padding after a nested
# structure.
_HEADER = """
    struct disk_dump_header {
        char     signature[8];
        int32    header_version;
        char     sysname[65];         /* struct new_utsname utsname */
        char     nodename[65];
        char     release[65];
        char     version[65];
        char     machine[65];
        char     domainname[65];
        ulong_t  tv_sec;              /* struct timeval timestamp */
        ulong_t  tv_usec;
        uint32   status;
        int32    block_size;          /* bytes */
        int32    sub_hdr_size;        /* blocks */
        uint32   bitmap_blocks;
        uint32   max_mapnr;           /* PFN; only the low 32 bits */
        uint32   total_ram_blocks;
        uint32   device_blocks;
        uint32   written_blocks;
        uint32   current_cpu;
        int32    nr_cpus;
    };
"""
# The number after a member is the header version that added it.
_SUB_HEADER = """
    struct kdump_sub_header {
        ulong_t  phys_base;
        int32    dump_level;          /* 1 */
        int32    split;               /* 2 */
        ulong_t  start_pfn;           /* 2 */
        ulong_t  end_pfn;             /* 2 */
        uint64   offset_vmcoreinfo;   /* 3 */
        ulong_t  size_vmcoreinfo;     /* 3 */
        uint64   offset_note;         /* 4 */
        ulong_t  size_note;           /* 4 */
        uint64   offset_eraseinfo;    /* 5 */
        ulong_t  size_eraseinfo;      /* 5 */
        uint64   start_pfn_64;        /* 6 */
        uint64   end_pfn_64;          /* 6 */
        uint64   max_mapnr_64;        /* 6 */
    };
"""

# Of the first header by the bits of the machine: its size, and where block_size is. Known without
# the layouts, which take 8 ms each to parse: only that of the machine is.
_HEADER_SIZE = {32: 452, 64: 464}
_BLOCK_SIZE = {32: 416, 64: 428}
_MACHINES: tuple[tuple[int, Literal["little", "big"]], ...] = (
    (32, "little"),
    (32, "big"),
    (64, "little"),
    (64, "big"),
)


@functools.cache
def layout_of(bits: int, byteorder: str, packed: bool = False) -> cstruct:
    """Layouts of one machine; ``packed``: 64-bit members aligned to 4 bytes."""
    layout = cstruct(endian="<" if byteorder == "little" else ">")
    layout.load(f"typedef uint{bits} ulong_t;")
    layout.load(_HEADER, align=True)
    layout.load(_SUB_HEADER, align=not packed)
    return layout


def open_kdump(source: ByteSource, outer: DumpFormat = DumpFormat.KDUMP) -> DumpFile:
    """
    Open a kdump-compressed dump.

    :param source: The file, reassembled if it was flattened.
    :param outer: Format to report: ``KDUMP``, or ``FLATTENED`` if the file was.
    :raises DumpFileError: if its headers make no sense or are not in the file, or if it is one file
        of a split dump.
    """
    header = parse_header(source)
    check_note_size(source.path, "notes", header.size_note, MAX_NOTE_BYTES)
    check_note_size(source.path, "erase commands", header.size_eraseinfo, MAX_ERASEINFO)
    notes = _notes(source, header)
    vmcoreinfo = _vmcoreinfo(source, header, notes)
    bitmaps = bitmaps_of(source, header)
    # The flag shows it, or the length of the file: cp may cut a complete dump short.
    incomplete = header.incomplete or not source.complete or bitmaps.cut_short()
    machine = header.utsname["machine"] or None
    kind = "kdump-compressed" if outer is DumpFormat.KDUMP else "flattened kdump-compressed"
    return DumpFile(
        path=source.path,
        format=outer,
        contained=DumpFormat.KDUMP,
        segments=(),
        notes=notes,
        vmcoreinfo=vmcoreinfo,
        incomplete=incomplete,
        machine=machine,
        byteorder=header.byteorder,
        bits=header.bits,
        summary=(
            f"{kind} version {header.version},"
            f" {'/'.join(header.compression) or 'not compressed'},"
            f" {header.bits}-bit {header.byteorder}-endian"
            f"{'' if header.dump_level is None else f', dump level {header.dump_level}'}"
        ),
        coverage_builder=functools.partial(bitmap_coverage, bitmaps),
        memory_builder=functools.partial(KdumpMemory, bitmaps),
        source=source,
        kdump=header,
        erased=erase_commands(source.read(header.offset_eraseinfo, header.size_eraseinfo)),
        # QEMU fills in the machine alone (dump/dump.c, create_header64()).
        hypervisor=any(note.name in HYPERVISOR_NOTES for note in notes)
        or not header.utsname["sysname"],
    )


def bitmaps_of(source: ByteSource, header: KdumpHeader) -> Bitmaps:
    """Where the bitmaps of a dump are."""
    return Bitmaps(
        source=source,
        block_size=header.block_size,
        offset=(1 + header.sub_header_blocks) * header.block_size,
        blocks=header.bitmap_blocks,
        max_mapnr=header.max_mapnr,
        byteorder=header.byteorder,
        incomplete=header.incomplete,
    )


def parse_header(source: ByteSource, *, split: bool = False) -> KdumpHeader:
    """
    The headers of a dump.

    :param split: Whether it may be one file of a split dump.
    """
    raw = source.read(0, 512)
    for bits, byteorder in _MACHINES:
        if len(raw) < _HEADER_SIZE[bits]:
            raise DumpFileError(
                f"{source.path}: the file ends inside the kdump header; the dump was cut short"
            )
        size = int.from_bytes(raw[_BLOCK_SIZE[bits] :][:4], byteorder)
        if not 1024 <= size <= 1 << 20 or size & (size - 1):
            continue
        layout = layout_of(bits, byteorder)
        common = layout.disk_dump_header(raw)
        if (
            common.block_size == size
            and 1 <= common.sub_hdr_size <= 1 << 16
            and 0 <= common.header_version <= 1 << 16
            and common.bitmap_blocks * size * 8 >= common.max_mapnr > 0
        ):
            break
    else:
        if not any(raw[len(MAGICS[0]) :]):
            raise DumpFileError(
                f"{source.path}: a kdump-compressed dump that was never written: its header is"
                " empty (look for a full disk)"
            )
        raise DumpFileError(f"{source.path}: damaged kdump header: no valid page size in it")
    sub = _sub_header(source, layout, bits, byteorder, common)
    version = common.header_version
    is_split = version >= 2 and bool(sub.split)
    if is_split and not split:
        raise DumpFileError(
            f"{source.path}: one file of a split dump; give all of them (-c FILE1 -c FILE2 ...), or"
            " join them with: makedumpfile --reassemble FILE1 FILE2 ... NEWFILE"
        )
    max_mapnr = sub.max_mapnr_64 if version >= 6 else common.max_mapnr
    if not 0 < max_mapnr <= MAX_PFN:
        raise DumpFileError(f"{source.path}: damaged kdump header: {max_mapnr} page frames")
    names = ("sysname", "nodename", "release", "version", "machine", "domainname")
    return KdumpHeader(
        signature=printable(bytes(common.signature)).rstrip(),
        version=version,
        bits=bits,
        byteorder=byteorder,
        utsname={
            name: printable(bytes(getattr(common, name)).split(b"\0", 1)[0]) for name in names
        },
        timestamp=common.tv_sec,
        status=common.status,
        block_size=common.block_size,
        sub_header_blocks=common.sub_hdr_size,
        bitmap_blocks=common.bitmap_blocks,
        max_mapnr=max_mapnr,
        cpus=common.nr_cpus,
        phys_base=sub.phys_base,
        dump_level=sub.dump_level if version >= 1 else None,
        offset_vmcoreinfo=sub.offset_vmcoreinfo if version >= 3 else 0,
        size_vmcoreinfo=sub.size_vmcoreinfo if version >= 3 else 0,
        offset_note=sub.offset_note if version >= 4 else 0,
        size_note=sub.size_note if version >= 4 else 0,
        offset_eraseinfo=sub.offset_eraseinfo if version >= 5 else 0,
        size_eraseinfo=sub.size_eraseinfo if version >= 5 else 0,
        split=is_split,
        start_pfn=(sub.start_pfn_64 if version >= 6 else sub.start_pfn) if is_split else 0,
        end_pfn=(sub.end_pfn_64 if version >= 6 else sub.end_pfn) if is_split else 0,
    )


def place_of_split(header: KdumpHeader) -> int:
    """File offset of the member of the sub header that says that a dump is split (4 bytes)."""
    return header.block_size + header.bits // 8 + 4


def _sub_header(source: ByteSource, layout: cstruct, bits: int, byteorder: str, common: Any) -> Any:
    length = len(layout.kdump_sub_header)
    raw = source.read(common.block_size, length)
    there = int(source.room(np.array([common.block_size], np.uint64))[0])
    if len(raw) < length or there < length:
        raise DumpFileError(
            f"{source.path}: the file ends before the kdump sub header; the dump was cut short"
        )
    if bits == 64:
        return layout.kdump_sub_header(raw)
    # i386 or arm? Only one of the two places vmcoreinfo between the sub header and the bitmaps.
    packed = layout_of(bits, byteorder, packed=True).kdump_sub_header(raw)
    start, end = common.block_size, (1 + common.sub_hdr_size) * common.block_size
    place, size = packed.offset_vmcoreinfo, packed.size_vmcoreinfo
    if common.header_version < 3 or (not place and not size):
        return packed
    return packed if start < place <= place + size <= end else layout.kdump_sub_header(raw)


def _notes(source: ByteSource, header: KdumpHeader) -> list[Note]:
    if not header.size_note:
        return []
    structs = ELFStructs(little_endian=header.byteorder == "little", elfclass=header.bits)
    structs.create_basic_structs()
    structs.create_advanced_structs("ET_CORE")
    return read_notes(source, header.offset_note, header.size_note, structs)


def _vmcoreinfo(source: ByteSource, header: KdumpHeader, notes: list[Note]) -> bytes | None:
    place, size = header.offset_vmcoreinfo, header.size_vmcoreinfo
    for note in notes:
        if note.name == b"VMCOREINFO":  # libkdumpfile takes the note where there is one
            place, size = note.offset, note.size
    if not size:
        return None
    check_note_size(source.path, "VMCOREINFO", size, MAX_VMCOREINFO)
    return source.read(place, size).rstrip(b"\0") or None
