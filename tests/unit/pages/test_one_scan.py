# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""pmem-pages, pmem-poison and pmem-pins scan all struct pages once and answer as if each did."""

from collections.abc import Callable
import itertools
from typing import Any

import pytest

from drgn_pmem.analysis.pages import states
from drgn_pmem.analysis.pages.filter import Filter

from .memmap import GENERATIONS, HWPOISON, MAPPING, Kernel
from .test_scan import mixed, report_of

QUESTIONS = [
    (None, False),
    (Filter(hwpoison=True), True),
    (Filter(busy=True), True),
    (Filter(busy=True, flags=HWPOISON), True),
    (Filter(refcount=(1, 1)), False),
    (Filter(owner=f"{MAPPING:#x}"), False),
]
OTHERS = [(None, True), (Filter(refcount=(1, 1)), True), (Filter(owner=f"{MAPPING:#x}"), True)]


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the scans that were made."""
    made: list[str] = []

    def counted(name: str, scan: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **more: made.append(name) or scan(*args, **more)

    for name in ("scan_some", "scan_pages"):
        monkeypatch.setattr(states, name, counted(name, getattr(states, name)))
    return made


@pytest.mark.parametrize("generation", GENERATIONS)
def test_one_scan_answers_what_several_do(generation: str, scans: list[str]) -> None:
    prog = Kernel(generation, mixed(generation)).prog
    for chosen, ranges in QUESTIONS:
        alone = report_of(Kernel(generation, mixed(generation)).prog, chosen=chosen, ranges=ranges)
        scans.clear()
        assert report_of(prog, chosen=chosen, ranges=ranges) == alone
        assert scans == (["scan_some"] if chosen is None else [])
    for chosen, ranges in OTHERS:
        alone = report_of(Kernel(generation, mixed(generation)).prog, chosen=chosen, ranges=ranges)
        scans.clear()
        assert report_of(prog, chosen=chosen, ranges=ranges) == alone
        assert scans == ["scan_pages"]


@pytest.mark.parametrize("keep", [1, 50_000])
def test_more_of_them_than_are_kept(
    keep: int, scans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "_KEPT", 1)
    answers = []
    for prog in (Kernel("6.1", mixed("6.1")).prog, Kernel("6.1", mixed("6.1")).prog):
        answers.append(report_of(prog, chosen=Filter(busy=True), ranges=True, keep=keep))
        assert scans == ["scan_some", "scan_pages"]
        scans.clear()
        monkeypatch.setattr(states, "_KEPT", 1 << 15)
        answers.append(
            report_of(
                Kernel("6.1", mixed("6.1")).prog, chosen=Filter(busy=True), ranges=True, keep=keep
            )
        )
        assert scans == ["scan_some"]
        scans.clear()
        monkeypatch.setattr(states, "_KEPT", 1)
    for one, other in itertools.pairwise(answers):
        assert one.value == other.value
        assert [str(p) for p in one.problems] == [str(p) for p in other.problems]
    limited = any("not kept (limit 1)" in str(p) for p in answers[0].problems)
    assert limited == (keep == 1)
