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


def choose(fields: Sequence[Field], names: "str | None") -> list[Field]:
    """
    The fields that ``-o NAMES`` asks for, or those that are shown by default.

    :param names: Comma-separated field names in any case; a leading ``+`` adds to the default
        fields.
    :raises UsageError: if there is no such field
    """
    default = [field for field in fields if field.shown]
    if names is None:
        return default
    chosen = default if names.startswith("+") else []
    by_name = {field.name.lower(): field for field in fields}
    for name in names.lstrip("+").split(","):
        try:
            chosen.append(by_name[name.strip().lower()])
        except KeyError:
            known = ", ".join(field.name.lower() for field in fields)
            raise UsageError(f"no field {cell(name)!r}; the fields are {known}") from None
    return chosen


def _sort_key(value: Any) -> tuple[int, Any, str]:
    if value is None:
        return (2, 0, "")
    if isinstance(value, (bool, int, float)):
        return (0, value, "")
    return (1, 0, cell(value))


def sort(records: Iterable[Any], fields: Sequence[Field], name: "str | None") -> list[Any]:
    """
    Sort records by a field; numbers by value, unknown last. ``-NAME`` sorts downwards.

    :raises UsageError: if there is no such field
    """
    if name is None:
        return list(records)
    field = choose(fields, name.lstrip("-"))[0]
    return sorted(
        records, key=lambda record: _sort_key(field.value(record)), reverse=name.startswith("-")
    )


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
