# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Places in a dump file where a structure begins or ends, by what its headers say."""

from collections.abc import Iterator
import struct

from drgn_pmem.dumpfile import open_dump

__all__ = ("boundaries",)

_MOST = 400


def boundaries(path: str, size: int) -> list[int]:
    """
    Offsets at which structures begin or end, ascending.

    :param size: of the file, bytes
    """
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    if head.startswith(b"\x7fELF"):
        found = _elf(head)
    elif head.startswith(b"makedumpfile"):
        found = _flattened(path, size)
    else:
        found = _kdump(path)
    # A header's fields are 2, 4 or 8 bytes; what follows it is as large as the file says.
    places = {0, *range(4, 512, 8), *found, size - 1, size - 8}
    chosen = sorted(at for at in places if 0 <= at < size)
    return chosen[: _MOST // 2] + chosen[_MOST // 2 :][:: max(1, len(chosen) // (_MOST // 2))]


def _elf(head: bytes) -> Iterator[int]:
    order = "<" if head[5] == 1 else ">"
    table, count = struct.unpack_from(order + "Q", head, 32)[0], struct.unpack_from(
        order + "H", head, 56
    )[0]  # fmt: skip
    for number in range(min(count, 64)):
        at = table + 56 * number
        yield at
        if at + 56 <= len(head):
            _, _, offset, _, _, length, _, _ = struct.unpack_from(order + "IIQQQQQQ", head, at)
            yield from (offset, offset + length, offset + 12, offset + length // 2)


def _flattened(path: str, size: int) -> Iterator[int]:
    at = 4096
    with open(path, "rb") as file:
        while at < size:
            yield from (at, at + 8, at + 16)
            file.seek(at)
            record = file.read(16)
            length = int.from_bytes(record[8:16], "big", signed=True)
            if len(record) < 16 or length <= 0:
                return
            at += 16 + length


def _kdump(path: str) -> Iterator[int]:
    header = open_dump(path).kdump
    if header is None:
        return
    size = header.block_size
    bitmap = (1 + header.sub_header_blocks) * size
    pages = bitmap + header.bitmap_blocks * size
    for at in (size, bitmap, bitmap + size, (bitmap + pages) // 2, pages):
        yield from (at, at + 4, at + 8)
    for number in range(16):  # struct page_desc: offset, size, flags, page_flags
        yield from (pages + 24 * number, pages + 24 * number + 8, pages + 24 * number + 12)
    for start, length in (
        (header.offset_vmcoreinfo, header.size_vmcoreinfo),
        (header.offset_note, header.size_note),
        (header.offset_eraseinfo, header.size_eraseinfo),
    ):
        yield from (start, start + length)
