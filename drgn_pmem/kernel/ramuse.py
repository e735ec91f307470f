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

from collections.abc import Iterable, Iterator
from typing import Literal

from drgn import Object, Program
from drgn.helpers.linux.rbtree import rbtree_inorder_for_each_entry

from drgn_pmem.dumpfile import State
from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel.daxfs import DaxInode, host_of_mapping
from drgn_pmem.kernel.freelists import cpu_free_pages, lru_batches, zones_of
from drgn_pmem.kernel.page import page_layout
from drgn_pmem.kernel.pagestate import PageState
from drgn_pmem.kernel.pagetable import read_saved
from drgn_pmem.kernel.pageuse import ANON, RamUse, page_marks, use_by_words
from drgn_pmem.kernel.rmap import mapped_pfn
from drgn_pmem.kernel.tasks import Task, tasks_of
from drgn_pmem.kernel.walk import bounded
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "AnonymousUser",
    "RamPage",
    "RamUse",
    "anonymous_users",
    "ram_use_of",
    "vmas_of_anon_vma",
    "words_of_users",
)

_MAX_VMAS = 1 << 16
_MAX_ORDER = 16


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
    extra: int | None = None
    """Of page cache and anonymous memory, references beyond those of the page cache, of mappings
    and of the CPUs' LRU batches; None if one of the counts is not known."""
    blocks_offline: bool | None
    """Whether it keeps its memory block from going offline: memory of the kernel, and pages with
    extra references, cannot be moved. None if that is not known."""


def ram_use_of(prog: Program, page: PageState) -> Partial[RamPage]:
    """
    What a page of RAM is used for.

    :param page: As :func:`~drgn_pmem.kernel.page.read_page` gives it; one without a page map.
    """
    problems = Problems()
    use, inode = None, None
    users: tuple[AnonymousUser, ...] = ()
    offset = extra = None
    what = f"use of PFN {page.pfn:#x}"
    if page.state is State.SAVED and page.reason is None and page.head_pfn is not None:
        with problems.trying(what):
            use = _use(prog, page, problems)
            if use is RamUse.PAGE_CACHE:
                inode = host_of_mapping(prog, page.mapping or 0)
                use = use if inode is not None else None
                if inode is not None and page.index is not None:
                    offset = page.index << page_layout(prog).page_shift
            elif use is RamUse.ANONYMOUS and (page.mapping or 0) & 3 == ANON:
                users = tuple(_users(prog, page, problems))
            if use in (RamUse.PAGE_CACHE, RamUse.ANONYMOUS):
                extra = _extra(prog, page, use, problems)
        if use is None and not problems:
            why = _why_unknown(prog, page)
            problems.add(Problem(cause=Cause.UNSUPPORTED, why=why), what)
    return problems.partial(
        RamPage(
            use=use,
            inode=inode,
            offset=offset,
            users=users,
            extra=extra,
            blocks_offline=_blocks_offline(use, extra),
        )
    )


def _why_unknown(prog: Program, page: PageState) -> str:
    """Why a page whose struct page was saved has no use that is known."""
    if page.refcount == 0:
        return (
            "not in use (refcount 0) and on no free list of the buddy allocator or of a CPU: it was"
            " being allocated or freed"
        )
    if page.refcount is not None and page.refcount < 0:
        return f"refcount {page.refcount}: damaged"
    mapping = page.mapping or 0
    if mapping > 3:
        return f"its mapping {mapping:#x} is no address space of an inode that could be read"
    return f"page type {_page_type(prog, page.head_pfn or page.pfn):#x}"


def _blocks_offline(use: RamUse | None, extra: int | None) -> bool | None:
    if use is None:
        return None
    if use in (RamUse.PAGE_CACHE, RamUse.ANONYMOUS):
        return None if extra is None else extra > 0
    return use.cannot_move


def _use(prog: Program, page: PageState, problems: Problems) -> RamUse | None:
    head = page.pfn if page.head_pfn is None else page.head_pfn
    if page.flags is None or page.refcount is None:
        return None
    use = use_by_words(
        page_marks(prog), page.flags, _page_type(prog, head), page.mapping or 0, page.refcount
    )
    if use is not None or page.refcount:
        return use
    if _in_buddy(prog, page.pfn, problems):
        return RamUse.FREE
    for zone in zones_of(prog, page.pfn, page.pfn + 1):
        free = problems.take(cpu_free_pages(prog, zone))
        orders = range(_MAX_ORDER)
        if any(free.get(page.pfn >> order << order, -1) >= order for order in orders):
            return RamUse.CPU_FREE
    return None


def _extra(prog: Program, page: PageState, use: RamUse, problems: Problems) -> int | None:
    """References beyond those of the page cache, of mappings and of LRU batches
    (``folio_expected_ref_count()``)."""
    head = page.pfn if page.head_pfn is None else page.head_pfn
    if page.order is None or page.refcount is None or page.flags is None:
        return None
    marks, batches = page_marks(prog), lru_batches(prog)
    expected = problems.take(batches).get(head, 0) + bool(page.flags & marks.private)
    if use is RamUse.PAGE_CACHE or page.flags & marks.swap_cache:
        expected += 1 << page.order
    if page.refcount > expected:
        small = _page_type(prog, head) + 1 & 0xFFFFFFFF
        mapped = large_mapcount(prog, head) if page.order else small
        if mapped is None:
            return None
        expected += mapped
    if page.refcount > expected and not batches.complete:
        return None
    return max(0, page.refcount - expected)


