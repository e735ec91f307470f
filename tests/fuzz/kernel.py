# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Commands on kernel memory of which a few bytes were changed: only bytes that the command reads. The
dump stays as it is; each case lays its bytes over it in a fork.
"""

from dataclasses import dataclass
import gc
import random

from drgn import Program

from drgn_pmem.analysis.pages import readers
from drgn_pmem.commands import load_commands
from drgn_pmem.dumpfile.program import open_program

from ..samples import Case
from ..taken.lines import line_of
from ..taken.memory import virtual_aliases, watch_reads
from ..taken.trial import Trial, forked
from .limits import ask, watched

__all__ = ("Change", "Kernel")

Spans = list[tuple[int, int]]
_MOST_SPANS = 20_000


@dataclass(frozen=True)
class Change:
    """Bytes in place of others."""

    physical: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.physical:#x}={self.data.hex()}"


def _weight(line: str) -> int:
    """How often a command is asked: one that asks all others, or scans all pages, costs as much as
    ten."""
    return 1 if line.startswith(("pmem-report", "pmem-pins", "pmem-diagnose")) else 8


class Kernel:
    """A dump that commands are asked of."""

    def __init__(self, case: Case) -> None:
        self.trial = Trial(case)
        self.prog: Program = self.trial.prog
        self.lines = [line_of(case, spec) for spec in load_commands()]
        self._spans: dict[str, Spans] = {}
        gc.freeze()  # a fork copies no page for the collector's sake

    def spans(self, line: str) -> Spans:
        """(physical address, bytes) of what a command reads."""
        if line not in self._spans:
            self._spans[line] = forked(lambda: self._traced(line))
        return self._spans[line]

    def _traced(self, line: str) -> Spans:
        found: set[tuple[int, int]] = set()
        other = open_program(self.trial.case.dump)[0]
        watch_reads(self.prog, other, lambda physical, size: found.add((physical, size)))
        ask(self.prog, line)
        chosen = sorted(found)
        return chosen[:: max(1, len(chosen) // _MOST_SPANS)]

    def case(self, chance: random.Random) -> tuple[str, list[Change]]:
        """A command and what to change of the memory that it reads."""
        (line,) = chance.choices(self.lines, [_weight(line) for line in self.lines])
        spans = self.spans(line)
        changes = [self._change(chance, spans) for _ in range(chance.choice((1, 1, 1, 2, 4)))]
        words = chance.choice(("", "", " --json"))
        return line + words, [change for change in changes if change is not None]

    def _change(self, chance: random.Random, spans: Spans) -> Change | None:
        if not spans:
            return None
        physical, size = chance.choice(spans)
        width = min(size, chance.choice((1, 2, 4, 8, 8, 8)))
        at = physical + chance.randrange(0, size - width + 1, width)
        old = self.prog.read(at, width, True)
        kind = chance.randrange(5)
        if kind == 0:  # one bit
            number = int.from_bytes(old, "little") ^ 1 << chance.randrange(8 * width)
            return Change(at, number.to_bytes(width, "little"))
        if kind == 1:  # what is elsewhere in what is read: a pointer to another structure
            other, length = chance.choice(spans)
            return Change(at, self.prog.read(other, min(width, length), True))
        if kind == 2:
            return Change(at, chance.randbytes(width))
        if kind == 3:  # a terminal escape in a string
            return Change(at, b"\x1b]0;x\x07\x9b"[:width])
        value = chance.choice((0, 1, -1, 1 << 63, 1 << 62, 1 << 31, 1 << 20, 4096, -4096))
        return Change(at, (value & (1 << 8 * width) - 1).to_bytes(width, "little"))

    def ask(self, line: str, changes: list[Change]) -> str:
        """What a command does wrong on the changed memory; empty if nothing."""

        def question() -> str:
            readers._find_reader = readers._ProgramReader  # type: ignore[assignment]
            for change in changes:
                overlay(self.prog, change)
            return ask(self.prog, line)

        return watched(question)


def overlay(prog: Program, change: Change) -> None:
    """Have the program read other bytes at a physical address, and where it is mapped linearly."""

    def over(physical: int, virtual: int, size: int, is_physical: bool) -> None:
        data = change.data[physical - change.physical :][:size]

        def read(_: int, count: int, offset: int, physical: bool) -> bytes:
            return data[offset : offset + count]

        prog.add_memory_segment(virtual, size, read, is_physical)

    over(change.physical, change.physical, len(change.data), True)
    for virtual, physical, size in virtual_aliases(prog, change.physical, len(change.data)):
        over(physical, virtual, size, False)
