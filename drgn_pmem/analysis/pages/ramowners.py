# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Owners of RAM pages
-------------------

Names for what ``mapping`` of struct pages of RAM points to: the file of page cache, the processes
of anonymous memory, each looked up once.
"""

from typing import TYPE_CHECKING

from drgn import Program
import numpy as np

from drgn_pmem.analysis.pages.ramwords import CODES, NOT_KNOWN, RamWords
from drgn_pmem.errors import UsageError
from drgn_pmem.kernel.daxfs import host_of_mapping
from drgn_pmem.kernel.pageuse import ANON, RamUse
from drgn_pmem.kernel.paths import paths_of_inode
from drgn_pmem.kernel.ramuse import vmas_of_anon_vma
from drgn_pmem.kernel.tasks import tasks_of
from drgn_pmem.partial import Problems

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

__all__ = ("RamOwners",)

_NAMED = 3
"""Owners of a group that are named."""
_LOOKED_AT = 64
"""Owners whose names are looked up for that, those of the most pages."""
_PROCESSES = 3
_LOW = 3
"""Bits of ``mapping`` that are no address."""


class RamOwners:
    """
    Owners of RAM pages by ``mapping``.

    :param problems: Get what could not be read.
    """

    def __init__(self, prog: Program, problems: Problems) -> None:
        self._prog = prog
        self._problems = problems
        self._names: dict[int, str | None] = {}
        self._files: dict[int, bool] = {}
        self._unknown: set[int] = set()
        """Those whose owners are not all known."""

    def check(self, words: RamWords) -> None:
        """Pages whose mapping is no address space of an inode are not known to be page cache."""
        cached = words.is_use(RamUse.PAGE_CACHE)
        mappings = words.words["mapping"]
        wrong = [int(m) for m in np.unique(mappings[cached]).tolist() if not self._is_file(int(m))]
        if wrong:
            words.use[cached & np.isin(mappings, np.array(wrong, np.uint64))] = NOT_KNOWN

    def _is_file(self, mapping: int) -> bool:
        if mapping not in self._files:
            self._files[mapping] = False
            with self._problems.trying(f"address space {mapping:#x}"):
                self._files[mapping] = host_of_mapping(self._prog, mapping) is not None
        return self._files[mapping]

    def name(self, mapping: int) -> str | None:
        """Owner by ``mapping``; None if no process has the anonymous memory any more, and if it is
        not known in full (a problem)."""
        if mapping not in self._names:
            problems = Problems()
            name = None
            with problems.trying(f"owner {mapping:#x}"):
                if mapping & _LOW:
                    name = self._processes(mapping, problems)
                else:
                    name = self._file(mapping, problems)
            if problems:
                self._unknown.add(mapping)
            self._problems.extend(problems)
            self._names[mapping] = None if problems else name
        return self._names[mapping]

    def _file(self, mapping: int, problems: Problems) -> str | None:
        inode = host_of_mapping(self._prog, mapping)
        if inode is None:
            return None
        names = problems.take(paths_of_inode(self._prog, inode))
        return f"{names.name} (ino {inode.ino})" if names.name else f"inode {inode.ino}"

    def _processes(self, mapping: int, problems: Problems) -> str | None:
        """``"12/sh"``: who may have the memory; pmem-page proves it for one page."""
        if mapping & _LOW != ANON:
            return None
        by_mm = problems.take(tasks_of(self._prog)).by_mm
        found: dict[str, None] = {}
        for vma in problems.take(vmas_of_anon_vma(self._prog, mapping & ~_LOW)):
            for task in by_mm.get(vma.vm_mm.value_(), ()):
                found[f"{task.tgid}/{task.comm}"] = None
        more = f" and {len(found) - _PROCESSES} more" if len(found) > _PROCESSES else ""
        return ", ".join(list(found)[:_PROCESSES]) + more if found else None

    def _owned(self, words: RamWords) -> "Mask":
        return np.isin(words.use, [CODES[RamUse.PAGE_CACHE], CODES[RamUse.ANONYMOUS]])

    def summary(self, words: RamWords, here: "Mask") -> str | None:
        """The owner of some pages; of several the largest, and how many there are. None if there is
        none, and if they are not all known."""
        here = here & self._owned(words)
        mappings, counts = np.unique(words.words["mapping"][here], return_counts=True)
        order = np.argsort(counts, kind="stable")[::-1]
        if len(mappings) <= 1:
            return self.name(int(mappings[0])) if len(mappings) else None
        pages: dict[str, int] = {}
        for at in order[:_LOOKED_AT].tolist():
            name = self.name(int(mappings[at])) or "no process"
            pages[name] = pages.get(name, 0) + int(counts[at])
        if self._unknown.intersection(mappings[order[:_LOOKED_AT]].tolist()):
            return None
        first = sorted(pages, key=lambda name: -pages[name])[:_NAMED]
        left = len(pages) - len(first) + max(0, len(mappings) - _LOOKED_AT)
        more = f" and {left} more" if left else ""
        return ", ".join(f"{name}: {pages[name]} pages" for name in first) + more

    def matching(self, words: RamWords, wanted: str) -> "Mask":
        """
        Pages of an owner.

        :param wanted: Part of its name, or its address.
        :raises UsageError: if it begins with 0x and is no address
        """
        here = self._owned(words)
        mappings = np.unique(words.words["mapping"][here])
        if wanted.lower().startswith("0x"):
            try:
                chosen = [int(wanted, 16)]
            except ValueError:
                raise UsageError(f"{wanted!r} is not an address") from None
        else:
            chosen = [int(m) for m in mappings.tolist() if wanted in (self.name(int(m)) or "")]
        return here & np.isin(words.words["mapping"], np.array(chosen, np.uint64))
