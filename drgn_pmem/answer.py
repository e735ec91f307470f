# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a command returns: records, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from drgn_pmem.output.records import Table
from drgn_pmem.output.table import Field
from drgn_pmem.output.terminal import Look
from drgn_pmem.partial import Cause, Partial, Problem, Problems, few_of_a_kind

__all__ = ("Answer",)


@dataclass
class Answer:
    """The answer of a command: records, notes and problems."""

    records: Sequence[Any]
    notes: list[str] = field(default_factory=list)
    """Warnings and limits of the answer, one line each; printed to standard error after it."""
    text: str | None = None
    """Rendered text, for answers that are not a table (a report, a drawing)."""
    streamed: bool = False
    """Whether :attr:`text` was printed while it was made (:mod:`drgn_pmem.output.stream`)."""
    fields: Sequence[Field] | None = None
    """Fields instead of the spec's, when options change what a row is."""
    json: Any = None
    """JSON instead of the list of records (nested lists as ndctl prints them, single objects)."""
    sections: Sequence[Table] = ()
    """(title, records, fields) tables one after the other, for answers with more than one kind of
    record."""
    extra: Sequence[Any] = ()
    """Records beside :attr:`records`, for a report: the lines of the first screen."""
    footer: Callable[[Sequence[Any], Look], str] | None = None
    """Text below the table, of the rows that are shown; left out where fields were chosen."""
    problems: Iterable[Problem] = ()
    """What the answer lacks and why; printed as the last notes."""
    differs: bool = False
    """Whether a comparison found a difference: one-shot use exits 1, as diff(1) does."""

    @classmethod
    def of(cls, partial: Partial[Any], **more: Any) -> Answer:
        """
        An answer whose records, or the only one, a :class:`~drgn_pmem.partial.Partial` has.

        :param more: Further arguments of :class:`Answer`.
        """
        problems = Problems()
        value = problems.take(partial)
        records = value if isinstance(value, (list, tuple)) else [value]
        return cls(records, problems=problems, **more)

    @property
    def whole(self) -> bool:
        """Whether all that was asked for could be read: otherwise one-shot use exits 1. What no
        dump of this format can hold is in :attr:`problems`, and the answer whole."""
        return not any(problem.degrades for problem in self.problems)

    @property
    def status(self) -> int:
        """Exit status of one-shot use: 0 for a complete answer without differences, else 1."""
        return int(self.differs or not self.whole)

    @property
    def interrupted(self) -> bool:
        """Whether the user stopped it with Ctrl-C: the records are those found until then."""
        return any(problem.cause is Cause.INTERRUPTED for problem in self.problems)

    def all_lacks(self) -> list[str]:
        """What the answer lacks, each line once; of many inputs without an answer the first."""
        problems = list(self.problems)
        inputs = few_of_a_kind(problem for problem in problems if problem.query is not None)
        others = (problem for problem in problems if problem.query is None)
        return list(dict.fromkeys(map(str, (*inputs, *others))))

    def all_notes(self) -> list[str]:
        """What is printed after the answer: its notes, then what it lacks, each line once."""
        return list(dict.fromkeys((*self.notes, *self.all_lacks())))
