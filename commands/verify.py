# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The answers of a written dump, compared with those of the dump it was made of. Not a command.

A process of its own asks the written dump first and puts the answers into a temporary file; when it
has ended, this process asks its own dump and compares. So the debug info of both dumps, and what
commands cache of them, are never in memory together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import json
import pickle
import shlex
import subprocess
import sys
import tempfile
from typing import IO, TYPE_CHECKING, Any

from drgn_pmem.errors import DumpFileError, NotFound, PmemError
from drgn_pmem.partial import Cause, Problem, Problems
from drgn_pmem.spec import ask, json_value

if TYPE_CHECKING:
    from drgn import Program

    from drgn_pmem.analysis.trim.compare import Said
    from drgn_pmem.output.progress import Report

__all__ = ("answer_all", "answers_kept", "stop_if_interrupted")

_QUESTIONS = (
    "pmem-diagnose",
    "pmem-list -BDRNXi",
    "pmem-namespaces",
    "pmem-coverage",
    "pmem-memmap",
    "pmem-poison",
    "pmem-pins",
    "pmem-files",
    "pmem-pages",
    "pmem-segments",
    "pmem-usage",
    "pmem-infoblocks",
    "elfcorehdr",
    "fadump",
)
"""What both dumps are asked."""

_SUBJECTS = True
"""Whether they are asked about a file and some pages, too."""

_PAGES = 8
"""Pages that are asked for."""

_CHILD = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from drgn_pmem.commands.verify import answer_all; answer_all(*map(int, sys.argv[1:3]))"
)
"""Program of the process that asks the written dump. It finds modules where this process does, not
in the current directory, which Python would add."""


def answers_kept(
    prog: Program, number: int, folder: str, damaged: int, *, same_format: bool
) -> list[str]:
    """
    Ask the written file what the dump is asked.

    :param number: File descriptor of the written file.
    :param folder: Where a temporary file may be.
    :param damaged: How many pages are left out because they cannot be decompressed.
    :param same_format: Whether both files have program headers, or neither has.
    :return: Command lines that were asked.
    :raises DumpFileError: if it answers otherwise, or cannot be asked
    :raises KeyboardInterrupt: if the user pressed Ctrl-C
    """
    from drgn_pmem.analysis.trim.compare import differences
    from drgn_pmem.dumpfile import vmcoreinfo_of
    from drgn_pmem.output.progress import progress
    from drgn_pmem.session import debug_files

    page_size = vmcoreinfo_of(prog).page_size or 4096
    request = {
        "files": debug_files(prog),
        "lines": _QUESTIONS,
        "subjects": _SUBJECTS,
    }
    lines = []
    with tempfile.TemporaryFile(dir=folder) as answers:
        total = len(_QUESTIONS) + 3 * _SUBJECTS
        with progress("asking the written dump", total) as report:
            _ask_written(number, answers.fileno(), request, report, total)
        answers.seek(0)
        with progress("comparing the answers of this dump", total) as report:
            for line, after in _answers(answers):
                before = answer_of(prog, line)
                found = list(
                    differences(
                        line.split()[0],
                        before,
                        after,
                        same_format=same_format,
                        page_size=page_size,
                        damaged=damaged,
                    )
                )
                if found:
                    why = f"{damaged} damaged pages are left out of it; " if damaged else ""
                    raise DumpFileError(
                        f"{why}the written dump does not answer as this one, so it was removed "
                        f"(--no-verify keeps it): {line}: {'; '.join(found)}"
                    )
                lines.append(line)
                report(len(lines), total)
    return lines


def _ask_written(
    number: int, answers: int, request: dict[str, Any], report: Report, total: int
) -> None:
    """
    Have a process ask the written dump.

    :raises DumpFileError: if that process fails
    """

    words = [sys.executable, "-c", _CHILD, str(number), str(answers), *sys.path]
    # A session of its own: Ctrl-C stops this process, which then ends the other.
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(number, answers),
        start_new_session=True,
    ) as child:
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            with child.stdin as pipe:
                pipe.write(json.dumps(request).encode())
            for done, _ in enumerate(child.stdout, 1):
                report(done, total)
            status = child.wait()
        except BaseException:
            child.kill()
            raise
    if status:
        raise DumpFileError(
            f"the process that asks the written dump ended with status {status}, so the dump was "
            "removed (--no-verify keeps it)"
        )


