# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Page maps
---------

Every ``struct dev_pagemap`` (ZONE_DEVICE mapping) of the kernel, from ``pgmap_array``: the root
that is in vmlinux itself and needs no module's debug info. Sources: mm/memremap.c,
include/linux/memremap.h, ``struct vmem_altmap`` in the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
import itertools
from typing import Any

from drgn import FaultError, Object, Program, cast
from drgn.helpers.linux.xarray import xa_for_each, xa_load

from drgn_pmem.kernel.debuginfo import find_variable, has_member
from drgn_pmem.kernel.walk import LIMIT
from drgn_pmem.partial import WalkError
from drgn_pmem.ranges import Range

__all__ = ("Altmap", "Pgmap", "find_pgmap", "for_each_pgmap", "read_pgmap")

_PGMAP_ALTMAP_VALID = 1 << 0
_MAX_RANGES = 1 << 12


@dataclass(frozen=True)
class Altmap:
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

    def to_json(self) -> dict[str, Any]:
        return {
            "base_pfn": self.base_pfn,
            "end_pfn": self.end_pfn,
            "reserve": self.reserve,
            "free": self.free,
            "alloc": self.alloc,
            "align": self.align,
        }


@dataclass(frozen=True)
class Pgmap:
    """``struct dev_pagemap``."""

    address: int
    type: str
    """Enumerator of ``enum memory_type``: ``"MEMORY_DEVICE_FS_DAX"``."""
    ranges: tuple[Range, ...]
    altmap: Altmap | None
    vmemmap_shift: int
    """Order of its compound pages (0: none)."""
    flags: int
    owner: int
    """Address; the ``struct pmem_device`` of an fsdax mapping."""
    page_shift: int
    object: Object = field(repr=False, compare=False)
    """``struct dev_pagemap *``"""

    @property
    def first_pfn(self) -> int:
        """First PFN whose struct page the kernel initialised: after the altmap's own pages."""
        first = self.ranges[0].start >> self.page_shift
        if self.altmap is None:
            return first
        return max(first, self.altmap.base_pfn + self.altmap.offset)

    @property
    def end_pfn(self) -> int:
        """End of the last range, exclusive."""
        return max(r.end for r in self.ranges) >> self.page_shift

    def has_pfn(self, pfn: int) -> bool:
        """Whether the page belongs to the mapping (also below :attr:`first_pfn`)."""
        address = pfn << self.page_shift
        return any(address in r for r in self.ranges)

    def to_json(self) -> dict[str, Any]:
        return {
            "address": f"{self.address:#x}",
            "type": self.type,
            "ranges": [r.to_json() for r in self.ranges],
            "altmap": self.altmap.to_json() if self.altmap else None,
            "vmemmap_shift": self.vmemmap_shift,
        }


def _read_altmap(altmap: Object) -> Altmap:
    return Altmap(
        altmap.base_pfn.value_(),
        # Since Linux kernel commit cf387d9644d8 ("libnvdimm/altmap: Track namespace boundaries in
        # altmap") (in v5.4).
        altmap.end_pfn.value_() if has_member(altmap, "end_pfn") else None,
        altmap.reserve.value_(),
        altmap.free.value_(),
        altmap.align.value_(),
        altmap.alloc.value_(),
    )


def _read_ranges(pgmap: Object) -> tuple[Range, ...]:
    # Since Linux kernel commit b7b3c01b1915 ("mm/memremap_pages: support multiple ranges per
    # invocation") (in v5.10), a mapping has several ranges; before, one struct range or resource.
    if has_member(pgmap, "nr_range"):
        count = pgmap.nr_range.value_()
        if not 0 < count <= _MAX_RANGES:
            raise WalkError(f"dev_pagemap {pgmap.value_():#x}: nr_range {count} is not sound")
        entries = [pgmap.ranges[i] for i in range(count)] if count > 1 else [pgmap.range]
    else:
        entries = [pgmap.res]
    return tuple(Range(e.start.value_(), e.end.value_() + 1) for e in entries)


def _memory_type(pgmap: Object) -> str:
    value = pgmap.type
    for enumerator in value.type_.enumerators or ():
        if enumerator.value == value.value_():
            return str(enumerator.name)
    return str(value.value_())


def read_pgmap(pgmap: Object) -> Pgmap:
    """
    Record of a page map.

    :param pgmap: ``struct dev_pagemap *``
    :raises FaultError: if the dump does not hold it
    :raises WalkError: if its counts are absurd
    """
    ranges = _read_ranges(pgmap)
    # Since v5.3 a flag; before, a bool.
    if has_member(pgmap, "flags"):
        flags = pgmap.flags.value_()
    else:
        flags = _PGMAP_ALTMAP_VALID if pgmap.altmap_valid else 0
    return Pgmap(
        pgmap.value_(),
        _memory_type(pgmap),
        ranges,
        _read_altmap(pgmap.altmap) if flags & _PGMAP_ALTMAP_VALID else None,
        # Since Linux kernel commit c4386bd8ee3a ("mm/memremap: add ZONE_DEVICE support for compound
        # pages") (in v5.17).
        pgmap.vmemmap_shift.value_() if has_member(pgmap, "vmemmap_shift") else 0,
        flags,
        # Since v5.7.
        pgmap.owner.value_() if has_member(pgmap, "owner") else 0,
        pgmap.prog_["PAGE_SHIFT"].value_(),
        pgmap,
    )


def for_each_pgmap(prog: Program) -> Iterator[Pgmap]:
    """
    Every page map of ``pgmap_array``, in order of PFN.

    :raises WalkError: after what could be read
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    array = find_variable(prog, "pgmap_array", "vmlinux").address_of_()
    seen: set[int] = set()
    entries = xa_for_each(array)
    for count in itertools.count():
        try:
            _, entry = next(entries)
        except StopIteration:
            return
        except FaultError as error:
            raise WalkError(f"pgmap_array: stopped after {count} entries: {error}") from None
        if count >= LIMIT:
            raise WalkError(f"pgmap_array: stopped after {count} entries: too many to be sound")
        # A range that is no power of two is several entries of one page map.
        if entry.value_() in seen:
            continue
        seen.add(entry.value_())
        yield read_pgmap(cast("struct dev_pagemap *", entry))


def find_pgmap(prog: Program, pfn: int) -> Pgmap | None:
    """
    The page map that a page belongs to; None if it is no ZONE_DEVICE page.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    array = find_variable(prog, "pgmap_array", "vmlinux").address_of_()
    entry = xa_load(array, pfn)
    return read_pgmap(cast("struct dev_pagemap *", entry)) if entry else None
