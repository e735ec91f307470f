# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
A kdump-compressed dump with another compression: ``python -m bench.recompress DUMP NEW
COMPRESSION``. Not every makedumpfile was built with snappy and zstd; the file is what one that was
would write: the same headers, bitmaps and pages, each compressed anew, or stored where that is no
shorter. makedumpfile's one page of zeroes, which all such pages share, stays as it is.
"""

from collections.abc import Callable, Iterator
import mmap
import os
from pathlib import Path
import struct
import sys

from drgn_pmem.dumpfile import open_dump
from drgn_pmem.dumpfile.bitmap import COMPRESSION
from drgn_pmem.dumpfile.decompress import decompress

__all__ = ("recompress",)

_DESCRIPTOR = struct.Struct("<QIIQ")
_STATUS = 424
"""Offset of ``status`` in struct disk_dump_header of a 64-bit machine."""
_FLAGS = {name: flag for flag, name in COMPRESSION.items()}


def compressor(how: str) -> Callable[[bytes], bytes]:
    """Compresses one page as makedumpfile does."""
    if how == "zlib":
        import zlib

        return lambda page: zlib.compress(page, 1)
    if how == "lzo":
        from lzallright import LZOCompressor

        lzo = LZOCompressor()
        return lambda page: lzo.compress(page)
    if how == "snappy":
        from cramjam import snappy

        return lambda page: bytes(snappy.compress_raw(page))
    from zstandard import ZstdCompressor

    zstd = ZstdCompressor(level=1)
    return lambda page: zstd.compress(page)


def recompress(source: Path, target: Path, how: str) -> None:
    """
    Write a dump anew.

    :param how: ``"zlib"``, ``"lzo"``, ``"snappy"`` or ``"zstd"``.
    """
    dump = open_dump(source)
    header = dump.kdump
    assert header is not None
    assert dump.byteorder == "little"
    assert dump.bits == 64
    start = (1 + header.sub_header_blocks + header.bitmap_blocks) * header.block_size
    pages = sum(dump.coverage.count()[s] for s in dump.coverage.count() if s.value == "saved")
    count = pages // header.block_size
    compress = compressor(how)
    done: dict[tuple[int, bytes], tuple[int, bytes]] = {}

    def again(flags: int, raw: bytes) -> tuple[int, bytes]:
        key = flags, raw
        if key not in done:
            old = next((name for flag, name in COMPRESSION.items() if flags & flag), None)
            page = raw if old is None else decompress(old, raw, header.block_size)
            new = compress(page)
            if len(done) > 1 << 16:
                done.clear()
            short = len(new) < len(page)
            done[key] = (_FLAGS[how], new) if short else (0, page)
        return done[key]

    with open(source, "rb") as file, open(target, "wb") as out:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        head = bytearray(data[:start])
        status = struct.unpack_from("<I", head, _STATUS)[0]
        struct.pack_into("<I", head, _STATUS, status & ~sum(COMPRESSION) | _FLAGS[how])
        out.write(head)
        out.write(bytes(count * _DESCRIPTOR.size))
        table = bytearray()
        first = start + count * _DESCRIPTOR.size
        zeroes = data[first : first + header.block_size]
        shared = len(zeroes) == header.block_size and not any(zeroes)
        if shared:
            out.write(zeroes)
        for offset, size, flags, page_flags in _descriptors(data, start, count):
            if shared and offset == first:
                table += _DESCRIPTOR.pack(first, size, flags, page_flags)
                continue
            kind, new = again(flags, bytes(data[offset : offset + size]))
            table += _DESCRIPTOR.pack(out.tell(), len(new), kind, page_flags)
            out.write(new)
        out.seek(start)
        out.write(table)
        data.close()


def _descriptors(data: mmap.mmap, start: int, count: int) -> Iterator[tuple[int, int, int, int]]:
    for number in range(count):
        yield _DESCRIPTOR.unpack_from(data, start + number * _DESCRIPTOR.size)


if __name__ == "__main__":
    new = Path(sys.argv[2])
    part = new.with_name(new.name + ".part")
    recompress(Path(sys.argv[1]), part, sys.argv[3])
    os.replace(part, new)
