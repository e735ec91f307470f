# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What may be incomplete says so, whichever way it is used."""

import drgn
import pytest

from drgn_pmem.answer import Answer
from drgn_pmem.errors import MissingDebugInfo, NotFound, NotInKernel, PmemError, UsageError
from drgn_pmem.partial import (
    Cause,
    Incomplete,
    NotSaved,
    Partial,
    Problem,
    Problems,
    State,
    WalkError,
)


def lost(why: str = "gone", cause: Cause = Cause.NOT_SAVED) -> Problem:
    return Problem(cause=cause, why=why)


def test_what_is_not_there_is_no_damage_of_the_dump() -> None:
    for error in (NotFound("no namespace 'x'"), UsageError("'x' names no page")):
        assert Problem.of(error).cause is Cause.NOT_FOUND
        assert Problem.of(error).degrades


def test_each_input_without_an_answer_is_kept_and_few_are_printed() -> None:
    problems = Problems()
    for number in range(200):
        why = f"{number} is not memory"
        problems.add(Problem(cause=Cause.NOT_FOUND, why=why, query=str(number)))
        problems.add(lost(f"page {number}"))
    kept = problems.partial(None).problems
    assert {p.query for p in kept} == {None, *map(str, range(200))}
    assert sum(p.query is None for p in kept) == 51
    lines = Answer([], problems=[p for p in kept if p.query]).all_lacks()
    assert lines[:4] == [f"{number} is not memory" for number in range(4)]
    assert lines[4:] == [f"196 more of this kind: {', '.join(map(str, range(4, 20)))}, ..."]


def test_what_one_namespace_lacks_is_known_as_that() -> None:
    own, problems = Problems(), Problems()
    own.add(lost("0x7 is excluded"), "struct pages")
    with own.trying("info block"):
        raise NotSaved("0x1000 is absent")
    problems.extend(own, "namespace1.0", "namespace1.0")
    problems.take(problems.partial(None), "coverage", "namespace2.0")
    assert {p.subject for p in problems} == {"namespace1.0"}
    assert str(next(iter(problems))) == "namespace1.0: struct pages: 0x7 is excluded"


def test_a_plain_loop_cannot_take_a_part_for_the_whole() -> None:
    found = []

    def loop() -> None:
        for record in Partial([1, 2], (lost(),)):
            found.append(record)

    with pytest.raises(Incomplete, match="gone"):
        loop()
    assert found == [1, 2]
    assert list(Partial([1, 2])) == [1, 2]


def test_whole_gives_the_value_only_where_it_is_complete() -> None:
    assert Partial(7).whole() == 7
    with pytest.raises(Incomplete, match=r"gone \(and 1 more problem"):
        Partial(7, (lost(), lost("torn"))).whole()


def test_what_no_dump_of_a_format_holds_makes_nothing_incomplete() -> None:
    answer = Partial([1], (lost("never in /proc/vmcore", Cause.FORMAT),))
    assert answer.complete
    assert list(answer) == [1]
    problems = Problems()
    assert problems.take(answer) == [1]
    assert not problems
    assert len(problems) == 1


def test_taking_a_value_takes_its_problems_once_each() -> None:
    problems = Problems()
    assert problems.take(Partial("a", (lost(),))) == "a"
    assert problems.take(Partial("b", (lost(),))) == "b"
    assert problems.partial(["a", "b"]) == Partial(["a", "b"], (lost(),))


def test_a_problem_says_what_it_is_part_of() -> None:
    problems = Problems()
    problems.take(Partial(None, (lost(),)), "fd table")
    problems.extend(list(problems), "task 7")
    assert [str(p) for p in problems] == ["fd table: gone", "task 7: fd table: gone"]


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (NotSaved("x", state=State.EXCLUDED), Cause.NOT_SAVED),
        (drgn.FaultError("x", 0), Cause.NOT_SAVED),
        (WalkError("x"), Cause.DAMAGED),
        (PmemError("x"), Cause.DAMAGED),
        (NotImplementedError("x"), Cause.UNSUPPORTED),
        (MissingDebugInfo("x", "dax"), Cause.NO_DEBUG_INFO),
        (MissingDebugInfo("x"), Cause.NOT_IN_KERNEL),
    ],
)
def test_an_error_becomes_a_problem_of_its_cause(error: Exception, cause: Cause) -> None:
    problems = Problems()
    with problems.trying("part"):
        raise error
    (problem,) = problems
    assert problem.cause is cause
    assert problem.what == "part"
    assert problems.attempt("value", lambda: (_ for _ in ()).throw(error)) is None
    assert len(problems) == 2


