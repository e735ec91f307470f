# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Values of DWARF 5 as GCC and the assembler write them (32-bit format): where each ends."""

from collections.abc import Callable
import struct

__all__ = (
    "FORM_IMPLICIT_CONST",
    "FORM_REF4",
    "FORM_REF_UDATA",
    "FORM_STRP",
    "STRING_SECTIONS",
    "Strings",
    "end_of",
    "end_of_leb",
    "read_leb",
    "write_leb",
)

FORM_IMPLICIT_CONST = 0x21
FORM_STRP = 0x0E
FORM_LINE_STRP = 0x1F
FORM_REF4 = 0x13
STRING_SECTIONS = {FORM_STRP: ".debug_str", FORM_LINE_STRP: ".debug_line_str"}
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


def end_of_string(data: bytes, at: int) -> int:
    return data.index(b"\0", at) + 1


def end_of_leb(data: bytes, at: int) -> int:
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
    0x08: end_of_string, 0x09: _end_of_block, 0x0A: _end_of_block1, 0x03: _end_of_block2,
    0x0D: end_of_leb, 0x0F: end_of_leb, FORM_REF_UDATA: end_of_leb, 0x18: _end_of_block,
    0x22: end_of_leb, 0x23: end_of_leb,
}  # fmt: skip


def end_of(data: bytes, form: int, at: int) -> int:
    """Where a value ends."""
    size = FIXED_SIZES.get(form)
    if size is not None:
        return at + size
    if form not in VARIABLE_SIZES:
        raise SystemExit(f"DWARF: form {form:#x} is not known")
    return VARIABLE_SIZES[form](data, at)


class Strings:
    """.debug_str, and what of it is still referred to."""

    def __init__(self, old: bytes) -> None:
        self._old = old
        self._moved: dict[int, int] = {}
        self.out = bytearray()

    def move(self, offset: int) -> int:
        """Where the string is that was at an offset."""
        if offset not in self._moved:
            self._moved[offset] = len(self.out)
            self.out += self._old[offset : end_of_string(self._old, offset)]
        return self._moved[offset]
