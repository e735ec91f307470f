# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
DAX files
---------

Every DAX file of the machine with its DAX entries: the road from ``i_pages`` to the owner of a
page. It reads RAM only, so it answers also where no struct page of the persistent memory is in the
dump, and it is the only road for extents that several files share.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from drgn import Program
import numpy as np
import numpy.typing as npt

from drgn_pmem.errors import MissingDebugInfo, NotInKernel
from drgn_pmem.kernel.daxchar import DaxChar, for_each_dax_char
from drgn_pmem.kernel.daxentry import DaxEntries, DaxEntry, read_dax_entries
from drgn_pmem.kernel.daxfs import (
    DaxInode,
    device_number,
    for_each_dax_inode,
    for_each_dax_super,
    i_pages_of,
)
from drgn_pmem.kernel.memory import cached
from drgn_pmem.kernel.paths import InodePaths, paths_of_inode
from drgn_pmem.kernel.rmap import vmas_of_mapping
from drgn_pmem.kernel.tasks import OpenFile, Task, openers_of, tasks_of
from drgn_pmem.partial import WalkError

__all__ = ("DaxFile", "DaxFiles", "dax_files_of")

_MAX_PROBLEMS = 50


@dataclass(frozen=True)
class DaxFile:
    """One DAX file that is in memory."""

    inode: DaxInode
    entries: DaxEntries
    prog: Program = field(repr=False, compare=False)

    @cached_property
    def names(self) -> InodePaths:
        """Its paths."""
        return paths_of_inode(self.prog, self.inode)

    @property
    def path(self) -> str | None:
        """As the plain mount shows it; None if no dentry of it is in memory."""
        return self.names.path

    @property
    def device(self) -> str:
        """Block device of its file system: ``"pmem0"``."""
        return self.inode.super.id if self.inode.super else device_number(self.inode.rdev)

    @property
    def dev(self) -> str:
        """``st_dev``: ``"259:0"``."""
        return device_number(self.inode.super.dev if self.inode.super else self.inode.rdev)

    @property
    def mapped_by(self) -> list[Task]:
        """Processes with a VMA of the file, in order of pid."""
        by_mm = tasks_of(self.prog).by_mm
        users = {
            task.tgid: task
            for vma in vmas_of_mapping(self.prog, self.inode.mapping).vmas
            for task in by_mm.get(vma.mm, ())
        }
        return [users[pid] for pid in sorted(users)]

    @property
    def open_by(self) -> list[OpenFile]:
        """Descriptors of the file."""
        return openers_of(self.prog).get(self.inode.address, [])

    def text(self) -> str:
        """``"/mnt/a/alpha (ino 14)"``"""
        where = self.path or f"a file of {self.device} whose name is not in the dump"
        return f"{where} (ino {self.inode.ino})"


