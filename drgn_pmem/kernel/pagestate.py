# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
State of a page
---------------

The record that :func:`drgn_pmem.kernel.page.read_page` decodes a struct page into.
"""

from typing import Any

from drgn_pmem.dumpfile import State
from drgn_pmem.record import Record, Show, shown

__all__ = ("PageState",)


class PageState(Record):
    """
    One page by its struct page. A field is None where the dump, the debug info or this kernel does
    not have it; fields that a compound page keeps in its head are read from there.
    """

    pfn: int
    physical: int = shown(Show.ADDRESS)
    """bytes"""
    page: int | None = shown(Show.ADDRESS)
    """Virtual address of the struct page; None if the dump does not hold where they are."""
    page_physical: int | None = shown(Show.ADDRESS)
    """Where the struct page itself is; None if it is not mapped, or that is not known."""
    state: State
    """Whether the bytes of the struct page (and of its head's) are in the dump."""
    reason: str | None = None
    """Why nothing is known of the page; None if the fields below are the crashed kernel's."""
    initialised: bool = True
    """False for the struct pages of the info block of a map=dev namespace: mapped, but never
    written by the kernel."""
    holds: str | None = None
    """What a page of a map=dev namespace holds that is not data: ``"info block"`` or
    ``"memmap"``."""
    flags: int | None = shown(Show.ADDRESS, default=None)
    flag_names: tuple[str, ...] | None = None
    refcount: int | None = None
    mapcount: int | None = None
    """Page table entries that map the folio; None where the kernel does not keep it for pmem."""
    pins: int | None = None
    """References beyond idle and mappings (pins). FOLL_PIN counts 1024 each on small
    pages. None if one of the two counts is not known."""
    mapping: int | None = shown(Show.ADDRESS, default=None)
    """``mapping`` as it is stored in the head: 1 for a shared extent, 0 for none."""
    index: int | None = None
    """Of this page, in pages: the head's plus the distance to it. None if the page is shared, and
    where this kernel does not keep it for pages of pmem."""
    shared: bool | None = None
    """Belongs to a shared (reflinked) extent; owners are then found through i_pages only."""
    share: int | None = None
    """How many mappings share it."""
    head_pfn: int | None = None
    order: int | None = None
    """Of the compound page; 0 if it is none."""
    aliased: bool | None = None
    """The memory of the struct page is that of its neighbours too (optimised vmemmap of device
    DAX), so it says nothing about this page alone. None if the struct page was not saved, or the
    page tables do not say."""
    hwpoison: bool | None = None
    pgmap: int | None = shown(Show.ADDRESS, default=None)
    """Address of the ``struct dev_pagemap`` that the struct page points to."""
    pgmap_known: bool | None = None
    """Whether ``pgmap_array`` has it. False: the struct page was overwritten after the crash, as by
    a capture kernel that binds the namespace, and nothing in it is of use. None if not all page
    maps could be read: then the fields are not known either (:attr:`reason`)."""
    type: str | None = None
    """``enum memory_type`` of the page map that covers the PFN."""
    zone: str | None = None
    nid: int | None = None

    @property
    def trusted(self) -> bool:
        """Whether the struct page is valid: in the dump, initialised, not overwritten."""
        return self.state is State.SAVED and self.reason is None and self.pgmap_known is not False

    @property
    def pinned(self) -> bool | None:
        """Whether there are references beyond idle and its mappings; None if unknown."""
        return None if self.pins is None else self.pins > 0

    @property
    def mapping_address(self) -> int | None:
        """``struct address_space *`` of the owner, if the page has a single one."""
        if not self.mapping or self.shared or self.mapping & 3 or not self.mapping >> 63:
            return None
        return self.mapping

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"pinned": self.pinned}
