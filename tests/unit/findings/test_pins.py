# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who holds a poisoned page, by what the kernel knows of persistent memory."""

from types import SimpleNamespace
from typing import Any

from drgn import Program
import pytest

from drgn_pmem.analysis.findings import pins
from drgn_pmem.analysis.findings.pins import PinnedPage, find_pins
from drgn_pmem.analysis.findings.rules.pins import _holder, _release
from drgn_pmem.kernel.failurelog import FailureEvent, FailureLine, FailureSource
from drgn_pmem.kernel.holders import Hold
from drgn_pmem.partial import Partial

POISONED, PINNED = PAGES = 0x100, 0x200
PGMAP = SimpleNamespace(is_dax=True, first_pfn=0, has_pfn=lambda pfn: True)


def owners_of(prog: Program, pfn: int) -> Partial[Any]:
    page = SimpleNamespace(pfn=pfn, hwpoison=pfn == POISONED, pins=1, head_pfn=None)
    return Partial(SimpleNamespace(pfn=pfn, page=page, trusted=True, owners=()))


def found(
    monkeypatch: pytest.MonkeyPatch, *lines: FailureLine, keeps_index: bool
) -> dict[int, PinnedPage]:
    """find_pins() of two pages with a reference more than idle."""
    report = SimpleNamespace(
        notes=(),
        ranges=[SimpleNamespace(pfn=p, group=SimpleNamespace(pages=1)) for p in PAGES],
    )
    answers = {
        "dax_files_of": SimpleNamespace(files=()),
        "for_each_pmem_pgmap": [PGMAP],
        "for_each_held": [],
        "for_each_pinning_device": [],
        "search_stacks": [],
        "read_page_report": report,
        "for_each_failure_line": lines,
    }
    for name, value in answers.items():
        monkeypatch.setattr(pins, name, lambda *_, value=value, **__: Partial(value))
    monkeypatch.setattr(pins, "owners_of", owners_of)
    monkeypatch.setattr(pins, "read_page", lambda _, pfn: Partial(owners_of(_, pfn).value.page))
    monkeypatch.setattr(pins, "page_layout", lambda _: SimpleNamespace(keeps_index=keeps_index))
    return {page.pfn: page for page in find_pins(Program()).whole().pages}


def test_before_4_19_a_memory_failure_keeps_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its page was one whose holder could not be found, as of a pin that leaked."""
    pages = found(monkeypatch, keeps_index=False)
    (holder,) = pages[POISONED].holders
    assert (holder.kind, holder.pfn, holder.certain) == (Hold.MEMORY_FAILURE, POISONED, True)
    assert _holder(holder) == "the kernel (memory failure)"
    assert holder.to_json() | {"evidence": ""} == {
        "pid": None,
        "comm": None,
        "kind": "memory failure",
        "pfn": POISONED,
        "evidence": "",
        "certain": True,
    }
    waiter: Any = SimpleNamespace(task=SimpleNamespace(pid=7, comm="rm"))
    assert "never released" in _release([waiter], pages[POISONED])
    assert pages[PINNED].holders == ()
    assert _release([waiter], pages[PINNED]).startswith("find what holds")


def line(text: str, event: FailureEvent) -> FailureLine:
    source = FailureSource.MEMORY_FAILURE
    return FailureLine(pfn=0x300, physical=None, source=source, event=event, time=1, text=text)


FAILED = line(
    "Memory failure: 0x300: recovery action for reserved kernel page: Failed",
    FailureEvent.NOT_HANDLED,
)
CLEARED = line("Unpoison: Software-unpoisoned page 0x300", FailureEvent.CLEARED)


def test_the_log_shows_it_where_struct_pages_were_not_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (holder,) = found(monkeypatch, FAILED, keeps_index=False)[0x300].holders
    assert (holder.kind, holder.evidence) == (Hold.MEMORY_FAILURE, f"kernel log: {FAILED.text}")
    assert 0x300 not in found(monkeypatch, FAILED, CLEARED, keeps_index=False)
    assert 0x300 not in found(monkeypatch, FAILED, keeps_index=True)
    memmap = SimpleNamespace(is_dax=True, first_pfn=0x301, has_pfn=lambda _: True)
    monkeypatch.setattr(f"{__name__}.PGMAP", memmap)
    assert 0x300 not in found(monkeypatch, FAILED, keeps_index=False)


def test_later_kernels_drop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = found(monkeypatch, keeps_index=True)
    assert [page.holders for page in pages.values()] == [(), ()]
