# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Text for a terminal
-------------------

Tables and lines of text, fitted to the width of the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import sys
from typing import Any, TextIO

from drgn_pmem.output.table import Field

__all__ = ("layout", "paragraph")


def layout(records: Iterable[Any], fields: Sequence[Field]) -> str:
    """A table; field by field instead where the table is wider than the terminal."""
    from drgn_pmem.output import table

    rows = list(records)
    text = table.table(rows, fields)
    width = terminal_width(sys.stdout)
    if width and max(map(len, text.splitlines()), default=0) > width:
        return table.vertical(rows, fields)
    return text


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
    import os

    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (AttributeError, OSError, ValueError):
        return 0
