# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules about poison: what the bad pages of :mod:`..poison` hit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import re

from drgn import Program

from drgn_pmem.analysis.findings.badpages import Place, PoisonedPage
from drgn_pmem.analysis.findings.case import Case, rule
from drgn_pmem.analysis.findings.model import Heading, Severity
from drgn_pmem.analysis.findings.words import few
from drgn_pmem.analysis.owners.records import Owner
from drgn_pmem.kernel.debuginfo import has_member, has_type
from drgn_pmem.kernel.failurelog import FailureEvent
from drgn_pmem.partial import Problems

__all__ = ("how_to_clear", "pages_by_place")

_SIGNALLED = re.compile(r"(?:Sending SIGBUS to|Killing) (?P<comm>.*):(?P<pid>[0-9]+) ")
"""``kill_proc()`` of mm/memory-failure.c"""

_FILES, _STRUCT_PAGES, _METADATA, _DATA = "in files", "in struct pages", "in metadata", "in data"


def _processes(pages: Iterable[PoisonedPage]) -> str:
    return few(f"{pid}/{comm}" for page in pages for pid, comm, _ in page.processes)


def _on(pages: Iterable[PoisonedPage], comma: str = "") -> str:
    """``" on nmem5"``: which DIMM is bad, or which interleaved ones may be; of poison that only
    software knows, none is."""
    bad = [page for page in pages if not page.injected and not page.by_hand]
    sets = dict.fromkeys(" or ".join(page.dimms) for page in bad if page.dimms)
    return f"{comma} on {few(sets)}" if sets else ""


def _evidence(page: PoisonedPage) -> str:
    return f"PFN {page.pfn:#x} (physical {page.physical:#x}) by {', '.join(page.sources)}"


def _disk(page: PoisonedPage) -> str:
    return page.namespace.blockdev or "the disk" if page.namespace else "the disk"


def _by_software(pages: Sequence[PoisonedPage], short: bool = False) -> str:
    """Why the media of all pages may be intact: only software says that they are bad; empty if it
    is not only software."""
    if all(page.injected for page in pages):
        return ", injected (log)" if short else ", injected by software (log)"
    if all(page.by_hand for page in pages):
        only = f", only in {_disk(pages[0])}/badblocks"
        return only if short else f"{only}, written there by hand or cleared since"
    return ""


def _by_list(pages: Sequence[PoisonedPage]) -> str:
    """That only the last answers of CXL devices have all of the pages; empty if it is not only
    they."""
    if not pages or not all(page.listed_only for page in pages):
        return ""
    lists = few(source for page in pages for source in page.sources)
    return f", by the last {lists}, which may be out of date"


def _unhandled(page: PoisonedPage) -> str:
    """How the kernel failed to handle the error, by its log; empty if it did not."""
    events = {line.event for line in page.lines}
    if FailureEvent.NOT_HANDLED in events:
        return "failed to handle it"
    settled = {FailureEvent.HANDLED, FailureEvent.CLEARED} & events
    return "" if settled or FailureEvent.REPORTED not in events else "logged no recovery"


def _left(pages: Iterable[PoisonedPage]) -> str:
    """For the first screen."""
    return ", not handled by the kernel" if any(map(_unhandled, pages)) else ""


@dataclass(frozen=True)
class _Signalled:
    """The processes that the kernel sent SIGBUS, by its log."""

    names: str
    """``"399/lab-victim, 412/lab-poison"``"""
    text: str
    """The same, and whether they are still there."""


