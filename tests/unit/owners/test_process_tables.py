# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a process maps is read from its page tables; a table that was not saved maps nobody knows
what, never nothing."""

import pytest

from drgn_pmem.kernel import rmap
from drgn_pmem.kernel.tablewalk import Extent, mapped, not_known, unmapped
from drgn_pmem.partial import Cause, State

from .fake import Fake

MM = 0xFFFF_8880_0000_0000
PGD = 0xFFFF_8880_0000_2000


def fake_tables(monkeypatch: pytest.MonkeyPatch, *extents: Extent) -> Fake:
    fake = Fake()
    fake.fill("mm_struct", MM, pgd=PGD)
    monkeypatch.setattr(rmap, "translate", lambda prog, virtual: virtual - MM)
    monkeypatch.setattr(rmap, "walk_process", lambda prog, pgd, start, end: iter(extents))
    return fake


def test_a_mapped_page_has_its_pfn(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_tables(monkeypatch, mapped(0x1000, 0x2000, 0x1234_5000))
    answer = rmap.mapped_pfn(fake.prog, MM, 0x1000)
    assert (answer.value, answer.problems) == (0x12345, ())


def test_nothing_mapped_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_tables(monkeypatch, unmapped(0x1000, 0x2000))
    answer = rmap.mapped_pfn(fake.prog, MM, 0x1000)
    assert (answer.value, answer.complete) == (None, True)


def test_a_table_that_was_not_saved_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    # The words of the reason decide nothing, not even drgn's own for a page that is not mapped.
    lost = not_known(0x1000, 0x2000, "address is not mapped", State.EXCLUDED)
    answer = rmap.mapped_pfn(fake_tables(monkeypatch, lost).prog, MM, 0x1000)
    assert answer.value is None
    assert [(p.cause, p.state) for p in answer.problems] == [(Cause.NOT_SAVED, State.EXCLUDED)]
