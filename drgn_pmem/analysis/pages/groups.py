# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Groups and ranges of pages
--------------------------

The records of a scan: groups of equal pages and the ranges they are in, with their status, and how
they are made from runs (:mod:`drgn_pmem.analysis.pages.runs`).
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from drgn import Program
import numpy as np

from drgn_pmem.analysis.pages.filter import Filter
from drgn_pmem.analysis.pages.runs import Kind
from drgn_pmem.analysis.pages.scan import Scan
from drgn_pmem.dumpfile import Coverage, State
from drgn_pmem.kernel.page import idle_refcount
from drgn_pmem.kernel.page_layout import USE_NOT_SHOWN, DaxGeneration, page_layout
from drgn_pmem.kernel.pageflags import flag_names
from drgn_pmem.kernel.pageuse import ANON, KSM
from drgn_pmem.kernel.pgmap import Pgmap, is_driver_type, use_of_device_memory
from drgn_pmem.partial import Cause, Problem, Problems
from drgn_pmem.record import Record, Show, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Runs = NDArray[np.void]
    Mask = NDArray[np.bool_]

__all__ = ("Describer", "PageGroup", "PageRange")

STATES = {Coverage.code(state): state for state in State}

_NOT_KNOWN = -1
"""Of references beyond idle and mappings, where the mappings are not known."""


class PageGroup(Record):
    """Equal pages of one namespace."""

    namespace: str
    """Or what else the page map belongs to."""
    type: str | None = None
    """``enum memory_type`` of the page map; None of memory that is used as RAM."""
    status: str
    """What they are doing, in a word or two: ``"idle"``, ``"file"``, ``"shared"``, ``"pinned"``,
    ``"poisoned"``, ``"tail"``, ``"memmap"``, ``"uninitialised"``, ``"overwritten"``, ``"torn"``,
    ``"unknown"`` (neither idle nor in use by what could be read; what the head says of tail pages
    that are cut off from it), or the state of struct pages that are not in the dump. Of device
    memory that is not of DAX ``"anonymous"``, ``"free"``, ``"device memory"``. Of memory that is
    used as RAM ``"page cache"``, ``"anonymous"``, ``"slab"``, ``"page table"``, ``"reserved"``,
    ``"allocated"``, ``"memmap"``, ``"free"``, ``"free on a CPU"``, ``"offline"``."""
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
    """File or device; of anonymous memory its processes. Of a group of RAM the first ones and how
    many there are."""
    pgmap_known: bool | None = None
    memory_block: str | None = None
    """Of memory that is used as RAM: ``"memory44"``; None otherwise. Its groups are of one use and
    not of one set of flags and counts, which are None then."""
    zone: str | None = None
    """Of its memory block: ``"Movable"``."""
    blocks_offline: bool | None = None
    """Of RAM: whether these pages keep their memory block from going offline. None for other memory
    and if that is not known."""
    extra: int | None = None
    """Of a range of RAM: references of each page beyond those of mappings and the page cache."""


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


