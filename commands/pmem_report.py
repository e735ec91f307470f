# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-report``: the answers of all commands as one text, JSON value or HTML page."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import contextlib
import io
import os
from typing import TYPE_CHECKING

from drgn_pmem.commands.report import (
    MODULES,
    ROWS,
    LogSection,
    Report,
    facts_of,
    limited,
    read_report,
    screen_of,
)
from drgn_pmem.errors import PmemError, UsageError
from drgn_pmem.spec import Answer, Argument, command, render

if TYPE_CHECKING:
    from drgn import Program

__all__ = ("pmem_report",)

_KINDS = {".html": "html", ".htm": "html", ".json": "json"}
"""The format by the name of a file; text by default."""


@command(
    name="pmem-report",
    description="report everything: as text, JSON or one self-contained HTML page",
    long_description=(
        "What is wrong (as pmem-diagnose), a map of physical memory, the lines of the kernel log\n"
        "that matter, and the answers of the other commands about this dump, one after the other:\n"
        "for a ticket or an overview. A file is written as a whole or not at all. Ctrl-C ends the\n"
        "report; what was found so far is kept and marked.\n"
        "Stacks are not in it: pmem-diagnose --stacks shows those of the panic and of all CPUs."
    ),
    arguments=(
        Argument("-o", "--output", kind="file", metavar="FILE",
                 help="write to FILE: HTML or JSON if its name ends in .html or .json, else text"),
        Argument("--html", action="store_true", help="HTML, whatever the name of the file"),
        Argument("--limit", type=int, metavar="N", default=ROWS,
                 help=f"rows of each table in text and HTML, {ROWS} by default; JSON has all"),
    ),
    examples=(
        ("pmem-report", "everything, as text"),
        ("pmem-report -o report.html", "one page, for a browser or a ticket"),
        ("pmem-report --json", "what every command prints with --json, and its notes"),
    ),
    code=(
        "from drgn_pmem import for_each_report_section\n\n"
        "for section in for_each_report_section(prog):\n"
        "    print(section.line, section.state, section.found, section.notes)\n"
        "    # section.answer.records: what the command returns\n"
    ),
    modules=MODULES,
)  # fmt: skip
def pmem_report(prog: Program, args: argparse.Namespace) -> Answer:
    kind = _kind(args)
    report = read_report(prog, draw=kind != "json")
    value = text = None
    if kind == "json":
        value = report.to_json()
    elif kind == "html":
        text = report.html(args.limit)
    elif args.output is None:
        text = _text(report, args.limit)
    else:
        # The lines of a file do not depend on the width of the terminal.
        with contextlib.redirect_stdout(io.StringIO()):
            text = _text(report, args.limit)
    notes = []
    if args.output is not None:
        from drgn_pmem.output import json
        from drgn_pmem.output.files import write_file

        try:
            write_file(args.output, json.dumps(value) + "\n" if text is None else text)
        except OSError as error:
            raise PmemError(f"pmem-report: {args.output}: {error.strerror}") from error
        notes.append(f"the report is in {args.output}")
        text, value = "", {"output": args.output}
    return Answer(
        report.sections,
        notes=notes,
        problems=report.problems,
        text=text,
        json=value,
    )


def _kind(args: argparse.Namespace) -> str:
    if args.html and args.json:
        raise UsageError("pmem-report: --html or --json, not both")
    if args.html or args.json:
        return "html" if args.html else "json"
    return _KINDS.get(os.path.splitext(args.output or "")[1].lower(), "text")


def _text(report: Report, limit: int) -> str:
    from drgn_pmem.output.memorymap import map_text
    from drgn_pmem.output.screen import line_text, text_width
    from drgn_pmem.output.table import Field, table
    from drgn_pmem.output.terminal import paragraph

    contents = (
        Field("SECTION", lambda s: s.line),
        Field("ANSWER", lambda s: s.state),
        Field("FOUND", lambda s: s.found),
    )
    sections = report.sections
    about = [*facts_of(report.crash), *report.made]
    blocks = [
        "\n".join(line_text(line, text_width()) for line in screen_of(sections)),
        map_text(report.rows) if report.rows else "",
        "\n".join(paragraph(f"{name:<9}{text}") for name, text in about),
        table([*sections[:1], report.log, *sections[1:]], contents),
    ]
    blocks = [block for block in blocks if block]
    for section in sections:
        blocks.append(_heading(f"{section.line}: {section.spec.description}"))
        text, notes = "", section.notes
        if section.answer is not None:
            text, notes = render(section.spec, limited(section, limit), section.answer)
        lines = "\n".join(paragraph(f"note: {note}") for note in notes)
        blocks += [block for block in (text, lines) if block]
        if section is sections[0]:
            blocks += _log_blocks(report.log, limit)
    return "\n\n".join(blocks)


def _heading(text: str) -> str:
    return f"{text}\n{'-' * len(text)}"


def _log_blocks(log: LogSection, limit: int) -> Iterator[str]:
    from drgn_pmem.output.table import table
    from drgn_pmem.output.terminal import paragraph

    yield _heading(f"{log.line}: {log.description}")
    records, fields = log.table()
    if records:
        yield table(records[:limit], fields)
    yield from (paragraph(f"note: {note}") for note in log.notes)
