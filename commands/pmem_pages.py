# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-pages``: the struct pages of a namespace, all of them."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from drgn import Program

from drgn_pmem.commands.common import flags_text
from drgn_pmem.output.table import Field
from drgn_pmem.output.text import natural
from drgn_pmem.record import Show
from drgn_pmem.spec import Answer, Argument, command

if TYPE_CHECKING:
    from drgn_pmem.analysis.pages.filter import Filter

_PAGE_FIELDS = (
    Field("FLAGS", flags_text, "page flags", wrap=True),
    Field.of("REFCOUNT", "refcount", "_refcount (of the folio's head)", right=True),
    Field.of("MAPCOUNT", "mapcount", "mappings, where the kernel counts them", right=True),
    Field.of("PINS", "pins", "extra references: beyond mappings and idle ones",
             right=True, shown=False),
    Field.of("FOLIO", "folio_pages", "pages of each folio", right=True, shown=False),
    Field.of("MAPPING", "mapping", "struct address_space of the owner", right=True, shown=False),
    Field.of("OWNER", "owner", "file or device; of RAM also processes", keep=2, wrap=True),
    Field.of("TYPE", "type", "enum memory_type of the page map; shown where not all is DAX",
             shown=False),
    Field.of("MEMORY_BLOCK", "memory_block", "of memory that is used as RAM", shown=False),
    Field.of("ZONE", "zone", "of its memory block", shown=False),
    Field.of("BLOCKS_OFFLINE", "blocks_offline",
             "of RAM: they keep their memory block from going offline", shown=False),
    Field.of("EXTRA", "extra",
             "of a range of RAM: references of each page beyond mappings and page cache",
             right=True, shown=False),
)  # fmt: skip
_OF_RAM = {"MEMORY_BLOCK": True, "BLOCKS_OFFLINE": True, "EXTRA": True, "FLAGS": False,
           "MAPCOUNT": False}  # fmt: skip
"""Fields that are shown, or not, where all rows are of memory that is used as RAM."""


def _of_group(field: Field) -> Field:
    """A field of a group as a field of a range."""
    show = Show.ADDRESS if field.name == "MAPPING" else Show.PLAIN
    return replace(Field(field.name, lambda entry: field.value(entry.group)), help=field.help,
                   right=field.right, shown=field.shown, show=show, keep=field.keep,
                   wrap=field.wrap)  # fmt: skip


_GROUPS = (
    Field.of("NAMESPACE", "namespace", "namespace; of other device memory the device or driver"),
    Field.of("STATUS", "status",
             "idle, file, shared, pinned, poisoned, tail, memmap, uninitialised, overwritten,"
             " torn (tails without a head), unknown; absent, excluded, truncated, damaged,"
             " unmapped: struct pages that"
             " cannot be read; of a driver's memory anonymous, free, device memory;"
             " of memory that is used as RAM page cache, anonymous, slab, page"
             " table, reserved, allocated, memmap, free, free on a CPU, offline", keep=2,
             coloured=True),
    Field.of("PAGES", "pages", "how many", right=True),
    Field("SIZE", lambda g: g.size, "of those pages", right=True, shown=False,
          show=Show.SIZE),
    Field.of("RANGES", "ranges", "in how many ranges", right=True),
    *_PAGE_FIELDS,
)  # fmt: skip

_RANGES = (
    Field.of("NAMESPACE", "group.namespace", "namespace"),
    Field("PFN", lambda r: r.pfn, "first page", right=True, show=Show.ADDRESS),
    Field.of("PAGES", "group.pages", "how many", right=True),
    Field.of("STATUS", "group.status", "their state"),
    Field.of("INDEX", "index", "offset of the first page in its file, in pages", right=True),
    *(_of_group(f) for f in _PAGE_FIELDS),
    Field.of("PHYSICAL", "physical", "physical address", right=True, shown=False),
    Field.of("SHARE", "share", "how many mappings share each page", right=True, shown=False),
    Field("HEAD", lambda r: r.head_pfn, "PFN of the head of a tail page", right=True, shown=False,
          show=Show.ADDRESS),
)  # fmt: skip


