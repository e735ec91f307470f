# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Crash headers (elfcorehdr)
--------------------------

The ELF header that kexec or the kernel leaves for the capture kernel: what ``/proc/vmcore`` will
hold. :mod:`drgn_pmem.formats.elfprepare` makes one as the kernel does,
:mod:`drgn_pmem.formats.elfcompare` compares two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import enum
import hashlib
import struct
from typing import Any

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.architecture import find_architecture
from drgn_pmem.formats.clayout import ByteOrder
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "PF_DEV",
    "PF_RWX",
    "PT_LOAD",
    "PT_NOTE",
    "CrashHeader",
    "HeaderSource",
    "ProgramHeader",
    "Role",
    "build_elfcorehdr",
    "imply_elfcorehdr",
    "parse_elfcorehdr",
    "to_elf_file",
)

PT_LOAD = 1
PT_NOTE = 4
PF_RWX = 7
PF_DEV = 0x10
"""Persistent memory; a flag of the patches that never were merged, in no ``elf.h``."""

_MAGIC = b"\x7fELF"
_ET_CORE = 4
_PN_XNUM = 0xFFFF
_ALIGN = 4096  # ELF_CORE_HEADER_ALIGN

# Elf64_Ehdr:  e_ident[16] e_type e_machine e_version e_entry e_phoff e_shoff e_flags
#              e_ehsize e_phentsize e_phnum e_shentsize e_shnum e_shstrndx
_EHDR = "16sHHIQQQIHHHHHH"
# Elf64_Phdr:  p_type p_flags p_offset p_vaddr p_paddr p_filesz p_memsz p_align
_PHDR = "IIQQQQQQ"
# Elf64_Shdr:  sh_name sh_type sh_flags sh_addr sh_offset sh_size sh_link sh_info sh_addralign
# sh_entsize
_SHDR = "IIQQQQIIQQ"
_EHDR_SIZE, _PHDR_SIZE, _SHDR_SIZE = 64, 56, 64
_ORDERS: dict[ByteOrder, str] = {"little": "<", "big": ">"}


class HeaderSource(enum.Enum):
    """Where a crash header comes from."""

    FOUND = "found"
    """Read from memory."""
    REBUILT = "rebuilt"
    """Rebuilt from the state of the crashed kernel."""
    IMPLIED = "implied"
    """Derived from a dump file's own headers or page bitmap."""


class Role(enum.Enum):
    """What a program header is for."""

    MEMORY = "memory"
    KERNEL_TEXT = "kernel text"
    PMEM = "pmem"
    CPU_NOTES = "CPU notes"
    VMCOREINFO = "vmcoreinfo"
    NOTES = "notes"
    """All notes in one, as in ``/proc/vmcore``."""
    BOOT_MEMORY = "boot memory"
    """Memory that the firmware of POWER moves (fadump)."""
    EMPTY = "empty"
    """Counted by ``e_phnum`` and never filled in (fadump)."""
    PAGES = "pages"
    """No program header: a range of a page bitmap."""
    OTHER = ""


def _type_name(value: int) -> str:
    return {PT_LOAD: "PT_LOAD", PT_NOTE: "PT_NOTE"}.get(value, f"{value:#x}")


class ProgramHeader(Record):
    """``Elf64_Phdr``; sizes and offset in bytes."""

    type: int = shown(json=_type_name)
    physical: int = shown(Show.ADDRESS)
    """The address that the bytes had in the crashed kernel."""
    virtual: int = shown(Show.ADDRESS, default=0)
    offset: int = shown(default=0)
    """In an elfcorehdr the physical address where the bytes are to be read."""
    file_size: int = shown(Show.SIZE, json=False)
    memory_size: int = shown(Show.SIZE, key="size")
    flags: int
    align: int = shown(json=False, default=0)
    role: Role = dataclasses.field(default=Role.OTHER, compare=False)
    number: int | None = dataclasses.field(default=None, compare=False)
    """For CPU notes, their position among them."""

    @property
    def what(self) -> str:
        """What it is for, in words: ``memory``, ``kernel text``, ``CPU notes 0``."""
        return self.role.value if self.number is None else f"{self.role.value} {self.number}"

    @property
    def end(self) -> int:
        """Physical end, exclusive."""
        return self.physical + self.memory_size

    @property
    def pmem(self) -> bool:
        return self.type == PT_LOAD and bool(self.flags & PF_DEV)

    def to_json(self) -> dict[str, Any]:
        json = super().to_json()
        del json["role"], json["number"]
        return {**json, "what": self.what}


