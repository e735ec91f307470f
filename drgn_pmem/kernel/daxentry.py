# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
DAX entries
-----------

What ``address_space.i_pages`` of a DAX file holds: no pages but value entries with a PFN and flags.
They are in RAM, so they are in a dump that has no struct page of the persistent memory. Sources:
fs/dax.c (``DAX_SHIFT`` and the flags), lib/xarray.c and include/linux/xarray.h (nodes, siblings,
marks).

The nodes are read raw, level by level, and decoded with numpy: a hundred thousand entries are a
matter of milliseconds. A node is accepted only at the place that its own ``parent`` and ``offset``
name, so that a tree with cycles or aliases ends.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from drgn import Program, offsetof
import numpy as np
import numpy.typing as npt

from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel.debuginfo import find_type
from drgn_pmem.kernel.memory import Memory, cached, memory_of
from drgn_pmem.partial import NotSaved

__all__ = ("DaxEntries", "DaxEntry", "decode_value", "read_dax_entries")

# fs/dax.c. Macros, so not in the debug info; the same since v4.20 (when i_pages became an XArray).
_DAX_SHIFT = 4
_DAX_LOCKED = 1 << 0
_DAX_PMD = 1 << 1
_DAX_ZERO_PAGE = 1 << 2
_DAX_EMPTY = 1 << 3

_FLAGS = _DAX_LOCKED | _DAX_PMD | _DAX_ZERO_PAGE | _DAX_EMPTY

# Our own bits beside them, in the flags column.
_DIRTY = 1 << 4
_WRITEBACK = 1 << 5
_TOWRITE = 1 << 6

_MARKS = (_DIRTY, _WRITEBACK, _TOWRITE)
"""PAGECACHE_TAG_DIRTY, _WRITEBACK and _TOWRITE are XA_MARK_0 to XA_MARK_2."""

_XA_FLAGS_BITS = 6
"""Bits of ``xa_flags`` below its marks. ``XA_FLAGS_MARK(n)`` is ``1 << (__GFP_BITS_SHIFT + n)``,
and that shift is a macro that differs by kernel and configuration."""

_MAX_NODES = 1 << 22
_MAX_PROBLEMS = 20

ENTRY = np.dtype(
    [("index", np.uint64), ("pfn", np.uint64), ("order", np.uint8), ("flags", np.uint8)]
)
"""One entry of a table: page index of its first page in the file, first PFN, order, flags."""


@dataclass(frozen=True)
class DaxEntry:
    """One DAX entry of ``i_pages``."""

    index: int
    """Page index in the file of the entry's first page."""
    pfn: int | None
    """First PFN; None for an empty entry or the zero page."""
    order: int
    """It covers ``1 << order`` pages."""
    locked: bool
    pmd: bool
    zero: bool
    """A hole that was read: the zero page is mapped."""
    empty: bool
    """A placeholder: a fault was about to fill it in."""
    dirty: bool
    writeback: bool
    towrite: bool

    def pfn_at(self, index: int) -> int | None:
        """
        PFN of a page inside the entry.

        :param index: Page index in the file.
        """
        return None if self.pfn is None else self.pfn + (index - self.index)

    def to_json(self) -> dict[str, Any]:
        return {
            "order": self.order,
            "dirty": self.dirty,
            "locked": self.locked,
            "towrite": self.towrite,
            "zero": self.zero,
            "empty": self.empty,
        }


def decode_value(entry: int) -> tuple[int, int]:
    """
    Decode a value entry.

    :param entry: The slot's word, bit 0 set.
    :return: PFN; flags (``DAX_LOCKED`` ...).
    """
    value = entry >> 1
    return value >> _DAX_SHIFT, value & _FLAGS


