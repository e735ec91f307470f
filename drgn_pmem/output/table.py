# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Tables
------

Records as a table. A field is a name and a function of the record, or the name of one of its
declared fields, so that choosing (``-o``), sorting (``-s``) and scripted output (``-H``) cost a
command nothing.
"""

from collections.abc import Callable, Iterable, Sequence
import csv
import dataclasses
from dataclasses import dataclass
import io
import operator
import re
from typing import Any

from drgn_pmem.errors import UsageError
from drgn_pmem.output.columns import draw
from drgn_pmem.output.text import cell, escape, short_size
from drgn_pmem.record import Show

__all__ = ("Field", "choose", "csv_text", "scripted", "sort", "table")

_ADDRESS = re.compile("0x[0-9a-f]+")
"""An address, or the start of a range of addresses: sorted by value."""


@dataclass(frozen=True)
class Field:
    """One column: its name, the function of a record that fills it, and what it means."""

    name: str
    value: Callable[[Any], Any]
    """:meth:`text` is what a table shows of it."""
    help: str = ""
    right: bool = False
    """Align right (numbers)."""
    shown: bool = True
    """Shown when the user chose no fields with ``-o``."""
    show: Show = Show.PLAIN
    """How the value is shown: an address in hexadecimal, a size in bytes, or rounded."""
    keep: int = 0
    """Of a table that is wider than the terminal, the columns with the lowest number are left out
    first; of those with the same number, the last."""
    wrap: bool = False
    """Text that may be broken over several lines to fit the terminal."""
    coloured: bool = False
    """Its words are states or severities, shown in their colours."""
    chosen: bool = False
    """The user asked for it with ``-o``: it is never left out."""
    order: Callable[[Any], Any] | None = None
    """What a table is sorted by, if not by the value."""

    @classmethod
    def of(
        cls,
        name: str,
        attribute: str,
        help: str = "",
        *,
        right: bool = False,
        shown: bool = True,
        keep: int = 0,
        wrap: bool = False,
        coloured: bool = False,
    ) -> "Field":
        """
        A column that is an attribute of a record, shown as the record declares it.

        :param attribute: ``"pfn"``, or one of a record in it: ``"namespace.size"``; unknown where
            that record is None.
        """
        return _Declared(
            name,
            _getter(attribute),
            help,
            right,
            shown,
            keep=keep,
            wrap=wrap,
            coloured=coloured,
            attribute=attribute,
        )

    def text(self, record: Any, rounded: bool = False) -> str:
        """
        What the table shows of a record.

        :param rounded: Sizes as ``46.9 MiB``, not in bytes.
        """
        return self._text(self.value(record), self.show_of(record), rounded)

    def csv(self, record: Any) -> str:
        """The same for a spreadsheet: items of a list are separated by ``;``, and one within an
        item is ``\\;``, so that no comma or semicolon of a path makes two items of one."""
        value = self.value(record)
        if not isinstance(value, (list, tuple)):
            return self.text(record)
        show = self.show_of(record)
        items = (self._text(item, show, False).replace(";", "\\;") for item in value)
        return ";".join(items) or "-"

    def show_of(self, record: Any) -> Show:
        """How a record's value is shown."""
        return self.show

    def _text(self, value: Any, show: Show, rounded: bool) -> str:
        if isinstance(value, (list, tuple)):
            return ",".join(self._text(item, show, rounded) for item in value) or "-"
        if isinstance(value, int) and not isinstance(value, bool):
            if show is Show.ADDRESS:
                return f"{value:#x}"
            if show is Show.SIZE and rounded:
                return short_size(value)
        return cell(value)


@dataclass(frozen=True)
class _Declared(Field):
    """A column whose record declares how it is shown."""

    attribute: str = ""

    def show_of(self, record: Any) -> Show:
        declared = _declared(record, self.attribute)
        return self.show if declared is Show.PLAIN else declared


def _getter(attribute: str) -> Callable[[Any], Any]:
    if "." not in attribute:
        return operator.attrgetter(attribute)

    def value(record: Any) -> Any:
        for name in attribute.split("."):
            if record is None:
                return None
            record = getattr(record, name)
        return record

    return value


def _declared(record: Any, attribute: str) -> Show:
    """How a record shows one of its fields; plain if that is a property."""
    *names, last = attribute.split(".")
    for name in names:
        record = getattr(record, name, None)
    declared = getattr(type(record), "__dataclass_fields__", {}).get(last)
    if not isinstance(declared, dataclasses.Field):
        return Show.PLAIN
    show = declared.metadata.get("show", Show.PLAIN)
    return show if isinstance(show, Show) else Show.PLAIN


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
    wanted = [name.strip().lstrip("+") for name in names.split(",")]
    if not all(wanted):
        raise UsageError(
            f"-o '{escape(names)}' has an empty name; -o FIELD,FIELD shows these, -o +FIELD adds "
            f"to the default ones; the fields are {_names(fields, known)}"
        )
    for name in wanted:
        for field in _find(fields, name, known):
            asked = dataclasses.replace(field, chosen=True)
            if names.startswith("+") and field in chosen:
                chosen[chosen.index(field)] = asked
            else:
                chosen.append(asked)
    return chosen


def _names(fields: Sequence[Field], known: Sequence[Field]) -> str:
    return ", ".join(dict.fromkeys(field.name.lower() for field in (*fields, *known)))


def _find(fields: Sequence[Field], name: str, known: Sequence[Field]) -> list[Field]:
    found = [field for field in fields if field.name.lower() == name.lower()]
    if not found and all(field.name.lower() != name.lower() for field in known):
        raise UsageError(f"no field '{escape(name)}'; the fields are {_names(fields, known)}")
    return found


def _sort_key(value: Any) -> tuple[int, Any, str]:
    if isinstance(value, (bool, int, float)):
        return (0, value, "")
    if isinstance(value, str) and (address := _ADDRESS.match(value)):
        return (0, int(address[0], 16), value)
    return (1, 0, cell(value))


def sort(
    records: Iterable[Any],
    fields: Sequence[Field],
    name: "str | None",
    *,
    known: Sequence[Field] = (),
) -> list[Any]:
    """
    Sort records by a field; numbers and addresses by value, unknown last. ``-NAME`` sorts in
    descending order.

    :param known: Fields of the answer's other tables: a table without the field stays as it is.
    :raises UsageError: if there is no such field
    """
    found = [] if name is None else _find(fields, name.lstrip("-"), known)
    if not found:
        return list(records)
    value = found[0].order or found[0].value
    rows = list(records)
    descending = str(name).startswith("-")
    sortable = [row for row in rows if value(row) is not None]
    unknown = [row for row in rows if value(row) is None]
    return sorted(sortable, key=lambda row: _sort_key(value(row)), reverse=descending) + unknown


def table(records: Iterable[Any], fields: Sequence[Field]) -> str:
    """Aligned table with a header line, as wide as it is; sizes in bytes."""
    return draw([[field.text(record) for field in fields] for record in records], fields)


def scripted(records: Iterable[Any], fields: Sequence[Field]) -> str:
    """No header, tabs between values: for ``cut`` and ``awk``."""
    return "\n".join("\t".join(field.text(r) for field in fields) for r in records)


def csv_text(records: Iterable[Any], fields: Sequence[Field], *, header: bool = True) -> str:
    """Comma-separated values (RFC 4180, but lines end with a line feed): for spreadsheets."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if header:
        writer.writerow(field.name.lower() for field in fields)
    writer.writerows([field.csv(record) for field in fields] for record in records)
    return out.getvalue().rstrip("\n")
