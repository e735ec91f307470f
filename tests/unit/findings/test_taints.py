# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Taint flags by the mask: what a kernel prints for a flag that is not set differs."""

from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.findings import crash


def flag(true: str, false: str) -> Any:
    return SimpleNamespace(c_true=value(ord(true)), c_false=value(ord(false)))


def value(number: int) -> Any:
    return SimpleNamespace(value_=lambda: number)


@pytest.mark.parametrize(
    ("mask", "letters"), [(0, ""), (0b100, "M"), (0b1100, "MW"), (0b0001, "P")]
)
@pytest.mark.parametrize("false", [" ", "-"])
def test_letters_of_the_flags_that_are_set(
    monkeypatch: pytest.MonkeyPatch, mask: int, letters: str, false: str
) -> None:
    monkeypatch.setattr(crash, "_need_kernel", lambda prog: None)
    flags = [flag("P", "G"), flag("F", false), flag("M", false), flag("W", false)]
    prog: Any = {"tainted_mask": value(mask), "taint_flags": flags}
    assert crash._taints(prog) == letters


def test_taints_in_words() -> None:
    assert crash.taint_words("MW") == "machine check, warning (MW)"
    assert crash.taint_words("!") == "flag ! (!)"