def test_the_state_and_the_module_of_an_error_are_kept() -> None:
    problems = Problems()
    problems.add(NotSaved("x", state=State.TRUNCATED))
    problems.add(MissingDebugInfo("y", "dax"))
    assert [(p.state, p.module) for p in problems] == [(State.TRUNCATED, None), (None, "dax")]


def test_what_the_kernel_did_not_have_is_no_problem() -> None:
    problems = Problems()
    with problems.trying("DAX devices"):
        raise NotInKernel("no dax", "dax")
    assert problems.partial([]) == Partial([])


def test_a_walk_keeps_what_it_yielded_before_it_failed() -> None:
    def walk():
        yield 1
        raise WalkError("the list is cyclic")

    problems = Problems()
    assert problems.collect(walk(), "the task list") == [1]
    assert [str(p) for p in problems] == ["the task list: the list is cyclic"]
    problems = Problems()
    assert problems.collect(Partial([1, 2], (lost(),)), "outer") == [1, 2]
    assert [str(p) for p in problems] == ["outer: gone"]


def test_ctrl_c_keeps_what_was_found() -> None:
    def walk():
        yield 1
        raise KeyboardInterrupt

    problems = Problems()
    assert problems.until_interrupted(walk(), "the scan") == [1]
    assert [p.cause for p in problems] == [Cause.INTERRUPTED]


def test_no_other_error_is_hidden() -> None:
    problems = Problems()
    for mistake in (AttributeError, KeyError, IndexError, TypeError):
        with pytest.raises(mistake), problems.trying("part"):
            raise mistake("of ours")


def test_what_was_found_is_certain_though_more_could_not_be_read() -> None:
    partial = Partial([1, 2], (lost(),))
    problems = Problems()
    assert problems.find(partial.map(lambda found: found[0])) == 1
    assert not problems
    assert problems.find(partial.map(lambda found: None), "number 3") is None
    assert list(map(str, problems)) == ["number 3: gone"]


def test_a_member_that_the_kernel_lacks_is_said() -> None:
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    number = prog.int_type("int", 4, True)
    pair = prog.struct_type("pair", 4, (drgn.TypeMember(number, "first"),))
    problems = Problems()
    with problems.trying("the pair"):
        drgn.Object(prog, pair, {"first": 1}).second  # noqa: B018
    assert problems.attempt("a variable", lambda: prog["nowhere"]) is None
    assert problems.attempt("a type", lambda: drgn.offsetof(pair, "third")) is None
    assert [(p.cause, str(p)) for p in problems] == [
        (Cause.NOT_IN_KERNEL, "the pair: this kernel's 'struct pair' has no member 'second'"),
        (Cause.NOT_IN_KERNEL, "a variable: this kernel has no nowhere"),
        (Cause.NOT_IN_KERNEL, "a type: this kernel's 'struct pair' has no member 'third'"),
    ]


def test_ctrl_c_is_among_the_problems_that_are_named() -> None:
    problems = Problems()
    for number in range(100):
        problems.add(Problem(cause=Cause.NOT_SAVED, why=f"number {number}"))
    problems.add(KeyboardInterrupt(), "the rest")
    assert any(p.cause is Cause.INTERRUPTED for p in problems.partial(None).problems)


def test_an_answer_has_the_records_and_problems_of_a_partial() -> None:
    from drgn_pmem.spec import Answer

    problem = Problem(cause=Cause.INTERRUPTED, why="interrupted", what="2 of 3 pages were read")
    answer = Answer.of(Partial([1, 2], (problem,)), notes=["a note"])
    assert answer.records == [1, 2]
    assert not answer.whole
    assert answer.interrupted
    assert answer.all_notes() == ["a note", "2 of 3 pages were read: interrupted"]
    assert Answer.of(Partial("one")).records == ["one"]
    assert Answer.of(Partial([])).whole
