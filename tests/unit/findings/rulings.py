# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a rule finds out where it is answered by hand."""

from typing import Any

from drgn import Program

from drgn_pmem.analysis.findings import diagnose
from drgn_pmem.analysis.findings.case import RULES, Facts, judge
from drgn_pmem.analysis.findings.model import Finding, Outcome, Ruling
from drgn_pmem.partial import Cause, Problem

diagnose._declare()

NOTHING: Any = None
LOST = Problem(cause=Cause.NOT_SAVED, what="region1", why="not in the dump")


def ruling(rule: str) -> Ruling:
    return judge(RULES[rule], Facts(Program()))


def the_finding(rule: str) -> Finding:
    own = ruling(rule)
    assert (own.outcome, own.complete) == (Outcome.FOUND, True), own
    (finding,) = own.findings
    return finding
