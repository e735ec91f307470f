# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Pins
----

Pages of persistent memory that someone holds beyond idle and their mappings, who holds them, and
who waits for them. A truncate, a hole punch or an unmount of a DAX file system waits for every
reference on the file's pages (layout break): this names the page, the file, the waiting task and
the holder.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from drgn import Program

from drgn_pmem.analysis.findings.stacks import StackFinding, search_stacks
from drgn_pmem.analysis.owners.daxfiles import DaxFiles, dax_files_of
from drgn_pmem.analysis.owners.search import PageOwners, owners_of
from drgn_pmem.analysis.pages.filter import Filter
from drgn_pmem.analysis.pages.states import page_report
from drgn_pmem.errors import PmemError
from drgn_pmem.kernel.holders import for_each_held, for_each_pinning_device
from drgn_pmem.kernel.page import pages_pgmap, read_page
from drgn_pmem.kernel.tasks import Task
from drgn_pmem.kernel.walk import collect, until_interrupted
from drgn_pmem.partial import Problems

__all__ = ("Holder", "PinnedPage", "Pins", "Waiter", "find_pins")

_DAX_TYPES = ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_GENERIC", "MEMORY_DEVICE_DEVDAX")
"""``enum memory_type`` of persistent memory; DEVDAX became GENERIC in v5.7."""

_MAX_PAGES = 1 << 14
_MAX_TOLD = 10
"""Pinned pages that are shown."""


@dataclass(frozen=True)
class Holder:
    """Who holds a page, or may."""

    task: Task
    kind: str
    """``"vmsplice"``, ``"splice"``, ``"io_uring"``, ``"direct I/O"``, ``"RDMA"``, ``"vfio"``,
    ``"user pages"``, ``"stack"``"""
    pfn: int
    """The very page (of a large folio)."""
    evidence: str
    certain: bool
    """False if it only could."""

    def to_json(self) -> dict[str, Any]:
        return {
            "pid": self.task.tgid,
            "comm": self.task.comm,
            "kind": self.kind,
            "pfn": self.pfn,
            "evidence": self.evidence,
            "certain": self.certain,
        }


@dataclass(frozen=True)
class Waiter:
    """A task that waits in a layout break."""

    task: Task
    function: str
    pfn: int | None
    """The page it waits for, as its stack names it; None if it does not."""
    file: str | None
    """The file whose layout it breaks, as its frames name it."""

    def to_json(self) -> dict[str, Any]:
        return {
            "pid": self.task.pid,
            "comm": self.task.comm,
            "function": self.function,
            "pfn": self.pfn,
            "file": self.file,
        }


@dataclass(frozen=True)
class PinnedPage:
    """A page that someone holds or waits for."""

    pfn: int
    """The head of a large folio."""
    owners: PageOwners
    holders: tuple[Holder, ...]
    waiters: tuple[Waiter, ...]

    def count(self, name: str) -> int | None:
        """
        A count of the struct page; None if it does not stand.

        :param name: ``"refcount"``, ``"mapcount"``, ``"pins"`` or ``"order"``
        """
        return getattr(self.owners.page, name) if self.owners.trusted else None

    def to_json(self) -> dict[str, Any]:
        record = self.owners.to_json()
        keys = ("pfn", "physical", "page", "namespace", "device", "state", "reason", "refcount")
        return {key: record[key] for key in keys} | {
            "mapcount": self.count("mapcount"),
            "pins": self.count("pins"),
            "order": self.count("order"),
            "owners": record["owners"],
            "holders": [h.to_json() for h in self.holders],
            "waiters": [w.to_json() for w in self.waiters],
            "notes": record["notes"],
        }


@dataclass(frozen=True)
class Pins:
    """All pinned pages and waiting tasks, and what the list may lack."""

    pages: tuple[PinnedPage, ...]
    waiters: tuple[Waiter, ...]
    """All of them, also those whose page is not known."""
    notes: tuple[str, ...]
    lacks: tuple[str, ...]
    """What could not be read, so that there may be more."""
    complete: bool
    """Whether everything that could know of a pin could be read."""


