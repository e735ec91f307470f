# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pages that a stack leads to."""

from types import SimpleNamespace
from typing import Any

from drgn import Program
import numpy as np

from drgn_pmem.analysis.findings.stacks import Lead, StackPage, _Searcher
from drgn_pmem.analysis.findings.waits import WaitEntry
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
TASK = 0xFFFF8E2F01234500
QUEUE = 0xFFFFFFFF82A01000


def waiting() -> Any:
    found = SimpleNamespace(
        wait=WaitEntry(function=WAKE, key=-5, private=-1, next=1),
        layout=SimpleNamespace(vmemmap=VMEMMAP, size=64, refcount=REFCOUNT),
        ranges=[(PFN, PFN + 1)],
    )
    found._pfns = lambda words, offset: _Searcher._pfns(found, words, offset)
    return found


def waited(words: Any) -> list[StackPage]:
    task: Any = SimpleNamespace(address=TASK)
    return _Searcher._waited(waiting(), words, STACK, task)


def entry(key: int = VMEMMAP + 64 * PFN) -> Any:
    """Words of a stack with an entry of a wait queue."""
    words = np.zeros(16, np.uint64)
    words[3], words[7], words[8], words[9], words[10] = key, TASK, WAKE, QUEUE, QUEUE
    return words


def test_who_sleeps_for_a_page_is_found_without_names_of_functions() -> None:
    """Without debug info of the module that it sleeps in, it was called an uncertain holder."""
    for address in (VMEMMAP + 64 * PFN + REFCOUNT, VMEMMAP + 64 * PFN):
        assert waited(entry(address)) == [StackPage(pfn=PFN, how=Lead.WAIT)]
    assert waited(entry(VMEMMAP + 64 * (PFN + 1))) == []  # not of persistent memory
    words = np.zeros(16, np.uint64)
    words[0] = WAKE  # what comes before it is not known
    assert waited(words) == []
    words[0], words[15] = 0, WAKE  # what comes after it
    assert waited(words) == []


def test_an_entry_that_is_in_no_queue_shows_no_waiter() -> None:
    """An entry stays on the stack after the task was woken, or of another task after it ended: each
    was called a waiter of its page."""
    words = entry()
    words[9] = words[10] = STACK + 8 * 9  # list_del_init()
    assert waited(words) == []
    words = entry()
    words[7] = TASK + 0x40
    assert waited(words) == []
