# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Coverage of namespaces
----------------------

What a dump holds of each namespace: info block, metadata, user data, struct pages, and whether the
struct pages can be trusted. The cases are those of "[RFC PATCH v2 0/3] pmem memmap dump support":

==============================  =====================  ======================
what was dumped                 struct pages in RAM    struct pages on pmem
==============================  =====================  ======================
user data of the pmem too       A                      B
struct pages only               C                      D
==============================  =====================  ======================

No case: the dump has neither, or the namespace has no struct pages.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from drgn import FaultError, Program

from drgn_pmem.analysis.coverage.advice import advise
from drgn_pmem.analysis.inventory.infoblocks import FoundBlock, find_blocks
from drgn_pmem.analysis.inventory.machine import read_machine
from drgn_pmem.analysis.inventory.parts import (
    INFOBLOCK,
    METADATA,
    PADDING,
    USERDATA,
    Stretch,
    stretches_of_block,
    stretches_of_namespace,
)
from drgn_pmem.analysis.memmap.intact import MemmapCheck, check_memmap
from drgn_pmem.analysis.memmap.place import StructPages
from drgn_pmem.analysis.memmap.sources import Memmap, MemmapAnswer, read_memmaps
from drgn_pmem.analysis.memmap.without_debuginfo import struct_pages_of_data
from drgn_pmem.dumpfile import Coverage, State, coverage_of, dump_of
from drgn_pmem.errors import MissingDebugInfo, NotFound, PmemError
from drgn_pmem.formats.infoblock import PFN_MODE_PMEM, InfoBlock, fill_in_defaults
from drgn_pmem.kernel.page import pages_pgmap
from drgn_pmem.kernel.pgmap import Pgmap
from drgn_pmem.partial import Cause, Problems

__all__ = ("CoverageAnswer", "NamespaceCoverage", "read_namespace_coverage")


@dataclass(frozen=True)
class NamespaceCoverage:
    """What the dump holds of one namespace."""

    namespace: str | None
    """None for one that is known from its info block only."""
    mode: str | None
    map: str | None
    start: int
    """Physical."""
    end: int
    """Exclusive."""
    stretches: tuple[Stretch, ...]
    infoblock: dict[State, int]
    metadata: dict[State, int]
    """Info block included."""
    userdata: dict[State, int]
    struct_pages: dict[State, int]
    """Struct pages that read as zero count as excluded."""
    pages: StructPages | None
    location: str | None
    """Where the struct pages are: ``"mem"``, ``"pmem"``, ``"pmem + mem"``; None if there are none
    or no one can tell."""
    check: MemmapCheck | None
    kmem: int = 0
    """bytes of it that the kernel used as RAM (dax/kmem)"""
    notes: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    """What could not be told."""
    advice: str = ""
    coverage: Coverage | None = field(default=None, repr=False, compare=False)

    def parts(self) -> Iterator[tuple[str, int, State | None]]:
        """(kind of stretch, bytes, state) from front to end, for a drawing."""
        for item in self.stretches:
            if item.kind == PADDING or self.coverage is None:
                yield PADDING, item.end - item.start, None
                continue
            for part in self.coverage.ranges(item.start, item.end):
                yield item.kind, part.size, part.state

    @property
    def has_memmap(self) -> bool:
        """Whether it has struct pages at all."""
        return bool(self.struct_pages) or self.location is not None

    @property
    def memmap_saved(self) -> int:
        """bytes"""
        return self.struct_pages.get(State.SAVED, 0)

    @property
    def memmap_size(self) -> int:
        """bytes"""
        return sum(self.struct_pages.values())

    @property
    def destroyed(self) -> bool:
        """Whether the struct pages were initialised again after the crash."""
        return self.check is not None and self.check.destroyed

    @property
    def scope(self) -> str:
        """What of it was dumped: ``"pmem"`` (user data too), ``"metadata"`` or ``"nothing"``."""
        if self.userdata.get(State.SAVED):
            return "pmem"
        # Struct pages in RAM are in every dump: of those on pmem and in RAM, more than these.
        mixed = self.location == "pmem + mem" and self.pages is not None
        always = self.pages.in_ram if mixed and self.pages is not None else 0
        return "metadata" if self.memmap_saved > always else "nothing"

    @property
    def case(self) -> str | None:
        """Case of the RFC."""
        if self.location is None or self.scope == "nothing":
            return None
        on_pmem = self.location != "mem"
        if self.scope == "pmem":
            return "B" if on_pmem else "A"
        return "D" if on_pmem else "C"

    @property
    def verdict(self) -> str:
        """One sentence."""
        return _verdict(self)

    def to_json(self) -> dict[str, Any]:
        def sizes(states: dict[State, int]) -> dict[str, int]:
            return {state.value: size for state, size in states.items()}

        return {
            "namespace": self.namespace,
            "mode": self.mode,
            "map": self.map,
            "start": f"{self.start:#x}",
            "end": f"{self.end:#x}",
            "case": self.case,
            "location": self.location,
            "scope": self.scope,
            "infoblock": sizes(self.infoblock),
            "metadata": sizes(self.metadata),
            "userdata": sizes(self.userdata),
            "struct_pages": sizes(self.struct_pages),
            "memmap": self.pages.to_json() if self.pages else None,
            "check": self.check.to_json() if self.check else None,
            "kmem": self.kmem,
            "verdict": self.verdict,
            "advice": self.advice,
            "notes": [*self.lacks, *self.notes],
        }


