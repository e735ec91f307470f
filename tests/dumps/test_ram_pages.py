# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pages of persistent memory that is used as RAM: what the kernel has them for, never a default."""

from drgn import Object, Program
from drgn.helpers.linux.mm import follow_page, page_to_pfn, pfn_to_page
import pytest

from drgn_pmem.kernel.page import read_page
from drgn_pmem.kernel.ramuse import RamUse, ram_use_of

from ..samples import CASES, run_json, run_text

FIRST, END = 0x160000, 0x168000
"""Pages of a system-ram device: its memory blocks that are online."""


@pytest.fixture(scope="module")
def prog() -> Program:
    return next(case for case in CASES if str(case) == "6.1-fileload:elf").prog


def test_page_cache_has_its_file(prog: Program) -> None:
    (page,) = run_json(prog, "pmem-page pfn:0x160000")
    assert page["use"] == "page cache"
    assert "libselinux.so.1 (ino 34)" in page["owner"]
    (rmap,) = run_json(prog, "pmem-rmap pfn:0x160000")
    (owner,) = rmap["owners"]
    assert (owner["inode"], owner["offset"]) == (34, 15 * 4096)
    assert owner["path"].endswith("/lib/x86_64-linux-gnu/libselinux.so.1")
    words = "a page of namespace4.0 without a page map: used as RAM, System RAM (kmem)"
    assert words in rmap["notes"]
    (raw,) = run_json(prog, "pmem-rmap pfn:0x153001")
    assert "a page of namespace0.1 without a page map: raw mode" in raw["notes"]


def test_anonymous_memory_has_its_processes(prog: Program) -> None:
    found = 0
    for pfn in range(FIRST, END):
        page = read_page(prog, pfn).value
        if page.mapping is None or page.mapping & 3 != 1:
            continue
        ram = ram_use_of(prog, page).value
        assert ram.use is RamUse.ANONYMOUS
        for user in ram.users:
            mm = Object(prog, "struct mm_struct *", user.task.mm)
            assert page_to_pfn(follow_page(mm, user.address)).value_() == pfn
            found += 1
        if found >= 10:
            break
    assert found


def test_free_is_what_the_buddy_allocator_has(prog: Program) -> None:
    """Nothing that is in use is called free, and something is free."""
    free = 0
    for pfn in range(FIRST, END, 61):
        ram = ram_use_of(prog, read_page(prog, pfn).value).value
        if ram.use is RamUse.FREE:
            free += 1
            assert pfn_to_page(prog, pfn)._refcount.counter.value_() == 0
            assert ram.blocks_offline is False
    assert free


def test_no_page_of_ram_is_idle(prog: Program) -> None:
    out, _ = run_text(prog, f"pmem-page {' '.join(f'pfn:{p:#x}' for p in range(FIRST, END, 997))}")
    assert "idle" not in out


def test_a_file_system_with_reflinks_may_have_more_owners(prog: Program) -> None:
    says = "reflinks: files that were not in memory may share this extent"
    (xfs,) = run_json(prog, "pmem-rmap pfn:0x118821")
    (ext4,) = run_json(prog, "pmem-rmap pfn:0x1295f5")
    assert any(says in note for note in xfs["notes"])
    assert not any("reflinks" in note for note in ext4["notes"])


def test_private_copies_are_counted_and_listed(prog: Program) -> None:
    files = {file["path"]: file for file in run_json(prog, "pmem-files")}
    assert files["/mnt/ext4/cow"]["copies"] == 2
    assert files["/mnt/ext4/alpha"]["copies"] == 0
    assert files["/dev/dax1.1"]["copies"] is None
    copies = [page for page in run_json(prog, "pmem-file /mnt/ext4/cow") if page["copy"]]
    assert len(copies) == 2
    for copy in copies:
        (page,) = run_json(prog, f"pmem-rmap pfn:{copy['pfn']:#x}")
        (owner,) = page["owners"]
        assert owner["private_copy"]
        assert (owner["path"], owner["offset"]) == ("/mnt/ext4/cow", copy["offset"])
