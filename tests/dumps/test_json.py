# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/json.md has every key that a command prints, and no other."""

from collections.abc import Iterator
import dataclasses
import json
from pathlib import Path
import re
from typing import Any

import pytest

from drgn_pmem.commands import command_names, load_command
from drgn_pmem.commands.pmem_list import _DAX
from drgn_pmem.errors import UsageError

from ..samples import CASES, CUT_SHORT, Case, pmem_samples, run_answer, samples
from .test_every_command import question

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text()

ROW = re.compile(r"^\| `([\w-]+)` \| (.+?) \| ?(.*?)\|$", re.MULTILINE)

ROWS = {name: (keys, inside) for name, keys, inside in ROW.findall(PAGE) if name in command_names()}
"""Command -> keys of a record, keys of what is in it."""

NDCTLS = ("pmem-list", "pmem-namespaces")
"""Their keys are ndctl's."""


def named(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def every_key(value: Any) -> Iterator[str]:
    items = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict):
        yield from value
    if isinstance(value, (dict, list)):
        for item in items:
            yield from every_key(item)


def records(name: str) -> list[Any]:
    """Of the default dump; of one of another machine where that one alone has the subject."""
    sample = pmem_samples()[0]
    if name == "fadump":
        sample = next(s for s in samples().values() if s.loader == "fadump")
    case = Case(sample, next(iter(sample.formats)))
    line = question(load_command(name), case)
    if name == "pmem-diff":  # of two crashes, so that something changed
        other = samples()["6.1-load"]
        line = f"{name} {other.dump(next(iter(other.formats)))}"
    value = case.json(line)
    return value if isinstance(value, list) else [value]


def test_every_command_has_a_row() -> None:
    assert set(ROWS) == set(command_names()) - {"pmem-list"}


@pytest.mark.parametrize("name", sorted(set(ROWS) - set(NDCTLS)))
def test_keys_of_a_record_are_those_of_the_page(name: str) -> None:
    assert {key for record in records(name) for key in record} == named(ROWS[name][0])


@pytest.mark.parametrize("name", sorted(ROWS))
def test_keys_inside_are_there(name: str) -> None:
    printed = {key for record in records(name) for key in every_key(record)}
    assert named(ROWS[name][1]) <= printed


def test_full_json_has_notes_and_what_is_missing_beside_the_answer() -> None:
    case = next(case for case in CASES if case.format.endswith(CUT_SHORT))
    answer, out, err = run_answer(case.prog, "pmem-namespaces --json=full")
    found = json.loads(out)
    assert err == ""
    assert found["version"] == 1
    assert found["command"] == "pmem-namespaces"
    assert found["answer"] == case.json("pmem-namespaces")
    assert answer is not None
    assert found["complete"] is answer.whole is False
    assert [*found["notes"], *(p["why"] for p in found["problems"])]
    assert any(p["degrades"] and p["cause"] == "not saved" for p in found["problems"])
    with pytest.raises(UsageError, match="ignored explicit argument"):
        run_answer(case.prog, "pmem-namespaces --json=half")


def test_a_dax_device_without_a_driver_is_disabled() -> None:
    case = next(case for case in CASES if case.format == "elf")
    answer = run_answer(case.prog, "pmem-list -X")[0]
    assert answer is not None
    device = dataclasses.replace(answer.records[0], mode=None)
    (state,) = [field for field in _DAX if field.name == "STATE"]
    assert [state.value(record) for record in (answer.records[0], device)] == [
        "enabled",
        "disabled",
    ]
    assert device.to_json()["state"] == "disabled"
