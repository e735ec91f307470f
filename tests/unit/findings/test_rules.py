# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a rule can say: found, not found, cannot be decided; and how the first screen shows it."""

from collections.abc import Callable

from drgn import Program
import pytest

from drgn_pmem.analysis.findings import diagnose
from drgn_pmem.analysis.findings.case import RULES, Case, Facts, Rule, judge
from drgn_pmem.analysis.findings.model import Heading, Outcome, Ruling, Severity
from drgn_pmem.analysis.findings.screen import Line, Screen
from drgn_pmem.analysis.findings.words import few, short_size
from drgn_pmem.analysis.headers import compare
from drgn_pmem.analysis.headers.subject import DumpSubject
from drgn_pmem.commands.pmem_diagnose import _in_short
from drgn_pmem.errors import MissingDebugInfo, NotFound
from drgn_pmem.formats.elfcorehdr import CrashHeader
from drgn_pmem.kernel.kexec import CrashImage
from drgn_pmem.output.screen import line_text, undecided_text
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems, State

diagnose._declare()


def ruling(function: Callable[[Case], None], id: str = "test") -> Ruling:
    rule = Rule(id, Heading.ODD, "odd things", "pmem-list", function)
    return judge(rule, Facts(Program()))


def not_saved(case: Case) -> None:
    raise NotSaved("physical 0x1000 is absent", state=State.ABSENT)


def missing(case: Case) -> None:
    raise MissingDebugInfo("no debug info of the kernel", "vmlinux")


def not_there(case: Case) -> None:
    raise NotFound("this machine had no persistent memory")


def fine(case: Case) -> None:
    return


def found(case: Case) -> None:
    case.found(Severity.INFO, "nmem0", "smells", evidence=["nose"])
    case.found(Severity.CRITICAL, "nmem1", "burns")


def in_part(case: Case) -> None:
    found(case)
    not_saved(case)


def never_there(case: Case) -> None:
    case.problems.add(Problem(cause=Cause.FORMAT, why="never in /proc/vmcore"))


@pytest.mark.parametrize(
    ("function", "outcome", "complete"),
    [
        (fine, Outcome.NOT_FOUND, True),
        (not_there, Outcome.NOT_FOUND, True),
        (never_there, Outcome.NOT_FOUND, True),
        (not_saved, Outcome.UNDECIDED, False),
        (missing, Outcome.UNDECIDED, False),
        (found, Outcome.FOUND, True),
        (in_part, Outcome.FOUND, False),
    ],
)
def test_a_rule_without_its_evidence_is_undecided(
    function: Callable[[Case], None], outcome: Outcome, complete: bool
) -> None:
    answer = ruling(function)
    assert (answer.outcome, answer.complete) == (outcome, complete)
    assert (answer.why is None) == complete


