# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""ELF notes as bytes (include/uapi/linux/elf.h: ``struct elf64_note``)."""

from collections.abc import Iterable
import struct

from drgn_pmem.dumpfile.writing.contents import NoteData
from drgn_pmem.ranges import Range

__all__ = ("pack_notes",)

_ALIGN = 4


def pack_notes(notes: Iterable[NoteData], byteorder: str) -> tuple[bytes, Range]:
    """
    Notes one after the other.

    :return: Their bytes, and where in them the data of VMCOREINFO is (empty if there is none).
    """
    packed = bytearray()
    vmcoreinfo = Range(0, 0)
    for note in notes:
        name = note.name + b"\0"
        header = struct.Struct("<III" if byteorder == "little" else ">III")
        packed += header.pack(len(name), len(note.data), note.type)
        packed += _padded(name)
        if note.name == b"VMCOREINFO":
            vmcoreinfo = Range(len(packed), len(packed) + len(note.data))
        packed += _padded(note.data)
    return bytes(packed), vmcoreinfo


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGN)
