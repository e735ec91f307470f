# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
States of pages
---------------

What the pages of each namespace are doing, from a scan of its struct pages: groups of equal pages,
and the ranges they are in, with the file or device they belong to. :class:`Filter` chooses some.
"""

from collections.abc import Iterator
from dataclasses import replace
import functools
from typing import TYPE_CHECKING

from drgn import Program, ProgramFlags
import numpy as np

from drgn_pmem.analysis.inventory.names import find_namespace
from drgn_pmem.analysis.inventory.pgmapnames import pgmap_names
from drgn_pmem.analysis.owners.daxfiles import dax_files_of
from drgn_pmem.analysis.owners.shared import describe_mapping
from drgn_pmem.analysis.pages.filter import Filter
from drgn_pmem.analysis.pages.groups import Describer, PageGroup, PageRange
from drgn_pmem.analysis.pages.ramblocks import RamScan, ram_devices
from drgn_pmem.analysis.pages.readers import reader_of
from drgn_pmem.analysis.pages.runs import Kind
from drgn_pmem.analysis.pages.scan import Progress, Scan, scan_pages, scan_some
from drgn_pmem.analysis.pages.stream import scan_ranges
from drgn_pmem.errors import NotFound, UsageError
from drgn_pmem.kernel.debuginfo import need_kernel_debug_info
from drgn_pmem.kernel.memory import cached
from drgn_pmem.kernel.namespace import Namespace, pgmap_of
from drgn_pmem.kernel.page import pages_pgmap
from drgn_pmem.kernel.pgmap import Pgmap
from drgn_pmem.partial import Cause, Incomplete, Partial, Problem, Problems, WalkError
from drgn_pmem.record import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Runs = NDArray[np.void]
    Mask = NDArray[np.bool_]

__all__ = ("PageReport", "namespaces_to_scan", "read_page_report")

_KEPT = 1 << 15
"""Runs that the scan keeps which several commands share."""


class PageReport(Record):
    """Answer of :func:`read_page_report`."""

    groups: tuple[PageGroup, ...]
    ranges: tuple[PageRange, ...]
    notes: tuple[str, ...] = ()


def namespaces_to_scan(
    prog: Program, name: str | None, *, others: bool = True
) -> Partial[list[tuple[str, Pgmap]]]:
    """
    The page maps, by the name of their namespace, or of what else they belong to.

    :param name: Only that of this namespace, device or driver.
    :param others: Also those of device memory that is not of DAX: a driver's own.
    :return: (name, page map) by PFN.
    :raises NotFound: if there is no such namespace, or it has no struct pages of its own
    :raises Incomplete: if its page map cannot be read
    """
    problems = Problems()
    pgmaps = problems.take(pages_pgmap(prog))
    if name is not None:
        try:
            namespace = find_namespace(prog, name)
        except (NotFound, WalkError):
            # not a problem: that is raised if nothing else has the name
            names = problems.take(pgmap_names(prog, pgmaps))
            found = [(names[g.address], g) for g in pgmaps if names[g.address] == name]
            if not found:
                raise
            # A driver may have several: one that could not be read or named may be another.
            return problems.partial(found)
        pgmap = pgmap_of(namespace, pgmaps)
        if pgmap is not None:
            # Problems of other page maps do not matter.
            return Partial([(namespace.dev, pgmap)])
        if problems:
            raise Incomplete(p.about(f"page map of {namespace.dev}") for p in problems)
        raise NotFound(f"{name} {_why_none(namespace)}")
    # Without debug info of libnvdimm only the names of the page maps are missing.
    names = problems.take(pgmap_names(prog, pgmaps))
    chosen = [g for g in pgmaps if g.is_dax or others]
    return problems.partial([(names[g.address], g) for g in chosen])


def _why_none(namespace: Namespace) -> str:
    """Why a namespace has no struct pages of its own."""
    devices = namespace.daxregion.devices if namespace.daxregion else ()
    if any(device.mode == "system-ram" for device in devices):
        return "is used as RAM (system-ram): its struct pages are those of RAM; pmem-page shows one"
    if not namespace.enabled:
        return "is disabled: it has no struct pages"
    return f"is in {namespace.mode or 'sector or raw'} mode: it has no struct pages"


def read_page_report(
    prog: Program,
    name: str | None = None,
    chosen: Filter | None = None,
    *,
    ranges: bool = False,
    keep: int = 50_000,
    progress: Progress | None = None,
    ram: bool = True,
) -> Partial[PageReport]:
    """
    Scan the struct pages of a namespace, or of all.

    :param name: Namespace, or a DAX device that is used as RAM; all if None.
    :param chosen: Which pages; all if None.
    :param ranges: Also list the ranges of pages, not only groups.
    :param keep: How many ranges at most.
    :param progress: Called with (pages done, pages in all) now and then.
    :param ram: Also memory that is used as RAM (system-ram), by memory block, and device memory
        that is not of DAX.
    :raises NotFound: if there is no such namespace, or it has no struct pages
    """
    need_kernel_debug_info(prog, "pgmap_array")
    chosen = chosen or Filter()
    problems = Problems()
    groups: list[PageGroup] = []
    found: list[PageRange] = []
    notes: list[str] = []
    try:
        devices = problems.take(ram_devices(prog, name)) if ram else []
    except (NotFound, WalkError):
        # not a problem: namespaces_to_scan() raises it, unless something else has the name
        devices = []
    only_ram = bool(devices) and name is not None
    todo = [] if only_ram else problems.take(namespaces_to_scan(prog, name, others=ram))
    pgmaps = pages_pgmap(prog)
    # If these are all page maps, a struct page that points to none of them was overwritten.
    known = np.array([g.address for g in problems.take(pgmaps)], np.uint64)
    total = sum(end - start for start, end, _ in scan_ranges(g for _, g in todo))
    done = 0
    if not todo and not devices and not problems:
        notes.append("no struct pages of pmem: no namespace in fsdax or devdax mode was enabled")
    if todo and (slow := reader_of(prog).note):
        notes.append(slow)
    for title, pgmap in todo:
        describer = Describer(prog, title, pgmap, known, pgmaps.complete, problems)
        owners = _Owners(prog, chosen.owner, problems)
        wanted: set[int] | None = None

        def count(here: int, _: int, before: int = done) -> None:
            if progress is not None:
                progress(before + here, total)

        def where(
            runs: "Runs", describer: Describer = describer, wanted: "set[int] | None" = None
        ) -> "Mask":
            return describer.mask(runs, chosen, wanted)

        partial = kept = None
        if not ranges or chosen.busy or chosen.hwpoison or chosen.owner is not None:
            partial = _usual_scan(prog, pgmap, describer, known, count)
            kept = problems.take(partial, title)
            if chosen.owner is not None:
                wanted = owners.matching(kept.groups)
        interrupted = partial is not None and _interrupted(partial)
        has_ranges = kept is not None and (chosen.busy or chosen.hwpoison) and not kept.dropped
        if ranges and not interrupted and not has_ranges:
            partial = scan_pages(
                prog,
                scan_ranges([pgmap]),
                where=functools.partial(where, wanted=wanted),
                keep=keep,
                progress=count,
            )
        assert partial is not None
        scan = problems.take(partial, title)
        here = scan.groups[describer.mask(scan.groups, chosen, wanted)]
        groups += [_named(describer.group(row), owners) for row in describer.merged_groups(here)]
        if ranges:
            rows = scan.runs[describer.mask(scan.runs, chosen, wanted)]
            if len(rows) > keep:
                why = f"{len(rows) - keep} more runs of pages were not kept (limit {keep})"
                problems.add(Problem(cause=Cause.LIMIT, what=title, why=why))
            for row in describer.merged_runs(rows[:keep]):
                one = describer.range(row)
                found.append(replace(one, group=_named(one.group, owners)))
        done += scan.pages
        if _interrupted(partial):
            break
        describer.explain(scan, notes)
    else:
        try:
            for title, device in devices:
                RamScan(prog, title, device, chosen, problems).scan(
                    groups, found if ranges else None, keep
                )
        except KeyboardInterrupt as error:
            problems.add(error, "pages of memory that is used as RAM")
    if only_ram and chosen == Filter(busy=True) and not groups and not problems:
        notes.append("no page keeps a memory block of it from going offline")
    if chosen.shared:
        notes += _compare_shared(prog, groups, [pgmap for _, pgmap in todo], problems)
    report = PageReport(groups=tuple(groups), ranges=tuple(found), notes=tuple(notes))
    return problems.partial(report)


def _usual_scan(
    prog: Program,
    pgmap: Pgmap,
    describer: Describer,
    known: "NDArray[np.uint64]",
    progress: Progress,
) -> Partial[Scan]:
    """
    A scan of all struct pages of a page map that keeps poisoned pages and those with extra
    references, up to a limit: made once for pmem-pages, pmem-poison and pmem-pins.

    :param known: Addresses of all page maps: which pages were overwritten depends on them.
    """
    filters = (Filter(hwpoison=True), Filter(busy=True))

    def where(runs: "Runs") -> "Mask":
        masks = [describer.mask(runs, chosen, None) for chosen in filters]
        return np.logical_or.reduce(masks)

    scans: dict[object, Partial[Scan]] = cached(prog, "scans", dict)
    key = pgmap.address, known.tobytes()
    partial = scans.get(key)
    if partial is not None:
        total = sum(end - start for start, end, _ in scan_ranges([pgmap]))
        progress(total, total)
        return partial
    partial = scan_some(prog, scan_ranges([pgmap]), where=where, keep=_KEPT, progress=progress)
    # The memory of a live kernel changes.
    if not _interrupted(partial) and not prog.flags & ProgramFlags.IS_LIVE:
        scans[key] = partial
    return partial


def _interrupted(partial: Partial[Scan]) -> bool:
    return any(problem.cause is Cause.INTERRUPTED for problem in partial.problems)


def _compare_shared(
    prog: Program, groups: "list[PageGroup]", pgmaps: "list[Pgmap]", problems: Problems
) -> Iterator[str]:
    """Note how many pages are shared by DAX entries: a struct page counts only those files through
    which the page was read since they share it."""
    pfns = problems.take(dax_files_of(prog)).shared_pfns.tolist()
    found = sum(any(pgmap.has_pfn(pfn) for pgmap in pgmaps) for pfn in pfns)
    marked = sum(group.pages for group in groups)
    if found != marked:
        yield (
            f"{marked} struct pages are marked as shared; DAX entries of several files name {found}"
            " pages (pmem-files shows the files)"
        )


class _Owners:
    """Names of owners, each looked up once."""

    def __init__(self, prog: Program, wanted: str | None, problems: Problems) -> None:
        self._prog = prog
        self._problems = problems
        self._wanted = wanted or ""
        self._names: dict[int, str] = {}

    def name(self, mapping: int) -> str:
        if mapping not in self._names:
            self._names[mapping] = self._problems.take(describe_mapping(self._prog, mapping))
        return self._names[mapping]

    def matching(self, groups: "Runs") -> set[int]:
        """Mappings whose owner is the one that was asked for."""
        pages = groups[(groups["kind"] == Kind.PAGE) & (groups["mapping"] > 3)]
        pages = pages[pages["mapping"] & np.uint64(3) == 0]  # others are anonymous
        mappings = sorted(set(pages["mapping"].tolist()))
        if self._wanted.lower().startswith("0x"):
            try:
                return {int(self._wanted, 16)}.intersection(mappings)
            except ValueError:
                raise UsageError(f"{self._wanted!r} is not an address") from None
        return {mapping for mapping in mappings if self._wanted in self.name(mapping)}


def _named(group: PageGroup, owners: _Owners) -> PageGroup:
    if group.mapping is None:
        return group
    return replace(group, owner=owners.name(group.mapping))
