# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Comparing crash headers
-----------------------

Two headers for one crash (found in memory, rebuilt from the kernel's state, implied by the dump)
tell different stories where something went wrong. A difference says what only one of them has, in
addresses and in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from drgn_pmem.formats.elfcorehdr import MACHINES, PF_DEV, CrashHeader, ProgramHeader
from drgn_pmem.ranges import Range, RangeSet

__all__ = ("HeaderDifference", "compare_elfcorehdr", "memory_covered")


@dataclass(frozen=True)
class HeaderDifference:
    """One difference between two headers."""

    kind: str
    """
    ``machine``, ``byteorder``, ``cpu notes``, ``vmcoreinfo``, ``kernel text``, ``memory``,
    ``pmem``, ``virtual``, ``offset``, ``flags``, ``split`` or ``order``.
    """
    words: str
    only_in: str | None = None
    """Source of the header that has it; ``None`` if both have it, with other values."""
    start: int | None = None
    end: int | None = None
    """Physical range, end exclusive."""

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "words": self.words,
            "only_in": self.only_in,
            "start": None if self.start is None else f"{self.start:#x}",
            "end": None if self.end is None else f"{self.end:#x}",
        }


def _covered(phdrs: Iterable[ProgramHeader]) -> RangeSet:
    """Physical memory of program headers, adjacent ones joined: how it is split does not count."""
    return RangeSet(Range(phdr.physical, phdr.end) for phdr in phdrs).contiguous()


def memory_covered(header: CrashHeader, start: int, end: int) -> int:
    """
    Bytes of a physical range that a header's PT_LOADs cover.

    :param end: Exclusive.
    """
    return _covered(header.loads).size(start, end)


def _memory(header: CrashHeader) -> list[ProgramHeader]:
    return [phdr for phdr in header.loads if phdr.what != "kernel text"]


def compare_elfcorehdr(left: CrashHeader, right: CrashHeader) -> tuple[HeaderDifference, ...]:
    """
    All differences, what matters most first.

    Notes and offsets are not compared with an ``implied`` header: ``/proc/vmcore`` does not keep
    them.
    """
    implied = "implied" in (left.source, right.source)
    differences = list(_compare_identity(left, right))
    differences += _compare_memory(left, right)
    differences += _compare_text(left, right)
    if not implied:
        differences += _compare_notes(left, right)
    differences += _compare_loads(left, right, implied)
    return tuple(differences)


def _compare_identity(left: CrashHeader, right: CrashHeader) -> Iterator[HeaderDifference]:
    if left.machine != right.machine:
        names = [str(MACHINES.get(header.machine, header.machine)) for header in (left, right)]
        yield HeaderDifference(
            "machine", f"{left.source} is for {names[0]}, {right.source} for {names[1]}"
        )
    if left.byteorder != right.byteorder:
        yield HeaderDifference(
            "byteorder",
            f"{left.source} is {left.byteorder}-endian, {right.source} {right.byteorder}-endian",
        )


def _compare_memory(left: CrashHeader, right: CrashHeader) -> Iterator[HeaderDifference]:
    covered = [_covered(_memory(h)) for h in (left, right)]
    marked = [_covered(phdr for phdr in _memory(h) if phdr.pmem) for h in (left, right)]
    for one, other in ((0, 1), (1, 0)):
        has, lacks = (left, right)[one].source, (left, right)[other].source
        missing = covered[one].subtract(covered[other])
        for part in missing:
            yield HeaderDifference(
                "memory",
                f"{part} ({part.size} bytes) is in {has}, not in {lacks}",
                has,
                part.start,
                part.end,
            )
        # Memory that one header lacks altogether is named above.
        for part in marked[one].subtract(marked[other]).subtract(missing):
            yield HeaderDifference(
                "pmem",
                f"{part} is marked as persistent memory (PF_DEV) in {has}, not in {lacks}",
                has,
                part.start,
                part.end,
            )


def _compare_text(left: CrashHeader, right: CrashHeader) -> Iterator[HeaderDifference]:
    texts = [
        {
            (phdr.physical, phdr.virtual, phdr.memory_size)
            for phdr in header.loads
            if phdr.what == "kernel text"
        }
        for header in (left, right)
    ]
    for header, only in ((left, texts[0] - texts[1]), (right, texts[1] - texts[0])):
        for physical, virtual, size in sorted(only):
            yield HeaderDifference(
                "kernel text",
                f"{header.source} maps the kernel text at {physical:#x} to {virtual:#x},"
                f" {size} bytes",
                header.source,
                physical,
                physical + size,
            )


def _compare_notes(left: CrashHeader, right: CrashHeader) -> Iterator[HeaderDifference]:
    for kind in ("cpu notes", "vmcoreinfo"):
        notes = [
            {
                (phdr.physical, phdr.memory_size)
                for phdr in header.notes
                if (phdr.what == "vmcoreinfo") == (kind == "vmcoreinfo")
            }
            for header in (left, right)
        ]
        for header, only in ((left, notes[0] - notes[1]), (right, notes[1] - notes[0])):
            for address, size in sorted(only):
                yield HeaderDifference(
                    kind,
                    f"{header.source} has {kind} at {address:#x}, {size} bytes",
                    header.source,
                    address,
                    address + size,
                )


def _compare_loads(
    left: CrashHeader, right: CrashHeader, implied: bool
) -> Iterator[HeaderDifference]:
    lefts, rights = _memory(left), _memory(right)
    others = {phdr.physical: phdr for phdr in rights}
    for mine in lefts:
        other = others.get(mine.physical)
        if other is None:
            continue
        compared = [
            ("virtual", mine.virtual, other.virtual),
            ("flags", mine.flags & ~PF_DEV, other.flags & ~PF_DEV),
        ]
        if not implied:
            compared.append(("offset", mine.offset, other.offset))
        for kind, value, its in compared:
            if value != its:
                yield HeaderDifference(
                    kind,
                    f"{mine.physical:#x} has {kind} {value:#x} in {left.source},"
                    f" {its:#x} in {right.source}",
                    None,
                    mine.physical,
                    mine.end,
                )
    spans = [[(phdr.physical, phdr.end) for phdr in phdrs] for phdrs in (lefts, rights)]
    if spans[0] == spans[1] or _covered(lefts) != _covered(rights):
        return
    if sorted(spans[0]) == sorted(spans[1]):
        yield HeaderDifference("order", "the same PT_LOADs are in another order")
    else:
        yield HeaderDifference(
            "split",
            f"the same memory is {len(lefts)} PT_LOADs in {left.source},"
            f" {len(rights)} in {right.source}",
        )
