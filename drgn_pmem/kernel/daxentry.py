# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
DAX entries
-----------

What ``address_space.i_pages`` of a DAX file holds: no pages but value entries with a PFN and flags.
They are in RAM, so they are in a dump that has no struct page of the persistent memory. Sources:
fs/dax.c (``DAX_SHIFT`` and the flags), lib/xarray.c (marks); the layout of the tree's nodes is in
:mod:`drgn_pmem.kernel.daxtree`.

The nodes are read raw, level by level, and decoded with numpy: a hundred thousand entries are a
matter of milliseconds. A node is accepted only at the place that its own ``parent`` and ``offset``
name, so that a tree with cycles or aliases ends.
"""

from collections.abc import Iterator
from typing import Any

from drgn import Object, Program
import numpy as np
import numpy.typing as npt

from drgn_pmem.kernel.daxtree import TreeLayout, tree_layout
from drgn_pmem.kernel.memory import Memory, address_of, memory_of
from drgn_pmem.partial import Cause, Partial, Problem, Problems, WalkError
from drgn_pmem.record import Record

__all__ = ("DaxEntries", "DaxEntry", "read_dax_entries")

# fs/dax.c. Macros, so not in the debug info; the same since v4.17, where a value entry begins.
_DAX_SHIFT = 4
_DAX_LOCKED = 1 << 0
_DAX_PMD = 1 << 1
_DAX_ZERO_PAGE = 1 << 2
_DAX_EMPTY = 1 << 3

_FLAGS = _DAX_LOCKED | _DAX_PMD | _DAX_ZERO_PAGE | _DAX_EMPTY

# Our own bits, in the flags column.
_DIRTY = 1 << 4
_WRITEBACK = 1 << 5
_TOWRITE = 1 << 6
_MARKS_UNKNOWN = 1 << 7

_MARKS = (_DIRTY, _WRITEBACK, _TOWRITE)
"""PAGECACHE_TAG_DIRTY, _WRITEBACK and _TOWRITE are XA_MARK_0 to XA_MARK_2."""

_XA_FLAGS_BITS = 6
"""Bits of ``xa_flags`` below its marks. ``XA_FLAGS_MARK(n)`` is ``1 << (__GFP_BITS_SHIFT + n)``,
and that shift is a macro that differs by kernel and configuration."""

_MAX_NODES = 1 << 22

ENTRY = np.dtype(
    [("index", np.uint64), ("pfn", np.uint64), ("order", np.uint8), ("flags", np.uint8)]
)
"""One entry of a table: page index of its first page in the file, first PFN, order, flags."""


class DaxEntry(Record):
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
    dirty: bool | None
    """None, as the two below: the marks of the tree could not be read."""
    writeback: bool | None
    towrite: bool | None

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


class DaxEntries:
    """
    All DAX entries of one address space.

    :param table: Rows of :data:`ENTRY`, ordered by index.
    """

    def __init__(self, table: "npt.NDArray[np.void]") -> None:
        self.table = table

    def __repr__(self) -> str:
        return f"<{len(self)} DAX entries>"

    def __len__(self) -> int:
        return len(self.table)

    def _entry(self, position: int) -> DaxEntry:
        index, pfn, order, flags = (int(v) for v in self.table[position].tolist())
        none = bool(flags & (_DAX_ZERO_PAGE | _DAX_EMPTY))
        unknown = bool(flags & _MARKS_UNKNOWN)
        return DaxEntry(
            index=index,
            pfn=None if none else pfn,
            order=order,
            locked=bool(flags & _DAX_LOCKED),
            pmd=bool(flags & _DAX_PMD),
            zero=bool(flags & _DAX_ZERO_PAGE),
            empty=bool(flags & _DAX_EMPTY),
            dirty=None if unknown else bool(flags & _DIRTY),
            writeback=None if unknown else bool(flags & _WRITEBACK),
            towrite=None if unknown else bool(flags & _TOWRITE),
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
        named = (self.table["flags"] & (_DAX_ZERO_PAGE | _DAX_EMPTY)) == 0
        return self.table if named.all() else self.table[named]

    def pages(self, flag: str | None = None) -> int | None:
        """
        Pages that the entries cover.

        :param flag: Only of entries that are ``"dirty"``, ``"towrite"``, ``"locked"``, ``"pmd"``,
            ``"zero"`` or ``"empty"``; None for those that name a PFN, of which ``"pmd"`` are some.
        :return: None if it is not known of all of them.
        """
        bits = {
            "dirty": _DIRTY,
            "towrite": _TOWRITE,
            "locked": _DAX_LOCKED,
            "pmd": _DAX_PMD,
            "zero": _DAX_ZERO_PAGE,
            "empty": _DAX_EMPTY,
        }
        flags = self.table["flags"]
        if flag in ("dirty", "towrite") and (flags & _MARKS_UNKNOWN).any():
            return None
        rows = self.with_pfn() if flag in (None, "pmd") else self.table
        if flag is not None:
            rows = rows[(rows["flags"] & bits[flag]) != 0]
        return int((np.uint64(1) << rows["order"].astype(np.uint64)).sum()) if len(rows) else 0


class _Walk:
    """One walk of a tree, level by level."""

    def __init__(self, memory: Memory, layout: TreeLayout, problems: Problems) -> None:
        self.memory = memory
        self.layout = layout
        self.found: list[npt.NDArray[np.void]] = []
        self.problems = problems
        self.nodes = 0

    def read_level(
        self, level: "list[tuple[int, int, int, int]]", shift: int | None
    ) -> "tuple[npt.NDArray[np.void], list[tuple[int, int]]]":
        """
        Read the nodes of a level: (address, index, parent, offset) each.

        :param shift: What their ``shift`` must be; None for the root.
        :return: The nodes; (address, index) of each.
        """
        every = self._all_of_level(level, shift)
        if every is not None:
            return every, [(address, index) for address, index, _, _ in level]
        parts: list[bytes] = []
        where: list[tuple[int, int]] = []
        layout = self.layout
        for address, index, parent, offset in level:
            if self.nodes >= _MAX_NODES:
                why = f"stopped after {_MAX_NODES} nodes: implausible number"
                self.problems.add(Problem(cause=Cause.LIMIT, why=why))
                break
            self.nodes += 1
            with self.problems.trying(f"{layout.node_type[7:]} {address:#x}"):
                data = self.memory.read(address, layout.size)
                self._check(np.frombuffer(data, layout.dtype)[0], parent, offset, shift)
                parts.append(data)
                where.append((address, index))
        return np.frombuffer(b"".join(parts), layout.dtype), where

    def _all_of_level(
        self, level: "list[tuple[int, int, int, int]]", shift: int | None
    ) -> "npt.NDArray[np.void] | None":
        """The nodes of a level, checked together: one by one, checks take longer than reads.
        None if one of them cannot be read or is damaged, or of the root."""
        layout, read = self.layout, self.memory.read
        if shift is None or self.nodes + len(level) > _MAX_NODES:
            return None
        try:
            data = b"".join([read(address, layout.size) for address, _, _, _ in level])
        except WalkError:
            return None  # not a problem: they are read again one by one, which names it
        nodes = np.frombuffer(data, layout.dtype)
        parents = np.array([parent for _, _, parent, _ in level], np.uint64)
        offsets = np.array([offset for _, _, _, offset in level], np.uint64)
        sound = (
            (nodes["parent"] == parents) & (nodes["offset"] == offsets) & (nodes["shift"] == shift)
        )
        if not sound.all():
            return None
        self.nodes += len(level)
        return nodes

    def _check(self, node: Any, parent: int, offset: int, shift: int | None) -> None:
        if int(node["parent"]) != parent or (parent and int(node["offset"]) != offset):
            raise WalkError("its parent and offset are not those of its place in the tree")
        own = int(node["shift"])
        if shift is None:
            if own % self.layout.chunk_shift or own >= 8 * self.memory.word_size:
                raise WalkError(f"shift {own} is implausible")
        elif own != shift:
            raise WalkError(f"shift {own}, not {shift}")

    def values(
        self, nodes: "npt.NDArray[np.void]", where: "list[tuple[int, int]]", shift: int
    ) -> None:
        """Decode the value entries of a level's nodes."""
        layout = self.layout
        slots = nodes["slots"].astype(np.uint64)
        rows, columns = np.nonzero(layout.is_value(slots))
        if not len(rows):
            return
        values = slots[rows, columns] >> np.uint64(layout.value_shift)
        table = np.zeros(len(rows), ENTRY)
        bases = np.array([index for _, index in where], np.uint64)
        table["index"] = bases[rows] + (columns.astype(np.uint64) << np.uint64(shift))
        table["pfn"] = values >> np.uint64(_DAX_SHIFT)
        flags = (values & np.uint64(_FLAGS)).astype(np.uint8)
        marks = nodes["marks"].astype(np.uint64)
        bits = layout.mark_bits
        for mark, bit in enumerate(_MARKS[: marks.shape[1]]):
            word = marks[rows, mark, columns // bits]
            is_set = (word >> (columns % bits).astype(np.uint64)) & np.uint64(1)
            flags |= (is_set * np.uint64(bit)).astype(np.uint8)
        table["flags"] = flags
        addresses = np.array([address for address, _ in where], np.uint64)
        table["order"] = shift + self._sibling_orders(slots, addresses, rows, columns)
        self.found.append(table)

    def _sibling_orders(
        self,
        slots: "npt.NDArray[np.uint64]",
        addresses: "npt.NDArray[np.uint64]",
        rows: "npt.NDArray[np.intp]",
        columns: "npt.NDArray[np.intp]",
    ) -> "npt.NDArray[np.uint8]":
        """log2 of the slots that each entry takes: itself and the siblings that point to it."""
        orders = np.zeros(len(rows), np.uint8)
        sibling, targets = self.layout.siblings(slots, addresses)
        if not sibling.any():
            return orders
        some: npt.NDArray[np.bool_] = np.any(sibling, axis=1)
        for position in np.nonzero(some[rows])[0]:
            row, column = rows[position], columns[position]
            count = 1 + int(np.count_nonzero(sibling[row] & (targets[row] == column)))
            orders[position] = max(count.bit_length() - 1, 0)
        return orders

    def children(
        self, nodes: "npt.NDArray[np.void]", where: "list[tuple[int, int]]", shift: int
    ) -> "list[tuple[int, int, int, int]]":
        layout = self.layout
        slots = nodes["slots"].astype(np.uint64)
        addresses = np.array([address for address, _ in where], np.uint64)
        rows, columns = np.nonzero(layout.is_node(slots) & ~layout.siblings(slots, addresses)[0])
        if len(rows) and not shift:
            self.problems.add(WalkError(f"{len(rows)} nodes below the last level"))
            return []
        pointers = (slots[rows, columns] - np.uint64(layout.node_tag)).tolist()
        return [
            (pointer, where[row][1] + (column << shift), where[row][0], column)
            for pointer, row, column in zip(pointers, rows.tolist(), columns.tolist(), strict=True)
        ]

    def run(self, head: int) -> None:
        level = [(head - self.layout.node_tag, 0, 0, 0)]
        shift: int | None = None
        while level:
            nodes, where = self.read_level(level, shift)
            if not len(nodes):
                return
            current = int(nodes[0]["shift"])
            self.values(nodes, where, current)
            level = self.children(nodes, where, current)
            shift = current - self.layout.chunk_shift


def read_dax_entries(prog: Program, i_pages: "Object | int") -> Partial[DaxEntries]:
    """
    All DAX entries of an address space.

    :param i_pages: ``struct xarray *`` (``struct radix_tree_root *`` before v4.20), or its address.
    :raises MissingDebugInfo: if this kernel's tree is neither of the two
    """
    problems = Problems()
    memory, layout, address = memory_of(prog), tree_layout(prog), address_of(i_pages)
    table = np.zeros(0, ENTRY)
    with problems.trying(f"i_pages {address:#x}"):
        head = layout.root_layout.read(address)["root"]
        if head and layout.is_value(head):
            table = _single(layout, address, head, problems)
        elif layout.is_node(head):
            walk = _Walk(memory, layout, problems)
            walk.run(head)
            table = np.concatenate([table, *walk.found])
            table = table[np.argsort(table["index"], kind="stable")]
    return problems.partial(DaxEntries(table))


def _single(
    layout: TreeLayout, address: int, head: int, problems: Problems
) -> "npt.NDArray[np.void]":
    """The only entry of a tree without nodes: page 0; its marks are in the flags of the root."""
    value = head >> layout.value_shift
    pfn, flags = value >> _DAX_SHIFT, value & _FLAGS
    with problems.trying("marks of the only entry"):
        flags |= _MARKS_UNKNOWN
        marks = _marks(layout, layout.flags_layout.read(address)["flags"])
        flags &= ~_MARKS_UNKNOWN
        for mark, bit in enumerate(_MARKS):
            if marks >> mark & 1:
                flags |= bit
    return np.array([(0, pfn, 0, flags)], ENTRY)


def _marks(layout: TreeLayout, flags: int) -> int:
    """Marks in the flags of a root, PAGECACHE_TAG_DIRTY the lowest bit."""
    if layout.gfp_bits:
        bits = [bit for bit in range(32) if flags >> bit & 1]
        if len(bits) < layout.gfp_bits:
            raise WalkError(f"gfp_mask {flags:#x} is implausible")
        marks = sum(1 << bit for bit in bits[layout.gfp_bits :])
    else:
        marks = flags >> _XA_FLAGS_BITS
    # Only dirty entries are marked for writing (fs/dax.c clears DIRTY last), so the lowest bit is
    # PAGECACHE_TAG_DIRTY.
    return marks // (marks & -marks) if marks else 0
