# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What of a dump can be handed on
-------------------------------

Kept are RAM (what iomem lists as System RAM) and what is known to be metadata of persistent memory.
Everything else is dropped: user data, and whatever cannot be proven not to be.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from drgn import Program
import numpy as np

from drgn_pmem.analysis.inventory.machine import MachineMap, read_machine
from drgn_pmem.analysis.inventory.names import find_namespace
from drgn_pmem.analysis.pages.words import resolve_page
from drgn_pmem.analysis.trim.headers import filling_of
from drgn_pmem.analysis.trim.metadata import (
    Layout,
    known_metadata,
    layout_of,
    may_be_zero,
    parts_of,
)
from drgn_pmem.dumpfile import DumpFormat, State, dump_of, vmcoreinfo_of
from drgn_pmem.dumpfile.coverage import ADDRESS_SPACE
from drgn_pmem.dumpfile.records import DumpFile
from drgn_pmem.dumpfile.writing.contents import Runs
from drgn_pmem.errors import DumpFileError, MissingDebugInfo
from drgn_pmem.formats.architecture import X86_64, find_architecture
from drgn_pmem.kernel.kmod import has_kernel_debug_info, how_to_get_kernel
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.ranges import Range, RangeSet
from drgn_pmem.record import Record, Show, shown

__all__ = ("TrimPart", "TrimPlan", "lost_memory", "plan_trim")

_LOW = 1 << 20
"""On x86, memory below 1 MiB is RAM or firmware, never persistent memory."""
_BLOCK = 4096
"""bytes: unit of an ELF file; namespaces and their info blocks are aligned to it"""
_CHUNK = 1 << 20
_ZEROES = bytes(_BLOCK)

_ZERO = "zeroes in space reserved for metadata"
_CUT = "pages of which the dump has only a part"
_FILLING = "rest of pages in which memory ends"
_OUTSIDE = "persistent memory outside of namespaces"
_OTHER = "neither RAM nor persistent memory"


class TrimPart(Record):
    """One kind of memory: how much of it is kept and dropped."""

    what: str
    kept: int = shown(Show.SIZE)
    """bytes"""
    dropped: int = shown(Show.SIZE)
    """bytes"""


class TrimPlan(Record):
    """What of a dump is kept."""

    unit: int
    """bytes: kept or dropped as a whole; a page in a kdump-compressed dump"""
    metadata: bool
    """Whether metadata of persistent memory is kept: only then are the answers the same."""
    parts: tuple[TrimPart, ...]
    blank: int
    """Bytes that are overwritten with X, because they share a page with what is kept."""
    keep: Runs = shown(Show.HIDDEN)
    """Physical memory that is kept."""
    blank_ranges: RangeSet = shown(Show.HIDDEN)
    filling: RangeSet = shown(Show.HIDDEN)
    """What the dump covers only because it has whole pages, where that can be left out."""

    @property
    def kept(self) -> dict[str, int]:
        """Bytes by what they are."""
        return {part.what: part.kept for part in self.parts if part.kept}

    @property
    def dropped(self) -> dict[str, int]:
        """Bytes by what they are."""
        return {part.what: part.dropped for part in self.parts if part.dropped}

    def to_json(self) -> dict[str, Any]:
        return {"kept": self.kept, "dropped": self.dropped}


def plan_trim(
    prog: Program,
    *,
    format: str = "kdump",
    metadata: bool = True,
    userdata: Sequence[str] = (),
    pages: Sequence[str] = (),
) -> Partial[TrimPlan]:
    """
    What ``pmem-trim`` keeps of a dump.

    :param format: ``"kdump"`` (whole pages are kept or dropped) or ``"elf"``.
    :param metadata: Whether metadata of persistent memory is kept.
    :param userdata: Namespaces of which everything is kept.
    :param pages: Pages that are kept, named as for ``pmem-page``.
    :return: What is kept; the problems are why something that may be metadata is dropped, pages
        that are wanted and not in the dump, and what a truncated dump lost.
    :raises MissingDebugInfo: without the kernel's debug info: what is RAM is not known
    :raises DumpFileError: if the program has no dump file
    """
    dump = dump_of(prog)
    if dump.memory is None or dump.format is DumpFormat.LIVE:
        raise DumpFileError("a running kernel is no dump: there is no file to trim")
    if not has_kernel_debug_info(prog):
        raise MissingDebugInfo(
            "what is RAM and what is persistent memory is unknown without debug info of the kernel "
            f"({how_to_get_kernel(prog)})",
            "vmlinux",
        )
    problems = Problems()
    problems.extend(lost_memory(dump))
    machine = problems.take(read_machine(prog))
    if not machine.system_ram:
        raise DumpFileError(
            f"{dump.path}: no System RAM in iomem: RAM and user data cannot be distinguished"
        )
    planner = _Planner(prog, dump, machine, problems)
    return problems.partial(planner.plan(format == "kdump", metadata, userdata, pages))


