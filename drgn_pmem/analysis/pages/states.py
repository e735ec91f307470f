# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
States of pages
---------------

What the pages of each namespace are doing, from a scan of its struct pages: groups of equal pages,
and the ranges they are in, with the file or device they belong to. :class:`Filter` chooses some.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
import functools
from typing import TYPE_CHECKING, Any

from drgn import Program
import numpy as np

from drgn_pmem.analysis.inventory.names import find_namespace
from drgn_pmem.analysis.owners.daxfiles import dax_files_of
from drgn_pmem.analysis.owners.search import describe_mapping
from drgn_pmem.analysis.pages.filter import Filter
from drgn_pmem.analysis.pages.runs import Kind
from drgn_pmem.analysis.pages.scan import Progress, Scan, scan_pages, scan_ranges
from drgn_pmem.dumpfile import Coverage, State
from drgn_pmem.errors import NotFound, UsageError
from drgn_pmem.kernel.debuginfo import need_kernel_debug_info
from drgn_pmem.kernel.namespace import Namespace, for_each_namespace, pgmap_of
from drgn_pmem.kernel.page import flag_names, idle_refcount, pages_pgmap
from drgn_pmem.kernel.page_layout import DaxGeneration, page_layout
from drgn_pmem.kernel.pgmap import Pgmap
from drgn_pmem.partial import Cause, Incomplete, Partial, Problem, Problems
from drgn_pmem.record import Record, Show, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Runs = NDArray[np.void]
    Mask = NDArray[np.bool_]

__all__ = ("PageGroup", "PageRange", "PageReport", "namespaces_to_scan", "page_report")

_TYPES = ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_GENERIC")

_STATES = {Coverage.code(state): state for state in State}

_NOT_KNOWN = -1
"""Of references beyond idle and mappings, where the mappings are not known."""


class PageGroup(Record):
    """Equal pages of one namespace."""

    namespace: str
    status: str
    """What they are doing, in a word or two: ``"idle"``, ``"file"``, ``"shared"``, ``"pinned"``,
    ``"poisoned"``, ``"tail"``, ``"memmap"``, ``"uninitialised"``, ``"overwritten"``, ``"torn"``,
    ``"unknown"`` (neither idle nor in use by what could be read; what the head says of tail pages
    that are cut off from it), or the state of struct pages that are not in the dump."""
    state: State
    """Of the struct pages, in the dump."""
    pages: int
    size: int = shown(Show.SIZE)
    ranges: int
    flags: int | None = shown(Show.ADDRESS, default=None)
    flag_names: tuple[str, ...] | None = None
    refcount: int | None = None
    mapcount: int | None = None
    pins: int | None = None
    """References beyond idle and mappings; None if the mappings are not known."""
    shared: bool | None = None
    hwpoison: bool | None = None
    folio_pages: int | None = None
    """Pages of the folio (compound page) that each belongs to; flags and counts are the head's.
    None if struct pages at its end are not in the dump."""
    mapping: int | None = shown(Show.ADDRESS, default=None)
    """``struct address_space *`` of the owner, None for none."""
    owner: str | None = None
    """File or device."""
    pgmap_known: bool | None = None


class PageRange(Record):
    """Neighbouring equal pages."""

    pfn: int
    group: PageGroup
    """What all of them have in common; ``pages`` counts this range."""
    physical: int = shown(Show.ADDRESS)
    """bytes"""
    index: int | None = None
    """Offset of the first page in its file or device, in pages; the others follow."""
    share: int | None = None
    """How many mappings share each page."""
    head_pfn: int | None = None
    """Of tail pages that stand apart from it, or are cut off from it."""

    def to_json(self) -> dict[str, Any]:
        own = super().to_json()
        group = own.pop("group")
        del group["ranges"]
        return own | group


class PageReport(Record):
    """Answer of :func:`page_report`."""

    groups: tuple[PageGroup, ...]
    ranges: tuple[PageRange, ...]
    notes: tuple[str, ...] = ()


def namespaces_to_scan(prog: Program, name: str | None) -> Partial[list[tuple[str, Pgmap]]]:
    """
    The page maps of persistent memory, by the name of their namespace.

    :param name: Only this namespace.
    :return: (name, page map) by PFN.
    :raises NotFound: if there is no such namespace, or it has no struct pages of its own
    :raises Incomplete: if its page map cannot be read
    """
    problems = Problems()
    pgmaps = problems.take(pages_pgmap(prog))
    if name is not None:
        namespace = find_namespace(prog, name)
        pgmap = pgmap_of(namespace, pgmaps)
        if pgmap is not None:
            # Problems of other page maps do not matter.
            return Partial([(namespace.dev, pgmap)])
        if problems:
            raise Incomplete(p.about(f"page map of {namespace.dev}") for p in problems)
        raise NotFound(f"{name} {_why_none(namespace)}")
    # Without debug info of libnvdimm only the names of the page maps are missing.
    namespaces = problems.take(for_each_namespace(prog), "names of namespaces")
    names = {
        pgmap.address: namespace.dev
        for namespace in namespaces
        if (pgmap := pgmap_of(namespace, pgmaps)) is not None
    }
    chosen = [g for g in pgmaps if g.type in _TYPES]
    return problems.partial([(names.get(g.address, f"pgmap {g.address:#x}"), g) for g in chosen])


