# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Poison
------

Every trace of bad memory on persistent memory, joined page by page: the bad ranges and badblocks of
libnvdimm, poisoned struct pages, the kernel log; and from the page to the file, its offset and the
processes that a read of it kills, or to the metadata that it hit.
"""

from collections.abc import Iterator
import enum
import itertools
from typing import Any

from drgn import Program

from drgn_pmem.analysis.owners.search import PageOwners, namespaces_of, owners_of
from drgn_pmem.analysis.pages.filter import Filter
from drgn_pmem.analysis.pages.states import read_page_report
from drgn_pmem.kernel.badblocks import SECTOR, BadRange, read_bad_ranges
from drgn_pmem.kernel.debuginfo import has_variable
from drgn_pmem.kernel.failurelog import (
    FailureEvent,
    FailureLine,
    FailureSource,
    for_each_failure_line,
    history_of,
)
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.kernel.page import page_layout
from drgn_pmem.kernel.pagetable import for_each_extent
from drgn_pmem.kernel.pgmap import for_each_pgmap
from drgn_pmem.partial import Cause, Partial, Problem, Problems, State
from drgn_pmem.record import Record, Show, shown

__all__ = ("Place", "Poison", "PoisonedPage", "find_poison")

_MAX_PAGES = 1 << 13
"""Pages that are looked at one by one, for each source."""

_LONG = 16 << 20
"""bytes"""

_INFO_BLOCK = 8192
"""Bytes that the kernel sets aside for the info block (SZ_8K in drivers/nvdimm/pfn_devs.c)."""


class Place(enum.Enum):
    """What a byte of persistent memory holds."""

    DATA = "data"
    INFO_BLOCK = "info block"
    STRUCT_PAGES = "struct pages"
    METADATA = "metadata"
    """Of the namespace; nothing more is known."""
    RAW = "raw"
    """A namespace without struct pages."""
    OUTSIDE = "outside"
    """Of any namespace."""
    UNKNOWN = "unknown"


class PoisonedPage(Record):
    """One bad page and what it hits."""

    pfn: int
    physical: int = shown(Show.ADDRESS)
    """Of the first bad byte that is known, else of the page."""
    ranges: tuple[BadRange, ...]
    """What libnvdimm says of it."""
    lines: tuple[FailureLine, ...]
    """What the kernel log says of it."""
    namespace: Namespace | None
    place: Place
    describes: tuple[int, int] | None
    """First PFN and number of the pages whose struct pages it holds, if it holds any."""
    owners: PageOwners

    @property
    def sources(self) -> list[str]:
        """Which records have it."""
        names = [r.source or "unknown" for r in self.ranges]
        if self.owners.trusted and self.owners.page.hwpoison:
            names.append("HWPoison")
        names += [line.source.value for line in self.lines]
        return list(dict.fromkeys(names))

    @property
    def injected(self) -> bool:
        """Only software says that it is bad, on request (``madvise(MADV_HWPOISON)``,
        hwpoison-inject): the bytes on the media are intact, and a reboot forgets it."""
        by_software = {line.source for line in self.lines} == {FailureSource.MEMORY_FAILURE}
        asked = any(line.event is FailureEvent.INJECTED for line in self.lines)
        return asked and by_software and not self.ranges

    @property
    def history(self) -> list[tuple[float | None, str, str]]:
        """(seconds since boot, event, source) of each line of the log, in the order of the log:
        ``"reported"``, ``"handled"``, ``"cleared"``, ``"reported again"``."""
        return [(line.time, event, line.source.value) for line, event in history_of(self.lines)]

    @property
    def namespace_offset(self) -> int | None:
        """bytes from the start of the namespace: what ``ndctl inject-error`` counts from, in
        512-byte blocks."""
        return None if self.namespace is None else self.physical - self.namespace.resource

    @property
    def data_offset(self) -> int | None:
        """bytes from the start of the namespace's data: what its device counts from."""
        if self.namespace is None or self.namespace.data_offset is None:
            return None
        offset = self.physical - self.namespace.resource - self.namespace.data_offset
        return offset if offset >= 0 else None

    @property
    def arithmetic(self) -> list[str]:
        """From the physical address to the device's sector and the file's offset, step by step."""
        steps = [r.arithmetic for r in self.ranges]
        ns = self.namespace
        if ns is None or self.namespace_offset is None:
            return steps
        steps.append(
            f"{self.physical:#x} - {ns.dev} {ns.resource:#x} = offset {self.namespace_offset:#x}"
            f" (512-byte block {self.namespace_offset // SECTOR})"
        )
        device = ns.blockdev or ns.chardev
        if self.data_offset is not None and ns.data_offset and device:
            steps.append(
                f"{self.namespace_offset:#x} - data offset {ns.data_offset:#x} = {device}"
                f" {self.data_offset:#x} (sector {self.data_offset // SECTOR})"
            )
        for owner in self.owners.owners:
            inside = self.physical - (self.pfn << self.owners.page_shift)
            on = "" if owner.sector is None else f" (sector {owner.sector} of {owner.device})"
            steps.append(f"{owner.name or owner.inode} offset {owner.offset + inside:#x}{on}")
        return steps

    @property
    def hits(self) -> str:
        """What is lost, in words."""
        owners = self.owners.owners
        if self.place is Place.STRUCT_PAGES and self.describes:
            first, count = self.describes
            return f"struct pages of PFN {first:#x} to {first + count - 1:#x}"
        if owners:
            return ", ".join(str(o.name or f"inode {o.inode}") for o in owners)
        if self.place is Place.DATA:
            return "data that no DAX file in memory has" if self.owners.unowned else "data"
        return self.place.value

    @property
    def processes(self) -> "list[tuple[int, str, str]]":
        """(pid, comm, proof) of every process that has the page in a VMA."""
        found = {
            (m.task.tgid, m.task.comm, m.proof.value)
            for owner in self.owners.owners
            for m in owner.mappings
            if m.task is not None
        }
        return sorted(found)

    def to_json(self) -> dict[str, Any]:
        owners = self.owners.to_json()
        return {
            "pfn": self.pfn,
            "physical": f"{self.physical:#x}",
            "sources": self.sources,
            "ranges": [r.to_json() for r in self.ranges],
            "messages": [line.text for line in self.lines],
            "history": [
                {"time": time, "event": event, "source": source}
                for time, event, source in self.history
            ],
            "namespace": self.namespace.dev if self.namespace else None,
            "device": owners["device"],
            "place": self.place.value,
            "struct_pages_of": (
                {"first_pfn": self.describes[0], "npfns": self.describes[1]}
                if self.describes
                else None
            ),
            "namespace_offset": self.namespace_offset,
            "data_offset": self.data_offset,
            "sector": None if self.data_offset is None else self.data_offset // SECTOR,
            "arithmetic": self.arithmetic,
            "state": owners["state"],
            "reason": owners["reason"],
            "hwpoison": owners["hwpoison"],
            "owners": owners["owners"],
            "processes": [
                {"pid": pid, "comm": comm, "proof": proof} for pid, comm, proof in self.processes
            ],
            "notes": owners["notes"],
        }


