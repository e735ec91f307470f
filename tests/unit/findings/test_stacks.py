# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pages that a stack leads to."""

from types import SimpleNamespace
from typing import Any

from drgn import Program
import numpy as np

from drgn_pmem.analysis.findings.stacks import Lead, StackPage, _Searcher
from drgn_pmem.kernel.memory import BadAddress
from drgn_pmem.partial import Problems

STACK = 0xFFFFB6CB8025BAC0
BIO = STACK + 0x20
VECS = STACK + 8
VMEMMAP = 0xFFFFED6FC0000000
PFN = 0x131660


class Structures:
    """Reads of one kind of structure, by address."""

    def __init__(self, at: dict[int, dict[str, int]]) -> None:
        self.at = at

    def read(self, address: int) -> dict[str, int]:
        if address not in self.at:
            raise BadAddress(f"{address:#x}")
        return self.at[address]


def searcher() -> Any:
    return SimpleNamespace(
        prog=Program(),
        problems=Problems(),
        layout=SimpleNamespace(
            vmemmap=VMEMMAP, size=64, page_shift=12, pfn=lambda page: (page - VMEMMAP) // 64
        ),
        bio=Structures({BIO: {"count": 1, "most": 1, "vecs": VECS}}),
        bio_vecs=0x58,
        vec=Structures({VECS: {"page": VMEMMAP + 64 * PFN}}),
        vec_size=16,
        _is_pmem=lambda pfn: pfn == PFN,
        _add_disk=lambda bio, disks: disks.setdefault({BIO: "dm-1"}[bio]),
    )


def test_a_bio_on_the_stack_is_found_without_a_pointer_to_it(monkeypatch: Any) -> None:
    """On 5.4 no word of a task in __blkdev_direct_IO_simple() points to its bio: the device that
    it waits for was not named."""
    monkeypatch.setattr("drgn_pmem.analysis.findings.stacks.physical_end", lambda _: 0x1_8000_0000)
    words = np.zeros(0x100 // 8, np.uint64)
    words[1] = VMEMMAP + 64 * PFN
    words[(BIO + 0x58 - STACK) // 8] = VECS
    disks: dict[str, None] = {}
    pages = _Searcher._of_bios(searcher(), words, STACK, disks)
    assert pages == [StackPage(pfn=PFN, how=Lead.BIO)]
    assert list(disks) == ["dm-1"]


WAKE = 0xFFFFFFFF81101230
REFCOUNT = 0x34


def test_who_sleeps_for_a_page_is_found_without_names_of_functions() -> None:
    """Without debug info of the module that it sleeps in, it was called an uncertain holder."""
    waiting = SimpleNamespace(
        wait=(WAKE, 5),
        layout=SimpleNamespace(vmemmap=VMEMMAP, size=64, refcount=REFCOUNT),
        ranges=[(PFN, PFN + 1)],
    )
    waiting._pfns = lambda words, offset: _Searcher._pfns(waiting, words, offset)
    words = np.zeros(16, np.uint64)
    for address in (VMEMMAP + 64 * PFN + REFCOUNT, VMEMMAP + 64 * PFN):
        words[3], words[8] = address, WAKE
        assert _Searcher._waited(waiting, words) == [StackPage(pfn=PFN, how=Lead.WAIT)]
    words[3] = VMEMMAP + 64 * (PFN + 1)  # not of persistent memory
    assert _Searcher._waited(waiting, words) == []
    words[:] = 0
    words[0] = WAKE  # what comes before it is not known
    assert _Searcher._waited(waiting, words) == []
