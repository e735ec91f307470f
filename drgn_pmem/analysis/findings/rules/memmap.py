# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules about the struct pages of persistent memory: are they there, are they the crashed
kernel's, do the sources agree?"""

from collections.abc import Callable
from typing import TypeVar

from drgn_pmem.analysis.coverage.records import NamespaceCoverage
from drgn_pmem.analysis.findings.case import Case, rule
from drgn_pmem.analysis.findings.model import Heading, Severity
from drgn_pmem.analysis.findings.words import few
from drgn_pmem.kernel.devm_memmap import for_each_memmap_entry
from drgn_pmem.partial import Cause, Partial, Problem, Problems, State

__all__ = ()

T = TypeVar("T")

_WITHOUT = "look for files and their pages with pmem-files, which needs no struct pages"

_STATES = {
    State.EXCLUDED: "left out of the dump or zero",
    State.ABSENT: "not in the dump",
    State.TRUNCATED: "cut off with the end of the file",
    State.DAMAGED: "on damaged pages of the dump",
    State.UNMAPPED: "not mapped by the kernel",
    State.UNKNOWN: "at a place that is not known",
}


def _take(case: Case, ask: Callable[[], Partial[T]]) -> T:
    """An answer about namespaces; what it lacks of those without struct pages does not matter."""
    answer = ask()
    without = {
        namespace.dev
        for namespace in case.take(case.facts.inventory).namespaces
        if namespace.mode in ("sector", "raw") and namespace.map is None and not namespace.pgmap
    }
    for problem in answer.problems:
        if problem.subject not in without:
            case.problems.add(problem)
    # not a problem: they were noted above, but for those that do not matter
    return Problems().take(answer)


def _with_memmap(case: Case) -> list[NamespaceCoverage]:
    """Namespaces that have struct pages."""
    return [item for item in _take(case, case.facts.coverage).namespaces if item.has_memmap]


def _called(item: NamespaceCoverage) -> str:
    """What a finding is about."""
    return item.namespace or f"namespace at {item.start:#x}"


def _was_used(case: Case, item: NamespaceCoverage) -> bool:
    """Whether the kernel had struct pages of a namespace for certain: by its info block alone it
    may have been disabled, or used as RAM that is not online, and nothing maps them then."""
    namespaces = case.take(case.facts.inventory).namespaces
    return not item.is_persistent or any(n.dev == item.namespace and n.enabled for n in namespaces)


@rule("memmap-overwritten", Heading.TRUST, "struct pages written after the crash", "pmem-coverage")
def memmap_overwritten(case: Case) -> None:
    """Struct pages that the capture kernel initialised again before they were saved."""
    for item in _with_memmap(case):
        if item.destroyed and item.check is not None:
            case.found(
                Severity.CRITICAL,
                _called(item),
                "struct pages overwritten by the capture kernel before they were saved",
                evidence=[item.check.evidence],
                more=f"pmem-coverage {item.namespace or ''}".rstrip(),
                do=f"{_WITHOUT}; next time keep nd_pmem and nfit out of the capture kernel"
                " (pmem-coverage)",
                place="overwritten",
            )


@rule("memmap-not-saved", Heading.TRUST, "struct pages that were not saved", "pmem-coverage")
def memmap_not_saved(case: Case) -> None:
    """Struct pages of which the dump lacks bytes, and in which way."""
    for item in _with_memmap(case):
        states = item.struct_pages.items()
        lost = {state: size for state, size in states if state in _STATES and size}
        if State.UNMAPPED in lost and not _was_used(case, item):
            del lost[State.UNMAPPED]
        if not lost:
            continue
        total = item.memmap_size
        parts = [f"{_share(size, total)} {_STATES[state]}".strip() for state, size in lost.items()]
        whole = sum(lost.values()) == total
        case.found(
            Severity.CRITICAL if whole else Severity.WARNING,
            _called(item),
            f"struct pages {few(parts)}" if whole else f"struct pages in part: {few(parts)}",
            evidence=[item.verdict],
            more=f"pmem-coverage {item.namespace or ''}".rstrip(),
            do=f"{_WITHOUT}; to save the struct pages next time: pmem-coverage shows what to"
            " change",
        )


def _share(size: int, total: int) -> str:
    if size == total:
        return ""
    share = size * 100 / total
    return f"{share:.0f}%" if 1 <= share <= 99 else "<1%" if share < 1 else ">99%"


@rule("memmap-sources-disagree", Heading.TRUST, "sources that disagree", "pmem-memmap")
def memmap_sources_disagree(case: Case) -> None:
    """List, altmap, info block in RAM and on the media, iomem: where a namespace's struct pages
    are."""
    for memmap in _take(case, case.facts.memmaps).memmaps:
        if memmap.agree is False:
            case.found(
                Severity.CRITICAL,
                memmap.namespace.dev,
                memmap.notes[0] if memmap.notes else "the sources disagree",
                evidence=memmap.notes,
                more=f"pmem-memmap {memmap.namespace.dev}",
                place=memmap.namespace.dev,
            )


@rule("owner-sources-disagree", Heading.TRUST, "bad or held pages of two owners", "pmem-poison -v")
def owner_sources_disagree(case: Case) -> None:
    """Bad and held pages whose struct page names another owner than the DAX entries (``i_pages``)
    or the range of the DAX device do."""
    pages = [page.owners for page in case.take(case.facts.poison).pages]
    pages += [page.owners for page in case.take(case.facts.pins).pages]
    for owners in {page.pfn: page for page in pages}.values():
        for sentence in owners.disagreements:
            case.found(
                Severity.WARNING,
                f"PFN {owners.pfn:#x} of {owners.namespace or 'pmem'}",
                sentence,
                evidence=owners.notes,
                more=f"pmem-rmap pfn:{owners.pfn:#x}",
                do="compare the page with the data of each before a file is restored",
                place="owners",
            )


@rule("memmap-list", Heading.ODD, "entries of devm_memmap_vmcore", "pmem-memmap")
def memmap_list(case: Case) -> None:
    """Stale, duplicate, overlapping entries; a list that is cyclic or leads astray."""
    for problem in for_each_memmap_entry(case.prog).problems:
        if problem.cause is Cause.DAMAGED:
            case.found(Severity.CRITICAL, "devm_memmap_vmcore", str(problem), place="damaged")
    for entry in _take(case, case.facts.memmaps).strays:
        if entry.state == "unknown":
            why = entry.reason or "which namespace it is of is not known"
            what = f"devm_memmap_vmcore entry PFN {entry.start_pfn:#x}"
            case.problems.add(Problem(cause=Cause.NOT_SAVED, why=why), what)
            continue
        case.found(
            Severity.WARNING,
            f"devm_memmap_vmcore entry PFN {entry.start_pfn:#x}-{entry.end_pfn:#x}",
            f"{entry.state}: {entry.reason}" if entry.reason else entry.state,
            evidence=[f"struct devm_memmap_vmcore at {entry.address:#x}"],
            do="let no dump tool go by the devm_memmap_vmcore entry of PFN"
            f" {entry.start_pfn:#x}: it would save or drop the wrong pages",
            place=entry.state,
        )