class Poison(Record):
    """All bad pages."""

    pages: tuple[PoisonedPage, ...]
    notes: tuple[str, ...] = shown(json=False)


class _Search:
    def __init__(self, prog: Program) -> None:
        self.prog = prog
        self.shift = int(prog["PAGE_SHIFT"])
        self.notes: list[str] = []
        self.problems = Problems()
        self.ranges: dict[int, list[BadRange]] = {}
        self.lines: dict[int, list[FailureLine]] = {}
        self.namespaces: list[Namespace] = []

    def run(self) -> Partial[Poison]:
        self.namespaces = self.problems.take(namespaces_of(self.prog))
        self._read_ranges()
        self._read_log()
        pfns = set(self.ranges) | self._marked() | self._logged()
        found: list[PoisonedPage] = []
        try:
            for pfn in sorted(pfns):
                found.append(self._page(pfn))
            self._count(found)
        except KeyboardInterrupt:
            why = f"interrupted: {len(found)} of {len(pfns)} bad pages are shown"
            self.problems.add(Problem(cause=Cause.INTERRUPTED, why=why))
        return self.problems.partial(Poison(pages=tuple(found), notes=tuple(self.notes)))

    def _read_ranges(self) -> None:
        with self.problems.trying("bad ranges and badblocks"):
            left = _MAX_PAGES
            found = self.problems.take(read_bad_ranges(self.prog), "there may be more")
            # The short ones first: an implausibly long one must not take their place.
            for bad in sorted(found, key=lambda bad: bad.length > _LONG):
                left = self._add_range(bad, left)

    def _add_range(self, bad: BadRange, left: int) -> int:
        first, last = bad.start >> self.shift, (bad.end - 1) >> self.shift
        if last - first >= left:
            why = f"{bad.arithmetic}: too long to look at every page; the first {left} are shown"
            self.problems.add(Problem(cause=Cause.LIMIT, why=why))
            last = first + left - 1
        for pfn in range(first, last + 1):
            self.ranges.setdefault(pfn, []).append(bad)
        return left - max(last - first + 1, 0)

    def _read_log(self) -> None:
        for line in self.problems.collect(for_each_failure_line(self.prog), "kernel log"):
            self.lines.setdefault(line.pfn, []).append(line)

    def _logged(self) -> set[int]:
        """PFNs in the log that are persistent memory."""
        pgmaps = self.problems.collect(for_each_pgmap(self.prog))
        known = {
            pfn
            for pfn in self.lines
            if any(g.has_pfn(pfn) for g in pgmaps) or self._namespace(pfn << self.shift)
        }
        others = len(self.lines) - len(known)
        corrected = {
            pfn
            for pfn in known
            if all(line.event is FailureEvent.CORRECTED for line in self.lines[pfn])
        }
        if corrected:
            self.notes.append(
                f"the kernel log has corrected errors of {len(corrected)} pages of pmem: their data"
                " is intact"
            )
        known -= corrected
        if others and not self.problems:
            self.notes.append(f"the kernel log has {others} failed pages that are not pmem")
        elif others:
            self.notes.append(f"the kernel log has {others} failed pages that may not be pmem")
        return known

    def _marked(self) -> set[int]:
        pfns = set(itertools.islice(self._hwpoison(), _MAX_PAGES))
        if len(pfns) == _MAX_PAGES:
            why = f"marked struct pages: the first {_MAX_PAGES} are shown"
            self.problems.add(Problem(cause=Cause.LIMIT, why=why))
        return pfns

    def _hwpoison(self) -> Iterator[int]:
        """PFNs whose struct page is marked."""
        found = read_page_report(
            self.prog, chosen=Filter(hwpoison=True), ranges=True, keep=_MAX_PAGES, ram=False
        )
        report = self.problems.take(found)
        self.notes += report.notes
        for marked in report.ranges:
            group = marked.group
            if (group.folio_pages or 1) > 1:
                self.notes.append(
                    f"PFN {marked.pfn:#x} heads a folio of {group.folio_pages} pages: the kernel"
                    " marks the head only, so any of them may be the bad one"
                )
            yield from range(marked.pfn, marked.pfn + min(group.pages, _MAX_PAGES))

    def _namespace(self, physical: int) -> Namespace | None:
        return next((n for n in self.namespaces if physical in n.range), None)

    def _page(self, pfn: int) -> PoisonedPage:
        ranges = self.ranges.get(pfn, [])
        start = pfn << self.shift
        bad = [r.start for r in ranges]
        bad += [line.physical for line in self.lines.get(pfn, ()) if line.physical is not None]
        physical = max(min(bad, default=start), start)
        namespace = self._namespace(physical)
        place, describes = self._place(namespace, physical)
        return PoisonedPage(
            pfn=pfn,
            physical=physical,
            ranges=tuple(ranges),
            lines=tuple(self.lines.get(pfn, ())),
            namespace=namespace,
            place=place,
            describes=describes,
            owners=self.problems.take(owners_of(self.prog, pfn)),
        )

    def _place(
        self, namespace: Namespace | None, physical: int
    ) -> "tuple[Place, tuple[int, int] | None]":
        if namespace is None:
            return (Place.OUTSIDE if namespaces_of(self.prog).complete else Place.UNKNOWN), None
        if namespace.mode == "raw":
            return Place.RAW, None
        if namespace.data_offset is None:
            return Place.UNKNOWN, None
        offset = physical - namespace.resource
        if offset >= namespace.data_offset:
            return Place.DATA, None
        if offset < _INFO_BLOCK:
            return Place.INFO_BLOCK, None
        describes, all_known = self._struct_pages(namespace, physical)
        if describes:
            return Place.STRUCT_PAGES, describes
        return (Place.METADATA if all_known else Place.UNKNOWN), None

    def _struct_pages(
        self, namespace: Namespace, physical: int
    ) -> "tuple[tuple[int, int] | None, bool]":
        """(first PFN, number) of the pages whose struct pages are in a physical page, if any; and
        whether it is known where all of the namespace's struct pages are."""
        all_known = True
        layout = page_layout(self.prog)
        first = namespace.resource >> self.shift
        last = (namespace.resource + namespace.raw_size) >> self.shift
        page = physical >> self.shift << self.shift
        extents = for_each_extent(self.prog, layout.address(first), layout.address(last))
        for extent in self.problems.collect(extents, f"struct pages of {namespace.dev}"):
            if extent.physical is None and extent.state is not State.UNMAPPED:
                all_known = False
                why = extent.reason or extent.state.value
                self.problems.add(
                    Problem(cause=Cause.NOT_SAVED, why=why, state=extent.state),
                    f"struct pages of {namespace.dev}",
                )
            if extent.physical is None or not (
                extent.physical <= page < extent.physical + extent.size
            ):
                continue
            virtual = extent.virtual + (page - extent.physical)
            low = (virtual - layout.vmemmap) // layout.size
            high = -(-(virtual + (1 << self.shift) - layout.vmemmap) // layout.size)
            return (low, high - low), True
        return None, all_known

    def _count(self, pages: list[PoisonedPage]) -> None:
        if not has_variable(self.prog, "num_poisoned_pages"):
            return  # without CONFIG_MEMORY_FAILURE
        with self.problems.trying("num_poisoned_pages"):
            counted = self.prog["num_poisoned_pages"].counter.value_()
            marked = sum(1 for page in pages if page.owners.page.hwpoison)
            if counted != marked:
                self.notes.append(
                    f"num_poisoned_pages is {counted}, {marked} poisoned pmem pages were found; the"
                    " counter includes RAM and does not go down when a write clears poison"
                )


def find_poison(prog: Program) -> Partial[Poison]:
    """
    Find every bad page of persistent memory; after Ctrl-C, those that were looked at until then.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    return _Search(prog).run()