def lost_memory(dump: DumpFile) -> Iterator[Problem]:
    """What a truncated or damaged dump lost: its trimmed copy cannot show that."""
    damaged = dump.coverage.count().get(State.DAMAGED, 0)
    if damaged:
        why = (
            f"the file's entries for {damaged} bytes of memory are damaged; they are excluded in"
            " the trimmed dump, which does not show that they were lost"
        )
        yield Problem(cause=Cause.DAMAGED, why=why, what=dump.path, state=State.DAMAGED)
    if not dump.truncated:
        return
    lost = dump.coverage.count().get(State.TRUNCATED, 0)
    if lost:
        why = f"truncated: {lost} bytes of memory that its headers describe are missing; they are "
    else:
        why = "its writer could not finish it: what it lacks is "
    why += "excluded in the trimmed dump, which does not show that they were lost"
    yield Problem(cause=Cause.NOT_SAVED, why=why, what=dump.path, state=State.TRUNCATED)


class _Planner:
    def __init__(
        self, prog: Program, dump: DumpFile, machine: MachineMap, problems: Problems
    ) -> None:
        self.prog = prog
        self.dump = dump
        self.machine = machine
        self.problems = problems
        self.page_size = (
            dump.kdump.block_size if dump.kdump else vmcoreinfo_of(prog).page_size or _BLOCK
        )
        self.saved = Runs.in_state(dump.coverage, State.SAVED)

    def plan(
        self, paged: bool, metadata: bool, userdata: Sequence[str], pages: Sequence[str]
    ) -> TrimPlan:
        unit = self.page_size if paged else min(self.page_size, _BLOCK)
        # Of a namespace that the dump does not hold, nothing can be dropped.
        namespaces = [
            n for n in self.machine.namespaces if len(self.saved.within(n.range.start, n.range.end))
        ]
        layout = layout_of(self.prog, namespaces, self.problems)
        wanted = list(self._ram(layout))
        wanted += self._asked_for(userdata, pages)
        if metadata:
            wanted += self.problems.take(known_metadata(self.prog, namespaces))
            wanted.append((_ZERO, RangeSet(self._zeroes(layout, _union(wanted)))))
        every = _union(wanted)
        whole, blank = self._blank(every, unit)
        wanted.append((_ZERO, whole.subtract(every).subtract(blank)))
        filling = RangeSet()
        if not paged:
            filling = filling_of(self.prog, self.dump, self.page_size, self.problems)
        keep = self.saved.intersect(whole).subtract(filling)
        cut = RangeSet()
        if paged:
            # The rest of such a page is not in the dump, so it must not be in the new one.
            cut = _cut_pages(keep, unit)
            keep = keep.whole(unit)
        self._name_missing(pages, keep)
        return TrimPlan(
            unit=unit,
            metadata=metadata,
            parts=tuple(
                self._parts([(_FILLING, filling), (_CUT, cut), *wanted], layout, keep, blank)
            ),
            blank=blank.total,
            keep=keep,
            blank_ranges=blank,
            filling=filling,
        )

    def _ram(self, layout: Layout) -> Iterator[tuple[str, RangeSet]]:
        ram = self.machine.system_ram
        if find_architecture(self.dump.machine) == X86_64 or self._is_x86():
            ram = ram.union([Range(0, _LOW)])
        # A namespace with a disk is not RAM, even if a damaged iomem lists it as RAM.
        disks = RangeSet(n.range for n, _ in layout if n.mode in ("fsdax", "sector", "raw"))
        if ram.intersect(disks):
            why = "iomem lists RAM in a namespace that is a disk: dropped as user data"
            self.problems.add(Problem(cause=Cause.DAMAGED, why=why))
        ram = ram.subtract(disks)
        yield "RAM", ram.subtract(self.machine.pmem)
        yield "RAM on pmem (System RAM (kmem))", ram.intersect(self.machine.pmem)

    def _is_x86(self) -> bool:
        platform = self.prog.platform
        return platform is not None and find_architecture(platform.arch.name) == X86_64

    def _asked_for(
        self, userdata: Sequence[str], pages: Sequence[str]
    ) -> Iterator[tuple[str, RangeSet]]:
        for name in userdata:
            namespace = find_namespace(self.prog, name)
            yield f"{namespace.dev}: user data, as asked for", RangeSet([namespace.range])
        if pages:
            yield "pages that were asked for", RangeSet(self._page(text) for text in pages)

    def _page(self, text: str) -> Range:
        start = self.problems.take(resolve_page(self.prog, text)).pfn * self.page_size
        return Range(start, start + self.page_size)

    def _name_missing(self, pages: Sequence[str], keep: Runs) -> None:
        """Pages that were asked for and cannot be kept."""
        for text in pages:
            page = self._page(text)
            left = keep.within(page.start, page.end).total
            if left == page.size:
                continue
            states = self.dump.coverage.count(page.start, page.end)
            state = max(
                (s for s in states if s is not State.SAVED), key=lambda s: states[s], default=None
            )
            if state is None:
                why = "the machine's memory ends in it"
            elif State.SAVED in states:
                why = f"the dump has it in part (the rest is {state.value})"
            else:
                why = f"it is not in the dump ({state.value})"
            why += f": {left} bytes are kept" if left else ", so it is not kept"
            problem = Problem(cause=Cause.NOT_SAVED, why=why, what=f"page {text}", state=state)
            self.problems.add(problem)

    def _zeroes(self, layout: Layout, known: RangeSet) -> Iterator[Range]:
        """Pages of zeroes where metadata may be."""
        memory = self.dump.memory
        assert memory is not None
        candidates = RangeSet(may_be_zero(layout)).subtract(known)
        for run in self.saved.intersect(candidates).whole(_BLOCK):
            for start in range(run.start, run.end, _CHUNK):
                size = min(_CHUNK, run.end - start)
                data = None
                with self.problems.trying(f"memory at {start:#x}"):
                    data = memory.read(start, size)
                for at in range(0, size if data else 0, _BLOCK):
                    if data is not None and data[at : at + _BLOCK] == _ZEROES:
                        yield Range(start + at, start + at + _BLOCK)

    def _blank(self, keep: RangeSet, unit: int) -> tuple[RangeSet, RangeSet]:
        """What is kept, in whole units, and which parts of it must be overwritten."""
        memory = self.dump.memory
        assert memory is not None
        ram = [item for item in keep if item.start % unit == 0 and item.end % unit == 0]
        cut = [item for item in keep if item.start % unit or item.end % unit]
        whole = RangeSet(
            [*ram, *(Range(i.start // unit * unit, -(-i.end // unit) * unit) for i in cut)]
        ).contiguous()
        blank = []
        # Bytes that are not saved need not be overwritten.
        for item in self.saved.intersect(whole.subtract(keep)):
            data = None
            with self.problems.trying(f"memory at {item.start:#x}"):
                data = memory.read(item.start, item.size)
            if data is None or any(data):
                blank.append(item)
        return whole, RangeSet(blank)

    def _parts(
        self,
        wanted: Sequence[tuple[str, RangeSet]],
        layout: Layout,
        keep: Runs,
        blank: RangeSet,
    ) -> Iterator[TrimPart]:
        """Each saved byte counts once, under the first name that covers it."""
        named: list[tuple[str, RangeSet]] = list(wanted)
        of_namespaces: dict[str, list[Range]] = {}
        for name, item in parts_of(layout):
            of_namespaces.setdefault(name, []).append(item)
        named += [(name, RangeSet(ranges)) for name, ranges in of_namespaces.items()]
        named.append((_OUTSIDE, self.machine.pmem))
        named.append((_OTHER, RangeSet([Range(0, ADDRESS_SPACE)])))
        taken = RangeSet()
        sums: dict[str, tuple[int, int]] = {}
        kept = keep.subtract(blank)
        for name, ranges in named:
            own = ranges.contiguous().subtract(taken)
            taken = taken.union(own).contiguous()
            saved = self.saved.intersect(own).total
            left = kept.intersect(own).total
            before = sums.get(name, (0, 0))
            sums[name] = before[0] + left, before[1] + saved - left
        for name, (left, lost) in sums.items():
            if left or lost:
                yield TrimPart(what=name, kept=left, dropped=lost)


def _cut_pages(runs: Runs, unit: int) -> RangeSet:
    """The saved parts of pages that are not saved whole."""
    step = np.uint64(unit)
    cut = np.concatenate([runs.starts[runs.starts % step != 0], runs.ends[runs.ends % step != 0]])
    pages = np.unique(cut // step * step).tolist()
    return RangeSet(part for page in pages for part in runs.within(page, page + unit))


def _union(named: Iterable[tuple[str, RangeSet]]) -> RangeSet:
    return RangeSet(item for _, ranges in named for item in ranges).contiguous()
