# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Differences between crash headers, explained
--------------------------------------------

Why two headers of one crash differ: memory or CPUs added after the crash kernel was loaded,
persistent memory that the loader does not add, a reservation that was cut out wrongly. A cause is
named only if its evidence could be read; otherwise it is :attr:`DifferenceCause.NOT_KNOWN`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
import enum
from typing import Any

from drgn import Program

from drgn_pmem.analysis.headers.hotplug import CrashHotplug
from drgn_pmem.analysis.headers.memory import CrashMemory
from drgn_pmem.analysis.inventory.machine import read_machine
from drgn_pmem.formats.elfcompare import DifferenceKind, HeaderDifference, compare_elfcorehdr
from drgn_pmem.formats.elfcorehdr import CrashHeader, HeaderSource, Role
from drgn_pmem.kernel.crash_core import CrashNote
from drgn_pmem.kernel.debuginfo import find_variable
from drgn_pmem.kernel.iomem import (
    IORESOURCE_SYSTEM_RAM,
    Resource,
    for_each_iomem,
    iomem_at,
)
from drgn_pmem.kernel.kexec import NamedRange
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.ranges import RangeSet
from drgn_pmem.record import Record

__all__ = ("ADDED_AFTER_LOAD", "DifferenceCause", "ExplainedDifference", "explain")


class DifferenceCause(enum.Enum):
    """Why two headers differ, in a word or two."""

    ADDED = "added after load"
    REMOVED = "removed after load"
    OLDER_THAN_HOTPLUG = "older than hotplug"
    KERNEL_TEXT = "kernel text"
    MOVED = "moved"
    SAME_MEMORY = "same memory"
    EXCLUSION_FAILED = "exclusion failed"
    PMEM_MISSING = "pmem not in header"
    PMEM_THERE = "pmem in header"
    NOT_ADDED = "not added"
    PMEM_UNMARKED = "pmem not marked"
    PMEM_MARKED = "pmem marked"
    UNEXPLAINED = "unexplained"
    """Everything was read, and nothing explains the difference."""
    NOT_KNOWN = "not known"
    """What would explain it could not be read."""


ADDED_AFTER_LOAD = frozenset((DifferenceCause.ADDED, DifferenceCause.OLDER_THAN_HOTPLUG))
"""Causes of memory that the header lacks because it was added later."""

_Explanation = tuple[DifferenceCause, str]


class ExplainedDifference(Record):
    """A difference between two of the headers, and its cause."""

    between: tuple[HeaderSource, HeaderSource]
    difference: HeaderDifference
    cause: DifferenceCause
    explanation: str

    def to_json(self) -> dict[str, Any]:
        return {
            "between": [source.value for source in self.between],
            **self.difference.to_json(),
            "cause": self.cause.value,
            "explanation": self.explanation,
        }


class _Situation(Record):
    resources: Sequence[Resource]
    iomem_complete: bool
    pmem: RangeSet
    """Persistent memory by every source: iomem does not mark that of virtio-pmem and papr."""
    pmem_complete: bool
    reservations: Sequence[NamedRange]
    reservations_complete: bool
    memory: CrashMemory | None
    hotplug: CrashHotplug | None
    uncertain_notes: frozenset[int]
    """Addresses of the notes of CPUs that the loader may or may not have counted."""


def explain(
    prog: Program,
    *,
    found: CrashHeader | None,
    rebuilt: CrashHeader | None,
    implied: CrashHeader | None,
    memory: CrashMemory | None,
    reservations: Partial[list[NamedRange]],
    hotplug: CrashHotplug | None,
    uncertain_cpus: Sequence[CrashNote] = (),
) -> Partial[list[ExplainedDifference]]:
    """
    All differences, each with its cause.

    :param implied: None if the dump was not made from an elfcorehdr.
    :param hotplug: None if its state is not known.
    :param uncertain_cpus: CPUs of which it is not known whether the loader counts them.
    """
    problems = Problems()
    pairs = [
        (left, right)
        for left, right in ((found, rebuilt), (implied, rebuilt), (implied, found))
        if left is not None and right is not None
    ]
    if not pairs:
        return problems.partial([])
    iomem = for_each_iomem(prog)
    resources = problems.take(iomem, "memory map")
    machine = read_machine(prog)
    reserved = problems.take(reservations)
    situation = _Situation(
        resources=resources,
        iomem_complete=iomem.complete,
        # not a problem: evidence for a cause only, and what it lacks makes a cause unknown
        pmem=Problems().take(machine).pmem,
        pmem_complete=machine.complete,
        reservations=reserved,
        reservations_complete=reservations.complete,
        memory=memory,
        hotplug=hotplug,
        uncertain_notes=frozenset(note.physical for note in uncertain_cpus),
    )
    result: list[ExplainedDifference] = []
    page = _page_size(prog, problems, pairs)
    for left, right in pairs:
        if left.of_bitmap and page is None:
            continue
        for difference in _compare(left, right, page or 1):
            cause, explanation = _explain(difference, left, right, situation)
            result.append(
                ExplainedDifference(
                    between=(left.source, right.source),
                    difference=difference,
                    cause=cause,
                    explanation=explanation,
                )
            )
    return problems.partial(result)


