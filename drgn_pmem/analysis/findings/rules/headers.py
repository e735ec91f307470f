# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules about the crash header that made the dump, or would make the next one, and about firmware-
assisted dump."""

from drgn_pmem.analysis.fadump.examine import read_fadump
from drgn_pmem.analysis.findings.case import Case, rule
from drgn_pmem.analysis.findings.model import Heading, Severity
from drgn_pmem.analysis.findings.words import few, short_size
from drgn_pmem.analysis.headers.differences import (
    ADDED_AFTER_LOAD,
    DifferenceCause,
    ExplainedDifference,
)
from drgn_pmem.formats.elfcorehdr import HeaderSource
from drgn_pmem.kernel.fadump import fw_dump

__all__ = ()

_PMEM = frozenset((DifferenceCause.PMEM_MISSING, DifferenceCause.PMEM_UNMARKED))
_MOVE = (
    "boot with another crashkernel= size, which moves the reserve area, until fadump names no"
    " run-time services in it"
)
_WRONG = frozenset((DifferenceCause.EXCLUSION_FAILED, DifferenceCause.UNEXPLAINED))


def _differences(case: Case, causes: frozenset[DifferenceCause]) -> list[ExplainedDifference]:
    """Differences of some causes; of two that are about the same memory, the first."""
    found: dict[tuple[int | None, int | None], ExplainedDifference] = {}
    for item in case.take(case.facts.headers).differences:
        if item.cause in causes:
            found.setdefault((item.difference.start, item.difference.end), item)
    return list(found.values())


def _where(items: list[ExplainedDifference]) -> str:
    return few(f"{item.difference.start or 0:#x}-{item.difference.end or 0:#x}" for item in items)


def _size(items: list[ExplainedDifference]) -> int:
    return sum((item.difference.end or 0) - (item.difference.start or 0) for item in items)


@rule("header-outdated", Heading.LACKS, "memory added after the crash kernel", "elfcorehdr")
def header_outdated(case: Case) -> None:
    """The crash header is older than the last hotplug: RAM or CPUs are not in it."""
    items = _differences(case, ADDED_AFTER_LOAD)
    if not items:
        return
    memory = [item for item in items if item.difference.end]
    what = f"{short_size(_size(memory))} ({_where(memory)}) of RAM" if memory else "CPUs"
    saved = any(HeaderSource.IMPLIED in item.between for item in items)
    case.found(
        Severity.CRITICAL,
        "elfcorehdr",
        f"{what} added after the crash kernel was loaded "
        + ("are not in the dump" if saved else "would not be in a dump")
        + ": the header is older than that hotplug",
        evidence=[item.explanation for item in items],
        do="load the crash kernel again after memory or CPUs were added",
        place="hotplug",
    )


@rule("header-without-pmem", Heading.LACKS, "pmem that the crash header lacks", "elfcorehdr")
def header_without_pmem(case: Case) -> None:
    """Persistent memory that this kernel puts into a crash header, and the loader did not."""
    items = _differences(case, _PMEM)
    if items:
        case.found(
            Severity.WARNING,
            "elfcorehdr",
            f"it lacks {short_size(_size(items))} of persistent memory ({_where(items)}):"
            f" {items[0].explanation}",
            evidence=[item.explanation for item in items],
            place="pmem",
        )


@rule("header-wrong", Heading.TRUST, "a crash header that is wrong", "elfcorehdr")
def header_wrong(case: Case) -> None:
    """Differences between the crash headers that no event explains."""
    items = _differences(case, _WRONG)
    if items:
        case.found(
            Severity.CRITICAL,
            "elfcorehdr",
            f"{items[0].difference.words}: {items[0].explanation}",
            evidence=[f"{item.difference.words}: {item.explanation}" for item in items],
            place="header",
        )


@rule("fadump-not-registered", Heading.LACKS, "firmware-assisted dump", "fadump")
def fadump_not_registered(case: Case) -> None:
    """Firmware-assisted dump that was asked for and is not registered."""
    conf = fw_dump(case.prog)
    if conf.enabled and not conf.registered and not conf.active:
        case.found(
            Severity.CRITICAL,
            "firmware-assisted dump",
            f"{conf.state}: a crash would not be saved by the firmware",
            do="register it: echo 1 > /sys/kernel/fadump/registered",
            place="fadump",
        )


@rule("fadump-refused", Heading.TRUST, "the header of firmware-assisted dump", "fadump")
def fadump_refused(case: Case) -> None:
    """A crash info header that the capture kernel refuses, or that contradicts the kernel's
    state."""
    found = case.take(lambda: read_fadump(case.prog))
    if not found.verdict.compatible:
        case.found(
            Severity.CRITICAL,
            "firmware-assisted dump",
            f"the capture kernel refuses its header: {found.verdict.words}",
            place="fadump",
        )
    for wrong in found.wrong:
        of_rtas = found.overlap is not None and wrong == found.overlap.words
        case.found(
            Severity.WARNING,
            "firmware-assisted dump",
            wrong,
            do=_MOVE if of_rtas else None,
            place="fadump",
        )
