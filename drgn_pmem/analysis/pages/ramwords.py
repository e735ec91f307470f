# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Struct pages of RAM in bulk
---------------------------

The uses of all pages of a memory block, with numpy and no work per page: as
:func:`drgn_pmem.kernel.ramuse.ram_use_of` finds it for one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from drgn import Program
import numpy as np

from drgn_pmem.analysis.pages.blocks import Gap, for_each_block
from drgn_pmem.analysis.pages.readers import reader_of
from drgn_pmem.dumpfile import Coverage, State
from drgn_pmem.errors import DumpFileError
from drgn_pmem.kernel.page_layout import PageLayout, page_layout
from drgn_pmem.kernel.pageuse import PageMarks, RamUse, page_marks, use_by_words
from drgn_pmem.kernel.ramuse import large_mapcount
from drgn_pmem.partial import Cause, Partial, Problem, Problems

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.void]
    Codes = NDArray[np.int8]
    Mask = NDArray[np.bool_]

__all__ = ("NOT_KNOWN", "USES", "RamWords", "read_ram_words")

USES = tuple(RamUse)
CODES = {use: code for code, use in enumerate(USES)}
NOT_KNOWN = -1
"""Use, or count of extra references, that is not known."""

_MAX_ORDER = 16
_MAX_READ = 1 << 16
"""Mapcounts of large folios of a memory block that are read one by one."""
_UNTYPED = 0xFFFFFFFF
_SIGN = np.uint64(1 << 63)


@dataclass
class RamWords:
    """Pages of a range of PFNs, one element each."""

    pfn: int
    """Of the first."""
    state: "NDArray[np.uint8]"
    """Of the struct pages, as :meth:`drgn_pmem.dumpfile.Coverage.code`."""
    words: "Words"
    """Their words; of tail pages those of the head."""
    head: "NDArray[np.int64]"
    """Index of the head of its folio; its own of a page that is none's tail."""
    use: "Codes"
    """Index in :data:`USES`, or :data:`NOT_KNOWN`."""
    extra: "NDArray[np.int64]" = field(default_factory=lambda: np.zeros(0, np.int64))
    """References beyond those of mappings, the page cache and LRU batches; 0 for other pages."""

    @property
    def tail(self) -> "Mask":
        return self.head != np.arange(len(self.head))

    @property
    def saved(self) -> "Mask":
        return self.state == Coverage.code(State.SAVED)

    def is_use(self, *uses: RamUse) -> "Mask":
        return np.isin(self.use, [CODES[use] for use in uses])


def _dtype(prog: Program, layout: PageLayout) -> Any:
    order = "<" if layout.little_endian else ">"
    private = prog.type("struct page").member("private").offset
    return np.dtype(
        {
            "names": ["flags", "word", "mapping", "index", "private", "type", "refcount"],
            "formats": [f"{order}u8"] * 5 + [f"{order}u4", f"{order}i4"],
            "offsets": [layout.flags, layout.word, layout.mapping, layout.index, private,
                        layout.mapcount, layout.refcount],
            "itemsize": layout.size,
        }
    )  # fmt: skip


_NATIVE = np.dtype([("flags", "u8"), ("word", "u8"), ("mapping", "u8"), ("index", "u8"),
                    ("private", "u8"), ("type", "u4"), ("refcount", "i4")])  # fmt: skip


