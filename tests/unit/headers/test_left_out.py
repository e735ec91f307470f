# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a crash header says of persistent memory that it does not have."""

from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.headers import compare
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.ranges import Range

NOTHING: Any = None
HEADER: Any = "header"
ALL = "16 MiB of persistent memory is not in the header: "


@pytest.mark.parametrize(
    ("adds", "image", "note"),
    [
        (False, None, "this kernel puts only RAM into it"),
        # of_pmem, papr_scm and virtio-pmem have no such resource
        (
            True,
            None,
            "this kernel puts only RAM and what a resource (/proc/iomem) calls persistent memory"
            " into it",
        ),
        (True, SimpleNamespace(file_mode=False), "kexec-tools puts only RAM into it"),
    ],
)
def test_what_is_put_into_the_header_is_said_of_this_kernel(
    monkeypatch: pytest.MonkeyPatch, adds: bool, image: Any, note: str
) -> None:
    machine = SimpleNamespace(pmem=[Range(0x60000000, 0x61000000)])
    monkeypatch.setattr(compare, "for_each_persistent_memory", lambda prog: Partial([]))
    monkeypatch.setattr(compare, "read_machine", lambda prog: Partial(machine))
    monkeypatch.setattr(compare, "for_each_iomem", lambda prog: Partial([]))
    monkeypatch.setattr(compare, "memory_covered", lambda header, start, end: 0)
    monkeypatch.setattr(compare, "kernel_adds_pmem", lambda prog: adds, raising=False)
    problems = Problems()
    assert compare._pmem_left_out(NOTHING, image, HEADER, problems) == [ALL + note]
    assert not problems.partial(None).problems
