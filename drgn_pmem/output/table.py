# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Tables
------

Records as a table. A field is a name and a function of the record, or the name of one of its
declared fields, so that choosing (``-o``), sorting (``-s``) and scripted output (``-H``) cost a
command nothing.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
import dataclasses
from dataclasses import dataclass
import itertools
import operator
import re
from typing import Any

from drgn_pmem.errors import UsageError
from drgn_pmem.output.text import cell, human_size
from drgn_pmem.record import Show

__all__ = ("Field", "choose", "human_readable", "scripted", "sort", "table", "vertical")

_ADDRESS = re.compile("0x[0-9a-f]+")
"""An address, or the start of a range of addresses: sorted by value."""


@dataclass(frozen=True)
class Field:
    """One column: its name, the function of a record that fills it, and what it means."""

    name: str
    value: Callable[[Any], Any]
    """What a table is sorted by; :meth:`text` is what it shows."""
    help: str = ""
    right: bool = False
    """Align right (numbers)."""
    shown: bool = True
    """Shown when the user chose no fields with ``-o``."""
    show: Show = Show.PLAIN
    """How the value is shown: an address in hexadecimal, a size as bytes."""
    human: bool = False
    """Show a size as ``ndctl list -u`` does."""

    @classmethod
    def of(
        cls, name: str, attribute: str, help: str = "", *, right: bool = False, shown: bool = True
    ) -> "Field":
        """
        A column that is an attribute of a record, shown as the record declares it.

        :param attribute: ``"pfn"``, or one of a record in it: ``"namespace.size"``; unknown where
            that record is None.
        """
        return _Declared(name, _getter(attribute), help, right, shown, attribute=attribute)

    def text(self, record: Any) -> str:
        """What the table shows of a record."""
        return self._text(self.value(record), self.show)

    def _text(self, value: Any, show: Show) -> str:
        if isinstance(value, (list, tuple)):
            return ",".join(self._text(item, show) for item in value) or "-"
        if isinstance(value, int) and not isinstance(value, bool):
            if show is Show.ADDRESS:
                return f"{value:#x}"
            if show is Show.SIZE and self.human:
                return human_size(value)
        return cell(value)


@dataclass(frozen=True)
class _Declared(Field):
    """A column whose record declares how it is shown."""

    attribute: str = ""

    def text(self, record: Any) -> str:
        declared = _declared(record, self.attribute)
        return self._text(self.value(record), self.show if declared is Show.PLAIN else declared)


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


def human_readable(fields: Sequence[Field], names: Collection[str]) -> list[Field]:
    """The same columns, with the sizes among them as ``ndctl list -u`` prints sizes."""
    return [
        dataclasses.replace(field, show=Show.SIZE, human=True) if field.name in names else field
        for field in fields
    ]


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
    value = found[0].value
    rows = list(records)
    descending = str(name).startswith("-")
    sortable = [row for row in rows if value(row) is not None]
    unknown = [row for row in rows if value(row) is None]
    return sorted(sortable, key=lambda row: _sort_key(value(row)), reverse=descending) + unknown


def table(records: Iterable[Any], fields: Sequence[Field]) -> str:
    """Aligned table with a header line."""
    rows = [[field.text(record) for field in fields] for record in records]
    names = [field.name for field in fields]
    text = "".join(itertools.chain(names, *rows))
    if rows and text.isascii() and text.isprintable():
        return _ascii_table(names, rows, [field.right for field in fields])
    # Imported here, and only for text whose width is not its length: it takes 20 ms.
    from tabulate import tabulate

    return tabulate(
        rows,
        headers=names,
        tablefmt="plain",
        disable_numparse=True,
        colalign=["right" if field.right else "left" for field in fields],
        preserve_whitespace=True,
    )


def _ascii_table(names: list[str], rows: list[list[str]], right: list[bool]) -> str:
    """The same table as tabulate's."""
    widths = [
        max(len(name) + 2, max(map(len, column)))
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    ]
    return "\n".join(
        "  ".join(
            value.rjust(width) if to_right else value.ljust(width)
            for value, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in (names, *rows)
    )


def vertical(records: Iterable[Any], fields: Sequence[Field]) -> str:
    """One line per field, a blank line between records: for tables wider than the terminal."""
    width = max((len(field.name) for field in fields), default=0)
    return "\n\n".join(
        "\n".join(f"{field.name:<{width}}  {field.text(record)}" for field in fields)
        for record in records
    )


def scripted(records: Iterable[Any], fields: Sequence[Field]) -> str:
    """No header, tabs between values: for ``cut`` and ``awk``."""
    return "\n".join("\t".join(field.text(r) for field in fields) for r in records)
