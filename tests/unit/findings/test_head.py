# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The first lines of the first screen say nothing that could not be read."""

from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.findings import head
from drgn_pmem.errors import NotFound
from drgn_pmem.partial import Cause, Partial, Problem, Problems

UNREAD = Problem(cause=Cause.NOT_SAVED, why="kexec_crash_image was not saved")


@pytest.mark.parametrize(
    ("hotplug", "problems", "words"),
    [
        (object(), (), "no crash kernel loaded: a panic would leave no vmcore"),
        (None, (UNREAD,), "whether a crash kernel is loaded is not known"),
    ],
)
def test_a_crash_kernel_that_cannot_be_read_may_be_loaded(
    monkeypatch: pytest.MonkeyPatch, hotplug: object, problems: tuple[Problem, ...], words: str
) -> None:
    def fw_dump(prog: object) -> None:
        raise NotFound("no firmware-assisted dump")

    headers = Partial(SimpleNamespace(image=None, hotplug=hotplug), problems)
    facts: Any = SimpleNamespace(prog=None, headers=lambda: headers)
    monkeypatch.setattr(head, "fw_dump", fw_dump)
    found = Problems()
    assert head._crash_kernel(facts, found) == words
    assert tuple(found) == problems
