# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Findings
--------

What is wrong, as records: a :class:`Finding` is one thing that is wrong, a :class:`Ruling` what one
rule found out. A rule whose evidence was not saved is undecided: it found nothing, and that says
nothing.
"""

import enum
from typing import Any

from drgn_pmem.analysis.findings.words import plural
from drgn_pmem.partial import Problem
from drgn_pmem.record import Record, Show, shown

__all__ = ("Finding", "Heading", "Outcome", "Ruling", "Severity")


class Severity(enum.Enum):
    """How bad a finding is."""

    CRITICAL = "critical"
    """Data is lost, a task is stuck for good, or the dump misleads."""
    WARNING = "warning"
    """Something failed or is missing that should be there."""
    INFO = "info"
    """Unusual; may be meant so."""

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return tuple(Severity).index(self)


class Heading(enum.Enum):
    """The line of the first screen that a finding belongs to."""

    POISON = "poison"
    PINNED = "pinned"
    TASKS = "tasks"
    KERNEL = "kernel"
    ODD = "odd"
    TRUST = "trust"
    LACKS = "lacks"


class Outcome(enum.Enum):
    """What a rule found out."""

    FOUND = "found"
    NOT_FOUND = "not found"
    UNDECIDED = "cannot be decided"


class Finding(Record):
    """One thing that is wrong."""

    id: str
    """The rule that found it."""
    heading: Heading
    severity: Severity
    subject: str
    """What it is about: a file, a namespace, a task, the dump."""
    finding: str
    """What is wrong with it."""
    evidence: tuple[str, ...] = ()
    """What shows it, one fact each."""
    more: str
    """Command line that shows more."""
    do: str | None = None
    """What to do about it; None if there is nothing to do."""
    place: str = shown(Show.HIDDEN, default="")
    """Group of findings that belong together on the first screen."""
    brief: str = shown(Show.HIDDEN, default="")
    """For the first screen, beside the group."""

    @property
    def text(self) -> str:
        """Subject and finding."""
        return f"{self.subject}: {self.finding}"


class Ruling(Record):
    """What one rule found out."""

    rule: str
    """Id of the rule."""
    heading: Heading
    about: str
    """What it looks for: ``"poison in files"``."""
    more: str
    """Command line that shows more."""
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]
    looked: bool = shown(Show.HIDDEN, default=True)
    """Whether it came to its end; False if what it asks for could not be read at all."""

    @property
    def complete(self) -> bool:
        """Whether all that the rule looks at could be read."""
        return not any(problem.degrades for problem in self.problems)

    @property
    def outcome(self) -> Outcome:
        if self.findings:
            return Outcome.FOUND
        return Outcome.NOT_FOUND if self.complete else Outcome.UNDECIDED

    @property
    def why(self) -> str | None:
        """Why it is undecided, or may have missed something; None if it is complete."""
        degrading = [str(problem) for problem in self.problems if problem.degrades]
        if not degrading:
            return None
        others = len(degrading) - 1
        more = f" (and {plural(others, 'more problem')})" if others else ""
        return degrading[0] + more

    def to_json(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Its findings; one record that says what could not be decided if there are none."""
        rows = [
            {
                "id": item.id,
                "severity": item.severity.value,
                "heading": item.heading.value,
                "subject": item.subject,
                "finding": item.finding,
                "evidence": list(item.evidence),
                "more": item.more,
                "do": item.do,
                "complete": self.complete,
                "why": self.why,
            }
            for item in self.findings
        ]
        if self.outcome is Outcome.UNDECIDED:
            rows.append(
                {
                    "id": self.rule,
                    "severity": Severity.INFO.value,
                    "heading": self.heading.value,
                    "subject": self.about,
                    "finding": Outcome.UNDECIDED.value,
                    "evidence": [],
                    "more": self.more,
                    "do": None,
                    "complete": False,
                    "why": self.why,
                }
            )
        return rows
