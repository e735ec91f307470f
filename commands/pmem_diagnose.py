# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-diagnose``: what is wrong, worst first."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from drgn_pmem.commands.common import OWNER_MODULES, WAIT_MODULES
from drgn_pmem.output.table import Field
from drgn_pmem.partial import Cause, Problem, Problems
from drgn_pmem.spec import Answer, Argument, command

if TYPE_CHECKING:
    from drgn import Program

    from drgn_pmem.analysis.findings.model import Ruling
    from drgn_pmem.analysis.findings.screen import Line

_NOTHING = "nothing that these rules look for was found"

_STACKS = (
    Field.of("CPU", "cpu", "that it ran on", right=True),
    Field.of("PID", "pid", "of the task", right=True),
    Field.of("COMM", "comm", "its name"),
    Field.of("CRASHED", "crashed", "it is the task that panicked"),
    Field("FRAMES", lambda b: [frame.text for frame in b.frames],
          "functions of its stack, innermost first"),
)  # fmt: skip


def _code(args: argparse.Namespace) -> str:
    if args.stacks:
        return (
            "from drgn_pmem import read_backtraces\n\n"
            "answer = read_backtraces(prog)  # answer.problems: what it lacks\n"
            "for stack in answer.value:\n"
            "    print(stack.cpu, stack.pid, stack.comm, stack.crashed)\n"
            "    for frame in stack.frames:\n"
            "        print('   ', frame.text)\n"
        )
    return (
        "from drgn_pmem import diagnose\n\n"
        "answer = diagnose(prog)  # answer.problems: what it lacks\n"
        "for line in answer.value.lines:\n"
        "    print(line.label, line.text)\n"
        "for finding in answer.value.findings:\n"
        "    print(finding.severity.value, finding.text, finding.more)\n"
        "for ruling in answer.value.undecided:\n"
        "    print('unknown', ruling.about, ruling.why)\n"
    )


