# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
States of pages
---------------

What the pages of each namespace are doing, from a scan of its struct pages: groups of equal pages,
and the ranges they are in, with the file or device they belong to. :class:`Filter` chooses some.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
import functools
from typing import TYPE_CHECKING, Any

from drgn import Object, Program
from drgn.helpers.linux.mm import decode_page_flags_value
import numpy as np

from drgn_pmem.analysis.owners.search import describe_mapping
from drgn_pmem.analysis.pages.filter import Filter
from drgn_pmem.analysis.pages.runs import Kind
from drgn_pmem.analysis.pages.scan import Progress, Scan, scan_pages, scan_ranges
from drgn_pmem.dumpfile import Coverage, State
from drgn_pmem.errors import NotFound, PmemError, UsageError
from drgn_pmem.kernel.debuginfo import need_kernel_debug_info
from drgn_pmem.kernel.namespace import Namespace, find_namespace, for_each_namespace, pgmap_of
from drgn_pmem.kernel.page import idle_refcount, pages_pgmap
from drgn_pmem.kernel.page_layout import DaxGeneration, page_layout
from drgn_pmem.kernel.pgmap import Pgmap
from drgn_pmem.kernel.walk import collect
from drgn_pmem.partial import Problems

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Runs = NDArray[np.void]
    Mask = NDArray[np.bool_]

__all__ = ("PageGroup", "PageRange", "PageReport", "namespaces_to_scan", "page_report")

_TYPES = ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_GENERIC")

_STATES = {Coverage.code(state): state for state in State}


@dataclass(frozen=True)
class PageGroup:
    """Equal pages of one namespace."""

    namespace: str
    status: str
    """What they are doing, in a word or two: ``"idle"``, ``"file"``, ``"shared"``, ``"pinned"``,
    ``"poisoned"``, ``"tail"``, ``"uninitialised"``, ``"overwritten"``, ``"torn"``, or the state of
    struct pages that are not in the dump."""
    state: State
    """Of the struct pages, in the dump."""
    pages: int
    size: int
    """bytes"""
    ranges: int
    flags: int | None = None
    flag_names: tuple[str, ...] = ()
    refcount: int | None = None
    mapcount: int | None = None
    pins: int | None = None
    """References beyond idle and mappings."""
    shared: bool | None = None
    hwpoison: bool | None = None
    folio_pages: int | None = None
    """Pages of the folio (compound page) that each belongs to; flags and counts are the head's."""
    mapping: int | None = None
    """``struct address_space *`` of the owner, None for none."""
    owner: str | None = None
    """File or device."""
    pgmap_known: bool | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "namespace": self.namespace,
            "status": self.status,
            "state": self.state.value,
            "pages": self.pages,
            "size": self.size,
            "ranges": self.ranges,
            "flags": None if self.flags is None else f"{self.flags:#x}",
            "flag_names": list(self.flag_names),
            "refcount": self.refcount,
            "mapcount": self.mapcount,
            "pins": self.pins,
            "shared": self.shared,
            "hwpoison": self.hwpoison,
            "folio_pages": self.folio_pages,
            "mapping": None if self.mapping is None else f"{self.mapping:#x}",
            "owner": self.owner,
            "pgmap_known": self.pgmap_known,
        }


@dataclass(frozen=True)
class PageRange:
    """Neighbouring equal pages."""

    pfn: int
    group: PageGroup
    """What all of them are; ``pages`` counts this range."""
    physical: int
    """bytes"""
    index: int | None = None
    """Offset of the first page in its file or device, in pages; the others follow."""
    share: int | None = None
    """How many mappings share each page."""
    head_pfn: int | None = None
    """Of tail pages that stand apart from it."""

    def to_json(self) -> dict[str, Any]:
        record = self.group.to_json()
        del record["ranges"]
        return {
            "pfn": self.pfn,
            "physical": f"{self.physical:#x}",
            **record,
            "index": self.index,
            "share": self.share,
            "head_pfn": self.head_pfn,
        }