def _page_size(
    prog: Program, problems: Problems, pairs: Sequence[tuple[CrashHeader, CrashHeader]]
) -> int | None:
    """bytes; None if no page bitmap is compared, or it cannot be read"""
    if not any(left.of_bitmap for left, _ in pairs):
        return None
    return problems.attempt(
        "the page bitmap is not compared",
        lambda: int(find_variable(prog, "PAGE_SIZE", "vmlinux")),
    )


def _compare(left: CrashHeader, right: CrashHeader, page: int) -> Iterator[HeaderDifference]:
    if not left.of_bitmap:
        # makedumpfile cuts program headers where it leaves pages out, and joining the pieces again
        # joins what was two from the start
        joined = left.source is HeaderSource.IMPLIED and len(left.loads) < len(right.loads)
        for difference in compare_elfcorehdr(left, right):
            if not (joined and difference.kind is DifferenceKind.SPLIT):
                yield difference
        return
    # Pages that memory fills in part only may be in a bitmap, or not: neither is a difference.
    for inward in (True, False):
        for difference in compare_elfcorehdr(left, _in_pages(right, page, inward)):
            if (
                difference.kind is DifferenceKind.MEMORY
                and (difference.only_in is right.source) == inward
            ):
                yield difference


def _in_pages(header: CrashHeader, page: int, inward: bool) -> CrashHeader:
    """Memory rounded to the pages that it fills (inward) or touches."""
    phdrs = []
    for phdr in header.loads:
        start, end = phdr.physical, phdr.end
        if inward:
            start, end = -(-start // page) * page, end // page * page
        else:
            start, end = start // page * page, -(-end // page) * page
        if start < end and phdr.role is not Role.KERNEL_TEXT:
            size = end - start
            phdrs.append(replace(phdr, physical=start, memory_size=size, file_size=size))
    return replace(header, phdrs=tuple(phdrs))


def _explain(
    difference: HeaderDifference, left: CrashHeader, right: CrashHeader, situation: _Situation
) -> _Explanation:
    kind = difference.kind
    newer = difference.only_in is HeaderSource.REBUILT
    about_memory = kind in (DifferenceKind.MEMORY, DifferenceKind.PMEM)
    if about_memory and HeaderSource.REBUILT not in (left.source, right.source):
        return (
            DifferenceCause.UNEXPLAINED,
            "the dump was made from a header other than the one in memory",
        )
    if kind is DifferenceKind.MEMORY:
        implied = left.source is HeaderSource.IMPLIED
        where = "the dump" if implied else "what the crash kernel would save"
        if newer:
            return _explain_missing(difference, where, situation)
        return _explain_surplus(difference, situation)
    if kind is DifferenceKind.PMEM:
        return _explain_pmem(newer)
    if kind is DifferenceKind.CPU_NOTES:
        return _explain_cpu(difference, newer, situation)
    if kind is DifferenceKind.KERNEL_TEXT:
        return (
            DifferenceCause.KERNEL_TEXT,
            "the kernel image is mapped differently: the loader computed its range in another way",
        )
    if kind is DifferenceKind.OFFSET:
        return (
            DifferenceCause.MOVED,
            "its bytes are read from another address: a backup region that the purgatory fills",
        )
    if kind in (DifferenceKind.SPLIT, DifferenceKind.ORDER):
        return (
            DifferenceCause.SAME_MEMORY,
            "the same memory, cut or ordered differently; neither lacks anything",
        )
    return (
        DifferenceCause.UNEXPLAINED,
        "the headers disagree; one of them is damaged, or of another kernel",
    )


def _explain_cpu(difference: HeaderDifference, newer: bool, situation: _Situation) -> _Explanation:
    if difference.start in situation.uncertain_notes:
        return (
            DifferenceCause.NOT_KNOWN,
            "notes of a possible CPU that was not present: kernels since 6.6 write them, "
            "older ones only if the CPU was present when the crash kernel was loaded; which of the "
            "two applies to this kernel cannot be determined",
        )
    if newer:
        return DifferenceCause.ADDED, "a CPU added after the crash kernel was loaded"
    return DifferenceCause.REMOVED, "a CPU removed after the crash kernel was loaded"


_NO_MAP = "cause unknown: the kernel's memory map could not be read in full"


def _at(difference: HeaderDifference, situation: _Situation) -> tuple[bool, bool]:
    """Whether the memory map has persistent memory there, and RAM."""
    start, end = difference.start or 0, difference.end or 0
    there = iomem_at(list(situation.resources), start, end)
    return (
        bool(situation.pmem.overlap(start, end)),
        any(r.flags & IORESOURCE_SYSTEM_RAM == IORESOURCE_SYSTEM_RAM for r in there),
    )


def _explain_missing(
    difference: HeaderDifference, where: str, situation: _Situation
) -> _Explanation:
    """
    Memory that the rebuilt header has.

    :param where: What lacks the memory if the header lacks it.
    """
    pmem, ram = _at(difference, situation)
    if pmem:
        return (
            DifferenceCause.PMEM_MISSING,
            "persistent memory that this kernel would add, but the loader did not: its struct "
            f"pages and data are not in {where}",
        )
    if ram:
        return _explain_added(where, situation.hotplug)
    if not situation.iomem_complete:
        return DifferenceCause.NOT_KNOWN, _NO_MAP
    return DifferenceCause.UNEXPLAINED, "the kernel's memory map has it, the header does not"


def _explain_surplus(difference: HeaderDifference, situation: _Situation) -> _Explanation:
    """Memory that the rebuilt header does not have."""
    start, end = difference.start or 0, difference.end or 0
    for item in situation.reservations:
        if item.start < end and start < item.end:
            return (
                DifferenceCause.EXCLUSION_FAILED,
                f"{item.name} is reserved for the crash kernel and should have been excluded: "
                "its contents are the capture kernel",
            )
    for item in situation.memory.cut_wrongly if situation.memory is not None else ():
        if item.start < end and start < item.end:
            return (
                DifferenceCause.EXCLUSION_FAILED,
                f"{item.name} spans two ranges, and the kernel excluded only the first part",
            )
    if not situation.reservations_complete:
        return (
            DifferenceCause.NOT_KNOWN,
            "cause unknown: the reservations of the crash kernel could not be read in full",
        )
    pmem, ram = _at(difference, situation)
    if pmem:
        return (
            DifferenceCause.PMEM_THERE,
            "persistent memory that only the loader put into the header",
        )
    if ram:
        return (
            DifferenceCause.NOT_ADDED,
            "RAM that is in the header but not in the rebuilt one",
        )
    if not situation.iomem_complete:
        return DifferenceCause.NOT_KNOWN, _NO_MAP
    if not situation.pmem_complete:
        return DifferenceCause.NOT_KNOWN, "cause unknown: it may be persistent memory"
    return (
        DifferenceCause.REMOVED,
        "no longer RAM: it was removed after the crash kernel was loaded",
    )


def _explain_added(where: str, hotplug: CrashHotplug | None) -> _Explanation:
    added = f"RAM that was added after the crash kernel was loaded, so it is not in {where}"
    if hotplug is None:
        return DifferenceCause.ADDED, added
    if not hotplug.permitted:
        return DifferenceCause.ADDED, f"{added}; {hotplug.words}"
    # crash_handle_hotplug_event() gives up while kexec is busy, and the architecture's handler when
    # the new header is larger than the segment.
    return (
        DifferenceCause.OLDER_THAN_HOTPLUG,
        f"{added}; the header is older than the last hotplug event: the kernel may update it, but "
        "dropped the update (kexec was busy, or the header outgrew its segment)",
    )


def _explain_pmem(newer: bool) -> _Explanation:
    if newer:
        return (
            DifferenceCause.PMEM_UNMARKED,
            "persistent memory without PF_DEV: dump tools treat it as RAM, and drop its memmap or "
            "keep its data",
        )
    return (
        DifferenceCause.PMEM_MARKED,
        "the loader marked persistent memory that this kernel would not mark",
    )
