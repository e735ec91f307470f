# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Structures of kernels before 5.10, written down as facts: what differs is asked for by member."""

import pytest

from drgn_pmem.kernel.daxentry import read_dax_entries
from drgn_pmem.kernel.holders import Hold, _Pipes, _Rings
from drgn_pmem.kernel.tasks import OpenFile, Task
from drgn_pmem.partial import Problems, WalkError

from .fake import Fake

TREE = 0xFFFF_8880_0000_0040
NODES = 0xFFFF_8880_0010_0000
NODE_SIZE = 0x400

# 4.18 and 4.19, include/linux/radix-tree.h
RADIX = {
    "radix_tree_root": [("xa_lock", "u32"), ("gfp_mask", "u32"), ("rnode", "*")],
    "radix_tree_node": [
        ("shift", "u8"),
        ("offset", "u8"),
        ("count", "u8"),
        ("exceptional", "u8"),
        ("parent", "*"),
        ("root", "*"),
        ("private_list", "u64[2]"),
        ("slots", "u64[64]"),
        ("tags", "u64[3][1]"),
    ],
}

# fs/dax.c of 4.18
LOCK, PMD, ZERO, EMPTY = 1 << 2, 1 << 3, 1 << 4, 1 << 5
GFP = 0x1180020  # GFP_ATOMIC | __GFP_ACCOUNT of 4.18: four bits


def exceptional(pfn: int, flags: int = 0) -> int:
    """dax_radix_locked_entry(): RADIX_TREE_EXCEPTIONAL_ENTRY | flags | pfn << RADIX_DAX_SHIFT"""
    return 2 | flags | pfn << 6


class Radix:
    """Two levels: page entries below the second slot of the root, a PMD entry in the root."""

    def __init__(self) -> None:
        self.fake = fake = Fake(structs=RADIX)
        self.root, self.leaf = NODES, NODES + NODE_SIZE
        self.slots = fake.offset("radix_tree_node", "slots")
        fake.fill("radix_tree_root", TREE, gfp_mask=GFP, rnode=self.root | 1)
        fake.fill("radix_tree_node", self.root, shift=6)
        fake.fill("radix_tree_node", self.leaf, shift=0, parent=self.root, offset=1)
        self.set(self.root, 1, self.leaf | 1)
        self.set(self.leaf, 3, exceptional(0x1234, LOCK))
        self.set(self.leaf, 4, exceptional(0, ZERO))
        self.set(self.root, 8, exceptional(0x40000, PMD))
        for sibling in range(9, 16):
            self.set(self.root, sibling, (self.root + self.slots + 8 * 8) | 1)
        tags = fake.offset("radix_tree_node", "tags")
        fake.word(self.leaf + tags, 1 << 3)

    def set(self, node: int, slot: int, word: int) -> None:
        self.fake.word(node + self.slots + 8 * slot, word)


def test_entries_of_a_radix_tree_are_those_of_an_xarray() -> None:
    page, hole, pmd = read_dax_entries(Radix().fake.prog, TREE).whole()
    assert (page.index, page.pfn, page.order) == (64 + 3, 0x1234, 0)
    assert (page.locked, page.pmd, page.zero, page.dirty) == (True, False, False, True)
    assert (hole.index, hole.pfn, hole.zero, hole.dirty) == (64 + 4, None, True, False)
    assert (pmd.index, pmd.pfn, pmd.order, pmd.pmd) == (8 * 64, 0x40000, 9, True)


def test_a_wild_node_of_a_radix_tree_is_a_problem() -> None:
    tree = Radix()
    tree.set(tree.root, 2, 0xDEAD_0000_0000_0001)
    answer = read_dax_entries(tree.fake.prog, TREE)
    assert len(answer.value) == 3
    assert "radix_tree_node 0xdead000000000000" in str(answer.problems[0])


@pytest.mark.parametrize("shift", [25, 26])
@pytest.mark.parametrize(("dirty", "tags"), [(True, 0b101), (False, 0)])
def test_tags_of_a_single_entry_are_above_the_gfp_mask(shift: int, dirty: bool, tags: int) -> None:
    fake = Fake(structs=RADIX)
    fake.fill("radix_tree_root", TREE, gfp_mask=GFP | tags << shift, rnode=exceptional(77))
    (entry,) = read_dax_entries(fake.prog, TREE).whole()
    assert (entry.index, entry.pfn, entry.dirty, entry.towrite) == (0, 77, dirty, dirty)


def test_an_empty_radix_tree_has_nothing() -> None:
    fake = Fake(structs=RADIX)
    fake.fill("radix_tree_root", TREE, gfp_mask=GFP)
    assert len(read_dax_entries(fake.prog, TREE).whole()) == 0


