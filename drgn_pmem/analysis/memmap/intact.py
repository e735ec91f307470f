# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Are saved struct pages what the crashed kernel left?
----------------------------------------------------

Two ways in which they may not be:

* ``makedumpfile -E`` writes fewer than 256 excluded pages between saved ones as zeroes. The kernel
  never leaves an initialised ``ZONE_DEVICE`` struct page all zero (its flags carry the zone), so
  one that reads as zero was left out.
* A capture kernel that binds the namespace initialises its struct pages anew
  (``memmap_init_zone_device()``), before they are saved. Then their ``pgmap`` words name no page
  map of the crashed kernel, and pages are idle although ``i_pages``, which is in RAM, has entries
  for them. That never happened to live memory, nor to a dump that a hypervisor took of the kernel
  itself: QEMU's of a capture kernel may be opened as the crashed one's, by its vmcoreinfo device.
"""

from collections.abc import Iterable, Iterator
import functools
from typing import TYPE_CHECKING, Any

from drgn import Program
import numpy as np

from drgn_pmem.analysis.headers.subject import has_panicked
from drgn_pmem.analysis.owners.daxfiles import dax_files_of
from drgn_pmem.analysis.pages.blocks import Block, for_each_block
from drgn_pmem.analysis.pages.readers import reader_of
from drgn_pmem.dumpfile import DumpFormat, dump_of
from drgn_pmem.errors import DumpFileError, NotInKernel, PmemError
from drgn_pmem.kernel.kexec import crash_image
from drgn_pmem.kernel.page import pages_pgmap
from drgn_pmem.kernel.page_layout import DaxGeneration, PageLayout, page_layout
from drgn_pmem.kernel.pgmap import Pgmap
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.record import Record, Show, shown

if TYPE_CHECKING:
    import numpy.typing as npt

    from drgn_pmem.analysis.memmap.sources import Memmap

    Words = npt.NDArray[np.uint64]

__all__ = ("MemmapCheck", "check_memmap", "overwritten_notes")

_BUDGET = 64 << 20
"""bytes of struct pages that are looked at; beyond, every n-th block"""

_MAX_ENTRIES = 1 << 16

_FEW = 512
"""struct pages that are looked at where all are not asked for"""


class MemmapCheck(Record):
    """What the saved struct pages of a page map look like."""

    total: int
    """Struct pages that the dump holds."""
    looked_at: int
    zero: int
    """Of those looked at, all zero: left out by makedumpfile."""
    heads: int
    """Not zero, and no tail pages: their word is a page map."""
    foreign: int
    """Of the heads, those whose page map is not in ``pgmap_array``."""
    foreign_pgmap: int | None = shown(Show.ADDRESS)
    """One such pointer."""
    used: int
    """Of the heads, those with a mapping."""
    entries: int
    """Pages that a DAX entry of ``i_pages`` names, and whose struct page was looked at for it."""
    entries_idle: int
    """Of those, idle ones: without mapping, share count, map count and references."""
    could_be: bool = shown(json=False, default=True)
    """Whether another kernel may have run before the memory was saved."""

    @property
    def sampled(self) -> bool:
        """Whether not all of them were looked at."""
        return self.looked_at < self.total

    @property
    def destroyed(self) -> bool:
        """
        Whether another kernel initialised the struct pages again.

        A few foreign pointers are damage of another kind; and a page between two states may have an
        entry and no mapping yet.
        """
        if not self.could_be:
            return False
        if self.heads and self.foreign * 2 > self.heads:
            return True
        return self.entries >= 4 and self.entries_idle * 10 > self.entries * 9

    @property
    def zero_share(self) -> float:
        """Share of the struct pages that read as zero."""
        return self.zero / self.looked_at if self.looked_at else 0.0

    @property
    def evidence(self) -> str:
        """Why :attr:`destroyed` is set."""
        parts = []
        if self.foreign:
            shown = "" if self.foreign_pgmap is None else f" (such as {self.foreign_pgmap:#x})"
            parts.append(
                f"{self.foreign} of {self.heads} struct pages name a page map that the crashed "
                f"kernel did not have{shown}"
            )
        if self.entries_idle:
            parts.append(
                f"{self.entries_idle} of {self.entries} pages that DAX files have entries for "
                "are idle"
            )
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"destroyed": self.destroyed}


def check_memmap(
    prog: Program, first_pfn: int, end_pfn: int, pgmaps: list[Pgmap] | None
) -> Partial[MemmapCheck]:
    """
    Look at the saved struct pages of a page map, all of them or a sample.

    :param first_pfn: First PFN whose struct page the kernel initialised.
    :param end_pfn: End, exclusive.
    :param pgmaps: Every page map of the crashed kernel; None if they are not known.
    :raises MissingDebugInfo: if the layout of struct page is not known
    """
    return _Check(prog, first_pfn, end_pfn, pgmaps).run()


def overwritten_notes(prog: Program, memmaps: "Iterable[Memmap]") -> Partial[list[str]]:
    """
    A sentence for each namespace whose first struct pages were saved and point to no page map of
    the crashed kernel: that they were saved is then no good news.

    :raises MissingDebugInfo: if the layout of struct page is not known
    """
    problems = Problems()
    notes: list[str] = []
    pgmaps = pages_pgmap(prog)
    if not _could_be(prog) or not pgmaps.complete:
        return Partial(notes)
    for memmap in memmaps:
        pages = memmap.struct_pages
        if pages is None or not pages.saved or memmap.pgmap is None:
            continue
        end = pages.first_pfn + min(pages.npfns, _FEW)
        check = _Check(prog, pages.first_pfn, end, problems.take(pgmaps))
        if problems.take(check.quick()):
            notes.append(
                f"{memmap.namespace.dev}: struct pages were saved, but overwritten after the crash "
                "(they point to no page map of the crashed kernel): see pmem-coverage"
            )
    return problems.partial(notes)


class _Check:
    def __init__(
        self, prog: Program, first_pfn: int, end_pfn: int, pgmaps: list[Pgmap] | None
    ) -> None:
        self.problems = Problems()
        self.prog = prog
        self.first, self.end = first_pfn, end_pfn
        self.layout: PageLayout = page_layout(prog)
        self.known = (
            None if pgmaps is None else np.array(sorted({p.address for p in pgmaps}), np.uint64)
        )
        self.blocks = [
            block
            for block in for_each_block(prog, self.layout, first_pfn, end_pfn)
            if isinstance(block, Block)
        ]
        self.looked_at = self.zero = self.heads = self.foreign = self.used = 0
        self.foreign_pgmap: int | None = None

    def run(self) -> Partial[MemmapCheck]:
        total = sum(block.count for block in self.blocks)
        step = max(1, total * self.layout.size // _BUDGET)
        for _, words in self._read(self.blocks[::step]):
            self._look(words)
        entries = idle = 0
        if self.heads and (self.foreign or not self.used):
            entries, idle = self._entries()
        check = MemmapCheck(
            total=total,
            looked_at=self.looked_at,
            zero=self.zero,
            heads=self.heads,
            foreign=self.foreign,
            foreign_pgmap=self.foreign_pgmap,
            used=self.used,
            entries=entries,
            entries_idle=idle,
            could_be=_could_be(self.prog),
        )
        return self.problems.partial(check)

    def quick(self) -> Partial[bool]:
        """Whether all of them point to page maps that the crashed kernel did not have."""
        for _, words in self._read(self.blocks):
            self._look(words)
        return self.problems.partial(0 < self.heads == self.foreign)

    def _read(self, blocks: list[Block]) -> Iterator["tuple[Block, Words]"]:
        """Words of every struct page of the blocks that can be read: one row each."""
        reader = reader_of(self.prog)
        order = "<" if self.layout.little_endian else ">"
        for block in blocks:
            size = block.count * self.layout.size
            data = self.problems.attempt(
                f"struct pages from PFN {block.pfn:#x} on",
                functools.partial(reader.read, block, size),
            )
            if data is None:
                continue
            yield block, data.view(f"{order}u8").reshape(block.count, self.layout.size // 8)

    def _look(self, words: "Words") -> None:
        layout = self.layout
        nonzero = words.any(axis=1)
        word = words[:, layout.word // 8]
        heads = nonzero & ((word & np.uint64(1)) == 0)
        owners = word[heads].astype(np.uint64)
        foreign = owners[:0] if self.known is None else owners[~np.isin(owners, self.known)]
        self.looked_at += len(words)
        self.zero += int(len(words) - nonzero.sum())
        self.heads += len(owners)
        self.foreign += len(foreign)
        self.used += int((words[heads, layout.mapping // 8] != 0).sum())
        if self.foreign_pgmap is None and len(foreign):
            self.foreign_pgmap = int(foreign[0])

    def _entries(self) -> tuple[int, int]:
        """Pages that DAX entries name and whose struct page is there; idle ones among them."""
        rows = []
        with self.problems.trying("DAX files"):
            for file in self.problems.take(dax_files_of(self.prog)).files:
                rows.append(self.problems.take(file.entries).with_pfn()["pfn"])
        pfns = np.unique(np.concatenate(rows)) if rows else np.zeros(0, np.uint64)
        pfns = pfns[(pfns >= np.uint64(self.first)) & (pfns < np.uint64(self.end))]
        pfns = pfns[:: max(1, len(pfns) // _MAX_ENTRIES)]
        wanted = [
            block
            for block in self.blocks
            if np.searchsorted(pfns, np.uint64(block.pfn))
            < np.searchsorted(pfns, np.uint64(block.pfn + block.count))
        ]
        seen = idle = 0
        for block, words in self._read(wanted):
            low, high = np.searchsorted(
                pfns, np.array([block.pfn, block.pfn + block.count], np.uint64)
            )
            pages = words[(pfns[low:high] - np.uint64(block.pfn)).astype(np.int64)]
            pages = pages[pages.any(axis=1)]
            seen += len(pages)
            idle += int(self._idle(pages).sum())
        return seen, idle

    def _idle(self, pages: "Words") -> "npt.NDArray[np.bool_]":
        """Of struct pages, whether each is as the kernel initialises it. A page of a shared extent
        has no mapping since 6.15, but a share count; the pages of a large folio are its tails."""
        layout = self.layout
        count = self._half(pages, layout.refcount)
        return (
            (pages[:, layout.mapping // 8] == 0)
            & (pages[:, layout.index // 8] == 0)
            & ((pages[:, layout.word // 8] & 1) == 0)
            & (self._half(pages, layout.mapcount) == 0xFFFFFFFF)
            & (count <= (0 if layout.generation is DaxGeneration.FOLIO else 1))
        )

    def _half(self, pages: "Words", offset: int) -> "Words":
        """A 32-bit member of each."""
        at = offset % 8 if self.layout.little_endian else 4 - offset % 8
        words: Words = pages[:, offset // 8].astype(np.uint64)
        return (words >> np.uint64(8 * at)) & np.uint64(0xFFFFFFFF)


def _could_be(prog: Program) -> bool:
    """Whether a capture kernel may have run before the memory was saved."""
    try:
        dump = dump_of(prog)
    except DumpFileError:
        # not a problem: memory that was added segment by segment, of which nothing is known
        return True
    if dump.contained is DumpFormat.LIVE:
        return False
    return not dump.hypervisor or _capture_kernel_started(prog)


def _capture_kernel_started(prog: Program) -> bool:
    """Of a hypervisor's dump: whether a panic has started the crash kernel that was loaded."""
    try:
        return has_panicked(prog) and crash_image(prog) is not None
    except NotInKernel:
        # not a problem: without kexec there is no capture kernel
        return False
    except PmemError:
        # not a problem: it may have been; the struct pages decide
        return True
