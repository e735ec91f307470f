# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules about poison: what the bad pages of :mod:`..poison` hit."""

from collections.abc import Iterable, Sequence
import re

from drgn_pmem.analysis.findings.badpages import Place, PoisonedPage
from drgn_pmem.analysis.findings.case import Case, rule
from drgn_pmem.analysis.findings.model import Heading, Severity
from drgn_pmem.analysis.findings.words import few
from drgn_pmem.analysis.owners.records import Owner
from drgn_pmem.kernel.failurelog import FailureEvent

__all__ = ("pages_by_place",)

_SIGNALLED = re.compile(r"(?:Sending SIGBUS to|Killing) (?P<comm>.*):(?P<pid>[0-9]+) ")
"""``kill_proc()`` of mm/memory-failure.c"""

_CLEARS = "a write clears the poison"

_FILES, _STRUCT_PAGES, _METADATA, _DATA = "in files", "in struct pages", "in metadata", "in data"


def _processes(pages: Iterable[PoisonedPage]) -> str:
    return few(f"{pid}/{comm}" for page in pages for pid, comm, _ in page.processes)


def _on(pages: Iterable[PoisonedPage], comma: str = "") -> str:
    """``" on nmem5"``: which DIMM is bad, or which interleaved ones may be; of poison that software
    injected, none is."""
    bad = [page for page in pages if not page.injected]
    sets = dict.fromkeys(" or ".join(page.dimms) for page in bad if page.dimms)
    return f"{comma} on {few(sets)}" if sets else ""


def _evidence(page: PoisonedPage) -> str:
    return f"PFN {page.pfn:#x} (physical {page.physical:#x}) by {', '.join(page.sources)}"


def _signalled(pages: Iterable[PoisonedPage]) -> str:
    """The processes that the kernel sent SIGBUS, by its log."""
    return few(
        f"{match['pid']}/{match['comm']}"
        for page in pages
        for line in page.lines
        if line.event is FailureEvent.SIGNALLED and (match := _SIGNALLED.search(line.text))
    )


@rule("poison-in-file", Heading.POISON, "poison in files", "pmem-poison")
def poison_in_file(case: Case) -> None:
    """A file has lost data: which file, which offsets, who reads it."""
    files: dict[tuple[str, int | None, str], list[tuple[PoisonedPage, Owner]]] = {}
    for page in case.take(case.facts.poison).pages:
        for owner in page.owners.owners:
            key = (owner.device, owner.inode, owner.name or f"inode {owner.inode}")
            files.setdefault(key, []).append((page, owner))
    for (_, _, name), hits in files.items():
        pages = [page for page, _ in hits]
        size = 1 << pages[0].owners.page_shift
        offsets = few(f"{owner.offset + p.physical % size:#x}" for p, owner in hits)
        reads = _processes(pages)
        signalled = _signalled(pages)
        injected = all(page.injected for page in pages)
        by = ", injected by software (log)" if injected else ""
        case.found(
            Severity.WARNING if injected else Severity.CRITICAL,
            name,
            f"poison at offset{'s' if len(hits) > 1 else ''} {offsets}{_on(pages)}{by}"
            + (_hit(reads, signalled) or ", mapped by no process"),
            evidence=[
                text
                for page in pages
                for text in (_evidence(page), *(f"log: {line.text}" for line in page.lines))
            ],
            more=f"pmem-rmap pfn:{pages[0].pfn:#x}",
            do=None if injected else _restore(name, [owner.offset for _, owner in hits], size),
            place=_FILES,
            brief=f"{name} at {offsets}{_on(pages, ',')}{', injected (log)' if injected else ''}"
            + _hit(reads, signalled),
        )


def _hit(reads: str, signalled: str) -> str:
    """Who maps the bad page and who was killed by it, for the first screen."""
    if not reads or reads == signalled:
        return f", SIGBUS to {signalled}" if signalled else ""
    return f", mapped by {reads}" + (f", SIGBUS to {signalled}" if signalled else "")


def _restore(name: str, offsets: Sequence[int], size: int) -> str:
    where = few(f"{offset:#x}" for offset in offsets)
    each = " each" if len(offsets) > 1 else ""
    return (
        f"restore {name} at {where} ({size} bytes{each}) from a backup: a write clears the poison"
    )


