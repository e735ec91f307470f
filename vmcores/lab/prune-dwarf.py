#!/usr/bin/env python3
# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Cut out of a kernel's DWARF 5 what no memory analysis needs::

    prune-dwarf.py FILE OUTPUT [SOURCE...]

Types, global variables, functions and their parameters stay. What is inside functions (local
variables, blocks, inlined calls, call sites) and where in the source everything was declared goes:
two thirds of the debug info when packed. Stack traces keep their functions, not the inlined ones.
With SOURCEs (``mm/``: what the name of a source file begins with; ``fs/*.c``: of this folder only),
only the units of these files stay, without functions unless it ends with a ``+``, and of a module
(ET_REL) nothing but its debug info, symbols and the layout of its sections: for a distribution's
kernel, whose debug info is ten times that of a small one.

GCC's DWARF only (32-bit format), and the assembler's; anything else is an error. OBJCOPY names
another objcopy for a foreign machine.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

from dwarf import (
    FORM_IMPLICIT_CONST,
    FORM_REF4,
    FORM_REF_UDATA,
    FORM_STRP,
    STRING_SECTIONS,
    Strings,
    end_of,
    end_of_leb,
    read_leb,
    write_leb,
)
from relocatable import ET_REL, Relocatable, Relocation

SECTIONS = (".debug_info", ".debug_abbrev", ".debug_str", ".debug_line_str")
TAG_FORMAL_PARAMETER = 0x05
TAG_SUBPROGRAM = 0x2E
TAG_UNSPECIFIED_PARAMETERS = 0x18
AT_LOCATION = 0x02
AT_NAME = 0x03
AT_CONST_VALUE = 0x1C
# sibling, decl_column, decl_file, decl_line, frame_base, call_all_*, GNU_all_*, GNU_locviews
DROPPED_ATTRIBUTES = frozenset(
    {0x01, 0x39, 0x3A, 0x3B, 0x40, 0x7A, 0x7B, 0x7C, 0x2116, 0x2117, 0x2118, 0x2137}
)
DROPPED_WITH_RANGES = DROPPED_ATTRIBUTES | {0x55, 0x74}
"""ranges, rnglists_base: which code is of a unit; that of a distribution's kernel has many."""
DROPPED_WITH_FUNCTIONS = DROPPED_WITH_RANGES | {0x11, 0x12}
"""low_pc, high_pc"""


@dataclass
class Abbreviation:
    """How the entries of one code look, and what of them stays."""

    code: int
    tag: int
    children: bool
    attributes: list[tuple[int, int, bytes]]
    """Attribute, form, and the implicit constant as it is encoded."""
    dropped: frozenset[int] = DROPPED_ATTRIBUTES

    def keeps(self, attribute: int) -> bool:
        if self.tag == TAG_FORMAL_PARAMETER and attribute in (AT_LOCATION, AT_CONST_VALUE):
            return False
        return attribute not in self.dropped

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
                at = end_of_leb(data, at)
            if attribute == 0 and form == 0:
                break
            attributes.append((attribute, form, data[start:at]))
        table[code] = Abbreviation(code, tag, children, attributes)


def name_of_unit(
    data: bytes, at: int, table: dict[int, Abbreviation], sections: dict[str, bytes]
) -> str:
    """
    The source file of a unit.

    :param at: Its first entry.
    """
    code, at = read_leb(data, at)
    for attribute, form, _ in table[code].attributes:
        if attribute == AT_NAME:
            text, start = data, at
            if form in STRING_SECTIONS:
                start = int(struct.unpack_from("<I", data, at)[0])
                text = sections[STRING_SECTIONS[form]]
            return text[start : text.index(b"\0", start)].decode()
        at = end_of(data, form, at)
    return ""


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

    def __init__(
        self,
        data: bytes,
        start: int,
        end: int,
        table: dict[int, Abbreviation],
        strings: Strings,
        functions: bool,
        relocations: Sequence[Relocation],
    ) -> None:
        """
        :param relocations: Of .debug_info, by offset.
        """
        self._data = data
        self._start = start
        self._strings = strings
        self._functions = functions
        self._old_relocations = relocations
        self.relocations: list[Relocation] = []
        """Those that are left, by offset in the unit."""
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
                and (self._functions or abbreviation.tag != TAG_SUBPROGRAM)
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
        return end_of(self._data, form, at)

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
                    elif form == FORM_STRP:
                        old = struct.unpack_from("<I", data, at)[0]
                        out += struct.pack("<I", self._strings.move(old))
                    else:
                        self._move_relocations(at, after, len(out) - at)
                        out += data[at:after]
                at = after
            if entry.abbreviation.children:
                open_entries.append(number)
        out += bytes(len(open_entries))
        for place, old in self._references:
            struct.pack_into("<I", out, place, moved[old])

    def _move_relocations(self, start: int, end: int, by: int) -> None:
        """Those of [start, end), a value that is copied."""
        old = self._old_relocations
        for index in range(bisect_left(old, start, key=lambda item: item.offset), len(old)):
            if old[index].offset >= end:
                break
            self.relocations.append(replace(old[index], offset=old[index].offset + by))


def pattern(sources: Sequence[str]) -> re.Pattern[str]:
    """What the names of the units of these files match."""
    alternatives = (re.escape(source).replace(r"\*", "[^/]*") for source in sources)
    return re.compile("|".join(alternatives) if sources else r"(?!)")


def prune(
    sections: dict[str, bytes], sources: tuple[str, ...], relocations: Sequence[Relocation]
) -> tuple[dict[str, bytes], list[Relocation]]:
    """
    The new sections, and the relocations of .debug_info.

    :param sources: What the source files of the units that stay begin with; empty for all.
    """
    info, abbrev = sections[".debug_info"], sections[".debug_abbrev"]
    strings = Strings(sections[".debug_str"])
    new_relocations: list[Relocation] = []
    with_functions = pattern([source[:-1] for source in sources if source.endswith("+")])
    kept = pattern([source.removesuffix("+") for source in sources])
    tables: dict[int, tuple[dict[int, Abbreviation], int]] = {}
    new_info, new_abbrev = bytearray(), bytearray()
    at = 0
    while at < len(info):
        length, version, kind, address_size, offset = struct.unpack_from("<IHBBI", info, at)
        if length >= 0xFFFFFFF0 or version != 5 or kind != 1:
            raise SystemExit(f"prune-dwarf.py: unit at {at:#x} is not a 32-bit DWARF 5 one")
        start, at = at, at + 4 + length
        table, new_offset = tables.get(offset, ({}, 0))
        if not table:
            table = read_abbreviations(abbrev, offset)
        functions = True
        if sources:
            name = name_of_unit(info, start + Unit.HEADER, table, sections)
            if not kept.match(name):
                continue
            functions = with_functions.match(name) is not None
        if offset not in tables:
            new_offset = len(new_abbrev)
            tables[offset] = (table, new_offset)
            if sources:  # each unit has a table of its own
                dropped = DROPPED_WITH_RANGES if functions else DROPPED_WITH_FUNCTIONS
                for code, item in table.items():
                    table[code] = replace(item, dropped=dropped)
            for abbreviation in table.values():
                new_abbrev += abbreviation.encode()
            new_abbrev.append(0)
        unit = Unit(info, start, at, table, strings, functions, relocations)
        struct.pack_into(
            "<IHBBI", unit.out, 0, len(unit.out) - 4, version, kind, address_size, new_offset
        )
        new_relocations += [
            replace(item, offset=item.offset + len(new_info)) for item in unit.relocations
        ]
        new_info += unit.out
    new = {
        ".debug_info": bytes(new_info),
        ".debug_abbrev": bytes(new_abbrev),
        ".debug_str": bytes(strings.out),
    }
    return new, new_relocations


def prune_module(data: bytes, sources: tuple[str, ...]) -> bytes:
    """A module whose code and data are zeroes: a dump has them."""
    module = Relocatable(data)
    sections = {name: module.resolved(name) for name in SECTIONS}
    new, relocations = prune(sections, sources, module.relocations(".debug_info"))
    return module.rewritten(new, {".debug_info": relocations})


def prune_linked(source: str, target: str, sources: tuple[str, ...]) -> None:
    """By objcopy, which keeps the rest as it is."""
    objcopy = os.environ.get("OBJCOPY", "objcopy")
    with tempfile.TemporaryDirectory() as scratch:
        paths = {name: pathlib.Path(scratch) / name for name in SECTIONS}
        # --dump-section wants an output file; /dev/null would be replaced
        dump = [f"--dump-section={name}={path}" for name, path in paths.items()]
        subprocess.run([objcopy, *dump, source, f"{scratch}/copy"], check=True)
        new = prune({name: path.read_bytes() for name, path in paths.items()}, sources, ())[0]
        for name, section in new.items():
            paths[name].write_bytes(section)
        update = [f"--update-section={name}={paths[name]}" for name in new]
        subprocess.run([objcopy, *update, source, target], check=True)


def main() -> None:
    source, target, *sources = sys.argv[1:]
    with open(source, "rb") as file:
        header = file.read(20)
    if header[16:18] == ET_REL and not sources:
        raise SystemExit("prune-dwarf.py: of a module, say which SOURCEs stay")
    if header[16:18] == ET_REL:
        module = prune_module(pathlib.Path(source).read_bytes(), tuple(sources))
        pathlib.Path(target).write_bytes(module)
    else:
        prune_linked(source, target, tuple(sources))


if __name__ == "__main__":
    main()
