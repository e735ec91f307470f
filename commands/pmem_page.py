# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-page``: one page, everything in its struct page."""

import argparse

from drgn import Program

from drgn_pmem.commands.common import NAMESPACE_MODULES, flags_text, words_of
from drgn_pmem.output.table import Field
from drgn_pmem.record import Show
from drgn_pmem.spec import Answer, Argument, command


def _code(args: argparse.Namespace) -> str:
    return (
        "from drgn_pmem import read_pmem_page, parse_page\n\n"
        f"for text in {args.page!r}:\n"
        "    answer = read_pmem_page(prog, parse_page(prog, text))\n"
        "    page, state = answer.value, answer.value.state\n"
        "    print(hex(state.pfn), page.namespace, state.state.value, state.reason,\n"
        "          state.flag_names, state.refcount, state.pins, page.owner, state.index)\n"
        "    print(*answer.problems)  # what the dump does not hold\n"
    )


@command(
    name="pmem-page",
    description="show one page: where its struct page is and what it contains",
    long_description=(
        "Decode the struct page of a page of persistent memory, or of RAM: flags, counts,\n"
        "mapping, index, sharing, compound head, pgmap. If its bytes are not in the dump, or the\n"
        "kernel never wrote them, that is the answer; pmem-rmap then finds owners in other ways.\n"
        "A sector in the kernel log, or in ndctl list -M for a namespace, is DEVICE:SECTOR. The\n"
        "badblocks of a region count from the start of the region, the blocks of ndctl\n"
        "inject-error from the start of the namespace, not of its data (pmem-poison -o raw_offset)."
    ),
    arguments=(
        Argument("page", kind="page", nargs="+", metavar="PAGE",
                 help="PFN, physical address (pfn:N and phys:N force either), struct page address,"
                 " namespace0.0+OFFSET, pmem0+OFFSET (bytes into its data), pmem0:SECTOR or"
                 " /dev/pmem0p1:SECTOR; - reads them from standard input"),
    ),
    fields=(
        Field("PFN", lambda p: p.state.pfn, "page frame number", right=True, show=Show.ADDRESS),
        Field.of("NAMESPACE", "namespace", "namespace", keep=1),
        Field("OFFSET", lambda p: p.offset, "bytes into the namespace's data", right=True,
              show=Show.ADDRESS),
        Field("STATE", lambda p: p.state.state.value, "of the struct page in the dump",
              keep=2, coloured=True),
        Field.of("STATUS", "status",
                 "idle, file, shared, pinned, poisoned, aliased, memmap, uninitialised,"
                 " overwritten, unknown; of RAM page cache, anonymous, slab, page table, reserved,"
                 " free; of a driver's memory anonymous, free, device memory", keep=2,
                 coloured=True),
        Field("POISON", lambda p: p.poison,
              "sources that report it bad: badblocks, bad ranges, HWPoison, kernel log", keep=1,
              wrap=True),
        Field("FLAGS", lambda p: flags_text(p.state), "page flags", wrap=True),
        Field.of("REFCOUNT", "state.refcount", "_refcount of the head", right=True),
        Field.of("MAPCOUNT", "state.mapcount", "mappings, where the kernel counts them",
                 right=True),
        Field.of("PINS", "state.pins", "extra references: beyond mappings and idle ones",
                 right=True),
        Field.of("ORDER", "state.order", "of the compound page", right=True),
        Field.of("INDEX", "state.index", "page offset in its file", right=True),
        Field.of("SHARE", "state.share", "how many mappings share it", right=True),
        Field.of("OWNER", "owner",
              "file or device that the struct page names; of RAM also who maps it", keep=2,
              wrap=True),
        Field("BLOCKS_OFFLINE", lambda p: p.ram and p.ram.blocks_offline,
              "of RAM: it keeps its memory block from going offline", shown=False),
        Field.of("REASON", "state.reason", "why something is unknown", keep=1, wrap=True),
        Field.of("PHYSICAL", "state.physical", "physical address", right=True, shown=False),
        Field.of("PAGE", "state.page", "address of the struct page", right=True, shown=False),
        Field.of("PAGE_PHYSICAL", "state.page_physical", "where the struct page itself is",
                 right=True, shown=False),
        Field.of("MAPPING", "state.mapping", "mapping of the head, as stored", right=True,
                 shown=False),
        Field("HEAD", lambda p: p.state.head_pfn, "PFN of the head", right=True, shown=False,
              show=Show.ADDRESS),
        Field.of("PGMAP", "state.pgmap", "struct dev_pagemap", right=True, shown=False),
        Field.of("PGMAP_KNOWN", "state.pgmap_known", "no: the struct page was overwritten",
                 shown=False),
        Field.of("TYPE", "state.type", "enum memory_type of its page map", shown=False),
        Field.of("ZONE", "state.zone", "zone", shown=False),
        Field.of("NODE", "state.nid", "NUMA node", right=True, shown=False),
        Field.of("QUERY", "query", "what was asked for", shown=False),
    ),
    examples=(
        ("pmem-page namespace2.0+0", "the first page of the data of namespace2.0"),
        ("pmem-page pmem2:8 -o +page,page_physical", "a bad sector's page, and its struct page"),
    ),
    code=_code,
    modules=NAMESPACE_MODULES
    | {
        "nd_pmem": "bad blocks of namespaces",
        "dm_mod": "files on device-mapper disks that share the page",
        "xfs": "files of an XFS that share the page",
    },
)  # fmt: skip
def pmem_page(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.pages.named import named_pages
    from drgn_pmem.partial import Problems

    problems = Problems()
    pages = problems.take(named_pages(prog, words_of(args.page)))
    notes = [note for page in pages for note in page.notes]
    return Answer(pages, notes=list(dict.fromkeys(notes)), problems=problems)
