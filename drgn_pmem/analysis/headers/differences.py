# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Differences between crash headers, explained
--------------------------------------------

What two headers of one crash do not have in common is a fact; why, is told here: memory or CPUs
that came after the crash kernel was loaded, persistent memory that the loader does not know, a
reservation that was cut out wrongly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from drgn import Program

from drgn_pmem.analysis.headers.hotplug import CrashHotplug
from drgn_pmem.analysis.headers.memory import CrashMemory
from drgn_pmem.errors import PmemError
from drgn_pmem.formats.elfcompare import HeaderDifference, compare_elfcorehdr
from drgn_pmem.formats.elfcorehdr import CrashHeader
from drgn_pmem.kernel.iomem import Resource, for_each_iomem, iomem_at
from drgn_pmem.kernel.kexec import NamedRange

__all__ = ("ADDED_AFTER_LOAD", "ExplainedDifference", "explain")

ADDED_AFTER_LOAD = frozenset(("added after load", "older than hotplug"))
"""Causes of memory that the header lacks because it came later."""


@dataclass(frozen=True)
class ExplainedDifference:
    """A difference between two of the headers, and its cause."""

    between: tuple[str, str]
    difference: HeaderDifference
    cause: str
    """One word or two, for scripts: ``"added after load"``."""
    explanation: str

    def to_json(self) -> dict[str, Any]:
        return {
            "between": list(self.between),
            **self.difference.to_json(),
            "cause": self.cause,
            "explanation": self.explanation,
        }


@dataclass(frozen=True)
class _Situation:
    resources: Sequence[Resource]
    reservations: Sequence[NamedRange]
    memory: CrashMemory | None
    hotplug: CrashHotplug | None


def explain(
    prog: Program,
    *,
    found: CrashHeader | None,
    rebuilt: CrashHeader | None,
    implied: CrashHeader | None,
    memory: CrashMemory | None,
    reservations: Sequence[NamedRange],
    hotplug: CrashHotplug | None,
) -> list[ExplainedDifference]:
    """
    All differences, each with its cause.

    :param implied: None if the dump was not made from an elfcorehdr.
    """
    try:
        resources = list(for_each_iomem(prog))
    except PmemError:
        resources = []
    situation = _Situation(resources, reservations, memory, hotplug)
    page = int(prog["PAGE_SIZE"])
    result = []
    for left, right in ((found, rebuilt), (implied, rebuilt), (implied, found)):
        if left is None or right is None:
            continue
        for difference in _compare(left, right, page):
            cause, explanation = _explain(difference, left, right, situation)
            between = (left.source, right.source)
            result.append(ExplainedDifference(between, difference, cause, explanation))
    return result


def _compare(left: CrashHeader, right: CrashHeader, page: int) -> Iterator[HeaderDifference]:
    if not _is_bitmap(left):
        # makedumpfile cuts program headers where it leaves pages out, and joining the pieces again
        # joins what was two from the start
        joined = left.source == "implied" and len(left.loads) < len(right.loads)
        for difference in compare_elfcorehdr(left, right):
            if not (joined and difference.kind == "split"):
                yield difference
        return
    # Pages that memory fills in part only may be in a bitmap, or not: neither is a difference.
    for inward in (True, False):
        for difference in compare_elfcorehdr(left, _in_pages(right, page, inward)):
            if difference.kind == "memory" and (difference.only_in == right.source) == inward:
                yield difference


def _is_bitmap(header: CrashHeader) -> bool:
    """Whether a header stands for a page bitmap, which knows no notes, virtual addresses or
    flags."""
    return any(phdr.what == "pages" for phdr in header.loads)


