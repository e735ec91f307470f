# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-page``: one page, all that its struct page tells."""

import argparse
from typing import TYPE_CHECKING

from drgn import Program

from drgn_pmem.commands.common import NAMESPACE_MODULES
from drgn_pmem.errors import NotFound, UsageError
from drgn_pmem.output.table import Field
from drgn_pmem.spec import Answer, Argument, command

if TYPE_CHECKING:
    from drgn_pmem.analysis.pages.one import OnePage


def _code(args: argparse.Namespace) -> str:
    return (
        "from drgn_pmem import one_page, parse_page\n\n"
        f"pages = [one_page(prog, parse_page(prog, x)).value for x in {args.page!r}]\n"
        "for page in pages:\n"
        "    state = page.state\n"
        "    print(hex(state.pfn), page.namespace, state.state.value, state.reason,\n"
        "          state.flag_names, state.refcount, state.pins, page.owner, state.index)\n"
    )


def _hexadecimal(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def _status(page: "OnePage") -> str:
    state = page.state
    if not state.initialised:
        return "uninitialised"
    if state.pgmap_known is False:
        return "overwritten"
    if state.refcount is None:
        return state.state.value
    words = (
        ("poisoned", state.hwpoison),
        ("pinned", state.pinned),
        ("shared", state.shared),
        ("aliased", state.aliased),
        ("file", state.mapping_address is not None and state.type is not None),
    )
    return ",".join(word for word, is_so in words if is_so) or "idle"


@command(
    name="pmem-page",
    description="show one page: where its struct page is and everything that it tells",
    long_description=(
        "Decode the struct page of a page of persistent memory: flags, counts, mapping and index,\n"
        "sharing, compound head, pgmap. If its bytes are not in the dump, or the kernel never\n"
        "wrote them, that is the answer; pmem-rmap then finds owners in other ways."
    ),
    arguments=(
        Argument("page", kind="page", nargs="+", metavar="X",
                 help="PFN, physical address, struct page address, namespace0.0+OFFSET,"
                 " pmem0+OFFSET or pmem0:SECTOR; - reads them from standard input"),
    ),
    fields=(
        Field("PFN", lambda p: f"{p.state.pfn:#x}", "page frame number", right=True),
        Field("NAMESPACE", lambda p: p.namespace, "namespace"),
        Field("OFFSET", lambda p: _hexadecimal(p.offset), "bytes into the namespace's data",
              right=True),
        Field("STATE", lambda p: p.state.state.value, "of the struct page in the dump"),
        Field("STATUS", _status,
              "idle, file, shared, pinned, poisoned, aliased, uninitialised, overwritten"),
        Field("FLAGS", lambda p: [n.removeprefix("PG_") for n in p.state.flag_names] or
              _hexadecimal(p.state.flags), "page flags"),
        Field("REFCOUNT", lambda p: p.state.refcount, "_refcount of the head", right=True),
        Field("MAPCOUNT", lambda p: p.state.mapcount, "mappings, where the kernel counts them",
              right=True),
        Field("PINS", lambda p: p.state.pins, "references beyond idle and mappings", right=True),
        Field("ORDER", lambda p: p.state.order, "of the compound page", right=True),
        Field("INDEX", lambda p: p.state.index, "page offset in its file", right=True),
        Field("SHARE", lambda p: p.state.share, "how many mappings share it", right=True),
        Field("OWNER", lambda p: p.owner, "file or device that the struct page names"),
        Field("REASON", lambda p: p.state.reason, "why nothing, or not all, is known"),
        Field("PHYSICAL", lambda p: f"{p.state.physical:#x}", "physical address", right=True,
              shown=False),
        Field("PAGE", lambda p: f"{p.state.page:#x}", "address of the struct page", right=True,
              shown=False),
        Field("PAGE_PHYSICAL", lambda p: _hexadecimal(p.state.page_physical),
              "where the struct page itself is", right=True, shown=False),
        Field("MAPPING", lambda p: _hexadecimal(p.state.mapping), "mapping of the head, as stored",
              right=True, shown=False),
        Field("HEAD", lambda p: _hexadecimal(p.state.head_pfn), "PFN of the head", right=True,
              shown=False),
        Field("PGMAP", lambda p: _hexadecimal(p.state.pgmap), "struct dev_pagemap", right=True,
              shown=False),
        Field("PGMAP_KNOWN", lambda p: p.state.pgmap_known,
              "no: the struct page was overwritten", shown=False),
        Field("TYPE", lambda p: p.state.type, "enum memory_type of its page map", shown=False),
        Field("ZONE", lambda p: p.state.zone, "zone", shown=False),
        Field("NODE", lambda p: p.state.nid, "NUMA node", right=True, shown=False),
    ),
    examples=(
        ("pmem-page namespace2.0+0", "the first page of the data of namespace2.0"),
        ("pmem-page pmem2:8 -o +page,page_physical", "a bad sector's page, and its struct page"),
    ),
    code=_code,
    modules=NAMESPACE_MODULES,
)  # fmt: skip
def pmem_page(prog: Program, args: argparse.Namespace) -> Answer:
    import sys

    from drgn_pmem.analysis.pages.one import OnePage, one_page
    from drgn_pmem.kernel.debuginfo import has_type
    from drgn_pmem.kernel.page import resolve_page
    from drgn_pmem.partial import Problems

    words = [w for x in args.page for w in (sys.stdin.read().split() if x == "-" else [x])]
    pages: list[OnePage] = []
    notes: list[str] = []
    lacks: list[str] = []
    problems = Problems()
    for word in words:
        try:
            where = resolve_page(prog, word)
        except (UsageError, NotFound) as error:
            if len(words) == 1:
                raise
            lacks.append(str(error))
            continue
        page = problems.take(one_page(prog, where.pfn))
        pages.append(page)
        notes += [where.note] if where.note else []
        notes += page.notes
    if not words:
        raise UsageError("pmem-page: no page given")
    if unknown := [page.state for page in pages if page.state.refcount is None]:
        first = unknown[0]
        why = first.reason or f"its struct page is {first.state.value} in the dump"
        lacks.append(
            f"what {len(unknown)} of {len(pages)} struct pages say is not known, such as that of "
            f"PFN {first.pfn:#x}: {why}"
        )
    complete = not lacks
    if pages and not has_type(prog, "struct page"):
        lacks.append(
            "no debug info of the kernel (-s VMLINUX): flags have no names; zone, page map, pins "
            "and owner are not known"
        )
    return Answer(pages, list(dict.fromkeys(notes)), lacks, complete=complete, problems=problems)
