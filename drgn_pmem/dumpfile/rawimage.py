# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Raw images of memory
--------------------

Files that hold nothing but memory, as hypervisors, cloud providers and phones write them: the byte
at offset N of ``FILE@ADDRESS`` is that at physical address ADDRESS + N. The files do not say so;
the user does. Several images are one dump, as several ``PT_LOAD`` headers are.
"""

from collections.abc import Sequence
import functools
from itertools import pairwise
import os
import re
from typing import TYPE_CHECKING

import numpy as np

from drgn_pmem.dumpfile.records import DumpFile, DumpFormat
from drgn_pmem.dumpfile.segments import PHYSICAL_BITS, ElfMemory, Pieces, SegmentTable, elf_coverage
from drgn_pmem.dumpfile.source import FileSource
from drgn_pmem.errors import UsageError

if TYPE_CHECKING:
    from drgn_pmem.ranges import U64

__all__ = ("MAX_IMAGES", "open_images", "split_image")

MAX_IMAGES = 1 << 10

_NAME = re.compile(r"(.+)@(0x[0-9a-f]+|[0-9]+)", re.IGNORECASE | re.DOTALL)
_ROW = np.dtype(
    [
        (name, "<u8")
        for name in ("p_type", "p_flags", "p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz")
    ]
)


def split_image(name: str) -> tuple[str, int] | None:
    """Path and physical address (bytes) of ``FILE@ADDRESS``; None for any other name, and for one
    that is a file."""
    found = _NAME.fullmatch(name)
    if found is None or os.path.exists(name):
        return None
    return found[1], int(found[2], 0 if found[2][:2].lower() == "0x" else 10)


class _Images:
    """Several files as one after the other."""

    complete = True
    in_order = True

    def __init__(self, path: str, files: Sequence[FileSource]) -> None:
        self.path = path
        self._files = files
        self._ends = np.cumsum([file.size for file in files], dtype=np.uint64)
        self._starts = self._ends - np.array([file.size for file in files], np.uint64)
        self.size = int(self._ends[-1])

    def _file(self, offset: int) -> tuple[FileSource, int]:
        number = int(np.searchsorted(self._ends, np.uint64(offset), side="right"))
        return self._files[number], offset - int(self._starts[number])

    def read(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        while 0 <= offset < self.size and size > 0:
            file, place = self._file(offset)
            part = file.read(place, size)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def room(self, offsets: "U64") -> "U64":
        end = np.uint64(self.size)
        return end - np.minimum(offsets, end)

    def next_data(self, offset: int) -> int:
        if offset >= self.size:
            return self.size
        file, place = self._file(offset)
        return offset + file.next_data(place) - place


def open_images(images: Sequence[tuple[str, int]]) -> DumpFile:
    """
    Open raw images of memory as one dump.

    :param images: Path and physical address (bytes) of each.
    :raises DumpFileError: if a file cannot be read
    :raises UsageError: if two overlap, or one is beyond what physical memory can be
    """
    if len(images) > MAX_IMAGES:
        raise UsageError(f"{len(images)} images of memory; at most {MAX_IMAGES} are read")
    images = sorted(images, key=lambda image: image[1])
    files = [FileSource(path) for path, _ in images]
    for (path, address), file in zip(images, files, strict=True):
        if address + file.size > 1 << PHYSICAL_BITS:
            raise UsageError(f"{path}@{address:#x}: no physical memory has such an address")
    for (one, start, size), (other, next_start, _) in pairwise(
        (path, address, file.size) for (path, address), file in zip(images, files, strict=True)
    ):
        if start + size > next_start:
            raise UsageError(
                f"{one}@{start:#x} ends at {start + size:#x} and overlaps {other}@{next_start:#x}"
            )
    source = _Images(" ".join(f"{path}@{address:#x}" for path, address in images), files)
    table = np.zeros(len(images), _ROW)
    table["p_paddr"] = [address for _, address in images]
    table["p_filesz"] = table["p_memsz"] = [file.size for file in files]
    table["p_offset"] = source._starts
    pieces = Pieces.physical(SegmentTable(table, np.arange(len(images)), 64), 64)
    what = "raw image of memory" if len(images) == 1 else f"{len(images)} raw images of memory"
    return DumpFile.without_headers(
        source.path,
        DumpFormat.IMAGE,
        what,
        functools.partial(elf_coverage, source, pieces),
        memory_builder=functools.partial(ElfMemory, source, pieces),
        source=source,
        hypervisor=True,
        size_of_files=sum(file.size for file in files),
    )
