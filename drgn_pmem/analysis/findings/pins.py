# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Pins
----

Pages of persistent memory with extra references (beyond idle and their mappings), who holds them,
and who waits for them. A truncate, a hole punch or an unmount of a DAX file system waits for every
reference on the file's pages (layout break): this names the page, the file, the waiting task and
the holder.
"""

from collections.abc import Iterator
from typing import Any

from drgn import Program

from drgn_pmem.analysis.findings.stacks import Lead, StackFinding, search_stacks
from drgn_pmem.analysis.owners.daxfiles import dax_files_of
from drgn_pmem.analysis.owners.search import PageOwners, owners_of
from drgn_pmem.analysis.pages.filter import Filter
from drgn_pmem.analysis.pages.states import read_page_report
from drgn_pmem.kernel.failurelog import FailureEvent, for_each_failure_line
from drgn_pmem.kernel.holders import Hold, PinningDevice, for_each_held, for_each_pinning_device
from drgn_pmem.kernel.page import read_page
from drgn_pmem.kernel.page_layout import page_layout
from drgn_pmem.kernel.pgmap import for_each_pmem_pgmap
from drgn_pmem.kernel.tasks import Task
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.record import Record, shown

__all__ = ("Holder", "PinnedPage", "Pins", "Waiter", "find_pins")

_MAX_PAGES = 1 << 14


class Holder(Record):
    """Who or what holds a page, or may."""

    task: Task | None
    """None: the kernel itself."""
    kind: Hold
    pfn: int
    """The exact page, within a large folio."""
    evidence: str
    certain: bool
    """Whether it holds the page for certain; False if it only may."""

    @property
    def process(self) -> str:
        """``"393/lab-pin"``; empty for the kernel itself."""
        return f"{self.task.tgid}/{self.task.comm}" if self.task else ""

    def to_json(self) -> dict[str, Any]:
        return {
            "pid": self.task.tgid if self.task else None,
            "comm": self.task.comm if self.task else None,
            "kind": self.kind.value,
            "pfn": self.pfn,
            "evidence": self.evidence,
            "certain": self.certain,
        }


def _failed(pfn: int, evidence: str) -> Holder:
    kind = Hold.MEMORY_FAILURE
    return Holder(task=None, kind=kind, pfn=pfn, evidence=evidence, certain=True)


class Waiter(Record):
    """A task that waits in a layout break."""

    task: Task
    function: str | None
    """In which; None where the frames have no names."""
    pfn: int | None
    """The page it waits for, as its stack names it; None if it does not."""
    file: str | None
    """The file whose layout it breaks, as its frames name it."""

    @property
    def place(self) -> str:
        """Where it waits, in words."""
        return self.function or "a function without a name"

    def to_json(self) -> dict[str, Any]:
        return {
            "pid": self.task.pid,
            "comm": self.task.comm,
            "function": self.function,
            "pfn": self.pfn,
            "file": self.file,
        }


class PinnedPage(Record):
    """A page that someone holds or waits for."""

    pfn: int
    """The head of a large folio."""
    owners: PageOwners
    holders: tuple[Holder, ...]
    waiters: tuple[Waiter, ...]

    def count(self, name: str) -> int | None:
        """
        A count of the struct page; None if it is not valid.

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


class Pins(Record):
    """All pinned pages and waiting tasks."""

    pages: tuple[PinnedPage, ...]
    waiters: tuple[Waiter, ...]
    """All of them, also those whose page is not known."""
    notes: tuple[str, ...] = shown(json=False)


