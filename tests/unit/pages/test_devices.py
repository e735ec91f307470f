# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pages of DAX devices, by the types and the owners that kernels gave them."""

import dataclasses

import pytest

from drgn_pmem.analysis.pages import groups, one
from drgn_pmem.analysis.pages.one import read_pmem_page
from drgn_pmem.kernel.page import page_layout
from drgn_pmem.partial import Cause, Partial

from .memmap import COUNT, FIRST, HWPOISON, Kernel, Page
from .test_scan import report_of


@pytest.mark.parametrize("type_", ["MEMORY_DEVICE_GENERIC", "MEMORY_DEVICE_DEVDAX", "0"])
def test_device_dax_is_reported_by_each_type_that_kernels_gave_it(type_: str) -> None:
    kernel = Kernel("6.1", {FIRST + 9: Page(index=3, refcount=5)}, type=type_)
    report = report_of(kernel.prog)
    assert report.complete
    assert sum(group.pages for group in report.value.groups) == COUNT
    assert [g.pages for g in report.value.groups if g.status == "pinned"] == [1]


def test_a_page_map_that_is_none_of_persistent_memory_is_left_out() -> None:
    assert report_of(Kernel("6.1", {}, type="MEMORY_DEVICE_PRIVATE").prog).value.groups == ()


def test_before_4_19_a_page_of_a_dax_device_without_mapping_is_not_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Device DAX set no mapping then: pages that processes map look as those that none maps."""
    pages = {FIRST + 9: Page(refcount=5), FIRST + 10: Page(flags=HWPOISON)}
    statuses = {}
    for type_ in ("0", "MEMORY_DEVICE_FS_DAX"):
        kernel = Kernel("6.1", pages, type=type_)
        layout = dataclasses.replace(page_layout(kernel.prog), keeps_index=False)
        for module in (groups, one):
            monkeypatch.setattr(module, "page_layout", lambda _, layout=layout: layout)
        report = report_of(kernel.prog)
        assert report.complete  # no dump has it
        notes = [p.why for p in report.problems if p.cause is Cause.FORMAT]
        assert [("pmem-rmap" in note) for note in notes] == ([True] if type_ == "0" else [])
        statuses[type_] = {g.status: g.pages for g in report.value.groups}
        monkeypatch.setattr(one, "namespace_of_pfn", lambda *_: Partial(None))
        monkeypatch.setattr(one, "pgmap_name", lambda *_: Partial(None))
        monkeypatch.setattr(one, "shared_of", lambda *_: Partial(False))
        singles = {pfn: read_pmem_page(kernel.prog, pfn).value.status for pfn in (FIRST, *pages)}
        assert singles == {
            FIRST: "unknown" if type_ == "0" else "idle",
            FIRST + 9: "pinned",
            FIRST + 10: "poisoned",
        }
    rest = COUNT - 2
    assert statuses["0"] == {"unknown": rest, "pinned": 1, "poisoned": 1}
    assert statuses["MEMORY_DEVICE_FS_DAX"] == {"idle": rest, "pinned": 1, "poisoned": 1}
