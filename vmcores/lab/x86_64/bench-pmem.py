#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
bench-pmem.py VMCORE NVDIMM: put the contents of an NVDIMM's file into the PT_LOADs of VMCORE that
are marked as persistent memory (p_flags & 0x10), in order. Holes stay holes.
"""

import errno
import os
import struct
import sys

PT_LOAD, PF_DEV = 1, 0x10
CHUNK = 1 << 20


def pmem_segments(header: bytes) -> list[tuple[int, int]]:
    """(file offset, bytes) of the segments of persistent memory."""
    offset, count = struct.unpack_from("<Q", header, 32)[0], struct.unpack_from("<H", header, 56)[0]
    found = []
    for i in range(count):
        kind, flags, at, _, physical, size, _, _ = struct.unpack_from(
            "<IIQQQQQQ", header, offset + 56 * i
        )
        if kind == PT_LOAD and flags & PF_DEV:
            found.append((physical, at, size))
    return [(at, size) for _, at, size in sorted(found)]


def copy(source: int, start: int, target: int, at: int, size: int) -> int:
    """Copy the data of a sparse file; return how much there was."""
    position, end, copied = start, start + size, 0
    while position < end:
        try:
            position = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        stop = min(os.lseek(source, position, os.SEEK_HOLE), end)
        while position < stop:
            data = os.pread(source, min(CHUNK, stop - position), position)
            os.pwrite(target, data, at + position - start)
            position += len(data)
            copied += len(data)
    return copied


def main() -> None:
    target = os.open(sys.argv[1], os.O_RDWR)
    source = os.open(sys.argv[2], os.O_RDONLY)
    segments = pmem_segments(os.pread(target, 1 << 16, 0))
    if not segments:
        sys.exit("no PT_LOAD of persistent memory: the kernel has no PF_DEV patch?")
    start = 0
    for at, size in segments:
        print(f"{copy(source, start, target, at, size)} bytes of persistent memory at {at:#x}")
        start += size
    os.truncate(target, max(at + size for at, size in segments))


main()