class CrashHeader(Record):
    """An elfcorehdr, with where it comes from."""

    source: HeaderSource
    phdrs: tuple[ProgramHeader, ...]
    machine: int | None
    """``e_machine``; None if it is not known."""
    byteorder: ByteOrder = "little"
    e_flags: int = 0
    raw: bytes | None = dataclasses.field(default=None, compare=False, repr=False)
    """The bytes that it was parsed from, or that the kernel would have written."""

    @property
    def loads(self) -> tuple[ProgramHeader, ...]:
        return tuple(phdr for phdr in self.phdrs if phdr.type == PT_LOAD)

    @property
    def notes(self) -> tuple[ProgramHeader, ...]:
        return tuple(phdr for phdr in self.phdrs if phdr.type == PT_NOTE)

    @property
    def of_bitmap(self) -> bool:
        """Whether it was made from a page bitmap, which has no notes, virtual addresses or
        flags."""
        return any(phdr.role is Role.PAGES for phdr in self.phdrs)

    @property
    def machine_name(self) -> str | int | None:
        """Name of the architecture, or its ``e_machine`` if that is in no table."""
        found = find_architecture(self.machine)
        return self.machine if found is None else found.name

    @property
    def size(self) -> int:
        """bytes of the ELF header and the program headers, without padding"""
        count = len(self.phdrs)
        extended = _SHDR_SIZE if count >= _PN_XNUM else 0
        return _EHDR_SIZE + count * _PHDR_SIZE + extended

    def to_json(self) -> dict[str, Any]:
        json: dict[str, Any] = {
            "source": self.source.value,
            "machine": self.machine_name,
            "byteorder": self.byteorder,
            "phdrs": [phdr.to_json() for phdr in self.phdrs],
        }
        if self.raw is not None:
            # Without the padding: a segment is larger than the header in it.
            json["bytes_sha256"] = hashlib.sha256(self.raw[: self.size]).hexdigest()
        return json


_MEMBERS = (
    "type", "flags", "offset", "virtual", "physical", "file_size", "memory_size", "align",
)  # fmt: skip


def _program_header(members: tuple[int, ...], use: tuple[Role, int | None]) -> ProgramHeader:
    role, number = use
    return ProgramHeader(**dict(zip(_MEMBERS, members, strict=True)), role=role, number=number)


def _name(phdrs: Iterable[tuple[int, ...]]) -> Iterator[tuple[Role, int | None]]:
    """What each ``Elf64_Phdr`` is for, by the order and addresses that kernel and kexec use."""
    phdrs = list(phdrs)
    notes = sum(kind == PT_NOTE for kind, *_ in phdrs)
    # Memory is mapped with one distance between virtual and physical, the kernel text with another.
    distances: dict[int, int] = {}
    for kind, _, _, virtual, physical, _, size, _ in phdrs:
        if kind == PT_LOAD:
            distance = virtual - physical
            distances[distance] = distances.get(distance, 0) + size
    direct = max(distances, key=lambda distance: distances[distance], default=0)
    note = 0
    for kind, flags, _, virtual, physical, *_ in phdrs:
        if kind == PT_NOTE:
            note += 1
            if notes == 1:
                yield Role.NOTES, None
            elif note < notes:
                yield Role.CPU_NOTES, note - 1
            else:
                yield Role.VMCOREINFO, None
        elif kind != PT_LOAD:
            yield Role.OTHER, None
        elif flags & PF_DEV:
            yield Role.PMEM, None
        elif virtual - physical != direct and virtual >> 63 and virtual != 2**64 - 1:
            yield Role.KERNEL_TEXT, None
        else:
            yield Role.MEMORY, None


def parse_elfcorehdr(data: bytes, source: HeaderSource = HeaderSource.FOUND) -> CrashHeader:
    """
    Decode an elfcorehdr, or the headers of any 64-bit ELF core file.

    :param data: From the ELF magic on, at least to the end of the program headers.
    :raises FormatError: if it is none, of the wrong class or type, or cut short.
    """
    if data[:4] != _MAGIC:
        raise FormatError(f"not an ELF header: it begins with {bytes(data[:4])!r}")
    if len(data) < _EHDR_SIZE:
        raise FormatError(f"the ELF header is cut short: {len(data)} of {_EHDR_SIZE} bytes")
    if data[4] != 2:
        words = "a 32-bit" if data[4] == 1 else f"a class {data[4]}"
        raise FormatError(f"{words} ELF header: an elfcorehdr of the supported kernels is 64-bit")
    if data[5] not in (1, 2):
        raise FormatError(f"EI_DATA is {data[5]}, neither little- nor big-endian")
    byteorder: ByteOrder = "little" if data[5] == 1 else "big"
    order = _ORDERS[byteorder]
    _, kind, machine, _, _, phoff, shoff, flags, _, phentsize, phnum, shentsize, shnum, _ = (
        struct.unpack_from(order + _EHDR, data)
    )
    if kind != _ET_CORE:
        raise FormatError(f"e_type is {kind}, not ET_CORE")
    if phnum and phentsize != _PHDR_SIZE:
        raise FormatError(f"e_phentsize is {phentsize}, not {_PHDR_SIZE}")
    if phnum == _PN_XNUM and shnum:
        if shentsize != _SHDR_SIZE or shoff + _SHDR_SIZE > len(data):
            raise FormatError(
                "e_phnum is PN_XNUM, but the section header with the count is missing"
            )
        phnum = struct.unpack_from(order + _SHDR, data, shoff)[7]
    end = phoff + phnum * _PHDR_SIZE
    if end > len(data):
        raise FormatError(
            f"{phnum} program headers at {phoff:#x} do not fit the {len(data)} bytes that are there"
        )
    phdrs = list(struct.iter_unpack(order + _PHDR, data[phoff:end]))
    return CrashHeader(
        source=source,
        phdrs=tuple(map(_program_header, phdrs, _name(phdrs))),
        machine=machine,
        byteorder=byteorder,
        e_flags=flags,
        raw=bytes(data),
    )