class Describer:
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
        self._pgmap = pgmap
        self._idle = problems.attempt("pins", lambda: idle_refcount(prog, pgmap.type))
        self._shows_use = self._layout.keeps_index or not pgmap.is_device_dax
        """Whether a page without a mapping is not in use."""
        self._names: dict[tuple[int, bool], tuple[str, ...] | None] = {}

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
        # A poisoned page that holds struct pages is one to know of; it has no owner and no pins.
        marked = chosen.hwpoison or chosen.flags
        kinds = (Kind.PAGE, Kind.TAIL, Kind.MEMMAP) if marked else (Kind.PAGE, Kind.TAIL)
        mask &= np.isin(runs["kind"], kinds)
        mask &= ~self.overwritten(runs)
        if chosen.flags:
            wanted = np.uint64(chosen.flags)
            mask &= runs["flags"] & wanted == wanted
        if chosen.hwpoison:
            mask &= runs["flags"] & np.uint64(self._layout.hwpoison_bit or 0) != 0
        if chosen.shared:
            mask &= (runs["shared"] != 0) & self._pgmap.is_dax
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

    def merged_groups(self, groups: "Runs") -> "Runs":
        """
        Groups of which only the number of pages is shown, as one: pages that were overwritten, or
        whose head is not known, may be a group each.

        :param groups: Array of :data:`~drgn_pmem.analysis.pages.scan.GROUP`.
        """
        alike = self._alike(groups)
        parts = [groups[alike == 0]]
        for number in (1, 2):
            same = groups[alike == number]
            if len(same):
                parts.append(same[:1].copy())
                for name in ("pages", "runs"):
                    parts[-1][name] = same[name].sum()
        merged = np.concatenate(parts)
        return merged[np.argsort(-merged["pages"].astype(np.int64), kind="stable")]

    def merged_runs(self, runs: "Runs") -> "Runs":
        """The same of runs, where one follows the other."""
        if not len(runs):
            return runs
        alike = self._alike(runs)
        follows = runs["pfn"][1:] == runs["pfn"][:-1] + runs["count"][:-1]
        joined = follows & (alike[1:] > 0) & (alike[1:] == alike[:-1])
        starts = np.flatnonzero(np.concatenate(([True], ~joined)))
        counts = np.add.reduceat(runs["count"], starts)
        runs = runs[starts]
        runs["count"] = counts
        return runs

    def _alike(self, runs: "Runs") -> "NDArray[np.int64]":
        """1 for pages that were overwritten, 2 for tails without a head, 0 for all others."""
        return np.where(self.overwritten(runs), 1, 2 * (runs["kind"] == Kind.TORN))

    def group(self, row: Any) -> PageGroup:
        kind, state = Kind(int(row["kind"])), STATES[int(row["state"])]
        named = row.dtype.names
        pages = int(row["pages" if "pages" in named else "count"])
        base = PageGroup(
            namespace=self._name,
            type=self._pgmap.type,
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
        anonymous = (
            kind is Kind.PAGE and is_driver_type(self._pgmap.type) and mapping & 3 in (ANON, KSM)
        )
        names = self._flag_names(flags, anonymous)
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
        shared = bool(row["shared"]) if self._pgmap.is_dax else None
        mapcount = int(row["mapcount"])
        return replace(
            base,
            status=self._status(hwpoison, pins, shared, mapping, int(row["refcount"])),
            flags=flags,
            flag_names=names,
            refcount=int(row["refcount"]),
            mapcount=mapcount if self._folios and mapcount >= 0 else None,
            pins=pins,
            shared=shared,
            hwpoison=hwpoison,
            folio_pages=int(row["folio"]) or None,
            mapping=mapping if mapping > 3 and not mapping & 3 else None,
            pgmap_known=True,
        )

    def _status(
        self, hwpoison: bool | None, pins: int | None, shared: bool | None, mapping: int, count: int
    ) -> str:
        """:param count: refcount"""
        if hwpoison:
            return "poisoned"
        if not self._pgmap.is_dax:
            return use_of_device_memory(self._pgmap.type, mapping, count)
        if pins:
            return "pinned"
        if shared:
            return "shared"
        if mapping > 3:
            return "file"
        return "unknown" if pins is None or not self._shows_use else "idle"

    def _flag_names(self, flags: int, anonymous: bool) -> tuple[str, ...] | None:
        key = flags, anonymous
        if key not in self._names:
            self._names[key] = self._problems.attempt(
                "names of flags", lambda: flag_names(self._prog, flags, anonymous=anonymous)
            )
        return self._names[key]

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
        torn = count_pages(groups[groups["kind"] == Kind.TORN])
        if torn:
            notes.append(f"{self._name}: {torn} struct pages are invalid: overwritten or corrupt")
        strange = count_pages(groups[self.overwritten(groups)])
        if strange and not self._all_known:
            self._damaged(
                f"{strange} struct pages point to none of the page maps that could be read: whether"
                " they were overwritten after the crash is not known",
                Cause.NOT_SAVED,
            )
        elif strange:
            self._damaged(
                f"{strange} struct pages were overwritten after the crash (they point to no page "
                "map of the crashed kernel): a capture kernel bound the namespace; pmem-files does "
                "not need them"
            )
        pages = groups[(groups["kind"] == Kind.PAGE) & ~self.overwritten(groups)]
        unknown = count_pages(pages[self.pins(pages) == _NOT_KNOWN])
        if unknown and self._idle is not None:
            self._damaged(
                f"mapcounts of {unknown} pages were not saved: whether they have extra references "
                "is unknown",
                Cause.NOT_SAVED,
            )
        if not self._shows_use and len(pages):
            self._damaged(USE_NOT_SHOWN, Cause.FORMAT)

    def _damaged(self, why: str, cause: Cause = Cause.DAMAGED) -> None:
        self._problems.add(Problem(cause=cause, what=self._name, why=why))


def count_pages(groups: Iterable[Any]) -> int:
    return sum(int(group["pages"]) for group in groups)
