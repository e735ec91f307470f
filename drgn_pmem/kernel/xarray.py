# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Bounded walks of xarrays
------------------------

:func:`drgn.helpers.linux.xarray.xa_for_each` never returns where a damaged node leads back to one
above it. Here the shift of a node must be less than its parent's and no node may be there twice.
Sources: lib/xarray.c, include/linux/xarray.h; lib/radix-tree.c before v4.20.
"""

from collections.abc import Iterator

from drgn import FaultError, Object, cast

from drgn_pmem.kernel.debuginfo import find_type, member, optional_member
from drgn_pmem.kernel.walk import LIMIT
from drgn_pmem.partial import NotSaved, WalkError

__all__ = ("for_each_xarray_entry",)

_XA_ZERO_ENTRY = 257 << 2 | 2


class _Nodes:
    """How a tree marks its nodes: by the low two bits of a pointer."""

    def __init__(self, xa: Object) -> None:
        self.prog = xa.prog_
        # Since Linux kernel commit f8d5d0cc145c ("xarray: Add definition of struct xarray") (in
        # v4.20); before, struct radix_tree_root.
        head = optional_member(xa, "xa_head")
        self.radix = head is None
        root = member(xa, "rnode") if head is None else head
        self.tag = 1 if self.radix else 2
        name = "struct radix_tree_node" if self.radix else "struct xa_node"
        self.type = self.prog.pointer_type(find_type(self.prog, name, "vmlinux"))
        self.root = cast("void *", root)

    def node(self, entry: int, slots: Object | None) -> Object | None:
        """The node that a slot points to; None if it holds an entry, a sibling or nothing."""
        if entry & 3 != self.tag:
            return None
        if not self.radix and entry <= 4096:
            return None  # a sibling, or an internal entry
        if self.radix and slots is not None:
            # Siblings point to the slot of their entry, which is in the same node.
            first = slots.address_ or 0
            if first <= entry < first + len(slots) * (slots[0].type_.size or 0):
                return None
        return Object(self.prog, self.type, entry - self.tag)

    def is_entry(self, entry: int) -> bool:
        """Whether a slot holds what was stored."""
        return entry != 0 and entry != _XA_ZERO_ENTRY and entry & 3 != self.tag


def for_each_xarray_entry(xa: Object, what: str) -> Iterator[tuple[int, Object]]:
    """
    Entries of an xarray by index, as ``xa_for_each()``.

    :param xa: ``struct xarray *`` (``struct radix_tree_root *`` before v4.20)
    :param what: What is walked, for the message: ``"pgmap_array"``.
    :return: Index and ``void *`` of each.
    :raises WalkError: after the entries that could be read
    """
    count = 0
    try:
        for index, entry in _walk(_Nodes(xa)):
            if count >= LIMIT:
                raise WalkError("too many to be plausible")
            count += 1
            yield index, entry
    except FaultError as error:
        raise NotSaved(
            f"{what}: stopped after {count} entries: {error}", address=error.address
        ) from None
    except WalkError as error:
        raise WalkError(f"{what}: stopped after {count} entries: {error}") from None


def _walk(nodes: _Nodes) -> Iterator[tuple[int, Object]]:
    root = nodes.root.read_()
    top = nodes.node(root.value_(), None)
    if top is None:
        if nodes.is_entry(root.value_()):
            yield 0, root
        return
    seen: set[int] = set()
    stack = [_level(top, 0, None, seen)]
    while stack:
        slots, shift, index, start = stack.pop()
        for number in range(start, len(slots)):
            entry = cast("void *", slots[number].read_())
            position = index + (number << shift)
            below = nodes.node(entry.value_(), slots)
            if below is not None:
                stack.append((slots, shift, index, number + 1))
                stack.append(_level(below, position, shift, seen))
                break
            if nodes.is_entry(entry.value_()):
                yield position, entry


def _level(
    node: Object, index: int, above: int | None, seen: set[int]
) -> tuple[Object, int, int, int]:
    """
    The slots of a node, its shift, the index of its first slot, and the slot to begin with.

    :param above: Shift of the node above it; None for the top.
    :raises WalkError: if the node cannot be where it is
    """
    address, shift = node.value_(), node.shift.value_()
    if address in seen:
        raise WalkError(f"the tree is cyclic at the node at {address:#x}")
    if shift >= (64 if above is None else above):
        raise WalkError(f"the node at {address:#x} is damaged: implausible shift {shift}")
    if len(seen) >= LIMIT:
        raise WalkError("too many nodes to be plausible")
    seen.add(address)
    return node.slots, shift, index, 0
