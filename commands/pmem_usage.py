# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-usage``: makedumpfile's page report for this dump, pmem included."""

import argparse
from collections.abc import Callable
from typing import Any

from drgn import Program

from drgn_pmem.output.table import Field
from drgn_pmem.spec import Answer, command


def _state(name: str) -> Callable[[Any], Any]:
    def pages(line: Any) -> Any:
        if line.pages is None:
            return None
        return next((n for state, n in line.states.items() if state.value == name), 0)

    return pages


@command(
    name="pmem-usage",
    description="show makedumpfile's page report for this dump, pmem included",
    long_description=(
        "The lines of makedumpfile's report, counted in the dump itself: what it covers, what was\n"
        "left out, what remains. \"pmem metadata pages\" are the info blocks and struct pages of\n"
        "namespaces that keep them on the pmem (what the devm_memmap_vmcore list has), \"pmem\n"
        "userdata pages\" all other persistent memory; both with what the dump holds of them.\n"
        "Remaining pages of a dump written with makedumpfile -E include pages that were left out\n"
        "but are between saved ones: it writes fewer than 256 of them in a row as zeroes.\n"
        "A kdump-compressed dump keeps pages of zeroes as one page, to which the others point."
    ),
    fields=(
        Field("LINE", lambda u: "  " * u.depth + u.name, "line of makedumpfile's report"),
        Field("PAGES", lambda u: u.pages, "pages", right=True),
        Field("HEX", lambda u: None if u.pages is None else f"0x{u.pages:016x}",
              "the same as makedumpfile prints it", right=True),
        Field("SAVED", _state("saved"), "of them, in the dump", right=True),
        Field("EXCLUDED", _state("excluded"), "of them, left out by makedumpfile", right=True),
        Field("TRUNCATED", _state("truncated"), "of them, beyond the end of the file", right=True),
        Field("DAMAGED", _state("damaged"), "of them, on damaged pages of the file", right=True,
              shown=False),
        Field("ABSENT", _state("absent"), "of them, not covered by the dump", right=True),
    ),
    examples=(
        ("pmem-usage", "the report"),
        ("pmem-usage --json", "the counts"),
    ),
    code=(
        "from drgn_pmem import read_usage\n\n"
        "answer = read_usage(prog)\n"
        "for line in answer.value.lines():\n"
        "    print(line.name, line.pages, line.states)\n"
        "print(*answer.problems)  # what could not be counted\n"
    ),
    modules={"libnvdimm": "metadata of namespaces in system-ram or sector mode"},
)  # fmt: skip
def pmem_usage(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.coverage.usage import read_usage
    from drgn_pmem.partial import Problems

    problems = Problems()
    usage = problems.take(read_usage(prog))
    notes = [f"pages of {usage.page_size} bytes", *usage.notes]
    if usage.overlap or usage.partial_pages:
        reasons = []
        if usage.overlap:
            reasons.append(
                f"{usage.overlap} pages are in two segments; makedumpfile counts them twice"
            )
        if usage.partial_pages:
            reasons.append(
                f"of {usage.partial_pages} pages only the beginning is RAM; makedumpfile leaves "
                "them out of a compressed dump"
            )
        more = (usage.overlap or 0) - usage.partial_pages
        notes.append(
            f"{'; '.join(reasons)}: Original pages 0x{usage.original + more:016x}, "
            f"Memory Hole 0x{usage.hole - more:016x}"
        )
    if usage.overlap is None:
        notes.append(
            "pages that two program headers have (the kernel's image, pmem used as RAM) count "
            "once; makedumpfile counts them twice, and this format does not keep the headers"
        )
    if usage.zero:
        excluded, remaining = (
            usage.excluded + usage.zero,
            usage.remaining - usage.zero,
        )
        notes.append(
            f"{usage.zero} pages of zeroes share one page of the file; makedumpfile counts them as "
            f"excluded: Excluded pages 0x{excluded:016x}, Remaining pages 0x{remaining:016x}"
            + (" and those that two program headers have" if usage.overlap is None else "")
        )
    return Answer(list(usage.lines()), notes=notes, problems=problems, json=usage.to_json())
