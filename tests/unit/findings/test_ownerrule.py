# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A page whose struct page names another owner than the DAX entries do: that it is noticed, and the
rule about it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.findings.model import Outcome, Severity
from drgn_pmem.analysis.owners import search
from drgn_pmem.kernel.pgmap import FS_DAX
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from tests.unit.findings.rulings import LOST, NOTHING, ruling, the_finding

SENTENCE = (
    "the two sources disagree: the struct page names /mnt/a offset 0x3000, whose i_pages has PFN"
    " 0x999 there"
)


class File:
    """A DAX file whose page 3 has another PFN."""

    inode = SimpleNamespace(mapping=0x1000, super=None, ino=7)
    device = "pmem0"

    def __init__(self, pfn: int | None, *problems: Problem) -> None:
        entry = None if pfn is None else SimpleNamespace(pfn_at=lambda index: pfn)
        self.entries = Partial(SimpleNamespace(find=lambda index: entry), problems)

    def text(self, problems: Problems) -> str:
        return "/mnt/a"

    def identity(self, *_: Any) -> dict[str, Any]:
        names = dict.fromkeys(("inode", "dev", "path", "deleted"))
        return {**names, "device": "pmem0", "paths": (), "open_by": ()}


def owners(monkeypatch: pytest.MonkeyPatch, file: File, *entries: Any) -> Any:
    """Owners of a page whose struct page names page 3 of a file."""
    page = SimpleNamespace(trusted=True, type=FS_DAX, mapping_address=0x1000, index=3)
    files = SimpleNamespace(owners=lambda pfn: entries, by_mapping=lambda mapping: file)
    for name, value in {
        "read_page": page,
        "namespaces_of": [],
        "dax_files_of": files,
        "shared_of": False,
        "mappings_of_page": (),
        "pgmap_name": "pmem0",
    }.items():
        monkeypatch.setattr(search, name, lambda *_, value=value: Partial(value))
    monkeypatch.setattr(search, "explain", lambda *_: [])
    prog: Any = {"PAGE_SHIFT": 12}
    return search._Question(prog, 0x555).answer().value


def test_the_struct_page_against_the_entries_of_the_file_that_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = owners(monkeypatch, File(0x999))
    assert answer.disagreements == (SENTENCE,)
    assert SENTENCE in answer.notes
    nothing = owners(monkeypatch, File(None)).disagreements
    assert nothing == (SENTENCE.replace("PFN 0x999", "no DAX entry"),)


def test_entries_at_another_offset_of_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    file = File(0x999)
    answer = owners(monkeypatch, file, (file, NOTHING, 9))
    assert answer.disagreements == (f"{SENTENCE}; other DAX entries name this page",)
    assert [(owner.offset, owner.sources) for owner in answer.owners] == [
        (0x9000, ("i_pages",)),
        (0x3000, ("page",)),
    ]


def test_entries_that_were_not_read_do_not_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert owners(monkeypatch, File(None, LOST)).disagreements == ()


def test_sources_that_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    file = File(0x555)
    answer = owners(monkeypatch, file, (file, NOTHING, 3))
    assert [owner.sources for owner in answer.owners] == [("page", "i_pages")]
    assert answer.disagreements == ()


def page(*disagreements: str) -> Any:
    own = SimpleNamespace(
        pfn=0x555, namespace="namespace0.0", disagreements=disagreements, notes=disagreements
    )
    return SimpleNamespace(pfn=0x555, owners=own)


def both(answer: Callable[..., None], poison: Any, pins: Any, *problems: Problem) -> None:
    answer("find_poison", SimpleNamespace(pages=poison))
    answer("find_pins", SimpleNamespace(pages=pins), *problems)


def test_bad_or_held_pages_of_two_owners(answer: Callable[..., None]) -> None:
    for poison, pins in (([page(SENTENCE)], []), ([], [page(SENTENCE)])):
        both(answer, poison, pins)
        found = the_finding("owner-sources-disagree")
        assert (found.subject, found.severity) == (
            "PFN 0x555 of namespace0.0",
            Severity.WARNING,
        )
        assert found.finding == SENTENCE
        assert found.more == "pmem-rmap pfn:0x555"


def test_a_page_that_is_bad_and_held_is_one_finding(answer: Callable[..., None]) -> None:
    both(answer, [page(SENTENCE)], [page(SENTENCE)])
    the_finding("owner-sources-disagree")


def test_pages_of_one_owner_and_pages_that_are_not_known(answer: Callable[..., None]) -> None:
    both(answer, [page()], [page()])
    assert ruling("owner-sources-disagree").outcome is Outcome.NOT_FOUND
    lost = Problem(cause=Cause.NOT_SAVED, why="struct pages")
    both(answer, [page()], [], lost)
    assert ruling("owner-sources-disagree").outcome is Outcome.UNDECIDED