def _answers(file: IO[bytes]) -> Iterator[tuple[str, Said]]:
    """
    What :func:`answer_all` wrote.

    :raises DumpFileError: if the written dump could not be opened
    """
    from drgn_pmem.analysis.trim.compare import Said

    while file.peek(1):  # type: ignore[attr-defined]
        item = pickle.load(file)
        if isinstance(item, str):
            raise DumpFileError(item)
        line, text, error, problems = item
        yield line, Said(json=json.loads(text), error=error, problems=problems)


def answer_all(number: int, answers: int) -> None:
    """
    The process that asks the written dump: its debug info and the questions come on standard input;
    a line on standard output says that a question was answered.

    :param number: File descriptor of the written dump.
    :param answers: File descriptor of the file for the answers.
    """
    from drgn_pmem.session import open_with_files

    request = json.load(sys.stdin)
    with open(answers, "wb", closefd=False) as file:
        try:
            prog = open_with_files(f"/proc/self/fd/{number}", request["files"])
        except PmemError as error:
            pickle.dump(str(error), file)
            return
        files: list[dict[str, Any]] = []
        for line in request["lines"]:
            said = answer_of(prog, line)
            if line == "pmem-files":
                files = (said.json or [])[:1]
            _put(file, line, said)
        for line in _subjects(prog, files) if request["subjects"] else ():
            _put(file, line, answer_of(prog, line))


def _put(file: IO[bytes], line: str, said: Said) -> None:
    # As text: values may be of classes that pickle does not know, such as enumerators of a format.
    pickle.dump((line, json.dumps(said.json), said.error, said.problems), file)
    print(line, flush=True)


def answer_of(prog: Program, line: str) -> Said:
    """
    The answer of a command.

    :raises KeyboardInterrupt: if a part of it is missing because of Ctrl-C
    """
    from drgn_pmem.analysis.trim.compare import Said
    from drgn_pmem.commands import load_command

    name, *words = shlex.split(line)
    spec = load_command(name)
    args = spec.parser().parse_args([*words, "--json"])
    try:
        answer = ask(spec, prog, args)
    except NotFound as error:
        return Said(error=str(error))
    except PmemError as error:
        problems = Problems()
        problems.add(error)
        stop_if_interrupted(problems)
        return Said(error=str(error), problems=tuple(problems))
    stop_if_interrupted(answer.problems)
    return Said(json=json_value(args, answer), problems=tuple(answer.problems))


def stop_if_interrupted(problems: Iterable[Problem]) -> None:
    """
    Commands keep what they found until Ctrl-C, and answer with it. Such an answer proves nothing
    about a dump, so Ctrl-C ends pmem-trim too.

    :raises KeyboardInterrupt: if a part is missing because of Ctrl-C
    """
    if any(problem.cause is Cause.INTERRUPTED for problem in problems):
        raise KeyboardInterrupt


def _subjects(prog: Program, files: Sequence[dict[str, Any]]) -> Sequence[str]:
    """Questions about some files and the first pages of namespaces."""
    from drgn_pmem.analysis.inventory.machine import read_machine
    from drgn_pmem.dumpfile import vmcoreinfo_of

    lines = [shlex.join(["pmem-file", file["path"]]) for file in files]
    size = vmcoreinfo_of(prog).page_size or 4096
    problems = Problems()  # every command names them
    found = problems.take(read_machine(prog)).namespaces
    stop_if_interrupted(problems)
    pages = [f"pfn:{(n.resource + (n.data_offset or 0)) // size:#x}" for n in found[:_PAGES]]
    if pages:
        lines += [f"{name} {' '.join(pages)}" for name in ("pmem-page", "pmem-rmap")]
    return lines