def _signalled(case: Case, pages: Iterable[PoisonedPage]) -> _Signalled:
    victims = {
        (int(match["pid"]), match["comm"]): f"{match['pid']}/{match['comm']}"
        for page in pages
        for line in page.lines
        if line.event is FailureEvent.SIGNALLED and (match := _SIGNALLED.search(line.text))
    }
    if not victims:
        return _Signalled("", "")
    tasks = case.facts.tasks()
    # not a problem: of who is not found, nothing is said where the list is not complete
    running = {(task.pid, task.comm) for task in Problems().take(tasks) if task.mm}
    left = [name for victim, name in victims.items() if victim in running]
    others = [name for victim, name in victims.items() if victim not in running]
    parts = [f"{few(left)} (still running)"] if left else []
    parts += [few(others) + (" (ended)" if tasks.complete else "")] if others else []
    return _Signalled(few(victims.values()), ", ".join(parts))


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
        signalled = _signalled(case, pages)
        by = _by_software(pages) or _by_list(pages)
        case.found(
            Severity.WARNING if by else Severity.CRITICAL,
            name,
            f"poison at offset{'s' if len(hits) > 1 else ''} {offsets}{_on(pages)}{by}"
            + (_hit(reads, signalled) or ", mapped by no process"),
            evidence=[
                text
                for page in pages
                for text in (_evidence(page), *(f"log: {line.text}" for line in page.lines))
            ],
            more=f"pmem-rmap pfn:{pages[0].pfn:#x}",
            do=_what_to_do(case, name, pages, [owner.offset for _, owner in hits], size),
            place=_FILES,
            brief=f"{name} at {offsets}{_on(pages, ',')}{_by_software(pages, short=True)}"
            + _hit(reads, signalled)
            + _left(pages),
        )


def _hit(reads: str, signalled: _Signalled) -> str:
    """Who maps the bad page and who was killed by it."""
    if not reads or reads == signalled.names:
        return f", SIGBUS to {signalled.text}" if signalled.text else ""
    return f", mapped by {reads}" + (f", SIGBUS to {signalled.text}" if signalled.text else "")


def _what_to_do(
    case: Case, name: str, pages: Sequence[PoisonedPage], offsets: Sequence[int], size: int
) -> str:
    if all(page.injected for page in pages):
        return (
            "nothing to restore where poison was injected (log): the media is intact, and a reboot"
            " forgets it"
        )
    if all(page.by_hand for page in pages):
        namespace = pages[0].namespace
        return (
            f"find who wrote to /sys/block/{_disk(pages[0])}/badblocks: no media error is known"
            f" there, and reads of {name} fail until"
            f" {namespace.dev if namespace else 'the namespace'} is disabled and enabled"
        )
    where = few(f"{offset:#x}" for offset in offsets)
    each = " each" if len(offsets) > 1 else ""
    return (
        f"restore {name} at {where} ({size} bytes{each}) from a backup: {how_to_clear(case.prog)}"
    )


def how_to_clear(prog: Program) -> str:
    """What clears the poison of a file's pages."""
    known = has_type(prog, "struct dax_operations")
    operations = prog.type("struct dax_operations") if known else None
    # Since Linux kernel commit 047218ec904d ("dax: add .recovery_write dax_operation") (in v5.19).
    if operations and operations.is_complete() and not has_member(operations, "recovery_write"):
        return "delete it or punch a hole there first: on this kernel write(2) to it fails"
    return "write(2) of whole pages clears the poison, a store through a mapping does not"


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
            brief=f"{dev}{_on([page])}, PFN {first:#x} to {first + count - 1:#x}{_left([page])}",
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
            do="find the file on the machine by the sector that pmem-poison shows, or among those"
            " that pmem-files lists",
            place=_DATA,
            brief=f"{dev} {where}{_on([page])}, {owner}",
        )


@rule("machine-check-not-handled", Heading.POISON, "memory errors not handled", "pmem-poison -v")
def machine_check_not_handled(case: Case) -> None:
    """Errors that the log reports and the kernel did not recover from. What they hit is a finding
    of the rules above: this one says no more than that."""
    for page in case.take(case.facts.poison).pages:
        how = _unhandled(page)
        if not how:
            continue
        dev = "pmem" if page.namespace is None else page.namespace.dev
        names = [owner.name for owner in page.owners.owners if owner.name]
        where = names[0] if names else f"{page.place.value} of {dev}"
        case.found(
            Severity.WARNING,
            f"PFN {page.pfn:#x}",
            f"the kernel reported this memory error ({where}, see above) and {how}",
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