def _why_none(namespace: Namespace) -> str:
    """Why a namespace has no struct pages of its own."""
    devices = namespace.daxregion.devices if namespace.daxregion else ()
    if any(device.mode == "system-ram" for device in devices):
        return "is used as RAM (system-ram): its struct pages are those of RAM; pmem-page shows one"
    if not namespace.enabled:
        return "is disabled: it has no struct pages"
    return f"is in {namespace.mode or 'sector or raw'} mode: it has no struct pages"


class _Describer:
    """Turns runs and groups of one namespace into records."""

    def __init__(
        self,
        prog: Program,
        name: str,
        pgmap: Pgmap,
        known: "NDArray[np.uint64]",
        all_known: bool,
        problems: Problems,
    ) -> None:
        self._prog = prog
        self._name = name
        self._known = known
        """Addresses of the page maps."""
        self._all_known = all_known
        """Whether these are all."""
        self._problems = problems
        self._layout = page_layout(prog)
        self._folios = self._layout.generation is DaxGeneration.FOLIO
        self._idle = problems.attempt("pins", lambda: idle_refcount(prog, pgmap.type))
        self._names: dict[int, tuple[str, ...] | None] = {}

    def pins(self, runs: "Runs") -> "NDArray[np.int64]":
        """References beyond idle and mappings; :data:`_NOT_KNOWN` where these are not known."""
        if self._idle is None:
            return np.full(len(runs), _NOT_KNOWN, np.int64)
        pins = runs["refcount"].astype(np.int64) - self._idle
        if self._folios:
            pins -= np.maximum(runs["mapcount"], 0)
        pins = np.where(runs["kind"] == Kind.PAGE, np.maximum(pins, 0), 0)
        if self._folios:
            pins[(runs["kind"] == Kind.PAGE) & (runs["mapcount"] < 0)] = _NOT_KNOWN
        return pins

    def overwritten(self, runs: "Runs") -> "Mask":
        """Struct pages that point to no page map of the crashed kernel, or to none of those that
        could be read: nothing in them is known to be the crashed kernel's."""
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
        base = PageGroup(
            namespace=self._name,
            status="",
            state=state,
            pages=pages,
            size=pages << self._layout.page_shift,
            ranges=int(row["runs"]) if "runs" in named else 1,
        )
        if kind is Kind.UNINITIALISED:
            return replace(base, status="uninitialised")
        if kind is Kind.GAP:
            return replace(base, status=state.value)
        if kind is Kind.TORN:
            return replace(base, status="torn")
        if kind is Kind.CUT:
            return replace(base, status="unknown")
        flags, mapping = int(row["flags"]), int(row["mapping"])
        poison = self._layout.hwpoison_bit
        hwpoison = None if poison is None else bool(flags & poison)
        names = self._flag_names(flags)
        if kind is Kind.MEMMAP:
            return replace(
                base,
                status="poisoned" if hwpoison else "memmap",
                flags=flags,
                flag_names=names,
                refcount=int(row["refcount"]),
                hwpoison=hwpoison,
            )
        if kind is Kind.TAIL:
            status = "poisoned" if hwpoison else "tail"
            return replace(base, status=status, flags=flags, flag_names=names, hwpoison=hwpoison)
        alone = np.array([row], row.dtype)
        if self.overwritten(alone)[0]:
            if not self._all_known:
                return replace(base, status="unknown")
            return replace(base, status="overwritten", pgmap_known=False)
        counted = int(self.pins(alone)[0])
        pins = None if counted == _NOT_KNOWN else counted
        shared = bool(row["shared"])
        mapcount = int(row["mapcount"])
        return replace(
            base,
            status=self._status(hwpoison, pins, shared, mapping),
            flags=flags,
            flag_names=names,
            refcount=int(row["refcount"]),
            mapcount=mapcount if self._folios and mapcount >= 0 else None,
            pins=pins,
            shared=shared,
            hwpoison=hwpoison,
            folio_pages=int(row["folio"]) or None,
            mapping=mapping if mapping > 3 else None,
            pgmap_known=True,
        )

    @staticmethod
    def _status(hwpoison: bool | None, pins: int | None, shared: bool, mapping: int) -> str:
        if hwpoison:
            return "poisoned"
        if pins:
            return "pinned"
        if shared:
            return "shared"
        if mapping > 3:
            return "file"
        return "unknown" if pins is None else "idle"

    def _flag_names(self, flags: int) -> tuple[str, ...] | None:
        if flags not in self._names:
            self._names[flags] = self._problems.attempt(
                "names of flags", lambda: flag_names(self._prog, flags)
            )
        return self._names[flags]

    def range(self, row: Any) -> PageRange:
        group = self.group(row)
        pfn, kind = int(row["pfn"]), Kind(int(row["kind"]))
        index = int(row["index"])
        heads = {Kind.TAIL: int(row["mapping"]), Kind.CUT: index}
        return PageRange(
            pfn=pfn,
            group=group,
            physical=pfn << self._layout.page_shift,
            index=index if group.mapping is not None and self._layout.keeps_index else None,
            share=index if group.shared else None,
            head_pfn=heads.get(kind),
        )

    def explain(self, scan: Scan, notes: list[str]) -> None:
        """Notes and problems of the struct pages of the namespace."""
        groups = scan.groups
        torn = _pages(groups[groups["kind"] == Kind.TORN])
        if torn:
            notes.append(f"{self._name}: {torn} struct pages are invalid: overwritten or corrupt")
        strange = _pages(groups[self.overwritten(groups)])
        if strange and not self._all_known:
            self._damaged(
                f"{strange} struct pages point to none of the page maps that could be read: whether"
                " they were written after the crash is not known",
                Cause.NOT_SAVED,
            )
        elif strange:
            self._damaged(
                f"{strange} struct pages were written after the crash (they point to no page map "
                "of this kernel): a capture kernel bound the namespace; pmem-files needs none of "
                "them"
            )
        pages = groups[(groups["kind"] == Kind.PAGE) & ~self.overwritten(groups)]
        unknown = _pages(pages[self.pins(pages) == _NOT_KNOWN])
        if unknown and self._idle is not None:
            self._damaged(
                f"mapcounts of {unknown} pages were not saved: whether they have extra references "
                "is unknown",
                Cause.NOT_SAVED,
            )

    def _damaged(self, why: str, cause: Cause = Cause.DAMAGED) -> None:
        self._problems.add(Problem(cause=cause, what=self._name, why=why))


