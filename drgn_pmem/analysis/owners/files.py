# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
DAX files in numbers
--------------------

What ``pmem-files`` and ``pmem-file`` show: each DAX file with its pages, and from a file's offset
to the PFN.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from drgn import Program
import numpy as np

from drgn_pmem.analysis.owners.daxfiles import DaxFile, DaxFiles, dax_files_of
from drgn_pmem.errors import NotFound, PmemError, UsageError
from drgn_pmem.kernel.daxchar import DaxChar
from drgn_pmem.kernel.daxfs import device_number
from drgn_pmem.kernel.namespace import Namespace, find_namespace, for_each_namespace
from drgn_pmem.kernel.rmap import vmas_of_mapping
from drgn_pmem.kernel.tasks import OpenFile, Task, openers_of, tasks_of
from drgn_pmem.kernel.walk import collect, until_interrupted

__all__ = ("FileList", "FilePage", "FileSummary", "list_files", "pages_of_file", "split_offset")


@dataclass(frozen=True)
class FileSummary:
    """One DAX file, or one DAX character device."""

    path: str | None
    paths: tuple[str, ...]
    deleted: bool
    inode: int | None
    device: str
    dev: str | None
    size: int
    """bytes"""
    namespaces: tuple[str, ...]
    mapped_by: tuple[Task, ...]
    open_by: tuple[OpenFile, ...]
    file: DaxFile | DaxChar = field(repr=False, compare=False)
    pages: int | None = None
    """Pages that its DAX entries name; None for device DAX, which has none."""
    huge: int | None = None
    """Of those, in PMD entries."""
    dirty: int | None = None
    towrite: int | None = None
    locked: int | None = None
    zero: int | None = None
    """Pages of holes that were read."""
    shared: int | None = None
    """Pages that other files have too."""

    def to_json(self) -> dict[str, Any]:
        return {
            "inode": self.inode,
            "device": self.device,
            "dev": self.dev,
            "path": self.path,
            "paths": list(self.paths),
            "deleted": self.deleted,
            "size": self.size,
            "pages": self.pages,
            "huge": self.huge,
            "dirty": self.dirty,
            "towrite": self.towrite,
            "locked": self.locked,
            "zero": self.zero,
            "shared": self.shared,
            "namespaces": list(self.namespaces),
            "mapped_by": [t.to_json() for t in self.mapped_by],
            "open_by": [o.to_json() for o in self.open_by],
        }


@dataclass(frozen=True)
class FileList:
    """DAX files and what the list may lack."""

    files: tuple[FileSummary, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class FilePage:
    """One page, or one DAX entry, of a file."""

    inode: int | None
    device: str
    path: str | None
    offset: int
    """In the file, bytes."""
    pfn: int | None
    """None for a hole (zero page) or a placeholder."""
    order: int
    dirty: bool | None
    """None for device DAX, which has no DAX entries."""
    towrite: bool | None
    locked: bool | None
    zero: bool = False
    empty: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "inode": self.inode,
            "device": self.device,
            "path": self.path,
            "offset": self.offset,
            "pfn": self.pfn,
            "order": self.order,
            "dirty": self.dirty,
            "towrite": self.towrite,
            "locked": self.locked,
            "zero": self.zero,
            "empty": self.empty,
        }


class _Places:
    """Which namespaces a file's pages are in."""

    def __init__(self, prog: Program) -> None:
        self.shift = int(prog["PAGE_SHIFT"])
        self.namespaces: list[Namespace] = []
        self.problems: list[str] = []
        try:
            self.namespaces, self.problems = collect(for_each_namespace(prog))
        except PmemError as error:
            self.problems = [str(error)]
        self.ranges = [
            (n.dev, n.resource >> self.shift, (n.resource + n.raw_size) >> self.shift)
            for n in self.namespaces
            if n.resource and n.raw_size
        ]

    def of_file(self, file: DaxFile) -> tuple[str, ...]:
        pfns = file.entries.with_pfn()["pfn"]
        found = [
            dev
            for dev, start, end in self.ranges
            if len(pfns) and bool(((pfns >= np.uint64(start)) & (pfns < np.uint64(end))).any())
        ]
        disks = file.inode.super.disks if file.inode.super else ()
        return tuple(found) or tuple(n.dev for n in self.namespaces if n.blockdev in disks)

    def of_char(self, char: DaxChar) -> tuple[str, ...]:
        starts = [r.start >> self.shift for r in char.device.ranges]
        return tuple(
            dev for dev, start, end in self.ranges if any(start <= pfn < end for pfn in starts)
        )


def _summary(files: DaxFiles, places: _Places, file: DaxFile) -> FileSummary:
    entries = file.entries
    return FileSummary(
        file.path,
        file.names.paths,
        file.names.deleted,
        file.inode.ino,
        file.device,
        file.dev,
        file.inode.size,
        places.of_file(file),
        tuple(file.mapped_by),
        tuple(file.open_by),
        file,
        pages=entries.pages(),
        huge=entries.pages("pmd"),
        dirty=entries.pages("dirty"),
        towrite=entries.pages("towrite"),
        locked=entries.pages("locked"),
        zero=entries.pages("zero"),
        shared=files.shared_pages(file),
    )


