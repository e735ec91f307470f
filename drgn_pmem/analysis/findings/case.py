# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Rules
-----

A rule is one function that looks for one thing that may be wrong. It takes a :class:`Case`: what
the other analyses answer about the dump (:class:`Facts`, each asked once for all rules), and where
findings and problems go::

    @rule("dimm-failed", Heading.ODD, "failed DIMMs", "pmem-list -D")
    def dimm_failed(case: Case) -> None:
        for dimm in case.take(case.facts.inventory).dimms:
            if dimm.flags:
                case.found(Severity.CRITICAL, dimm.dev, ", ".join(dimm.flags))

What it cannot read is a problem of the case: without a finding the rule is undecided then, never
"not found".
"""

from collections.abc import Callable, Iterable
import contextlib
from dataclasses import dataclass, field
import functools
from typing import Any, TypeVar

from drgn import Program

from drgn_pmem.analysis.coverage.namespaces import read_namespace_coverage
from drgn_pmem.analysis.coverage.records import CoverageAnswer
from drgn_pmem.analysis.coverage.segments import SegmentsAnswer, read_segments
from drgn_pmem.analysis.findings.backtraces import Backtrace, read_panic_stack
from drgn_pmem.analysis.findings.crash import Crash, read_crash
from drgn_pmem.analysis.findings.model import Finding, Heading, Ruling, Severity
from drgn_pmem.analysis.findings.pins import Pins, find_pins
from drgn_pmem.analysis.findings.poison import Poison, find_poison
from drgn_pmem.analysis.findings.registers import Register, panic_registers
from drgn_pmem.analysis.findings.stacks import StackFinding, search_stacks
from drgn_pmem.analysis.headers.compare import CrashHeaders, read_crash_headers
from drgn_pmem.analysis.headers.subject import DumpSubject, subject_of
from drgn_pmem.analysis.inventory.foundblock import FoundBlocks
from drgn_pmem.analysis.inventory.infoblocks import find_blocks
from drgn_pmem.analysis.inventory.labels import FoundLabels, find_labels
from drgn_pmem.analysis.inventory.listing import Inventory, read_inventory
from drgn_pmem.analysis.inventory.media import Media, read_media
from drgn_pmem.analysis.memmap.sources import MemmapAnswer, read_memmaps
from drgn_pmem.errors import NotFound, PmemError
from drgn_pmem.kernel.kernellog import read_log
from drgn_pmem.kernel.tasks import Task, tasks_of
from drgn_pmem.partial import Cause, Partial, Problem, Problems

__all__ = ("RULES", "Case", "Facts", "Rule", "judge", "log_of", "rule")

T = TypeVar("T")

_MAX_FINDINGS = 200
"""Findings of one rule: a dump may have a million poisoned files."""


class Facts:
    """Answers of the analyses about one dump, each asked at most once."""

    def __init__(self, prog: Program) -> None:
        self.prog = prog
        self._answers: dict[str, Partial[Any] | PmemError] = {}

    def _ask(self, name: str, read: Callable[[Program], Partial[T]]) -> Partial[T]:
        answer = self._answers.get(name)
        if answer is None:
            try:
                answer = read(self.prog)
            except PmemError as error:
                answer = error
            self._answers[name] = answer
        if isinstance(answer, PmemError):
            raise answer
        return answer

    def coverage(self) -> Partial[CoverageAnswer]:
        return self._ask("coverage", read_namespace_coverage)

    def crash(self) -> Partial[Crash]:
        return self._ask("crash", read_crash)

    def headers(self) -> Partial[CrashHeaders]:
        return self._ask("headers", read_crash_headers)

    def infoblocks(self) -> Partial[FoundBlocks]:
        return self._ask("info blocks", find_blocks)

    def inventory(self) -> Partial[Inventory]:
        return self._ask("inventory", read_inventory)

    def labels(self) -> Partial[list[FoundLabels]]:
        return self._ask("labels", find_labels)

    def log(self) -> Partial[bytes]:
        return self._ask("log", lambda prog: Partial(read_log(prog)))

    def media(self) -> Partial[dict[str, Media]]:
        return self._ask("media", read_media)

    def memmaps(self) -> Partial[MemmapAnswer]:
        return self._ask("memmaps", read_memmaps)

    def panic_registers(self) -> Partial[tuple[Register, ...]]:
        return self._ask("registers of the panic", panic_registers)

    def panic_stack(self) -> Partial[Backtrace | None]:
        return self._ask("stack of the panic", read_panic_stack)

    def pins(self) -> Partial[Pins]:
        return self._ask("pins", find_pins)

    def poison(self) -> Partial[Poison]:
        return self._ask("poison", find_poison)

    def segments(self) -> Partial[SegmentsAnswer]:
        return self._ask("segments", read_segments)

    def stacks(self) -> Partial[tuple[StackFinding, ...]]:
        return self._ask("stacks", search_stacks)

    def subject(self) -> Partial[DumpSubject]:
        return self._ask("subject", subject_of)

    def tasks(self) -> Partial[tuple[Task, ...]]:
        return self._ask("tasks", lambda prog: tasks_of(prog).map(lambda found: found.tasks))


@dataclass
class Case:
    """One dump before one rule."""

    rule: "Rule"
    facts: Facts
    problems: Problems = field(default_factory=Problems)
    findings: list[Finding] = field(default_factory=list)

    @property
    def prog(self) -> Program:
        return self.facts.prog

    def take(self, ask: Callable[[], Partial[T]]) -> T:
        """An answer; its problems are the rule's."""
        return self.problems.take(ask())

    def found(
        self,
        severity: Severity,
        subject: str,
        finding: str,
        *,
        evidence: Iterable[str] = (),
        more: str | None = None,
        do: str | None = None,
        place: str = "",
        brief: str = "",
    ) -> None:
        """
        Note a finding: the fields of :class:`Finding`.

        :param more: Command line that shows more, if it is not the rule's.
        """
        if len(self.findings) == _MAX_FINDINGS:
            why = f"the first {_MAX_FINDINGS} findings are shown"
            self.problems.add(Problem(cause=Cause.LIMIT, why=why))
        if len(self.findings) >= _MAX_FINDINGS:
            return
        self.findings.append(
            Finding(
                id=self.rule.id,
                heading=self.rule.heading,
                severity=severity,
                subject=subject,
                finding=finding,
                evidence=tuple(evidence),
                more=more or self.rule.more,
                do=do,
                place=place,
                brief=brief,
            )
        )