def read_ram_words(
    prog: Program,
    start_pfn: int,
    end_pfn: int,
    free: Mapping[int, int],
    batches: Partial[dict[int, int]],
) -> Partial[RamWords]:
    """
    The uses of a range of pages: of a memory block, across whose ends no block of free pages goes.

    :param start_pfn: First PFN.
    :param end_pfn: End, exclusive.
    :param free: Free pages on lists of the CPUs: PFN -> order.
    :param batches: References of the CPUs' LRU batches by PFN.
    """
    problems = Problems()
    layout, marks = page_layout(prog), page_marks(prog)
    count = end_pfn - start_pfn
    words = np.zeros(count, _NATIVE)
    state = np.full(count, Coverage.code(State.ABSENT), np.uint8)
    reader, dtype = reader_of(prog), _dtype(prog, layout)
    for part in for_each_block(prog, layout, start_pfn, end_pfn):
        here = slice(part.pfn - start_pfn, part.pfn - start_pfn + part.count)
        if isinstance(part, Gap):
            state[here] = Coverage.code(part.state)
            continue
        try:
            data = reader.read(part, part.count * layout.size)
        except DumpFileError as error:
            state[here] = Coverage.code(State.DAMAGED)
            what = f"{part.count} struct pages from PFN {part.pfn:#x} on"
            problems.add(Problem(cause=Cause.DAMAGED, what=what, why=str(error)))
            continue
        pages = np.frombuffer(data, dtype)
        for name in _NATIVE.names or ():
            words[name][here] = pages[name]
        state[here] = Coverage.code(State.SAVED)
        # makedumpfile -E writes zeroes for few pages that it leaves out. An initialised struct page
        # without references has a _mapcount of -1.
        zero = np.ones(part.count, bool)
        for name in ("flags", "word", "mapping", "type", "refcount"):
            zero &= pages[name] == 0
        state[here][zero] = Coverage.code(State.EXCLUDED)
    found = _heads(start_pfn, state, words, layout)
    _uses(found, marks)
    _free(found, marks, free)
    _extra(found, marks, layout, problems.take(batches), batches.complete)
    _extra_of_large(prog, found, marks, layout)
    return problems.partial(found)


