# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Every command on every dump answers, answers and says what it lacks, or says in one line why it
cannot; also without debug info, and of a file that is cut short. What each said is what
docs/support-matrix.md shows (tests/matrix.py).
"""

from collections.abc import Callable, Iterator
import contextlib
import itertools
import json
import re
from unittest import mock

from drgn import Program
import pytest

from drgn_pmem.commands import load_commands
from drgn_pmem.errors import PmemError, UsageError
from drgn_pmem.output import terminal
from drgn_pmem.spec import SPECS, Answer, Spec, parse_arguments, render

from ..questions import question
from ..samples import CUT_SHORT, FLATTENED, Case, run_answer, samples, without_debug_info

Record = Callable[[str, object], None]

ALL = [Case(sample, format) for sample in samples().values() for format in sample.formats]
"""Machines without persistent memory too."""

ONE_OF_EACH_KERNEL = [
    next(cases)
    for _, cases in itertools.groupby(
        sorted(ALL, key=lambda c: (c.sample.release, c.sample.architecture)),
        key=lambda c: (c.sample.release, c.sample.architecture),
    )
]

OF_A_CUT_FILE = [Case(ALL[0].sample, format + CUT_SHORT) for format in ("elf", "zlib")]
"""One with program headers, one with a bitmap."""

FLAT = Case(ALL[0].sample, "lzo" + FLATTENED)

COMPLETE, DEGRADED, IMPOSSIBLE = "complete", "degraded", "impossible"

SEARCHES = ("pmem-diff", "pmem-pins", "pmem-poison")
"""What they look for need not be there: an empty answer is one."""

pytestmark = pytest.mark.parametrize(
    "spec",
    [
        # A dump beside itself: what must not differ is known.
        pytest.param(spec, marks=[pytest.mark.holds("pmem-diff")] * (spec.name == "pmem-diff"))
        for spec in load_commands()
    ],
    ids=lambda spec: spec.name,
)


def ask(prog: Program, line: str) -> tuple[str, list[str]]:
    """
    Ask in JSON and in text.

    :return: How it was answered, and what the answer lacks.
    """
    try:
        answer, out, _ = run_answer(prog, f"{line} --json")
    except UsageError:
        raise
    except PmemError as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            run_answer(prog, line)
        return IMPOSSIBLE, one_line_each([str(error)])
    json.loads(out)
    assert answer is not None
    assert not answer.differs
    with terminal_of(120):
        if line.startswith("pmem-diff"):
            # It would read a second dump once more.
            out, found = text_again(line, answer)
            notes = "\n".join(found)
        else:
            answer, out, notes = run_answer(prog, line)
        assert answer is not None
        assert_fits(line, out, 120)
    for width in (80, 200) if answer.text is None else ():
        with terminal_of(width):
            assert_fits(line, text_again(line, answer)[0], width)
    assert out.strip() or notes.strip()
    assert not re.search(r"Traceback|\bNone\b", notes)
    lacks = answer.all_lacks()
    assert lacks or answer.whole
    if answer.whole:
        return COMPLETE, []
    nothing = not answer.records and not line.startswith(SEARCHES)
    return IMPOSSIBLE if nothing else DEGRADED, one_line_each(lacks)


@contextlib.contextmanager
def terminal_of(width: int) -> Iterator[None]:
    """What is printed goes to a terminal of this width."""
    with mock.patch.object(terminal, "terminal_width", return_value=width):
        yield


def text_again(line: str, answer: Answer) -> tuple[str, list[str]]:
    """An answer rendered once more, and its notes."""
    name, *words = line.split()
    args = parse_arguments(SPECS[name], words)
    assert args is not None
    return render(SPECS[name], args, answer)


def assert_fits(line: str, text: str, width: int) -> None:
    """
    No line is longer than the terminal is wide, and what is left out is named. The report has
    rules below its headings.
    """
    if line.startswith("pmem-report"):
        return
    assert max(map(len, text.splitlines()), default=0) <= width
    left_out = re.findall(r"-o\s\+([\w,\s]+?)\sfor more", text)
    assert ("too wide" in text) == bool(left_out)


def one_line_each(reasons: list[str]) -> list[str]:
    assert all(reason.strip() and len(reason.splitlines()) == 1 for reason in reasons)
    return reasons


@pytest.mark.parametrize("case", [*ALL, FLAT], ids=str)
def test_answers_or_says_why_not(case: Case, spec: Spec, record_property: Record) -> None:
    record_property("answer", ask(case.prog, question(spec, case)))


@pytest.mark.parametrize("case", ONE_OF_EACH_KERNEL, ids=str)
def test_without_debug_info(case: Case, spec: Spec, record_property: Record) -> None:
    record_property("answer", ask(without_debug_info(case), question(spec, case)))


@pytest.mark.parametrize("case", OF_A_CUT_FILE, ids=str)
def test_of_a_file_cut_short(case: Case, spec: Spec, record_property: Record) -> None:
    record_property("answer", ask(case.prog, question(spec, case)))