@dataclass
class PageReport:
    """Answer of :func:`page_report`."""

    groups: list[PageGroup] = field(default_factory=list)
    ranges: list[PageRange] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    """Struct pages that could not be read, and why."""

    @property
    def complete(self) -> bool:
        """Whether every struct page could be read."""
        return not self.lacks


def namespaces_to_scan(
    prog: Program, name: str | None
) -> tuple[list[tuple[str, Pgmap]], list[str]]:
    """
    The page maps of persistent memory, by the name of their namespace.

    :param name: Only this namespace.
    :return: (name, page map) by PFN; messages about those that could not be read.
    :raises NotFound: if there is no such namespace, or it has no struct pages
    """
    pgmaps, problems = pages_pgmap(prog)
    if name is not None:
        namespace = find_namespace(prog, name)
        found = [(namespace.dev, g) for g in pgmaps if g is pgmap_of(namespace, pgmaps)]
        if not found:
            why = "is disabled"
            if namespace.enabled:
                why = f"is in {namespace.mode or 'sector or raw'} mode"
            raise NotFound(f"{name} {why}: it has no struct pages")
        return found, problems
    # Without debug info of libnvdimm the page maps are there all the same.
    namespaces: list[Namespace] = collect(for_each_namespace(prog))[0]
    names = {
        pgmap.address: namespace.dev
        for namespace in namespaces
        if (pgmap := pgmap_of(namespace, pgmaps)) is not None
    }
    chosen = [g for g in pgmaps if g.type in _TYPES]
    return [(names.get(g.address, f"pgmap {g.address:#x}"), g) for g in chosen], problems


