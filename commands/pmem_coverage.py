# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-coverage``: what the dump holds of each namespace, and if its struct pages are intact."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from drgn import Program

from drgn_pmem.commands.common import NAMESPACE_MODULES
from drgn_pmem.output.bars import namespace_bar
from drgn_pmem.output.table import Field
from drgn_pmem.output.terminal import Look, paragraph
from drgn_pmem.output.text import escape
from drgn_pmem.ranges import percent
from drgn_pmem.spec import Answer, Argument, command

if TYPE_CHECKING:
    from drgn_pmem.analysis.coverage.records import NamespaceCoverage


def _struct_pages(coverage: "NamespaceCoverage") -> Any:
    return "overwritten" if coverage.destroyed else _states(coverage.struct_pages)


def _states(states: "dict[Any, int]") -> str | None:
    """``"saved 98%, excluded 2%"``; just the state where there is one only."""
    total = sum(states.values())
    if not total:
        return None
    if len(states) == 1:
        return f"{next(iter(states)).value}"
    return ", ".join(f"{state.value} {percent(size, total)}" for state, size in states.items())


_LOCATIONS = {None: None, "mem": "RAM", "pmem": "pmem", "pmem + mem": "pmem + RAM"}
"""Locations of struct pages in JSON, in the words of the other tables."""


def _bytes(states: "dict[Any, int]") -> str | None:
    return ", ".join(f"{state.value} {size}" for state, size in states.items()) or None


@command(
    name="pmem-coverage",
    description="show what the dump holds of each namespace, and a verdict",
    long_description=(
        "For each namespace: what the dump holds of its info block, metadata, user data and\n"
        "struct pages, by state; where the struct pages are; whether a capture kernel overwrote\n"
        "them; a verdict, and what to change to get them next time.\n"
        "\n"
        "CASE is that of the pmem memmap dump RFC:\n"
        "  A  struct pages in RAM, user data dumped too\n"
        "  B  struct pages on pmem, user data dumped too\n"
        "  C  struct pages in RAM, no user data\n"
        "  D  struct pages on pmem and dumped, no user data\n"
        "  -  the dump holds neither, or the namespace has no struct pages\n"
        "\n"
        "States: saved; excluded (left out by makedumpfile); absent (no segment covers it);\n"
        "truncated (the file ends before it); damaged (the file's entry for it cannot be right);\n"
        "unmapped (by the page tables); unknown (the page tables cannot be followed)."
    ),
    arguments=(Argument("namespace", kind="namespace", nargs="?", help="only this namespace"),),
    fields=(
        Field("NAMESPACE", lambda c: _name(c), "namespace"),
        Field("MODE", lambda c: c.mode, "fsdax, devdax, sector, raw"),
        Field("MEMMAP", lambda c: _LOCATIONS.get(c.location),
              "where its struct pages are: RAM, pmem"),
        Field("CASE", lambda c: c.case, "case of the RFC, see above"),
        Field("INFOBLOCK", lambda c: _states(c.infoblock), "state of the info block",
              coloured=True),
        Field("METADATA", lambda c: _states(c.metadata),
              "on the namespace, beside user data: info block, struct pages, BTT map and log",
              keep=2, coloured=True),
        Field("STRUCT_PAGES", lambda c: _struct_pages(c),
              "struct pages, wherever they are; overwritten: saved, but not the crashed kernel's",
              keep=2, coloured=True),
        Field("USERDATA", lambda c: _states(c.userdata), "user data", keep=2, coloured=True),
        Field("MAP", lambda c: _bar(c), "drawing of the namespace, from its start to its end"),
        Field("METADATA_BYTES", lambda c: _bytes(c.metadata), "METADATA in bytes", shown=False),
        Field("STRUCT_PAGES_BYTES", lambda c: _bytes(c.struct_pages), "STRUCT_PAGES in bytes",
              shown=False),
        Field("USERDATA_BYTES", lambda c: _bytes(c.userdata), "USERDATA in bytes", shown=False),
        Field("VERDICT", lambda c: c.verdict, "what was saved, in one sentence", shown=False),
        Field("ADVICE", lambda c: c.advice, "what to change to save the struct pages next time",
              shown=False),
    ),
    examples=(
        ("pmem-coverage", "all namespaces, with a verdict each"),
        ("pmem-coverage namespace0.0 --json", "one, in bytes"),
        ("pmem-coverage -H -o namespace,case,verdict", "for scripts"),
    ),
    code=lambda args: (
        "from drgn_pmem import read_namespace_coverage\n\n"
        f"answer = read_namespace_coverage(prog, {args.namespace!r})\n"
        "for item in answer.value.namespaces:\n"
        "    print(item.namespace, item.case, item.metadata, item.userdata, item.struct_pages)\n"
        "    print(item.verdict, item.advice)\n"
        "print(*answer.problems)  # what is unknown\n"
    ),
    modules=NAMESPACE_MODULES,
)  # fmt: skip
def pmem_coverage(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.coverage.namespaces import read_namespace_coverage
    from drgn_pmem.partial import Problems

    problems = Problems()
    found = problems.take(read_namespace_coverage(prog, args.namespace))
    notes = [f"{_name(item)}: {note}" for item in found.namespaces for note in item.notes]
    return Answer(
        found.namespaces,
        notes=[*notes, *found.notes],
        problems=problems,
        footer=_footer,
    )


def _name(item: "NamespaceCoverage") -> str:
    return item.namespace or f"at {item.start:#x}"


def _bar(item: "NamespaceCoverage") -> str | None:
    # where the location of the struct pages is not known, the reserved space is theirs
    on_pmem = "pmem" in item.location if item.location else item.map == "dev"
    pages = item.pages if item.location else None
    return namespace_bar(
        item.parts(), 34, memmap=on_pmem, start=item.start, used=pages.pmem_range if pages else None
    )


def _footer(items: "Sequence[NamespaceCoverage]", look: Look) -> str:
    """What the characters of MAP mean, and the verdict and advice of each namespace."""
    from drgn_pmem.output.bars import legend_of, use_ascii

    bars = [] if "MAP" in look.left_out else [_bar(item) or "" for item in items]
    blocks = ["\n".join(map(paragraph, legend_of(bars, use_ascii()).splitlines()))]
    for item in items:
        lines = [f"{escape(_name(item))}: {item.verdict}.", f"  next time: {item.advice}."]
        blocks.append("\n".join(map(paragraph, lines)))
    return "\n\n".join(block for block in blocks if block)
