# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Advice does not reach farther than what is known of a namespace."""

from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.coverage import advice
from drgn_pmem.analysis.coverage.advice import _all_saved
from drgn_pmem.dumpfile import DumpFormat, State
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.ranges import Range

NOTHING: Any = None
LOST = Problem(cause=Cause.NOT_SAVED, why="iomem was not saved")


@pytest.mark.parametrize(
    ("unknown", "words"),
    [
        ({}, "no change needed"),
        ({State.EXCLUDED: 4096}, "no change needed for the struct pages"),
    ],
)
def test_bytes_of_an_unknown_kind_may_be_metadata(unknown: dict[State, int], words: str) -> None:
    dump: Any = SimpleNamespace(contained=DumpFormat.ELF, hypervisor=False)
    item: Any = SimpleNamespace(userdata={}, unknown=unknown)
    assert _all_saved(dump, item) == words


@pytest.mark.parametrize(
    ("desc", "problems", "is_one"),
    [
        ("IORES_DESC_PERSISTENT_MEMORY", (), True),
        ("IORES_DESC_PERSISTENT_MEMORY_LEGACY", (), True),
        ("IORES_DESC_NONE", (), False),  # of_pmem, papr_scm: "namespace1.0"
        ("IORES_DESC_NONE", (LOST,), True),
    ],
)
def test_memory_that_no_resource_calls_persistent_is_not_in_any_crash_header(
    monkeypatch: pytest.MonkeyPatch, desc: str, problems: tuple[Problem, ...], is_one: bool
) -> None:
    """The advice was to check a patch that looks for such resources."""
    resource: Any = SimpleNamespace(desc=desc, range=Range(0x1000, 0x3000))
    monkeypatch.setattr(advice, "for_each_iomem", lambda _: Partial([resource], problems))
    item: Any = SimpleNamespace(start=0x1000)
    assert advice._is_resource(NOTHING, item, Problems()) is is_one
