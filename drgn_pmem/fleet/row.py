# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
A line of the index
-------------------

What is known of one dump: from its report, or why there is none.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
import os

from drgn_pmem.analysis.findings.model import Outcome, Severity
from drgn_pmem.fleet.result import Result, State

__all__ = (
    "SEVERITIES",
    "UNDECIDED",
    "Row",
    "groups_of",
    "row_of",
    "short_name",
    "without_report",
    "worst_first",
)

SEVERITIES = tuple(severity.value for severity in Severity)
UNDECIDED = Outcome.UNDECIDED.value
"""What pmem-diagnose says of a rule that could not read what it looks at."""


@dataclass(frozen=True)
class Row:
    """One dump."""

    name: str
    """Of its files: ``reports/NAME.html``."""
    dump: str
    state: State
    error: str | None
    release: str | None
    panic: str | None
    time: int | None
    """seconds since 1970"""
    counts: tuple[int, int, int]
    """Findings, critical, warning and info."""
    undecided: int
    """Rules that could not be decided."""
    complete: bool
    found: tuple[tuple[str, str], ...]
    """(severity, rule) of what was found, each once, worst first."""
    numbers: Mapping[tuple[str, str], int]
    """How many findings there are of each."""
    tries: int
    before: str
    """How the first try ended, of two."""
    seconds: float
    stale: str
    """Why it is not of the dump as it is now; empty if it is."""

    @property
    def has_report(self) -> bool:
        return self.state is State.DONE


def row_of(result: Result, stale: str = "") -> Row:
    """
    The line of a result.

    :param stale: :attr:`Row.stale`.
    """
    crash = result.value.get("crash") or {}
    decided = [item for item in result.findings if item["finding"] != UNDECIDED]
    counts = Counter(item["severity"] for item in decided)
    numbers = Counter((item["severity"], item["id"]) for item in decided)
    return Row(
        name=result.name,
        dump=result.dump,
        state=result.state,
        error=result.error,
        release=crash.get("release"),
        panic=crash.get("panic"),
        time=crash.get("time"),
        counts=(counts["critical"], counts["warning"], counts["info"]),
        undecided=len(result.findings) - len(decided),
        complete=result.complete,
        found=tuple(sorted(numbers, key=lambda item: (_rank(item[0]), item[1]))),
        numbers=numbers,
        tries=result.tries,
        before=result.before,
        seconds=result.seconds,
        stale=stale,
    )


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def worst_first(rows: Iterable[Row]) -> list[Row]:
    """The dumps with a report: most critical findings first, then warnings, then those of which
    most could not be decided."""
    done = [row for row in rows if row.has_report]
    return sorted(
        done,
        key=lambda r: (*(-count for count in r.counts[:2]), -r.undecided, -r.counts[2], r.dump),
    )


def without_report(rows: Iterable[Row]) -> list[Row]:
    return sorted((row for row in rows if not row.has_report), key=lambda row: row.dump)


def groups_of(rows: Iterable[Row]) -> list[tuple[tuple[tuple[str, str], ...], list[Row]]]:
    """
    Dumps with the same findings, critical ones and warnings: what was found, and the dumps of two
    or more; the worst group first.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in worst_first(rows):
        found = tuple(item for item in row.found if item[0] in SEVERITIES[:2])
        groups.setdefault(found, []).append(row)
    return [(found, same) for found, same in groups.items() if found and len(same) > 1]


def short_name(dump: str) -> str:
    """The end of a path: dumps are often called vmcore, each in a folder of its own."""
    return os.sep.join(dump.split(os.sep)[-2:])
