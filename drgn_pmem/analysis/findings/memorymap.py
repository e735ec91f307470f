# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Map of physical memory
----------------------

RAM and persistent memory by address, for a drawing: what each part is (RAM, info block, memmap,
data), how much of it the dump holds, and where the bad and the held pages are.
"""

from collections.abc import Iterable, Iterator

from drgn import Program

from drgn_pmem.analysis.findings.pins import find_pins
from drgn_pmem.analysis.findings.poison import find_poison
from drgn_pmem.analysis.inventory.listing import read_inventory
from drgn_pmem.analysis.inventory.machine import MachineMap, read_machine
from drgn_pmem.analysis.inventory.parts import INFOBLOCK, METADATA, PADDING, stretches_of_namespace
from drgn_pmem.analysis.memmap.place import StructPages
from drgn_pmem.analysis.memmap.sources import read_memmaps
from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.errors import NotFound
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.ranges import Range, RangeSet
from drgn_pmem.record import Record, Show, shown

__all__ = ("MapMark", "MapPiece", "MapRow", "read_memory_map")

_CELLS = 256
"""Pieces of a row that a drawing can tell apart."""
_MAX_ROWS = 48
_RESERVED = 8 << 10
"""bytes at the start of a namespace that are not for struct pages"""
_GAP = 64 << 20
"""bytes between ranges of RAM that are one row"""

RAM, DATA, FREE, UNKNOWN = "RAM", "data", "free", "unknown"
MEMMAP, OTHER = "memmap", "metadata"
_KINDS = {INFOBLOCK: "info block", METADATA: OTHER, PADDING: FREE, "data": DATA}


class MapPiece(Record):
    """A part of a row."""

    start: int = shown(Show.ADDRESS)
    """Physical."""
    size: int = shown(Show.SIZE)
    """bytes"""
    kind: str
    """``"RAM"``, ``"info block"``, ``"memmap"``, ``"metadata"`` (BTT map and log, reserved space),
    ``"data"``, ``"free"``, ``"unknown"``."""
    state: State | None
    """What the dump holds of it: the state of most of its bytes."""
    saved: float
    """Share of its bytes that the dump holds."""


class MapMark(Record):
    """A page to look at."""

    pfn: int = shown(Show.ADDRESS)
    physical: int = shown(Show.ADDRESS)
    kind: str
    """``"poison"`` or ``"pinned"``."""
    label: str
    """What it hits or belongs to."""


class MapRow(Record):
    """A range of physical memory."""

    label: str
    """``"RAM"``, ``"region1"``."""
    start: int = shown(Show.ADDRESS)
    end: int = shown(Show.ADDRESS)
    """Exclusive."""
    names: tuple[str, ...]
    """Namespaces in it."""
    pieces: tuple[MapPiece, ...]
    marks: tuple[MapMark, ...]


def read_memory_map(prog: Program) -> Partial[tuple[MapRow, ...]]:
    """
    The rows, by address: RAM, then every region or other range of persistent memory.

    :raises DumpFileError: if the program has no dump file
    """
    problems = Problems()
    machine = problems.take(read_machine(prog))
    marks = list(_marks(prog, problems))
    rows = [
        *_ram_rows(prog, machine, marks),
        *_pmem_rows(prog, machine, marks, problems),
    ]
    rows.sort(key=lambda row: row.start)
    return problems.partial(tuple(rows[:_MAX_ROWS]))


def _marks(prog: Program, problems: Problems) -> Iterator[MapMark]:
    with problems.trying("bad pages"):
        for page in problems.take(find_poison(prog)).pages:
            yield MapMark(pfn=page.pfn, physical=page.physical, kind="poison", label=page.hits)
    with problems.trying("held pages"):
        for held in problems.take(find_pins(prog)).pages:
            names = [owner.name for owner in held.owners.owners if owner.name]
            label = ", ".join(names) or held.owners.namespace or ""
            yield MapMark(pfn=held.pfn, physical=held.owners.physical, kind="pinned", label=label)


def _ram_rows(prog: Program, machine: MachineMap, marks: list[MapMark]) -> Iterator[MapRow]:
    groups: list[list[Range]] = []
    for ram in machine.system_ram.ranges:
        for part in machine.pmem.gaps(ram.start, ram.end):
            if groups and part.start - groups[-1][-1].end < _GAP:
                groups[-1].append(part)
            else:
                groups.append([part])
    for group in groups:
        start, end = group[0].start, group[-1].end
        stretches = [(part.start, part.end, RAM) for part in group]
        yield _row(prog, "RAM", start, end, (), stretches, marks)


def _pmem_rows(
    prog: Program, machine: MachineMap, marks: list[MapMark], problems: Problems
) -> Iterator[MapRow]:
    try:
        inventory = problems.take(read_inventory(prog))
        memmaps = problems.take(read_memmaps(prog)).memmaps
    except NotFound:
        # not a problem: the machine had no persistent memory
        return
    pages = {memmap.namespace.dev: memmap.struct_pages for memmap in memmaps}
    regions = [(r.range, r.dev) for r in inventory.regions if r.type == "pmem"]
    for part in machine.pmem.ranges:
        known = [item for item in regions if item[0].start < part.end and part.start < item[0].end]
        for place, name in known or [(part, "pmem")]:
            inside = [n for n in inventory.namespaces if n.raw_size and n.resource in place]
            inside.sort(key=lambda namespace: namespace.resource)
            stretches = list(_stretches(prog, place, inside, pages, problems))
            names = tuple(namespace.dev for namespace in inside)
            yield _row(prog, name, place.start, place.end, names, stretches, marks)


def _stretches(
    prog: Program,
    place: Range,
    inside: list[Namespace],
    pages: dict[str, StructPages | None],
    problems: Problems,
) -> Iterator[tuple[int, int, str]]:
    at = place.start
    for namespace in inside:
        if at < namespace.range.start:
            yield at, namespace.range.start, FREE
        memmap = _memmap_of(namespace, pages.get(namespace.dev))
        for stretch in stretches_of_namespace(prog, namespace, problems):
            kind = _KINDS.get(stretch.kind, UNKNOWN)
            if kind != OTHER:
                yield stretch.start, stretch.end, kind
                continue
            for part, is_memmap in memmap.split(stretch.start, stretch.end):
                yield part.start, part.end, MEMMAP if is_memmap else OTHER
        at = namespace.range.end
    if at < place.end:
        yield at, place.end, FREE


def _memmap_of(namespace: Namespace, pages: StructPages | None) -> RangeSet:
    """Where a namespace holds its struct pages; all that it reserves if the place is not known."""
    if pages is not None and not pages.unknown:
        return RangeSet([pages.pmem_range] if pages.pmem_range else [])
    if namespace.map != "dev" or namespace.data_offset is None:
        return RangeSet([])
    start = namespace.resource
    return RangeSet([Range(start + _RESERVED, start + namespace.data_offset)])


def _row(
    prog: Program,
    label: str,
    start: int,
    end: int,
    names: tuple[str, ...],
    stretches: Iterable[tuple[int, int, str]],
    marks: list[MapMark],
) -> MapRow:
    cell = max(1, -(-(end - start) // _CELLS))
    pieces = [
        piece
        for first, last, kind in stretches
        for piece in _pieces(prog, first, last, kind, start, cell)
    ]
    return MapRow(
        label=label,
        start=start,
        end=end,
        names=names,
        pieces=tuple(pieces),
        marks=tuple(mark for mark in marks if start <= mark.physical < end),
    )


def _pieces(
    prog: Program, first: int, last: int, kind: str, base: int, cell: int
) -> Iterator[MapPiece]:
    """A stretch cut at the cells of its row; cells that are alike are one piece."""
    coverage = coverage_of(prog)
    pending: MapPiece | None = None
    while first < last:
        end = min(last, base + ((first - base) // cell + 1) * cell)
        states = coverage.count(first, end)
        state = max(states, key=lambda state: states[state]) if states else None
        piece = MapPiece(
            start=first,
            size=end - first,
            kind=kind,
            state=state,
            saved=round(states.get(State.SAVED, 0) / (end - first), 2),
        )
        if pending is not None and (pending.state, pending.saved) == (piece.state, piece.saved):
            pending = MapPiece(
                start=pending.start,
                size=pending.size + piece.size,
                kind=kind,
                state=state,
                saved=piece.saved,
            )
        else:
            if pending is not None:
                yield pending
            pending = piece
        first = end
    if pending is not None:
        yield pending
