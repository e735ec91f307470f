# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Pages that CPUs keep
--------------------

Free pages on the lists of a CPU, and pages that a CPU will put on the LRU lists, of which it holds
references until then. Sources: include/linux/mmzone.h, mm/page_alloc.c, mm/swap.c.
"""

from collections.abc import Iterator

from drgn import Object, Program, TypeKind
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mmzone import for_each_online_pgdat
from drgn.helpers.linux.percpu import per_cpu, per_cpu_ptr

from drgn_pmem.kernel.debuginfo import has_variable, member, optional_member
from drgn_pmem.kernel.memory import cached, list_nodes, memory_of
from drgn_pmem.kernel.page_layout import page_layout
from drgn_pmem.partial import Partial, Problems

__all__ = ("cpu_free_pages", "lru_batches", "zones_of")

_COSTLY_ORDER = 3
"""PAGE_ALLOC_COSTLY_ORDER: the lists of a CPU are for the orders up to it, then for huge pages."""
_MAX_ENTRIES = 1 << 16
"""Of one list of a CPU, a hundred times more than there are."""


def zones_of(prog: Program, start_pfn: int, end_pfn: int) -> list[Object]:
    """
    Zones that span some of a range of PFNs.

    :return: ``struct zone *``
    """
    found = []
    for node in for_each_online_pgdat(prog):
        for zone in node.node_zones:
            start = zone.zone_start_pfn.value_()
            if start < end_pfn and start_pfn < start + zone.spanned_pages.value_():
                found.append(zone.address_of_())
    return found


def cpu_free_pages(prog: Program, zone: Object) -> Partial[dict[int, int]]:
    """
    Free pages of a zone on the lists of the CPUs, found once.

    :param zone: ``struct zone *``
    :return: PFN -> order
    """
    found: Partial[dict[int, int]] = cached(
        prog, f"cpu_free_pages {zone.value_():#x}", lambda: _cpu_free_pages(prog, zone)
    )
    return found


def _cpu_free_pages(prog: Program, zone: Object) -> Partial[dict[int, int]]:
    problems = Problems()
    found: dict[int, int] = {}
    layout, memory = page_layout(prog), memory_of(prog)
    with problems.trying("free pages of the CPUs"):
        # Since Linux kernel commit 28f836b6777b ("mm/page_alloc: split per cpu page lists and zone
        # stats") (in v5.14); before, in struct per_cpu_pageset.
        sets = member(zone, "per_cpu_pageset", "pageset")
        types = prog.constant("MIGRATE_PCPTYPES").value_()
        for cpu in for_each_possible_cpu(prog):
            pages = per_cpu_ptr(sets, cpu)
            lists = member(pages, "lists", "pcp.lists")
            what = f"free pages of CPU {cpu}"
            for number in range(lists.type_.length or 0):
                # Since commit 44042b449872 ("mm/page_alloc: allow high-order pages to be stored on
                # the per-cpu lists") (in v5.14), of several orders.
                order = number // types
                if order > _COSTLY_ORDER:
                    order = layout.page_shift - 3  # a page table's worth of pages
                nodes = list_nodes(memory, lists[number].address_, what, _MAX_ENTRIES)
                for node in problems.collect(nodes, what):
                    pfn = layout.pfn(node - layout.word)
                    if pfn is not None:
                        found[pfn] = order
    return problems.partial(found)


def lru_batches(prog: Program) -> Partial[dict[int, int]]:
    """PFN of a page -> how many references the batches of the CPUs hold (``lru_add_drain_all()``
    drops them, as before memory goes offline); found once."""
    found: Partial[dict[int, int]] = cached(prog, "lru_batches", lambda: _lru_batches(prog))
    return found


def _lru_batches(prog: Program) -> Partial[dict[int, int]]:
    problems = Problems()
    layout = page_layout(prog)
    found: dict[int, int] = {}
    with problems.trying("LRU batches of the CPUs"):
        # Since commit c2bc16817aa0 ("mm/swap: add folio_batch_move_lru()") (in v6.0) cpu_fbatches;
        # since v5.8 lru_pvecs and lru_rotate, before lru_add_pvec and others.
        names = ("cpu_fbatches", "lru_pvecs", "lru_rotate", "lru_add_pvec", "lru_rotate_pvecs",
                 "lru_deactivate_file_pvecs", "lru_deactivate_pvecs", "lru_lazyfree_pvecs",
                 "activate_page_pvecs")  # fmt: skip
        for name in names:
            if not has_variable(prog, name):
                continue
            for cpu in for_each_possible_cpu(prog):
                with problems.trying(f"{name} of CPU {cpu}"):
                    for address in _batched(per_cpu(prog[name], cpu)):
                        pfn = layout.pfn(address)
                        if pfn is not None:
                            found[pfn] = found.get(pfn, 0) + 1
    return problems.partial(found)


def _batched(value: Object) -> Iterator[int]:
    """Addresses of the pages in a batch, or in each that is a member."""
    pages = optional_member(value, "folios", "pages")
    if pages is not None and pages.type_.kind == TypeKind.ARRAY:
        count = min(value.nr.value_(), pages.type_.length or 0)
        yield from (pages[number].value_() for number in range(count))
        return
    for item in value.type_.members or ():
        if item.name is not None and item.type.kind == TypeKind.STRUCT:
            yield from _batched(value.member_(item.name))
