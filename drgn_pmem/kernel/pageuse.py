# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What the words of a struct page say of its use
----------------------------------------------

Slab, page table, page cache, anonymous memory: from flags, page type, mapping and reference count,
the same for one page and for many. Sources: include/linux/page-flags.h, include/linux/mm_types.h.
"""

import enum

from drgn import Program

from drgn_pmem.dumpfile import vmcoreinfo_of
from drgn_pmem.kernel.debuginfo import find_type
from drgn_pmem.kernel.memory import cached
from drgn_pmem.record import Record, Show, shown

__all__ = ("PageMarks", "RamUse", "page_marks", "use_by_words")

ANON, KSM = 1, 3
"""PAGE_MAPPING_ANON, PAGE_MAPPING_KSM (FOLIO_MAPPING_...): low bits of mapping."""

_TYPES = 0x80000000
"""``page_type`` of a page that has one; any other value there is a mapcount."""
_NO_TYPE = 0xFF000000
_OLD_BASE = 0xF0000000
"""``PAGE_TYPE_BASE``: a type is a bit below it that is cleared."""
_OLD_RESERVE = 0xFFFFFF80
"""``PAGE_MAPCOUNT_RESERVE``, -128: from there on it is a mapcount."""


class RamUse(enum.Enum):
    """What a page of RAM is used for."""

    FREE = "free"
    """On a list of the buddy allocator."""
    CPU_FREE = "free on a CPU"
    """On the list of free pages of a CPU."""
    PAGE_CACHE = "page cache"
    ANONYMOUS = "anonymous"
    SLAB = "slab"
    PAGE_TABLE = "page table"
    RESERVED = "reserved"
    MEMMAP = "memmap"
    """Struct pages of its own memory block."""
    ALLOCATED = "allocated"
    """In use, and its struct page names no owner: memory of the kernel or of a driver (vmalloc,
    stacks, buffers)."""

    @property
    def is_free(self) -> bool:
        return self in (RamUse.FREE, RamUse.CPU_FREE)

    @property
    def cannot_move(self) -> bool:
        """Whether the kernel cannot move it elsewhere (``has_unmovable_pages()``,
        ``scan_movable_pages()``)."""
        return self in _UNMOVABLE


_UNMOVABLE = (RamUse.SLAB, RamUse.PAGE_TABLE, RamUse.RESERVED, RamUse.ALLOCATED)


class PageMarks(Record):
    """Flags and page types of this kernel: masks of flags are 0 where it does not have them."""

    slab: int = shown(Show.ADDRESS)
    reserved: int = shown(Show.ADDRESS)
    lru: int = shown(Show.ADDRESS)
    private: int = shown(Show.ADDRESS)
    swap_cache: int = shown(Show.ADDRESS)
    buddy: int | None = shown(Show.ADDRESS)
    """``page_type`` of the first page of a free block; None if vmcoreinfo does not have it."""
    slab_type: int | None = shown(Show.ADDRESS)
    """``page_type`` of a slab, where that is no flag."""
    table_type: int | None
    """Number of the page type "table"; None where a type is a bit."""
    table_bit: int = shown(Show.ADDRESS)

    def has_type(self, page_type: int) -> bool:
        """Whether ``page_type`` is one; else it is a mapcount."""
        return _TYPES <= page_type < (_OLD_RESERVE if self.table_type is None else _NO_TYPE)

    def is_table(self, page_type: int) -> bool:
        if self.table_type is not None:
            return page_type >> 24 == self.table_type
        return page_type & (_OLD_BASE | self.table_bit) == _OLD_BASE

    def is_slab(self, flags: int, page_type: int) -> bool:
        if self.slab_type is None:
            return bool(flags & self.slab)
        if self.table_type is not None:
            return page_type >> 24 == self.slab_type >> 24
        return page_type == self.slab_type


def page_marks(prog: Program) -> PageMarks:
    """
    The marks of this kernel, found once.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    marks: PageMarks = cached(prog, "page_marks", lambda: _find(prog))
    return marks


def _find(prog: Program) -> PageMarks:
    find_type(prog, "struct page", "vmlinux")
    flags = _enumerators(prog, "enum pageflags")
    types = _enumerators(prog, "enum pagetype")
    numbers = vmcoreinfo_of(prog).numbers

    def mask(name: str) -> int:
        return 1 << flags[name] if name in flags else 0

    def number(name: str) -> int | None:
        value = numbers.get(f"PAGE_{name}_MAPCOUNT_VALUE")
        return None if value is None else value & 0xFFFFFFFF

    # PG_swapcache is another name of PG_owner_priv_1 (PG_swapcache == PG_owner_priv_1) and means
    # that only for anonymous memory.
    return PageMarks(
        slab=mask("PG_slab"),
        reserved=mask("PG_reserved"),
        lru=mask("PG_lru"),
        private=mask("PG_private"),
        swap_cache=mask("PG_swapcache"),
        buddy=number("BUDDY"),
        # Since Linux kernel commit 46df8e73a4a3 ("mm: free up PG_slab") (in v6.11) a page type.
        slab_type=number("SLAB") if "PG_slab" not in flags else None,
        # Since commit 4ffca5a96678 ("mm: support only one page_type per page") (in v6.12), a number
        # in the top byte.
        table_type=types.get("PGTY_table"),
        # Before, a bit that is cleared: PG_table is 0x400 until commit 18b2db3b0385 ("mm: Convert
        # page kmemcg type to a page memcg flag") (in v5.11) made it 0x200. Without CONFIG_MEMCG
        # nothing shows that; commit dd3b614f858c ("vm_ops: rename .split() callback to
        # .may_split()") is of the same version.
        table_bit=0x200 if _has_member(prog, "vm_operations_struct", "may_split") else 0x400,
    )


def _has_member(prog: Program, structure: str, member: str) -> bool:
    return find_type(prog, f"struct {structure}", "vmlinux").has_member(member)


def _enumerators(prog: Program, name: str) -> dict[str, int]:
    try:
        return {e.name: e.value for e in prog.type(name).enumerators or ()}
    except LookupError:
        # not a problem: this kernel has no such type
        return {}


def use_by_words(
    marks: PageMarks, flags: int, page_type: int, mapping: int, refcount: int
) -> RamUse | None:
    """
    What a page is used for, unless it is free.

    :param flags: Of the head, as all others.
    :param page_type: Or ``_mapcount``, which shares its place.
    :return: None if these words do not say it. Page cache must be proven by its mapping.
    """
    if marks.is_slab(flags, page_type):
        return RamUse.SLAB
    if flags & marks.reserved:
        return RamUse.RESERVED
    if marks.is_table(page_type):
        return RamUse.PAGE_TABLE
    if refcount <= 0:
        return None
    if mapping & 3 in (ANON, KSM):
        return RamUse.ANONYMOUS
    if mapping > 3 and not mapping & 3 and mapping >> 63:
        return RamUse.PAGE_CACHE
    if mapping == 0 and not marks.has_type(page_type):
        return RamUse.ALLOCATED
    return None
