#!/usr/bin/env python3
# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Write a dump as what differs from others.

``delta.py TARGET DELTA BASE...``. The stream is described in ``drgn_pmem/shell/delta.py``, which
reads it. Memory is compared page by page: the files are ELF, and their pages start where their
PT_LOADs start in the file. A page of the target is zeroes, or a page that a base has anywhere (two
dumps lay out the same memory differently), or what differs from the first base's page at the same
physical address, or bytes of its own.
"""

from collections.abc import Iterator, Sequence
import contextlib
import hashlib
import mmap
import pathlib
import struct
import sys
from typing import BinaryIO, NamedTuple
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from drgn_pmem.shell.delta import LONGEST, MAGIC, RECORD, Kind, xor

PAGE = 4096


class Load(NamedTuple):
    """A PT_LOAD's place in the file and in memory."""

    offset: int
    physical: int
    size: int


def loads(data: mmap.mmap) -> list[Load]:
    """The PT_LOADs of a little-endian ELF64 file that have bytes in it, in file order."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise SystemExit("delta.py: not a little-endian ELF64 file")
    (table,) = struct.unpack_from("<Q", data, 32)
    entry_size, count = struct.unpack_from("<HH", data, 54)
    found = []
    for index in range(count):
        kind, _, offset, _, physical, size = struct.unpack_from(
            "<IIQQQQ", data, table + index * entry_size
        )
        if kind == 1 and size:
            found.append(Load(offset, physical, size))
    return sorted(found)


def pages(data: mmap.mmap) -> Iterator[tuple[int, int, int | None]]:
    """Every piece of a file, in order: offset, size, and physical address if it is memory."""
    position = 0

    def between(end: int) -> Iterator[tuple[int, int, None]]:
        for start in range(position, end, PAGE):
            yield start, min(PAGE, end - start), None

    for load in loads(data):
        if load.offset < position:  # the same bytes again
            continue
        yield from between(load.offset)
        position = min(load.offset + load.size, len(data))
        for start in range(load.offset, position, PAGE):
            yield start, min(PAGE, position - start), load.physical + start - load.offset
    yield from between(len(data))


class Place(NamedTuple):
    """Where a page lies in the bases."""

    base: int
    offset: int


class Bases:
    """The dumps that the target is stored as a difference from."""

    def __init__(self, files: Sequence[mmap.mmap]) -> None:
        self._files = files
        self._by_contents: dict[bytes, Place] = {}
        self._by_address: dict[int, Place] = {}
        for base, data in enumerate(files):
            for offset, size, physical in pages(data):
                page = data[offset : offset + size]
                if page.count(0) == size:
                    continue
                place = Place(base, offset)
                self._by_contents.setdefault(_digest(page), place)
                if physical is not None and base == 0:
                    self._by_address[physical] = place

    def read(self, place: Place, size: int) -> bytes:
        return self._files[place.base][place.offset : place.offset + size]

    def find(self, page: bytes, expected: Place | None) -> Place | None:
        """
        Where a page of these contents is.

        :param expected: Where it would make the record before longer.
        """
        if expected is not None and self.read(expected, len(page)) == page:
            return expected
        return self._by_contents.get(_digest(page))

    def at(self, physical: int | None) -> Place | None:
        """The page at an address, unless it is zeroes."""
        return None if physical is None else self._by_address.get(physical)


def _digest(page: bytes) -> bytes:
    return hashlib.blake2b(page, digest_size=16).digest()


class Writer:
    """Joins what goes on where the record before ended."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._kind, self._place, self._length = Kind.ZEROES, Place(0, 0), 0
        self._bytes = bytearray()

    @property
    def expected(self) -> Place | None:
        """Where in the bases the record would go on."""
        if self._kind not in (Kind.COPY, Kind.XOR):
            return None
        return Place(self._place.base, self._place.offset + self._length)

    def add(self, kind: Kind, length: int, place: Place | None = None, data: bytes = b"") -> None:
        goes_on = kind == self._kind and place == self.expected
        if not goes_on or len(self._bytes) + len(data) > LONGEST:
            self.flush()
            self._kind, self._place = kind, place or Place(0, 0)
        self._length += length
        self._bytes += data

    def flush(self) -> None:
        if self._length:
            self._out.write(
                RECORD.pack(self._kind, self._place.base, self._length, self._place.offset)
            )
            self._out.write(self._bytes)
        self._length = 0
        self._bytes.clear()


def write_delta(
    target_path: pathlib.Path, out: BinaryIO, base_paths: Sequence[pathlib.Path]
) -> None:
    """Write the stream that makes the target out of the bases."""
    with contextlib.ExitStack() as stack:

        def read(path: pathlib.Path) -> mmap.mmap:
            file = stack.enter_context(path.open("rb"))
            return stack.enter_context(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))

        bases = Bases([read(path) for path in base_paths])
        target = read(target_path)
        out.write(MAGIC + hashlib.sha256(target).digest())
        writer = Writer(out)
        for offset, size, physical in pages(target):
            _write_page(writer, bases, target[offset : offset + size], physical)
        writer.flush()


def _write_page(writer: Writer, bases: Bases, page: bytes, physical: int | None) -> None:
    size = len(page)
    if page.count(0) == size:
        writer.add(Kind.ZEROES, size)
        return
    same = bases.find(page, writer.expected)
    if same is not None:
        writer.add(Kind.COPY, size, same)
        return
    before = bases.at(physical)
    other = b"" if before is None else bases.read(before, size)
    if before is not None and len(other) == size:
        changes = xor(page, other)
        if len(zlib.compress(changes)) < len(zlib.compress(page)):
            writer.add(Kind.XOR, size, before, changes)
            return
    writer.add(Kind.LITERAL, size, None, page)


def main() -> None:
    target, delta, *bases = map(pathlib.Path, sys.argv[1:])
    with delta.open("wb") as out:
        write_delta(target, out, bases)


if __name__ == "__main__":
    main()
