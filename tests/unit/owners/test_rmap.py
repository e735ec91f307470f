# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""i_mmap is walked whole where it is sound, and ends where it is not."""

import pytest

from drgn_pmem.kernel.memory import hlist_nodes, list_nodes, memory_of
from drgn_pmem.kernel.rmap import Vma, vmas_of_mapping
from drgn_pmem.partial import Partial, WalkError

from .fake import Fake

MAPPING = 0xFFFF_8880_0000_0000
VMA = 0xFFFF_8880_0010_0000
VMA_SIZE = 0x200


class Tree:
    """An i_mmap tree of VMAs, one for each number, balanced."""

    def __init__(self, fake: Fake) -> None:
        self.fake = fake
        self.node = fake.offset("vm_area_struct", "shared.rb")

    def address(self, number: int) -> int:
        return VMA + number * VMA_SIZE

    def build(self, numbers: list[int]) -> None:
        root = self._add(numbers, 0)
        self.fake.fill("address_space", MAPPING, i_mmap__dot__rb_root__dot__rb_node=root)

    def _add(self, numbers: list[int], parent: int) -> int:
        if not numbers:
            return 0
        middle = len(numbers) // 2
        number = numbers[middle]
        node = self.address(number) + self.node
        self.fake.fill(
            "vm_area_struct",
            self.address(number),
            vm_start=0x10000 * (number + 1),
            vm_end=0x10000 * (number + 1) + 0x4000,
            vm_pgoff=number,
            vm_flags=8 if number % 2 else 0,
            vm_mm=0xFFFF_8880_0000_8000 + number,
            # The colour is in the low bits.
            shared__dot__rb__dot____rb_parent_color=parent | number % 2,
            shared__dot__rb__dot__rb_left=self._add(numbers[:middle], node),
            shared__dot__rb__dot__rb_right=self._add(numbers[middle + 1 :], node),
        )
        return node

    def link(self, number: int, side: str, value: int) -> None:
        offset = self.fake.offset("vm_area_struct", f"shared.rb.{side}")
        self.fake.word(self.address(number) + offset, value)


def read(fake: Fake) -> Partial[tuple[Vma, ...]]:
    return vmas_of_mapping(fake.prog, MAPPING)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_every_vma_is_found_once(count: int) -> None:
    fake = Fake()
    Tree(fake).build(list(range(count)))
    answer = read(fake)
    assert answer.problems == ()
    assert sorted(vma.pgoff for vma in answer.value) == list(range(count))
    assert all(vma.shared == bool(vma.pgoff % 2) for vma in answer.value)


def test_a_vma_knows_the_address_of_its_pages_and_of_no_other() -> None:
    fake = Fake()
    Tree(fake).build([5])
    (vma,) = read(fake).value
    assert [vma.address_of(index) for index in (4, 5, 8, 9)] == [None, 0x60000, 0x63000, None]


def test_a_tree_that_leads_back_to_its_root_ends() -> None:
    fake = Fake()
    tree = Tree(fake)
    tree.build([0, 1, 2])
    tree.link(0, "rb_left", tree.address(1) + tree.node)
    answer = read(fake)
    assert sorted(vma.pgoff for vma in answer.value) == [0, 1, 2]
    assert "its parent is not" in str(answer.problems[0])


def test_a_node_that_is_its_own_child_ends() -> None:
    fake = Fake()
    tree = Tree(fake)
    tree.build([0])
    node = tree.address(0) + tree.node
    tree.link(0, "rb_left", node)
    tree.link(0, "rb_right", node)
    answer = read(fake)
    assert len(answer.value) == 1
    assert len(answer.problems) == 1


def test_a_wild_child_costs_only_itself() -> None:
    fake = Fake()
    tree = Tree(fake)
    tree.build([0, 1, 2])
    tree.link(1, "rb_left", 0xDEAD_0000_0000_0000)
    answer = read(fake)
    assert sorted(vma.pgoff for vma in answer.value) == [1, 2]
    assert answer.problems


def test_a_mapping_that_is_not_in_the_dump_is_a_problem_not_unmapped() -> None:
    answer = read(Fake())
    assert answer.value == ()
    assert not answer.complete


def lists(fake: Fake, links: list[tuple[int, int]]) -> None:
    for node, following in links:
        fake.word(node, following)


def collect(nodes: object) -> tuple[list[int], str | None]:
    found: list[int] = []
    try:
        for node in nodes:  # type: ignore[attr-defined]
            found.append(node)
    except WalkError as error:
        return found, str(error)
    return found, None


HEAD = 0xFFFF_8880_0000_0000


def test_a_list_ends_at_its_head() -> None:
    fake = Fake()
    lists(fake, [(HEAD, HEAD + 16), (HEAD + 16, HEAD + 32), (HEAD + 32, HEAD)])
    assert collect(list_nodes(memory_of(fake.prog), HEAD, "a list")) == (
        [HEAD + 16, HEAD + 32],
        None,
    )


@pytest.mark.parametrize("walk", [list_nodes, hlist_nodes])
@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_a_list_that_never_comes_back_to_its_head_ends(walk: object, length: int) -> None:
    fake = Fake()
    nodes = [HEAD + 16 * (i + 1) for i in range(length)]
    lists(fake, list(zip([HEAD, *nodes], [*nodes, nodes[0]], strict=True)))
    found, problem = collect(walk(memory_of(fake.prog), HEAD, "a list"))  # type: ignore[operator]
    assert set(found) == set(nodes)
    assert problem is not None
    assert "cyclic" in problem
    assert len(found) <= 4 * length


def test_a_list_that_is_cut_says_so() -> None:
    fake = Fake()
    lists(fake, [(HEAD, HEAD + 16), (HEAD + 16, 0)])
    found, problem = collect(list_nodes(memory_of(fake.prog), HEAD, "a list"))
    assert found == [HEAD + 16]
    assert problem is not None
    assert "NULL" in problem


def test_a_list_that_is_too_long_stops_at_its_limit() -> None:
    fake = Fake()
    nodes = [HEAD + 16 * (i + 1) for i in range(100)]
    lists(fake, list(zip([HEAD, *nodes], [*nodes, HEAD], strict=True)))
    found, problem = collect(list_nodes(memory_of(fake.prog), HEAD, "a list", 10))
    assert found == nodes[:10]
    assert problem is not None
