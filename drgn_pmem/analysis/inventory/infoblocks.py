# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Info blocks
-----------

Info blocks, BTT arenas and labels found in the bytes that the dump holds, with or without debug
info, and why the kernel refuses those that it refuses. Candidates are where the kernel, iomem, the
devm_memmap_vmcore list or ``PF_DEV`` say that persistent memory or a namespace begins; without any
of them all saved memory is scanned at the alignment of namespaces, up to a bound.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
import re
from typing import Any

from drgn import Program
import numpy as np

from drgn_pmem.analysis.inventory.blockcheck import BlockCheck, physical_reader
from drgn_pmem.analysis.inventory.foundblock import FoundBlock, FoundBlocks, InfoBlocksAnswer
from drgn_pmem.analysis.inventory.labels import find_labels
from drgn_pmem.analysis.inventory.machine import MachineMap, read_machine
from drgn_pmem.dumpfile import State, coverage_of, dump_of, vmcoreinfo_of
from drgn_pmem.dumpfile.coverage import ADDRESS_SPACE
from drgn_pmem.errors import DumpFileError, FormatError, NotFound
from drgn_pmem.formats.btt import BttArena, walk_btt
from drgn_pmem.formats.infoblock import (
    INFO_BLOCK_OFFSET,
    INFO_BLOCK_SIZE,
    FoundInfoBlock,
    find_infoblocks,
)
from drgn_pmem.kernel.devm_memmap import for_each_memmap_entry
from drgn_pmem.kernel.memory import cached
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems
from drgn_pmem.ranges import distinct

__all__ = ("find_blocks", "read_infoblocks")

_STEP = 2 << 20
"""SUBSECTION_SIZE: where namespaces begin. ppc64 aligns to 16 MiB, a multiple."""

_MAX_CANDIDATES = 1 << 18
"""Places of which the dump holds something: 512 GiB of saved memory."""
_MAX_FOUND = 1 << 12
_MAX_ARENAS = 1 << 14

_NAMESPACE_NAME = re.compile(r"namespace\d+\.\d+")


def read_infoblocks(prog: Program) -> Partial[InfoBlocksAnswer]:
    """
    All info blocks, BTT arenas and labels.

    :raises DumpFileError: if the program has no dump file
    """
    problems = Problems()
    found = problems.take(find_blocks(prog))
    labels = problems.take(find_labels(prog))
    return problems.partial(
        InfoBlocksAnswer(blocks=found.blocks, searched=found.searched, labels=labels)
    )


def find_blocks(prog: Program, *, of_namespaces: bool = False) -> Partial[FoundBlocks]:
    """
    Info blocks only; looked for once.

    :param of_namespaces: Look only where the kernel's namespaces begin.
    :raises DumpFileError: if the program has no dump file
    """
    found: Partial[FoundBlocks] = cached(
        prog, f"info_blocks.{of_namespaces}", lambda: _find_blocks(prog, of_namespaces)
    )
    return found


def _find_blocks(prog: Program, of_namespaces: bool) -> Partial[FoundBlocks]:
    problems = Problems()
    finder = _Finder(prog, problems.take(read_machine(prog)), problems)
    blocks = finder.find(of_namespaces)
    return problems.partial(FoundBlocks(blocks=blocks, searched=finder.searched))


