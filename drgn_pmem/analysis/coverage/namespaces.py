# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Coverage of namespaces
----------------------

What a dump holds of each namespace: info block, metadata, user data, struct pages, and whether the
struct pages are intact.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from drgn import Program

from drgn_pmem.analysis.coverage.advice import advise
from drgn_pmem.analysis.coverage.records import CoverageAnswer, NamespaceCoverage
from drgn_pmem.analysis.inventory.foundblock import FoundBlock
from drgn_pmem.analysis.inventory.infoblocks import find_blocks
from drgn_pmem.analysis.inventory.machine import read_machine
from drgn_pmem.analysis.inventory.parts import (
    INFOBLOCK,
    METADATA,
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
from drgn_pmem.dumpfile import State, coverage_of, dump_of
from drgn_pmem.errors import MissingDebugInfo, NotFound
from drgn_pmem.formats.infoblock import PFN_MODE_PMEM, InfoBlock, fill_in_defaults
from drgn_pmem.kernel.kmod import has_kernel_debug_info
from drgn_pmem.kernel.page import pages_pgmap
from drgn_pmem.kernel.pgmap import Pgmap
from drgn_pmem.partial import Cause, Incomplete, Partial, Problem, Problems

__all__ = ("read_namespace_coverage",)


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
            # Where to look for one is not known either.
            lost = "no namespace" if name is None else f"whether there is a namespace {name!r}"
            lost += " could be read" if name is None else " is not known"
            raise Incomplete(problem.about(lost) for problem in problems)
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
        kmem = self._kmem(start, end, namespace.mode)
        memmap_fields = self._memmap(pages, memmap.pgmap, notes, problems)
        self.problems.extend(problems, namespace.dev, namespace.dev)
        return NamespaceCoverage(
            namespace=namespace.dev,
            mode=namespace.mode,
            map=namespace.map,
            start=start,
            end=end,
            kmem=kmem,
            notes=tuple(notes),
            **self._data(stretches),
            **memmap_fields,
        )

    def _kmem(self, start: int, end: int, mode: str | None) -> int | None:
        """Bytes of a namespace that are RAM; only a devdax one can be (drivers/dax/kmem.c)."""
        machine = read_machine(self.prog)
        size = self.problems.take(machine).system_ram.size(start, end)
        known = machine.complete or mode not in (None, "devdax")
        return size if size or known else None

    def _data(self, stretches: tuple[Stretch, ...]) -> dict[str, Any]:
        """The fields of a record on what the dump holds of each kind of stretch."""
        return {
            "stretches": stretches,
            "infoblock": self.count(stretches, INFOBLOCK),
            "metadata": self.count(stretches, INFOBLOCK, METADATA),
            "userdata": self.count(stretches, USERDATA),
            "unknown": self.count(stretches, UNKNOWN),
            "coverage": self.coverage,
        }

    def _memmap(
        self,
        pages: StructPages | None,
        pgmap: Pgmap | None,
        notes: list[str],
        problems: Problems,
    ) -> dict[str, Any]:
        """The fields of a record on the struct pages."""
        states, check, intact = self._check(pages, pgmap, notes, problems)
        return {"pages": pages, "struct_pages": states, "check": check, "intact": intact}

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
            kmem = None if end is None else self._kmem(found.start, end, mode)
        if not kmem and found.data is not None and isinstance(found.block, InfoBlock):
            first, data_end = found.data
            if found.block.mode != PFN_MODE_PMEM:
                # Without an altmap the pages before the data have struct pages as well.
                first = found.start + fill_in_defaults(found.block).start_pad
            with problems.trying("struct pages"):
                pages = problems.take(struct_pages_of_data(self.prog, found.start, first, data_end))
        memmap_fields = self._memmap(pages, None, notes, problems)
        what = found.namespace or f"at {found.start:#x}"
        self.problems.extend(problems, what, found.namespace)
        block = found.block
        return NamespaceCoverage(
            namespace=found.namespace,
            mode=mode,
            map=("dev" if block.mode == PFN_MODE_PMEM else "mem")
            if isinstance(block, InfoBlock) and not found.refused
            else None,
            start=found.start,
            end=end,
            kmem=kmem,
            notes=tuple(notes),
            **self._data(stretches),
            **memmap_fields,
        )