def page_report(
    prog: Program,
    name: str | None = None,
    chosen: Filter | None = None,
    *,
    ranges: bool = False,
    keep: int = 50_000,
    progress: Progress | None = None,
) -> Partial[PageReport]:
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
    problems = Problems()
    groups: list[PageGroup] = []
    found: list[PageRange] = []
    notes: list[str] = []
    todo = problems.take(namespaces_to_scan(prog, name))
    pgmaps = pages_pgmap(prog)
    # If these are all page maps, a struct page that points to none of them was overwritten.
    known = np.array([g.address for g in problems.take(pgmaps)], np.uint64)
    total = sum(end - start for start, end, _ in scan_ranges(g for _, g in todo))
    done = 0
    if not todo and not problems:
        notes.append("no page map: no namespace in fsdax or devdax mode was enabled")
    for title, pgmap in todo:
        describer = _Describer(prog, title, pgmap, known, pgmaps.complete, problems)
        owners = _Owners(prog, chosen.owner, problems)
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
        partial = scan_pages(prog, todo_here, where=where, keep=first_keep, progress=count)
        if chosen.owner is not None:
            wanted = owners.matching(partial.value.groups)
            if ranges and not _interrupted(partial):
                # Now that the owner's mappings are known, its ranges.
                partial = scan_pages(
                    prog, todo_here, where=functools.partial(where, wanted=wanted), keep=keep
                )
        scan = problems.take(partial, title)
        here = scan.groups[describer.mask(scan.groups, chosen, wanted)]
        groups += [_named(describer.group(row), owners) for row in here]
        if ranges:
            for row in scan.runs[describer.mask(scan.runs, chosen, wanted)]:
                one = describer.range(row)
                found.append(replace(one, group=_named(one.group, owners)))
        done += scan.pages
        if _interrupted(partial):
            break
        describer.explain(scan, notes)
    if chosen.shared:
        notes += _compare_shared(prog, groups, [pgmap for _, pgmap in todo], problems)
    report = PageReport(groups=tuple(groups), ranges=tuple(found), notes=tuple(notes))
    return problems.partial(report)


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


def _pages(groups: Iterable[Any]) -> int:
    return sum(int(group["pages"]) for group in groups)
