# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files by their extents in memory: fiemap recorded before the crash which files share what."""

from drgn import Object, Program
import pytest

from drgn_pmem.kernel.daxfs import for_each_dax_super
from drgn_pmem.kernel.xfsextents import XfsExtents, xfs_extents_of

from ..samples import CASES, Case, open_crash, run_json, run_text
from ..synthetic import poke, words
from .truth_owners import extents

CHOSEN = ("6.1-fileload:elf", "7.2-fileload:raw", "arm64-6.12:elf")
XFS = "/mnt/xfs/"


@pytest.fixture(params=[case for case in CASES if str(case) in CHOSEN], ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def files_by_pfn(case: Case) -> dict[int, set[tuple[str, int]]]:
    """PFN -> (path, offset) of every file of the XFS, as fiemap recorded it."""
    found: dict[int, set[tuple[str, int]]] = {}
    for path, offset, physical, length in extents(case):
        if path.startswith(XFS):
            for at in range(0, length, case.page):
                found.setdefault((physical + at) // case.page, set()).add((path, offset + at))
    return found


def in_memory(case: Case) -> set[str]:
    return {file["path"] for file in case.json("pmem-files --all")}


def test_every_file_that_shares_an_extent_is_named(case: Case) -> None:
    """Also where one was never read through a mapping, or both were not."""
    files, loaded = files_by_pfn(case), in_memory(case)
    pfns = sorted(files)[:: max(1, len(files) // 20)]
    pfns += [pfn for pfn, found in files.items() if len(found) > 1]
    named = " ".join(f"pfn:{pfn:#x}" for pfn in pfns)
    answers = run_json(case.prog, f"pmem-rmap {named}")
    pages = run_json(case.prog, f"pmem-page {named}")
    untouched = 0
    for pfn, answer, page in zip(pfns, answers, pages, strict=True):
        owners = [owner for owner in answer["owners"] if not owner["private_copy"]]
        wanted = {(path, offset) for path, offset in files[pfn] if path in loaded}
        assert {(owner["path"], owner["offset"]) for owner in owners} == wanted
        untouched += sum(owner["sources"] == ["extents"] for owner in owners)
        if len(wanted) > 1:
            assert answer["shared"] is True
            assert page["shared"] is True
    assert untouched


def test_pages_of_shared_extents_are_counted(case: Case) -> None:
    """pmem-files has the same word for a page as pmem-rmap."""
    both = {pfn for pfn, found in files_by_pfn(case).items() if len(found) > 1}
    for name in ("shared", "shared.clone"):
        pages = case.json(f"pmem-file {XFS}{name}")
        mine = {
            page["pfn"] + at for page in pages if page["pfn"] for at in range(1 << page["order"])
        }
        (file,) = [f for f in case.json("pmem-files") if f["path"] == XFS + name]
        assert file["shared"] == len(mine & both) > 0
        for page in pages:
            own = range(page["pfn"] or 0, (page["pfn"] or 0) + (1 << page["order"]))
            assert page["shared"] is bool(both.intersection(own))


def test_files_that_were_not_in_memory_may_share_it_too(case: Case) -> None:
    pfn = min(files_by_pfn(case))
    _, notes = run_text(case.prog, f"pmem-rmap pfn:{pfn:#x}")
    assert "has reflinks: files that were not in memory may share this extent" in notes


def test_a_reservation_for_a_copy_is_no_owner() -> None:
    prog = next(case for case in CASES if str(case) == "6.1-fileload:elf").prog
    loaded = extents_of(prog)
    (copy,) = [extent for extent in loaded.extents if extent.cow]
    first = next(extent for extent in loaded.extents if not extent.cow)
    (known,) = run_json(prog, f"pmem-rmap pmem5:{first.block * loaded.block_size // 512}")
    pfn = known["pfn"] + copy.block - first.block
    (page,) = run_json(prog, f"pmem-rmap pfn:{pfn:#x}")
    assert not page["owners"]
    assert any("reserved for a copy on write of /mnt/xfs/broken " in n for n in page["notes"])


def extents_of(prog: Program) -> XfsExtents:
    (super_,) = [s for s in for_each_dax_super(prog).value if s.type == "xfs"]
    found = xfs_extents_of(prog, super_).value
    assert found is not None
    return found


def test_a_large_list_is_read_from_leaf_to_leaf() -> None:
    """Of more extents than one leaf has: two leaves under a node, as xfs_iext_tree.c makes them."""
    case = next(case for case in CASES if str(case) == "6.1-fileload:elf")
    prog = open_crash(case.sample, case.dump)
    victim = extents_of(case.prog).extents[0].inode
    fork = Object(prog, "struct xfs_inode *", victim.address - offset_of_vnode(prog)).i_df
    node, first, second = (0xFFFF_C123_0000_0000 + at * 0x1000 for at in range(3))

    def record(number: int) -> bytes:
        block = 0x400 + 2 * number
        return words(2 * number | (block & 0x3FF) << 54, 1 | block >> 10 << 22)

    poke(prog, node, words(0, 30, *[1 << 63] * 14, first, second, *[0] * 14))
    poke(prog, first, b"".join(map(record, range(15))) + words(0, second))
    poke(prog, second, b"".join(map(record, range(15, 20))) + bytes(160) + words(first, 0))
    poke(prog, fork.if_bytes.address_, words(20 * 16))
    poke(prog, fork.if_height.address_, (2).to_bytes(4, "little"))
    poke(prog, fork.if_u1.if_root.address_, words(node))
    mine = [e for e in extents_of(prog).extents if e.inode.ino == victim.ino]
    assert [(e.offset, e.block, e.count) for e in mine] == [
        (2 * number, 0x400 + 2 * number, 1) for number in range(20)
    ]


def test_a_list_that_ends_early_is_a_problem() -> None:
    case = next(case for case in CASES if str(case) == "6.1-fileload:elf")
    prog = open_crash(case.sample, case.dump)
    victim = extents_of(case.prog).extents[0].inode
    fork = Object(prog, "struct xfs_inode *", victim.address - offset_of_vnode(prog)).i_df
    poke(prog, fork.if_u1.if_root.address_, words(0xFFFF_C123_0000_0000))
    (super_,) = [s for s in for_each_dax_super(prog).value if s.type == "xfs"]
    assert any(
        f"extents of inode {victim.address:#x}" in str(p)
        for p in xfs_extents_of(prog, super_).problems
    )


def offset_of_vnode(prog: Program) -> int:
    offset: int = prog.type("struct xfs_inode").member("i_vnode").offset
    return offset
