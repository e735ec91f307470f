# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What changed between two dumps
------------------------------

The facts of one dump beside those of another. A thing that only one dump has is new or gone only if
the other one shows all of its kind; a field has changed only if both show its value. Everything
else is unknown, with the reason.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
import enum
import re
from typing import Any

from drgn import Program

from drgn_pmem.analysis.changes.facts import (
    PERHAPS,
    UNKNOWN,
    DumpFacts,
    Facts,
    Item,
    Kind,
)
from drgn_pmem.analysis.changes.identity import Identity, Relation, relations
from drgn_pmem.analysis.changes.read import read_facts
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.record import Record, shown, to_json

__all__ = ("Change", "Compared", "Difference", "What", "compare_facts", "diff_dumps")

_PEOPLE = ("mapped by", "open by", "held by", "waited by")
"""Fields of processes: their numbers mean nothing in another boot."""
_NOT_SHOWN = (UNKNOWN, PERHAPS)
_SIZES = ("size", "raw size", "available", "data offset", "align")


class What(enum.Enum):
    """What happened from A to B."""

    ADDED = "added"
    """Only B has it, and A shows all of its kind."""
    REMOVED = "removed"
    """Only A has it, and B shows all of its kind."""
    CHANGED = "changed"
    UNKNOWN = "unknown"
    """One of the dumps does not hold it."""


class Change(Record):
    """One difference."""

    kind: Kind
    what: What
    subject: str
    field: str | None
    """None for the thing as a whole."""
    before: Any
    """In A; None if there is none, or it is unknown."""
    after: Any
    """In B."""
    why: str | None
    """Why it is unknown."""
    numbers: tuple[int, int] | None = shown(json=False)
    """First and last PFN of pages that changed alike."""

    @property
    def is_size(self) -> bool:
        return self.field in _SIZES


class Compared(Record):
    """How much of one kind was compared."""

    kind: Kind
    a: int
    """Things of the kind in A; at least, if :attr:`why_a` says why not all are known."""
    b: int
    why_a: str | None
    why_b: str | None
    added: int
    removed: int
    changed: int
    """Things with changed fields."""
    unknown: int
    """Things of which a dump does not hold all."""


class Difference(Record):
    """Two dumps, and what differs."""

    a: Identity
    b: Identity
    same: tuple[Relation, ...]
    compared: tuple[Compared, ...]
    changes: tuple[Change, ...]

    @property
    def differs(self) -> bool:
        """Whether anything is known to differ."""
        return any(change.what is not What.UNKNOWN for change in self.changes)


def diff_dumps(
    prog: Program, other: Program, begin: Callable[[str], None] | None = None
) -> Partial[Difference]:
    """
    What changed between two dumps of one machine: DIMMs, regions, namespaces, entries of the
    devm_memmap_vmcore list, what the dumps hold of the namespaces, bad and pinned pages, files.

    :param prog: The first dump, A.
    :param other: The second one, B.
    :param begin: Called with what is read next.
    :return: The differences; what one of the dumps does not hold is :attr:`What.UNKNOWN`.
    """
    problems = Problems()
    tell = begin or _ignore
    a = problems.take(read_facts(prog, lambda kind: tell(f"A: {kind}")), "A")
    b = problems.take(read_facts(other, lambda kind: tell(f"B: {kind}")), "B")
    for name, side in (("A", a), ("B", b)):
        for facts in side.kinds.values():
            problems.extend(facts.problems, name)
    return problems.partial(compare_facts(a, b))


def _ignore(kind: str) -> None:
    return None


def compare_facts(a: DumpFacts, b: DumpFacts) -> Difference:
    """The differences of what was read of two dumps."""
    same = relations(a.identity, b.identity)
    one_boot = next(relation.same for relation in same if relation.what == "boot")
    changes: list[Change] = []
    compared = []
    for kind in Kind:
        pair = a.kinds[kind], b.kinds[kind]
        found = list(_of_kind(*pair, one_boot is not False))
        compared.append(_summary(*pair, found))
        changes += _merged(found)
    return Difference(
        a=a.identity, b=b.identity, same=same, compared=tuple(compared), changes=tuple(changes)
    )


def _of_kind(a: Facts, b: Facts, one_boot: bool) -> Iterator[Change]:
    if a.absent is None and b.absent is None:
        pairs = _pairs(a.items, b.items)
    elif a.absent is not None and b.absent is not None:
        return
    else:
        # One kernel keeps none at all: that is one difference, not one for each thing.
        values = [
            side.absent or f"{len(side.items)}{'' if side.complete else ' or more'}"
            for side in (a, b)
        ]
        lacking = a if a.absent is None else b
        # None that could be read is not none.
        why = None if lacking.items or lacking.complete else lacking.why
        what = What.CHANGED if why is None else What.UNKNOWN
        yield _change(a.kind, what, "all", None, None, values[0], values[1], why)
        return
    for one, other in pairs:
        if one is not None and other is not None:
            yield from _of_pair(a, b, one, other, one_boot)
        elif one is not None:
            yield _alone(What.REMOVED, one, ("A", a), ("B", b))
        elif other is not None:
            yield _alone(What.ADDED, other, ("B", b), ("A", a))


