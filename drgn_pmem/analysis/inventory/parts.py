# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Parts of a namespace
--------------------

The parts of a namespace from its start to its end: info block, metadata, user data, padding.
"""

from collections.abc import Iterator
from dataclasses import replace

from drgn import Program

from drgn_pmem.analysis.inventory.blockcheck import physical_reader
from drgn_pmem.analysis.inventory.foundblock import FoundBlock
from drgn_pmem.errors import FormatError
from drgn_pmem.formats.btt import BttChain, walk_btt
from drgn_pmem.formats.infoblock import (
    INFO_BLOCK_OFFSET,
    INFO_BLOCK_SIZE,
    PFN_MODE_PMEM,
    InfoBlock,
)
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.partial import Cause, NotSaved, Problem, Problems
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "INFOBLOCK",
    "METADATA",
    "PADDING",
    "UNKNOWN",
    "USERDATA",
    "Stretch",
    "stretches_of_block",
    "stretches_of_namespace",
)

INFOBLOCK = "info block"
METADATA = "metadata"
USERDATA = "data"
PADDING = "free"
UNKNOWN = "unknown"


class Stretch(Record):
    """A part of a namespace, physical, end exclusive."""

    kind: str
    """``"info block"``, ``"metadata"`` (without the info block), ``"data"``, ``"free"``,
    ``"unknown"`` (metadata and data, of which the boundary is not known)."""
    start: int = shown(Show.ADDRESS)
    end: int = shown(Show.ADDRESS)


def stretches_of_namespace(
    prog: Program, namespace: Namespace, problems: Problems
) -> Iterator[Stretch]:
    """
    Parts of a namespace that the kernel knows.

    :param problems: What could not be read is added here.
    """
    start, end = namespace.range.start, namespace.range.end
    if namespace.mode == "sector":
        read = physical_reader(prog, problems)
        try:
            chain = walk_btt(lambda o, n: read(start + o, n), end - start)
        except (FormatError, NotSaved) as error:
            lost = (
                "are not in the dump" if isinstance(error, NotSaved) else f"are damaged ({error})"
            )
            why = f"its BTT arenas {lost}: the location of its data is unknown"
            problems.add(replace(Problem.of(error), why=why))
            yield Stretch(kind=UNKNOWN, start=start, end=end)
            return
        problems.extend(chain.problems, "its BTT ends early")
        yield from _arenas(chain, start, end)
        return
    if namespace.data_offset is None:
        problems.add(Problem(cause=Cause.NOT_SAVED, why="where its data begins is not known"))
        yield Stretch(kind=UNKNOWN, start=start, end=end)
        return
    data = min(start + namespace.data_offset, end)
    yield from _front(start, data, padded=namespace.map == "mem")
    data_end = end if namespace.size is None else min(end, data + namespace.size)
    yield Stretch(kind=USERDATA, start=data, end=data_end)
    if data_end < end:
        yield Stretch(kind=PADDING, start=data_end, end=end)


def stretches_of_block(found: FoundBlock) -> Iterator[Stretch]:
    """Parts of a namespace of which only an info block is known."""
    if found.data is not None:
        block = found.block
        padded = isinstance(block, InfoBlock) and block.mode != PFN_MODE_PMEM
        yield from _front(found.start, found.data[0], padded=padded)
        yield Stretch(kind=USERDATA, start=found.data[0], end=found.data[1])
    elif found.chain is not None and found.chain.arenas and not found.refused:
        last = found.chain.arenas[-1]
        yield from _arenas(found.chain, found.start, found.start + last.offset + last.arena.size)


def _front(start: int, data: int, *, padded: bool) -> Iterator[Stretch]:
    """
    Everything before the data: reserve, info block, struct pages and padding.

    :param padded: Whether nothing but alignment is after the info block: struct pages in RAM.
    """
    block = start + INFO_BLOCK_OFFSET
    after = block + INFO_BLOCK_SIZE
    if data < after:
        if start < data:
            yield Stretch(kind=METADATA, start=start, end=data)
        return
    yield Stretch(kind=METADATA, start=start, end=block)
    yield Stretch(kind=INFOBLOCK, start=block, end=after)
    if after < data:
        yield Stretch(kind=PADDING if padded else METADATA, start=after, end=data)


def _arenas(chain: BttChain, start: int, end: int) -> Iterator[Stretch]:
    """Info blocks, data, map and log of every arena; after a chain that ends early, nothing is
    known."""
    at = start
    for place in chain.arenas:
        base, arena = start + place.offset, place.arena
        for kind, first, last in (
            (METADATA, at, base),
            (INFOBLOCK, base, base + INFO_BLOCK_SIZE),
            (METADATA, base + INFO_BLOCK_SIZE, base + arena.dataoff),
            (USERDATA, base + arena.dataoff, base + arena.mapoff),
            (METADATA, base + arena.mapoff, base + arena.size),
        ):
            first, last = max(first, at), min(last, end)
            if first < last:
                yield Stretch(kind=kind, start=first, end=last)
                at = last
    if at < end:
        yield Stretch(kind=UNKNOWN if chain.problems else PADDING, start=at, end=end)