def _heads(pfn: int, state: Any, words: "Words", layout: PageLayout) -> RamWords:
    """Tail pages get the words of their head; those without one in the range are not known."""
    use = np.full(len(words), NOT_KNOWN, np.int8)
    heads = np.arange(len(words))
    at = np.flatnonzero(words["word"] & np.uint64(1))
    if len(at):
        size, vmemmap = np.uint64(layout.size), np.uint64(layout.vmemmap)
        word = words["word"][at]
        own = vmemmap + (at.astype(np.uint64) + np.uint64(pfn)) * size
        address = own & word if layout.head_is_mask else word - np.uint64(1)
        head = ((address - vmemmap) // size).astype(np.int64) - pfn
        inside = (head >= 0) & (head < at)
        heads[at] = np.where(inside, head, NOT_KNOWN)
        words[at[inside]] = words[head[inside]]
        state = state.copy()
        state[at[inside]] = np.maximum(state[at[inside]], state[head[inside]])
        words["refcount"][at[~inside]] = NOT_KNOWN
    return RamWords(pfn, state, words, heads, use)


def _uses(found: RamWords, marks: PageMarks) -> None:
    """What the words say: asked once for each combination of them."""
    words = found.words
    typed = words["type"] >= np.uint32(0x80000000)
    kind = np.where(typed, words["type"], np.uint32(_UNTYPED)).astype(np.uint64)
    mapping = words["mapping"]
    key = kind << np.uint64(16)
    key |= (mapping & np.uint64(3)) | (mapping > 3).astype(np.uint64) << np.uint64(2)
    key |= (mapping & _SIGN != 0).astype(np.uint64) << np.uint64(3)
    key |= (np.sign(words["refcount"]) + 1).astype(np.uint64) << np.uint64(4)
    key |= (words["flags"] & np.uint64(marks.slab) != 0).astype(np.uint64) << np.uint64(8)
    key |= (words["flags"] & np.uint64(marks.reserved) != 0).astype(np.uint64) << np.uint64(9)
    _, first, which = np.unique(key, return_index=True, return_inverse=True)
    codes = []
    for at in first.tolist():
        row = words[at]
        use = use_by_words(
            marks, int(row["flags"]), int(kind[at]), int(row["mapping"]), int(row["refcount"])
        )
        codes.append(NOT_KNOWN if use is None else CODES[use])
    found.use[:] = np.array(codes, np.int8)[which.reshape(-1)]
    found.use[~found.saved] = NOT_KNOWN


def _free(found: RamWords, marks: PageMarks, free: Mapping[int, int]) -> None:
    """Blocks of free pages: of the buddy allocator by their mark, of the CPUs by their lists."""
    words = found.words
    unused = found.saved & (found.use == NOT_KNOWN) & (words["refcount"] == 0)
    if marks.buddy is not None:
        heads = np.flatnonzero(unused & (words["type"] == np.uint32(marks.buddy)))
        heads = heads[words["private"][heads] <= _MAX_ORDER]
        orders = words["private"][heads].astype(np.int64)
        _mark(found, unused, RamUse.FREE, heads, orders)
    starts = np.fromiter(free, np.int64, len(free)) - found.pfn
    sizes = np.fromiter(free.values(), np.int64, len(free))
    inside = (starts >= 0) & (starts < len(words))
    _mark(found, unused, RamUse.CPU_FREE, starts[inside], sizes[inside])


def _mark(found: RamWords, unused: "Mask", use: RamUse, starts: Any, orders: Any) -> None:
    """Give the pages of some blocks a use, if none of their words contradicts it."""
    if not len(starts):
        return
    edges = np.zeros(len(found.use) + 1, np.int64)
    ends = np.minimum(starts + (np.int64(1) << orders), len(found.use))
    np.add.at(edges, starts, 1)
    np.add.at(edges, ends, -1)
    inside = np.cumsum(edges[:-1]) > 0
    found.use[inside & unused & (found.use == NOT_KNOWN)] = CODES[use]


def _extra(
    found: RamWords,
    marks: PageMarks,
    layout: PageLayout,
    batches: Mapping[int, int],
    all_batches: bool,
) -> None:
    """References beyond those of the page cache, of mappings and of LRU batches
    (``folio_expected_ref_count()``), of small pages."""
    words = found.words
    cached = found.is_use(RamUse.PAGE_CACHE)
    movable = cached | found.is_use(RamUse.ANONYMOUS)
    expected = (words["type"] + np.uint32(1)).astype(np.int64)
    expected += cached | (words["flags"] & np.uint64(marks.swap_cache) != 0)
    expected += words["flags"] & np.uint64(marks.private) != 0
    for pfn, count in batches.items():
        if 0 <= pfn - found.pfn < len(words):
            expected[pfn - found.pfn] += count
    extra = np.maximum(words["refcount"].astype(np.int64) - expected, 0)
    if not all_batches:
        extra[extra > 0] = NOT_KNOWN
    found.extra = np.where(movable, extra, 0)


def _extra_of_large(prog: Program, found: RamWords, marks: PageMarks, layout: PageLayout) -> None:
    """The same of large folios, whose mappings are counted in their first tail: it is read where
    the other references do not explain all."""
    words = found.words
    large = found.is_use(RamUse.PAGE_CACHE, RamUse.ANONYMOUS)
    large &= found.tail | (words["flags"] & np.uint64(layout.head_bit or 0) != 0)
    if not large.any():
        return
    own = np.maximum(found.head, 0)
    pages = np.bincount(own, minlength=len(words))
    cached = found.is_use(RamUse.PAGE_CACHE) | (words["flags"] & np.uint64(marks.swap_cache) != 0)
    left = words["refcount"].astype(np.int64) - np.where(cached, pages, 0)
    left -= words["flags"] & np.uint64(marks.private) != 0
    extra = np.maximum(left, 0)
    heads = np.flatnonzero(large & ~found.tail & (extra > 0)).tolist()
    for read, at in enumerate(heads):
        mapped = large_mapcount(prog, found.pfn + at) if read < _MAX_READ else None
        extra[at] = NOT_KNOWN if mapped is None else max(0, int(left[at]) - mapped)
    found.extra[large] = np.where(found.head[large] < 0, NOT_KNOWN, extra[own[large]])
