# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The log of kernels before 5.10: records in a buffer that wraps."""

import struct
from typing import Any

from drgn import Object, Program, Type, TypeKind, TypeKindSet, TypeMember
from drgn.helpers.linux.printk import get_printk_records
import pytest

from drgn_pmem.kernel.kernellog import _check_buffer
from drgn_pmem.partial import WalkError

from ...synthetic import kernel

BUFFER = 0xFFFF888012340000
LENGTH = 512
HEADER = 16


def record(text: bytes, length: int | None = None, text_len: int | None = None) -> bytes:
    size = -(-(HEADER + len(text)) // 8) * 8 if length is None else length
    used = len(text) if text_len is None else text_len
    head = struct.pack("<QHHHBB", 1_000_000_000, size, used, 0, 0, 6)
    return (head + text).ljust(size, b"\0")


class Log:
    """A program whose log is this."""

    def __init__(self, records: list[bytes], first: int = 0, last: int | None = None) -> None:
        data = b"".join(records)
        self.data = data.ljust(LENGTH, b"\xff")
        self.indexes = {"log_first_idx": first, "log_next_idx": len(data) if last is None else last}
        self.prog: Program = kernel("", {})
        self.prog.add_memory_segment(BUFFER, LENGTH, self._read, False)
        self.prog.register_object_finder("log", self._object, enable_index=0)
        self.prog.register_type_finder("log", self._type, enable_index=0)

    def _read(self, _: int, count: int, offset: int, physical: bool) -> bytes:
        return self.data[offset : offset + count]

    def _int(self, size: int) -> Type:
        return self.prog.int_type(f"u{8 * size}", size, False, "little")

    def _object(self, prog: Program, name: str, flags: Any, filename: str | None) -> Object | None:
        if name == "log_buf":
            char = prog.int_type("char", 1, True, "little")
            return Object(prog, prog.pointer_type(char, 8, "little"), BUFFER)
        values = {"log_buf_len": LENGTH, "LOG_CONT": 8, "log_first_seq": 0, **self.indexes}
        return Object(prog, self._int(4), values[name]) if name in values else None

    def _type(
        self, prog: Program, kinds: TypeKindSet, name: str, filename: str | None
    ) -> Type | None:
        if name != "printk_log" or TypeKind.STRUCT not in kinds:
            return None
        sizes = {"ts_nsec": 8, "len": 2, "text_len": 2, "dict_len": 2, "facility": 1, "flags": 1}
        members, at = [], 0
        for member, size in sizes.items():
            members.append(TypeMember(self._int(size), member, 8 * at))
            at += size
        members.append(TypeMember(self._int(1), "level", 8 * (at - 1)))
        return prog.struct_type("printk_log", HEADER, members)


WRAPPED = [record(b"third"), record(b"old" * 20), record(b"first"), record(b"second"), bytes(16)]


def test_a_log_that_wraps_is_read() -> None:
    first = sum(map(len, WRAPPED[:2]))
    log = Log(WRAPPED, first, len(WRAPPED[0]))
    _check_buffer(log.prog)
    texts = [item.text for item in get_printk_records(log.prog) if item.text]
    assert texts == [b"first", b"second", b"third"]


@pytest.mark.parametrize(
    ("records", "first", "last", "why"),
    [
        ([record(b"one", length=1)], 0, 400, "a record of 1 bytes at 0"),
        ([record(b"one", text_len=60000)], 0, None, "a record of 24 bytes at 0"),
        ([record(b"one"), bytes(HEADER)], 0, 400, "it wraps at 24, and ends at 400"),
        ([record(b"one")], 0, LENGTH + 8, "a record of 65535 bytes at 24"),
        ([record(b"x" * 490)], 0, LENGTH + 8, f"a record at 512 of {LENGTH} bytes"),
        (WRAPPED, sum(map(len, WRAPPED[:2])), 20, "a record of 24 bytes at 0"),
    ],
)
def test_a_log_without_an_end_is_not_read(
    records: list[bytes], first: int, last: int | None, why: str
) -> None:
    """drgn would go on reading behind the buffer."""
    with pytest.raises(WalkError, match=why):
        _check_buffer(Log(records, first, last).prog)
