# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What the index shows of a report
--------------------------------

Taken from the report's JSON (docs/json.md). At most so many records of each kind; ``left_out`` says
of how many more the report has.
"""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ("ROWS", "summary_of")

ROWS = 10_000
"""Records of a kind at most."""


def summary_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param report: What ``pmem-report --json`` prints.
    """
    answers = {s["command"].split()[0]: s for s in report["sections"]}
    findings = _records(answers, "pmem-diagnose")
    namespaces = list(_namespaces(answers))
    poison = _records(answers, "pmem-poison")
    kinds = {"findings": findings, "namespaces": namespaces, "poison": poison}
    return {
        "crash": report["crash"],
        "build_id": report["report"].get("build id"),
        "vmlinux": report["report"].get("vmlinux"),
        "answers": [
            {key: section[key] for key in ("command", "state", "error", "lacks")}
            for section in report["sections"]
        ],
        **{kind: records[:ROWS] for kind, records in kinds.items()},
        "left_out": {k: len(records) - ROWS for k, records in kinds.items() if len(records) > ROWS},
    }


def _records(answers: Mapping[str, Any], command: str) -> list[dict[str, Any]]:
    """The records of a command; none if it gave no answer, which ``answers`` says."""
    return list((answers.get(command) or {}).get("answer") or ())


def _namespaces(answers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each namespace, with what pmem-coverage says of it."""
    coverage = {row["namespace"]: row for row in _records(answers, "pmem-coverage")}
    for row in _records(answers, "pmem-namespaces"):
        name = row.get("dev") or row.get("chardev")
        yield {**row, "coverage": coverage.get(name)}
