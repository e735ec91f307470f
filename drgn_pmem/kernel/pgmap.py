# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Page maps
---------

Every ``struct dev_pagemap`` (ZONE_DEVICE mapping) of the kernel, from ``pgmap_array``: the root
that is in vmlinux itself and needs no module's debug info. Sources: mm/memremap.c (before v5.3
kernel/memremap.c), include/linux/memremap.h, ``struct vmem_altmap`` in the same.
"""

from collections.abc import Iterator

from drgn import Object, Program, cast

from drgn_pmem.kernel.debuginfo import (
    find_variable,
    has_type,
    has_variable,
    member,
    optional_member,
)
from drgn_pmem.kernel.mmu import physical_range
from drgn_pmem.kernel.page_layout import pfn_of
from drgn_pmem.kernel.xarray import for_each_xarray_entry
from drgn_pmem.partial import Incomplete, Partial, Problems, WalkError
from drgn_pmem.ranges import Range
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "DEVICE_DAX",
    "FS_DAX",
    "Altmap",
    "Pgmap",
    "find_pgmap",
    "for_each_pgmap",
    "for_each_pmem_pgmap",
    "is_dax_type",
    "is_driver_type",
    "is_mapped",
    "read_pgmap",
    "use_of_device_memory",
)

_PGMAP_ALTMAP_VALID = 1 << 0

DEVICE_DAX = ("MEMORY_DEVICE_GENERIC", "MEMORY_DEVICE_DEVDAX", "0")
"""
``enum memory_type`` of device DAX, newest first.

