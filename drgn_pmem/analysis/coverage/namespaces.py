# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Coverage of namespaces
----------------------

What a dump holds of each namespace: info block, metadata, user data, struct pages, and whether the
struct pages are intact. The cases are those of "[RFC PATCH v2 0/3] pmem memmap dump support":

==============================  =====================  ======================
what was dumped                 struct pages in RAM    struct pages on pmem
==============================  =====================  ======================
user data of the pmem too       A                      B
struct pages only               C                      D
==============================  =====================  ======================

No case: the dump has neither, or the namespace has no struct pages.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from drgn import Program

from drgn_pmem.analysis.coverage.advice import advise
from drgn_pmem.analysis.inventory.infoblocks import FoundBlock, find_blocks
from drgn_pmem.analysis.inventory.machine import read_machine
from drgn_pmem.analysis.inventory.parts import (
    INFOBLOCK,
    METADATA,
    PADDING,
    UNKNOWN,
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
from drgn_pmem.errors import MissingDebugInfo, NotFound
from drgn_pmem.formats.infoblock import PFN_MODE_PMEM, InfoBlock, fill_in_defaults
from drgn_pmem.kernel.kmod import has_kernel_debug_info
from drgn_pmem.kernel.page import pages_pgmap
from drgn_pmem.kernel.pgmap import Pgmap
from drgn_pmem.partial import Cause, Incomplete, Partial, Problem, Problems
from drgn_pmem.record import Record, Show, shown

__all__ = ("CoverageAnswer", "NamespaceCoverage", "read_namespace_coverage")


class NamespaceCoverage(Record):
    """What the dump holds of one namespace."""

    namespace: str | None
    """None for one that is known from its info block only."""
    mode: str | None
    map: str | None
    start: int = shown(Show.ADDRESS)
    """Physical."""
    end: int | None = shown(Show.ADDRESS)
    """Exclusive; None if that is not known."""
    stretches: tuple[Stretch, ...]
    infoblock: dict[State, int]
    metadata: dict[State, int]
    """Info block included."""
    userdata: dict[State, int]
    unknown: dict[State, int]
    """Metadata and user data of which the boundary is not known."""
    struct_pages: dict[State, int]
    """Struct pages that read as zero count as excluded."""
    pages: StructPages | None
    check: MemmapCheck | None
    intact: bool = False
    """Whether all struct pages that were saved could be checked, and are the crashed kernel's."""
    kmem: int | None = 0
    """bytes of it that the kernel used as RAM (dax/kmem); None if that is not known"""
    notes: tuple[str, ...] = ()
    advice: str = ""
    coverage: Coverage | None = shown(Show.HIDDEN, default=None)

    def parts(self) -> Iterator[tuple[str, int, State | None]]:
        """(kind of stretch, bytes, state) from front to end, for a drawing."""
        for item in self.stretches:
            if item.kind == PADDING or self.coverage is None:
                yield PADDING, item.end - item.start, None
                continue
            for part in self.coverage.ranges(item.start, item.end):
                yield item.kind, part.size, part.state

    @property
    def placed(self) -> bool:
        """Whether it is known where all its struct pages are."""
        return self.pages is not None and not self.pages.unknown and self.kmem == 0

    @property
    def location(self) -> str | None:
        """Where the struct pages are by the page tables, whatever the namespace was made with:
        ``"mem"``, ``"pmem"``, ``"pmem + mem"``; None if there are none, or that is not known."""
        if self.pages is None or not self.placed:
            return None
        places = [
            n for n, size in (("pmem", self.pages.on_pmem), ("mem", self.pages.in_ram)) if size
        ]
        return " + ".join(places) or None

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
    def scope(self) -> str | None:
        """What was dumped: ``"pmem"`` (user data too), ``"metadata"`` or ``"nothing"``; None if
        unknown."""
        if self.userdata.get(State.SAVED):
            return "pmem"
        if self.pages is not None and self.pages.unknown:
            return None
        if self.unknown.get(State.SAVED) or not self.memmap_known:
            return None
        # Struct pages in RAM are in every dump: of those on pmem and in RAM, more than these.
        mixed = self.pages is not None and self.pages.on_pmem and not self.kmem
        always = self.pages.in_ram if mixed and self.pages is not None else 0
        return "metadata" if self.memmap_saved > always else "nothing"

    @property
    def memmap_known(self) -> bool:
        """Whether it is known which struct pages it has, or that it has none."""
        none = self.map is None and self.mode in ("raw", "sector")
        return self.pages is not None or bool(self.kmem) or none

    @property
    def case(self) -> str | None:
        """Case of the RFC."""
        if self.location is None or self.scope in (None, "nothing"):
            return None
        on_pmem = self.pages is not None and self.pages.on_pmem > 0
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
            "end": None if self.end is None else f"{self.end:#x}",
            "case": self.case,
            "location": self.location,
            "scope": self.scope,
            "infoblock": sizes(self.infoblock),
            "metadata": sizes(self.metadata),
            "userdata": sizes(self.userdata),
            "unknown": sizes(self.unknown),
            "struct_pages": sizes(self.struct_pages),
            "memmap": self.pages.to_json() if self.pages else None,
            "check": self.check.to_json() if self.check else None,
            "kmem": self.kmem,
            "verdict": self.verdict,
            "advice": self.advice,
            "notes": list(self.notes),
        }