class _Describer:
    """Turns runs and groups of one namespace into records."""

    def __init__(
        self, prog: Program, name: str, pgmap: Pgmap, known: "NDArray[np.uint64] | None"
    ) -> None:
        self._prog = prog
        self._name = name
        self._known = known
        """Addresses of all page maps; None if there may be more."""
        self._layout = page_layout(prog)
        self._folios = self._layout.generation is DaxGeneration.FOLIO
        self._idle: int | None
        try:
            self._idle = idle_refcount(prog, pgmap.type)
        except PmemError:
            self._idle = None

    def pins(self, runs: "Runs") -> "NDArray[np.int64]":
        if self._idle is None:
            return np.zeros(len(runs), np.int64)
        pins = runs["refcount"].astype(np.int64) - self._idle
        if self._folios:
            pins -= np.maximum(runs["mapcount"], 0)
        return np.where(runs["kind"] == Kind.PAGE, np.maximum(pins, 0), 0)

    def overwritten(self, runs: "Runs") -> "Mask":
        """Struct pages that point to no page map of the crashed kernel."""
        if self._known is None:
            return np.zeros(len(runs), bool)
        return (runs["kind"] == Kind.PAGE) & ~np.isin(runs["word"], self._known)

    def mask(self, runs: "Runs", chosen: Filter, owners: "set[int] | None") -> "Mask":
        mask = np.ones(len(runs), bool)
        if not chosen.is_set:
            return mask
        mask &= (runs["kind"] == Kind.PAGE) | (runs["kind"] == Kind.TAIL)
        mask &= ~self.overwritten(runs)
        if chosen.flags:
            wanted = np.uint64(chosen.flags)
            mask &= runs["flags"] & wanted == wanted
        if chosen.hwpoison:
            mask &= runs["flags"] & np.uint64(self._layout.hwpoison_bit or 0) != 0
        if chosen.shared:
            mask &= runs["shared"] != 0
        if chosen.busy:
            mask &= self.pins(runs) > 0
        if chosen.refcount is not None:
            low, high = chosen.refcount
            mask &= (runs["kind"] == Kind.PAGE) & (runs["refcount"] >= low)
            mask &= runs["refcount"] <= high
        if owners is not None:
            mask &= (runs["kind"] == Kind.PAGE) & np.isin(
                runs["mapping"], np.array(sorted(owners), np.uint64)
            )
        return mask

    def group(self, row: Any) -> PageGroup:
        kind, state = Kind(int(row["kind"])), _STATES[int(row["state"])]
        named = row.dtype.names
        pages = int(row["pages" if "pages" in named else "count"])
        ranges = int(row["runs"]) if "runs" in named else 1
        base = PageGroup(self._name, "", state, pages, pages << self._layout.page_shift, ranges)
        if kind is Kind.UNINITIALISED:
            return replace(base, status="uninitialised")
        if kind is Kind.GAP:
            return replace(base, status=state.value)
        if kind is Kind.TORN:
            return replace(base, status="torn")
        flags, mapping = int(row["flags"]), int(row["mapping"])
        poison = self._layout.hwpoison_bit
        hwpoison = None if poison is None else bool(flags & poison)
        names = self._flag_names(flags)
        if kind is Kind.TAIL:
            status = "poisoned" if hwpoison else "tail"
            return replace(base, status=status, flags=flags, flag_names=names, hwpoison=hwpoison)
        alone = np.array([row], row.dtype)
        if self.overwritten(alone)[0]:
            return replace(base, status="overwritten", pgmap_known=False)
        pins = int(self.pins(alone)[0])
        shared = bool(row["shared"])
        mapcount = int(row["mapcount"])
        return replace(
            base,
            status=self._status(hwpoison, pins, shared, mapping),
            flags=flags,
            flag_names=names,
            refcount=int(row["refcount"]),
            mapcount=mapcount if self._folios and mapcount >= 0 else None,
            pins=None if self._idle is None else pins,
            shared=shared,
            hwpoison=hwpoison,
            folio_pages=int(row["folio"]),
            mapping=mapping if mapping > 3 else None,
            pgmap_known=True if self._known is not None else None,
        )

    @staticmethod
    def _status(hwpoison: bool | None, pins: int, shared: bool, mapping: int) -> str:
        if hwpoison:
            return "poisoned"
        if pins:
            return "pinned"
        if shared:
            return "shared"
        return "file" if mapping > 3 else "idle"

    def _flag_names(self, flags: int) -> tuple[str, ...]:
        try:
            text = decode_page_flags_value(Object(self._prog, "unsigned long", flags))
        except LookupError:
            return ()
        return tuple(name for name in text.split("|") if name.startswith("PG_"))

    def range(self, row: Any) -> PageRange:
        group = self.group(row)
        pfn, kind = int(row["pfn"]), int(row["kind"])
        index = int(row["index"])
        return PageRange(
            pfn,
            group,
            pfn << self._layout.page_shift,
            index if group.mapping is not None else None,
            index if group.shared else None,
            int(row["mapping"]) if kind == Kind.TAIL else None,
        )


def page_report(
    prog: Program,
    name: str | None = None,
    chosen: Filter | None = None,
    *,
    ranges: bool = False,
    keep: int = 50_000,
    progress: Progress | None = None,
) -> PageReport:
    """
    Scan the struct pages of a namespace, or of all.

    :param name: Namespace; all if None.
    :param chosen: Which pages; all if None.
    :param ranges: Also list the ranges of pages, not only groups.
    :param keep: How many ranges at most.
    :param progress: Called with (pages done, pages in all) now and then.
    :raises NotFound: if there is no such namespace, or it has no struct pages
    """
    need_kernel_debug_info(prog, "pgmap_array")
    chosen = chosen or Filter()
    report = PageReport()
    todo, report.lacks[:] = namespaces_to_scan(prog, name)
    pgmaps, problems = pages_pgmap(prog)
    known = None if problems else np.array([g.address for g in pgmaps], np.uint64)
    total = sum(end - start for start, end, _ in scan_ranges(g for _, g in todo))
    done = 0
    if not todo:
        report.notes.append("no page map: no namespace in fsdax or devdax mode was enabled")
    for title, pgmap in todo:
        describer = _Describer(prog, title, pgmap, known)
        owners = _Owners(prog, chosen.owner)
        todo_here = scan_ranges([pgmap])
        wanted: set[int] | None = None

        def count(here: int, _: int, before: int = done) -> None:
            if progress is not None:
                progress(before + here, total)

        def where(
            runs: "Runs", describer: _Describer = describer, wanted: "set[int] | None" = None
        ) -> "Mask":
            return describer.mask(runs, chosen, wanted)

        first_keep = keep if ranges and chosen.owner is None else 0
        scan = scan_pages(prog, todo_here, where=where, keep=first_keep, progress=count)
        if chosen.owner is not None:
            wanted = owners.matching(scan.groups)
            if ranges and scan.complete:
                # Now that the owner's mappings are known, its ranges.
                scan = scan_pages(
                    prog, todo_here, where=functools.partial(where, wanted=wanted), keep=keep
                )
        _take(report, describer, scan, chosen, wanted, ranges, owners)
        report.lacks += map(str, owners.problems)
        done += scan.pages
        (report.notes if scan.complete else report.lacks).extend(scan.notes)
        if not scan.complete:
            break
        _explain(report, title, scan, describer)
    return report