class _Finder:
    def __init__(self, prog: Program, machine: MachineMap, problems: Problems) -> None:
        self.prog = prog
        self.problems = problems
        self.machine = machine
        self.coverage = coverage_of(prog)
        self.read = physical_reader(prog, problems)
        self.check = BlockCheck(prog, self.read, problems)
        self.page_size = vmcoreinfo_of(prog).page_size
        self.searched = ""
        self._budget = _MAX_CANDIDATES
        self._arenas = 0
        self.names = self._names()

    def _names(self) -> dict[int, str]:
        """Namespaces by physical start."""
        named = {
            r.start: r.name
            for r in self.machine.iomem
            if r.name and _NAMESPACE_NAME.fullmatch(r.name)
        }
        return named | {n.resource: n.dev for n in self.machine.namespaces}

    def _ranges(self) -> list[tuple[int, int]]:
        """Persistent memory, by every source."""
        ranges = {(r.start, r.end) for r in self.machine.pmem.ranges}
        sources = list(self.machine.pmem_sources)
        try:
            segments = dump_of(self.prog).segments
        except DumpFileError:
            segments = ()
        for segment in segments:
            if segment.pmem and segment.physical is not None:
                ranges.add((segment.physical, segment.physical + segment.memory_size))
                if "PF_DEV" not in sources:
                    sources.append("PF_DEV")
        self.searched = "persistent memory known from " + ", ".join(sources)
        return sorted(ranges)

    def _limit(self, why: str) -> None:
        self.problems.add(Problem(cause=Cause.LIMIT, why=why))

    def _listed(self) -> list[int]:
        """Where the entries of the devm_memmap_vmcore list begin."""
        try:
            entries = self.problems.take(for_each_memmap_entry(self.prog))
        except NotFound:
            # not a problem: no released kernel has the list
            return []
        if self.page_size is None:
            return []
        return [entry.start_pfn * self.page_size for entry in entries]

    def _candidates(self) -> "np.ndarray[Any, np.dtype[np.uint64]]":
        ranges = self._ranges()
        listed = self._listed()
        if not ranges:
            # Nothing says where persistent memory is: everything that is in the dump.
            starts, _ = self.coverage.runs(State.SAVED)
            ranges = [(0, ADDRESS_SPACE)]
            self.searched = (
                "all saved memory at every 2 MiB: nothing says where persistent memory is"
            )
        else:
            starts = np.array([start for start, _ in ranges if start < ADDRESS_SPACE], np.uint64)
        if listed:
            self.searched += ", the devm_memmap_vmcore list"
        known = [at for at in (*self.names, *listed) if 0 <= at < ADDRESS_SPACE]
        points = [starts, *(self._steps(start, end) for start, end in ranges)]
        points = [part[self._may_hold(part)] for part in points]
        return distinct(np.concatenate([np.array(known, np.uint64), *points]))

    def _may_hold(self, starts: "np.ndarray[Any, np.dtype[np.uint64]]") -> "np.ndarray[Any, Any]":
        """Of places where a namespace may begin, which the dump holds one of both pages of."""
        seconds = np.minimum(starts, np.uint64(ADDRESS_SPACE - 1 - INFO_BLOCK_OFFSET))
        seconds = seconds + np.uint64(INFO_BLOCK_OFFSET)
        return self.coverage.saved_each(starts, INFO_BLOCK_SIZE) | self.coverage.saved_each(
            seconds, INFO_BLOCK_SIZE
        )

    def _steps(self, start: int, end: int) -> "np.ndarray[Any, np.dtype[np.uint64]]":
        """Where namespaces may begin in a range, if the dump holds a byte of the first two pages:
        in bulk, because a damaged range may be as large as physical memory."""
        low, high = self._saved_steps
        # A run of saved pages may begin with the block itself, after the first page.
        first = max(0, -(-(start - INFO_BLOCK_OFFSET) // _STEP))
        last = -(-min(end, ADDRESS_SPACE) // _STEP) - 1
        runs = slice(np.searchsorted(high, np.uint64(first)), None)
        low, high = np.maximum(low[runs], np.uint64(first)), high[runs]
        runs = slice(None, np.searchsorted(low, np.uint64(max(last, 0)), "right"))
        low, high = low[runs], np.minimum(high[runs], np.uint64(max(last, 0)))
        counts = (high - low).astype(np.int64) + 1
        within = np.cumsum(counts)
        if last < first or not len(counts):
            return np.zeros(0, np.uint64)
        if within[-1] > self._budget:
            stop = int(np.searchsorted(within, self._budget, "right"))
            after = int(low[stop]) * _STEP
            self._limit(
                f"not searched for info blocks: {after:#x}-{end:#x}, because there are more than "
                f"{_MAX_CANDIDATES} candidates"
            )
            low, counts, within = low[:stop], counts[:stop], within[:stop]
        total = int(within[-1]) if len(within) else 0
        self._budget -= total
        steps = np.repeat(low - (within - counts).astype(np.uint64), counts)
        return (steps + np.arange(total, dtype=np.uint64)) * np.uint64(_STEP)

    @cached_property
    def _saved_steps(self) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
        """First and last multiples of 2 MiB at which each run of saved memory has a byte of the
        first two pages."""
        starts, lasts = self.coverage.runs(State.SAVED)
        begin = np.maximum(starts, np.uint64(INFO_BLOCK_OFFSET + INFO_BLOCK_SIZE - 1))
        begin -= np.uint64(INFO_BLOCK_OFFSET + INFO_BLOCK_SIZE - 1)
        low = begin // np.uint64(_STEP) + (begin % np.uint64(_STEP) != 0)
        high = lasts // np.uint64(_STEP)
        return low[low <= high], high[low <= high]

    def find(self, of_namespaces: bool) -> list[FoundBlock]:
        found: dict[int, FoundInfoBlock] = {}
        known: set[int] = set()
        for start in self.names if of_namespaces else map(int, self._candidates()):
            for hit in find_infoblocks(self.read, start, start + 2 * INFO_BLOCK_SIZE, _STEP):
                if hit.namespace != start or hit.address in known or start in found:
                    continue
                found[start] = hit
                if isinstance(hit.block, BttArena):
                    known |= {hit.address + hit.block.info2off, hit.address + hit.block.nextoff}
            if len(found) >= _MAX_FOUND:
                self._limit(f"stopped after {_MAX_FOUND} info blocks: implausible number")
                break
        blocks = [self._describe(hit) for hit in found.values()]
        blocks += [self._without(start) for start in self.names if start not in found]
        blocks.sort(key=lambda b: b.start)
        return list(_judged(blocks, bool(self.machine.namespaces)))

    def _namespace(self, start: int) -> Namespace | None:
        """The namespace that begins there by the kernel."""
        return next((n for n in self.machine.namespaces if n.resource == start), None)

    def _end(self, start: int) -> int:
        """Where a namespace that begins there must end, at the latest."""
        namespace = self._namespace(start)
        if namespace is not None:
            return namespace.range.end
        # Page maps, and what PF_DEV marks, are parts of namespaces: it may go on after them.
        if not {"iomem", "regions"}.isdisjoint(self.machine.pmem_sources):
            for part in self.machine.pmem.overlap(start, ADDRESS_SPACE):
                if part.start <= start:
                    return part.end
        return ADDRESS_SPACE

    def _describe(self, hit: FoundInfoBlock) -> FoundBlock:
        namespace = self._namespace(hit.namespace)
        refused, notes = self.check.check(hit, namespace)
        chain = None
        if isinstance(hit.block, BttArena) and hit.block.checksum_ok:
            size = self._end(hit.namespace) - hit.namespace
            try:
                if self._arenas < _MAX_ARENAS:
                    chain = walk_btt(lambda o, n: self.read(hit.namespace + o, n), size)
                    notes += map(str, chain.problems)
                    self._arenas += len(chain.arenas)
                else:
                    self._limit(
                        f"arenas of the BTT at {hit.namespace:#x} were not read: {_MAX_ARENAS} "
                        "arenas were found before"
                    )
            except (FormatError, NotSaved) as error:
                notes.append(str(error))
        return FoundBlock(
            start=hit.namespace,
            address=hit.address,
            block=hit.block,
            state=State.SAVED,
            namespace=self.names.get(hit.namespace),
            page_size=self.page_size,
            chain=chain,
            parent_known=namespace is not None and namespace.label_uuid is not None,
            refused=tuple(refused),
            notes=tuple(notes),
        )

    def _without(self, start: int) -> FoundBlock:
        """A namespace whose block was not found."""
        address = start + INFO_BLOCK_OFFSET
        name = self.names[start]
        states = self.coverage.count(address, address + INFO_BLOCK_SIZE)
        state = next((s for s in states if s is not State.SAVED), State.SAVED)
        notes: list[str] = []
        if state is State.SAVED:
            notes = self.check.without(address)
        else:
            self.problems.add(
                Problem(
                    cause=Cause.NOT_SAVED,
                    what=name,
                    why=f"info block not saved ({state.value})",
                    state=state,
                    subject=name,
                )
            )
        return FoundBlock(
            start=start,
            address=address,
            block=None,
            state=state,
            namespace=name,
            page_size=self.page_size,
            notes=tuple(notes),
        )


def _judged(blocks: list[FoundBlock], kernel_knows: bool) -> Iterator[FoundBlock]:
    """Note that a block inside another one's data may be the content of a file."""
    outer: FoundBlock | None = None
    for item in blocks:
        inside = (
            outer is not None
            and outer.data is not None
            and outer.data[0] <= item.start < outer.data[1]
        )
        if item.block is None:
            yield item
            continue
        if inside and item.namespace is None and outer is not None:
            note = (
                f"inside the data of the namespace at {outer.start:#x}: the content of a file, or "
                "left over from an older namespace"
            )
            yield replace(item, notes=(*item.notes, note))
            continue
        if item.namespace is None and kernel_knows:
            note = "no namespace begins there: left over from an older one"
            item = replace(item, notes=(*item.notes, note))
        if not item.refused:
            outer = item
        yield item