@dataclass(frozen=True)
class DaxEntries:
    """All DAX entries of one address space."""

    table: "npt.NDArray[np.void]" = field(repr=False, compare=False)
    """Rows of :data:`ENTRY`, ordered by index."""
    problems: tuple[str, ...] = ()
    """Why the table may lack entries; none if it is complete."""
    others: int = 0
    """Entries that are no DAX entries: struct pages or shadow entries of a file without DAX."""

    def __len__(self) -> int:
        return len(self.table)

    def _entry(self, position: int) -> DaxEntry:
        index, pfn, order, flags = (int(v) for v in self.table[position].tolist())
        none = bool(flags & (_DAX_ZERO_PAGE | _DAX_EMPTY))
        return DaxEntry(
            index,
            None if none else pfn,
            order,
            bool(flags & _DAX_LOCKED),
            bool(flags & _DAX_PMD),
            bool(flags & _DAX_ZERO_PAGE),
            bool(flags & _DAX_EMPTY),
            bool(flags & _DIRTY),
            bool(flags & _WRITEBACK),
            bool(flags & _TOWRITE),
        )

    def __iter__(self) -> Iterator[DaxEntry]:
        for position in range(len(self.table)):
            yield self._entry(position)

    def find(self, index: int) -> DaxEntry | None:
        """
        The entry that covers a page of the file.

        :param index: Page index in the file.
        """
        if index < 0 or index >> 64:
            return None
        position = int(np.searchsorted(self.table["index"], np.uint64(index), side="right")) - 1
        if position < 0:
            return None
        entry = self._entry(position)
        return entry if index < entry.index + (1 << entry.order) else None

    def with_pfn(self) -> "npt.NDArray[np.void]":
        """The rows that name a PFN."""
        none = _DAX_ZERO_PAGE | _DAX_EMPTY
        rows: npt.NDArray[np.void] = self.table[(self.table["flags"] & none) == 0]
        return rows

    def pages(self, flag: str | None = None) -> int:
        """
        Pages that the entries cover.

        :param flag: Only of entries that are ``"dirty"``, ``"towrite"``, ``"locked"``, ``"pmd"``,
            ``"zero"`` or ``"empty"``; None for those that name a PFN.
        """
        bits = {
            "dirty": _DIRTY,
            "towrite": _TOWRITE,
            "locked": _DAX_LOCKED,
            "pmd": _DAX_PMD,
            "zero": _DAX_ZERO_PAGE,
            "empty": _DAX_EMPTY,
        }
        rows = (
            self.with_pfn() if flag is None else self.table[(self.table["flags"] & bits[flag]) != 0]
        )
        return int((np.uint64(1) << rows["order"].astype(np.uint64)).sum()) if len(rows) else 0


class _NodeLayout:
    """``struct xa_node`` as a numpy record, from the debug info."""

    def __init__(self, prog: Program, memory: Memory) -> None:
        type_ = find_type(prog, "struct xa_node", "vmlinux")
        slots = type_.member("slots").type
        marks = type_.member("marks").type
        words = marks.type.length
        assert slots.length is not None
        assert marks.length is not None
        assert type_.size is not None
        assert words is not None
        self.size = type_.size
        self.slots = slots.length
        self.chunk_shift = slots.length.bit_length() - 1
        self.mark_bits = 8 * memory.word_size
        word = f"{memory.order}u{memory.word_size}"
        # Any: whether numpy's annotations know this form depends on its version.
        members: Any = {
            "names": ["shift", "offset", "parent", "slots", "marks"],
            "formats": [
                "u1",
                "u1",
                word,
                (word, (slots.length,)),
                (word, (marks.length, words)),
            ],
            "offsets": [
                offsetof(type_, name) for name in ("shift", "offset", "parent", "slots", "marks")
            ],
            "itemsize": type_.size,
        }
        self.dtype = np.dtype(members)


def _node_layout(prog: Program) -> _NodeLayout:
    layout: _NodeLayout = cached(prog, "xa_node", lambda: _NodeLayout(prog, memory_of(prog)))
    return layout


