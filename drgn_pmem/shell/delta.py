# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Dumps as what differs from others
---------------------------------

The formats of a sample hold the same memory, and crashes of one guest share the kernel and the
programs in its page cache. So a sample's file may be a *delta* against other samples' files, its
*bases*: :data:`MAGIC`, the SHA-256 of the resulting file, and records until the end. A record
is :data:`RECORD`: its :class:`Kind`, the number of the base, the bytes it makes, and the offset in
the base; LITERAL and XOR are followed by that many bytes. ``vmcores/lab/delta.py`` writes it.
"""

from collections.abc import Iterator, Sequence
import enum
import hashlib
import os
import struct
from typing import IO, Protocol

from drgn_pmem.errors import FormatError

__all__ = ("LONGEST", "MAGIC", "RECORD", "Kind", "read_delta", "xor")

MAGIC = b"PMEMDLT\x01"
RECORD = struct.Struct("<BB6xQQ")
LONGEST = 1 << 20
"""Bytes that follow a record at most: a reader holds them in memory."""


class Kind(enum.IntEnum):
    """Where the bytes of a record come from."""

    COPY = 0
    """A base."""
    ZEROES = 1
    LITERAL = 2
    """The record itself."""
    XOR = 3
    """A base, each byte XORed with one of the record."""


class Stream(Protocol):
    """What a delta is read from."""

    def read(self, size: int, /) -> bytes: ...


def xor(left: bytes, right: bytes) -> bytes:
    """XOR of two byte strings of one length."""
    number = int.from_bytes(left, "little") ^ int.from_bytes(right, "little")
    return number.to_bytes(len(left), "little")


def read_delta(stream: Stream, bases: Sequence[IO[bytes]], size: int) -> Iterator[bytes]:
    """
    The file that a delta makes, in pieces of at most :data:`LONGEST` bytes.

    :param size: Bytes that are to come out.
    :raises FormatError: if the stream is no delta, asks for what its bases do not have, or makes
        anything but the promised file; what was yielded until then must be discarded
    """
    head = _take(stream, len(MAGIC) + hashlib.sha256().digest_size)
    if not head.startswith(MAGIC):
        raise FormatError("not a delta")
    digest = hashlib.sha256()
    made = 0
    while record := stream.read(RECORD.size):
        if len(record) != RECORD.size:
            raise FormatError("ends within a record")
        number, base, length, offset = RECORD.unpack(record)
        if not 0 < length <= size - made:
            raise FormatError(f"record of {length} bytes at {made:#x} of {size:#x}")
        for piece in _pieces(stream, number, bases[base : base + 1], length, offset):
            digest.update(piece)
            made += len(piece)
            yield piece
    if made != size:
        raise FormatError(f"makes {made} bytes, not {size}")
    if digest.digest() != head[len(MAGIC) :]:
        raise FormatError("does not make the file it was made from: it has another base")


def _pieces(
    stream: Stream, kind: int, base: Sequence[IO[bytes]], length: int, offset: int
) -> Iterator[bytes]:
    """
    The bytes of one record.

    :param base: The base that it names, or nothing.
    """
    if kind in (Kind.LITERAL, Kind.XOR) and length > LONGEST:
        raise FormatError(f"record with {length} bytes of its own")
    if kind in (Kind.COPY, Kind.XOR):
        if not base:
            raise FormatError("record of a base that there is not")
        if offset + length > base[0].seek(0, os.SEEK_END):
            raise FormatError(f"{length} bytes at {offset:#x}: the base ends before")
    if kind == Kind.LITERAL:
        yield _take(stream, length)
    elif kind == Kind.XOR:
        changes = _take(stream, length)
        yield xor(changes, _at(base[0], offset, length))
    elif kind in (Kind.COPY, Kind.ZEROES):
        for start in range(0, length, LONGEST):
            count = min(LONGEST, length - start)
            yield bytes(count) if kind == Kind.ZEROES else _at(base[0], offset + start, count)
    else:
        raise FormatError(f"record of kind {kind}")


def _take(stream: Stream, length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise FormatError("ends within a record")
    return data


def _at(base: IO[bytes], offset: int, length: int) -> bytes:
    base.seek(offset)
    return _take(base, length)