def test_where_no_crash_header_could_be_read_that_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory without debug info and without program headers: there may be a header."""

    def lacks_debug_info(prog: Program) -> CrashImage:
        raise MissingDebugInfo("no debug info of the kernel", "vmlinux")

    def has_no_headers(prog: Program) -> Partial[CrashHeader]:
        raise NotFound("raw memory has no program headers")

    subject = Partial(DumpSubject(subject=None, evidence=()))
    monkeypatch.setattr(compare, "subject_of", lambda prog: subject)
    monkeypatch.setattr(compare, "crash_image", lacks_debug_info)
    monkeypatch.setattr(compare, "implied_elfcorehdr", has_no_headers)
    rule = RULES["header-outdated"]
    assert judge(rule, Facts(Program())).outcome is Outcome.UNDECIDED


def test_a_mistake_of_our_own_is_not_an_undecided_rule() -> None:
    def mistake(case: Case) -> None:
        raise KeyError("typo")

    with pytest.raises(KeyError):
        ruling(mistake)


def test_findings_come_worst_first_and_in_json() -> None:
    rows = ruling(found).to_json()
    assert [row["severity"] for row in rows] == ["critical", "info"]
    assert rows[1]["evidence"] == ["nose"]
    (undecided,) = ruling(not_saved).to_json()
    assert undecided["finding"] == "cannot be decided"
    assert undecided["complete"] is False
    assert "absent" in undecided["why"]


def line_of(*functions: Callable[[Case], None]) -> str | None:
    screen = Screen(Facts(Program()), Problems())
    for number, function in enumerate(functions):
        screen.add(ruling(function, f"rule{number}"))
    line = screen.line(Heading.ODD)
    return None if line is None else line.text


def test_a_line_where_nothing_is_wrong_is_left_out() -> None:
    assert line_of(fine, not_there) is None


def test_a_line_that_could_not_be_decided_says_so() -> None:
    assert line_of(not_saved) == "not known whether there is any (physical 0x1000 is absent)"
    assert line_of(fine, not_saved) == "not known: odd things (physical 0x1000 is absent)"


def test_a_search_that_found_nothing_and_lacks_something_says_both() -> None:
    """pmem-poison did; the first screen said "not known whether there is any"."""

    def lacks_one(case: Case) -> None:
        case.problems.add(Problem(cause=Cause.NOT_SAVED, why="5 pages are absent"))

    assert line_of(lacks_one) == (
        "none was found, but not all could be looked at (5 pages are absent)"
    )
    assert line_of(lacks_one, not_saved) == (
        "not known whether there is any (5 pages are absent; and 1 more problem)"
    )


def test_a_reason_is_said_once() -> None:
    """That of the first screen stood in each of the last lines, too."""
    rulings = [ruling(not_saved), ruling(missing, "other")]
    line = Line(label="ODD", text="not known whether there is any (physical 0x1000 is absent; and")
    assert list(undecided_text(rulings, [line], 120)) == [
        "unknown   odd things: why: see ODD",
        "unknown   odd things: no debug info of the kernel",
    ]
    assert list(undecided_text(rulings[:1], [], 120)) == [
        "unknown   odd things: physical 0x1000 is absent"
    ]


def test_advice_of_ten_findings_is_shown() -> None:
    """Of three only: "dmsetup resume" was the fourth."""
    screen = Screen(Facts(Program()), Problems())

    def many(case: Case) -> None:
        for number in range(11):
            case.found(Severity.WARNING, f"dm-{number}", "waits", do=f"resume dm-{number}")

    screen.add(ruling(many))
    line = screen.advice()
    assert line is not None
    assert line.text.endswith("; resume dm-9; and 1 more: pmem-diagnose -v")


def test_exit_status_1_is_explained_in_the_last_line() -> None:
    rulings = [ruling(fine), ruling(not_saved)]
    problems = [problem for one in rulings for problem in one.problems]
    (last,) = _in_short(problems, rulings)
    assert last.degrades
    assert str(last) == (
        "incomplete, so exit status 1: 1 of 2 rules (ODD) could not read all that they look at; "
        "pmem-diagnose -v names every reason"
    )
    assert _in_short([], rulings) == []
    stopped = Problem(cause=Cause.INTERRUPTED, why="interrupted")
    assert _in_short([*problems, stopped], rulings) == [stopped], "its exit status is another"


def test_a_reason_that_a_line_before_has_is_not_repeated() -> None:
    screen = Screen(Facts(Program()), Problems())
    for heading in (Heading.ODD, Heading.TRUST):
        screen.add(judge(Rule("x", heading, "odd things", "x", not_saved), screen.facts))
    texts = [line.text for heading in (Heading.ODD, Heading.TRUST)
             if (line := screen.line(heading))]  # fmt: skip
    assert texts == [
        "not known whether there is any (physical 0x1000 is absent)",
        "not known whether there is any (why: see ODD)",
    ]


def test_a_line_of_which_a_part_is_missing_says_that_there_may_be_more() -> None:
    text = line_of(in_part)
    assert text is not None
    assert text.startswith("nmem1: burns; nmem0: smells; there may be more (")


def test_answers_are_asked_once_and_their_errors_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def read(prog: Program) -> Partial[bytes]:
        asked.append(prog)
        raise NotFound("nothing")

    facts = Facts(Program())
    for _ in range(2):
        with pytest.raises(NotFound):
            facts._ask("test", read)
    assert len(asked) == 1


def test_text_breaks_between_words_and_goes_on_below_itself() -> None:
    line = Line(label="POISON", text="one two three four five six seven eight \x1b[31m")
    assert line_text(line, 40).splitlines() == [
        "POISON  one two three four five six",
        "        seven eight \\x1b[31m",
    ]


def test_short_words() -> None:
    assert few(["a", "b", "a", "c", "d", "e"]) == "a, b, c, d and 1 more"
    assert short_size(650240) == "650240 bytes"
    assert short_size(128 << 20) == "128 MiB"
    assert short_size(3 << 29) == "1.5 GiB"