def _is_node(entry: Any) -> Any:
    """``xa_is_node()``, of words or arrays of them."""
    return ((entry & 3) == 2) & (entry > 4096)


class _Walk:
    """One walk of a tree, level by level."""

    def __init__(self, prog: Program) -> None:
        self.memory = memory_of(prog)
        self.layout = _node_layout(prog)
        self.found: list[npt.NDArray[np.void]] = []
        self.problems: list[str] = []
        self.others = 0
        self.nodes = 0

    def problem(self, text: str) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(text)

    def read_level(
        self, level: "list[tuple[int, int, int, int]]", shift: int | None
    ) -> "tuple[npt.NDArray[np.void], list[tuple[int, int]]]":
        """
        Read the nodes of a level: (address, index, parent, offset) each.

        :param shift: What their ``shift`` must be; None for the root.
        :return: The nodes; (address, index) of each.
        """
        parts: list[bytes] = []
        where: list[tuple[int, int]] = []
        layout = self.layout
        for address, index, parent, offset in level:
            if self.nodes >= _MAX_NODES:
                self.problem(f"stopped after {_MAX_NODES} nodes: too many to be sound")
                break
            self.nodes += 1
            try:
                data = self.memory.read(address, layout.size)
            except NotSaved as error:
                self.problem(f"xa_node {address:#x}: {error}")
                continue
            node = np.frombuffer(data, layout.dtype)[0]
            sound = int(node["parent"]) == parent and (not parent or int(node["offset"]) == offset)
            if not sound:
                self.problem(
                    f"xa_node {address:#x} is not the child that its place in the tree says"
                )
                continue
            if shift is None:
                top = 8 * self.memory.word_size
                if int(node["shift"]) % layout.chunk_shift or int(node["shift"]) >= top:
                    self.problem(f"xa_node {address:#x}: shift {int(node['shift'])} is not sound")
                    continue
            elif int(node["shift"]) != shift:
                self.problem(
                    f"xa_node {address:#x}: shift {int(node['shift'])} where {shift} belongs"
                )
                continue
            parts.append(data)
            where.append((address, index))
        return np.frombuffer(b"".join(parts), layout.dtype), where

    def values(
        self, nodes: "npt.NDArray[np.void]", where: "list[tuple[int, int]]", shift: int
    ) -> None:
        """Decode the value entries of a level's nodes."""
        slots = nodes["slots"].astype(np.uint64)
        rows, columns = np.nonzero(slots & np.uint64(1))
        if not len(rows):
            return
        values = slots[rows, columns] >> np.uint64(1)
        table = np.zeros(len(rows), ENTRY)
        bases = np.array([index for _, index in where], np.uint64)
        table["index"] = bases[rows] + (columns.astype(np.uint64) << np.uint64(shift))
        table["pfn"] = values >> np.uint64(_DAX_SHIFT)
        flags = (values & np.uint64(_FLAGS)).astype(np.uint8)
        marks = nodes["marks"].astype(np.uint64)
        bits = self.layout.mark_bits
        for mark, bit in enumerate(_MARKS[: marks.shape[1]]):
            word = marks[rows, mark, columns // bits]
            is_set = (word >> (columns % bits).astype(np.uint64)) & np.uint64(1)
            flags |= (is_set * np.uint64(bit)).astype(np.uint8)
        table["flags"] = flags
        table["order"] = shift + self._sibling_orders(slots, rows, columns)
        self.found.append(table)

    def _sibling_orders(
        self,
        slots: "npt.NDArray[np.uint64]",
        rows: "npt.NDArray[np.intp]",
        columns: "npt.NDArray[np.intp]",
    ) -> "npt.NDArray[np.uint8]":
        """log2 of the slots that each entry takes: itself and the siblings that point to it."""
        orders = np.zeros(len(rows), np.uint8)
        # xa_mk_sibling(offset): an internal entry below XA_CHUNK_SIZE.
        internal = (slots & np.uint64(3)) == 2
        sibling = internal & (slots < np.uint64(4 * self.layout.slots))
        if not sibling.any():
            return orders
        for position in np.nonzero(sibling.any(axis=1)[rows])[0]:
            row, column = rows[position], columns[position]
            count = 1 + int((sibling[row] & ((slots[row] >> np.uint64(2)) == column)).sum())
            orders[position] = max(count.bit_length() - 1, 0)
        return orders

    def children(
        self, nodes: "npt.NDArray[np.void]", where: "list[tuple[int, int]]", shift: int
    ) -> "list[tuple[int, int, int, int]]":
        slots = nodes["slots"].astype(np.uint64)
        rows, columns = np.nonzero(_is_node(slots))
        # Neither a value nor internal: a page in the page cache of a file without DAX.
        self.others += int((((slots & np.uint64(3)) == 0) & (slots != 0)).sum())
        if len(rows) and not shift:
            self.problem(f"{len(rows)} nodes below the last level")
            return []
        pointers = (slots[rows, columns] - np.uint64(2)).tolist()
        return [
            (pointer, where[row][1] + (column << shift), where[row][0], column)
            for pointer, row, column in zip(pointers, rows.tolist(), columns.tolist(), strict=True)
        ]

    def run(self, head: int) -> None:
        level = [(head - 2, 0, 0, 0)]
        shift: int | None = None
        while level:
            nodes, where = self.read_level(level, shift)
            if not len(nodes):
                return
            current = int(nodes[0]["shift"])
            self.values(nodes, where, current)
            level = self.children(nodes, where, current)
            shift = current - self.layout.chunk_shift


def read_dax_entries(prog: Program, i_pages: int) -> DaxEntries:
    """
    All DAX entries of an address space. Never raises for what the dump lacks: see
    :attr:`DaxEntries.problems`.

    :param i_pages: Address of its ``struct xarray``.
    :raises MissingDebugInfo: if ``i_pages`` is no XArray (kernels before 4.20)
    """
    memory = memory_of(prog)
    xarray = find_type(prog, "struct xarray", "vmlinux")
    empty = np.zeros(0, ENTRY)
    if not xarray.has_member("xa_head"):
        raise MissingDebugInfo(
            "struct xarray has no xa_head: DAX entries of this kernel are unknown"
        )
    try:
        head = memory.word(i_pages + offsetof(xarray, "xa_head"))
    except NotSaved as error:
        return DaxEntries(empty, (f"i_pages {i_pages:#x}: {error}",))
    if not head:
        return DaxEntries(empty)
    if head & 1:
        return DaxEntries(_single(memory, i_pages + offsetof(xarray, "xa_flags"), head))
    if not _is_node(head):
        return DaxEntries(empty, others=1)
    walk = _Walk(prog)
    walk.run(head)
    table = np.concatenate(walk.found) if walk.found else empty
    table = table[np.argsort(table["index"], kind="stable")]
    return DaxEntries(table, tuple(walk.problems), walk.others)


def _single(memory: Memory, flags_address: int, head: int) -> "npt.NDArray[np.void]":
    """The only entry of a tree without nodes: page 0; its marks are in ``xa_flags``."""
    pfn, flags = decode_value(head)
    try:
        marks = int.from_bytes(
            memory.read(flags_address, 4), "little" if memory.order == "<" else "big"
        )
    except NotSaved:
        marks = 0
    marks >>= _XA_FLAGS_BITS
    if marks:
        # Only dirty entries are marked for writing (fs/dax.c clears DIRTY last), so the lowest bit
        # is PAGECACHE_TAG_DIRTY.
        marks //= marks & -marks
        for mark, bit in enumerate(_MARKS):
            if marks >> mark & 1:
                flags |= bit
    return np.array([(0, pfn, 0, flags)], ENTRY)
