# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Trials on one dump: ask in full, record what was read, ask again without each of some pages.

The dump is opened once; every question is asked in a fork of the process, so that no answer finds
what an earlier one left in a cache.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
import functools
import importlib
import json
import os
import pickle
import pkgutil
import random
import resource
import shlex
import signal
import traceback
from typing import Any

from drgn import Program

import drgn_pmem
from drgn_pmem.commands import load_commands
from drgn_pmem.dumpfile import DumpFormat, State, dump_of
from drgn_pmem.dumpfile.program import open_program
from drgn_pmem.errors import NotFound, PmemError, UsageError
from drgn_pmem.output.json import dumps
from drgn_pmem.spec import SPECS, ask, json_value, parse_arguments

from ..samples import Case, open_crash
from .memory import Reads, page_size_of, record_reads, take_away
from .verdict import Outcome, Paths, verdict

__all__ = ("Result", "Trial", "choose", "forked", "import_all", "outcome")

SECONDS = 120
"""CPU time after which an answer counts as one that never comes."""


@dataclass(frozen=True)
class Result:
    """One page taken away from one question."""

    line: str
    page: int
    state: State
    readers: tuple[str, ...]
    whole: bool
    faults: tuple[str, ...]
    """What the answer got wrong; empty if it is the full one or says what it lacks."""

    def __str__(self) -> str:
        shown = [*self.faults[:5], *(["..."] if len(self.faults) > 5 else [])]
        return "\n    ".join(
            (
                f"without {self.page:#x} ({self.state.value}), read by {', '.join(self.readers)}:",
                *shown,
            )
        )


class Trial:
    """
    A dump, and questions to it.

    :param case: Sample and format.
    """

    def __init__(self, case: Case) -> None:
        load_commands()
        import_all()
        # drgn reads kernel virtual memory of an ELF dump through p_vaddr or the page tables; of a
        # kdump-compressed one libkdumpfile does, unseen, unless drgn is asked to.
        os.environ["DRGN_PREFER_PGTABLE_READER"] = "0" if case.format.endswith("elf") else "1"
        self.case = case
        self.prog = open_crash(case.sample, case.dump)
        dump_of(self.prog).coverage  # noqa: B018
        self._before = dict(self.prog.cache)

    def full(self, line: str) -> Outcome:
        """The answer of the whole dump."""
        return forked(lambda: outcome(self.prog, line))

    def reads(self, line: str) -> tuple[Outcome, Reads]:
        """The same, and which pages were read for it."""

        def recorded() -> tuple[Outcome, Reads]:
            other = open_program(self.case.dump)[0]
            reads = record_reads(self.prog, other)
            answer = outcome(self.prog, line)
            return answer, dict(reads)

        answer = forked(recorded)
        return answer if isinstance(answer, tuple) else (answer, {})

    @functools.cached_property
    def paths(self) -> Paths:
        """Path of each DAX file -> all of its paths."""
        answer = self.full("pmem-files")
        groups = [frozenset(file["paths"]) for file in answer.json or ()]
        return {path: group for group in groups for path in group}

    def without(self, line: str, page: int, state: State) -> Outcome:
        """The answer of the dump without one page."""

        def taken() -> Outcome:
            take_away(self.prog, page, state)
            return outcome(self.prog, line)

        return forked(taken)

    def asked_again(
        self, line: str, pick: Callable[[Reads], Sequence[int]]
    ) -> tuple[int, Iterator[Result]]:
        """
        Take some of the pages away that a question read.

        :param pick: Chooses pages of those that were read.
        :return: How many pages were read, and the results.
        """
        full = self.full(line)
        answer, reads = self.reads(line)
        assert not full.fault, f"{self.case}: {line}: {full.fault}"
        assert answer == full, f"{self.case}: {line}: another answer when its reads are recorded"
        return len(reads), self._results(line, full, reads, pick(reads))

    def _results(
        self, line: str, full: Outcome, reads: Reads, pages: Sequence[int]
    ) -> Iterator[Result]:
        size = page_size_of(self.prog)
        # makedumpfile excludes pages; only of an ELF dump a segment can be missing
        elf = dump_of(self.prog).contained is DumpFormat.ELF
        states = (State.EXCLUDED, State.ABSENT) if elf else (State.EXCLUDED,)
        command = line.split()[0]
        for number, page in enumerate(pages):
            state = states[number % len(states)]
            part = self.without(line, page, state)
            yield Result(
                line,
                page,
                state,
                tuple(sorted(reads[page])),
                part.whole,
                tuple(verdict(command, size, full, part, self.paths)),
            )


def outcome(prog: Program, line: str) -> Outcome:
    """Ask a question."""
    name, *words = shlex.split(line)
    try:
        args = parse_arguments(SPECS[name], [*words, "--json"])
        assert args is not None
        answer = ask(SPECS[name], prog, args)
        value = json.loads(dumps(json_value(args, answer)))
        if name == "pmem-report":
            del value["report"]["made"]  # the time
        lines = answer.extra if name == "pmem-diagnose" else ()
        screen = tuple((line.label, line.text) for line in lines)
        return Outcome(value, tuple(answer.all_notes()), answer.whole, screen=screen)
    except PmemError as error:
        return Outcome(error=str(error), denies=isinstance(error, (NotFound, UsageError)))
    except Exception:
        return Outcome(fault=traceback.format_exc(limit=-6))


def choose(reads: Reads, count: int, seed: str, used: dict[str, int]) -> list[int]:
    """
    Pages by seed, spread over the functions that read them.

    :param used: How often each function's pages were chosen before; kept up to date.
    """
    chance = random.Random(seed)
    of_reader: dict[str, list[int]] = {}
    for page in sorted(reads):
        for reader in sorted(reads[page]):
            of_reader.setdefault(reader, []).append(page)
    chosen: dict[int, None] = {}
    while len(chosen) < min(count, len(reads)):
        left = [r for r, pages in of_reader.items() if any(p not in chosen for p in pages)]
        reader = min(left, key=lambda r: (used.get(r, 0), chance.random()))
        used[reader] = used.get(reader, 0) + 1
        chosen[chance.choice([p for p in of_reader[reader] if p not in chosen])] = None
    return list(chosen)


def import_all() -> None:
    """Import what a question would: forks then need not."""
    for module in pkgutil.walk_packages(drgn_pmem.__path__, "drgn_pmem."):
        if not module.name.endswith("__main__") and ".shell" not in module.name:
            importlib.import_module(module.name)


def forked(make: Callable[[], Any]) -> Any:
    """What a function returns in a process of its own."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(receive)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            # not by the clock: other tests run at the same time
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10 * SECONDS)
            try:
                value = make()
            except BaseException:
                value = Outcome(fault=traceback.format_exc(limit=-6))
            with os.fdopen(send, "wb") as pipe:
                pickle.dump(value, pipe)
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if not data:
        return Outcome(fault=f"no answer within {SECONDS} s (wait status {status})")
    return pickle.loads(data)
