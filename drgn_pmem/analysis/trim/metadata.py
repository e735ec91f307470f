# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Metadata of persistent memory
-----------------------------

Which bytes of a namespace are known to be metadata: info blocks, struct pages that the kernel
initialised, maps and logs of BTT arenas. Everything else counts as user data, including reserved
space that a namespace does not use: it still has what was there before the namespace was made.

Struct pages need two proofs: the page tables map them there, and by the kernel's namespace its data
begins after them. (drivers/nvdimm/pfn_devs.c, drivers/nvdimm/btt.c)
"""

from collections.abc import Iterator

from drgn import Program

from drgn_pmem.analysis.inventory.blockcheck import physical_reader
from drgn_pmem.analysis.inventory.infoblocks import find_blocks
from drgn_pmem.analysis.inventory.parts import (
    INFOBLOCK,
    METADATA,
    PADDING,
    UNKNOWN,
    Stretch,
    stretches_of_namespace,
)
from drgn_pmem.errors import FormatError
from drgn_pmem.formats.btt import BttArenaPlace, walk_btt
from drgn_pmem.formats.infoblock import INFO_BLOCK_OFFSET, INFO_BLOCK_SIZE
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.kernel.page_layout import page_layout
from drgn_pmem.kernel.pagetable import for_each_extent
from drgn_pmem.kernel.pgmap import Pgmap, for_each_pgmap
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems, State
from drgn_pmem.ranges import Range, RangeSet

__all__ = ("Layout", "known_metadata", "layout_of", "may_be_zero", "parts_of")

INFO_BLOCKS = "info blocks"
STRUCT_PAGES = "struct pages on pmem"
BTT = "BTT maps and logs"

_KINDS = {
    INFOBLOCK: "unused metadata space",
    METADATA: "unused metadata space",
    PADDING: "free space",
    UNKNOWN: "not known: user data or metadata",
}
"""Names of what remains of each kind of stretch without the known metadata."""
_USER_DATA = "user data"
_RAW = {
    True: "contents (raw mode)",
    False: "contents (disabled)",
    None: "contents (raw mode or disabled)",
}
"""The same of a namespace without a mode of its own, by whether it was enabled."""

Layout = list[tuple[Namespace, list[Stretch]]]
"""Namespaces, and their parts by the kernel."""


def layout_of(prog: Program, namespaces: list[Namespace], problems: Problems) -> Layout:
    """The parts of each namespace; what could not be read is added to the problems."""
    layout: Layout = []
    for namespace in namespaces:
        own = Problems()
        layout.append((namespace, list(stretches_of_namespace(prog, namespace, own))))
        problems.extend(own, namespace.dev)
    return layout


def known_metadata(
    prog: Program, namespaces: list[Namespace]
) -> Partial[list[tuple[str, RangeSet]]]:
    """Metadata on persistent memory by kind; everything else counts as user data."""
    problems = Problems()
    return problems.partial(
        [
            (INFO_BLOCKS, RangeSet(_infoblocks(prog, problems))),
            (STRUCT_PAGES, RangeSet(_struct_pages(prog, namespaces, problems))),
            (BTT, RangeSet(_of_btt(prog, namespaces, problems))),
        ]
    )


def _infoblocks(prog: Program, problems: Problems) -> Iterator[Range]:
    """Blocks with a valid checksum, which covers the whole page, where the kernel's namespaces
    begin. Anywhere else they may be the content of a file."""
    own = Problems()
    blocks = own.take(find_blocks(prog, of_namespaces=True)).blocks
    # A block that is not in the dump cannot be kept.
    problems.extend(p for p in own if p.cause is not Cause.NOT_SAVED or p.state is None)
    for found in blocks:
        if found.block is not None and found.namespace is not None and found.block.checksum_ok:
            yield Range(found.address, found.address + INFO_BLOCK_SIZE)


def _struct_pages(
    prog: Program, namespaces: list[Namespace], problems: Problems
) -> Iterator[Range]:
    pgmaps = {pgmap.address: pgmap for pgmap in problems.take(for_each_pgmap(prog))}
    for namespace in namespaces:
        pgmap = pgmaps.get(namespace.pgmap)
        if pgmap is not None and namespace.data_offset and namespace.map == "dev":
            with problems.trying(f"{namespace.dev}: struct pages"):
                yield from _of_pgmap(prog, namespace, pgmap, problems)


def _of_pgmap(
    prog: Program, namespace: Namespace, pgmap: Pgmap, problems: Problems
) -> Iterator[Range]:
    start = namespace.range.start
    data = min(start + (namespace.data_offset or 0), pgmap.first_pfn << pgmap.page_shift)
    reserve = RangeSet([Range(start + INFO_BLOCK_OFFSET + INFO_BLOCK_SIZE, data)])
    layout = page_layout(prog)
    for extent in for_each_extent(
        prog, layout.address(pgmap.memmap_pfn), layout.address(pgmap.end_pfn)
    ):
        if extent.physical is not None:
            yield from reserve.overlap(extent.physical, extent.physical + extent.size)
        elif extent.state is not State.UNMAPPED:
            why = f"those whose physical address is unknown are dropped: {extent.reason}"
            problems.add(
                Problem(
                    cause=Cause.NOT_SAVED,
                    what=f"{namespace.dev}: struct pages",
                    why=why,
                    state=extent.state,
                )
            )


def _of_btt(prog: Program, namespaces: list[Namespace], problems: Problems) -> Iterator[Range]:
    """Map, log and backup of the info block of each arena. The kernel writes all of map and log
    when it makes an arena (``btt_map_init()``, ``btt_log_init()``)."""
    read = physical_reader(prog, problems)
    for namespace in namespaces:
        if namespace.mode != "sector":
            continue
        start, end = namespace.range.start, namespace.range.end
        try:
            chain = walk_btt(lambda o, n: read(start + o, n), end - start)  # noqa: B023
        except (FormatError, NotSaved) as error:
            problems.add(error, f"{namespace.dev}: BTT")
            continue
        problems.extend(chain.problems, f"{namespace.dev}: BTT")
        for number, place in enumerate(chain.arenas):
            if place.problems:
                why = f"arena {number} is dropped: {'; '.join(place.problems)}"
                problems.add(Problem(cause=Cause.DAMAGED, what=namespace.dev, why=why))
                continue
            yield from _of_arena(place, start, end)


def _of_arena(place: BttArenaPlace, start: int, end: int) -> Iterator[Range]:
    arena, base = place.arena, start + place.offset
    parts = [Range(base, base + INFO_BLOCK_SIZE), Range(base + arena.mapoff, base + arena.info2off)]
    if place.backup == "same":
        backup = base + arena.info2off
        parts.append(Range(backup, backup + INFO_BLOCK_SIZE))
    yield from (part for part in parts if part.end <= end)


def may_be_zero(layout: Layout) -> Iterator[Range]:
    """Ranges whose zero pages are kept, because they prove that there is no metadata: the space
    that a namespace reserves, and where an info block would be."""
    for namespace, stretches in layout:
        start, end = namespace.range.start, namespace.range.end
        yield Range(start, min(end, start + INFO_BLOCK_OFFSET + INFO_BLOCK_SIZE))
        for stretch in stretches:
            if stretch.kind in (METADATA, INFOBLOCK):
                yield Range(stretch.start, stretch.end)


def parts_of(layout: Layout) -> Iterator[tuple[str, Range]]:
    """Names of the parts of namespaces, for what is dropped."""
    for namespace, stretches in layout:
        for stretch in stretches:
            kind = _KINDS.get(stretch.kind, _USER_DATA)
            if namespace.mode is None:
                kind = "not known: its mode is unknown"
            elif namespace.mode == "raw":
                # A disabled namespace is shown as raw, whatever its info block says.
                kind = _RAW[namespace.enabled]
            yield f"{namespace.dev}: {kind}", Range(stretch.start, stretch.end)
