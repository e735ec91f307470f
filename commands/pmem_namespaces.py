# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-namespaces``: the namespaces, where their struct pages are, how much the dump holds."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from drgn import Program

from drgn_pmem.commands.common import (
    MOUNT_MODULES,
    NAMESPACE_MODULES,
    media_fields,
    nothing,
    reasons,
)
from drgn_pmem.output.bars import legend_of, namespace_bar, use_ascii
from drgn_pmem.output.memmap import dumped_text
from drgn_pmem.output.table import Field
from drgn_pmem.output.terminal import Look, paragraph
from drgn_pmem.partial import Problems
from drgn_pmem.record import Show
from drgn_pmem.spec import SPECS, Answer, Argument, command

if TYPE_CHECKING:
    from drgn_pmem.analysis.memmap.sources import Memmap


@command(
    name="pmem-namespaces",
    description="show the namespaces, where their struct pages are, what the dump holds of them",
    long_description=(
        "Show the enabled namespaces: mode, size and device as ndctl shows them; where their\n"
        "struct pages are (by page table, whatever map= says), how much of them the dump holds."
    ),
    arguments=(
        Argument("namespace", kind="namespace", nargs="?", help="only this namespace"),
        Argument("-u", "--human", action="store_true", help="human-readable sizes"),
    ),
    fields=(
        Field("NAMESPACE", lambda m: m.namespace.dev, "namespace"),
        Field("MODE", lambda m: m.namespace.mode, "fsdax, devdax, sector, raw"),
        Field("MAP", lambda m: m.namespace.map, "map given to ndctl: dev, mem"),
        Field("SIZE", lambda m: m.namespace.size, "usable bytes", right=True, show=Show.SIZE),
        Field("DEVICE", lambda m: m.namespace.blockdev or m.namespace.chardev, "its device"),
        Field("PHYSICAL", lambda m: f"{m.namespace.resource:#x}", "first byte", right=True),
        Field("MEMMAP", lambda m: m.place, "where its struct pages really are", keep=2),
        Field("MEMMAP_SIZE", lambda m: m.struct_pages and m.struct_pages.size,
              "bytes of struct pages", right=True, shown=False, show=Show.SIZE),
        Field("DUMPED", dumped_text, "how much of the struct pages the dump holds", keep=2,
              coloured=True),
        Field("NAME", lambda m: m.namespace.name, "given name"),
        Field("LAYOUT", lambda m: _bar(m),
              "info block, struct pages, data; shaded by what the dump holds (see pmem-coverage)"),
        Field("WHY", nothing, "why it is raw", shown=False),
        Field("HOLDS", nothing,
              "what its first bytes hold: ext4, xfs, gpt, ..., zero, other data", shown=False),
        Field("MOUNTED", nothing, "where it is mounted", shown=False),
        Field("UUID", lambda m: m.namespace.uuid, "uuid", shown=False),
        Field("RAW_SIZE", lambda m: m.namespace.raw_size, "bytes with metadata",
              right=True, shown=False, show=Show.SIZE),
        Field("REGION", lambda m: m.namespace.region, "its region", shown=False),
    ),
    examples=(
        ("pmem-namespaces", "all namespaces"),
        ("pmem-namespaces -u -o +uuid", "human-readable sizes, uuid added"),
        ("pmem-namespaces namespace0.0 --json", "one, as JSON"),
    ),
    code=lambda args: (
        "from drgn_pmem import read_memmaps\n\n"
        "answer = read_memmaps(prog)\n"
        f"for memmap in answer.value.only(prog, {args.namespace!r}).memmaps:\n"
        "    namespace, pages = memmap.namespace, memmap.struct_pages\n"
        "    print(namespace.dev, namespace.mode, namespace.size, pages and pages.place,\n"
        "          pages and pages.saved)\n"
    ),
    modules=NAMESPACE_MODULES | MOUNT_MODULES
    | {"nd_pmem": "block devices of fsdax and raw namespaces"},
)  # fmt: skip
def pmem_namespaces(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.memmap.sources import read_memmaps

    answer = read_memmaps(prog)
    from drgn_pmem.analysis.inventory.media import lost_memory, read_media
    from drgn_pmem.analysis.memmap.intact import overwritten_notes

    problems = Problems()
    memmaps = problems.take(answer).only(prog, args.namespace).memmaps
    media = problems.take(read_media(prog))
    fields = media_fields(SPECS["pmem-namespaces"].fields, lambda m: media.get(m.namespace.dev))
    json = []
    for memmap in memmaps:
        value = memmap.namespace_json()
        if memmap.namespace.dev in media:
            value["dump"] |= media[memmap.namespace.dev].to_json()
        json.append(value)
    return Answer(
        memmaps,
        [
            *reasons([memmap.namespace for memmap in memmaps], media),
            *(problems.take(lost_memory(prog)) if args.namespace is None else []),
            *problems.take(overwritten_notes(prog, memmaps)),
        ],
        problems=problems,
        fields=fields,
        json=json,
        footer=_footer,
    )


def _bar(memmap: "Memmap") -> str | None:
    pages = memmap.struct_pages
    # where the location of the struct pages is not known, the reserved space is theirs
    known = pages is not None and not pages.unknown
    on_pmem = pages.on_pmem > 0 if known and pages else memmap.namespace.map == "dev"
    return namespace_bar(
        memmap.parts,
        18,
        memmap=on_pmem,
        start=memmap.namespace.range.start,
        used=pages.pmem_range if known and pages else None,
    )


def _footer(memmaps: "Sequence[Memmap]", look: Look) -> str:
    bars = [_bar(memmap) or "" for memmap in memmaps]
    wanted = look.width and "LAYOUT" not in look.left_out
    lines = legend_of(bars, use_ascii()).splitlines() if wanted else []
    return "\n".join(map(paragraph, lines))
