# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device memory that is not of DAX is not taken for persistent memory."""

from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.findings import addresses, poison, stacks
from drgn_pmem.analysis.findings.rules import log
from drgn_pmem.kernel import pgmap as kernel_pgmap
from drgn_pmem.kernel.failurelog import FailureEvent
from drgn_pmem.partial import Partial, Problems

from ..pages.memmap import COUNT, FIRST, Kernel

MAYBE = ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_GENERIC", "9")
"""Also a type that is not known."""
DRIVERS = ("MEMORY_DEVICE_PRIVATE", "MEMORY_DEVICE_COHERENT", "MEMORY_DEVICE_PCI_P2PDMA")


@pytest.fixture(params=[*MAYBE, *DRIVERS])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A program with one page map, and whether its memory may be persistent."""
    prog = Kernel("6.1", {}, type=request.param).prog
    found = prog.cache["drgn_pmem.pgmaps"].value[0]
    entry = SimpleNamespace(value_=lambda: found.address)
    monkeypatch.setattr(kernel_pgmap, "_entries", lambda prog: iter([entry]))
    monkeypatch.setattr(kernel_pgmap, "read_pgmap", lambda pgmap: found)
    return prog, request.param in MAYBE


def test_an_address_of_it(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of its struct page was one "of pmem"."""
    prog, maybe = machine
    monkeypatch.setattr(addresses, "namespaces_of", lambda prog: Partial([]))
    problems = Problems()
    assert addresses._is_pmem(prog, FIRST, problems) is maybe
    assert not problems


def test_a_memory_failure_of_it(machine: Any) -> None:
    """pmem-poison listed the page."""
    prog, maybe = machine
    search = poison._Search(prog)
    line: Any = SimpleNamespace(event=FailureEvent.HANDLED)
    search.lines = {FIRST: [line]}
    assert search._logged() == ({FIRST} if maybe else set())
    assert search.notes == (
        [] if maybe else ["the kernel log has 1 failed pages that are not pmem"]
    )


def test_a_kernel_report_about_it(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prog, maybe = machine
    monkeypatch.setattr(log, "named_page", lambda prog, pfn: Partial(f"PFN {pfn:#x}"))
    case: Any = SimpleNamespace(prog=prog, take=lambda ask: Problems().take(ask()))
    splat: Any = SimpleNamespace(pfn=FIRST, addresses=())
    assert list(log._touched(case, splat)) == ([f"PFN {FIRST:#x}"] if maybe else [])


def test_a_bio_or_a_stack_that_holds_it(machine: Any) -> None:
    """pmem-pins listed pages that NVMe drives transfer to each other."""
    prog, maybe = machine
    found = stacks.pages_of_pmem(prog, Problems())
    assert found == ([(FIRST, FIRST + COUNT)] if maybe else [])