class CoverageAnswer(Record):
    """All namespaces."""

    namespaces: tuple[NamespaceCoverage, ...]
    notes: tuple[str, ...] = ()


def _verdict(item: NamespaceCoverage) -> str:
    if item.destroyed and item.check is not None:
        return (
            "its struct pages were initialised again after the crash, by the capture kernel: "
            f"{item.check.evidence}; they hold nothing of the crashed kernel"
        )
    data = _share(item)
    if item.kmem:
        return f"{item.kmem} bytes of it were used as RAM (System RAM (kmem)); {data}"
    if item.location is None:
        if item.has_memmap or item.map is not None or item.mode in ("fsdax", "devdax"):
            return f"the location of its struct pages is unknown; {data}"
        if item.mode is None:
            return f"its mode is unknown; {data}"
        return f"no struct pages ({item.mode} mode); {data}"
    where = {"mem": "in RAM", "pmem": "on the pmem"}.get(item.location, "on the pmem and in RAM")
    if not item.struct_pages:
        return f"its struct pages are {where}; more needs debug info"
    if item.memmap_saved == item.memmap_size:
        if not item.intact:
            return f"all its struct pages, {where}, were saved; not all could be checked"
        return f"all its struct pages, {where}, were saved and are intact"
    if item.memmap_saved:
        share = 100 * item.memmap_saved / item.memmap_size
        return (
            f"{_percent(share)} of its struct pages, {where}, were saved; the rest is "
            f"{_others(item.struct_pages)}"
        )
    return (
        f"its struct pages are {where} and none were saved ({_others(item.struct_pages)}): page "
        "state is unknown, owners come from i_pages only"
    )


def _percent(share: float) -> str:
    if 99 < share < 100:
        return ">99%"
    return "<1%" if 0 < share < 1 else f"{share:.0f}%"


def _others(states: dict[State, int]) -> str:
    return "/".join(state.value for state in states if state is not State.SAVED)


def _share(item: NamespaceCoverage) -> str:
    """How much of the user data was saved."""
    states = item.userdata
    total = sum(states.values())
    if not total and item.unknown and State.SAVED not in item.unknown:
        return f"no data is in the dump ({_others(item.unknown)})"
    if not total:
        return "the location of its data is unknown"
    saved = states.get(State.SAVED, 0)
    if saved == total:
        return "all data is in the dump"
    if not saved:
        return f"no data is in the dump ({_others(states)})"
    return f"{_percent(100 * saved / total)} of the data was saved, the rest is {_others(states)}"


