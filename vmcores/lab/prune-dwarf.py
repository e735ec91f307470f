#!/usr/bin/env python3
# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Cut out of a vmlinux's DWARF 5 what no memory analysis needs: ``prune-dwarf.py VMLINUX OUTPUT``.

Types, global variables, functions and their parameters stay. What is inside functions (local
variables, blocks, inlined calls, call sites) and where in the source everything was declared goes:
two thirds of the debug info when packed. Stack traces keep their functions, not the inlined ones.

GCC's DWARF only (32-bit format), and the assembler's; anything else is an error. OBJCOPY names
another objcopy for a foreign machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

TAG_FORMAL_PARAMETER = 0x05
TAG_SUBPROGRAM = 0x2E
TAG_UNSPECIFIED_PARAMETERS = 0x18
AT_LOCATION = 0x02
AT_CONST_VALUE = 0x1C
# sibling, decl_column, decl_file, decl_line, frame_base, call_all_*, GNU_all_*, GNU_locviews
DROPPED_ATTRIBUTES = frozenset(
    {0x01, 0x39, 0x3A, 0x3B, 0x40, 0x7A, 0x7B, 0x7C, 0x2116, 0x2117, 0x2118, 0x2137}
)
FORM_IMPLICIT_CONST = 0x21
FORM_REF4 = 0x13
FORM_REF_UDATA = 0x15
# form -> bytes: addr, data2, data4, data8, data1, flag, strp, sec_offset, flag_present, ref_sig8,
# data16, line_strp, implicit_const, ref4
FIXED_SIZES = {
    0x01: 8, 0x05: 2, 0x06: 4, 0x07: 8, 0x0B: 1, 0x0C: 1, 0x0E: 4, 0x17: 4, 0x19: 0, 0x20: 8,
    0x1E: 16, 0x1F: 4, FORM_IMPLICIT_CONST: 0, FORM_REF4: 4,
}  # fmt: skip


