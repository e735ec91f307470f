# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Tables
------

Records as a table. A field is a name and a function of the record, so that choosing (``-o``),
sorting (``-s``) and scripted output (``-H``) cost a command nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from drgn_pmem.errors import UsageError
from drgn_pmem.output.text import cell

__all__ = ("Field", "choose", "scripted", "sort", "table", "vertical")


@dataclass(frozen=True)
class Field:
    """One column: its name, the function of a record that fills it, and what it means."""

    name: str
    value: Callable[[Any], Any]
    help: str = ""
    right: bool = False
    """Align right (numbers)."""
    shown: bool = True
    """Shown when the user chose no fields with ``-o``."""


def choose(
    fields: Sequence[Field], names: "str | None", *, known: Sequence[Field] = ()
) -> list[Field]:
    """
    The fields that ``-o NAMES`` asks for, or those that are shown by default.

    :param names: Comma-separated field names in any case; a leading ``+`` adds to the default
        fields.
    :param known: Fields of the answer's other tables: naming one of them is no mistake.
    :raises UsageError: if there is no such field
    """
    default = [field for field in fields if field.shown]
    if names is None:
        return default
    chosen = default if names.startswith("+") else []
    for name in names.lstrip("+").split(","):
        chosen += _find(fields, name.strip(), known)
    return chosen


def _find(fields: Sequence[Field], name: str, known: Sequence[Field]) -> list[Field]:
    found = [field for field in fields if field.name.lower() == name.lower()]
    if not found and all(field.name.lower() != name.lower() for field in known):
        names = dict.fromkeys(field.name.lower() for field in (*fields, *known))
        raise UsageError(f"no field {cell(name)!r}; the fields are {', '.join(names)}")
    return found


def _sort_key(value: Any) -> tuple[int, Any, str]:
    if isinstance(value, (bool, int, float)):
        return (0, value, "")
    return (1, 0, cell(value))


def sort(
    records: Iterable[Any],
    fields: Sequence[Field],
    name: "str | None",
    *,
    known: Sequence[Field] = (),
) -> list[Any]:
    """
    Sort records by a field; numbers by value, unknown last. ``-NAME`` sorts downwards.

    :param known: Fields of the answer's other tables: a table without the field stays as it is.
    :raises UsageError: if there is no such field
    """
    found = [] if name is None else _find(fields, name.lstrip("-"), known)
    if not found:
        return list(records)
    value = found[0].value
    rows = list(records)
    downwards = str(name).startswith("-")
    sortable = [row for row in rows if value(row) is not None]
    unknown = [row for row in rows if value(row) is None]
    return sorted(sortable, key=lambda row: _sort_key(value(row)), reverse=downwards) + unknown


def table(records: Iterable[Any], fields: Sequence[Field]) -> str:
    """Aligned table with a header line."""
    # Imported here: only a command that prints a table pays for it, not every start of drgn.
    from tabulate import tabulate

    return tabulate(
        [[cell(field.value(record)) for field in fields] for record in records],
        headers=[field.name for field in fields],
        tablefmt="plain",
        disable_numparse=True,
        colalign=["right" if field.right else "left" for field in fields],
        preserve_whitespace=True,
    )


def vertical(records: Iterable[Any], fields: Sequence[Field]) -> str:
    """One line per field, a blank line between records: for tables wider than the terminal."""
    width = max((len(field.name) for field in fields), default=0)
    return "\n\n".join(
        "\n".join(f"{field.name:<{width}}  {cell(field.value(record))}" for field in fields)
        for record in records
    )


def scripted(records: Iterable[Any], fields: Sequence[Field]) -> str:
    """No header, tabs between values: for ``cut`` and ``awk``."""
    return "\n".join("\t".join(cell(field.value(r)) for field in fields) for r in records)