def read_namespace_coverage(prog: Program, name: str | None = None) -> Partial[CoverageAnswer]:
    """
    What the dump holds of every enabled namespace, or of one.

    Without debug info of the kernel or libnvdimm, from the info blocks in the dump.

    :param name: Namespace by its device name, its block or character device, or its given name.
    :return: The namespaces. That the dump lacks bytes of them is the answer itself; the problems
        are what could not be found out about them.
    :raises NotFound: if there is no such namespace, or no persistent memory
    :raises DumpFileError: if the program has no dump file
    """
    dump_of(prog)
    problems = Problems()
    reader = _Reader(prog, problems)
    answer: MemmapAnswer | None = None
    none: NotFound | None = None
    try:
        answer = problems.take(read_memmaps(prog))
    except NotFound as error:
        none = error
    except LookupError as error:
        problems.add(error)
    if answer is not None and answer.memmaps:
        found = [reader.of_memmap(memmap) for memmap in answer.only(prog, name).memmaps]
    else:
        found = reader.of_blocks(name)
        if not found and none is not None:
            raise none
        if not found and problems:
            of = "no info block" if name is None else f"no info block of {name!r} by name or uuid"
            missing = next((p for p in problems if p.cause is Cause.NO_DEBUG_INFO), None)
            if missing is not None:
                raise MissingDebugInfo(f"the dump holds {of}; {missing}", missing.module)
            raise Incomplete(problem.about(f"the dump holds {of}") for problem in problems)
        if name is not None and not found:
            raise NotFound(f"no namespace {name!r} by the info blocks in the dump")
    advised = tuple(replace(item, advice=advise(prog, item, problems)) for item in found)
    return problems.partial(CoverageAnswer(namespaces=advised, notes=tuple(reader.notes)))


