# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Use of RAM pages
----------------

What a page of RAM is used for, by its struct page: persistent memory that is used as RAM
(system-ram, kmem) has no other owner. A page that is not understood has no use here; it is never
called free. Sources: include/linux/page-flags.h, include/linux/mm_types.h, include/linux/rmap.h,
mm/rmap.c.
"""

from collections.abc import Iterator
import enum

from drgn import Object, Program
from drgn.helpers.linux.mm import PageSlab, pfn_to_page
from drgn.helpers.linux.rbtree import rbtree_inorder_for_each_entry

from drgn_pmem.dumpfile import State, vmcoreinfo_of
from drgn_pmem.kernel.daxfs import DaxInode, host_of_mapping
from drgn_pmem.kernel.debuginfo import has_type
from drgn_pmem.kernel.page import page_layout
from drgn_pmem.kernel.pagestate import PageState
from drgn_pmem.kernel.pagetable import read_saved
from drgn_pmem.kernel.rmap import mapped_pfn
from drgn_pmem.kernel.tasks import Task, tasks_of
from drgn_pmem.kernel.walk import bounded
from drgn_pmem.partial import NotSaved, Partial, Problems
from drgn_pmem.record import Record, Show, shown

__all__ = ("AnonymousUser", "RamPage", "RamUse", "ram_use_of")

_MAX_VMAS = 1 << 16
_MAX_ORDER = 16
_ANON, _KSM = 1, 3
"""PAGE_MAPPING_ANON, PAGE_MAPPING_KSM (FOLIO_MAPPING_...): low bits of mapping."""


class RamUse(enum.Enum):
    """What a page of RAM is used for."""

    FREE = "free"
    PAGE_CACHE = "page cache"
    ANONYMOUS = "anonymous"
    SLAB = "slab"
    PAGE_TABLE = "page table"
    RESERVED = "reserved"


class AnonymousUser(Record):
    """A process whose page tables map a page of anonymous memory."""

    task: Task
    address: int = shown(Show.ADDRESS)


class RamPage(Record):
    """What a page of RAM is used for."""

    use: RamUse | None
    """None if its struct page does not say."""
    inode: DaxInode | None = shown(Show.HIDDEN)
    """Of page cache."""
    offset: int | None
    """bytes: of page cache, in the file"""
    users: tuple[AnonymousUser, ...]
    """Of anonymous memory."""
    blocks_offline: bool | None
    """Whether it keeps its memory block from going offline: memory of the kernel cannot be moved.
    None if that is not known."""


def ram_use_of(prog: Program, page: PageState) -> Partial[RamPage]:
    """
    What a page of RAM is used for.

    :param page: As :func:`~drgn_pmem.kernel.page.read_page` gives it; one without a page map.
    """
    problems = Problems()
    use, inode = None, None
    users: tuple[AnonymousUser, ...] = ()
    offset = None
    if page.state is State.SAVED and page.reason is None and page.head_pfn is not None:
        with problems.trying(f"use of PFN {page.pfn:#x}"):
            use = _use(prog, page)
            if use is RamUse.PAGE_CACHE:
                inode = host_of_mapping(prog, page.mapping or 0)
                use = use if inode is not None else None
                if inode is not None and page.index is not None:
                    offset = page.index << page_layout(prog).page_shift
            elif use is RamUse.ANONYMOUS and (page.mapping or 0) & 3 == _ANON:
                users = tuple(_users(prog, page, problems))
    return problems.partial(
        RamPage(
            use=use,
            inode=inode,
            offset=offset,
            users=users,
            blocks_offline=_blocks_offline(page, use),
        )
    )


def _blocks_offline(page: PageState, use: RamUse | None) -> bool | None:
    if use in (RamUse.SLAB, RamUse.PAGE_TABLE, RamUse.RESERVED):
        return True
    if use is RamUse.FREE:
        return False
    # Pages on the LRU lists can be moved, unless something holds a reference that the counts do not
    # show.
    return None


def _use(prog: Program, page: PageState) -> RamUse | None:
    head = page.pfn if page.head_pfn is None else page.head_pfn
    struct_page = pfn_to_page(prog, head)
    if PageSlab(struct_page):
        return RamUse.SLAB
    if page.flag_names is not None and "PG_reserved" in page.flag_names:
        return RamUse.RESERVED
    if _in_buddy(prog, page.pfn):
        return RamUse.FREE
    if _is_table(prog, _page_type(prog, head)):
        return RamUse.PAGE_TABLE
    mapping = page.mapping or 0
    if page.refcount is None or page.refcount <= 0:
        return None
    if mapping & 3 in (_ANON, _KSM):
        return RamUse.ANONYMOUS
    if mapping > 3 and not mapping & 3 and mapping >> 63:
        return RamUse.PAGE_CACHE
    return None


def _page_type(prog: Program, pfn: int) -> int:
    """``page_type``, which shares its place with ``_mapcount``."""
    layout = page_layout(prog)
    data = read_saved(prog, layout.address(pfn) + layout.mapcount, 4)
    return int.from_bytes(data, "little" if layout.little_endian else "big")


def _in_buddy(prog: Program, pfn: int) -> bool:
    """Whether the page is in a free block of the buddy allocator, whose first page is marked."""
    marked = vmcoreinfo_of(prog).numbers.get("PAGE_BUDDY_MAPCOUNT_VALUE")
    if marked is None:
        return False
    for order in range(_MAX_ORDER):
        first = pfn >> order << order
        try:
            is_marked = _page_type(prog, first) == marked & 0xFFFFFFFF
        except NotSaved:
            return False  # not a problem: then the page is not said to be free
        if is_marked:
            return bool(pfn_to_page(prog, first).private.value_() >= order)
    return False


def _is_table(prog: Program, page_type: int) -> bool:
    # Since Linux kernel commit 4ffca5a96678 ("mm: support only one page_type per page") (in v6.12),
    # a number in the top byte.
    if has_type(prog, "enum pagetype"):
        names = {e.name: e.value for e in prog.type("enum pagetype").enumerators or ()}
        if "PGTY_table" in names:
            return page_type >> 24 == names["PGTY_table"]
    # Before, a bit that is cleared: PG_table is 0x400 until Linux kernel commit 18b2db3b0385 ("mm:
    # Convert page kmemcg type to a page memcg flag") (in v5.11) made it 0x200.
    bit = 0x200 if prog.type("struct page").has_member("memcg_data") else 0x400
    return page_type & (0xF0000000 | bit) == 0xF0000000


def _users(prog: Program, page: PageState, problems: Problems) -> Iterator[AnonymousUser]:
    """Processes that map a page of anonymous memory, by its ``anon_vma``."""
    anon_vma = Object(prog, "struct anon_vma *", (page.mapping or 0) & ~3)
    root = anon_vma.rb_root.address_of_()
    if not anon_vma.rb_root.type_.type_name().endswith("rb_root"):
        root = anon_vma.rb_root.rb_root.address_of_()
    shift = page_layout(prog).page_shift
    by_mm = problems.take(tasks_of(prog)).by_mm
    chains = rbtree_inorder_for_each_entry("struct anon_vma_chain", root, "rb")
    what = f"anon_vma of PFN {page.pfn:#x}"
    for chain in problems.collect(bounded(chains, what, limit=_MAX_VMAS), what):
        with problems.trying(what):
            vma = chain.vma
            index = (page.index or 0) - vma.vm_pgoff.value_()
            address = vma.vm_start.value_() + (index << shift)
            if index < 0 or address >= vma.vm_end.value_():
                continue
            mm = vma.vm_mm.value_()
            if problems.take(mapped_pfn(prog, mm, address), what) != page.pfn:
                continue
            for task in by_mm.get(mm, ()):
                yield AnonymousUser(task=task, address=address)