class _Owners:
    """Names of owners, each looked up once."""

    def __init__(self, prog: Program, wanted: str | None) -> None:
        self._prog = prog
        self._wanted = wanted or ""
        self._names: dict[int, str] = {}
        self.problems = Problems()

    def name(self, mapping: int) -> str:
        if mapping not in self._names:
            self._names[mapping] = self.problems.take(describe_mapping(self._prog, mapping))
        return self._names[mapping]

    def matching(self, groups: "Runs") -> set[int]:
        """Mappings whose owner is the one that was asked for."""
        pages = groups[(groups["kind"] == Kind.PAGE) & (groups["mapping"] > 3)]
        mappings = sorted(set(pages["mapping"].tolist()))
        if self._wanted.lower().startswith("0x"):
            try:
                return {int(self._wanted, 16)}.intersection(mappings)
            except ValueError:
                raise UsageError(f"{self._wanted!r} is no address") from None
        return {mapping for mapping in mappings if self._wanted in self.name(mapping)}


def _take(
    report: PageReport,
    describer: _Describer,
    scan: Scan,
    chosen: Filter,
    wanted: "set[int] | None",
    ranges: bool,
    owners: _Owners,
) -> None:
    """Records of what was found."""
    groups = scan.groups[describer.mask(scan.groups, chosen, wanted)]
    named = [_named(describer.group(row), owners) for row in groups]
    report.groups += named
    if ranges:
        runs = scan.runs[describer.mask(scan.runs, chosen, wanted)]
        for row in runs:
            found = describer.range(row)
            report.ranges.append(replace(found, group=_named(found.group, owners)))


def _named(group: PageGroup, owners: _Owners) -> PageGroup:
    if group.mapping is None:
        return group
    return replace(group, owner=owners.name(group.mapping))


def _explain(report: PageReport, title: str, scan: Scan, describer: _Describer) -> None:
    """What a reader must know of the struct pages of one namespace."""
    missing = [
        f"{count} {state.value}"
        for state in State
        if state is not State.SAVED and (count := scan.count(state))
    ]
    if missing:
        every = sum(scan.count(state) for state in State)
        report.lacks.append(
            f"{title}: struct pages that are not in the dump: {', '.join(missing)} of {every} "
            f"(pmem-coverage {title} says why; pmem-files needs none of them)"
        )
    torn = _pages(scan.groups[scan.groups["kind"] == Kind.TORN])
    strange = _pages(scan.groups[describer.overwritten(scan.groups)])
    if torn:
        report.notes.append(f"{title}: {torn} struct pages are none: overwritten or corrupt")
    if strange:
        report.lacks.append(
            f"{title}: {strange} struct pages were written after the crash (they point to no page "
            "map of this kernel): a capture kernel bound the namespace; pmem-files needs none of "
            "them"
        )


def _pages(groups: Iterable[Any]) -> int:
    return sum(int(group["pages"]) for group in groups)