@rule("poison-in-struct-pages", Heading.POISON, "poison in struct pages", "pmem-poison -v")
def poison_in_struct_pages(case: Case) -> None:
    """The kernel loses what it knows of pages, and crashes when it reads them."""
    for page in case.take(case.facts.poison).pages:
        if page.place is not Place.STRUCT_PAGES or page.describes is None:
            continue
        dev = "pmem" if page.namespace is None else page.namespace.dev
        first, count = page.describes
        case.found(
            Severity.CRITICAL,
            f"struct pages of {dev}",
            f"poison at physical {page.physical:#x}{_on([page])}, in the struct pages of PFN"
            f" {first:#x} to {first + count - 1:#x}",
            evidence=[_evidence(page), *(f"log: {line.text}" for line in page.lines)],
            do=f"unmount and disable {dev}, then clear it (ndctl disable-namespace {dev}; ndctl "
            f"clear-errors {dev}): reading these struct pages is a machine check",
            place=_STRUCT_PAGES,
            brief=f"{dev}{_on([page])}, PFN {first:#x} to {first + count - 1:#x}",
        )


@rule("poison-in-metadata", Heading.POISON, "poison in metadata of namespaces", "pmem-poison -v")
def poison_in_metadata(case: Case) -> None:
    """Info block and the rest of a namespace before its data."""
    for page in case.take(case.facts.poison).pages:
        if page.place not in (Place.INFO_BLOCK, Place.METADATA):
            continue
        dev = "pmem" if page.namespace is None else page.namespace.dev
        what = "its info block" if page.place is Place.INFO_BLOCK else "its metadata"
        case.found(
            Severity.CRITICAL,
            dev,
            f"poison at physical {page.physical:#x}{_on([page])}, in {what}",
            evidence=[_evidence(page), *page.arithmetic],
            do=f"save the data of {dev} before it is disabled: it may not be enabled again",
            place=_METADATA,
            brief=f"{dev}{_on([page])}, {what}",
        )


@rule("poison-in-data", Heading.POISON, "poison that no file in memory has", "pmem-poison -v")
def poison_in_data(case: Case) -> None:
    """Bad pages whose file is not known: no DAX file in memory has them, or there are none."""
    for page in case.take(case.facts.poison).pages:
        if page.owners.owners or page.place in (
            Place.STRUCT_PAGES,
            Place.INFO_BLOCK,
            Place.METADATA,
        ):
            continue
        dev = "pmem outside of namespaces" if page.namespace is None else page.namespace.dev
        where = f"physical {page.physical:#x}"
        if page.data_offset is not None:
            where = f"offset {page.data_offset:#x} of its data"
        elif page.namespace_offset is not None:
            where = f"offset {page.namespace_offset:#x}"
        unknown = page.place is Place.DATA and page.owners.unowned is None
        if unknown:
            owner = "its file is unknown"
        elif page.place is Place.DATA:
            owner = "no file that is open or mapped has it"
        else:
            owner = page.place.value
        case.found(
            Severity.CRITICAL if unknown else Severity.WARNING,
            dev,
            f"poison at {where}{_on([page])} ({owner})",
            evidence=[_evidence(page), *page.arithmetic, *page.owners.notes],
            more=f"pmem-rmap pfn:{page.pfn:#x}",
            do="find the file by the sector on the machine: pmem-poison shows it",
            place=_DATA,
            brief=f"{dev} {where}{_on([page])}, {owner}",
        )


@rule("machine-check-not-handled", Heading.POISON, "memory errors not handled", "pmem-poison -v")
def machine_check_not_handled(case: Case) -> None:
    """Errors that the log reports and the kernel did not recover from."""
    for page in case.take(case.facts.poison).pages:
        events = {line.event for line in page.lines}
        settled = {FailureEvent.HANDLED, FailureEvent.CLEARED} & events
        failed = FailureEvent.NOT_HANDLED in events
        if not failed and (settled or FailureEvent.REPORTED not in events):
            continue
        dev = "pmem" if page.namespace is None else page.namespace.dev
        case.found(
            Severity.CRITICAL,
            f"PFN {page.pfn:#x}",
            f"the kernel reported this memory error of {dev} and "
            + ("failed to handle it" if failed else "logged no recovery"),
            evidence=[f"log: {line.text}" for line in page.lines],
            place="not handled",
            brief=f"PFN {page.pfn:#x}",
        )


def pages_by_place(pages: Sequence[PoisonedPage]) -> dict[str, int]:
    """How many bad pages are in files, in struct pages, in metadata, in data."""
    counts: dict[str, int] = {}
    for page in pages:
        counts[_place(page)] = counts.get(_place(page), 0) + 1
    return counts


def _place(page: PoisonedPage) -> str:
    if page.owners.owners:
        return _FILES
    if page.place is Place.STRUCT_PAGES:
        return _STRUCT_PAGES
    if page.place in (Place.INFO_BLOCK, Place.METADATA):
        return _METADATA
    return _DATA