class _Search:
    def __init__(self, prog: Program) -> None:
        self.prog = prog
        self.files: DaxFiles = dax_files_of(prog)
        self.notes: list[str] = []
        self.lacks: list[str] = []
        self.problems: list[str] = list(self.files.problems)
        self.holders: dict[int, list[Holder]] = {}
        self.waiters: list[Waiter] = []
        self.heads: dict[int, int] = {}
        self.pgmaps = [g for g in collect(pages_pgmap(prog))[0] if g.type in _DAX_TYPES]

    def run(self) -> Pins:
        pinned = set(self._busy())
        self._read_objects()
        self._read_stacks(pinned)
        wanted = pinned | set(self.holders)
        wanted |= {self._head(w.pfn) for w in self.waiters if w.pfn is not None}
        if len(wanted) > _MAX_PAGES:
            self.notes.append(f"{len(wanted)} pages are held; the first {_MAX_PAGES} are shown")
        pages, whole = until_interrupted(self._page(pfn) for pfn in sorted(wanted)[:_MAX_PAGES])
        if not whole:
            self.problems.append(f"interrupted: {len(pages)} of {len(wanted)} pages are shown")
        for waiter in self.waiters:
            if waiter.pfn is None:
                self.notes.append(
                    f"{waiter.task.pid}/{waiter.task.comm} waits in {waiter.function}"
                    f" for {waiter.file or 'a file that its stack does not name'}"
                )
        problems = list(dict.fromkeys(self.problems))
        return Pins(
            tuple(pages),
            tuple(self.waiters),
            tuple(self.notes),
            (*self.lacks, *(f"there may be more: {line}" for line in problems[:_MAX_TOLD])),
            not self.lacks and not self.problems,
        )

    def _is_pmem(self, pfn: int) -> bool:
        return any(g.has_pfn(pfn) for g in self.pgmaps)

    def _head(self, pfn: int) -> int:
        """The page that counts the references: the head of a large folio."""
        if pfn not in self.heads:
            page = read_page(self.prog, pfn).value
            self.heads[pfn] = pfn if page.head_pfn is None else page.head_pfn
        return self.heads[pfn]

    def _busy(self) -> Iterator[int]:
        """Pages whose struct page counts more references than idle and mappings explain."""
        gathered = Problems()
        report = gathered.take(
            page_report(self.prog, chosen=Filter(busy=True), ranges=True, keep=_MAX_PAGES)
        )
        self.notes += report.notes
        self.lacks += map(str, gathered)
        if gathered:
            self.lacks.append(
                "where struct pages are missing, only pins that holders or waiters show are known"
            )
        for found in report.ranges:
            for pfn in range(found.pfn, found.pfn + min(found.group.pages, _MAX_PAGES)):
                yield self._head(pfn)

    def _hold(self, holder: Holder) -> None:
        held = self.holders.setdefault(self._head(holder.pfn), [])
        if holder not in held:
            held.append(holder)

    def _read_objects(self) -> None:
        """Pipes and rings: they have the page in their hands."""
        try:
            for held in for_each_held(self.prog, self.problems):
                for pfn in range(held.pfn, held.pfn + held.count):
                    if self._is_pmem(pfn):
                        self._hold(Holder(held.opener.task, held.kind, pfn, held.detail, True))
        except PmemError as error:
            self.problems.append(str(error))

    def _read_stacks(self, pinned: set[int]) -> None:
        try:
            findings = search_stacks(self.prog, self.problems)
        except PmemError as error:
            self.problems.append(str(error))
            return
        for finding in findings:
            if finding.kind == "layout break":
                self._wait(finding)
            else:
                self._hold_by_stack(finding, pinned)

    def _wait(self, finding: StackFinding) -> None:
        file = None
        if finding.inode is not None:
            known = [f for f in self.files.files if f.inode.address == finding.inode]
            file = known[0].text() if known else f"inode at {finding.inode:#x}"
        waited = [p for p in finding.pages if p.how.startswith("wait")] or finding.pages
        pfns: list[int | None] = [p.pfn for p in waited]
        for pfn in pfns or [None]:
            name = file
            if name is None and pfn is not None:
                owners = owners_of(self.prog, pfn).owners
                name = owners[0].path if owners else None
            self.waiters.append(Waiter(finding.task, finding.function or "?", pfn, name))

    def _hold_by_stack(self, finding: StackFinding, pinned: set[int]) -> None:
        for page in finding.pages:
            known = self._head(page.pfn) in pinned or self._head(page.pfn) in self.holders
            # A struct page on a stack whose functions say nothing may be left over: it counts only
            # for a page that is held anyway.
            if finding.kind is None and not known:
                continue
            self._hold(
                Holder(
                    finding.task,
                    finding.kind or "stack",
                    page.pfn,
                    f"{page.how}, in {finding.function or (finding.functions or ('?',))[0]}",
                    finding.kind is not None,
                )
            )

    def _page(self, pfn: int) -> PinnedPage:
        owners = owners_of(self.prog, pfn)
        holders = list(self.holders.get(pfn, ()))
        if not any(h.certain for h in holders):
            holders += self._suspects(owners)
        waiters = [w for w in self.waiters if w.pfn is not None and self._head(w.pfn) == pfn]
        return PinnedPage(pfn, owners, tuple(holders), tuple(waiters))

    def _suspects(self, owners: PageOwners) -> Iterator[Holder]:
        """Processes that map the page and have a device open that pins user pages."""
        mappers = {m.task.tgid for o in owners.owners for m in o.mappings if m.task}
        for kind, path, opener in for_each_pinning_device(self.prog):
            if opener.task.tgid in mappers:
                detail = f"has {path} open (fd {opener.fd}) and maps the page"
                yield Holder(opener.task, kind, owners.pfn, detail, False)


def find_pins(prog: Program) -> Pins:
    """
    Find every page of persistent memory that is held, and who waits for it; after Ctrl-C, those
    that were looked at until then.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    return _Search(prog).run()
