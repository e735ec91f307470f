# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Pytest plugin that keeps what the tests of tests/dumps found out in docs/support-matrix.json::

    pytest -p tests.matrix --matrix docs/support-matrix.json tests/dumps

A cell is one command on one dump. tests/dumps/test_every_command.py asks how the command answers
(its property ``answer``); whether the answer is true, the tests marked ``holds(command)`` say: at
least one of them must have asked the command and passed. A test that asked it and failed makes the
cell a failed one. Only samples whose tests ran get new cells; those of kernels that are not here,
such as a distribution's, stay as their last run left them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
import datetime
import json
from pathlib import Path
import re
from typing import Any

import pytest

from drgn_pmem.shell.sample import samples_directory

from . import samples as dumps

Cell = tuple[str, str, str]
"""Sample, format, command."""

_KEY = "matrix"
_RECORDER = "drgn_pmem_matrix"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--matrix", type=Path, metavar="FILE", help="keep the support matrix in FILE")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--matrix")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(path), _RECORDER)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    dumps.ASKED.clear()  # what fixtures asked says nothing about the test


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Whom a test asked, and what it holds: to the process that reports (pytest-xdist)."""
    report = yield
    held = [name for mark in item.iter_markers("holds") for name in mark.args]
    cases = [v for v in getattr(item, "funcargs", {}).values() if isinstance(v, dumps.Case)]
    about = [[case.sample.name, case.format, name] for case in cases for name in held]
    asked = sorted(map(list, dumps.ASKED)) if report.when == "call" else []
    report.user_properties.append((_KEY, {"held": held, "about": about, "asked": asked}))
    return report


def _whole(format: str) -> str:
    """The format of which "zlib, cut short" is a part."""
    return format.partition(",")[0]


def _name(nodeid: str) -> str:
    """A test, without the group that pytest-xdist puts behind it."""
    return re.sub(r"\]@[^\]]*$", "]", nodeid.removeprefix("tests/"))


def to_text(value: Any, depth: int = 0) -> str:
    """JSON with a line for each cell, so that a change of one shows as one."""
    if not isinstance(value, dict) or depth == 5:
        return json.dumps(value, ensure_ascii=False)
    indent = "\n" + " " * (depth + 1)
    lines = (f"{json.dumps(key)}: {to_text(item, depth + 1)}" for key, item in value.items())
    return f"{{{indent}{f',{indent}'.join(lines)}{indent[:-1]}}}"


@dataclass
class Recorder:
    """Gathers reports, and writes the file when all are there."""

    path: Path
    answers: dict[Cell, tuple[str, list[str]]] = field(default_factory=dict)
    proven: set[Cell] = field(default_factory=set)
    failed: dict[Cell, list[str]] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        seen = properties.get(_KEY)
        if seen is None:
            return
        asked = [tuple(cell) for cell in seen["asked"]]
        if report.failed:
            for cell in {*asked, *(tuple(cell) for cell in seen["about"])}:
                self.failed.setdefault(cell, []).append(_name(report.nodeid))
        elif report.passed and report.when == "call":
            self.proven |= {cell for cell in asked if cell[2] in seen["held"]}
            if "answer" in properties:
                (cell,) = asked
                self.answers[cell] = properties["answer"]

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if self.answers and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            matrix = json.loads(self.path.read_text()) if self.path.exists() else {"samples": {}}
            self.merge(matrix["samples"])
            self.path.write_text(to_text(matrix) + "\n")

    def merge(self, kept: dict[str, Any]) -> None:
        """Put the cells of this run in the place of those of the same samples."""
        known = dumps.samples()
        for name in [n for n, entry in kept.items() if entry["vmcores"] and n not in known]:
            del kept[name]
        for name, sample in known.items():
            formats: dict[str, dict[str, Any]] = {}
            for cell in sorted(self.answers.keys() | self.failed.keys()):
                if cell[0] == name:
                    formats.setdefault(cell[1], {})[cell[2]] = self.describe(cell)
            if formats:
                before = kept.get(name, {}).get("formats", {})
                formats = {f: c for f, c in before.items() if _whole(f) in sample.formats} | formats
                order = list(sample.formats)
                kept[name] = {
                    "release": sample.release,
                    "architecture": sample.architecture,
                    "description": sample.description,
                    "vmcores": sample.truth.is_relative_to(samples_directory()),
                    "ran": datetime.date.today().isoformat(),
                    "formats": {
                        format: formats[format]
                        # "zlib, cut short" after every whole dump
                        for format in sorted(
                            formats, key=lambda f: ("," in f, order.index(_whole(f)), f)
                        )
                    },
                }

    def describe(self, cell: Cell) -> dict[str, Any]:
        """A cell as the file has it."""
        if cell in self.failed:
            return {"state": "failed", "reasons": sorted(self.failed[cell])}
        how, lacks = self.answers[cell]
        # a dump that was cut short for a test has a path of that run only
        lacks = [re.sub(r"/\S*/(?=vmcore\b)", "", line) for line in lacks]
        if how == "impossible":
            return {"state": how, "reasons": lacks}
        record: dict[str, Any] = {"state": how, "held": cell in self.proven}
        return record | {"reasons": lacks} if lacks else record
