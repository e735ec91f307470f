# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Columns
-------

Cells drawn as a table of a given width: long texts are broken over several lines first, then
columns are left out, the least important first, and named; a single record that does not fit is
drawn field by field.
"""

from __future__ import annotations

from collections.abc import Sequence
import re
import textwrap
from typing import Protocol

__all__ = ("broken", "draw", "fitted", "vertical")

_GAP = 2
_NARROWEST = 20
"""Characters that a text column has at least."""


class Column(Protocol):
    """What :class:`~drgn_pmem.output.table.Field` declares of a column."""

    @property
    def name(self) -> str: ...
    @property
    def right(self) -> bool: ...
    @property
    def keep(self) -> int: ...
    @property
    def wrap(self) -> bool: ...
    @property
    def coloured(self) -> bool: ...
    @property
    def chosen(self) -> bool: ...


_CODES = {"red": "31", "yellow": "33", "green": "32", "cyan": "36"}
_COLOURS = {
    "red": ("truncated", "damaged", "poisoned", "overwritten", "critical", "refused"),
    "yellow": ("excluded", "absent", "unmapped", "unknown", "warning", "uninitialised", "torn"),
    "green": ("saved", "all"),
    "cyan": ("info",),
}
_OF_WORD = {word: _CODES[name] for name, words in _COLOURS.items() for word in words}
_WORD = re.compile(rf"(?<![\w-])({'|'.join(_OF_WORD)})(?![\w-])")


def paint_states(text: str) -> str:
    """The words for states and severities in their colours."""
    return _WORD.sub(lambda match: f"\033[{_OF_WORD[match[0]]}m{match[0]}\033[0m", text)


def draw(cells: Sequence[Sequence[str]], fields: Sequence[Column], colour: bool = False) -> str:
    """A table as wide as its cells."""
    return _lines(cells, fields, [*_widths(cells, fields)], colour)


def fitted(
    cells: Sequence[Sequence[str]],
    fields: Sequence[Column],
    width: int,
    colour: bool = False,
    expand: bool = True,
) -> tuple[str, list[str]]:
    """
    A table of at most a width.

    :param expand: Draw a single record, and columns that the user chose, field by field if they do
        not fit.
    :return: The table, and the names of the columns that were left out.
    """
    widths = _widths(cells, fields)
    narrowest = [
        min(have, max(_NARROWEST, len(field.name))) if field.wrap else have
        for have, field in zip(widths, fields, strict=True)
    ]
    kept = list(range(len(fields)))
    if len(cells) > 1 or not expand or _total(narrowest, kept) <= width:
        # The first column names the record.
        droppable = [i for i in kept[1:] if not fields[i].chosen]
        droppable.sort(key=lambda i: (fields[i].keep, -i))
        while droppable and _total(narrowest, kept) > width:
            kept.remove(droppable.pop(0))
    if expand and _total(narrowest, kept) > width:
        return vertical(cells, fields, width, colour), []
    _shrink(widths, narrowest, kept, width)
    text = _lines(
        [[row[i] for i in kept] for row in cells],
        [fields[i] for i in kept],
        [widths[i] for i in kept],
        colour,
    )
    return text, [field.name for i, field in enumerate(fields) if i not in kept]


def vertical(
    cells: Sequence[Sequence[str]], fields: Sequence[Column], width: int = 0, colour: bool = False
) -> str:
    """
    One line per field, a blank line between records.

    :param width: Longer values are broken over several lines; 0 for no limit.
    """
    longest = max((len(field.name) for field in fields), default=0)
    indent = " " * (longest + _GAP)
    room = max(width - len(indent), _NARROWEST) if width else 0
    blocks = []
    for row in cells:
        lines = []
        for field, text in zip(fields, row, strict=True):
            parts = [_paint(part, field, colour) for part in broken(text, room)]
            lines.append(f"{field.name:<{longest}}{' ' * _GAP}" + f"\n{indent}".join(parts))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _widths(cells: Sequence[Sequence[str]], fields: Sequence[Column]) -> list[int]:
    return [
        max([len(field.name), *(_columns(row[i]) for row in cells)])
        for i, field in enumerate(fields)
    ]


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[i] for i in kept) + _GAP * (len(kept) - 1)


def _shrink(widths: list[int], narrowest: list[int], kept: list[int], width: int) -> None:
    """Make the widest text columns narrower until the table fits."""
    while (excess := _total(widths, kept) - width) > 0:
        wide = [i for i in kept if widths[i] > narrowest[i]]
        if not wide:
            return
        widest = max(wide, key=lambda i: widths[i])
        next_widest = max((widths[i] for i in wide if widths[i] < widths[widest]), default=0)
        least = max(narrowest[widest], min(next_widest, widths[widest] - 1))
        widths[widest] = max(least, widths[widest] - excess)


def _lines(
    cells: Sequence[Sequence[str]],
    fields: Sequence[Column],
    widths: Sequence[int],
    colour: bool,
) -> str:
    # Imported here: a command that prints no table does not pay for it.
    from tabulate import tabulate

    rows = [[field.name for field in fields]]
    for row in cells:
        rows.append([])
        for text, field, width in zip(row, fields, widths, strict=True):
            parts = broken(text, width) if field.wrap else [text]
            rows[-1].append("\n".join(_paint(part, field, colour) for part in parts))
    text = tabulate(
        rows,
        tablefmt="plain",
        disable_numparse=True,
        colalign=["right" if field.right else "left" for field in fields],
        preserve_whitespace=True,
    )
    return "\n".join(line.rstrip() for line in text.splitlines())


def _paint(text: str, field: Column, colour: bool) -> str:
    return paint_states(text) if colour and field.coloured else text


def broken(text: str, width: int) -> list[str]:
    """Lines of at most a width, 0 for no limit; lists of words are also broken after commas."""
    if not width or _columns(text) <= width:
        return [text]
    # A blank after each comma lets textwrap break there, and is taken out again.
    marked = re.sub(r",(?=\S)", ",\0 ", text)
    lines = textwrap.wrap(marked, width, break_on_hyphens=False)
    return [re.sub(r"\0 ?", "", line) for line in lines]


def _columns(text: str) -> int:
    """Columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth

    return max(wcswidth(text), 0)
