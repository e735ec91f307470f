# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Pages that a user named
-----------------------

Answers about several pages, each named as :func:`~drgn_pmem.analysis.pages.words.resolve_page`
understands it. A word that names no page is a problem of the answer, and an error if it is the only
one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from drgn import Program

from drgn_pmem.analysis.owners.records import PageOwners
from drgn_pmem.analysis.owners.search import owners_of
from drgn_pmem.analysis.pages.one import PmemPage, read_pmem_page
from drgn_pmem.analysis.pages.words import PageAddress, Reading, resolve_page
from drgn_pmem.errors import NotFound, UsageError
from drgn_pmem.partial import Cause, Partial, Problem, Problems, WalkError, few_of_a_kind
from drgn_pmem.record import Record

__all__ = ("NamedOwners", "named_owners", "named_pages")

T = TypeVar("T")

_MOST = 4
"""Pages of one problem that are shown one by one."""


class NamedOwners(Record):
    """Owners of the pages that were named."""

    pages: tuple[PageOwners, ...]
    notes: tuple[str, ...]
    """Of all pages; a note that several pages have names them."""


def _answers(
    prog: Program,
    words: list[str],
    problems: Problems,
    ask: Callable[[Program, int], Partial[T]],
) -> Iterator[tuple[str, PageAddress, Partial[T]]]:
    """Each word, the page that it names, and the answer about that page."""
    if not words:
        raise UsageError("no page given")
    for word in words:
        try:
            where = problems.take(resolve_page(prog, word))
            answer = ask(prog, where.pfn)
        except (UsageError, NotFound, WalkError) as error:
            if len(words) == 1:
                raise
            own = Problems()
            own.add(error)
            problems.extend(replace(problem, query=word) for problem in own)
        else:
            yield word, where, answer


def named_pages(prog: Program, words: Iterable[str]) -> Partial[list[PmemPage]]:
    """
    The pages that a user named.

    :raises UsageError: if no page is named at all
    :raises MissingDebugInfo: if the layout of struct page is not known at all
    """
    problems = Problems()
    pages = []
    for word, where, answer in _answers(prog, list(words), problems, read_pmem_page):
        page = problems.take(answer)
        notes = (where.note, *page.notes) if where.note else page.notes
        pages.append(replace(page, query=word, notes=notes))
    inputs = tuple(problem for problem in problems if problem.query is not None)
    return Partial(pages, (*inputs, *few_of_a_kind(p for p in problems if p.query is None)))


def named_owners(prog: Program, words: Iterable[str]) -> Partial[NamedOwners]:
    """
    Owners of the pages that a user named. After Ctrl-C, of those that were looked at until then.

    :raises UsageError: if no page is named at all
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    todo = list(words)
    problems = Problems()
    pages: list[PageOwners] = []
    notes: list[str] = []
    explained: dict[str, list[int]] = {}
    missing: dict[Problem, list[int]] = {}
    try:
        for word, where, answer in _answers(prog, todo, problems, owners_of):
            own = Problems()
            page = own.take(answer)
            pages.append(replace(page, query=word))
            notes.extend([where.note] if where.note and where.kind is not Reading.PFN else [])
            for problem in own:
                missing.setdefault(problem, []).append(page.pfn)
            lines = set(map(str, own))
            for note in page.notes:
                if note not in lines:
                    explained.setdefault(note, []).append(page.pfn)
    except KeyboardInterrupt:
        why = f"interrupted: {len(pages)} of {len(todo)} pages were looked at"
        problems.add(Problem(cause=Cause.INTERRUPTED, why=why))
    for problem, pfns in missing.items():
        names_it = len(set(pfns)) == 1 and f"PFN {pfns[0]:#x}" in problem.what
        problems.add(problem, "" if names_it else _pfns_text(pfns))
    notes += [f"{_pfns_text(pfns)}: {note}" for note, pfns in explained.items()]
    return problems.partial(NamedOwners(pages=tuple(pages), notes=tuple(dict.fromkeys(notes))))


def _pfns_text(pfns: list[int]) -> str:
    once = list(dict.fromkeys(pfns))
    shown = ", ".join(f"{pfn:#x}" for pfn in once[:_MOST])
    return f"PFN {shown}" + (f" and {len(once) - _MOST} more" if len(once) > _MOST else "")