class _Reader:
    def __init__(self, prog: Program, problems: Problems) -> None:
        self.prog = prog
        self.problems = problems
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

    def of_memmap(self, memmap: Memmap) -> NamespaceCoverage:
        namespace = memmap.namespace
        notes: list[str] = []
        problems = Problems()
        stretches = tuple(stretches_of_namespace(self.prog, namespace, problems))
        pages = memmap.struct_pages
        start, end = namespace.range.start, namespace.range.end
        kmem = self._kmem(start, end, namespace.mode, problems)
        states, check, intact = self._check(pages, memmap.pgmap, notes, problems)
        self.problems.extend(problems, namespace.dev)
        return NamespaceCoverage(
            namespace=namespace.dev,
            mode=namespace.mode,
            map=namespace.map,
            start=start,
            end=end,
            stretches=stretches,
            infoblock=self.count(stretches, INFOBLOCK),
            metadata=self.count(stretches, INFOBLOCK, METADATA),
            userdata=self.count(stretches, USERDATA),
            unknown=self.count(stretches, UNKNOWN),
            struct_pages=states,
            pages=pages,
            check=check,
            intact=intact,
            kmem=kmem,
            notes=tuple(notes),
            coverage=self.coverage,
        )

    def _kmem(self, start: int, end: int, mode: str | None, problems: Problems) -> int | None:
        """Bytes of a namespace that are RAM; only a devdax one can be (drivers/dax/kmem.c)."""
        machine = read_machine(self.prog)
        size = problems.take(machine).system_ram.size(start, end)
        known = machine.complete or mode not in (None, "devdax")
        return size if size or known else None

    def _check(
        self,
        pages: StructPages | None,
        pgmap: Pgmap | None,
        notes: list[str],
        problems: Problems,
    ) -> tuple[dict[State, int], MemmapCheck | None, bool]:
        """Bytes of struct pages by state, what the saved ones look like, and whether all that were
        saved are intact."""
        if pages is None:
            return {}, None, False
        states = dict(pages.states)
        if not pages.saved:
            return states, None, False
        known = None
        if pgmap is not None:
            pgmaps = pages_pgmap(self.prog)
            every = problems.take(pgmaps)
            known = every if pgmaps.complete else None
        own = Problems()
        check = own.attempt(
            "check of its struct pages",
            lambda: own.take(
                check_memmap(self.prog, pages.first_pfn, pages.first_pfn + pages.npfns, known)
            ),
        )
        problems.extend(own)
        if check is None:
            return states, None, False
        if check.destroyed:
            notes.append(f"struct pages initialised again after the crash: {check.evidence}")
        elif check.foreign:
            notes.append(f"{check.evidence}: damaged")
        if check.zero:
            states = self._without_zeroes(states, check, notes)
        # Without debug info the page maps are unknown; the dump is not at fault.
        judged = pgmap is None or known is not None
        return states, check, judged and not own and not check.foreign

    def _without_zeroes(
        self, states: dict[State, int], check: MemmapCheck, notes: list[str]
    ) -> dict[State, int]:
        """Count struct pages that read as zero as excluded."""
        saved = states.get(State.SAVED, 0)
        # Whole struct pages: only the rounding of a sample can be off.
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

    def of_blocks(self, name: str | None) -> list[NamespaceCoverage]:
        """Coverage from info blocks alone."""
        problems = Problems()
        found = problems.take(find_blocks(self.prog))
        # Missing debug info is reported once.
        known = bool(self.problems)
        self.problems.extend(p for p in problems if p.cause is not Cause.NO_DEBUG_INFO or not known)
        wanted = [b for b in found.blocks if (b.block and not b.refused) or b.namespace]
        if any(p.cause is Cause.NO_DEBUG_INFO for p in self.problems):
            why = "no debug info"
        else:
            why = "the kernel's namespaces could not be read"
            # A namespace that the kernel did not use has an info block too.
            for block in wanted:
                if block.namespace is None:
                    of = f"info block at {block.start:#x}"
                    self.problems.add(
                        Problem(
                            cause=Cause.NOT_SAVED,
                            why=f"{of}: whether its namespace was enabled is not known",
                        )
                    )
            wanted = [b for b in wanted if b.namespace is not None]
        self.notes.append(f"{why}: namespaces by their info blocks, in {found.searched}")
        if name is not None:
            wanted = [b for b in wanted if b.is_called(name)]
        return [self.of_block(b) for b in wanted]

    def of_block(self, found: FoundBlock) -> NamespaceCoverage:
        stretches = tuple(stretches_of_block(found))
        problems = Problems()
        pages: StructPages | None = None
        notes = list(found.notes)
        mode = "sector" if found.chain and not found.refused else found.kind if found.data else None
        end = max((item.end for item in stretches), default=None)
        kmem: int | None = 0
        if has_kernel_debug_info(self.prog):
            # Where it ends says the info block.
            kmem = None if end is None else self._kmem(found.start, end, mode, problems)
        if not kmem and found.data is not None and isinstance(found.block, InfoBlock):
            first, data_end = found.data
            if found.block.mode != PFN_MODE_PMEM:
                # Without an altmap the pages before the data have struct pages as well.
                first = found.start + fill_in_defaults(found.block).start_pad
            with problems.trying("struct pages"):
                pages = problems.take(struct_pages_of_data(self.prog, found.start, first, data_end))
        states, check, intact = self._check(pages, None, notes, problems)
        self.problems.extend(problems, found.namespace or f"at {found.start:#x}")
        block = found.block
        return NamespaceCoverage(
            namespace=found.namespace,
            mode=mode,
            map=("dev" if block.mode == PFN_MODE_PMEM else "mem")
            if isinstance(block, InfoBlock) and not found.refused
            else None,
            start=found.start,
            end=end,
            stretches=stretches,
            infoblock=self.count(stretches, INFOBLOCK),
            metadata=self.count(stretches, INFOBLOCK, METADATA),
            userdata=self.count(stretches, USERDATA),
            unknown=self.count(stretches, UNKNOWN),
            struct_pages=states,
            pages=pages,
            check=check,
            intact=intact,
            kmem=kmem,
            notes=tuple(notes),
            coverage=self.coverage,
        )
