# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-memmap``: where struct pages are by every source, side by side."""

import argparse

from drgn import Program

from drgn_pmem.commands.common import NAMESPACE_MODULES
from drgn_pmem.output.memmap import (
    altmap_text,
    dumped_text,
    infoblock_text,
    iomem_text,
    list_text,
    media_text,
    pfns_text,
)
from drgn_pmem.output.table import Field
from drgn_pmem.record import Show
from drgn_pmem.spec import SPECS, Answer, Argument, command

_STRAYS = "other entries of devm_memmap_vmcore:"

_ENTRY = (
    Field("ENTRY", lambda e: e.address, "address of the list entry", show=Show.ADDRESS),
    Field("LIST", lambda e: pfns_text(e.start_pfn, e.end_pfn), "its PFNs"),
    Field("STATE", lambda e: e.state, "stale, overlapping, duplicate, unknown"),
    Field("NAMESPACE", lambda e: e.namespace, "namespace that it belonged to"),
    Field("REASON", lambda e: e.reason, "why it is not live, if known"),
)


@command(
    name="pmem-memmap",
    description="compare every source of where a namespace's struct pages are",
    long_description=(
        "For each namespace, side by side: its entry in devm_memmap_vmcore, the altmap, the info\n"
        "block in RAM and on the media, the \"Device Backed Vmemmap\" resource, and the physical\n"
        "addresses of the first and last struct page by page table. PFN ranges exclude their end."
    ),
    arguments=(Argument("namespace", kind="namespace", nargs="?", help="only this namespace"),),
    fields=(
        Field("NAMESPACE", lambda m: m.namespace.dev, "namespace"),
        Field("MAP", lambda m: m.namespace.map, "dev, mem"),
        Field("LIST", lambda m: list_text(m.list_entry), "PFNs of its devm_memmap_vmcore entry"),
        Field("ALTMAP", altmap_text, "PFNs that the altmap sets aside"),
        Field.of("ALLOC", "pgmap.altmap.alloc", "pages of the altmap that hold struct pages",
                 right=True),
        Field("INFO_RAM", lambda m: infoblock_text(m, m.infoblock_ram),
              "PFNs before the data, by the info block in RAM"),
        Field("INFO_MEDIA", media_text,
              "the same on the media, or why it cannot be read"),
        Field("IOMEM", iomem_text, 'PFNs of "Device Backed Vmemmap"', shown=False),
        Field.of("FIRST", "struct_pages.first_physical",
                 "physical address of the first struct page"),
        Field.of("LAST", "struct_pages.last_physical", "physical address of the last struct page"),
        Field.of("PLACE", "place", "where the struct pages are", keep=2),
        Field("DUMPED", dumped_text, "how much of them the dump holds", keep=2, coloured=True),
        Field.of("AGREE", "agree", "whether the sources agree", keep=2),
    ),
    examples=(
        ("pmem-memmap", "all namespaces"),
        ("pmem-memmap namespace0.0 --json", "every field of one"),
        ("pmem-memmap -o namespace,first,last,place", "the page tables' answer only"),
    ),
    code=lambda args: (
        "from drgn_pmem import read_memmaps\n\n"
        "answer = read_memmaps(prog)\n"
        f"for memmap in answer.value.only(prog, {args.namespace!r}).memmaps:\n"
        "    print(memmap.namespace.dev, memmap.list_entry, memmap.pgmap and memmap.pgmap.altmap,\n"
        "          memmap.struct_pages, memmap.agree, *memmap.notes)\n"
    ),
    modules=NAMESPACE_MODULES | {"libnvdimm": "info blocks in RAM, details of namespaces"},
)  # fmt: skip
def pmem_memmap(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.memmap.intact import overwritten_notes
    from drgn_pmem.analysis.memmap.sources import read_memmap_sources
    from drgn_pmem.partial import Problems

    problems = Problems()
    found = problems.take(read_memmap_sources(prog, args.namespace))
    return Answer(
        [*found.memmaps, *found.strays],
        notes=[
            *(f"{m.namespace.dev}: {note}" for m in found.memmaps for note in m.notes),
            *problems.take(overwritten_notes(prog, found.memmaps)),
        ],
        problems=problems,
        sections=[
            ("", found.memmaps, SPECS["pmem-memmap"].fields),
            (_STRAYS, found.strays, _ENTRY),
        ],
        json=found.to_json(),
    )
