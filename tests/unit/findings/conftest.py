# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Answers made by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from drgn_pmem.analysis.findings import case
from drgn_pmem.partial import Partial, Problem


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``answer("read_crash", value, problem, ...)``: what a rule is answered when it asks."""

    def answer(name: str, value: Any, *problems: Problem) -> None:
        monkeypatch.setattr(case, name, lambda prog: Partial(value, problems))

    return answer
