# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Locations of struct pages for tables: ranges of PFNs, shares as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drgn_pmem.partial import State
from drgn_pmem.ranges import percent

if TYPE_CHECKING:
    from drgn_pmem.analysis.memmap.sources import Memmap
    from drgn_pmem.formats.infoblock import InfoBlock
    from drgn_pmem.kernel.devm_memmap import MemmapEntry

__all__ = (
    "altmap_text",
    "dumped_text",
    "infoblock_text",
    "iomem_text",
    "list_text",
    "media_text",
    "pfns_text",
)


def pfns_text(start: int, end: int) -> str:
    """PFNs, end exclusive."""
    return f"{start:#x}-{end:#x}"


def dumped_text(memmap: Memmap) -> str | None:
    """How much of the struct pages the dump holds; None if there are none."""
    pages = memmap.struct_pages
    if pages is None:
        return None
    if pages.saved == pages.size:
        return "all"
    others = "/".join(s.value for s in pages.states if s is not State.SAVED)
    return f"{percent(pages.saved, pages.size)}, rest {others}" if pages.saved else others


def list_text(entry: MemmapEntry | None) -> str | None:
    """PFNs of a list entry, and what is wrong with it."""
    if entry is None:
        return None
    state = "" if entry.state == "live" else f" ({entry.state})"
    return pfns_text(entry.start_pfn, entry.end_pfn) + state


def altmap_text(memmap: Memmap) -> str | None:
    """PFNs that the altmap sets aside for info block and struct pages."""
    altmap = memmap.pgmap.altmap if memmap.pgmap else None
    return None if altmap is None else pfns_text(altmap.base_pfn, altmap.base_pfn + altmap.offset)


def iomem_text(memmap: Memmap) -> str | None:
    """PFNs of the "Device Backed Vmemmap" resource."""
    if memmap.iomem is None:
        return None
    shift = memmap.page_shift
    return pfns_text(memmap.iomem.start >> shift, (memmap.iomem.end + 1) >> shift)


def infoblock_text(memmap: Memmap, block: InfoBlock | None) -> str | None:
    """PFNs before the data, by an info block."""
    if block is None:
        return None
    start = memmap.namespace.resource + block.start_pad
    shift = memmap.page_shift
    return pfns_text(start >> shift, (start + block.dataoff) >> shift)


def media_text(memmap: Memmap) -> str | None:
    """PFNs before the data by the info block on the media, or why it cannot be read."""
    namespace = memmap.namespace
    if namespace.map is None or namespace.has_no_claim:
        return None
    return infoblock_text(memmap, memmap.infoblock_media) or (
        "damaged" if memmap.media_state is State.SAVED else memmap.media_state.value
    )
