# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Kernel modules as object files
------------------------------

A module is not linked (ET_REL): what refers to a section does so by a relocation. Those from debug
info to debug info are resolved here, so that it can be pruned; those to the module's code and data
stay, for who knows where these were loaded. 64-bit little-endian ELF with RELA, x86_64's types.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import struct

__all__ = ("ET_REL", "Relocatable", "Relocation")

ET_REL = b"\x01\x00"
_SHT_SYMTAB, _SHT_RELA, _SHT_NOBITS = 2, 4, 8
_SHF_ALLOC = 2
_HEADER = struct.Struct("<IIQQQQIIQQ")
_RELA = struct.Struct("<QQq")
_SYMBOL = struct.Struct("<IBBHQQ")
_SIZES = {1: 8, 10: 4, 11: 4}
"""Bytes of R_X86_64_64, R_X86_64_32, R_X86_64_32S."""

# by which stack traces unwind; the rest of what is loaded a dump has
_KEPT = (".orc", ".note", ".modinfo", ".gnu.linkonce.this_module")


@dataclass(frozen=True)
class Relocation:
    """One of RELA."""

    offset: int
    info: int
    addend: int


@dataclass(frozen=True)
class _Section:
    name: str
    header: tuple[int, ...]
    contents: bytes

    @property
    def type(self) -> int:
        return self.header[1]


class Relocatable:
    """A module, in memory."""

    def __init__(self, data: bytes) -> None:
        self._file_header = data[:64]
        (table,) = struct.unpack_from("<Q", data, 40)
        count, names = struct.unpack_from("<HH", data, 60)
        headers = [_HEADER.unpack_from(data, table + i * _HEADER.size) for i in range(count)]
        text = data[headers[names][4] :]

        def section(header: tuple[int, ...]) -> _Section:
            _, kind, _, _, offset, size, *_ = header
            contents = b"" if kind == _SHT_NOBITS else data[offset : offset + size]
            name = text[header[0] : text.index(b"\0", header[0])].decode()
            return _Section(name, header, contents)

        self._sections = [section(header) for header in headers]
        self._by_name = {section.name: section for section in self._sections}
        symbols = next(s for s in self._sections if s.type == _SHT_SYMTAB).contents
        self._symbols = list(_SYMBOL.iter_unpack(symbols))

    def _of_debug_info(self, relocation: Relocation) -> bool:
        """Whether it refers to debug info."""
        index = self._symbols[relocation.info >> 32][3]
        return index < len(self._sections) and self._sections[index].name.startswith(".debug")

    def _all(self, name: str) -> list[Relocation]:
        rela = self._by_name.get(f".rela{name}")
        found = _RELA.iter_unpack(rela.contents) if rela else ()
        return sorted((Relocation(*values) for values in found), key=lambda item: item.offset)

    def relocations(self, name: str) -> list[Relocation]:
        """A section's, by offset, without those that :meth:`resolved` resolves."""
        return [item for item in self._all(name) if not self._of_debug_info(item)]

    def resolved(self, name: str) -> bytes:
        """A section with what refers to debug info filled in."""
        contents = bytearray(self._by_name[name].contents)
        for item in filter(self._of_debug_info, self._all(name)):
            size = _SIZES[item.info & 0xFFFFFFFF]
            value = self._symbols[item.info >> 32][4] + item.addend
            contents[item.offset : item.offset + size] = value.to_bytes(size, "little")
        return bytes(contents)

    def rewritten(
        self, sections: Mapping[str, bytes], relocations: Mapping[str, Sequence[Relocation]]
    ) -> bytes:
        """
        The file with other debug info. Section numbers stay, so that symbols do.

        :param sections: All debug info that there is to be.
        :param relocations: Of the sections, by their names.
        """
        new = dict(sections)
        for name, items in relocations.items():
            packed = (_RELA.pack(item.offset, item.info, item.addend) for item in items)
            new[f".rela{name}"] = b"".join(packed)
        out = bytearray(self._file_header)
        headers = []
        for section in self._sections:
            contents = new.get(section.name, self._left(section))
            alignment = max(section.header[8], 1)
            out += bytes(-len(out) % alignment)
            header = list(section.header)
            header[4] = len(out)
            header[5] = header[5] if section.type == _SHT_NOBITS else len(contents)
            headers.append(_HEADER.pack(*header))
            out += contents
        out += bytes(-len(out) % 8)
        struct.pack_into("<Q", out, 40, len(out))
        return bytes(out) + b"".join(headers)

    def _left(self, section: _Section) -> bytes:
        """What stays of a section that has no new contents."""
        base = section.name.removeprefix(".rela")
        if section.name.startswith(".debug") or (
            section.type == _SHT_RELA and not base.startswith(_KEPT)
        ):
            return b""
        if section.header[2] & _SHF_ALLOC and not section.name.startswith(_KEPT):
            return bytes(len(section.contents))
        return section.contents
