# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
DAX files
---------

Every DAX file of the machine with its DAX entries, and an index from PFN to file. Only RAM is read,
so it answers also where no struct page of the persistent memory was saved, and it is the only
source for extents that several files share.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from drgn import Program
import numpy as np
import numpy.typing as npt

from drgn_pmem.kernel.daxchar import DaxChar, for_each_dax_char
from drgn_pmem.kernel.daxentry import ENTRY, DaxEntries, DaxEntry, read_dax_entries
from drgn_pmem.kernel.daxfs import (
    DaxInode,
    device_number,
    for_each_dax_inode,
    for_each_dax_super,
    i_pages_of,
)
from drgn_pmem.kernel.memory import cached
from drgn_pmem.kernel.paths import InodePaths, paths_of_inode
from drgn_pmem.kernel.rmap import mappers_of
from drgn_pmem.kernel.tasks import OpenFile, Task, openers_of
from drgn_pmem.kernel.xfsextents import xfs_extents_of
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.ranges import distinct

__all__ = ("DaxFile", "DaxFiles", "dax_chars_of", "dax_files_of", "identity_of_char")


class DaxFile:
    """
    One DAX file that is in memory.

    :param entries: Its DAX entries, and why there may be more.
    """

    def __init__(self, prog: Program, inode: DaxInode, entries: Partial[DaxEntries]) -> None:
        self.prog = prog
        self.inode = inode
        self.entries = entries

    @classmethod
    def without_entries(cls, prog: Program, inode: DaxInode) -> "DaxFile":
        """A file of the same file system that has DAX off."""
        return cls(prog, inode, Partial(DaxEntries(np.zeros(0, ENTRY))))

    def __repr__(self) -> str:
        return f"<DAX file, inode {self.inode.ino} of {self.device}>"

    @cached_property
    def names(self) -> Partial[InodePaths]:
        """Its paths."""
        return paths_of_inode(self.prog, self.inode)

    @property
    def device(self) -> str:
        """Block device of its file system: ``"pmem0"``."""
        return self.inode.super.id if self.inode.super else device_number(self.inode.rdev)

    @property
    def dev(self) -> str:
        """``st_dev``: ``"259:0"``."""
        return device_number(self.inode.super.dev if self.inode.super else self.inode.rdev)

    @property
    def mapped_by(self) -> Partial[tuple[Task, ...]]:
        """Processes with a VMA of the file, in order of pid."""
        return mappers_of(self.prog, self.inode.mapping)

    @property
    def open_by(self) -> Partial[tuple[OpenFile, ...]]:
        """Descriptors of the file."""
        return openers_of(self.prog).map(lambda openers: openers.get(self.inode.address, ()))

    def identity(self, problems: Problems, what: str = "") -> dict[str, Any]:
        """The fields by which a record names the file and who has it open."""
        names = problems.take(self.names, what)
        return {
            "inode": self.inode.ino,
            "device": self.device,
            "dev": self.dev,
            "path": names.path,
            "paths": names.paths,
            "deleted": names.deleted,
            "open_by": problems.take(self.open_by),
        }

    def text(self, problems: Problems) -> str:
        """``"/mnt/a/alpha (ino 14)"``"""
        names = self.names
        unnamed = " whose name is not in memory" if names.complete else ""
        where = problems.take(names).path or f"a file of {self.device}{unnamed}"
        return f"{where} (ino {self.inode.ino})"