def _in_pages(header: CrashHeader, page: int, inward: bool) -> CrashHeader:
    """Memory rounded to the pages that it fills (inward) or touches."""
    phdrs = []
    for phdr in header.loads:
        start, end = phdr.physical, phdr.end
        if inward:
            start, end = -(-start // page) * page, end // page * page
        else:
            start, end = start // page * page, -(-end // page) * page
        if start < end and phdr.what != "kernel text":
            size = end - start
            phdrs.append(replace(phdr, physical=start, memory_size=size, file_size=size))
    return replace(header, phdrs=tuple(phdrs))


def _explain(
    difference: HeaderDifference, left: CrashHeader, right: CrashHeader, situation: _Situation
) -> tuple[str, str]:
    kind = difference.kind
    newer = difference.only_in == "rebuilt"
    if kind == "memory":
        where = "the dump" if left.source == "implied" else "what the crash kernel would save"
        return _explain_memory(difference, newer, where, situation)
    if kind == "pmem":
        return _explain_pmem(difference, newer)
    if kind == "cpu notes":
        if newer:
            return "added after load", "a CPU that came after the crash kernel was loaded"
        return "removed after load", "a CPU that went away after the crash kernel was loaded"
    if kind == "kernel text":
        return (
            "kernel text",
            "the kernel image is mapped differently: the loader measured it another way",
        )
    if kind == "offset":
        return (
            "moved",
            "its bytes are read from another place: a backup region that the purgatory fills",
        )
    if kind in ("split", "order"):
        return (
            "same memory",
            "the same memory, cut or ordered differently; neither lacks anything",
        )
    return "unexplained", "the headers disagree; one of them is damaged, or of another kernel"


def _explain_memory(
    difference: HeaderDifference, newer: bool, where: str, situation: _Situation
) -> tuple[str, str]:
    """
    :param where: What lacks the memory if the header does.
    """
    start, end = difference.start or 0, difference.end or 0
    there = iomem_at(list(situation.resources), start, end)
    pmem = [r for r in there if r.desc == "IORES_DESC_PERSISTENT_MEMORY"]
    ram = [r for r in there if "System RAM" in (r.name or "")]
    if newer:
        if pmem:
            return (
                "pmem not in header",
                "persistent memory that this kernel would add, but the loader did not: its struct "
                f"pages and data are not in {where}",
            )
        if ram:
            return _explain_added(where, situation.hotplug)
        return "unexplained", "the kernel's memory map has it, the header does not"
    for item in situation.reservations:
        if item.start < end and start < item.end:
            return (
                "exclusion failed",
                f"{item.name} is reserved for the crash kernel and should have been cut out: "
                "what is read there is the capture kernel",
            )
    for item in situation.memory.cut_wrongly if situation.memory is not None else ():
        if item.start < end and start < item.end:
            return (
                "exclusion failed",
                f"{item.name} spans two ranges, and the kernel's cutting stopped at the first",
            )
    if pmem:
        return "pmem in header", "persistent memory that only the loader put into the header"
    if ram:
        return "not added", "RAM that is in the header but that the rebuilt one leaves out"
    return (
        "removed after load",
        "no RAM any more: it was taken away after the crash kernel was loaded",
    )


def _explain_added(where: str, hotplug: CrashHotplug | None) -> tuple[str, str]:
    added = f"RAM that was added after the crash kernel was loaded, so it is not in {where}"
    if hotplug is None:
        return "added after load", added
    if not hotplug.permitted:
        return "added after load", f"{added}; {hotplug.words}"
    # crash_handle_hotplug_event() gives up while kexec is busy, and the architecture's handler when
    # the new header is larger than the segment.
    return (
        "older than hotplug",
        f"{added}; the header is older than the last hotplug event: the kernel may update it, but "
        "dropped the update (kexec was busy, or the header outgrew its segment)",
    )


def _explain_pmem(difference: HeaderDifference, newer: bool) -> tuple[str, str]:
    if newer:
        return (
            "pmem not marked",
            "persistent memory without PF_DEV: dump tools take it for RAM, and drop its memmap or "
            "keep its data",
        )
    return "pmem marked", "the loader marked persistent memory that this kernel would not mark"
