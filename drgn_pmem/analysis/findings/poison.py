# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Poison
------

Every trace of bad memory on persistent memory, joined page by page: the bad ranges and badblocks of
libnvdimm, the last poison lists of CXL devices, poisoned struct pages, the kernel log; and from the
page to the file, its offset and the processes that a read of it kills, or to the metadata that it
hit.
"""

from collections.abc import Iterator
import itertools

from drgn import Program

from drgn_pmem.analysis.findings.badpages import Place, Poison, PoisonedPage
from drgn_pmem.analysis.owners.search import namespaces_of, owners_of
from drgn_pmem.analysis.pages.filter import Filter
from drgn_pmem.analysis.pages.states import read_page_report
from drgn_pmem.kernel.badblocks import BadRange, read_bad_ranges
from drgn_pmem.kernel.debuginfo import has_variable
from drgn_pmem.kernel.devicepoison import read_device_poison
from drgn_pmem.kernel.failurelog import FailureEvent, FailureLine, for_each_failure_line
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.kernel.page import page_layout
from drgn_pmem.kernel.pagetable import for_each_extent
from drgn_pmem.kernel.pgmap import for_each_pmem_pgmap
from drgn_pmem.kernel.region import Region, for_each_region
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems, State

__all__ = ("Place", "Poison", "PoisonedPage", "find_poison")

_MAX_PAGES = 1 << 13
"""Pages that are looked at one by one, for each source."""

_LONG = 16 << 20
"""bytes"""

_INFO_BLOCK = 8192
"""Bytes that the kernel sets aside for the info block (SZ_8K in drivers/nvdimm/pfn_devs.c)."""


class _Search:
    def __init__(self, prog: Program) -> None:
        self.prog = prog
        self.shift = int(prog["PAGE_SHIFT"])
        self.notes: list[str] = []
        self.problems = Problems()
        self.ranges: dict[int, list[BadRange]] = {}
        self.lists_known = False
        self.lines: dict[int, list[FailureLine]] = {}
        self.namespaces: list[Namespace] = []
        self.regions: Partial[list[Region]] = Partial([])
        self.struct_pages_found = True

    def run(self) -> Partial[Poison]:
        self.namespaces = self.problems.take(namespaces_of(self.prog))
        self.regions = for_each_region(self.prog)
        self._read_ranges()
        self._read_log()
        pfns = set(self.ranges) | self._marked() | self._logged()
        found: list[PoisonedPage] = []
        try:
            for pfn in sorted(pfns):
                found.append(self._page(pfn))
            if self.struct_pages_found:
                self._count(found)
        except KeyboardInterrupt:
            why = f"interrupted: {len(found)} of {len(pfns)} bad pages are shown"
            self.problems.add(Problem(cause=Cause.INTERRUPTED, why=why))
        return self.problems.partial(Poison(pages=tuple(found), notes=tuple(self.notes)))

    def _read_ranges(self) -> None:
        with self.problems.trying("bad ranges and badblocks"):
            left = _MAX_PAGES
            partial = read_bad_ranges(self.prog)
            devices = read_device_poison(self.prog)
            self.lists_known = partial.complete and devices.complete
            listed = self.problems.take(devices, "there may be more")
            self.notes += listed.notes
            found = [*self.problems.take(partial, "there may be more"), *listed.ranges]
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
        pgmaps = self.problems.collect(for_each_pmem_pgmap(self.prog))
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
        try:
            found = read_page_report(
                self.prog, chosen=Filter(hwpoison=True), ranges=True, keep=_MAX_PAGES, ram=False
            )
        except NotSaved as error:
            # The other sources do not need them.
            self.problems.add(error, "marked struct pages")
            self.struct_pages_found = False
            return
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
            dimms=self._dimms(physical),
            lists_known=self.lists_known,
        )

    def _dimms(self, physical: int) -> tuple[str, ...] | None:
        """The DIMMs of the region that an address is in: () if it is in none."""
        at = self.regions.map(lambda known: next((r for r in known if physical in r.range), None))
        region = self.problems.find(at, f"DIMMs of {physical:#x}")
        if region is None:
            return () if self.regions.complete else None
        if region.mappings is None:
            self.problems.extend(self.regions.problems)
            return None
        return tuple(mapping.dimm for mapping in region.mappings)

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
        layout = self.problems.attempt("struct pages", lambda: page_layout(self.prog))
        if layout is None:
            return None, False
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
                    f"num_poisoned_pages is {counted}; PG_hwpoison is set in the struct pages of"
                    f" {marked} of these pages, as far as they were saved; the counter includes RAM"
                    " and does not go down when write(2) clears poison"
                )


def find_poison(prog: Program) -> Partial[Poison]:
    """
    Find every bad page of persistent memory; after Ctrl-C, those that were looked at until then.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    return _Search(prog).run()
