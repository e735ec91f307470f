# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Row filters
-----------

``--where 'refcount > 1 and namespace = namespace0.0'``: rows with certain values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import operator
import re
from typing import Any, NamedTuple

from drgn_pmem.errors import UsageError
from drgn_pmem.output.table import Field
from drgn_pmem.output.text import plural

__all__ = ("Condition", "parse_where", "select")

Table = tuple[str, Sequence[Any], Sequence[Field]]

_CONDITION = re.compile(
    r"""\s*(?P<field>\w+)\s*(?P<op>==|!=|<=|>=|!~|=|<|>|~)\s*
    (?P<value>"[^"]*"|'[^']*'|[^\s"'<>=~!]\S*)\s*(?P<more>and\s|$)""",
    re.VERBOSE | re.IGNORECASE,
)
_NUMBER = re.compile(
    r"(?P<number>0x[0-9a-f]+|\d+(?:\.\d+)?)\s?(?P<unit>[kmgt])?(?:i?b)?", re.IGNORECASE
)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SHOWN = 5
"""Values of a field that a message names."""
_SYNTAX = (
    "--where takes FIELD OPERATOR VALUE, joined by and; the operators are = != < <= > >= "
    "~ (contains) !~"
)


@dataclass(frozen=True)
class Condition:
    """One comparison of a field with a value."""

    field: str
    op: str
    value: str

    def holds(self, field: Field, record: Any) -> bool | None:
        """Whether it holds for a record; None if the record's value is unknown."""
        value = field.value(record)
        if self.value == "-" and self.op in ("=", "==", "!="):
            return (value is None or field.text(record) == "-") is (self.op != "!=")
        if value is None:
            return None
        if isinstance(value, (list, tuple)):
            each = [self._compare(item, field.text(record)) for item in value]
            return all(each) if self.op.startswith("!") else any(each)
        return self._compare(value, field.text(record))

    def _compare(self, value: Any, text: str) -> bool:
        wanted, have = _number(self.value), _number(value)
        if self.op in _ORDER:
            return wanted is not None and have is not None and _ORDER[self.op](have, wanted)
        words = text if isinstance(value, (bool, int, float)) else str(value)
        if self.op in ("~", "!~"):
            return (self.value.lower() in words.lower()) is (self.op == "~")
        if wanted is not None and have is not None:
            same = wanted == have
        else:
            same = self.value.lower() == words.lower()
        return same is (self.op != "!=")


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    match = _NUMBER.fullmatch(str(value).strip())
    if match is None:
        return None
    digits = match["number"]
    number = int(digits, 16) if digits[:2].lower() == "0x" else float(digits)
    if "." not in digits and isinstance(number, float):
        number = int(digits)  # exact beyond 2^53
    return number * _UNITS[(match["unit"] or "").lower()]


def parse_where(text: str) -> Sequence[Condition]:
    """
    The conditions of a filter.

    :raises UsageError: if the text is none
    """
    conditions = []
    at = 0
    more = True
    while more:
        match = _CONDITION.match(text, at)
        if match is None:
            raise UsageError(f"{text!r}: {_SYNTAX}")
        value = match["value"]
        if value[0] in "\"'":
            value = value[1:-1]
        condition = Condition(match["field"].lower(), match["op"], value)
        if condition.op in _ORDER and _number(value) is None:
            raise UsageError(f"{text!r}: {condition.op} takes a number, not {value!r}")
        conditions.append(condition)
        at, more = match.end(), bool(match["more"])
    return conditions


def _check_numbers(condition: Condition, tables: Sequence[Table]) -> None:
    """:raises UsageError: if a field that is compared with a number has words in every row"""
    words: dict[str, None] = {}
    for _, records, fields in tables:
        for field in fields:
            if field.name.lower() != condition.field:
                continue
            for record in records:
                value = field.value(record)
                for item in value if isinstance(value, (list, tuple)) else (value,):
                    if _number(item) is not None:
                        return
                    if item is not None:
                        words[field.text(record)] = None
    if words:
        shown = ", ".join(list(words)[:_SHOWN])
        raise UsageError(
            f"--where: {condition.field} has words, {condition.op} compares numbers; use = or ~ "
            f"(its values: {shown}{', ...' if len(words) > _SHOWN else ''})"
        )


class Selected(NamedTuple):
    """What a filter leaves."""

    tables: list[Table]
    notes: list[str]


def select(conditions: Sequence[Condition], tables: Sequence[Table]) -> Selected:
    """
    The rows of tables for which all conditions hold. A row whose value is not known is left out,
    and counted in a note. A table that has none of the fields stays as it is.

    :raises UsageError: if no table has a field
    """
    known = {field.name.lower(): field for _, _, fields in tables for field in fields}
    for condition in conditions:
        if condition.field not in known:
            raise UsageError(
                f"--where: no field {condition.field!r}; the fields are {', '.join(known)}"
            )
    for condition in conditions:
        if condition.op in _ORDER:
            _check_numbers(condition, tables)
    notes = []
    kept: list[Table] = []
    for title, records, fields in tables:
        by_name = {field.name.lower(): field for field in fields}
        own = [(by_name[c.field], c) for c in conditions if c.field in by_name]
        rows = []
        unknown = 0
        lacking: dict[str, None] = {}
        for record in records:
            answers = [condition.holds(field, record) for field, condition in own]
            if all(answers):
                rows.append(record)
            elif None in answers and False not in answers:
                unknown += 1
                pairs = zip(own, answers, strict=True)
                lacking |= {field.name: None for (field, _), held in pairs if held is None}
        if unknown:
            names = list(lacking)
            notes.append(
                f"--where: {plural(unknown, 'row')} left out whose {' or '.join(names)} is not "
                f"known, or that {'has' if unknown == 1 else 'have'} none "
                f"({names[0].lower()} = - shows them)"
            )
        kept.append((title, rows, fields))
    return Selected(kept, notes)