class DaxFiles:
    """
    All DAX files of the machine and an index from PFN to file.

    :param prog: The crashed kernel.
    """

    def __init__(self, prog: Program) -> None:
        self.prog = prog
        self.files: list[DaxFile] = []
        self.chars: list[DaxChar] = []
        self.problems: list[str] = []
        """Why the answer may lack owners; empty if it is complete."""
        self.char_problem: str | None = None
        """Why device DAX could not be read."""
        self.interrupted = False
        """Whether Ctrl-C ended the walk: there may be more."""
        self._read_files()
        self._read_chars()
        self._index = self._build_index()
        self._by_mapping = {file.inode.mapping: file for file in self.files}
        self._chars_by_mapping = {char.inode.mapping: char for char in self.chars}

    def _problem(self, text: str) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(text)

    def _read_files(self) -> None:
        problems: list[str] = []
        try:
            for super_ in for_each_dax_super(self.prog, problems):
                try:
                    for inode in for_each_dax_inode(self.prog, super_, problems):
                        self._read_file(inode)
                except WalkError as error:
                    problems.append(str(error))
        except WalkError as error:
            problems.append(str(error))
        except KeyboardInterrupt:
            self.interrupted = True
            problems.insert(0, f"interrupted: {len(self.files)} files were read")
        for problem in problems:
            self._problem(problem)

    def _read_file(self, inode: DaxInode) -> None:
        entries = read_dax_entries(self.prog, i_pages_of(self.prog, inode))
        self.files.append(DaxFile(inode, entries, self.prog))
        assert inode.super is not None
        for problem in entries.problems:
            self._problem(f"DAX entries of inode {inode.ino} on {inode.super.id}: {problem}")

    def _read_chars(self) -> None:
        problems: list[str] = []
        try:
            self.chars += for_each_dax_char(self.prog, problems)
        except NotInKernel:
            pass
        except (MissingDebugInfo, WalkError) as error:
            self.char_problem = str(error)
        if problems:
            self.char_problem = problems[0]

    def _build_index(self) -> "dict[int, tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]]":
        """Order -> (first PFNs in order, which row of ``_rows`` each is)."""
        numbers: list[npt.NDArray[np.int64]] = []
        tables = []
        for number, file in enumerate(self.files):
            rows = file.entries.with_pfn()
            tables.append(rows)
            numbers.append(np.full(len(rows), number, np.int64))
        if not tables:
            return {}
        self._rows = np.concatenate(tables)
        self._file_numbers = np.concatenate(numbers)
        index = {}
        for order in np.unique(self._rows["order"]).tolist():
            which = np.nonzero(self._rows["order"] == order)[0]
            pfns = self._rows["pfn"][which]
            sort = np.argsort(pfns, kind="stable")
            index[order] = (pfns[sort], which[sort])
        return index

    @property
    def complete(self) -> bool:
        """Whether every DAX file with every entry could be read."""
        return not self.problems

    def owners(self, pfn: int) -> Iterator[tuple[DaxFile, DaxEntry, int]]:
        """
        Files whose DAX entries name a page.

        :param pfn: PFN
        :return: The file, its entry, the page's index in the file.
        """
        for order, (firsts, which) in self._index.items():
            # An entry's PFN is aligned to its order only in a sound dump, so look at all that start
            # within one entry's length.
            low = np.searchsorted(firsts, np.uint64(max(pfn - (1 << order) + 1, 0)), side="left")
            high = np.searchsorted(firsts, np.uint64(pfn), side="right")
            for row in which[int(low) : int(high)].tolist():
                file = self.files[int(self._file_numbers[row])]
                entry = file.entries.find(int(self._rows["index"][row]))
                if entry is not None and entry.pfn is not None:
                    yield file, entry, entry.index + (pfn - entry.pfn)

    def char_of(self, pfn: int) -> DaxChar | None:
        """The DAX character device that a page belongs to."""
        return next((char for char in self.chars if char.index_of(pfn) is not None), None)

    def by_mapping(self, mapping: int) -> DaxFile | None:
        """The file of an address space."""
        return self._by_mapping.get(mapping)

    def char_by_mapping(self, mapping: int) -> DaxChar | None:
        """The DAX character device of an address space."""
        return self._chars_by_mapping.get(mapping)

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

    def shared_pages(self, file: DaxFile) -> int:
        """Pages of a file that other files' (or the same file's) entries name too."""
        pfns, counts = self._owner_counts
        shared = pfns[counts > 1]
        if not len(shared):
            return 0
        total = 0
        for order in np.unique(file.entries.table["order"]).tolist():
            rows = file.entries.with_pfn()
            firsts = rows["pfn"][rows["order"] == order]
            pages = (firsts[:, None] + np.arange(1 << order, dtype=np.uint64)).ravel()
            total += int(np.isin(pages, shared).sum())
        return total

    def find(self, path: str) -> "list[DaxFile | DaxChar]":
        """
        Files by path, as any mount shows it, with or without ``" (deleted)"``.

        :param path: Absolute path, or ``ino:NUMBER``.
        """
        if path.startswith("ino:") and path[4:].isdigit():
            return [file for file in self.files if file.inode.ino == int(path[4:])]
        bare = path.removesuffix(" (deleted)")
        found: list[DaxFile | DaxChar] = [file for file in self.files if bare in file.names.paths]
        return found + [char for char in self.chars if bare in char.paths]


def dax_files_of(prog: Program, *, partial: bool = False) -> DaxFiles:
    """
    The DAX files of a program, read once.

    :param partial: After Ctrl-C, return those that were read until then; they are not kept for
        the next call.
    :raises KeyboardInterrupt: if it is not wanted that way
    """

    def make() -> DaxFiles:
        files = DaxFiles(prog)
        if files.interrupted:
            raise _Interrupted(files)
        return files

    try:
        return cached(prog, "dax_files", make)
    except _Interrupted as interrupt:
        if partial:
            return interrupt.files
        raise


class _Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what was read before."""

    def __init__(self, files: DaxFiles) -> None:
        super().__init__()
        self.files = files
