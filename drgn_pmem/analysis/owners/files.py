# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
DAX files in numbers
--------------------

What ``pmem-files`` and ``pmem-file`` show: each DAX file with its pages, and from a file's offset
to the PFN.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
from typing import Any

from drgn import Object, Program
import numpy as np

from drgn_pmem.analysis.inventory.names import find_namespace
from drgn_pmem.analysis.owners.daxfiles import (
    DaxFile,
    DaxFiles,
    dax_chars_of,
    dax_files_of,
    identity_of_char,
)
from drgn_pmem.analysis.owners.rampages import private_copies_of
from drgn_pmem.analysis.owners.records import NamedFile
from drgn_pmem.analysis.owners.search import namespaces_of
from drgn_pmem.errors import NotFound, UsageError
from drgn_pmem.kernel.daxchar import DaxChar
from drgn_pmem.kernel.memory import address_of
from drgn_pmem.kernel.rmap import mappers_of, vmas_of_mapping
from drgn_pmem.kernel.tasks import OpenFile, Task
from drgn_pmem.partial import Cause, Incomplete, Partial, Problem, Problems, WalkError
from drgn_pmem.record import Record, Show, shown

__all__ = ("FilePage", "FileSummary", "list_files", "pages_of_file", "split_offset")

_MAX_CHAR_PAGES = 1 << 19
"""Pages of a character device that are listed: 1 TiB of 2 MiB each."""


class FileSummary(NamedFile):
    """One DAX file, or one DAX character device."""

    size: int = shown(Show.SIZE)
    """bytes"""
    pages: int | None = None
    """Pages that its DAX entries name. None, as all counts, for device DAX, which has none, and if
    not all entries could be read."""
    huge: int | None = None
    """Of those, in PMD entries."""
    dirty: int | None = None
    towrite: int | None = None
    locked: int | None = None
    zero: int | None = None
    """Pages of holes that were read."""
    shared: int | None = None
    """Pages that other files have too; None also if not all entries of all files could be read."""
    copies: int | None = None
    """Pages of RAM that processes have in place of its pages (copy on write); None also if not all
    page tables could be read."""
    namespaces: tuple[str, ...]
    mapped_by: tuple[Task, ...]
    open_by: tuple[OpenFile, ...]
    file: DaxFile | DaxChar = shown(Show.HIDDEN)


class FilePage(Record):
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
    """None for device DAX, which has no DAX entries, and if the marks could not be read."""
    towrite: bool | None
    locked: bool | None
    shared: bool | None = None
    """Other files (or the same one elsewhere) have it, too, or a page of it; None for device DAX,
    for a private copy, and where not all that would show it could be read."""
    zero: bool = False
    empty: bool = False
    copy: bool = False
    """The page is a process's private copy (copy on write), in RAM; no DAX entry names it."""


class _Places:
    """Which namespaces a file's pages are in."""

    def __init__(self, prog: Program, problems: Problems) -> None:
        self.shift = int(prog["PAGE_SHIFT"])
        self.namespaces = problems.take(namespaces_of(prog))
        self.ranges = [
            (n.dev, n.resource >> self.shift, (n.resource + n.raw_size) >> self.shift)
            for n in self.namespaces
            if n.resource and n.raw_size
        ]

    def of_file(self, file: DaxFile, pfns: "np.typing.NDArray[np.uint64]") -> tuple[str, ...]:
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


def _summary(
    files: Partial[DaxFiles], places: _Places, file: DaxFile, problems: Problems
) -> FileSummary:
    take = problems.take
    identity = file.identity(problems)
    entries = take(file.entries)
    counts: dict[str, Any] = {}
    if file.entries.complete:
        flags = ("dirty", "towrite", "locked", "zero")
        counts = {flag: entries.pages(flag) for flag in flags}
        counts |= {"pages": entries.pages(), "huge": entries.pages("pmd")}
        if files.complete:
            shared = take(files).shared_pages(file)
            pages = take(shared)
            counts["shared"] = pages if shared.complete else None
    copies = private_copies_of(file.prog)
    found = len(take(copies, "private copies").get(file.inode.mapping, ()))
    return FileSummary(
        copies=found if copies.complete else None,
        size=file.inode.size,
        namespaces=places.of_file(file, entries.with_pfn()["pfn"]),
        mapped_by=take(file.mapped_by),
        file=file,
        **identity,
        **counts,
    )


