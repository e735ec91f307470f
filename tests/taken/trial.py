# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Trials on one dump: ask in full, record what was read, ask again without each of some pages.

The dump is opened once; every question is asked in a fork of the process, so that no answer finds
what an earlier one left in a cache.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
import functools
import importlib
import json
import os
import pickle
import pkgutil
import random
import re
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
from .compare import Rules, contradictions
from .memory import Reads, page_size_of, record_reads, take_away

__all__ = (
    "Outcome",
    "Result",
    "Trial",
    "choose",
    "forked",
    "import_all",
    "joined_rows",
    "outcome",
    "verdict",
)

Paths = Mapping[str, frozenset[str]]

SECONDS = 120
"""CPU time after which an answer counts as one that never comes."""

_PLACES = {"in_ram", "on_pmem", "saved", "unmapped"}
_CHECK = {"total", "looked_at", "zero", "heads", "foreign", "used", "entries", "entries_idle"}
_COUNTS = {
    "pmem-pages": {"pages", "size"},
    "pmem-coverage": _PLACES | _CHECK,
    "pmem-memmap": _PLACES,
    "pmem-namespaces": _PLACES,
}
_CUTS = {"pmem-pages": {"ranges"}}
_MAPPED = 8
"""How often one page of struct pages is mapped: once for each page of tails of a 2 MiB folio
(mm/hugetlb_vmemmap.c, vmemmap_populate_compound_pages())."""
_OF_MEMMAP = {"pmem-coverage", "pmem-memmap", "pmem-namespaces"}
"""Commands that count the bytes of struct pages at each place where they are mapped."""
_USAGE_RISES = {"excluded": 1, "memory_hole": 1, "overlap": 1}
"""The program headers still have a page that is absent: it counts as one that two of them have."""
_STRUCT_PAGE = 64
"""bytes: the kernels of all samples have struct pages of this size."""


@dataclass(frozen=True)
class Outcome:
    """How a question was answered."""

    json: Any = None
    notes: tuple[str, ...] = ()
    whole: bool = False
    error: str | None = None
    """A :class:`~drgn_pmem.errors.PmemError`, in words."""
    denies: bool = False
    """Whether the error says that there is no such thing, or that the question was wrong."""
    fault: str | None = None
    """What must never happen: a traceback, no answer in time."""


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


def verdict(
    command: str, page: int, full: Outcome, part: Outcome, paths: Paths | None = None
) -> list[str]:
    """
    What is wrong with an answer of a dump without a page; nothing if it keeps the law.

    :param page: Size of the page (bytes).
    :param paths: Path of a file -> all of its paths.
    """
    if part.fault is not None:
        return [part.fault]
    if part.error is not None:
        if full.denies or not part.denies:
            return []
        return [f"says that there is none: {part.error}"]
    if full.error is not None:
        if part.whole or (full.denies and part.json):
            return [f"answers what the full dump does not: {full.error}"]
        return []
    if command == "pmem-report":
        return _sections(page, full, part, paths)
    if command == "pmem-diagnose":
        return diagnosis(full.json, part.json, part.whole)
    if command == "pmem-diff":
        return _differences(part)
    if command == "pmem-trim":
        return _kept(page, full, part)
    expected, shown = full.json, part.json
    if command == "pmem-segments" and not part.whole:
        expected = joined_rows(full.json, part.json)
    if command == "pmem-infoblocks" and not part.whole:
        # Where the DIMMs are not known, copies of labels in RAM are shown, stale ones, too.
        shown = [row for row in shown if not _of_no_dimm(row)]
    if command == "pmem-pins" and not part.whole:
        shown = [_with_functions(row, expected) for row in shown]
    found = contradictions(expected, shown, part.whole, _rules(command, page, paths))
    return [f"SILENT {line}" for line in found] if part.whole else found


def _of_no_dimm(row: dict[str, Any]) -> bool:
    return row["kind"] == "labels" and row["dimm"] is None