def _align(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def build_elfcorehdr(header: CrashHeader, size: int | None = None) -> bytes:
    """
    The bytes of a header, padded with zeroes.

    From 65,535 program headers on, their count is in a section header after them (``PN_XNUM``).

    :param size: Total bytes; by default the next multiple of 4096.
    :raises FormatError: if a field does not fit, *size* is too small, or the machine is not known.
    """
    if header.machine is None:
        raise FormatError("the architecture is not known: no ELF header can be made")
    order = _ORDERS[header.byteorder]
    ident = _MAGIC + bytes((2, 1 if header.byteorder == "little" else 2, 1)) + bytes(9)
    count = len(header.phdrs)
    extended = count >= _PN_XNUM
    try:
        data = struct.pack(
            order + _EHDR,
            ident,
            _ET_CORE,
            header.machine,
            1,
            0,
            _EHDR_SIZE,
            _EHDR_SIZE + count * _PHDR_SIZE if extended else 0,
            header.e_flags,
            _EHDR_SIZE,
            _PHDR_SIZE,
            min(count, _PN_XNUM),
            _SHDR_SIZE if extended else 0,
            1 if extended else 0,
            0,
        ) + b"".join(
            struct.pack(
                order + _PHDR,
                phdr.type,
                phdr.flags,
                phdr.offset,
                phdr.virtual,
                phdr.physical,
                phdr.file_size,
                phdr.memory_size,
                phdr.align,
            )
            for phdr in header.phdrs
        )
    except struct.error as error:
        raise FormatError(f"a field of the ELF header does not fit: {error}") from None
    if extended:
        data += struct.pack(order + _SHDR, 0, 0, 0, 0, 0, 1, 0, count, 0, 0)
    if size is None:
        size = _align(len(data))
    if size < len(data):
        raise FormatError(f"{count} program headers need {len(data)} bytes, not {size}")
    return data.ljust(size, b"\0")


def imply_elfcorehdr(dump: CrashHeader, *, join: bool = False) -> CrashHeader:
    """
    The elfcorehdr that a dump was made from, as far as the dump's own program headers show:
    ``/proc/vmcore`` merges all notes into one and replaces every ``p_offset``; makedumpfile shrinks
    ``p_filesz``.

    :param dump: The headers of an ELF dump.
    :param join: Join what follows on seamlessly: ``makedumpfile -E`` splits a program header where
        it leaves pages out.
    """
    phdrs: list[ProgramHeader] = []
    for phdr in dump.phdrs:
        if phdr.type == PT_LOAD:
            phdr = dataclasses.replace(phdr, offset=phdr.physical, file_size=phdr.memory_size)
            last = phdrs[-1] if phdrs else None
            if (
                join
                and last is not None
                and last.type == PT_LOAD
                and (last.end, last.flags) == (phdr.physical, phdr.flags)
                and last.virtual + last.memory_size == phdr.virtual
            ):
                length = last.memory_size + phdr.memory_size
                phdrs[-1] = dataclasses.replace(last, file_size=length, memory_size=length)
                continue
        phdrs.append(phdr)
    uses = _name(tuple(getattr(phdr, name) for name in _MEMBERS) for phdr in phdrs)
    named = tuple(
        dataclasses.replace(phdr, role=role, number=number)
        for phdr, (role, number) in zip(phdrs, uses, strict=True)
    )
    return CrashHeader(
        source=HeaderSource.IMPLIED,
        phdrs=named,
        machine=dump.machine,
        byteorder=dump.byteorder,
        e_flags=dump.e_flags,
    )


def to_elf_file(header: CrashHeader, notes: Mapping[int, bytes] | None = None) -> bytes:
    """
    The header as an ELF file of its own, which readelf and gdb accept.

    Program headers are as they are, but those for notes point to bytes in this file.

    :param notes: The bytes at the physical address of each note; a note that is not given is
        replaced by one (of the name ``drgn-pmem``) that says where it was.
    """
    place = len(build_elfcorehdr(header))
    phdrs, contents = [], b""
    for phdr in header.phdrs:
        if phdr.type == PT_NOTE:
            content = (notes or {}).get(phdr.physical)
            if content is None:
                text = f"{phdr.what or 'note'} at {phdr.physical:#x}, {phdr.memory_size} bytes\0"
                description = text.encode().ljust(-(-len(text) // 4) * 4, b"\0")
                sizes = struct.pack(_ORDERS[header.byteorder] + "III", 10, len(description), 0)
                content = sizes + b"drgn-pmem\0\0\0" + description
            phdr = dataclasses.replace(
                phdr, offset=place + len(contents), file_size=len(content), align=4
            )
            contents += content + bytes(-len(content) % 4)
        phdrs.append(phdr)
    return build_elfcorehdr(dataclasses.replace(header, phdrs=tuple(phdrs))) + contents