def _char_summary(prog: Program, places: _Places, char: DaxChar, problems: Problems) -> FileSummary:
    return FileSummary(
        **identity_of_char(prog, char, problems),
        size=char.device.size,
        namespaces=places.of_char(char),
        mapped_by=problems.take(mappers_of(prog, char.inode.mapping)),
        file=char,
    )


def list_files(
    prog: Program, namespace: str | None = None, *, all_files: bool = False
) -> Partial[tuple[FileSummary, ...]]:
    """
    DAX files, by device and inode; DAX character devices after them. After Ctrl-C, those that were
    read until then.

    :param namespace: Only files with pages in it.
    :param all_files: Also files without DAX entries and mappings.
    :raises NotFound: if there is no such namespace
    """
    problems = Problems()
    wanted = None if namespace is None else find_namespace(prog, namespace).dev
    files = dax_files_of(prog, until_interrupted=True)
    places = _Places(prog, problems)
    found: list[FileSummary] = []
    all_of_them = problems.take(files).files
    try:
        for file in _wanted(prog, all_of_them, all_files, problems):
            found.append(_summary(files, places, file, problems))
    except KeyboardInterrupt:
        why = f"interrupted: {len(found)} of {len(all_of_them)} files are shown"
        problems.add(Problem(cause=Cause.INTERRUPTED, why=why))
    found.sort(key=lambda f: (f.device, f.inode or 0))
    found += [
        _char_summary(prog, places, char, problems)
        for char in problems.take(dax_chars_of(prog), "device DAX")
    ]
    if wanted is not None:
        found = [f for f in found if wanted in f.namespaces]
    return problems.partial(tuple(found))


def _wanted(
    prog: Program, files: Sequence[DaxFile], all_files: bool, problems: Problems
) -> Iterator[DaxFile]:
    for file in files:
        if (
            all_files
            or len(problems.take(file.entries))
            or not file.entries.complete
            or problems.take(vmas_of_mapping(prog, file.inode.mapping))
        ):
            yield file


def split_offset(text: str) -> tuple[str, int | None]:
    """
    Split ``PATH[:OFFSET]``. A colon that no number follows belongs to the path.

    :return: Path; offset in bytes, None if there is none.
    """
    path, colon, number = text.rpartition(":")
    if colon and path:
        # not a problem: what follows the colon is no number
        with contextlib.suppress(ValueError):
            return path, int(number, 0)
    return text, None


def _named(prog: Program, path: str, problems: Problems) -> "list[DaxFile | DaxChar]":
    """
    Files by path, as any mount shows it, with or without ``" (deleted)"``.

    :param path: Absolute path, or ``ino:NUMBER``.
    """
    files = problems.take(dax_files_of(prog)).files
    if path.startswith("ino:") and path[4:].isdigit():
        return [file for file in files if file.inode.ino == int(path[4:])]
    bare = path.removesuffix(" (deleted)")
    found: list[DaxFile | DaxChar] = [
        file for file in files if bare in problems.take(file.names).paths
    ]
    chars = problems.take(dax_chars_of(prog))
    return found + [char for char in chars if bare in char.paths]


def _find(prog: Program, text: str) -> tuple[Sequence[DaxFile | DaxChar], int | None]:
    # What could not be read matters only if nothing is found.
    problems = Problems()
    # A path may end in ":8" itself.
    found = _named(prog, text, problems)
    if found:
        return found, None
    path, offset = split_offset(text)
    found = _named(prog, path, problems)
    if not found and problems:
        why = next(str(problem) for problem in problems if problem.degrades)
        raise WalkError(f"no DAX file {path} among those that could be read; {why}")
    if not found:
        raise NotFound(
            f"no DAX file {path} in memory (pmem-files lists those that are; a file that nobody"
            " mapped or opened since the last mount is not in memory)"
        )
    if offset is not None and offset < 0:
        raise UsageError(f"{text}: an offset cannot be negative")
    return found, offset


