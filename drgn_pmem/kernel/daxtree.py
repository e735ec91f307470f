# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Trees of DAX entries
--------------------

How ``address_space.i_pages`` stores nodes, values and siblings. Sources: lib/xarray.c and
include/linux/xarray.h; before v4.20 lib/radix-tree.c and include/linux/radix-tree.h (see
:class:`RadixLayout`).
"""

from typing import Any

from drgn import Program, offsetof
import numpy as np
import numpy.typing as npt

from drgn_pmem.kernel.debuginfo import find_type, has_type
from drgn_pmem.kernel.memory import Layout, cached, memory_of

__all__ = ("RadixLayout", "TreeLayout", "tree_layout")

_GFP_OF_ROOT = 4
"""Bits set in ``gfp_mask`` of a radix tree of pages, below its tags: ``GFP_ATOMIC |
__GFP_ACCOUNT`` (fs/inode.c), which are macros, too."""


class TreeLayout:
    """
    How an XArray stores nodes, values and siblings.

    :param prog: The crashed kernel.
    """

    root_type, root, root_flags = "struct xarray", "xa_head", "xa_flags"
    node_type, marks = "struct xa_node", "marks"
    node_tag = 2
    """Low bits of a pointer to a node."""
    value_shift = 1
    gfp_bits = 0

    def __init__(self, prog: Program) -> None:
        memory = memory_of(prog)
        self.root_layout = Layout(memory, self.root_type, root=self.root)
        self.flags_layout = Layout(memory, self.root_type, flags=self.root_flags)
        type_ = find_type(prog, self.node_type, "vmlinux")
        node = Layout(memory, self.node_type, shift="shift", offset="offset", parent="parent")
        node.offset(self.marks)
        slots, marks = type_.member("slots").type, type_.member(self.marks).type
        words = marks.type.length
        assert slots.length is not None
        assert marks.length is not None
        assert type_.size is not None
        assert words is not None
        self.size = type_.size
        self.slots = slots.length
        self.slots_offset = node.offset("slots")
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
                offsetof(type_, name) for name in ("shift", "offset", "parent", "slots", self.marks)
            ],
            "itemsize": type_.size,
        }
        self.dtype = np.dtype(members)

    def is_value(self, entry: Any) -> Any:
        """Of words or arrays of them."""
        return (entry & 1) == 1

    def is_node(self, entry: Any) -> Any:
        """``xa_is_node()``"""
        return ((entry & 3) == 2) & (entry > 4096)

    def siblings(
        self, slots: "npt.NDArray[np.uint64]", addresses: "npt.NDArray[np.uint64]"
    ) -> "tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint64]]":
        """
        Slots that belong to a larger entry in another slot.

        :param slots: Of each node.
        :param addresses: Of the nodes.
        :return: Which slots; the slot that each of them points to.
        """
        # xa_mk_sibling(offset): an internal entry below XA_CHUNK_SIZE.
        internal = (slots & np.uint64(3)) == 2
        return internal & (slots < np.uint64(4 * self.slots)), slots >> np.uint64(2)


class RadixLayout(TreeLayout):
    """
    The same of the radix tree before Linux kernel commit 3159f943aafd ("xarray: Replace exceptional
    entries") and its neighbours (in v4.20). A value is an exceptional entry (bit 1) with the same
    flags, one bit higher; a sibling points to the slot that has the entry.
    """

    root_type, root, root_flags = "struct radix_tree_root", "rnode", "gfp_mask"
    node_type, marks = "struct radix_tree_node", "tags"
    node_tag = 1
    value_shift = 2
    gfp_bits = _GFP_OF_ROOT

    def is_value(self, entry: Any) -> Any:
        return (entry & 3) == 2

    def is_node(self, entry: Any) -> Any:
        return ((entry & 3) == 1) & (entry > 4096)

    def siblings(
        self, slots: "npt.NDArray[np.uint64]", addresses: "npt.NDArray[np.uint64]"
    ) -> "tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint64]]":
        start = (addresses + np.uint64(self.slots_offset))[:, None]
        inside = (slots >= start) & (slots < start + np.uint64(8 * self.slots))
        return inside & ((slots & np.uint64(3)) == 1), (slots - start) >> np.uint64(3)


def tree_layout(prog: Program) -> TreeLayout:
    def make() -> TreeLayout:
        # RHEL 8 has the XArray under both names.
        return TreeLayout(prog) if has_type(prog, "struct xarray") else RadixLayout(prog)

    layout: TreeLayout = cached(prog, "i_pages", make)
    return layout