@command(
    name="pmem-diagnose",
    description="what is wrong, worst first, with the evidence and the command that shows more",
    long_description=(
        "What is wrong with the persistent memory of the machine, and with the dump. First a\n"
        "screen of at most ten lines: the dump (DUMP), the machine (PMEM), bad pages (POISON),\n"
        "pages that are held and who waits for them (PINNED), tasks that are stuck (TASKS), what\n"
        "the kernel reported (KERNEL), devices that are not as they should be (ODD), whether\n"
        "the struct pages are intact (TRUST), what is not in the dump (LACKS), what to do (DO).\n"
        "Lines where nothing is wrong are left out. Then every finding, worst first, each with\n"
        "the command that shows more. A rule whose evidence was not saved is reported as unknown.\n"
        "--stacks shows the stacks of the crash, as far as drgn can unwind them."
    ),
    arguments=(
        Argument("-v", "--verbose", action="store_true",
                 help="show the evidence of each finding and what to do about it"),
        Argument("--stacks", action="store_true",
                 help="show only the stacks of the task that panicked and of what each CPU ran;"
                 " %crash bt PID shows another task's"),
    ),
    fields=(
        Field("SEVERITY", lambda f: f.severity.value, "critical, warning, info",
              order=lambda f: f.severity.rank),
        Field("ID", lambda f: f.id, "the rule that found it"),
        Field("SUBJECT", lambda f: f.subject, "file, namespace, task, part of the dump"),
        Field("FINDING", lambda f: f.finding, "what is wrong with it"),
        Field("MORE", lambda f: f.more, "command that shows more"),
        Field("HEADING", lambda f: f.heading.name, "its line of the first screen", shown=False),
        Field("EVIDENCE", lambda f: list(f.evidence), "what shows it", shown=False),
        Field("DO", lambda f: f.do, "what to do about it", shown=False),
    ),
    examples=(
        ("pmem-diagnose", "the first screen, then every finding"),
        ("pmem-diagnose -v", "with the evidence"),
        ("pmem-diagnose -o severity,subject,finding", "the findings as a table"),
        ("pmem-diagnose --json", "the findings, and what could not be decided"),
        ("pmem-diagnose --stacks", "the stacks of the task that panicked and of the CPUs"),
    ),
    code=_code,
    modules=OWNER_MODULES | WAIT_MODULES
    | {"libnvdimm": "DIMMs, regions, namespaces, bad ranges and badblocks",
       "nfit": "flags of DIMMs"},
)  # fmt: skip
def pmem_diagnose(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.findings.diagnose import Diagnosis, diagnose_in_steps
    from drgn_pmem.output.screen import finding_text, line_text, text_width, undecided_text
    from drgn_pmem.output.stream import is_streaming, say

    problems = Problems()
    table = args.no_header or args.csv
    table |= any(value is not None for value in (args.fields, args.sort, args.where))
    if args.stacks:
        return _stacks(prog, table)
    width = text_width()
    text: list[str] = []

    def add(part: str) -> None:
        text.append(part)
        if not table:
            say(part)

    lines: list[Line] = []
    rulings: list[Ruling] = []
    steps = diagnose_in_steps(prog, rulings, problems)
    try:
        for line in steps:
            if line is not None:
                lines.append(line)
                add(line_text(line, width))
    except KeyboardInterrupt as error:
        problems.add(error, "the diagnosis")
    diagnosis = Diagnosis(lines=tuple(lines), rulings=tuple(rulings))
    for ruling in rulings:
        problems.extend(ruling.problems)
    found = diagnosis.findings
    shown = found[: args.limit]
    if shown or diagnosis.undecided:
        add("")
    for item in shown:
        for part in finding_text(item, width, args.verbose):
            add(part)
    for part in undecided_text(diagnosis.undecided, lines, width):
        add(part)
    notes = [] if found or any(p.degrades for p in problems) else [_NOTHING]
    if len(shown) < len(found) and not table:
        notes.append(f"{len(shown)} of {len(found)} findings shown (--limit)")
    lacking = list(problems)
    if is_streaming() and not args.verbose and not table:
        lacking = _in_short(lacking, rulings)
    return Answer(
        found,
        notes=notes,
        problems=lacking,
        text=None if table else "\n".join(text),
        extra=lines,
        streamed=not table and is_streaming(),
        json=diagnosis.to_json(),
    )


def _stacks(prog: Program, table: bool) -> Answer:
    """The stacks of the crash."""
    from drgn_pmem.analysis.findings.backtraces import crashed_task, read_backtraces
    from drgn_pmem.output.screen import stack_text

    of_panic = Problems()
    panicked = of_panic.take(crashed_task(prog)) is not None or bool(of_panic)
    problems = Problems()
    stacks = problems.take(read_backtraces(prog))
    text = "\n\n".join(stack_text(stack) for stack in stacks)
    notes = ["%crash bt PID shows the stack of another task"]
    if not panicked:
        notes.insert(0, "no CPU had panicked: these are the tasks that the CPUs ran")
    return Answer(
        list(stacks),
        notes=notes,
        problems=problems,
        fields=_STACKS,
        text=None if table else text,
    )


def _in_short(problems: list[Problem], rulings: list[Ruling]) -> list[Problem]:
    """
    One problem in place of all, whose reasons the lines have; what helps against missing debug info
    stays.
    """
    degrading = [problem for problem in problems if problem.degrades]
    interrupted = [problem for problem in degrading if problem.cause is Cause.INTERRUPTED]
    if not degrading or interrupted:
        return interrupted
    lacking = [ruling for ruling in rulings if not ruling.complete]
    names = dict.fromkeys(ruling.heading.name for ruling in lacking)
    what = f"{len(lacking)} of {len(rulings)} rules ({', '.join(names)})" if names else "the lines"
    why = (
        f"incomplete, so exit status 1: {what} could not read all that they look at; "
        "pmem-diagnose -v names every reason"
    )
    helps = [problem for problem in degrading if problem.cause is Cause.NO_DEBUG_INFO]
    return [*helps[:1], Problem(cause=degrading[0].cause, why=why)]
