# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Diagnosis
---------

What is wrong with the persistent memory of a crashed machine, and with the dump: every rule asked,
its findings worst first, and the first screen of labelled lines that says it all in short.
"""

from collections.abc import Iterator
import importlib
import pkgutil
from typing import Any

from drgn import Program

from drgn_pmem.analysis.findings import rules as _rules
from drgn_pmem.analysis.findings.case import RULES, Facts, judge
from drgn_pmem.analysis.findings.model import Finding, Heading, Outcome, Ruling, Severity
from drgn_pmem.analysis.findings.screen import Line, Screen
from drgn_pmem.dumpfile.faults import guard_reads
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.record import Record

__all__ = ("Diagnosis", "diagnose", "diagnose_in_steps", "findings")


_MEDIA = ("infoblock-refused", "btt-error", "label-damaged")
"""Rules that the line PMEM sums up."""


class Diagnosis(Record):
    """What is wrong."""

    lines: tuple[Line, ...]
    """The first screen."""
    rulings: tuple[Ruling, ...]
    """What each rule found out."""

    @property
    def findings(self) -> list[Finding]:
        """Worst first."""
        found = [item for ruling in self.rulings for item in ruling.findings]
        return sorted(found, key=lambda item: item.severity.rank)

    @property
    def undecided(self) -> list[Ruling]:
        """Rules that found nothing and could not read all that they look at."""
        return [ruling for ruling in self.rulings if ruling.outcome is Outcome.UNDECIDED]

    def to_json(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The findings, worst first, then what could not be decided."""
        decided = [row for ruling in self.rulings for row in ruling.to_json() if ruling.findings]
        order = {severity.value: severity.rank for severity in Severity}
        decided.sort(key=lambda row: order[row["severity"]])
        return decided + [row for ruling in self.undecided for row in ruling.to_json()]


def _declare() -> None:
    """Import every module of rules."""
    for module in pkgutil.iter_modules(_rules.__path__):
        importlib.import_module(f"{_rules.__name__}.{module.name}")


def diagnose_in_steps(
    prog: Program, into: list[Ruling], problems: Problems
) -> Iterator[Line | None]:
    """
    Ask every rule, for a caller that shows each line of the first screen as soon as it is known,
    or does other work in between.

    :param into: Gets what each rule found out.
    :param problems: Get what the lines lack that is not of a rule.
    :return: Lines of the first screen in their order; None after each other piece of work.
    """
    guard_reads(prog)
    _declare()
    screen = Screen(Facts(prog), problems)
    media = [judge(RULES[id], screen.facts) for id in _MEDIA]
    yield from screen.head(media)
    known = {ruling.rule: ruling for ruling in media}
    for heading in Heading:
        for rule in RULES.values():
            if rule.heading is heading:
                ruling = known.get(rule.id) or judge(rule, screen.facts)
                into.append(ruling)
                screen.add(ruling)
                yield None
        yield screen.line(heading)
    yield screen.advice()


def diagnose(prog: Program) -> Partial[Diagnosis]:
    """
    What is wrong with the persistent memory of a crashed machine and with its dump.

    >>> diagnosis = drgn_pmem.diagnose(prog).value
    >>> for line in diagnosis.lines:
    ...     print(line.label, line.text)

    :return: After Ctrl-C, what was found until then. A rule that could not be decided is among the
        problems: that it found nothing says nothing.
    """
    problems = Problems()
    rulings: list[Ruling] = []
    lines: list[Line | None] = []
    problems.until_interrupted(diagnose_in_steps(prog, rulings, problems), "the diagnosis", lines)
    for ruling in rulings:
        problems.extend(ruling.problems)
    known = tuple(line for line in lines if line is not None)
    return problems.partial(Diagnosis(lines=known, rulings=tuple(rulings)))


def findings(prog: Program) -> Partial[list[Finding]]:
    """
    Everything that is wrong, worst first.

    >>> for finding in drgn_pmem.findings(prog):
    ...     print(finding.severity.value, finding.subject, finding.finding, finding.more)
    """
    return diagnose(prog).map(lambda diagnosis: diagnosis.findings)
