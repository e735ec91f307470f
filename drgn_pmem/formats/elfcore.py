# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Whole ELF cores
---------------

Whether a file is a 64-bit ELF core that drgn can open as it is, by its program headers
alone, so that a usual dump opens without the readers of :mod:`drgn_pmem.dumpfile`.
"""

from collections.abc import Iterator
import os
from pathlib import Path
import struct
from typing import IO

__all__ = ("is_whole_elf",)


# include/uapi/linux/elf.h; the size of Elf64_Phdr, and the count that means "look elsewhere".
_ET_CORE = 4
_PHDR_SIZE = 56
_PT_LOAD = 1
_PT_NOTE = 4
_PN_XNUM = 0xFFFF

_MAX_NOTES = 1 << 24
"""Bytes of notes; a file with more is looked at closely before drgn reads them into memory."""


def _notes(table: bytes, order: str) -> Iterator[tuple[int, int]]:
    """File offset and size (bytes) of each PT_NOTE of a table of program headers."""
    for start in range(0, len(table) - _PHDR_SIZE + 1, _PHDR_SIZE):
        (type_,) = struct.unpack_from(f"{order}I", table, start)
        if type_ == _PT_NOTE:
            yield struct.unpack_from(f"{order}Q16xQ", table, start + 8)


def _is_erased(file: IO[bytes], length: int, note: tuple[int, int]) -> bool:
    """Whether notes say that makedumpfile erased data, which open_program() warns of."""
    offset, size = note
    if offset > length:
        return False
    file.seek(offset)
    return b"ERASEINFO\0" in file.read(min(size, _MAX_NOTES))


def is_whole_elf(path: str) -> bool:
    """Whether a file is a 64-bit ELF core with all the bytes that its program headers describe."""
    with Path(path).open("rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:5] != b"\x7fELF\x02" or header[5] not in (1, 2):
            return False
        order = "<" if header[5] == 1 else ">"
        (type_,) = struct.unpack_from(f"{order}H", header, 16)
        (offset,) = struct.unpack_from(f"{order}Q", header, 32)
        size, count = struct.unpack_from(f"{order}HH", header, 54)
        if type_ != _ET_CORE or size != _PHDR_SIZE or not 0 < count < _PN_XNUM:
            return False
        length = os.fstat(file.fileno()).st_size
        # The offset by itself, too: no file can be read beyond 2^63.
        if offset > length:
            return False
        file.seek(offset)
        table = file.read(size * count)
        if any(_is_erased(file, length, note) for note in _notes(table, order)):
            return False
    if len(table) < size * count:
        return False
    for start in range(0, len(table), size):
        type_, flags = struct.unpack_from(f"{order}II", table, start)
        if type_ == _PT_LOAD and not flags:
            return False  # of a hypervisor, whose virtual addresses are wrong (dumpfile/faults.py)
        file_offset, file_size = struct.unpack_from(f"{order}Q16xQ", table, start + 8)
        if file_offset + file_size > length or (type_ == _PT_NOTE and file_size > _MAX_NOTES):
            return False
    return True