class _Search:
    def __init__(self, prog: Program) -> None:
        self.prog = prog
        self.problems = Problems()
        self.files = self.problems.take(dax_files_of(prog))
        self.notes: list[str] = []
        self.holders: dict[int, list[Holder]] = {}
        self.waiters: list[Waiter] = []
        self.heads: dict[int, int] = {}
        page_maps = self.problems.collect(for_each_pmem_pgmap(prog))
        self.pgmaps = [pgmap for pgmap in page_maps if pgmap.is_dax]
        self.keeps_index = page_layout(prog).keeps_index
        self.devices: dict[int, list[PinningDevice]] = {}
        """Process -> the devices that pin user pages it has open."""

    def run(self) -> Partial[Pins]:
        pinned = set(self._busy())
        self._read_objects()
        self._read_failures()
        self._read_stacks(pinned)
        wanted = pinned | set(self.holders)
        wanted |= {self._head(w.pfn) for w in self.waiters if w.pfn is not None}
        if len(wanted) > _MAX_PAGES:
            why = f"{len(wanted)} pages are held; the first {_MAX_PAGES} are shown"
            self.problems.add(Problem(cause=Cause.LIMIT, why=why))
        pages: list[PinnedPage] = []
        try:
            for pfn in sorted(wanted)[:_MAX_PAGES]:
                pages.append(self._page(pfn))
        except KeyboardInterrupt:
            why = f"interrupted: {len(pages)} of {len(wanted)} pages are shown"
            self.problems.add(Problem(cause=Cause.INTERRUPTED, why=why))
        for waiter in self.waiters:
            if waiter.pfn is None:
                self.notes.append(
                    f"{waiter.task.pid}/{waiter.task.comm} waits in {waiter.place}"
                    f" for {waiter.file or 'a file that its stack does not name'}"
                )
        return self.problems.partial(
            Pins(pages=tuple(pages), waiters=tuple(self.waiters), notes=tuple(self.notes))
        )

    def _is_pmem(self, pfn: int) -> bool:
        return any(g.has_pfn(pfn) for g in self.pgmaps)

    def _head(self, pfn: int) -> int:
        """The page that counts the references: the head of a large folio."""
        if pfn not in self.heads:
            # not a problem: the report of struct pages says what is missing of them
            page = Problems().take(read_page(self.prog, pfn))
            self.heads[pfn] = pfn if page.head_pfn is None else page.head_pfn
        return self.heads[pfn]

    def _busy(self) -> Iterator[int]:
        """Pages whose struct page counts more references than idle and mappings explain."""
        found = read_page_report(
            self.prog, chosen=Filter(busy=True), ranges=True, keep=_MAX_PAGES, ram=False
        )
        report = self.problems.take(found)
        self.notes += report.notes
        if not found.complete:
            self.notes.append(
                "where struct pages are missing, only pins that holders or waiters show are known"
            )
        for busy in report.ranges:
            for pfn in range(busy.pfn, busy.pfn + min(busy.group.pages, _MAX_PAGES)):
                yield self._head(pfn)

    def _hold(self, holder: Holder) -> None:
        held = self.holders.setdefault(self._head(holder.pfn), [])
        if holder not in held:
            held.append(holder)

    def _read_objects(self) -> None:
        """Pipes and io_uring rings name the exact page."""
        for held in self.problems.take(for_each_held(self.prog), "there may be more holders"):
            for pfn in range(held.pfn, held.pfn + held.count):
                if self._is_pmem(pfn):
                    self._hold(
                        Holder(
                            task=held.opener.task,
                            kind=held.kind,
                            pfn=pfn,
                            evidence=held.detail,
                            certain=True,
                        )
                    )
        devices = self.problems.take(
            for_each_pinning_device(self.prog), "there may be more holders"
        )
        for device in devices:
            self.devices.setdefault(device.opener.task.tgid, []).append(device)

    def _read_failures(self) -> None:
        """
        Memory failures, by the kernel log. Before Linux kernel commit 6100e34b2526 ("mm,
        memory_failure: Teach memory_failure() about dev_pagemap pages") (in v4.19, with the index
        of DAX pages), the kernel takes the page for a reserved one, marks it all the same, and
        never drops its reference.
        """
        if self.keeps_index:
            return
        failed: dict[int, Holder] = {}
        lines = self.problems.take(for_each_failure_line(self.prog), "there may be more holders")
        for line in lines:
            if line.event is FailureEvent.CLEARED:
                failed.pop(line.pfn, None)
            elif "recovery action for reserved kernel page" in line.text:
                failed[line.pfn] = _failed(line.pfn, f"kernel log: {line.text}")
        for pfn, holder in failed.items():
            if any(g.has_pfn(pfn) and pfn >= g.first_pfn for g in self.pgmaps):
                self._hold(holder)

    def _read_stacks(self, pinned: set[int]) -> None:
        with self.problems.trying("stacks"):
            for finding in self.problems.take(search_stacks(self.prog)):
                if finding.layout_break:
                    self._wait(finding)
                else:
                    self._hold_by_stack(finding, pinned)

    def _wait(self, finding: StackFinding) -> None:
        file = None
        if finding.inode is not None:
            known = [f for f in self.files.files if f.inode.address == finding.inode]
            file = known[0].text(self.problems) if known else f"inode at {finding.inode:#x}"
        waited = [p for p in finding.pages if p.how is Lead.WAIT] or finding.pages
        pfns: list[int | None] = [p.pfn for p in waited]
        for pfn in pfns or [None]:
            name = file
            if name is None and pfn is not None:
                for owner in self.problems.take(owners_of(self.prog, pfn)).owners[:1]:
                    if owner.name is not None and owner.inode is not None:
                        name = f"{owner.name} (ino {owner.inode})"
            self.waiters.append(
                Waiter(task=finding.task, function=finding.function, pfn=pfn, file=name)
            )

    def _hold_by_stack(self, finding: StackFinding, pinned: set[int]) -> None:
        for page in finding.pages:
            known = self._head(page.pfn) in pinned or self._head(page.pfn) in self.holders
            # A struct page on a stack whose functions say nothing may be left over: it counts only
            # for a page that is held anyway.
            if finding.hold is None and not known:
                continue
            function = finding.function or (finding.functions or ("?",))[0]
            self._hold(
                Holder(
                    task=finding.task,
                    kind=finding.hold or Hold.STACK,
                    pfn=page.pfn,
                    evidence=f"{page.how.value}, in {function}",
                    certain=finding.hold is not None,
                )
            )

    def _page(self, pfn: int) -> PinnedPage:
        owners = self.problems.take(owners_of(self.prog, pfn))
        holders = list(self.holders.get(pfn, ()))
        if not any(h.kind is Hold.MEMORY_FAILURE for h in holders):
            holders += self._memory_failure(owners)
        if not any(h.certain for h in holders):
            holders += self._suspects(owners)
        waiters = [w for w in self.waiters if w.pfn is not None and self._head(w.pfn) == pfn]
        return PinnedPage(pfn=pfn, owners=owners, holders=tuple(holders), waiters=tuple(waiters))

    def _memory_failure(self, owners: PageOwners) -> Iterator[Holder]:
        """The reference of a memory failure whose line is no longer in the log."""
        page = owners.page
        if owners.trusted and page.hwpoison and page.pins and not self.keeps_index:
            why = "poisoned (PG_hwpoison): before Linux 4.19 memory_failure() keeps its reference"
            yield _failed(owners.pfn, why)

    def _suspects(self, owners: PageOwners) -> Iterator[Holder]:
        """Processes that map the page and have a device open that pins user pages."""
        mappers = {m.task.tgid for o in owners.owners for m in o.mappings if m.task}
        for pid in sorted(mappers):
            for device in self.devices.get(pid, ()):
                yield Holder(
                    task=device.opener.task,
                    kind=device.kind,
                    pfn=owners.pfn,
                    evidence=f"has {device.path} open (fd {device.opener.fd}) and maps the page",
                    certain=False,
                )


def find_pins(prog: Program) -> Partial[Pins]:
    """
    Find every page of persistent memory that is held, and who waits for it; after Ctrl-C, those
    that were looked at until then.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    return _Search(prog).run()
