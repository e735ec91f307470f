# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What a report is made of: the answers of the commands, the crash and the map of physical memory;
as JSON and as one HTML page. ``pmem-report`` prints it, ``drgn-pmem fleet`` makes one of each dump.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
import contextlib
from dataclasses import dataclass
from datetime import datetime, timezone
import os
import shlex
from typing import TYPE_CHECKING, Any

from drgn_pmem.commands import load_command
from drgn_pmem.errors import NotFound, PmemError
from drgn_pmem.partial import Cause, Problem, Problems
from drgn_pmem.spec import Answer, Spec, ask, json_value, tables

if TYPE_CHECKING:
    from drgn import Program

    from drgn_pmem.analysis.findings.crash import Crash
    from drgn_pmem.analysis.findings.loglines import LogLine
    from drgn_pmem.analysis.findings.memorymap import MapRow
    from drgn_pmem.analysis.findings.screen import Line
    from drgn_pmem.output.table import Field

__all__ = (
    "MODULES",
    "ROWS",
    "LogSection",
    "Report",
    "ReportSection",
    "facts_of",
    "for_each_report_section",
    "limited",
    "read_report",
    "screen_of",
)

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

MODULES = {
    module: "see the sections"
    for line, _ in _CONTENTS
    for module in load_command(line.split()[0]).modules
}

ROWS = 1000

_COMPLETE, _DEGRADED, _IMPOSSIBLE = "complete", "degraded", "impossible"
_NOT_THERE, _INTERRUPTED = "not there", "interrupted"


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