def _char_summary(prog: Program, places: _Places, char: DaxChar) -> FileSummary:
    by_mm = tasks_of(prog).by_mm
    users = {
        task.tgid: task
        for vma in vmas_of_mapping(prog, char.inode.mapping).vmas
        for task in by_mm.get(vma.mm, ())
    }
    node = char.node
    return FileSummary(
        char.paths[0],
        char.paths,
        False,
        node.ino if node else None,
        char.name,
        device_number(node.rdev) if node else None,
        char.device.size,
        places.of_char(char),
        tuple(users[pid] for pid in sorted(users)),
        tuple(openers_of(prog).get(node.address, ())) if node else (),
        char,
    )


def list_files(prog: Program, namespace: str | None = None, *, all_files: bool = False) -> FileList:
    """
    DAX files, by device and inode; DAX character devices after them.

    :param namespace: Only files with pages in it.
    :param all_files: Also files that have no DAX entry and that nobody maps.
    :return: The files; after Ctrl-C those that were read until then, and a problem that says so.
    :raises NotFound: if there is no such namespace
    """
    if namespace is not None:
        find_namespace(prog, namespace)
    files = dax_files_of(prog, partial=True)
    places = _Places(prog)
    found, whole = until_interrupted(
        _summary(files, places, file) for file in _wanted(files, all_files)
    )
    problems = [] if whole else [f"interrupted: {len(found)} of {len(files.files)} files are shown"]
    found.sort(key=lambda f: (f.device, f.inode or 0))
    found += [_char_summary(prog, places, char) for char in files.chars]
    if namespace is not None:
        found = [f for f in found if namespace in f.namespaces]
    problems += files.problems + ([files.char_problem] if files.char_problem else [])
    return FileList(tuple(found), tuple(problems + places.problems))


def _wanted(files: DaxFiles, all_files: bool) -> Iterator[DaxFile]:
    for file in files.files:
        if all_files or len(file.entries) or vmas_of_mapping(files.prog, file.inode.mapping).vmas:
            yield file


def split_offset(text: str) -> tuple[str, int | None]:
    """
    Split ``PATH[:OFFSET]``. A colon that no number follows belongs to the path.

    :return: Path; offset in bytes, None if there is none.
    """
    path, colon, number = text.rpartition(":")
    if colon and path:
        try:
            return path, int(number, 0)
        except ValueError:
            pass
    return text, None


def _find(prog: Program, text: str) -> tuple[Sequence[DaxFile | DaxChar], int | None]:
    files = dax_files_of(prog)
    # A path may end in ":8" itself.
    found: Sequence[DaxFile | DaxChar] = files.find(text)
    if found:
        return found, None
    path, offset = split_offset(text)
    found = files.find(path)
    if not found:
        why = f"; {files.problems[0]}" if files.problems else ""
        raise NotFound(
            f"no DAX file {path} in memory (pmem-files lists those there are; one that nobody"
            f" mapped or opened since the last mount is not){why}"
        )
    if offset is not None and offset < 0:
        raise UsageError(f"{text}: an offset cannot be negative")
    return found, offset


def pages_of_file(prog: Program, text: str) -> list[FilePage]:
    """
    From a file to its pages.

    :param text: ``PATH``, every DAX entry of the file; ``PATH:OFFSET``, the page at a byte offset;
        ``ino:NUMBER`` for a file without a name.
    :raises NotFound: if no such file is in memory, or it has no DAX entry at the offset
    :raises UsageError: if the offset is no offset
    """
    files, offset = _find(prog, text)
    shift = int(prog["PAGE_SHIFT"])
    pages: list[FilePage] = []
    for file in files:
        if isinstance(file, DaxChar):
            pages += _char_pages(file, offset, shift)
        else:
            pages += _file_pages(file, offset, shift)
    if not pages and offset is not None:
        problems = [p for f in files if isinstance(f, DaxFile) for p in f.entries.problems]
        raise NotFound(
            f"{text}: no DAX entry there: a hole, or not touched through a mapping since the file"
            " came into memory" + (f"; but {problems[0]}" if problems else "")
        )
    return pages


def _char_pages(char: DaxChar, offset: int | None, shift: int) -> Iterator[FilePage]:
    order = max(char.device.align.bit_length() - 1 - shift, 0)
    index = 0 if offset is None else offset >> shift
    end = char.device.size >> shift if offset is None else index + 1
    while index < end:
        pfn = char.pfn_of(index)
        if pfn is not None:
            node = char.node
            yield FilePage(
                node.ino if node else None,
                char.name,
                char.paths[0],
                index << shift,
                pfn,
                order,
                None,
                None,
                None,
            )
        index += 1 << order


def _file_pages(file: DaxFile, offset: int | None, shift: int) -> Iterator[FilePage]:
    if offset is None:
        entries = [(entry.index, entry) for entry in file.entries]
    else:
        entry = file.entries.find(offset >> shift)
        entries = [(offset >> shift, entry)] if entry else []
    for index, entry in entries:
        yield FilePage(
            file.inode.ino,
            file.device,
            file.path,
            index << shift,
            entry.pfn_at(index),
            entry.order,
            entry.dirty,
            entry.towrite,
            entry.locked,
            entry.zero,
            entry.empty,
        )
