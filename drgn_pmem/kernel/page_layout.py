# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Layout of struct page
---------------------

Where the words of ``struct page`` that matter for persistent memory are, and the vmemmap, in this
kernel: from debug info, or from vmcoreinfo alone. Source: include/linux/mm_types.h.

Three generations of fsdax pages are distinguished by members, never by version:

=============================  =========================  ================  ========  =============
generation                     how it is known            shared extent     count     idle refcount
=============================  =========================  ================  ========  =============
before 6.15 (``MAPPING``)      ``struct folio`` without   ``mapping == 1``  index     1
                               ``share``
6.15 and later (``FOLIO``)     ``folio.share``            mapping NULL and  share     0
                                                          ``share > 0``
=============================  =========================  ================  ========  =============

(``PAGE_MAPPING_DAX_COW`` of 6.0 and ``PAGE_MAPPING_DAX_SHARED`` of 6.3 are both ``mapping == 1``;
``page->share`` of 6.3 is a union with ``index``; before 6.0 nothing was shared.)
"""

from collections.abc import Iterator
import enum
import itertools
import struct

from drgn import FaultError, Object, Program, Type, TypeKind

from drgn_pmem.dumpfile.vmcoreinfo import Vmcoreinfo, vmcoreinfo_of
from drgn_pmem.errors import MissingDebugInfo, UsageError
from drgn_pmem.kernel.byteorder import is_little_endian
from drgn_pmem.kernel.debuginfo import has_variable
from drgn_pmem.kernel.kmod import symbol_address
from drgn_pmem.kernel.memory import address_of
from drgn_pmem.kernel.pagetable import read_saved
from drgn_pmem.partial import Cause, NotSaved, Problem, Problems
from drgn_pmem.record import Record, Show, shown

__all__ = ("USE_NOT_SHOWN", "DaxGeneration", "PageLayout", "page_layout", "pfn_of")

_MAX_ROOTS = 1 << 17
_MAX_READ = 1 << 10
"""Arrays of sections that are looked at: each has a section with a memmap."""

USE_NOT_SHOWN = (
    "this kernel (before Linux 4.19) sets no owner in struct pages of a DAX device: whether they "
    "are mapped is unknown here; pmem-rmap PFN asks the page tables"
)
"""Of device DAX, where :attr:`PageLayout.keeps_index` is False."""


class DaxGeneration(enum.Enum):
    """How the kernel keeps the state of fsdax pages."""

    MAPPING = "mapping"
    """Every page by itself, idle at refcount 1, ``mapping == 1`` if shared."""
    FOLIO = "folio"
    """Folios, idle at refcount 0. Since Linux kernel commit 38607c62b34b ("fs/dax: properly
    refcount fs dax pages") (in v6.15)."""


class PageLayout(Record):
    """Offsets in bytes from the start of ``struct page``; None where this kernel or its debug info
    does not have the member."""

    source: str
    """``"debug info"`` or ``"vmcoreinfo"``."""
    size: int
    vmemmap: int = shown(Show.ADDRESS)
    """Virtual address of the struct page of PFN 0."""
    page_shift: int
    flags: int
    refcount: int
    mapcount: int
    mapping: int
    index: int
    """Also the share count."""
    keeps_index: bool
    """Whether DAX sets the index of a file's pages, and the mapping of pages of a DAX device."""
    word: int
    """The word of ``lru.next``: pgmap, or the head of a tail page with bit 0 set."""
    generation: DaxGeneration | None
    """None: there is only vmcoreinfo, which does not have it."""
    head_is_mask: bool
    """The word of a tail page is a mask for its address, not the address of the head. Since Linux
    kernel commit 8c846c879e22 ("mm: rework compound_head() for power-of-2 sizeof(struct page)")
    (in v7.1)."""
    head_bit: int | None
    """Mask of PG_head in flags."""
    hwpoison_bit: int | None
    """Mask of PG_hwpoison in flags."""
    order: int | None
    """Offset from the head of the byte whose value is the order of a compound page."""
    large_mapcount: int | None
    """Offset from the head of the mapcount of a large folio."""
    little_endian: bool

    def address(self, pfn: int) -> int:
        """Virtual address of the struct page of a PFN."""
        return self.vmemmap + pfn * self.size

    def pfn(self, address: int) -> int | None:
        """PFN of a struct page by its virtual address; None if it cannot be one."""
        index, rest = divmod(address - self.vmemmap, self.size)
        return index if rest == 0 and 0 <= index < 1 << (64 - self.page_shift) else None


def pfn_of(prog: Program, page: "Object | int") -> int:
    """
    PFN of a page.

    :param page: PFN, as an int or an integer object, ``struct page *`` or ``struct page``.
    :raises UsageError: for the address of anything else
    """
    if not isinstance(page, Object):
        return page
    if page.type_.unaliased_kind() == TypeKind.INT:
        return int(page)
    address = address_of(page)
    pfn = page_layout(prog).pfn(address)
    if pfn is None:
        raise UsageError(f"{address:#x} is not the address of a struct page")
    return pfn


def page_layout(prog: Program) -> PageLayout:
    """
    Layout of struct page in this kernel; kept in ``prog.cache``.

    :raises MissingDebugInfo: if neither debug info nor vmcoreinfo has it
    :raises NotSaved: if the dump does not hold where the struct pages are
    """
    layout = prog.cache.get("drgn_pmem.page_layout")
    if layout is None:
        layout = _from_debug_info(prog) or _from_vmcoreinfo(prog)
        words = (layout.flags, layout.word, layout.mapping, layout.index)
        halves = (layout.mapcount, layout.refcount)
        if max(*(at + 8 for at in words), *(at + 4 for at in halves)) > layout.size:
            raise MissingDebugInfo(
                f"struct page: members beyond its size of {layout.size} bytes: implausible"
            )
        prog.cache["drgn_pmem.page_layout"] = layout
    return layout


def _find_type(prog: Program, name: str) -> Type | None:
    try:
        return prog.type(name)
    except LookupError:
        # not a problem: the caller asks vmcoreinfo then
        return None


def _offset(type_: Type | None, *names: str) -> int | None:
    """Offset of the first member that exists."""
    if type_ is None:
        return None
    for name in names:
        try:
            return _offset_of(type_, name)
        except LookupError:
            # not a problem: an older name is asked for next
            continue
    return None


def _offset_of(type_: Type, designator: str) -> int:
    member = type_.member(designator)
    return member.offset


def _flag(prog: Program, name: str) -> int | None:
    """Mask of a page flag: enumerator in debug info, NUMBER in vmcoreinfo."""
    try:
        return 1 << prog.constant(name).value_()
    except LookupError:
        # not a problem: vmcoreinfo is asked next
        pass
    info = vmcoreinfo_of(prog)
    bit = info.numbers.get(name)
    return info.numbers.get(f"{name}_mask") if bit is None else 1 << (bit & 63)


def _from_debug_info(prog: Program) -> PageLayout | None:
    page = _find_type(prog, "struct page")
    if page is None:
        return None
    folio = _find_type(prog, "struct folio")
    zone = _find_type(prog, "struct zone")
    # "index" became "__folio_index" in v6.14 or so; mapping and index have always been neighbours.
    index = _offset(page, "index", "__folio_index", "share")
    flags, refcount = _offset(page, "flags"), _offset(page, "_refcount")
    mapping, mapcount = _offset(page, "mapping"), _offset(page, "_mapcount")
    word = _offset(page, "lru", "compound_info", "compound_head", "pgmap")
    if None in (index, flags, refcount, mapping, mapcount, word):
        return None
    # Where the order of a compound page is, newest first: low byte of folio->_flags_1 (v6.6),
    # folio->_folio_order (v6.1), compound_order of the first tail page.
    order = _offset(folio, "_folio_order", "_flags_1")
    if order is None:
        in_tail = _offset(page, "compound_order")
        order = None if in_tail is None else page.size + in_tail
    elif _offset(folio, "_folio_order") is None and not is_little_endian(prog):
        order += 7  # the low byte of a big-endian word
    shared = folio is not None and folio.has_member("share")
    return PageLayout(
        source="debug info",
        size=page.size,
        vmemmap=_vmemmap(prog),
        page_shift=prog["PAGE_SHIFT"].value_(),
        flags=flags or 0,
        refcount=refcount or 0,
        mapcount=mapcount or 0,
        mapping=mapping or 0,
        index=index or 0,
        keeps_index=_keeps_index(prog),
        word=word or 0,
        generation=DaxGeneration.FOLIO if shared else DaxGeneration.MAPPING,
        head_is_mask=_has_mask(page, zone),
        head_bit=_flag(prog, "PG_head"),
        hwpoison_bit=_flag(prog, "PG_hwpoison"),
        order=order,
        large_mapcount=_offset(folio, "_large_mapcount"),
        little_endian=is_little_endian(prog),
    )


def _keeps_index(prog: Program) -> bool:
    """
    Since Linux kernel commit 73449daf8f06 ("filesystem-dax: Set page->index") (in v4.19): before,
    DAX sets the mapping of a file's pages, but not their index, and device DAX sets neither
    (commit 2232c6382a45, "device-dax: Enable page_mapping()"). The same series brought
    ``dax_lock_mapping_entry()``, which became ``dax_lock_page()`` and ``dax_lock_folio()``.
    """
    locks = ("dax_lock_folio", "dax_lock_page", "dax_lock_mapping_entry")
    return symbol_address(prog, "dax_finish_sync_fault") is None or any(
        symbol_address(prog, name) is not None for name in locks
    )


def _has_mask(page: Type, zone: Type | None) -> bool:
    # CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP is not in debug info; zone->vmemmap_tails came with it
    # in the same series.
    return (
        page.has_member("compound_info")
        and page.size & (page.size - 1) == 0
        and zone is not None
        and zone.has_member("vmemmap_tails")
    )


def _from_vmcoreinfo(prog: Program) -> PageLayout:
    info = vmcoreinfo_of(prog)

    def need(table: dict[str, int], name: str) -> int:
        value = table.get(name)
        if value is None or not 0 <= value < 4096:
            raise MissingDebugInfo(
                f"the layout of struct page is unknown: no debug info of the kernel is loaded "
                f"(-s VMLINUX) and VMCOREINFO has no plausible {name}"
            )
        return value

    size, mapping = need(info.sizes, "page"), need(info.offsets, "page.mapping")
    page_size = info.page_size or 0
    if size == 0 or page_size <= 0 or page_size & (page_size - 1):
        raise MissingDebugInfo("VMCOREINFO: SIZE(page) or PAGESIZE is implausible")
    return PageLayout(
        source="vmcoreinfo",
        size=size,
        vmemmap=_vmemmap(prog),
        page_shift=page_size.bit_length() - 1,
        flags=need(info.offsets, "page.flags"),
        refcount=need(info.offsets, "page._refcount"),
        mapcount=need(info.offsets, "page._mapcount"),
        mapping=mapping,
        index=mapping + 8,
        # The log's ring buffer (Linux kernel commit 896fbe20b4e2, in v5.10) is younger than the
        # index of DAX pages; without it, it could be either.
        keeps_index="prb" in info.symbols or "page.compound_info" in info.offsets,
        word=need(info.offsets, "page.lru"),
        # compound_info is newer than folio->share; without it, it could be either.
        generation=DaxGeneration.FOLIO if "page.compound_info" in info.offsets else None,
        head_is_mask=False,
        head_bit=_flag(prog, "PG_head"),
        hwpoison_bit=_flag(prog, "PG_hwpoison"),
        order=None,
        large_mapcount=None,
        little_endian=is_little_endian(prog),
    )


def _vmemmap(prog: Program) -> int:
    """Virtual address of the struct page of PFN 0."""
    problems = Problems()
    try:
        return prog["vmemmap"].value_()
    except (LookupError, ValueError):
        # not a problem: vmcoreinfo and the sections are asked next
        pass
    except FaultError as error:
        problems.add(error, "mem_section")
    info = vmcoreinfo_of(prog)
    if "vmemmap" in info.symbols:
        return info.symbols["vmemmap"]
    # x86_64 with CONFIG_DYNAMIC_MEMORY_LAYOUT (arch/x86/include/asm/pgtable_64_types.h); drgn reads
    # the sections, too.
    if has_variable(prog, "vmemmap_base"):
        with problems.trying("vmemmap_base"):
            return int(prog["vmemmap_base"])
    found = _vmemmap_from_sections(prog, info, problems)
    if found is None:
        why = next((f": {problem}" for problem in problems), "")
        what = f"the address of the vmemmap is unknown{why}"
        if problems and _find_type(prog, "struct page") is not None:
            raise NotSaved(what)
        raise MissingDebugInfo(f"{what}; load the kernel's debug info (-s VMLINUX)")
    return found


def _section_roots(
    prog: Program, start: int, count: int, page_size: int, problems: Problems
) -> Iterator[int]:
    """Addresses of the arrays of sections, in the array at *start*: page by page, of which some may
    not be saved."""
    order = "<" if is_little_endian(prog) else ">"
    end = start + 8 * count
    while start < end:
        following = min(end, start + max(8, (page_size - start % page_size) // 8 * 8))
        with problems.trying("mem_section"):
            data = read_saved(prog, start, following - start)
            yield from filter(None, struct.unpack(f"{order}{len(data) // 8}Q", data))
        start = following


def _vmemmap_from_sections(prog: Program, info: Vmcoreinfo, problems: Problems) -> int | None:
    """Every present ``mem_section`` has it, encoded; the first readable one is used."""
    roots_at, roots = info.symbols.get("mem_section"), info.lengths.get("mem_section")
    size, offset = info.sizes.get("mem_section"), info.offsets.get("mem_section.section_mem_map")
    page_size = info.page_size
    if roots_at is None or roots is None or not size or offset is None or not page_size:
        return None
    order = "little" if is_little_endian(prog) else "big"
    sections = _section_roots(prog, roots_at, min(roots, _MAX_ROOTS), page_size, problems)
    for section in itertools.islice(sections, _MAX_READ):
        data = b""
        with problems.trying("mem_section"):
            data = read_saved(prog, section, page_size)
        if not data:
            continue
        for at in range(max(offset, 0), page_size - 7, max(size, 8)):
            encoded = int.from_bytes(data[at : at + 8], order)  # type: ignore[arg-type]
            # Present and with a memmap: SECTION_MARKED_PRESENT, SECTION_HAS_MEM_MAP. The other
            # flags are below the alignment of the vmemmap too.
            if encoded & 3 == 3:
                return encoded & ~0xFF
    if next(sections, None) is not None:
        why = f"none of the first {_MAX_READ} arrays of sections has a memmap"
        problems.add(Problem(cause=Cause.LIMIT, what="mem_section", why=why))
    return None