class DaxFiles:
    """
    All DAX files of the machine and an index from PFN to file.

    :param prog: The crashed kernel.
    """

    def __init__(self, prog: Program, files: Sequence[DaxFile], problems: Problems) -> None:
        self.prog = prog
        self.files = files
        # The problems of their entries are those of the whole: see dax_files_of().
        self._tables = [problems.take(file.entries, _what(file)) for file in files]
        self._index = self._build_index()
        self._by_mapping = {file.inode.mapping: file for file in self.files}

    def _build_index(self) -> "dict[int, tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]]":
        """Order -> (first PFNs in order, which row of ``_rows`` each is)."""
        numbers: list[npt.NDArray[np.int64]] = []
        tables = []
        for number, entries in enumerate(self._tables):
            rows = entries.with_pfn()
            tables.append(rows)
            numbers.append(np.full(len(rows), number, np.int64))
        if not tables:
            return {}
        self._rows = np.concatenate(tables)
        self._file_numbers = np.concatenate(numbers)
        index = {}
        for order in distinct(self._rows["order"]).tolist():
            which = np.nonzero(self._rows["order"] == order)[0]
            pfns = self._rows["pfn"][which]
            sort = np.argsort(pfns, kind="stable")
            index[order] = (pfns[sort], which[sort])
        return index

    def owners(self, pfn: int) -> Iterator[tuple[DaxFile, DaxEntry, int]]:
        """
        Files whose DAX entries name a page.

        :param pfn: PFN
        :return: The file, its entry, the page's index in the file.
        """
        for order, (firsts, which) in self._index.items():
            # An entry's PFN is aligned to its order only in an intact dump, so look at all that
            # start within one entry's length.
            low = np.searchsorted(firsts, np.uint64(max(pfn - (1 << order) + 1, 0)), side="left")
            high = np.searchsorted(firsts, np.uint64(pfn), side="right")
            for row in which[int(low) : int(high)].tolist():
                number = int(self._file_numbers[row])
                entry = self._tables[number].find(int(self._rows["index"][row]))
                if entry is not None and entry.pfn is not None:
                    yield self.files[number], entry, entry.index + (pfn - entry.pfn)

    def by_mapping(self, mapping: int) -> DaxFile | None:
        """The file of an address space."""
        return self._by_mapping.get(mapping)

    @cached_property
    def _owner_counts(self) -> "tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]":
        """PFNs that DAX entries name, and how often; PMD entries page by page."""
        if not self._index:
            return np.zeros(0, np.uint64), np.zeros(0, np.int64)
        pages = [
            (firsts[:, None] + np.arange(1 << order, dtype=np.uint64)).ravel()
            for order, (firsts, _) in self._index.items()
        ]
        return np.unique(np.concatenate(pages), return_counts=True)

    @cached_property
    def shared_pfns(self) -> "npt.NDArray[np.uint64]":
        """PFNs that several DAX entries name."""
        pfns, counts = self._owner_counts
        return pfns[counts > 1]

    def shared_pages(self, file: DaxFile) -> Partial[int]:
        """Pages of a file that other files (or the same one elsewhere) have too, by their DAX
        entries or by their extents."""
        return self.shared_indexes(file).map(len)

    def shared_indexes(self, file: DaxFile) -> "Partial[npt.NDArray[np.uint64]]":
        """Those pages, by their indexes in the file."""
        problems = Problems()
        rows = problems.take(file.entries).with_pfn()
        by_extents = problems.take(_shared_indexes(self.prog, file), "shared extents")
        found = [np.zeros(0, np.uint64)]
        if not len(self.shared_pfns) and not by_extents:
            return problems.partial(found[0])
        for order in distinct(rows["order"]).tolist():
            mine = rows[rows["order"] == order]
            steps = np.arange(1 << order, dtype=np.uint64)
            pages = (mine["pfn"][:, None] + steps).ravel()
            indexes = (mine["index"].astype(np.uint64)[:, None] + steps).ravel()
            shared = np.isin(pages, self.shared_pfns)
            for start, end in by_extents:
                shared |= (indexes >= np.uint64(start)) & (indexes < np.uint64(end))
            found.append(indexes[shared])
        return problems.partial(np.concatenate(found))


def _shared_indexes(prog: Program, file: DaxFile) -> Partial[list[tuple[int, int]]]:
    """Ranges of a file, in pages, whose extents other files in memory have too."""
    if file.inode.super is None:
        return Partial([])
    problems = Problems()
    extents = problems.take(xfs_extents_of(prog, file.inode.super))
    if extents is None:
        return problems.partial([])
    per_page = int(prog["PAGE_SIZE"]) // extents.block_size or 1
    found = [
        (start // per_page, -(-end // per_page))
        for start, end in extents.shared_blocks(file.inode.address)
    ]
    return problems.partial(found)


def _what(file: DaxFile) -> str:
    return f"DAX entries of inode {file.inode.ino} on {file.device}"


def _read(prog: Program, files: list[DaxFile], problems: Problems) -> None:
    for super_ in problems.take(for_each_dax_super(prog)):
        for inode in for_each_dax_inode(prog, super_, problems):
            files.append(DaxFile(prog, inode, read_dax_entries(prog, i_pages_of(prog, inode))))


def _read_all(prog: Program) -> Partial[DaxFiles]:
    problems = Problems()
    files: list[DaxFile] = []
    try:
        _read(prog, files, problems)
    except KeyboardInterrupt:
        why = f"interrupted: {len(files)} files were read"
        problems.add(Problem(cause=Cause.INTERRUPTED, why=why))
        raise _Interrupted(problems, DaxFiles(prog, files, problems)) from None
    answer = DaxFiles(prog, files, problems)
    return problems.partial(answer)


def dax_files_of(prog: Program, *, until_interrupted: bool = False) -> Partial[DaxFiles]:
    """
    The DAX files of a program, read once.

    :param until_interrupted: After Ctrl-C, return those that were read until then; they are not
        kept for the next call.
    :raises KeyboardInterrupt: if it is not wanted that way
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    try:
        files: Partial[DaxFiles] = cached(prog, "dax_files", lambda: _read_all(prog))
        return files
    except _Interrupted as interrupt:
        if until_interrupted:
            return interrupt.problems.partial(interrupt.files)
        raise


class _Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what was read before."""

    def __init__(self, problems: Problems, files: DaxFiles) -> None:
        super().__init__()
        self.problems = problems
        self.files = files


def dax_chars_of(prog: Program) -> Partial[tuple[DaxChar, ...]]:
    """The DAX character devices of a program, read once."""
    chars: Partial[tuple[DaxChar, ...]] = cached(prog, "dax_chars", lambda: for_each_dax_char(prog))
    return chars


def _openers_of_char(prog: Program, char: DaxChar) -> Partial[tuple[OpenFile, ...]]:
    """Descriptors of a DAX character device, by any of its device nodes."""
    return openers_of(prog).map(
        lambda openers: tuple(o for node in char.nodes for o in openers.get(node.address, ()))
    )


def identity_of_char(prog: Program, char: DaxChar, problems: Problems) -> dict[str, Any]:
    """The fields by which a record names a DAX character device and who has it open."""
    node = char.node
    return {
        "inode": node.ino if node else None,
        "device": char.name,
        "dev": device_number(node.rdev) if node else None,
        "path": char.paths[0],
        "paths": char.paths,
        "deleted": False,
        "open_by": problems.take(_openers_of_char(prog, char)),
    }
