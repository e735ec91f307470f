# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Writers of synthetic dumps
--------------------------

Made with :mod:`struct` from the formats' descriptions, not with the layouts that the readers
declare, so that an error in one does not hide in the other.
"""

import ctypes
from dataclasses import dataclass, field
from pathlib import Path
import struct
import zlib

import drgn  # noqa: F401  loads the libraries that compress

from drgn_pmem.dumpfile import DumpFile, decompress, open_dump
from drgn_pmem.errors import DumpFileError

PAGE = 4096
PT_LOAD, PT_NOTE = 1, 4
EM = {"x86_64": 62, "aarch64": 183, "ppc64": 21, "386": 3, "s390": 22, "arm": 40}

VMCOREINFO = (
    b"OSRELEASE=6.1.0-test\nBUILD-ID=00112233445566778899aabbccddeeff00112233\nPAGESIZE=4096\n"
    b"SYMBOL(init_uts_ns)=ffffffff82a00000\nSYMBOL(node_online_map)=ffffffff82b00000\n"
    b"SYMBOL(swapper_pg_dir)=ffffffff82c00000\nSYMBOL(_stext)=ffffffff81000000\n"
    b"OFFSET(uts_namespace.name)=0\nNUMBER(phys_base)=0\nSYMBOL(init_top_pgt)=ffffffff82c00000\n"
    b"NUMBER(pgtable_l5_enabled)=0\nKERNELOFFSET=0\nNUMBER(KERNEL_IMAGE_SIZE)=1073741824\n"
    b"CRASHTIME=1700000000\n"
)


def page_bytes(pfn: int, size: int = PAGE) -> bytes:
    """Content of a page that says which page it is; compresses well."""
    return struct.pack("<Q", pfn).ljust(64, b"\xa5") * (size // 64)


def note(name: bytes, kind: int, data: bytes, order: str = "<", align: int = 4) -> bytes:
    """One ELF note; ``name`` without its NUL."""
    text = name + b"\0"

    def pad(part: bytes, before: int = 0) -> bytes:
        return part + bytes(-(before + len(part)) % align)

    return struct.pack(f"{order}III", len(text), len(data), kind) + pad(text, 12) + pad(data)


@dataclass
class Load:
    """One PT_LOAD to write; ``data`` is what the file holds of it."""

    physical: int
    size: int
    data: bytes = b""
    virtual: int = 0
    flags: int = 7
    file_size: int | None = None
    """If it shall differ from the length of ``data``."""
    offset: int | None = None
    """If it shall not be behind what was written before."""


@dataclass
class Elf:
    """An ELF core."""

    loads: list[Load] = field(default_factory=list)
    notes: bytes = b""
    bits: int = 64
    order: str = "<"
    machine: str = "x86_64"
    kind: int = 4
    e_flags: int = 0
    note_align: int = 4

    def bytes(self) -> bytes:
        """The file."""
        wide = self.bits == 64
        word = "Q" if wide else "I"
        header_size, phdr_size, shdr_size = (64, 56, 64) if wide else (52, 32, 40)
        count = len(self.loads) + (1 if self.notes else 0)
        xnum = count >= 0xFFFF
        data_at = header_size + count * phdr_size + (shdr_size if xnum else 0)
        body = bytearray(self.notes)
        phdrs = []
        if self.notes:
            phdrs.append(self._phdr(PT_NOTE, 0, data_at, 0, 0, len(self.notes), 0, self.note_align))
        for load in self.loads:
            offset = load.offset
            if offset is None:
                offset = data_at + len(body)
                body += load.data
            size = len(load.data) if load.file_size is None else load.file_size
            phdrs.append(
                self._phdr(
                    PT_LOAD, load.flags, offset, load.virtual, load.physical, size, load.size, 0
                )
            )
        ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if self.order == "<" else 2, 1]) + bytes(9)
        header = ident + struct.pack(
            f"{self.order}HHI{word}{word}{word}IHHHHHH",
            self.kind,
            EM[self.machine],
            1,
            0,
            header_size,
            header_size + count * phdr_size if xnum else 0,
            self.e_flags,
            header_size,
            phdr_size,
            0xFFFF if xnum else count,
            shdr_size if xnum else 0,
            1 if xnum else 0,
            0,
        )
        section = b""
        if xnum:
            # sh_info of section 0 counts the program headers
            fields = (0, 0, 0, 0, 0, 0, 0, count, 0, 0)
            section = struct.pack(f"{self.order}II{word * 4}II{word * 2}", *fields)
        return header + b"".join(phdrs) + section + bytes(body)

    def _phdr(self, kind, flags, offset, virtual, physical, size, memory, align) -> bytes:
        if self.bits == 64:
            return struct.pack(
                f"{self.order}IIQQQQQQ", kind, flags, offset, virtual, physical, size, memory, align
            )
        return struct.pack(
            f"{self.order}IIIIIIII", kind, offset, virtual, physical, size, memory, flags, align
        )

    def write(self, path: Path) -> Path:
        """The file, on disk."""
        path.write_bytes(self.bytes())
        return path


FLAGS = {"stored": 0, "zlib": 1, "lzo": 2, "snappy": 4, "zstd": 0x20}
"""Flags of a page by how it is compressed."""


def compress(how: str, data: bytes) -> bytes:
    """Compress a page as makedumpfile does, with the C library of each compression."""
    if how == "zlib":
        return zlib.compress(data, 1)
    library = decompress._library(how)
    assert library is not None
    out, length = ctypes.create_string_buffer(2 * len(data) + 4096), ctypes.c_size_t()
    length.value = len(out)
    size = ctypes.c_size_t(len(data))
    if how == "lzo":
        work = ctypes.create_string_buffer(1 << 20)
        assert library.lzo1x_1_compress(data, size, out, ctypes.byref(length), work) == 0
    elif how == "snappy":
        assert library.snappy_compress(data, size, out, ctypes.byref(length)) == 0
    else:
        library.ZSTD_compress.restype = ctypes.c_size_t
        length.value = library.ZSTD_compress(out, length, data, size, 1)
    return out.raw[: length.value]


@dataclass
class Kdump:
    """A kdump-compressed dump. ``exists`` and ``dumped`` are sets of PFNs."""

    exists: set[int]
    dumped: set[int]
    max_mapnr: int
    version: int = 6
    bits: int = 64
    order: str = "<"
    packed: bool = False
    """32 bit: 64-bit members aligned to 4 bytes, as on i386."""
    machine: str = "x86_64"
    sysname: str = "Linux"
    signature: bytes = b"KDUMP   "
    status: int = 1
    block: int = PAGE
    vmcoreinfo: bytes | None = VMCOREINFO
    split: int = 0
    part: tuple[int, int] | None = None
    """First and last (exclusive) PFN of the pages in this file of a split dump."""
    stored: bool = False
    """Pages as they are, not compressed."""
    how: str = "zlib"
    """How the others are compressed, or ``"mixed"``: each in another way."""
    contents: dict[int, bytes] | None = None
    """What is in the pages, if not :func:`page_bytes`."""
    shared: bool = False
    """Whether equal pages share their data in the file, as QEMU's pages of zeroes do."""
    no_descriptor: set[int] = field(default_factory=set)
    """PFNs whose descriptor stays zero, as makedumpfile leaves it when the disk is full."""
    single_bitmap: bool = False
    mapnr_32: int | None = None
    """``max_mapnr`` of the first header, if not the true one."""

    def bytes(self) -> bytes:
        """The file."""
        block = self.block
        bitmap_blocks = -(-self.max_mapnr // (8 * block))
        blocks = bitmap_blocks if self.single_bitmap else 2 * bitmap_blocks
        notes = note(b"CORE", 1, bytes(336), self.order)
        info_at = 0
        if self.vmcoreinfo is not None:
            info_at = block + 1024 + len(notes) + 24
            notes += note(b"VMCOREINFO", 0, self.vmcoreinfo, self.order)
        out = bytearray(self._header(blocks).ljust(block, b"\0"))
        out += self._sub_header(block + 1024, len(notes), info_at).ljust(1024, b"\0")
        out += notes
        sub_blocks = -(-(len(out) - block) // block)
        assert sub_blocks == 1, "the sub header of these tests takes one block"
        out = out.ljust(2 * block, b"\0")
        if not self.single_bitmap:
            out += self._bitmap(self.exists, bitmap_blocks)
        out += self._bitmap(self.dumped, bitmap_blocks)
        first, end = self.part or (0, self.max_mapnr + 8 * block)
        pages = sorted(pfn for pfn in self.dumped if first <= pfn < end)
        table, data = bytearray(), bytearray()
        data_at = len(out) + 24 * len(pages)
        written: dict[bytes, int] = {}
        for pfn in pages:
            raw = page_bytes(pfn, block) if self.contents is None else self.contents[pfn]
            how = sorted(FLAGS)[pfn % len(FLAGS)] if self.how == "mixed" else self.how
            how = "stored" if self.stored else how
            stored = raw if how == "stored" else compress(how, raw)
            if pfn in self.no_descriptor:
                table += bytes(24)
                continue
            at = written.setdefault(stored, len(data)) if self.shared else len(data)
            table += struct.pack(f"{self.order}QIIQ", data_at + at, len(stored), FLAGS[how], 0)
            if at == len(data):
                data += stored
        return bytes(out + table + data)

    def _header(self, blocks: int) -> bytes:
        names = [self.sysname, "node", "6.1.0-test", "#1 SMP", self.machine, "(none)"]
        names = names if self.sysname else ["", "", "", "", self.machine, ""]
        head = self.signature + struct.pack(f"{self.order}i", self.version)
        head += b"".join(name.encode().ljust(65, b"\0") for name in names)
        if self.bits == 64:
            head += bytes(6) + struct.pack(f"{self.order}QQ", 1700000000, 0)
        else:
            head += bytes(2) + struct.pack(f"{self.order}II", 1700000000, 0)
        mapnr = self.max_mapnr if self.mapnr_32 is None else self.mapnr_32
        return head + struct.pack(
            f"{self.order}IiiIIIIIIi", self.status, self.block, 1, blocks, mapnr, 0, 0, 0, 0, 1
        )

    def _sub_header(self, notes_at: int, notes_size: int, info_at: int) -> bytes:
        """Members up to the header's version; later ones are garbage, as an old writer would leave
        them."""
        word, pad = ("Q", 8) if self.bits == 64 else ("I", 4 if self.packed else 8)
        info_size = len(self.vmcoreinfo or b"")
        first, end = self.part or (0, self.max_mapnr)
        members = [
            (word, 0x1000000, 0),
            ("i", 31, 1),
            ("i", self.split, 2),
            (word, first & 0xFFFFFFFF, 2),
            (word, end & 0xFFFFFFFF, 2),
            ("Q", info_at, 3),
            (word, info_size, 3),
            ("Q", notes_at, 4),
            (word, notes_size, 4),
            ("Q", 0, 5),
            (word, 0, 5),
            ("Q", first, 6),
            ("Q", end, 6),
            ("Q", self.max_mapnr, 6),
        ]
        out = b""
        for code, value, since in members:
            align = min(struct.calcsize(f"<{code}"), pad)
            out += bytes(-len(out) % align)
            if since > self.version:
                # libkdumpfile takes the version 5 members from version 4 on.
                junk = b"\0" if (since, self.version) == (5, 4) else b"\xee"
                out += junk * struct.calcsize(f"<{code}")
            else:
                out += struct.pack(f"{self.order}{code}", value)
        return out

    def _bitmap(self, pfns: set[int], blocks: int) -> bytes:
        bits = bytearray(blocks * self.block)
        for pfn in pfns:
            bits[pfn // 8] |= 1 << pfn % 8
        return bytes(bits)

    def write(self, path: Path) -> Path:
        """The file, on disk."""
        path.write_bytes(self.bytes())
        return path


def flatten(data: bytes, record: int = 3000, end: bool = True, tail: int | None = None) -> bytes:
    """
    A file in the flattened format.

    :param record: Bytes per record.
    :param end: Whether the end mark is written.
    :param tail: Offset from which on the data is written first: records out of order.
    """
    parts = [(at, data[at : at + record]) for at in range(0, len(data), record)]
    if tail is not None:
        parts = [part for part in parts if part[0] >= tail] + [
            part for part in parts if part[0] < tail
        ]
    out = b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)
    out = out.ljust(4096, b"\0")
    for at, part in parts:
        out += struct.pack(">qq", at, len(part)) + part
    return out + (struct.pack(">qq", -1, -1) if end else b"")


def opened_or_said(path: Path, *words: str) -> DumpFile | None:
    """The dump, or ``None`` if it was refused with one of these words."""
    try:
        return open_dump(path)
    except DumpFileError as error:
        text = str(error)
    assert any(word in text for word in words), text
    return None