@dataclass(frozen=True)
class LogSection:
    """The lines of the kernel log that matter."""

    lines: tuple[LogLine, ...]
    state: str
    """As of a :class:`ReportSection`."""
    notes: list[str]
    """What they lack."""

    line = "kernel log"
    description = "lines about persistent memory or the crash, in the order of the log"

    @property
    def found(self) -> str:
        from drgn_pmem.output.text import plural

        return plural(len(self.lines), "line") if self.state in (_COMPLETE, _DEGRADED) else ""

    def table(self) -> tuple[list[LogLine], tuple[Field, ...]]:
        """Records and fields."""
        from drgn_pmem.output.table import Field

        return list(self.lines), (
            Field("TIME", lambda line: None if line.time is None else f"{line.time:.6f}",
                  right=True),
            Field("TOPIC", lambda line: line.topic.value),
            Field("LINE", lambda line: line.text, wrap=True),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        lines = [
            {"time": line.time, "topic": line.topic.value, "text": line.text} for line in self.lines
        ]
        return {"state": self.state, "lines": lines, "lacks": self.notes}


def _read_log(prog: Program, interrupted: bool) -> LogSection:
    from drgn_pmem.analysis.findings.loglines import read_log_lines

    if interrupted:
        return LogSection((), _INTERRUPTED, ["not asked: the report was interrupted"])
    problems = Problems()
    lines = problems.attempt("", lambda: problems.take(read_log_lines(prog)))
    state = _IMPOSSIBLE if lines is None else _DEGRADED if problems else _COMPLETE
    return LogSection(lines or (), state, [str(problem) for problem in problems])


@dataclass(frozen=True)
class Report:
    """The answers of all commands about one dump."""

    crash: Crash
    made: list[tuple[str, str]]
    """What made the report, when, and of which files: name and text of each fact."""
    rows: tuple[MapRow, ...]
    """The map of physical memory; empty if it was not asked for, or cannot be drawn."""
    sections: list[ReportSection]
    log: LogSection
    problems: tuple[Problem, ...]
    """What the crash's facts lack, and which sections have no complete answer."""

    def to_json(self) -> dict[str, Any]:
        return {
            "report": dict(self.made),
            "crash": self.crash.to_json(),
            "log": self.log.to_json(),
            "sections": [section.to_json() for section in self.sections],
        }

    def html(self, limit: int = ROWS) -> str:
        """
        One self-contained page.

        :param limit: Rows of each table.
        """
        return _html(self, limit)


def read_report(prog: Program, *, draw: bool) -> Report:
    """
    Ask all commands.

    :param draw: Whether the map of physical memory is wanted.
    """
    from drgn_pmem.analysis.findings.crash import read_crash
    from drgn_pmem.analysis.findings.memorymap import read_memory_map

    problems = Problems()
    crash = problems.take(read_crash(prog))
    made = identity_of(prog)
    sections = list(for_each_report_section(prog))
    rows: tuple[MapRow, ...] = ()
    interrupted = any(section.state == _INTERRUPTED for section in sections)
    log = _read_log(prog, interrupted)
    if draw and not interrupted:
        # not a problem: the sections say what cannot be read
        rows = Problems().attempt("", lambda: Problems().take(read_memory_map(prog))) or ()
    problems.extend(_problems([s for s in sections if s.state not in (_COMPLETE, _NOT_THERE)]))
    return Report(crash, made, rows, sections, log, tuple(problems))


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


def facts_of(crash: Crash) -> list[tuple[str, str]]:
    """What the report is about, name and text of each fact, escaped."""
    from drgn_pmem.output.text import escape, human_size

    size = "" if crash.size is None else f" ({human_size(crash.size)})"
    facts = [("of", crash.subject.sentence if crash.subject else None)]
    facts += [("dump", f"{crash.file}{size}" if crash.file else None), ("format", crash.format)]
    release = f"Linux {crash.release or 'of unknown release'} {crash.architecture or ''}"
    facts += [("kernel", release.rstrip()), ("panic", crash.panic)]
    if crash.time is not None:
        # not a problem: a time that no calendar has
        with contextlib.suppress(OverflowError, OSError, ValueError):
            time = datetime.fromtimestamp(crash.time, timezone.utc)
            facts.append(("crashed", f"{time:%Y-%m-%d %H:%M:%S} UTC (by the machine's clock)"))
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
    # not a problem: a live kernel has no file
    with contextlib.suppress(PmemError, OSError):
        path = dump_of(prog).path
        changed = datetime.fromtimestamp(os.stat(path).st_mtime, timezone.utc)
        facts.append(("saved", f"{changed:%Y-%m-%d %H:%M:%S} UTC (by the file's time)"))
    # not a problem: the report says of each section what it lacks
    with contextlib.suppress(PmemError):
        build_id = vmcoreinfo_of(prog).build_id
        if build_id:
            facts.append(("build id", str(build_id)))
    # not a problem: there is no debug info to name
    with contextlib.suppress(LookupError):
        main = prog.main_module()
        if main.debug_file_path:
            own = main.build_id.hex() if main.build_id else "no build id"
            facts.append(("vmlinux", f"{main.debug_file_path} ({own})"))
    return facts


def screen_of(sections: Sequence[ReportSection]) -> list[Line]:
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


def _html(report: Report, limit: int) -> str:
    from drgn_pmem.output.html import Section, lines_below, page
    from drgn_pmem.output.memorymap import map_svg
    from drgn_pmem.output.notes import merged
    from drgn_pmem.output.text import escape

    crash, made, rows, sections = report.crash, report.made, report.rows, report.sections
    log, parts = report.log, []
    for section in sections:
        answer, notes, after = section.answer, section.notes, ""
        body: Any = () if answer is None else answer.text
        if answer is not None and (body is None or section.spec.name == "pmem-diagnose"):
            body, notes = tables(section.spec, limited(section, limit), answer)
            after = lines_below([record for _, rows, _ in body for record in rows], answer.footer)
        parts.append(
            Section(
                section.line,
                section.spec.description,
                section.state,
                section.found,
                body,
                merged(notes),
                after,
            )
        )
    records, fields = log.table()
    tables_of_log = [("", records[:limit], fields)]
    parts.insert(
        1, Section(log.line, log.description, log.state, log.found, tables_of_log, log.notes)
    )
    name = escape(os.path.basename(crash.file or "the running kernel"))
    return page(
        f"Persistent memory in {name}",
        [*facts_of(crash), *made],
        parts,
        screen=[
            (line.label, line.text, _severity(sections, line.label)) for line in screen_of(sections)
        ],
        drawing=map_svg(rows) if rows else None,
    )


def limited(section: ReportSection, limit: int) -> argparse.Namespace:
    known = vars(section.args)
    return argparse.Namespace(**known | {"limit": limit} if "limit" in known else known)