@dataclass(frozen=True)
class Rule:
    """One thing that may be wrong."""

    id: str
    heading: Heading
    about: str
    """What it looks for, in a few words: ``"poison in files"``."""
    more: str
    """Command line that shows more."""
    function: Callable[[Case], None]


RULES: dict[str, Rule] = {}
"""Every rule by its id, in the order of their declaration."""


def rule(
    id: str, heading: Heading, about: str, more: str
) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Decorator that declares a rule: the fields of :class:`Rule`."""

    def declare(function: Callable[[Case], None]) -> Callable[[Case], None]:
        assert id not in RULES, f"two rules are called {id}"
        RULES[id] = Rule(id, heading, about, more, function)
        return function

    return declare


def log_of(case: Case) -> str:
    """The kernel log."""
    return case.take(case.facts.log).decode("utf-8", "backslashreplace")


def judge(one: Rule, facts: Facts) -> Ruling:
    """What a rule finds out about a dump."""
    case, looked = Case(one, facts), False
    # not a problem: the machine did not have what the rule is about.
    with case.problems.trying(""), contextlib.suppress(NotFound):
        one.function(case)
        looked = True
    return _ruling(case, looked)


def _ruling(case: Case, looked: bool) -> Ruling:
    findings = tuple(sorted(case.findings, key=lambda item: item.severity.rank))
    answer = functools.partial(
        Ruling, rule=case.rule.id, heading=case.rule.heading, about=case.rule.about
    )
    problems = case.problems.partial(None).problems
    return answer(more=case.rule.more, findings=findings, problems=problems, looked=looked)
