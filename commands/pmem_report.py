# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-report``: the answers of all commands as one text, JSON value or HTML page."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
import contextlib
from dataclasses import dataclass
from datetime import datetime, timezone
import io
import os
import shlex
from typing import TYPE_CHECKING, Any

from drgn_pmem.commands import load_command
from drgn_pmem.errors import NotFound, PmemError, UsageError
from drgn_pmem.partial import Cause, Problem
from drgn_pmem.spec import Answer, Argument, Spec, ask, command, json_value, render, tables

if TYPE_CHECKING:
    from drgn import Program

    from drgn_pmem.analysis.findings.crash import Crash
    from drgn_pmem.analysis.findings.memorymap import MapRow
    from drgn_pmem.analysis.findings.screen import Line

__all__ = ("ReportSection", "for_each_report_section")

_CONTENTS = (
    ("pmem-diagnose", "finding"),
    ("pmem-list -BDRNXi", None),
    ("pmem-namespaces", "namespace"),
    ("pmem-coverage", "namespace"),
    ("pmem-memmap", None),
    ("pmem-poison", "bad page"),
    ("pmem-pins", "held page"),
    ("pmem-files", "file"),
    ("pmem-pages", None),
    ("pmem-segments", "segment"),
    ("pmem-usage", None),
    ("pmem-infoblocks", None),
    ("elfcorehdr", None),
    ("fadump", None),
)
"""The command lines of the sections, and the name of one record of each answer."""

_MODULES = {
    module: "see the sections"
    for line, _ in _CONTENTS
    for module in load_command(line.split()[0]).modules
}

_ROWS = 1000

_COMPLETE, _DEGRADED, _IMPOSSIBLE = "complete", "degraded", "impossible"
_NOT_THERE, _INTERRUPTED = "not there", "interrupted"

_KINDS = {".html": "html", ".htm": "html", ".json": "json"}
"""The format by the name of a file; text by default."""


@dataclass(frozen=True)
class ReportSection:
    """One command and its answer."""

    line: str
    """The command line."""
    spec: Spec
    args: argparse.Namespace
    noun: str | None
    answer: Answer | None
    """None if there is none."""
    error: str | None
    """Why there is none, one line."""
    state: str
    """``"complete"``; ``"degraded"``: it lacks something, and says what; ``"not there"``: the
    crashed machine did not have what is asked; ``"impossible"``: :attr:`error` says why;
    ``"interrupted"``: by Ctrl-C, this section or one before."""
    problems: tuple[Problem, ...] = ()
    """What the answer lacks, or why there is none."""

    @property
    def found(self) -> str:
        """How many records, as text."""
        from drgn_pmem.output.text import plural

        if self.answer is None or self.noun is None:
            return ""
        return plural(len(self.answer.records), self.noun)

    @property
    def notes(self) -> list[str]:
        if self.answer is None:
            return [self.error] if self.error else []
        return self.answer.all_notes()

    def to_json(self) -> dict[str, Any]:
        answer = self.answer
        return {
            "command": self.line,
            "state": self.state,
            "error": self.error,
            "answer": None if answer is None else json_value(self.args, answer),
            "notes": [] if answer is None else list(answer.notes),
            "lacks": [] if answer is None else answer.all_lacks(),
        }


def for_each_report_section(prog: Program) -> Iterator[ReportSection]:
    """Ask one command after the other. Ctrl-C ends it: what was found so far is kept, and the
    remaining sections are marked."""
    from drgn_pmem.output.progress import stage

    interrupted = False
    for number, (line, noun) in enumerate(_CONTENTS, 1):
        stage(f"{number}/{len(_CONTENTS)} {line.split()[0]}")
        section = _ask(prog, line, noun, interrupted)
        stage("")
        interrupted = section.state == _INTERRUPTED
        yield section


def _ask(prog: Program, line: str, noun: str | None, interrupted: bool) -> ReportSection:
    name, *words = shlex.split(line)
    spec = load_command(name)
    args = spec.parser().parse_args(words)

    def without(state: str, why: str, *problems: Problem) -> ReportSection:
        return ReportSection(line, spec, args, noun, None, why, state, problems)

    if interrupted:
        return without(_INTERRUPTED, "not asked: the report was interrupted")
    try:
        answer = ask(spec, prog, args)
    except NotFound as error:
        return without(_NOT_THERE, str(error))
    except PmemError as error:
        return without(_IMPOSSIBLE, str(error), Problem.of(error))
    except KeyboardInterrupt:
        return without(_INTERRUPTED, "interrupted")
    state = _COMPLETE if answer.whole else _DEGRADED
    if answer.interrupted:
        state = _INTERRUPTED
    return ReportSection(line, spec, args, noun, answer, None, state, tuple(answer.problems))


