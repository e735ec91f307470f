# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Text for a terminal
-------------------

Tables and lines of text, fitted to the width of the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import os
import sys
from typing import Any, TextIO

from drgn_pmem.output.columns import broken, draw, fitted, vertical
from drgn_pmem.output.table import Field

__all__ = ("Look", "colours", "laid_out", "layout", "look_of", "paragraph", "terminal_width")


@dataclass(frozen=True)
class Look:
    """How tables are drawn."""

    width: int = 0
    """Columns of the terminal, 0 for as wide as they are."""
    rounded: bool = False
    """Sizes as ``46.9 MiB``, not in bytes."""
    colour: bool = False
    expanded: bool | None = None
    """Field by field: always, never, or, if None, where a record alone is too wide."""
    left_out: frozenset[str] = frozenset()
    """Columns of the tables above that were left out: what is said below leaves them out, too."""


def look_of(stream: TextIO, *, rounded: bool | None = None, expanded: bool | None = None) -> Look:
    """
    How tables are drawn on a stream: on a terminal in its width, with rounded sizes and colours;
    elsewhere whole, in bytes.

    :param rounded: Whether sizes are rounded, None for what fits the stream.
    :param expanded: See :class:`Look`.
    """
    width = terminal_width(stream)
    return Look(
        width=width,
        rounded=bool(width) if rounded is None else rounded,
        colour=colours(stream),
        expanded=expanded,
    )


def layout(records: Iterable[Any], fields: Sequence[Field], look: Look = Look()) -> str:
    """A table that fits the terminal, with a last line that names what was left out."""
    return laid_out(records, fields, look)[0]


def laid_out(
    records: Iterable[Any], fields: Sequence[Field], look: Look
) -> tuple[str, frozenset[str]]:
    """The same, and the names of the columns that were left out."""
    cells = [[field.text(record, look.rounded) for field in fields] for record in records]
    if look.expanded:
        return vertical(cells, fields, look.width, look.colour), frozenset()
    if not look.width:
        return draw(cells, fields, look.colour), frozenset()
    text, missing = fitted(cells, fields, look.width, look.colour, look.expanded is None)
    if not missing:
        return text, frozenset()
    names = ",".join(missing).lower()
    hint = broken(f"too wide for the terminal: -o +{names} for more", max(look.width, 20))
    return "\n".join([text, *hint]), frozenset(missing)


def colours(stream: TextIO) -> bool:
    """Whether to colour a stream: a terminal with colours, and NO_COLOR is not set."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "", "dumb", "unknown"):
        return False
    try:
        return os.isatty(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return False


def paragraph(line: str, stream: TextIO | None = None) -> str:
    """
    A line of text, broken between words where it is longer than the terminal is wide.

    :param stream: Where it goes; standard output if None. It is not broken if that is not a
        terminal.
    """
    import textwrap

    width = terminal_width(stream or sys.stdout)
    if not width or len(line) <= width:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line.lstrip(),
        max(width, 20),
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def terminal_width(stream: TextIO) -> int:
    """Columns of the terminal that a stream is, 0 if it is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, OSError, ValueError):
        return 0
