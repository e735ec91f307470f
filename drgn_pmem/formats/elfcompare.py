# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Comparing crash headers
-----------------------

Two headers of one crash (found in memory, rebuilt from the kernel's state, implied by the dump)
differ where something went wrong. A difference names what only one of them has, by address and in
words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import enum

from drgn_pmem.formats.elfcorehdr import PF_DEV, CrashHeader, HeaderSource, ProgramHeader, Role
from drgn_pmem.ranges import Range, RangeSet, short_size
from drgn_pmem.record import Record, Show, shown

__all__ = ("DifferenceKind", "HeaderDifference", "compare_elfcorehdr", "memory_covered")


class DifferenceKind(enum.Enum):
    """The kinds of differences between two headers."""

    MACHINE = "machine"
    BYTEORDER = "byteorder"
    CPU_NOTES = "cpu notes"
    VMCOREINFO = "vmcoreinfo"
    KERNEL_TEXT = "kernel text"
    MEMORY = "memory"
    PMEM = "pmem"
    """Whether memory is marked with ``PF_DEV``."""
    VIRTUAL = "virtual"
    OFFSET = "offset"
    FLAGS = "flags"
    SPLIT = "split"
    """The same memory in other pieces."""
    ORDER = "order"
    """The same pieces in another order."""


class HeaderDifference(Record):
    """One difference between two headers."""

    kind: DifferenceKind
    words: str
    only_in: HeaderSource | None = None
    """The header that has it; ``None`` if both have it, with other values."""
    start: int | None = shown(Show.ADDRESS, default=None)
    end: int | None = shown(Show.ADDRESS, default=None)
    """Physical range, end exclusive."""


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
    return [phdr for phdr in header.loads if phdr.role is not Role.KERNEL_TEXT]


def compare_elfcorehdr(left: CrashHeader, right: CrashHeader) -> tuple[HeaderDifference, ...]:
    """
    All differences, what matters most first.

    Notes and offsets are not compared with an implied header: ``/proc/vmcore`` does not keep them.
    """
    implied = HeaderSource.IMPLIED in (left.source, right.source)
    differences = list(_compare_identity(left, right))
    differences += _compare_memory(left, right)
    differences += _compare_text(left, right)
    if not implied:
        differences += _compare_notes(left, right)
    differences += _compare_loads(left, right, implied)
    return tuple(differences)


def _compare_identity(left: CrashHeader, right: CrashHeader) -> Iterator[HeaderDifference]:
    one, other = left.source.value, right.source.value
    if left.machine != right.machine and None not in (left.machine, right.machine):
        yield HeaderDifference(
            kind=DifferenceKind.MACHINE,
            words=f"{one} is for {left.machine_name}, {other} for {right.machine_name}",
        )
    if left.byteorder != right.byteorder:
        yield HeaderDifference(
            kind=DifferenceKind.BYTEORDER,
            words=f"{one} is {left.byteorder}-endian, {other} {right.byteorder}-endian",
        )


def _compare_memory(left: CrashHeader, right: CrashHeader) -> Iterator[HeaderDifference]:
    covered = [_covered(_memory(h)) for h in (left, right)]
    marked = [_covered(phdr for phdr in _memory(h) if phdr.pmem) for h in (left, right)]
    for one, other in ((0, 1), (1, 0)):
        has, lacks = (left, right)[one].source, (left, right)[other].source
        missing = covered[one].subtract(covered[other])
        for part in missing:
            yield HeaderDifference(
                kind=DifferenceKind.MEMORY,
                words=f"{part} ({short_size(part.size)}) is in {has.value}, not in {lacks.value}",
                only_in=has,
                start=part.start,
                end=part.end,
            )
        # Memory that one header lacks altogether is a difference of its own.
        for part in marked[one].subtract(marked[other]).subtract(missing):
            yield HeaderDifference(
                kind=DifferenceKind.PMEM,
                words=(
                    f"{part} is marked as persistent memory (PF_DEV) in {has.value}, "
                    f"not in {lacks.value}"
                ),
                only_in=has,
                start=part.start,
                end=part.end,
            )


def _compare_text(left: CrashHeader, right: CrashHeader) -> Iterator[HeaderDifference]:
    texts = [
        {
            (phdr.physical, phdr.virtual, phdr.memory_size)
            for phdr in header.loads
            if phdr.role is Role.KERNEL_TEXT
        }
        for header in (left, right)
    ]
    for header, only in ((left, texts[0] - texts[1]), (right, texts[1] - texts[0])):
        for physical, virtual, size in sorted(only):
            yield HeaderDifference(
                kind=DifferenceKind.KERNEL_TEXT,
                words=(
                    f"{header.source.value} maps the kernel text at {physical:#x} to {virtual:#x}, "
                    f"{size} bytes"
                ),
                only_in=header.source,
                start=physical,
                end=physical + size,
            )


def _compare_notes(left: CrashHeader, right: CrashHeader) -> Iterator[HeaderDifference]:
    for kind in (DifferenceKind.CPU_NOTES, DifferenceKind.VMCOREINFO):
        notes = [
            {
                (phdr.physical, phdr.memory_size)
                for phdr in header.notes
                if (phdr.role is Role.VMCOREINFO) == (kind is DifferenceKind.VMCOREINFO)
            }
            for header in (left, right)
        ]
        for header, only in ((left, notes[0] - notes[1]), (right, notes[1] - notes[0])):
            for address, size in sorted(only):
                yield HeaderDifference(
                    kind=kind,
                    words=f"{header.source.value} has {kind.value} at {address:#x}, {size} bytes",
                    only_in=header.source,
                    start=address,
                    end=address + size,
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
            (DifferenceKind.VIRTUAL, mine.virtual, other.virtual),
            (DifferenceKind.FLAGS, mine.flags & ~PF_DEV, other.flags & ~PF_DEV),
        ]
        if not implied:
            compared.append((DifferenceKind.OFFSET, mine.offset, other.offset))
        for kind, value, its in compared:
            if value != its:
                yield HeaderDifference(
                    kind=kind,
                    words=(
                        f"{mine.physical:#x} has {kind.value} {value:#x} in {left.source.value}, "
                        f"{its:#x} in {right.source.value}"
                    ),
                    start=mine.physical,
                    end=mine.end,
                )
    spans = [[(phdr.physical, phdr.end) for phdr in phdrs] for phdrs in (lefts, rights)]
    if spans[0] == spans[1] or _covered(lefts) != _covered(rights):
        return
    if sorted(spans[0]) == sorted(spans[1]):
        yield HeaderDifference(
            kind=DifferenceKind.ORDER, words="the same PT_LOADs are in another order"
        )
    else:
        yield HeaderDifference(
            kind=DifferenceKind.SPLIT,
            words=(
                f"the same memory is {len(lefts)} PT_LOADs in {left.source.value}, "
                f"{len(rights)} in {right.source.value}"
            ),
        )