def _of_inode(prog: Program, inode: Object) -> tuple[Sequence[DaxFile | DaxChar], None]:
    address = address_of(inode)
    problems = Problems()
    files = problems.take(dax_files_of(prog)).files
    found: list[DaxFile | DaxChar] = [f for f in files if f.inode.address == address]
    found += [c for c in problems.take(dax_chars_of(prog)) if c.inode.address == address]
    if not found and problems:
        raise Incomplete(problem for problem in problems if problem.degrades)
    if not found:
        raise NotFound(f"the inode at {address:#x} is not that of a DAX file in memory")
    return found, None


def pages_of_file(prog: Program, file: "str | Object") -> Partial[tuple[FilePage, ...]]:
    """
    From a file to its pages.

    :param file: ``PATH``, every DAX entry of the file; ``PATH:OFFSET``, the page at a byte offset;
        ``ino:NUMBER`` for a file without a name; ``struct inode *``.
    :raises NotFound: if no such file is in memory, or it has no DAX entry at the offset
    :raises WalkError: if it cannot be known whether there is one
    :raises UsageError: if the offset is invalid
    """
    problems = Problems()
    files, offset = _of_inode(prog, file) if isinstance(file, Object) else _find(prog, file)
    shift = int(prog["PAGE_SHIFT"])
    pages: list[FilePage] = []
    for one in files:
        if isinstance(one, DaxChar):
            pages += _char_pages(one, offset, shift, problems)
        else:
            pages += _file_pages(one, offset, shift, problems)
    if not pages and offset is not None and not problems:
        raise NotFound(
            f"{file}: no DAX entry there: a hole, or not touched through a mapping since the file"
            " came into memory"
        )
    return problems.partial(tuple(pages))


def _char_pages(
    char: DaxChar, offset: int | None, shift: int, problems: Problems
) -> Iterator[FilePage]:
    order = max(char.device.align.bit_length() - 1 - shift, 0)
    index = 0 if offset is None else offset >> shift
    end = char.device.size >> shift if offset is None else index + 1
    if end - index > _MAX_CHAR_PAGES << order:
        end = index + (_MAX_CHAR_PAGES << order)
        why = f"{char.name}: the first {_MAX_CHAR_PAGES} pages are shown; ask for PATH:OFFSET"
        problems.add(Problem(cause=Cause.LIMIT, why=why))
    node = char.node
    while index < end:
        pfn = char.pfn_of(index)
        if pfn is not None:
            yield FilePage(
                inode=node.ino if node else None,
                device=char.name,
                path=char.paths[0],
                offset=index << shift,
                pfn=pfn,
                order=order,
                dirty=None,
                towrite=None,
                locked=None,
            )
        index += 1 << order


def _shared_of(file: DaxFile, problems: Problems) -> Callable[[int, int], bool | None]:
    """What says whether one of the pages of a file from an index on is one that other files have:
    it takes the index and their number."""
    files = dax_files_of(file.prog)
    partial = problems.take(files, "there may be more owners").shared_indexes(file)
    shared = np.sort(problems.take(partial))
    known = files.complete and partial.complete

    def of(index: int, count: int) -> bool | None:
        first, end = np.searchsorted(shared, np.array([index, index + count], np.uint64))
        return bool(first < end) or (False if known else None)

    return of


def _file_pages(
    file: DaxFile, offset: int | None, shift: int, problems: Problems
) -> Iterator[FilePage]:
    path = problems.take(file.names).path
    table = problems.take(file.entries)
    is_shared = _shared_of(file, problems)
    if offset is None:
        entries = [(entry.index, entry) for entry in table]
    else:
        entry = table.find(offset >> shift)
        entries = [(offset >> shift, entry)] if entry else []
    for index, entry in entries:
        yield FilePage(
            inode=file.inode.ino,
            device=file.device,
            path=path,
            offset=index << shift,
            pfn=entry.pfn_at(index),
            order=entry.order,
            dirty=entry.dirty,
            towrite=entry.towrite,
            locked=entry.locked,
            shared=is_shared(index, 1 if offset is not None else 1 << entry.order),
            zero=entry.zero,
            empty=entry.empty,
        )
    for copy in problems.take(private_copies_of(file.prog), "private copies").get(
        file.inode.mapping, ()
    ):
        if offset is None or offset >> shift == copy.index:
            yield FilePage(
                inode=file.inode.ino,
                device=file.device,
                path=path,
                offset=copy.index << shift,
                pfn=copy.pfn,
                order=0,
                dirty=None,
                towrite=None,
                locked=None,
                copy=True,
            )