def read_leb(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 and where it ends; for a signed one, only the end is right."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def write_leb(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _end_of_string(data: bytes, at: int) -> int:
    return data.index(b"\0", at) + 1


def _end_of_leb(data: bytes, at: int) -> int:
    return read_leb(data, at)[1]


def _end_of_block(data: bytes, at: int) -> int:
    length, start = read_leb(data, at)
    return start + length


def _end_of_block1(data: bytes, at: int) -> int:
    return at + 1 + data[at]


def _end_of_block2(data: bytes, at: int) -> int:
    return at + 2 + int(struct.unpack_from("<H", data, at)[0])


# form -> end: string, block, block1, block2, sdata, udata, ref_udata, exprloc, loclistx, rnglistx
VARIABLE_SIZES: dict[int, Callable[[bytes, int], int]] = {
    0x08: _end_of_string, 0x09: _end_of_block, 0x0A: _end_of_block1, 0x03: _end_of_block2,
    0x0D: _end_of_leb, 0x0F: _end_of_leb, FORM_REF_UDATA: _end_of_leb, 0x18: _end_of_block,
    0x22: _end_of_leb, 0x23: _end_of_leb,
}  # fmt: skip


@dataclass
class Abbreviation:
    """How the entries of one code look, and what of them stays."""

    code: int
    tag: int
    children: bool
    attributes: list[tuple[int, int, bytes]]
    """Attribute, form, and the implicit constant as it is encoded."""

    def keeps(self, attribute: int) -> bool:
        if self.tag == TAG_FORMAL_PARAMETER and attribute in (AT_LOCATION, AT_CONST_VALUE):
            return False
        return attribute not in DROPPED_ATTRIBUTES

    def encode(self) -> bytes:
        out = bytearray(write_leb(self.code) + write_leb(self.tag) + bytes([self.children]))
        for attribute, form, constant in self.attributes:
            if self.keeps(attribute):
                # a reference gets the size that any new place fits into
                new_form = FORM_REF4 if form == FORM_REF_UDATA else form
                out += write_leb(attribute) + write_leb(new_form) + constant
        return bytes(out + b"\0\0")


def read_abbreviations(data: bytes, at: int) -> dict[int, Abbreviation]:
    table: dict[int, Abbreviation] = {}
    while True:
        code, at = read_leb(data, at)
        if code == 0:
            return table
        tag, at = read_leb(data, at)
        children = data[at] != 0
        at += 1
        attributes = []
        while True:
            attribute, at = read_leb(data, at)
            form, at = read_leb(data, at)
            start = at
            if form == FORM_IMPLICIT_CONST:
                at = _end_of_leb(data, at)
            if attribute == 0 and form == 0:
                break
            attributes.append((attribute, form, data[start:at]))
        table[code] = Abbreviation(code, tag, children, attributes)


@dataclass
class Entry:
    """A debugging information entry: where it lies, and whether it stays."""

    offset: int
    """In its unit, as references count."""
    abbreviation: Abbreviation
    attributes: int
    """Where its attributes start in .debug_info."""
    parent: int
    """Index of the entry around it; -1 for the unit itself."""
    kept: bool


class Unit:
    """One unit of .debug_info, pruned."""

    HEADER = 12

    def __init__(self, data: bytes, start: int, end: int, table: dict[int, Abbreviation]) -> None:
        self._data = data
        self._start = start
        self._entries: list[Entry] = []
        self._read(start + self.HEADER, end, table)
        self._keep_what_is_referred_to()
        self.out = bytearray(self.HEADER)
        self._references: list[tuple[int, int]] = []
        self._write()

    def _read(self, at: int, end: int, table: dict[int, Abbreviation]) -> None:
        """All entries; what is inside functions does not stay, parameters apart."""
        entries, data = self._entries, self._data
        open_entries: list[int] = []
        while at < end:
            offset = at - self._start
            code, at = read_leb(data, at)
            if code == 0:
                if open_entries:
                    open_entries.pop()
                continue
            abbreviation = table[code]
            parent = open_entries[-1] if open_entries else -1
            kept = parent < 0 or (
                entries[parent].kept
                and (
                    entries[parent].abbreviation.tag != TAG_SUBPROGRAM
                    or abbreviation.tag in (TAG_FORMAL_PARAMETER, TAG_UNSPECIFIED_PARAMETERS)
                )
            )
            entries.append(Entry(offset, abbreviation, at, parent, kept))
            if abbreviation.children:
                open_entries.append(len(entries) - 1)
            for _, form, _ in abbreviation.attributes:
                at = self._end(form, at)

    def _end(self, form: int, at: int) -> int:
        size = FIXED_SIZES.get(form)
        if size is not None:
            return at + size
        if form not in VARIABLE_SIZES:
            raise SystemExit(f"prune-dwarf.py: form {form:#x} is not known")
        return VARIABLE_SIZES[form](self._data, at)

    def _referred_to(self, entry: Entry) -> Iterator[int]:
        at = entry.attributes
        for attribute, form, _ in entry.abbreviation.attributes:
            if form in (FORM_REF4, FORM_REF_UDATA) and entry.abbreviation.keeps(attribute):
                yield self._target(form, at)
            at = self._end(form, at)

    def _target(self, form: int, at: int) -> int:
        if form == FORM_REF4:
            return int(struct.unpack_from("<I", self._data, at)[0])
        return read_leb(self._data, at)[0]

    def _keep_what_is_referred_to(self) -> None:
        """A type declared in a function may be used outside: it stays, with its members."""
        entries = self._entries
        index = {entry.offset: number for number, entry in enumerate(entries)}
        members: dict[int, list[int]] = {}
        for number, entry in enumerate(entries):
            if not entry.kept:
                members.setdefault(entry.parent, []).append(number)
        todo = [number for number, entry in enumerate(entries) if entry.kept]
        while todo:
            for offset in self._referred_to(entries[todo.pop()]):
                missing = index[offset]
                if entries[missing].kept:
                    continue
                subtree = [missing]
                while subtree:
                    number = subtree.pop()
                    if not entries[number].kept:
                        entries[number].kept = True
                        todo.append(number)
                    subtree += members.get(number, ())
                around = entries[missing].parent
                while around >= 0 and not entries[around].kept:
                    entries[around].kept = True
                    todo.append(around)
                    around = entries[around].parent

    def _write(self) -> None:
        out, entries, data = self.out, self._entries, self._data
        moved: dict[int, int] = {}
        open_entries: list[int] = []
        for number, entry in enumerate(entries):
            if not entry.kept:
                continue
            while open_entries and open_entries[-1] != entry.parent:
                open_entries.pop()
                out.append(0)
            moved[entry.offset] = len(out)
            out += write_leb(entry.abbreviation.code)
            at = entry.attributes
            for attribute, form, _ in entry.abbreviation.attributes:
                after = self._end(form, at)
                if entry.abbreviation.keeps(attribute):
                    if form in (FORM_REF4, FORM_REF_UDATA):
                        # its new place is known at the end
                        self._references.append((len(out), self._target(form, at)))
                        out += bytes(4)
                    else:
                        out += data[at:after]
                at = after
            if entry.abbreviation.children:
                open_entries.append(number)
        out += bytes(len(open_entries))
        for place, old in self._references:
            struct.pack_into("<I", out, place, moved[old])


def prune(info: bytes, abbrev: bytes) -> tuple[bytes, bytes]:
    """New .debug_info and .debug_abbrev."""
    tables: dict[int, tuple[dict[int, Abbreviation], int]] = {}
    new_info, new_abbrev = bytearray(), bytearray()
    at = 0
    while at < len(info):
        length, version, kind, address_size, offset = struct.unpack_from("<IHBBI", info, at)
        if length >= 0xFFFFFFF0 or version != 5 or kind != 1:
            raise SystemExit(f"prune-dwarf.py: unit at {at:#x} is not a 32-bit DWARF 5 one")
        if offset not in tables:
            table = read_abbreviations(abbrev, offset)
            tables[offset] = (table, len(new_abbrev))
            for abbreviation in table.values():
                new_abbrev += abbreviation.encode()
            new_abbrev.append(0)
        table, new_offset = tables[offset]
        unit = Unit(info, at, at + 4 + length, table)
        struct.pack_into(
            "<IHBBI", unit.out, 0, len(unit.out) - 4, version, kind, address_size, new_offset
        )
        new_info += unit.out
        at += 4 + length
    return bytes(new_info), bytes(new_abbrev)


def main() -> None:
    source, target = sys.argv[1:]
    objcopy = os.environ.get("OBJCOPY", "objcopy")
    with tempfile.TemporaryDirectory() as scratch:
        parts = {name: pathlib.Path(scratch) / name for name in (".debug_info", ".debug_abbrev")}
        # --dump-section wants an output file; /dev/null would be replaced
        dump = [f"--dump-section={name}={path}" for name, path in parts.items()]
        subprocess.run([objcopy, *dump, source, f"{scratch}/copy"], check=True)
        info, abbrev = prune(parts[".debug_info"].read_bytes(), parts[".debug_abbrev"].read_bytes())
        parts[".debug_info"].write_bytes(info)
        parts[".debug_abbrev"].write_bytes(abbrev)
        update = [f"--update-section={name}={path}" for name, path in parts.items()]
        subprocess.run([objcopy, *update, source, target], check=True)


if __name__ == "__main__":
    main()