VMEMMAP = 0xFFFF_EA00_0000_0000
PIPE = 0xFFFF_8880_0000_0000
BUFS = 0xFFFF_8880_0000_1000
RING = 0xFFFF_8880_0000_2000
UBUFS = 0xFFFF_8880_0000_3000
VECS = 0xFFFF_8880_0000_4000
USER_OPS, OTHER_OPS, RING_OPS = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8100_0100, 0xFFFF_FFFF_8100_0200

# 5.4, include/linux/pipe_fs_i.h and fs/io_uring.c
OLD_HOLDERS = {
    "pipe_buffer": [("page", "*"), ("offset", "u32"), ("len", "u32"), ("ops", "*")],
    "pipe_inode_info": [
        ("nrbufs", "u32"),
        ("curbuf", "u32"),
        ("buffers", "u32"),
        ("bufs", "struct pipe_buffer *"),
    ],
    "bio_vec": [("bv_page", "*"), ("bv_len", "u32"), ("bv_offset", "u32")],
    "io_mapped_ubuf": [
        ("ubuf", "u64"),
        ("len", "u64"),
        ("bvec", "struct bio_vec *"),
        ("nr_bvecs", "u32"),
    ],
    "io_ring_ctx": [("nr_user_bufs", "u32"), ("user_bufs", "struct io_mapped_ubuf *")],
}


class Pages:
    """``struct page`` of 64 bytes in an array."""

    page_shift = 12

    def pfn(self, page: int) -> int | None:
        return (page - VMEMMAP) // 64 if page >= VMEMMAP else None


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setattr("drgn_pmem.kernel.holders.page_layout", lambda prog: Pages())
    variables = {"user_page_pipe_buf_ops": USER_OPS, "io_uring_fops": RING_OPS}
    return Fake(structs=OLD_HOLDERS, variables=variables)


def opener(fake: Fake) -> OpenFile:
    none = fake.prog.type("struct pipe_buffer")
    task = Task(
        address=0, pid=7, tgid=7, comm="pin", mm=0, files=0, kernel_thread=False, object=none
    )
    return OpenFile(task=task, fd=3, file=0, inode=0)


def test_a_pipe_before_5_5_holds_the_buffers_from_curbuf_on(fake: Fake) -> None:
    fake.fill("pipe_inode_info", PIPE, nrbufs=2, curbuf=15, buffers=16, bufs=BUFS)
    fake.fill("pipe_buffer", BUFS + 15 * 24, page=VMEMMAP + 64 * 100, len=4096, ops=USER_OPS)
    fake.fill("pipe_buffer", BUFS, page=VMEMMAP + 64 * 200, len=4096, ops=OTHER_OPS)
    problems = Problems()
    held = list(_Pipes(fake.prog, problems).pages(PIPE, opener(fake)))
    assert [(h.kind, h.pfn, h.count) for h in held] == [
        (Hold.VMSPLICE, 100, 1),
        (Hold.SPLICE, 200, 1),
    ]
    assert not problems


def test_a_pipe_that_is_fuller_than_it_is_large_is_refused(fake: Fake) -> None:
    fake.fill("pipe_inode_info", PIPE, nrbufs=17, curbuf=0, buffers=16, bufs=BUFS)
    with pytest.raises(WalkError, match="implausible"):
        list(_Pipes(fake.prog, Problems()).pages(PIPE, opener(fake)))


def test_without_the_operations_of_vmsplice_a_pipe_is_a_pipe(fake: Fake) -> None:
    del fake.variables["user_page_pipe_buf_ops"]
    fake.fill("pipe_inode_info", PIPE, nrbufs=1, curbuf=0, buffers=16, bufs=BUFS)
    fake.fill("pipe_buffer", BUFS, page=VMEMMAP, len=1, ops=USER_OPS)
    problems = Problems()
    (held,) = _Pipes(fake.prog, problems).pages(PIPE, opener(fake))
    assert held.kind is Hold.PIPE
    assert problems


def test_registered_buffers_before_5_13_are_an_array_of_structures(fake: Fake) -> None:
    fake.fill("io_ring_ctx", RING, nr_user_bufs=2, user_bufs=UBUFS)
    for number in (0, 1):
        fake.fill(
            "io_mapped_ubuf",
            UBUFS + 32 * number,
            ubuf=0x7000,
            bvec=VECS + 16 * number,
            nr_bvecs=1,
        )
        page = VMEMMAP + 64 * (300 + number)
        fake.fill("bio_vec", VECS + 16 * number, bv_page=page, bv_len=8192)
    problems = Problems()
    rings = _Rings(fake.prog, problems)
    assert rings.operations == RING_OPS
    held = list(rings.pages(RING, opener(fake)))
    assert [(h.kind, h.pfn, h.count) for h in held] == [
        (Hold.IO_URING, 300, 2),
        (Hold.IO_URING, 301, 2),
    ]
    assert not problems
