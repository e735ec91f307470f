# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Blocks of struct pages decoded
------------------------------

Blocks of struct pages decoded into runs of equal ones, with numpy and no work per page. Most of a
struct page array is one page many times over, so a block is first compared with itself shifted by
one page; only where that differs its columns are looked at.
"""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from drgn_pmem.compare import repeats_at
from drgn_pmem.dumpfile import Coverage, State
from drgn_pmem.kernel.page_layout import DaxGeneration, PageLayout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Runs = NDArray[np.void]
    Bytes = NDArray[np.uint8]
from drgn_pmem.analysis.pages.runs import RUN, UNKNOWN_MAPCOUNT, Kind, join

__all__ = ("Decoder", "MemmapDecoder")

_SUB_PAGES = 16384
"""Pages that are compared at once: they, their differences and columns fit into the cache."""

_SPECIAL_PAGES = 4
"""Head and first tails, which hold fields of the folio; all other tails are equal."""

_ZERO = np.zeros(1, np.int64)


class Decoder:
    """
    Turns blocks of struct pages into runs. Blocks may be decoded by several threads at once: it
    keeps nothing between them.

    :param layout: Layout of struct page.
    """

    def __init__(self, layout: PageLayout) -> None:
        self._layout = layout
        order = "<" if layout.little_endian else ">"
        # Any: whether numpy's annotations know this form depends on its version.
        members: Any = {
            "names": ["flags", "word", "mapping", "index", "mapcount", "refcount"],
            "formats": [f"{order}u8"] * 4 + [f"{order}i4"] * 2,
            "offsets": [
                layout.flags,
                layout.word,
                layout.mapping,
                layout.index,
                layout.mapcount,
                layout.refcount,
            ],
            "itemsize": layout.size,
        }
        self._page = np.dtype(members)
        self._keeps_index = layout.keeps_index
        self._keeps_mapcount = layout.generation is DaxGeneration.FOLIO
        self._head_bit = layout.head_bit or 0
        self._poison_bit = np.uint64(layout.hwpoison_bit or 0)

    def decode(self, data: "Bytes", first_pfn: int) -> "Runs":
        """
        Runs of a block. Struct pages of zeroes are a gap: ``makedumpfile -E`` writes zeroes for
        fewer than 256 pages that it leaves out, and no initialised ZONE_DEVICE page has flags of
        zero.

        :param data: Whole struct pages, one after the other.
        :param first_pfn: PFN of the first.
        """
        return self._without_zeroes(self._decode(data, first_pfn))

    def repeated(self, data: "Bytes", times: int, first_pfn: int) -> "Runs":
        """
        Runs of the same struct pages several times over, as :meth:`decode` of all of them.

        :param data: Whole struct pages, one after the other.
        :param times: How often they follow each other.
        """
        pages = np.frombuffer(data, self._page)
        count = times * len(pages)
        address = data.ctypes.data
        if len(pages) > 1 and (
            self._uniform(address, pages) or self._same_tails(address, pages, first_pfn, count)
        ):
            return self._without_zeroes(self._runs(pages[:1], _ZERO, count, first_pfn, pages))
        parts, most = [], max(1, _SUB_PAGES // len(pages))
        for done in range(0, times, most):
            some = np.tile(data, min(most, times - done))
            parts.append(self.decode(some, first_pfn + done * len(pages)))
        return join(parts)

    def _same_tails(self, address: int, pages: "Runs", first_pfn: int, count: int) -> bool:
        """Whether struct pages, the same ones over and over, are tails of one head."""
        size = self._layout.size
        if not int(pages["word"][0]) & 1 or int(pages["flags"][0]) & self._head_bit:
            return False
        if not repeats_at(address, size, len(pages) * size):
            return False
        ends = np.array([first_pfn, first_pfn + count - 1], np.uint64)
        kind, head = self._heads(pages["word"][:1].repeat(2), ends)
        return bool(kind[0] == kind[1] and head[0] == head[1])

    def _without_zeroes(self, runs: "Runs") -> "Runs":
        """Struct pages of zeroes become gaps."""
        left_out = runs["kind"] == Kind.PAGE
        for field in ("flags", "word", "mapping", "refcount"):
            left_out &= runs[field] == 0
        if left_out.any():
            for field in ("shared", "folio", "mapcount", "index"):
                runs[field][left_out] = 0
            runs["kind"][left_out] = Kind.GAP
            runs["state"][left_out] = Coverage.code(State.EXCLUDED)
        return runs

    def _decode(self, data: "Bytes", first_pfn: int) -> "Runs":
        size = self._layout.size
        pages = np.frombuffer(data, self._page)
        address = data.ctypes.data
        if len(pages) and self._uniform(address, pages):
            return self._runs(pages[:1], _ZERO, len(pages), first_pfn, pages)
        if len(pages) and int(pages["word"][-1]) & 1:
            starts = self._compounds(address, pages, first_pfn)
            if starts is not None:
                return join([self._runs(pages[starts], starts, len(pages), first_pfn, pages)])
        # Struct pages are rows of words: one difference covers all words at once.
        rows = None
        if size % 8 == 0 and pages["flags"].dtype.isnative:
            rows = data.view(np.uint64).reshape(len(pages), -1)
        steps = np.empty((_SUB_PAGES, size // 8), np.uint64)
        parts = []
        for start in range(0, len(pages), _SUB_PAGES):
            count = min(_SUB_PAGES, len(pages) - start)
            part = pages[start : start + count]
            here = address + start * size
            if self._uniform(here, part) or (
                rows is not None and self._steady(rows[start : start + count], part, steps)
            ):
                starts = _ZERO
            else:
                starts = self._boundaries(part, first_pfn + start)
            following = pages[start:]
            parts.append(self._runs(part[starts], starts, count, first_pfn + start, following))
        return join(parts)

    def _uniform(self, address: int, pages: "Runs") -> bool:
        """Whether all pages of a block are the same bytes, and one run."""
        size = self._layout.size
        if not repeats_at(address, size, len(pages) * size):
            return False
        # Pages of a file have increasing indexes, and where the head of a tail is depends on its
        # address.
        first = pages[0]
        return len(pages) == 1 or not (
            first["mapping"] > 3 or int(first["word"]) & 1 or int(first["flags"]) & self._head_bit
        )

    def _steady(
        self, words: "NDArray[np.uint64]", pages: "Runs", steps: "NDArray[np.uint64]"
    ) -> bool:
        """Whether a block is one run of a file: every page is the one before, one index on."""
        first, count = pages[0], len(pages) - 1
        if (
            not first["mapping"] > 3
            or int(first["word"]) & 1
            or int(first["flags"]) & self._head_bit
        ):
            return False
        step = np.subtract(words[1:], words[:-1], out=steps[:count])
        if not repeats_at(step.ctypes.data, self._layout.size, count * self._layout.size):
            return False
        change = step[:1].view(np.uint8).reshape(-1).view(self._page)[0]
        names = ("flags", "word", "mapping", "mapcount", "refcount")
        return change["index"] == self._keeps_index and not any(change[name] for name in names)

    def _compounds(self, address: int, pages: "Runs", first_pfn: int) -> "NDArray[np.int64] | None":
        """Where runs start in a block of large folios; None if it is none."""
        size = self._layout.size
        heads = np.flatnonzero(pages["word"] & 1 == 0)
        if len(heads) > len(pages) // 64:
            return None
        edges = [0, *heads[heads > 0].tolist(), len(pages)]
        starts: list[int] = []
        bodies: list[int] = []
        lasts: list[int] = []
        for start, end in itertools.pairwise(edges):
            body = min(start + _SPECIAL_PAGES, end - 1)
            starts += range(start, body + 1)
            if not repeats_at(address + body * size, size, (end - body) * size):
                return None
            bodies.append(body)
            lasts.append(end - 1)
        word = pages["word"][bodies]
        kind, head = self._heads(word, np.array(bodies, np.uint64) + np.uint64(first_pfn))
        last_kind, last_head = self._heads(word, np.array(lasts, np.uint64) + np.uint64(first_pfn))
        if not np.array_equal(kind, last_kind) or not np.array_equal(head, last_head):
            return None
        return np.array(starts, np.int64)

    def _boundaries(self, pages: "Runs", first_pfn: int) -> "NDArray[np.int64]":
        """Where runs start in a block."""
        mapping, index, word = pages["mapping"], pages["index"], pages["word"]
        tails = word & 1 != 0
        # The index increases from page to page of a file; all other pages have one index.
        in_file = (mapping[1:] > 3) & ~tails[1:] & self._keeps_index
        changed = index[1:] - index[:-1] != in_file
        for name in ("flags", "word", "mapping", "mapcount", "refcount"):
            column = pages[name]
            changed |= column[1:] != column[:-1]
        changed |= pages["flags"][1:] & np.uint64(self._head_bit) != 0
        if tails.any():
            kind, head = self._heads(word, np.arange(len(pages), dtype=np.uint64) + first_pfn)
            changed |= (tails[1:] & tails[:-1]) & (
                (kind[1:] != kind[:-1]) | (head[1:] != head[:-1])
            )
        return np.concatenate((np.zeros(1, np.int64), np.flatnonzero(changed) + 1))

    def _heads(
        self, word: "NDArray[np.uint64]", pfn: "NDArray[np.uint64]"
    ) -> "tuple[NDArray[np.uint8], NDArray[np.uint64]]":
        """Of tail pages, the kind (``TAIL`` or ``TORN``) and the PFN of the head."""
        layout = self._layout
        size, vmemmap = np.uint64(layout.size), np.uint64(layout.vmemmap)
        address = vmemmap + pfn * size
        head = address & word if layout.head_is_mask else word - np.uint64(1)
        sound = (head >= vmemmap) & (head < address) & ((head - vmemmap) % size == 0)
        kind = np.where(sound, np.uint8(Kind.TAIL), np.uint8(Kind.TORN))
        return kind, np.where(sound, (head - vmemmap) // size, np.uint64(0))

    def _runs(
        self,
        rows: "Runs",
        starts: "NDArray[np.int64]",
        count: int,
        first_pfn: int,
        pages: "Runs",
    ) -> "Runs":
        """
        Runs from the struct page that each begins with.

        :param rows: Those struct pages.
        :param starts: Where they are in the block.
        :param count: Pages of the block.
        :param pages: The block and what follows it.
        """
        runs = np.zeros(len(rows), RUN)
        runs["pfn"] = starts + first_pfn
        runs["count"] = np.diff(starts, append=count)
        runs["folio"] = 1
        for name in ("index", "refcount", "flags", "mapping", "word"):
            runs[name] = rows[name]
        if self._keeps_mapcount:
            # Below -1 it is a page type: never mapped.
            runs["mapcount"] = np.maximum(rows["mapcount"] + 1, 0)
            self._large_mapcounts(runs, starts, pages)
        # The index of a shared page counts who shares it, see PageState.shared; of another page
        # without a mapping it says nothing.
        counts = (runs["index"] > 0) & (runs["index"] < np.uint64(1 << 63))
        if self._layout.generation is DaxGeneration.MAPPING:
            runs["index"][runs["mapping"] == 0] = 0
            runs["shared"] = counts & (runs["mapping"] == 1)
        elif self._layout.generation is DaxGeneration.FOLIO:
            runs["shared"] = counts & (runs["mapping"] == 0)
        if not self._keeps_index:
            # The index of a file's pages increases, whatever it starts from: see PageRange.index.
            runs["index"] = np.where(runs["mapping"] > 3, runs["pfn"], np.uint64(0))
        runs["kind"][runs["flags"] & np.uint64(self._head_bit) != 0] = Kind.HEAD
        tails = runs["word"] & np.uint64(1) != 0
        if tails.any():
            self._tails(runs, tails)
        return runs

    def _large_mapcounts(self, runs: "Runs", starts: "NDArray[np.int64]", pages: "Runs") -> None:
        """The mapcount of a large folio is in its first tail, if that is in the block."""
        large = np.flatnonzero(runs["flags"] & np.uint64(self._head_bit))
        if not len(large):
            return
        runs["mapcount"][large] = UNKNOWN_MAPCOUNT
        offset = self._layout.large_mapcount
        if offset is None or offset + 4 > 2 * self._layout.size:
            return
        at, rest = divmod(offset, self._layout.size)
        inside = large[starts[large] + at < len(pages)]
        data = pages.view(np.uint8).reshape(len(pages), -1) if pages.flags.c_contiguous else None
        if data is None or not len(inside):
            return
        raw = np.ascontiguousarray(data[starts[inside] + at, rest : rest + 4])
        order = "<" if self._layout.little_endian else ">"
        runs["mapcount"][inside] = np.maximum(raw.view(f"{order}i4")[:, 0] + 1, 0)

    def _tails(self, runs: "Runs", tails: "NDArray[np.bool_]") -> None:
        """Make runs of tail pages: only their head and poison matter."""
        kind, head = self._heads(runs["word"][tails], runs["pfn"][tails])
        runs["kind"][tails], runs["mapping"][tails] = kind, head
        runs["flags"][tails] &= self._poison_bit
        for name in ("index", "shared", "refcount", "mapcount", "word"):
            runs[name][tails] = 0


class MemmapDecoder(Decoder):
    """As :class:`Decoder`, of the pages that hold a memmap: the first word of each is the head of a
    list of its own (``INIT_LIST_HEAD`` of ``page.lru``), which would make each one a run."""

    def decode(self, data: "Bytes", first_pfn: int) -> "Runs":
        """As :meth:`Decoder.decode`; the first word of a page that has one is not kept."""
        data = data.copy()
        word = np.frombuffer(data, self._page)["word"]
        word[(word != 0) & (word & 1 == 0)] = 2
        return super().decode(data, first_pfn)