Since Linux kernel commit 4533d3aed857 ("memremap: rename MEMORY_DEVICE_DEVDAX to
MEMORY_DEVICE_GENERIC") (in v5.10); since commit 3ed2dcdf54d5 ("memremap: validate the pagemap type
passed to devm_memremap_pages") (in v5.3); before, none: all other page maps have one.
"""

_MAX_RANGES = 1 << 12

FS_DAX = "MEMORY_DEVICE_FS_DAX"
"""Enumerator of ``enum memory_type`` for fsdax."""


_FREE_AT_ZERO = ("MEMORY_DEVICE_PRIVATE", "MEMORY_DEVICE_COHERENT")

_OF_DRIVERS = (*_FREE_AT_ZERO, "MEMORY_DEVICE_PUBLIC", "MEMORY_DEVICE_PCI_P2PDMA")
"""
``enum memory_type`` of memory that neither a DAX file system nor a DAX device has.

MEMORY_DEVICE_PUBLIC: until "mm: remove MEMORY_DEVICE_PUBLIC support" (in v5.3).
"""

_ANON = 1
"""``PAGE_MAPPING_ANON``, of the two low bits of ``page.mapping``."""


def is_dax_type(type_: str) -> bool:
    """Whether memory of this ``enum memory_type`` is that of a DAX file system or device; other
    memory is a driver's: device-private and -coherent, PCI peer-to-peer."""
    return type_ == FS_DAX or type_ in DEVICE_DAX


def is_driver_type(type_: str) -> bool:
    """Whether memory of this ``enum memory_type`` is known to be a driver's own: a type that is
    neither this nor that of DAX is one that is not known."""
    return type_ in _OF_DRIVERS


def use_of_device_memory(type_: str, mapping: int, refcount: int) -> str:
    """
    What a page of device memory that is not of DAX is used for, as far as its struct page shows:
    ``"anonymous"``, ``"free"``, or ``"device memory"``: what its driver does with it, and what an
    idle page of it looks like, is up to the driver and the kernel.

    :param mapping: ``page.mapping`` as it is stored.
    :param refcount: Of the head. That of a free page of device-private and -coherent memory is 0
        since Linux kernel commit 27674ef6c73f ("mm: remove the extra ZONE_DEVICE struct page
        refcount") (in v5.18); before, 1, which a page in use may have since.
    """
    if mapping & 3 == _ANON:
        return "anonymous"
    return "free" if type_ in _FREE_AT_ZERO and refcount == 0 else "device memory"


class Altmap(Record):
    """``struct vmem_altmap``: where the struct pages of a map=dev namespace were taken from."""

    base_pfn: int
    end_pfn: int | None
    """Last PFN, inclusive (kernels before 5.4 do not have it)."""
    reserve: int
    """Pages at the base that are not for struct pages: the info block."""
    free: int
    """Pages set aside for struct pages."""
    align: int
    """Pages lost to alignment."""
    alloc: int
    """Pages that struct pages took."""

    @property
    def offset(self) -> int:
        """``vmem_altmap_offset()``: pages from the base to the data."""
        return self.reserve + self.free


class Pgmap(Record):
    """``struct dev_pagemap``."""

    address: int = shown(Show.ADDRESS)
    type: str
    """Enumerator of ``enum memory_type``: ``"MEMORY_DEVICE_FS_DAX"``; ``"0"`` of device DAX before
    v5.3, which set none."""
    ranges: tuple[Range, ...]
    altmap: Altmap | None
    vmemmap_shift: int
    """Order of its compound pages (0: none)."""
    memmap_start: int = shown(json=False)
    """First PFN that got a struct page: of the first section or sub-section that is in part in the
    mapping."""
    flags: int = shown(Show.ADDRESS, json=False)
    owner: int | None = shown(Show.ADDRESS, json=False)
    """Address; the ``struct pmem_device`` of an fsdax mapping. None: kernels before v5.7."""
    page_shift: int = shown(json=False)
    object: Object = shown(Show.HIDDEN)
    """``struct dev_pagemap *``"""

    @property
    def is_fsdax(self) -> bool:
        """Whether its pages may be those of files of a DAX file system."""
        return self.type == FS_DAX

    @property
    def is_device_dax(self) -> bool:
        """Whether its pages are those of a DAX device, as far as the type of the page map shows."""
        return self.type in DEVICE_DAX

    @property
    def is_dax(self) -> bool:
        """Whether it is one of a DAX file system or device."""
        return is_dax_type(self.type)

    @property
    def first_pfn(self) -> int:
        """First PFN of the pages that are mapped: after the altmap's own, which hold the info block
        and the struct pages."""
        first = self.ranges[0].start >> self.page_shift
        if self.altmap is None:
            return first
        return max(first, self.altmap.base_pfn + self.altmap.offset)

    @property
    def memmap_pfn(self) -> int:
        """
        First PFN whose struct page the kernel initialised; up to :attr:`first_pfn` as reserved
        pages without a page map.

        Source: ``memmap_init_range()`` in mm/mm_init.c (``memmap_init_zone()`` before), which skips
        the reserve only.
        """
        first = start = self.ranges[0].start >> self.page_shift
        if self.altmap is not None and self.altmap.base_pfn == self.memmap_start:
            first = self.memmap_start + self.altmap.reserve
        return min(max(first, start), self.first_pfn)

    @property
    def end_pfn(self) -> int:
        """End of the last range, exclusive."""
        return max(r.end for r in self.ranges) >> self.page_shift

    def has_pfn(self, pfn: int) -> bool:
        """Whether the page belongs to the mapping (also below :attr:`first_pfn`)."""
        address = pfn << self.page_shift
        return any(address in r for r in self.ranges)


def _read_altmap(altmap: Object) -> Altmap:
    # Since Linux kernel commit cf387d9644d8 ("libnvdimm/altmap: Track namespace boundaries in
    # altmap") (in v5.4).
    end_pfn = optional_member(altmap, "end_pfn")
    return Altmap(
        base_pfn=member(altmap, "base_pfn").value_(),
        end_pfn=None if end_pfn is None else end_pfn.value_(),
        reserve=member(altmap, "reserve").value_(),
        free=member(altmap, "free").value_(),
        align=member(altmap, "align").value_(),
        alloc=member(altmap, "alloc").value_(),
    )


def _first_range(pgmap: Object) -> Object:
    # Since Linux kernel commit a4574f63edc6 ("mm/memremap_pages: convert to 'struct range'") (in
    # v5.10); before, a struct resource.
    return member(pgmap, "range", "res")


def is_mapped(pgmap: Object) -> bool:
    """
    Whether a page map that is embedded in a device is in use: it is zero where the driver mapped
    no pages.

    :param pgmap: ``struct dev_pagemap``
    """
    return bool(_first_range(pgmap).end.value_())


def _read_ranges(pgmap: Object) -> tuple[Range, ...]:
    # Since Linux kernel commit b7b3c01b1915 ("mm/memremap_pages: support multiple ranges per
    # invocation") (in v5.10), a mapping has several ranges: the first in a union with the array.
    number = optional_member(pgmap, "nr_range")
    if number is not None:
        count = number.value_()
        if not 0 < count <= _MAX_RANGES:
            raise WalkError(f"dev_pagemap: implausible nr_range {count}")
        entries = [pgmap.ranges[i] for i in range(count)] if count > 1 else [_first_range(pgmap)]
    else:
        entries = [_first_range(pgmap)]
    return tuple(
        physical_range(pgmap.prog_, e.start.value_(), e.end.value_(), "dev_pagemap")
        for e in entries
    )


def _memory_types(pgmap: Object) -> dict[str, int]:
    """``enum memory_type`` of this kernel."""
    enumerators = member(pgmap, "type").type_.enumerators
    return {enumerator.name: enumerator.value for enumerator in enumerators or ()}


def _memory_type(pgmap: Object) -> str:
    value = member(pgmap, "type").value_()
    names = {number: name for name, number in _memory_types(pgmap).items()}
    return names.get(value, str(value))


def _flags(pgmap: Object) -> int:
    # Since Linux kernel commit 514caf23a70f ("memremap: replace the altmap_valid field with a
    # PGMAP_ALTMAP_VALID flag") (in v5.3); before, a bool.
    flags = optional_member(pgmap, "flags")
    if flags is not None:
        return int(flags)
    return _PGMAP_ALTMAP_VALID if member(pgmap, "altmap_valid") else 0


def _memmap_start(prog: Program, first_pfn: int) -> int:
    # Since Linux kernel commit f1eca35a0dc7 ("mm/sparsemem: introduce struct mem_section_usage")
    # and what follows it (in v5.3), memory is added as it is; before, in whole sections.
    if has_type(prog, "struct mem_section_usage"):
        return first_pfn
    pages = 1 << (int(prog["SECTION_SIZE_BITS"]) - int(prog["PAGE_SHIFT"]))
    return first_pfn // pages * pages


def _vmemmap_shift(pgmap: Object) -> int:
    # Since Linux kernel commit c4386bd8ee3a ("mm/memremap: add ZONE_DEVICE support for compound
    # pages") (in v5.17). A kernel with MEMORY_DEVICE_COHERENT, which is newer (commit f25cbb7a95a2
    # ("mm: add zone device coherent type memory support"), in v6.0), has it, whatever its name is.
    shift = optional_member(pgmap, "vmemmap_shift")
    if shift is None and "MEMORY_DEVICE_COHERENT" in _memory_types(pgmap):
        shift = member(pgmap, "vmemmap_shift")
    return 0 if shift is None else int(shift)


def read_pgmap(pgmap: Object) -> Pgmap:
    """
    Record of a page map.

    :param pgmap: ``struct dev_pagemap *``
    :raises FaultError: if the dump does not hold it
    :raises MissingDebugInfo: if this kernel's has none of the members that are known
    :raises WalkError: if its counts are implausible
    """
    flags = _flags(pgmap)
    # Since Linux kernel commit f894ddd5ff01 ("memremap: add an owner field to struct dev_pagemap")
    # (in v5.7).
    owner = optional_member(pgmap, "owner")
    ranges = _read_ranges(pgmap)
    page_shift = int(pgmap.prog_["PAGE_SHIFT"])
    return Pgmap(
        address=pgmap.value_(),
        type=_memory_type(pgmap),
        ranges=ranges,
        memmap_start=_memmap_start(pgmap.prog_, ranges[0].start >> page_shift),
        altmap=_read_altmap(member(pgmap, "altmap")) if flags & _PGMAP_ALTMAP_VALID else None,
        vmemmap_shift=_vmemmap_shift(pgmap),
        flags=flags,
        owner=None if owner is None else owner.value_(),
        page_shift=page_shift,
        object=pgmap,
    )


def _root(prog: Program) -> Object:
    # Since Linux kernel commit bcfa4b72111c ("memremap: Convert to XArray") (in v4.20); before, a
    # radix tree, which drgn walks in the same way.
    if not has_variable(prog, "pgmap_array") and has_variable(prog, "pgmap_radix"):
        return prog["pgmap_radix"].address_of_()
    return find_variable(prog, "pgmap_array", "vmlinux").address_of_()


def _entries(prog: Program) -> Iterator[Object]:
    """Each ``struct dev_pagemap *`` once."""
    seen: set[int] = set()
    for _, entry in for_each_xarray_entry(_root(prog), "pgmap_array"):
        # A range that is not a power of two is several entries of one page map.
        if entry.value_() not in seen:
            seen.add(entry.value_())
            yield cast("struct dev_pagemap *", entry)


def for_each_pgmap(prog: Program) -> Partial[list[Pgmap]]:
    """Every page map of ``pgmap_array``, in order of PFN."""
    problems = Problems()
    found = []
    for entry in problems.collect(_entries(prog)):
        with problems.trying(f"dev_pagemap {entry.value_():#x}"):
            found.append(read_pgmap(entry))
    return problems.partial(found)


def for_each_pmem_pgmap(prog: Program) -> Partial[list[Pgmap]]:
    """Page maps whose memory is, or may be, persistent: not those that are known to be a driver's
    own (device-private and -coherent, PCI peer-to-peer)."""
    return for_each_pgmap(prog).map(
        lambda found: [pgmap for pgmap in found if not is_driver_type(pgmap.type)]
    )


def find_pgmap(prog: Program, page: "Object | int") -> Pgmap | None:
    """
    The page map that a page belongs to; None if it is not a ZONE_DEVICE page.

    :param page: PFN, or ``struct page *``.
    :raises Incomplete: if not all page maps can be read, and it is in none of the others
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    pfn, problems = pfn_of(prog, page), Problems()
    # Not by drgn's xa_load(), which does not return from a damaged tree that leads back to itself.
    found = next((g for g in problems.take(for_each_pgmap(prog)) if g.has_pfn(pfn)), None)
    if found is None and problems:
        raise Incomplete(problems)
    return found
