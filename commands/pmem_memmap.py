# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-memmap``: where struct pages are by every source, side by side."""

import argparse

from drgn import Program

from drgn_pmem.commands.common import NAMESPACE_MODULES
from drgn_pmem.output.table import Field
from drgn_pmem.spec import SPECS, Answer, Argument, command

_STRAYS = "other entries of devm_memmap_vmcore:"

_ENTRY = (
    Field("ENTRY", lambda e: f"{e.address:#x}", "address of the list entry"),
    Field("LIST", lambda e: f"{e.start_pfn:#x}-{e.end_pfn:#x}", "its PFNs"),
    Field("STATE", lambda e: e.state, "stale, overlapping, duplicate, unknown"),
    Field("NAMESPACE", lambda e: e.namespace, "namespace that it belonged to"),
    Field("REASON", lambda e: e.reason, "why it is not live, where that can be told"),
)


@command(
    name="pmem-memmap",
    description="compare every source of where a namespace's struct pages are",
    long_description=(
        "For each namespace, side by side: its entry in devm_memmap_vmcore, the altmap, the info\n"
        "block in RAM and on the media, the \"Device Backed Vmemmap\" resource, and the physical\n"
        "place of the first and last struct page by page table. PFN ranges exclude their end."
    ),
    arguments=(Argument("namespace", kind="namespace", nargs="?", help="only this namespace"),),
    fields=(
        Field("NAMESPACE", lambda m: m.namespace.dev, "namespace"),
        Field("MAP", lambda m: m.namespace.map, "dev, mem"),
        Field("LIST", lambda m: m.list_text, "PFNs of its devm_memmap_vmcore entry"),
        Field("ALTMAP", lambda m: m.altmap_text, "PFNs that the altmap sets aside"),
        Field("ALLOC", lambda m: m.pgmap.altmap.alloc if m.altmap_text else None,
              "pages the struct pages took of it", right=True),
        Field("INFO_RAM", lambda m: m.infoblock_text(m.infoblock_ram),
              "PFNs before the data, by the info block in RAM"),
        Field("INFO_MEDIA", lambda m: m.media_text,
              "the same on the media, or why it cannot be read"),
        Field("IOMEM", lambda m: m.iomem_text, 'PFNs of "Device Backed Vmemmap"', shown=False),
        Field("FIRST", lambda m: m.physical_text("first_physical"),
              "physical address of the first struct page"),
        Field("LAST", lambda m: m.physical_text("last_physical"),
              "physical address of the last struct page"),
        Field("PLACE", lambda m: m.place, "where the struct pages lie"),
        Field("DUMPED", lambda m: m.dumped, "how much of them the dump holds"),
        Field("AGREE", lambda m: m.agree, "whether the sources say the same"),
    ),
    examples=(
        ("pmem-memmap", "all namespaces"),
        ("pmem-memmap namespace0.0 --json", "every field of one"),
        ("pmem-memmap -o namespace,first,last,place", "the page tables' answer only"),
    ),
    code=lambda args: (
        "from drgn_pmem import read_memmaps\n\n"
        f"for memmap in read_memmaps(prog).only(prog, {args.namespace!r}).memmaps:\n"
        "    print(memmap.namespace.dev, memmap.list_entry, memmap.pgmap and memmap.pgmap.altmap,\n"
        "          memmap.struct_pages, memmap.agree, *memmap.notes)\n"
    ),
    modules=NAMESPACE_MODULES | {"libnvdimm": "info blocks in RAM, namespaces beyond their place"},
)  # fmt: skip
def pmem_memmap(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.memmap.sources import read_memmaps

    answer = read_memmaps(prog).only(prog, args.namespace)
    notes = [f"{m.namespace.dev}: {note}" for m in answer.memmaps for note in m.notes]
    own = SPECS["pmem-memmap"].fields
    return Answer(
        [*answer.memmaps, *answer.strays],
        notes=notes,
        lacks=[
            *(f"{m.namespace.dev}: {line}" for m in answer.memmaps for line in m.lacks),
            *answer.problems,
        ],
        complete=not answer.problems,
        sections=[("", answer.memmaps, own), (_STRAYS, answer.strays, _ENTRY)],
        json=answer.to_json(),
    )
