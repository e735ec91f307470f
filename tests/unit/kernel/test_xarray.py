# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A walk of an xarray ends, also where a damaged node leads back to one above it."""

from drgn import Object, Program, Type, TypeKindSet, TypeMember
import pytest

from drgn_pmem.kernel.xarray import for_each_xarray_entry
from drgn_pmem.partial import NotSaved, Problems, WalkError

from ...synthetic import kernel, poke, words

ROOT = 0xFFFF888000001000
TOP, LEAF, OTHER = ROOT + 0x100, ROOT + 0x200, ROOT + 0x300
SLOTS = 4


def tree(tag: int, memory: dict[int, bytes]) -> Object:
    """
    An xarray, or the radix tree before it.

    :param tag: Low bits of a pointer to a node.
    """
    prog = kernel("", {})
    for address, data in memory.items():
        poke(prog, address, data)
    word = prog.int_type("unsigned long", 8, False, "little")
    pointer = prog.pointer_type(prog.void_type(), 8, "little")
    node = prog.struct_type(
        "xa_node" if tag == 2 else "radix_tree_node",
        8 + 8 * SLOTS,
        (
            TypeMember(word, "shift", 0),
            TypeMember(prog.array_type(pointer, SLOTS), "slots", 64),
        ),
    )
    name = "xa_head" if tag == 2 else "rnode"
    root = prog.struct_type(
        "xarray" if tag == 2 else "radix_tree_root", 8, (TypeMember(pointer, name, 0),)
    )

    def find(_: Program, kinds: TypeKindSet, wanted: str, filename: object) -> Type | None:
        return node if node.kind in kinds and wanted == node.tag else None

    prog.register_type_finder("test", find, enable_index=0)
    return Object(prog, prog.pointer_type(root, 8, "little"), ROOT)


def walked(tag: int, memory: dict[int, bytes]) -> tuple[list[tuple[int, int]], Problems]:
    problems = Problems()
    entries = for_each_xarray_entry(tree(tag, memory), "array")
    return [(i, e.value_()) for i, e in problems.collect(entries)], problems


@pytest.mark.parametrize("tag", [2, 1], ids=["xarray", "radix-tree"])
def test_entries_come_by_index(tag: int) -> None:
    memory = {
        ROOT: words(TOP + tag),
        TOP: words(2, LEAF + tag, 0xABC0, 0, OTHER + tag),
        LEAF: words(0, 0, 0x1110, 0, 0x2220),
        OTHER: words(0, 0x3330, 0, 0, 0),
    }
    found, problems = walked(tag, memory)
    assert found == [(1, 0x1110), (3, 0x2220), (4, 0xABC0), (12, 0x3330)]
    assert not list(problems)


def test_one_entry_and_none() -> None:
    assert walked(2, {ROOT: words(0xABC0)})[0] == [(0, 0xABC0)]
    assert walked(2, {ROOT: words(0)})[0] == []


def test_siblings_are_no_entries_of_their_own() -> None:
    xarray = {ROOT: words(TOP + 2), TOP: words(0, 0xABC0, 0 << 2 | 2, 0, 0)}
    radix = {ROOT: words(TOP + 1), TOP: words(0, 0xABC0, (TOP + 8) | 1, 0, 0)}
    assert walked(2, xarray)[0] == [(0, 0xABC0)]
    assert walked(1, radix)[0] == [(0, 0xABC0)]


@pytest.mark.parametrize("back", [TOP, LEAF])
@pytest.mark.parametrize("tag", [2, 1], ids=["xarray", "radix-tree"])
def test_a_cycle_of_nodes_without_entries_ends(tag: int, back: int) -> None:
    memory = {
        ROOT: words(TOP + tag),
        TOP: words(6, LEAF + tag, 0xABC0, 0, 0),
        LEAF: words(3, back + tag, 0, 0, 0),
    }
    found, problems = walked(tag, memory)
    assert found == []
    (problem,) = problems
    assert "cyclic" in str(problem)


def test_a_node_that_is_not_below_its_parent_is_damaged() -> None:
    memory = {
        ROOT: words(TOP + 2),
        TOP: words(2, 0xABC0, LEAF + 2, 0, 0),
        LEAF: words(200, 0, 0, 0, 0),
    }
    found, problems = walked(2, memory)
    assert found == [(0, 0xABC0)]
    assert "implausible shift 200" in str(next(iter(problems)))


def test_a_node_that_was_not_saved_is_said() -> None:
    with pytest.raises(NotSaved, match="array: stopped after 0 entries"):
        list(for_each_xarray_entry(tree(2, {ROOT: words(TOP + 2)}), "array"))
    assert issubclass(NotSaved, WalkError)
