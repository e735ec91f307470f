# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The first screen
----------------

A dump in ten labelled lines at most: what it is (DUMP, PMEM), what is wrong (POISON, PINNED, TASKS,
KERNEL, ODD), what its answers are worth (TRUST, LACKS), what to do (DO). A line where nothing is
wrong is left out; a line that could not be decided says so.
"""

from collections.abc import Iterable, Iterator

from drgn_pmem.analysis.coverage.writer import fadump_area
from drgn_pmem.analysis.findings.case import Facts
from drgn_pmem.analysis.findings.head import dump_text, pmem_text
from drgn_pmem.analysis.findings.model import Finding, Heading, Outcome, Ruling, Severity
from drgn_pmem.analysis.findings.rules.poison import how_to_clear, pages_by_place
from drgn_pmem.analysis.findings.words import few, least, plural, short_size
from drgn_pmem.analysis.inventory.machine import MachineMap, read_machine
from drgn_pmem.dumpfile import DumpFormat, State, coverage_of, dump_of
from drgn_pmem.errors import NotFound
from drgn_pmem.partial import Problems
from drgn_pmem.record import Record

__all__ = ("Line", "Screen")

_GROUPS = 6
"""Groups of findings that a line names."""
_DO = 10
"""Pieces of advice."""

_LOW = 1 << 20


class Line(Record):
    """A line of the first screen."""

    label: str
    """``"POISON"``"""
    text: str
    """As in the dump: not escaped."""


class Screen:
    """Makes the lines from what the rules found out."""

    def __init__(self, facts: Facts, problems: Problems) -> None:
        self.facts = facts
        self.prog = facts.prog
        self.problems = problems
        """Get what the lines lack that is not of a rule."""
        self._whys: dict[str, Heading] = {}
        """Reason why something is not known -> the line that has it."""
        self._rulings: dict[Heading, list[Ruling]] = {heading: [] for heading in Heading}

    def add(self, ruling: Ruling) -> None:
        """Take what a rule found out into account."""
        self._rulings[ruling.heading].append(ruling)

    def line(self, heading: Heading) -> Line | None:
        """The line of a heading, when its rules are decided; None if there is nothing to say."""
        found = [item for ruling in self._rulings[heading] for item in ruling.findings]
        found.sort(key=lambda item: item.severity.rank)
        own = Problems()
        said = own.collect(_WORDS[heading](self, found))
        said += [self._undecided(heading), _not_known(own)]
        self.problems.extend(own, heading.value)
        parts = [part for part in said if part]
        return Line(label=heading.name, text="; ".join(parts)) if parts else None

    def _undecided(self, heading: Heading) -> str:
        """What could not be decided, and why; that there may be more than what was found."""
        rulings = self._rulings[heading]
        lacking = [ruling for ruling in rulings if not ruling.complete]
        if not lacking:
            return ""
        problems = [str(p) for r in lacking for p in r.problems if p.degrades]
        why = self._why(heading, list(dict.fromkeys(problems)))
        undecided = [ruling.about for ruling in lacking if ruling.outcome is Outcome.UNDECIDED]
        if len(undecided) == len(rulings):
            looked = all(ruling.looked for ruling in rulings)
            none = "none was found, but not all could be looked at"
            return f"{none if looked else 'not known whether there is any'} ({why})"
        if len(lacking) == len(rulings) or not undecided:
            return f"there may be more ({why})"
        return f"not known: {few(undecided, _GROUPS)} ({why})"

    def _why(self, heading: Heading, whys: list[str]) -> str:
        """The first reason; where a line before has it, that line is named instead."""
        before = self._whys.setdefault(whys[0], heading)
        if before is not heading:
            return f"why: see {before.name}"
        others = len(whys) - 1
        return whys[0] + (f"; and {plural(others, 'more problem')}" if others else "")

    def head(self, media: Iterable[Ruling]) -> Iterator[Line | None]:
        """
        The lines that say what the dump and the machine are.

        :param media: What the rules about info blocks, BTT and labels found out.
        """
        for label, read in (
            ("DUMP", lambda: dump_text(self.facts, self.problems)),
            ("PMEM", lambda: pmem_text(self.facts, media, self.problems)),
        ):
            own = Problems()
            text = own.attempt("", read) or _not_known(own)
            self.problems.extend(own, label)
            yield Line(label=label, text=text)

    def advice(self) -> Line | None:
        """What to do, the worst first."""
        found = [i for rulings in self._rulings.values() for r in rulings for i in r.findings]
        found.sort(key=lambda item: item.severity.rank)
        of_files = [item for item in found if item.id == "poison-in-file"]
        lost = [item for item in of_files if item.severity is Severity.CRITICAL]
        todo = dict.fromkeys(item.do for item in found if item.do)
        if len(lost) > 1:
            for item in lost:
                todo.pop(str(item.do), None)
            files = few((item.brief.partition(",")[0] for item in lost), _GROUPS)
            todo = {f"restore {files} from a backup: {how_to_clear(self.prog)}": None} | todo
        if not todo:
            return None
        more = f"; and {len(todo) - _DO} more: pmem-diagnose -v" if len(todo) > _DO else ""
        return Line(label="DO", text="; ".join(str(do) for do in list(todo)[:_DO]) + more)

    def _poison(self, found: list[Finding]) -> Iterator[str]:
        if not found:
            return
        answer = self.facts.poison()
        pages = self.problems.take(answer).pages
        counts = pages_by_place(pages)
        parts = []
        for place, count in counts.items():
            briefs = [item.brief for item in found if item.place == place]
            parts.append(f"{count} {place} ({_join(briefs)})")
        yield f"{least(answer)}{plural(len(pages), 'page')}: {', '.join(parts)}"

    def _pinned(self, found: list[Finding]) -> Iterator[str]:
        if not found:
            return
        answer = self.facts.pins()
        pages = self.problems.take(answer).pages
        places: dict[str, list[str]] = {}
        # What holds a page comes before what waits for it.
        for item in sorted(found, key=lambda item: item.id != "pinned-page"):
            places.setdefault(item.place, []).append(item.brief)
        text = _join([", ".join(briefs) for briefs in places.values()])
        yield f"{least(answer)}{plural(len(pages), 'page')}: {text}" if pages else text

    def _tasks(self, found: list[Finding]) -> Iterator[str]:
        answer = self.facts.tasks()
        tasks = f"{least(answer)}{len(self.problems.take(answer))}"
        pins = self._rulings[Heading.PINNED]
        waiting = [i for r in pins for i in r.findings if i.id == "layout-break"]
        others = [item for item in found if item.id != "task-stuck-on-pmem"]
        found = [item for item in found if item.id == "task-stuck-on-pmem"]
        # A suspended device that a task waits for is named with the task.
        named = {item.place for item in found[:_GROUPS]} - {""}
        others = [item for item in others if item.place not in named]
        if not found and not waiting:
            yield from _grouped(others)
            return
        parts = []
        if waiting:
            parts.append(f"{len(waiting)} in a DAX layout break")
        parts += [f"{item.subject} {item.finding}" for item in found[:_GROUPS]]
        if len(found) > _GROUPS:
            parts.append(f"and {len(found) - _GROUPS} more")
        more = (
            "" if all(r.complete for r in (*pins, *self._rulings[Heading.TASKS])) else "at least "
        )
        yield f"{more}{len(waiting) + len(found)} of {tasks} stuck on pmem: {', '.join(parts)}"
        yield from _grouped(others)

    def _plain(self, found: list[Finding]) -> Iterator[str]:
        yield from _grouped(found)

    def _trust(self, found: list[Finding]) -> Iterator[str]:
        yield from _grouped(found)
        if found or any(r.outcome is Outcome.UNDECIDED for r in self._rulings[Heading.TRUST]):
            return
        try:
            answer = self.facts.coverage()
        except NotFound:
            # not a problem: the machine had no persistent memory
            return
        known = [n for n in self.problems.take(answer).namespaces if n.has_memmap]
        on_pmem = sum(1 for n in known if n.pages is not None and n.pages.on_pmem)
        if known:
            yield (
                f"all struct pages are in the dump ({plural(on_pmem, 'namespace')} on pmem, "
                f"{len(known) - on_pmem} in RAM), and all sources agree on where they are"
            )

    def _lacks(self, found: list[Finding]) -> Iterator[str]:
        yield from _grouped(found)
        dump = dump_of(self.prog)
        if dump.contained is DumpFormat.LIVE:
            return
        machine = self.problems.take(read_machine(self.prog))
        yield from self._without_pmem(machine)
        if not dump.hypervisor:
            yield from self._never_there(machine)
        yield from self._user_data()

    def _without_pmem(self, machine: MachineMap) -> Iterator[str]:
        coverage, parts = coverage_of(self.prog), machine.device_pmem.ranges
        absent = sum(coverage.count(r.start, r.end).get(State.ABSENT, 0) for r in parts)
        if parts and absent == sum(r.size for r in parts):
            whose = "the known" if machine.lost_sources else "its"
            yield f"persistent memory: none of {whose} {short_size(absent)} is in the dump"

    def _never_there(self, machine: MachineMap) -> Iterator[str]:
        """Memory that no dump of this kind has."""
        coverage = coverage_of(self.prog)
        for item in machine.reservations:
            if coverage.count(item.start, item.end).get(State.ABSENT):
                yield f"crash kernel {item.start:#x}-{item.end:#x} (never in /proc/vmcore)"
        low = sum(
            coverage.count(part.start, part.end).get(State.ABSENT, 0)
            for part in machine.system_ram.overlap(0, _LOW)
        )
        if low:
            yield f"{short_size(low)} of RAM below 1 MiB"
        area = self.problems.attempt("firmware-assisted dump", lambda: fadump_area(self.prog))
        if area is not None and coverage.count(area.start, area.end).get(State.ABSENT):
            yield f"RAM {area} that firmware-assisted dump had reserved to store the dump"

    def _user_data(self) -> Iterator[str]:
        try:
            answer = self.facts.coverage()
        except NotFound:
            # not a problem: the machine had no persistent memory
            return
        saved = total = 0
        for item in self.problems.take(answer).namespaces:
            if item.kmem or item.kmem is None:
                continue  # it was RAM, or may have been
            saved += item.userdata.get(State.SAVED, 0)
            total += sum(item.userdata.values())
        least = "" if answer.complete else "at least "
        namespaces = self.problems.take(self.facts.inventory()).namespaces
        disabled = [n for n in namespaces if n.enabled is False and n.raw_size > 0]
        whose = "enabled namespaces" if disabled else "pmem"
        if saved and saved == total and not least:
            yield f"no user data of {whose} is missing (all {short_size(total)} of it was saved)"
        elif saved:
            part = _part(saved, total, least)
            yield f"user data of {whose}: {part} are in the dump"
        elif total:
            known = "that is known " if least else ""
            yield f"all user data of {whose} {known}({short_size(total)})"
        for idle in disabled[:_GROUPS]:
            counts = coverage_of(self.prog).count(idle.range.start, idle.range.end)
            yield from _disabled(idle.dev, idle.range.size, counts.get(State.SAVED, 0))


def _disabled(name: str, size: int, saved: int) -> Iterator[str]:
    """How much of a namespace that is not enabled the dump holds; nothing of one that it lacks."""
    if saved == size:
        yield f"nothing of {name} (disabled) is missing (all {short_size(size)} of it was saved)"
    elif saved:
        yield f"{name} (disabled): {_part(saved, size)} are in the dump"


def _part(saved: int, total: int, least: str = "") -> str:
    """A part of a size; where most of it is there, what is missing: rounded, both may be equal."""
    if not least and saved * 2 > total:
        return f"all but {short_size(total - saved)} of {short_size(total)}"
    return f"only {short_size(saved)} of {least}{short_size(total)}"


def _not_known(problems: Problems) -> str:
    """What a line says that could not be read to its end."""
    first = next(iter(problems), None)
    return f"not known ({first})" if first else ""


def _join(briefs: list[str]) -> str:
    more = f"; and {len(briefs) - _GROUPS} more" if len(briefs) > _GROUPS else ""
    return "; ".join(briefs[:_GROUPS]) + more


def _grouped(found: Iterable[Finding]) -> Iterator[str]:
    """Findings as text; those that say the same of several subjects together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for item in found:
        groups.setdefault((item.id, item.finding), []).append(item.subject)
    for (_, text), subjects in list(groups.items())[:_GROUPS]:
        yield f"{few(subjects)}: {text}"
    if len(groups) > _GROUPS:
        yield f"and {len(groups) - _GROUPS} more"


_WORDS = {
    Heading.POISON: Screen._poison,
    Heading.PINNED: Screen._pinned,
    Heading.TASKS: Screen._tasks,
    Heading.KERNEL: Screen._plain,
    Heading.ODD: Screen._plain,
    Heading.TRUST: Screen._trust,
    Heading.LACKS: Screen._lacks,
}