@dataclass(frozen=True)
class CoverageAnswer:
    """All namespaces."""

    namespaces: list[NamespaceCoverage]
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What could not be read, in words."""


def _verdict(item: NamespaceCoverage) -> str:
    if item.destroyed and item.check is not None:
        return (
            "its struct pages were initialised again after the crash, by the capture kernel: "
            f"{item.check.evidence}; nothing they say is of the crashed kernel"
        )
    if item.kmem:
        return (
            f"{item.kmem} bytes of it were used as RAM (System RAM (kmem)); of all of it "
            f"{_share(item.userdata)}"
        )
    if item.location is None:
        data = _share(item.userdata)
        if item.has_memmap or item.map is not None or item.mode in ("fsdax", "devdax"):
            return f"where its struct pages are cannot be told; of its data {data}"
        return f"it has no struct pages; of its data {data}"
    where = {"mem": "in RAM", "pmem": "on the pmem"}.get(item.location, "on the pmem and in RAM")
    if not item.struct_pages:
        return f"its struct pages are {where}, more cannot be told without debug info"
    if item.memmap_saved == item.memmap_size:
        return f"all its struct pages, {where}, are in the dump and can be trusted"
    if item.memmap_saved:
        share = 100 * item.memmap_saved / item.memmap_size
        return (
            f"{_percent(share)} of its struct pages, {where}, are in the dump; the rest is "
            f"{_others(item.struct_pages)}"
        )
    return (
        f"none of its struct pages, {where}, is in the dump ({_others(item.struct_pages)}): page "
        "state is unknown, owners come from i_pages only"
    )


def _percent(share: float) -> str:
    if 99 < share < 100:
        return ">99%"
    return "<1%" if 0 < share < 1 else f"{share:.0f}%"


def _others(states: dict[State, int]) -> str:
    return "/".join(state.value for state in states if state is not State.SAVED)


def _share(states: dict[State, int]) -> str:
    total = sum(states.values())
    if not total:
        return "nothing is known"
    saved = states.get(State.SAVED, 0)
    if saved == total:
        return "all is in the dump"
    if not saved:
        return f"nothing is in the dump ({_others(states)})"
    return f"{_percent(100 * saved / total)} is in the dump, the rest is {_others(states)}"


def read_namespace_coverage(prog: Program, name: str | None = None) -> CoverageAnswer:
    """
    What the dump holds of every enabled namespace, or of one.

    Without debug info of the kernel or libnvdimm, what the info blocks in the dump tell.

    :param name: Namespace by its device name, its block or character device, or its given name.
    :raises NotFound: if there is no such namespace, or no persistent memory
    :raises DumpFileError: if the program has no dump file
    """
    dump_of(prog)
    reader = _Reader(prog)
    answer = none = None
    try:
        answer = read_memmaps(prog)
        problems = list(answer.problems)
    except LookupError as error:
        problems = [str(error)]
        none = error if isinstance(error, NotFound) else None
    if answer is not None and answer.memmaps:
        if name is not None:
            answer = answer.only(prog, name)
        found = list(reader.of_memmaps(answer))
    else:
        found, more = reader.of_blocks(name)
        if not found and none is not None:
            raise none
        if not found and problems:
            of = "no info block" if name is None else f"no info block of {name!r} by name or uuid"
            raise MissingDebugInfo(f"the dump holds {of}; {problems[0]}", "vmlinux")
        problems = problems[:1]
        if name is not None and not found:
            raise NotFound(f"no namespace {name!r} by the info blocks in the dump")
        reader.notes += more
    found = [replace(item, advice=advise(prog, item)) for item in found]
    return CoverageAnswer(found, reader.notes, problems)


class _Reader:
    def __init__(self, prog: Program) -> None:
        self.prog = prog
        self.coverage = coverage_of(prog)
        self.notes: list[str] = []

    def count(self, stretches: Iterable[Stretch], *kinds: str) -> dict[State, int]:
        """Bytes by state of the stretches of these kinds."""
        total: dict[State, int] = {}
        for item in stretches:
            if item.kind in kinds:
                for state, size in self.coverage.count(item.start, item.end).items():
                    total[state] = total.get(state, 0) + size
        return total

    def of_memmaps(self, answer: MemmapAnswer) -> Iterator[NamespaceCoverage]:
        for memmap in answer.memmaps:
            yield self.of_memmap(memmap)

    def of_memmap(self, memmap: Memmap) -> NamespaceCoverage:
        namespace = memmap.namespace
        notes: list[str] = []
        lacks: list[str] = []
        stretches = tuple(stretches_of_namespace(self.prog, namespace, lacks))
        pages = memmap.struct_pages
        machine = Problems().take(read_machine(self.prog))  # read_memmaps() has the same problems
        kmem = machine.system_ram.size(namespace.range.start, namespace.range.end)
        states = dict(pages.states) if pages else {}
        check = self._check(pages, memmap.pgmap, notes)
        if check is not None and check.zero:
            states = self._without_zeroes(states, check, notes)
        return NamespaceCoverage(
            namespace.dev,
            namespace.mode,
            namespace.map,
            namespace.range.start,
            namespace.range.end,
            stretches,
            self.count(stretches, INFOBLOCK),
            self.count(stretches, INFOBLOCK, METADATA),
            self.count(stretches, USERDATA),
            states,
            pages,
            None if kmem else _location(pages),
            check,
            kmem,
            tuple(notes),
            tuple(lacks),
            coverage=self.coverage,
        )

    def _check(
        self, pages: StructPages | None, pgmap: Pgmap | None, notes: list[str]
    ) -> MemmapCheck | None:
        if pages is None or not pages.saved:
            return None
        pgmaps = pages_pgmap(self.prog)
        known = Problems().take(pgmaps) if pgmap is not None and pgmaps.complete else None
        end = pages.first_pfn + pages.npfns
        try:
            check = check_memmap(self.prog, pages.first_pfn, end, known)
        except (PmemError, FaultError) as error:
            notes.append(f"its struct pages could not be checked: {error}")
            return None
        if check.destroyed:
            notes.append(f"struct pages initialised again after the crash: {check.evidence}")
        elif check.foreign:
            notes.append(f"{check.evidence}: damaged")
        return check

    def _without_zeroes(
        self, states: dict[State, int], check: MemmapCheck, notes: list[str]
    ) -> dict[State, int]:
        """Count struct pages that read as zero as what they are: left out."""
        saved = states.get(State.SAVED, 0)
        # Whole struct pages, so that nothing but rounding of a sample is ever off.
        zero = saved if check.zero == check.looked_at else int(saved * check.zero_share)
        if not check.sampled and check.total:
            zero = min(saved, check.zero * (saved // check.total if check.total else 0))
        notes.append(
            f"{check.zero} of {check.looked_at} struct pages read as zero, which the kernel never "
            "leaves: makedumpfile left them out and wrote zeroes; counted as excluded"
        )
        states = states | {
            State.SAVED: saved - zero,
            State.EXCLUDED: states.get(State.EXCLUDED, 0) + zero,
        }
        return {state: size for state, size in states.items() if size}

    def of_blocks(self, name: str | None) -> tuple[list[NamespaceCoverage], list[str]]:
        """What info blocks alone tell."""
        problems = Problems()
        found = problems.take(find_blocks(self.prog))
        self.notes.append(f"no debug info: namespaces by their info blocks, in {found.searched}")
        more = [str(p) for p in problems if p.cause is not Cause.NO_DEBUG_INFO]
        wanted = [b for b in found.blocks if b.block or b.namespace]
        if name is not None:
            wanted = [b for b in wanted if b.is_called(name)]
        return [self.of_block(b) for b in wanted], more

    def of_block(self, found: FoundBlock) -> NamespaceCoverage:
        stretches = tuple(stretches_of_block(found))
        pages, states, check = None, {}, None
        notes = list(found.notes)
        if found.data is not None and isinstance(found.block, InfoBlock):
            first, end = found.data
            if found.block.mode != PFN_MODE_PMEM:
                # Without an altmap the pages before the data have struct pages as well.
                first = found.start + fill_in_defaults(found.block).start_pad
            try:
                pages = struct_pages_of_data(self.prog, found.start, first, end)
            except PmemError as error:
                notes.append(f"struct pages: {error}")
        if pages is not None:
            states = dict(pages.states)
            check = self._check(pages, None, notes)
            if check is not None and check.zero:
                states = self._without_zeroes(states, check, notes)
        block = found.block
        return NamespaceCoverage(
            found.namespace,
            "sector" if found.chain else found.kind if found.data else None,
            ("dev" if block.mode == PFN_MODE_PMEM else "mem")
            if isinstance(block, InfoBlock)
            else None,
            found.start,
            max((item.end for item in stretches), default=found.start),
            stretches,
            self.count(stretches, INFOBLOCK),
            self.count(stretches, INFOBLOCK, METADATA),
            self.count(stretches, USERDATA),
            states,
            pages,
            _location(pages),
            check,
            0,
            tuple(notes),
            coverage=self.coverage,
        )


def _location(pages: StructPages | None) -> str | None:
    """By the page tables: whatever the namespace was made with."""
    if pages is None:
        return None
    places = [n for n, size in (("pmem", pages.on_pmem), ("mem", pages.in_ram)) if size]
    return " + ".join(places) or None