def _pairs(a: Sequence[Item], b: Sequence[Item]) -> list[tuple[Item | None, Item | None]]:
    """Things that are the same in both: by key, then those that took one another's place."""
    partner: dict[int, Item] = {}
    taken: set[int] = set()
    for same in (_same_key, _same_place):
        index: dict[Any, list[Item]] = {}
        for item in b:
            if id(item) not in taken and same(item) is not None:
                index.setdefault(same(item), []).append(item)
        for item in a:
            if id(item) not in partner and (found := index.get(same(item))):
                partner[id(item)] = found.pop(0)
                taken.add(id(partner[id(item)]))
    pairs: list[tuple[Item | None, Item | None]] = [(item, partner.get(id(item))) for item in a]
    return pairs + [(None, item) for item in b if id(item) not in taken]


def _same_key(item: Item) -> Any:
    return item.key


def _same_place(item: Item) -> Any:
    return item.place


def _of_pair(a: Facts, b: Facts, one: Item, other: Item, one_boot: bool) -> Iterator[Change]:
    for field, before in one.values.items():
        after = other.values.get(field, UNKNOWN)
        if not one_boot and field in _PEOPLE:
            before, after = _without_numbers(before), _without_numbers(after)
        if before == after or (_is_empty(before) and _is_empty(after)):
            continue
        why = None
        # Of lists that may not be whole, neither shows what is not in it; no value may be one that
        # could not be read.
        partly = isinstance(before, tuple) or isinstance(after, tuple)
        if after in _NOT_SHOWN or ((partly or after is None) and not b.complete):
            why = f"B: {b.why_of(other)}"
        elif before in _NOT_SHOWN or ((partly or before is None) and not a.complete):
            why = f"A: {a.why_of(one)}"
        elif one.certain != other.certain:
            # What one dump shows of less than the other has is not another state of it.
            why = f"A: {a.why_of(one)}" if other.certain else f"B: {b.why_of(other)}"
        name = one.name if one.name == other.name else f"{one.name}, {other.name}"
        what = What.CHANGED if why is None else What.UNKNOWN
        yield _change(a.kind, what, name, one.number, field, before, after, why)


def _is_empty(value: Any) -> bool:
    return value in (None, (), PERHAPS)


def _without_numbers(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    return tuple(sorted({re.sub(r"^\d+/", "", text) for text in value}))


def _alone(what: What, item: Item, having: tuple[str, Facts], lacking: tuple[str, Facts]) -> Change:
    before, after = (item.summary, None) if what is What.REMOVED else (None, item.summary)
    (owner, own), (name, other) = having, lacking
    why = None if other.complete else f"{name}: {other.why}"
    if why is None and not item.certain:
        why = f"{owner}: {own.why_of(item)}"
    what = what if why is None else What.UNKNOWN
    return _change(own.kind, what, item.name, item.number, None, before, after, why)


def _change(
    kind: Kind,
    what: What,
    subject: str,
    number: int | None,
    field: str | None,
    before: Any,
    after: Any,
    why: str | None = None,
) -> Change:
    return Change(
        kind=kind,
        what=what,
        subject=subject,
        field=field,
        before=None if before in _NOT_SHOWN else to_json(before),
        after=None if after in _NOT_SHOWN else to_json(after),
        why=why,
        numbers=None if number is None else (number, number),
    )


def _merged(changes: Iterable[Change]) -> Iterator[Change]:
    """Pages one after the other that changed alike, as one."""
    last: Change | None = None
    found = list(changes)
    if any(change.numbers for change in found):
        found.sort(key=lambda c: (c.field or "", c.numbers or (0, 0)))
    for change in found:
        if last is not None and _continues(last, change):
            last = _joined(last, change)
            continue
        if last is not None:
            yield last
        last = change
    if last is not None:
        yield last


def _joined(last: Change, change: Change) -> Change:
    if last.numbers is None or change.numbers is None:
        return last
    first, end = last.numbers[0], change.numbers[1]
    return replace(last, subject=f"PFN {first:#x} to {end:#x}", numbers=(first, end))


def _continues(last: Change, change: Change) -> bool:
    if last.numbers is None or change.numbers is None:
        return False
    alike = replace(change, subject=last.subject, numbers=last.numbers) == last
    return alike and change.numbers[0] == last.numbers[1] + 1


def _summary(a: Facts, b: Facts, changes: Sequence[Change]) -> Compared:
    def count(what: What) -> int:
        return len({change.subject for change in changes if change.what is what})

    return Compared(
        kind=a.kind,
        a=len(a.items),
        b=len(b.items),
        why_a=a.why or None,
        why_b=b.why or None,
        added=count(What.ADDED),
        removed=count(What.REMOVED),
        changed=count(What.CHANGED),
        unknown=count(What.UNKNOWN),
    )
