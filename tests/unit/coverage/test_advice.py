# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Advice does not reach farther than what is known of a namespace."""

from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.coverage.advice import _all_saved
from drgn_pmem.dumpfile import DumpFormat, State


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