@command(
    name="pmem-report",
    description="report everything: as text, JSON or one self-contained HTML page",
    long_description=(
        "What is wrong (as pmem-diagnose), a map of physical memory, and the answers of the other\n"
        "commands about this dump, one after the other: for a ticket or an overview. A file is\n"
        "written as a whole or not at all. Ctrl-C ends the report; what was found so far is kept\n"
        "and marked.\n"
        "Stacks are not in it: %crash bt shows one, read_backtraces() in Python those of all CPUs."
    ),
    arguments=(
        Argument("-o", "--output", kind="file", metavar="FILE",
                 help="write to FILE: HTML or JSON if its name ends in .html or .json, else text"),
        Argument("--html", action="store_true", help="HTML, whatever the name of the file"),
        Argument("--limit", type=int, metavar="N", default=_ROWS,
                 help=f"rows of each table in text and HTML, {_ROWS} if not given; JSON has all"),
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
    modules=_MODULES,
)  # fmt: skip
def pmem_report(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.findings.crash import read_crash
    from drgn_pmem.analysis.findings.memorymap import read_memory_map
    from drgn_pmem.partial import Problems

    kind = _kind(args)
    problems = Problems()
    crash = problems.take(read_crash(prog))
    made = identity_of(prog)
    sections = list(for_each_report_section(prog))
    rows: tuple[MapRow, ...] = ()
    if kind != "json" and not any(section.state == _INTERRUPTED for section in sections):
        # not a problem: the sections say what cannot be read
        rows = Problems().attempt("", lambda: Problems().take(read_memory_map(prog))) or ()
    value = text = None
    if kind == "json":
        value = {
            "report": dict(made),
            "crash": crash.to_json(),
            "sections": [section.to_json() for section in sections],
        }
    elif kind == "html":
        text = _html(crash, made, rows, sections, args.limit)
    elif args.output is None:
        text = _text(crash, made, rows, sections, args.limit)
    else:
        # The lines of a file do not depend on the width of the terminal.
        with contextlib.redirect_stdout(io.StringIO()):
            text = _text(crash, made, rows, sections, args.limit)
    notes = []
    if args.output is not None:
        from drgn_pmem.output import json
        from drgn_pmem.output.files import write_file

        try:
            write_file(args.output, json.dumps(value) + "\n" if text is None else text)
        except OSError as error:
            raise UsageError(f"pmem-report: {args.output}: {error.strerror}") from error
        notes.append(f"the report is in {args.output}")
        text, value = "", {"output": args.output}
    unanswered = [s for s in sections if s.state not in (_COMPLETE, _NOT_THERE)]
    problems.extend(_problems(unanswered))
    return Answer(
        sections,
        notes=notes,
        problems=problems,
        text=text,
        json=value,
    )


def _kind(args: argparse.Namespace) -> str:
    if args.html and args.json:
        raise UsageError("pmem-report: --html or --json, not both")
    if args.html or args.json:
        return "html" if args.html else "json"
    return _KINDS.get(os.path.splitext(args.output or "")[1].lower(), "text")


def _problems(sections: Sequence[ReportSection]) -> list[Problem]:
    """One problem for all sections without a complete answer; each section says what it lacks."""
    if not sections:
        return []
    interrupted = any(section.state == _INTERRUPTED for section in sections)
    causes = [problem.cause for s in sections for problem in s.problems if problem.degrades]
    return [
        Problem(
            cause=Cause.INTERRUPTED if interrupted else next(iter(causes), Cause.NOT_SAVED),
            why=f"the report is incomplete: {_names(sections)}",
        )
    ]


def _names(sections: Sequence[ReportSection]) -> str:
    states = dict.fromkeys(section.state for section in sections)
    return "; ".join(
        f"{', '.join(s.spec.name for s in sections if s.state == state)} {state}"
        for state in states
    )


def _facts(crash: Crash) -> list[tuple[str, str]]:
    """What the report is about, name and text of each fact, escaped."""
    from drgn_pmem.output.text import escape, human_size

    size = "" if crash.size is None else f" ({human_size(crash.size)})"
    facts = [("of", crash.subject.sentence if crash.subject else None)]
    facts += [("dump", f"{crash.file}{size}" if crash.file else None), ("format", crash.format)]
    release = f"Linux {crash.release or 'of unknown release'} {crash.architecture or ''}"
    facts += [("kernel", release.rstrip()), ("panic", crash.panic)]
    if crash.time is not None:
        with contextlib.suppress(OverflowError, OSError, ValueError):
            time = datetime.fromtimestamp(crash.time, timezone.utc)
            facts.append(("crashed", f"{time:%Y-%m-%d %H:%M:%S} UTC"))
    return [(name, escape(text)) for name, text in facts if text]


def identity_of(prog: Program) -> list[tuple[str, str]]:
    """What made the report, when, and of which files: name and text of each fact."""
    import importlib.metadata

    from drgn_pmem.dumpfile import dump_of, vmcoreinfo_of

    now = datetime.now(timezone.utc)
    facts = [
        ("report", f"drgn-pmem {importlib.metadata.version('drgn-pmem')}"),
        ("made", f"{now:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    with contextlib.suppress(PmemError, OSError):
        path = dump_of(prog).path
        changed = datetime.fromtimestamp(os.stat(path).st_mtime, timezone.utc)
        facts.append(("saved", f"{changed:%Y-%m-%d %H:%M:%S} UTC (by the file's time)"))
    with contextlib.suppress(PmemError):
        build_id = vmcoreinfo_of(prog).build_id
        if build_id:
            facts.append(("build id", str(build_id)))
    with contextlib.suppress(LookupError):
        main = prog.main_module()
        if main.debug_file_path:
            own = main.build_id.hex() if main.build_id else "no build id"
            facts.append(("vmlinux", f"{main.debug_file_path} ({own})"))
    return facts


def _text(
    crash: Crash,
    made: list[tuple[str, str]],
    rows: Sequence[MapRow],
    sections: Sequence[ReportSection],
    limit: int,
) -> str:
    from drgn_pmem.output.memorymap import map_text
    from drgn_pmem.output.screen import line_text, text_width
    from drgn_pmem.output.table import Field, table
    from drgn_pmem.output.terminal import paragraph

    contents = (
        Field("SECTION", lambda s: s.line),
        Field("ANSWER", lambda s: s.state),
        Field("FOUND", lambda s: s.found),
    )
    about = [*_facts(crash), *made]
    blocks = [
        "\n".join(line_text(line, text_width()) for line in _screen(sections)),
        map_text(rows) if rows else "",
        "\n".join(paragraph(f"{name:<9}{text}") for name, text in about),
        table(sections, contents),
    ]
    blocks = [block for block in blocks if block]
    for section in sections:
        heading = f"{section.line}: {section.spec.description}"
        blocks.append(f"{heading}\n{'-' * len(heading)}")
        text, notes = "", section.notes
        if section.answer is not None:
            text, notes = render(section.spec, _limited(section, limit), section.answer)
        lines = "\n".join(paragraph(f"note: {note}") for note in notes)
        blocks += [block for block in (text, lines) if block]
    return "\n\n".join(blocks)


def _screen(sections: Sequence[ReportSection]) -> list[Line]:
    """The first screen, as pmem-diagnose answers it."""
    for section in sections:
        if section.spec.name == "pmem-diagnose" and section.answer is not None:
            return list(section.answer.extra)
    return []


def _severity(sections: Sequence[ReportSection], label: str) -> str:
    """Of the worst finding under a label of the first screen; empty if there is none."""
    for section in sections:
        if section.spec.name == "pmem-diagnose" and section.answer is not None:
            found = [item for item in section.answer.records if item.heading.name == label]
            return found[0].severity.value if found else ""
    return ""


def _html(
    crash: Crash,
    made: list[tuple[str, str]],
    rows: Sequence[MapRow],
    sections: Sequence[ReportSection],
    limit: int,
) -> str:
    from drgn_pmem.output.html import Section, page
    from drgn_pmem.output.memorymap import map_svg
    from drgn_pmem.output.text import escape

    parts = []
    for section in sections:
        answer, notes = section.answer, section.notes
        body: Any = () if answer is None else answer.text
        if answer is not None and (body is None or section.spec.name == "pmem-diagnose"):
            body, notes = tables(section.spec, _limited(section, limit), answer)
        parts.append(
            Section(
                section.line,
                section.spec.description,
                section.state,
                section.found,
                body,
                notes,
            )
        )
    name = escape(os.path.basename(crash.file or "the running kernel"))
    return page(
        f"Persistent memory in {name}",
        [*_facts(crash), *made],
        parts,
        screen=[
            (line.label, line.text, _severity(sections, line.label)) for line in _screen(sections)
        ],
        drawing=map_svg(rows) if rows else None,
    )


def _limited(section: ReportSection, limit: int) -> argparse.Namespace:
    known = vars(section.args)
    return argparse.Namespace(**known | {"limit": limit} if "limit" in known else known)
