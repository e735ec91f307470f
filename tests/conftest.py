# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings of every test."""

import os
from typing import Any

from hypothesis import HealthCheck, settings

# No deadline: how fast a test runs says more about the machine than about the code.
_ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _ANY_MACHINE)
settings.register_profile("fuzz", _ANY_MACHINE, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


_TAKEN = {
    "taken": ("taken away one at a time", ("pages read", "taken away", "complete", "wrong")),
    "hidden": (
        "members taken away one at a time",
        ("members", "taken away", "complete", "differ", "wrong"),
    ),
}
"""Property of a test of tests/taken -> title, and what it counted."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many pages and members were taken away from each command on each dump."""
    for name, (title, counted) in _TAKEN.items():
        _summarize(terminalreporter, name, title, counted)


def _summarize(terminalreporter: Any, property_: str, title: str, counted: tuple[str, ...]) -> None:
    rows = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        for name, value in report.user_properties
        if name == property_
    ]
    if not rows:
        return
    terminalreporter.section(title)
    columns = ("dump", "command", *counted)
    total = ("all", "", *(sum(row[column] for row in rows) for column in range(2, len(columns))))
    for row in (columns, *sorted(map(tuple, rows)), total):
        terminalreporter.write_line(
            "{:<28}{:<18}".format(*row) + "".join(f"{value:>12}" for value in row[2:])
        )