def large_mapcount(prog: Program, pfn: int) -> int | None:
    """
    Mappings of a large folio.

    :param pfn: Of its head.
    :return: None if it was not saved, or this kernel does not count them in one place.
    """
    layout = page_layout(prog)
    if layout.large_mapcount is None:
        return None
    try:
        data = read_saved(prog, layout.address(pfn) + layout.large_mapcount, 4)
    except NotSaved:
        # not a problem: the caller says what is not known then
        return None
    order: Literal["little", "big"] = "little" if layout.little_endian else "big"
    return max(0, int.from_bytes(data, order, signed=True) + 1)


def _page_type(prog: Program, pfn: int) -> int:
    """``page_type``, which shares its place with ``_mapcount``."""
    layout = page_layout(prog)
    data = read_saved(prog, layout.address(pfn) + layout.mapcount, 4)
    return int.from_bytes(data, "little" if layout.little_endian else "big")


def _in_buddy(prog: Program, pfn: int, problems: Problems) -> bool:
    """Whether the page is in a free block of the buddy allocator, whose first page is marked."""
    marked = page_marks(prog).buddy
    if marked is None:
        raise MissingDebugInfo("vmcoreinfo has no PAGE_BUDDY_MAPCOUNT_VALUE")
    for order in range(_MAX_ORDER):
        first = pfn >> order << order
        with problems.trying(f"whether PFN {pfn:#x} is free"):
            if _page_type(prog, first) == marked:
                return order_of_block(prog, first) >= order
    return False


def order_of_block(prog: Program, pfn: int) -> int:
    """Order of the free block whose first page this is (``private``)."""
    layout = page_layout(prog)
    offset = prog.type("struct page").member("private").offset
    data = read_saved(prog, layout.address(pfn) + offset, 8)
    return int.from_bytes(data, "little" if layout.little_endian else "big")


def vmas_of_anon_vma(prog: Program, address: int) -> Partial[list[Object]]:
    """
    VMAs that may map pages of a ``struct anon_vma``.

    :param address: Of the ``struct anon_vma``.
    :return: ``struct vm_area_struct *``
    """
    problems = Problems()
    found = []
    what = f"anon_vma {address:#x}"
    with problems.trying(what):
        anon_vma = Object(prog, "struct anon_vma *", address)
        root = anon_vma.rb_root.address_of_()
        # Since Linux kernel commit f808c13fd373 ("lib/interval_tree: fast overlap detection") (in
        # v4.14) with the leftmost node beside it.
        if not anon_vma.rb_root.type_.type_name().endswith("rb_root"):
            root = anon_vma.rb_root.rb_root.address_of_()
        chains = rbtree_inorder_for_each_entry("struct anon_vma_chain", root, "rb")
        for chain in problems.collect(bounded(chains, what, limit=_MAX_VMAS), what):
            with problems.trying(what):
                found.append(chain.vma.read_())
    return problems.partial(found)


def anonymous_users(prog: Program, page: PageState) -> Partial[tuple[AnonymousUser, ...]]:
    """
    Processes that map a page of device memory as anonymous memory; none if it is not that.

    :param page: As :func:`~drgn_pmem.kernel.page.read_page` gives it, with its page map.
    """
    problems = Problems()
    users: tuple[AnonymousUser, ...] = ()
    if not page.trusted or (page.mapping or 0) & 3 != ANON:
        return problems.partial(users)
    what = f"processes that have PFN {page.pfn:#x}"
    if page.type == "MEMORY_DEVICE_PRIVATE":
        why = (
            "it is anonymous device-private memory, which no page table maps: the special swap "
            "entries that name it are not searched"
        )
        problems.add(Problem(cause=Cause.UNSUPPORTED, what=what, why=why))
        return problems.partial(users)
    with problems.trying(what):
        users = tuple(_users(prog, page, problems))
    return problems.partial(users)


def words_of_users(users: Iterable[AnonymousUser]) -> str:
    """``"12/comm at 0x7f00, 13/comm at 0x7f00"``"""
    return ", ".join(f"{u.task.tgid}/{u.task.comm} at {u.address:#x}" for u in users)


def _users(prog: Program, page: PageState, problems: Problems) -> Iterator[AnonymousUser]:
    """Processes that map a page of anonymous memory, by its ``anon_vma``."""
    shift = page_layout(prog).page_shift
    by_mm = problems.take(tasks_of(prog)).by_mm
    what = f"anon_vma of PFN {page.pfn:#x}"
    for vma in problems.take(vmas_of_anon_vma(prog, (page.mapping or 0) & ~3)):
        with problems.trying(what):
            index = (page.index or 0) - vma.vm_pgoff.value_()
            address = vma.vm_start.value_() + (index << shift)
            if index < 0 or address >= vma.vm_end.value_():
                continue
            mm = vma.vm_mm.value_()
            if problems.take(mapped_pfn(prog, mm, address), what) != page.pfn:
                continue
            for task in by_mm.get(mm, ()):
                yield AnonymousUser(task=task, address=address)
