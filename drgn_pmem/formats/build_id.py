# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Build IDs
---------

The ``NT_GNU_BUILD_ID`` note of an ELF file with debug info (include/uapi/linux/elf.h).
"""

from collections.abc import Iterator
from os import PathLike, fspath
import struct
from typing import IO

from drgn_pmem.errors import DumpFileError

__all__ = ("build_id_of_file",)

_ET_REL = 1
_SHT_NOTE = 7
_NT_GNU_BUILD_ID = 3
_MAX_NOTES = 1 << 20


def build_id_of_file(path: "str | PathLike[str]") -> tuple[str | None, bool]:
    """
    :return: The build ID in an ELF file's notes (None if it has none), and whether the file is a
        relocatable one, as kernel modules are.
    :raises DumpFileError: if it is not an ELF file
    """
    # Not pyelftools: the first prompt would wait for its import.
    try:
        with open(path, "rb") as file:
            ident = file.read(20)
            if ident[:4] != b"\x7fELF" or ident[4] not in (1, 2) or ident[5] not in (1, 2):
                raise DumpFileError(f"{fspath(path)} is not an ELF file with debug info")
            order = "<" if ident[5] == 1 else ">"
            (type_,) = struct.unpack_from(f"{order}H", ident, 16)
            for note in _note_sections(file, order, ident[4] == 2):
                build_id = _build_id(note, order)
                if build_id is not None:
                    return build_id, type_ == _ET_REL
            return None, type_ == _ET_REL
    except (struct.error, IndexError, OverflowError) as error:
        raise DumpFileError(f"{fspath(path)} is a damaged ELF file") from error


def _note_sections(file: IO[bytes], order: str, is_64_bit: bool) -> Iterator[bytes]:
    """Contents of the SHT_NOTE sections (include/uapi/linux/elf.h: Elf64_Ehdr, Elf64_Shdr)."""
    word, table_at, entry_at = ("Q", 40, 58) if is_64_bit else ("I", 32, 46)
    file.seek(0)
    header = file.read(64)
    (table,) = struct.unpack_from(f"{order}{word}", header, table_at)
    size, count = struct.unpack_from(f"{order}HH", header, entry_at)
    for number in range(count):
        file.seek(table + number * size)
        entry = file.read(size)
        (type_,) = struct.unpack_from(f"{order}I", entry, 4)
        offset, length = struct.unpack_from(f"{order}{word}{word}", entry, 24 if is_64_bit else 16)
        if type_ == _SHT_NOTE and length <= _MAX_NOTES:
            file.seek(offset)
            yield file.read(length)


def _build_id(notes: bytes, order: str) -> str | None:
    position = 0
    while position + 12 <= len(notes):
        name_size, size, type_ = struct.unpack_from(f"{order}III", notes, position)
        name = position + 12
        contents = name + (name_size + 3 & ~3)
        if type_ == _NT_GNU_BUILD_ID and notes[name : name + name_size] == b"GNU\0":
            return notes[contents : contents + size].hex()
        position = contents + (size + 3 & ~3)
    return None