def _code(args: argparse.Namespace) -> str:
    chosen = ", ".join(
        f"{name}={value!r}"
        for name, value in (
            ("owner", args.owner),
            ("busy", args.busy),
            ("hwpoison", args.hwpoison),
            ("shared", args.shared),
        )
        if value
    )
    masks = "".join(
        f", {name}={function}({'prog, ' if name == 'flags' else ''}{value!r})"
        for name, function, value in (
            ("flags", "parse_flags", args.flags),
            ("refcount", "parse_refcount", args.refcount),
        )
        if value
    )
    filters = (chosen + masks).removeprefix(", ")
    what = "ranges" if args.ranges else "groups"
    shown = (
        "hex(entry.pfn), entry.group.pages, entry.group.status, entry.index, entry.group.owner"
        if args.ranges
        else "entry.namespace, entry.status, entry.pages, entry.refcount, entry.owner"
    )
    return (
        "from drgn_pmem import Filter, parse_flags, parse_refcount, read_page_report\n\n"
        f"chosen = Filter({filters})\n"
        f"answer = read_page_report(prog, {args.namespace!r}, chosen, ranges={args.ranges})\n"
        f"for entry in answer.value.{what}:\n"
        f"    print({shown})\n"
        "print(*answer.problems)  # what the dump does not hold\n"
        "# The arrays that this counts: drgn_pmem.scan_pages()\n"
    )


@command(
    name="pmem-pages",
    description="show the states of all struct pages of a namespace, and the owners of the pages",
    long_description=(
        "Scan the struct pages of a namespace (or of all) and count them by flags, reference\n"
        "count and owner; --ranges lists where they are. Only struct pages that are in the dump\n"
        "are read; the others are counted by state (excluded, absent, truncated). Device memory\n"
        "that is not of DAX (device-private and -coherent, PCI peer-to-peer) has the name of its\n"
        "device or driver; what an idle page of it looks like is up to the driver. Memory that is\n"
        "used as RAM (system-ram) is shown by memory block: what its pages are used for, and with\n"
        "--busy which of them keep the block from going offline."
    ),
    arguments=(
        Argument("namespace", kind="namespace", nargs="?",
                 help="only this namespace, or what else NAMESPACE shows: 0000:00:03.0"),
        Argument("--ranges", action="store_true", help="list the ranges of pages"),
        Argument("--flags", metavar="FLAGS",
                 help="only pages with all these flags: names (dirty,locked) or a mask (0x...)"),
        Argument("--refcount", metavar="N", help="only pages with this _refcount: 2, 2- or 2-5"),
        Argument("--owner", kind="path", metavar="OWNER",
                 help="only pages of this file or device: part of its path, or the address of its"
                 " struct address_space"),
        Argument("--busy", action="store_true",
                 help="only pages with extra references (pinned); of RAM those that keep"
                 " their memory block from going offline"),
        Argument("--hwpoison", action="store_true", help="only poisoned pages"),
        Argument("--shared", action="store_true",
                 help="only pages whose struct page counts several files (reflink); pmem-files and"
                 " pmem-rmap compare DAX entries, too"),
    ),
    fields=_GROUPS,
    examples=(
        ("pmem-pages", "all namespaces, the most common state first"),
        ("pmem-pages namespace2.0 --busy --ranges", "pages with extra references, by range"),
        ("pmem-pages --owner alpha --ranges", "the pages of one file"),
        ("pmem-pages dax4.0", "memory that is used as RAM: what for, by memory block"),
    ),
    code=_code,
    modules={
        "libnvdimm": "namespaces in use as RAM",
        "dax": "owners of the pages of character devices",
    },
)  # fmt: skip
def pmem_pages(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.pages.states import read_page_report
    from drgn_pmem.kernel.pgmap import is_dax_type
    from drgn_pmem.output.progress import progress
    from drgn_pmem.partial import Problems

    problems = Problems()
    with progress("struct pages") as report:
        partial = read_page_report(
            prog, args.namespace, _filter(prog, args), ranges=args.ranges, progress=report
        )
    found = problems.take(partial)
    # The states of a namespace stay in their order: the most common first.
    groups = sorted(found.groups, key=lambda group: natural(group.namespace))
    fields = _RANGES if args.ranges else None
    if groups and all(group.memory_block for group in groups):
        shown = _OF_RAM if args.ranges else _OF_RAM | {"EXTRA": False, "REFCOUNT": False}
        fields = tuple(
            replace(field, shown=shown.get(field.name, field.shown)) for field in fields or _GROUPS
        )
    if any(group.type is not None and not is_dax_type(group.type) for group in groups):
        fields = tuple(
            replace(field, shown=field.shown or field.name == "TYPE")
            for field in fields or (_RANGES if args.ranges else _GROUPS)
        )
    return Answer(
        found.ranges if args.ranges else groups,
        notes=list(found.notes),
        problems=problems,
        fields=fields,
    )


def _filter(prog: Program, args: argparse.Namespace) -> "Filter":
    from drgn_pmem.analysis.pages.filter import Filter, parse_flags, parse_refcount

    return Filter(
        flags=parse_flags(prog, args.flags) if args.flags else 0,
        refcount=parse_refcount(args.refcount) if args.refcount else None,
        owner=args.owner,
        busy=args.busy,
        hwpoison=args.hwpoison,
        shared=args.shared,
    )