def _with_functions(row: dict[str, Any], full: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A pinned page whose waiters are named by the function that the full answer has: each of
    several on a stack shows that it waits, and a module's may have no name."""
    named = {
        (page["pfn"], waiter["pid"]): waiter["function"]
        for page in full
        for waiter in page["waiters"]
        if waiter["function"].endswith(_LAYOUT_BREAKS)
    }
    waiters = [
        {**waiter, "function": named.get((row["pfn"], waiter["pid"]), waiter["function"])}
        if waiter["function"].endswith(_LAYOUT_BREAKS)
        else waiter
        for waiter in row["waiters"]
    ]
    return {**row, "waiters": waiters}


_LAYOUT_BREAKS = ("_break_layout", "_break_layouts")


def joined_rows(full: list[Any], part: list[Any]) -> list[Any]:
    """
    Rows of pmem-segments as an answer has them that does not know what was persistent memory: it
    does not cut the bitmap there, and a row that says so (``"pmem": null``) lies over several.
    """
    rows = list(full)
    for row in part:
        if row["type"] != "bitmap" or row["pmem"] is not None:
            continue
        start = int(row["physical"], 16)
        end = start + row["memory_size"]
        inside = [r for r in rows if start <= int(r["physical"], 16) < end]
        if len(inside) < 2 or sum(r["memory_size"] for r in inside) != row["memory_size"]:
            continue
        states: dict[str, int] = {}
        for old in inside:
            for state, size in old["states"].items():
                states[state] = states.get(state, 0) + size
        first = rows.index(inside[0])
        whole = {
            **inside[0],
            "memory_size": row["memory_size"],
            "file_size": sum(r["file_size"] for r in inside),
            "states": states,
        }
        for name in ("iomem", "namespaces"):
            found = [item for r in inside for item in r[name]]
            whole[name] = [item for n, item in enumerate(found) if item not in found[:n]]
        rows[first : first + len(inside)] = [whole]
    return [{**row, "index": number} for number, row in enumerate(rows)] if rows != full else full


def _rules(command: str, page: int, paths: Paths | None) -> Rules:
    mapped = _MAPPED if command in _OF_MEMMAP else 1
    falls = {
        "pmem-coverage": {
            "saved": mapped * page,
            **dict.fromkeys(_CHECK, mapped * page // _STRUCT_PAGE),
        },
        "pmem-memmap": {"saved": mapped * page},
        "pmem-namespaces": {"saved": mapped * page},
        "pmem-segments": {"file_size": page},
        # The last page of memory is where the total ends.
        "pmem-usage": {"original": 1, "remaining": 1, "total": 1},
    }
    return Rules(
        page,
        frozenset(_COUNTS.get(command, ())),
        frozenset(_CUTS.get(command, ())),
        falls.get(command, {}),
        _USAGE_RISES if command == "pmem-usage" else {},
        mapped,
        frozenset({"folio_pages"} if command == "pmem-pages" else ()),
        paths or {},
    )


_OF_THE_DUMP = frozenset(
    {"debug-info-missing", "memmap-not-saved", "memmap-overwritten", "ram-missing"}
)
"""Rules about what the dump holds and what was loaded: their findings follow the page, or the
module. (What is left of struct pages may be too little to show that they were overwritten.)"""

_NAMELESS = re.compile(r"inode \d+|namespace\d+\.\d+|pmem|a file of \S+")
"""Subjects that stand for a file whose name could not be read."""


def diagnosis(full: list[Any], part: list[Any], whole: bool) -> list[str]:
    """
    A diagnosis with a page less: a rule says the same, or that it could not read everything; it
    finds nothing new but what the missing page itself is, and of bad pages that their file is
    not known.
    """
    found = []
    old, new = (_by_rule(rows) for rows in (full, part))
    lacking = {row["id"] for row in part if not row["complete"]}
    for rule in sorted(old.keys() | new.keys()):
        before, after = old.get(rule, {}), new.get(rule, {})
        if before == after or rule in _OF_THE_DUMP:
            continue
        if whole or rule not in lacking:
            found.append(f"SILENT {rule}: {before} became {after}")
        elif rule != "poison-in-data":
            fresh = [name for name in after.keys() - before.keys() if not _NAMELESS.fullmatch(name)]
            found += [f"{rule}: {name} is new" for name in fresh]
    if whole and lacking:
        found.append(f"SILENT {sorted(lacking)} lack something, and the answer is whole")
    return found


def _by_rule(rows: list[Any]) -> dict[str, dict[str, list[str]]]:
    """Rule -> subject -> what was found of it; what could not be decided is left out."""
    rules: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row["finding"] != "cannot be decided":
            subjects = rules.setdefault(row["id"], {})
            subjects.setdefault(row["subject"], []).append(row["finding"])
    return rules


def _differences(part: Outcome) -> list[str]:
    """
    A dump without a page beside the whole one: what the dump holds differs, nothing else is known
    to; and it is not another machine, build, boot or crash.
    """
    found = [
        f"{change['what']}: {change['kind']} {change['subject']} {change['field']}"
        for change in part.json["changes"]
        if change["what"] != "unknown" and change["kind"] != "coverage"
    ]
    found += [f"not one {one['what']}" for one in part.json["same"] if one["same"] is False]
    return [f"SILENT {line}" for line in found] if part.whole else found


def _sections(page: int, full: Outcome, part: Outcome, paths: Paths | None) -> list[str]:
    """A report is complete section by section."""
    found = contradictions(full.json["crash"], part.json["crash"], part.whole, Rules(page))
    sections = {section["command"]: section for section in part.json["sections"]}
    for section in full.json["sections"]:
        if section["command"] not in sections:
            found += [f"{section['command']} is missing"] if part.whole else []
            continue
        command = section["command"].split()[0]
        old, new = map(_of_section, (section, sections.pop(section["command"])))
        found += [f"{command}: {line}" for line in verdict(command, page, old, new, paths)]
        if part.whole and not new.whole and old.whole:
            found.append(f"{command}: not complete, and the report is")
    found += [f"{command} is new" for command in sections]
    return found


def _kept(page: int, full: Outcome, part: Outcome) -> list[str]:
    """Never is more kept of a dump that holds less; a complete answer has all but the page."""
    kept, dropped = (
        [sum(outcome.json[key].values()) for outcome in (full, part)] for key in ("kept", "dropped")
    )
    found = [f"kept: {kept[0]} bytes became {kept[1]}"] if kept[1] > kept[0] else []
    lost = sum(kept[::2]) + dropped[0] - kept[1] - dropped[1]
    if not 0 <= lost <= page:
        found.append(f"{lost} bytes are neither kept nor dropped")
    return found


def _of_section(section: dict[str, Any]) -> Outcome:
    return Outcome(
        section["answer"],
        whole=section["state"] == "complete",
        error=section["error"],
        denies=section["state"] == "not there",
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
        return Outcome(value, tuple(answer.all_notes()), answer.whole)
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
