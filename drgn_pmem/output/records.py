# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Records at a prompt
-------------------

What a command returns, and drgn keeps in ``_``: a list of records like any other, which a prompt
shows as a short table and a notebook as an HTML one.
"""

from collections.abc import Iterable, Sequence
import html
import shutil
from typing import Any

from drgn_pmem.output.columns import fitted
from drgn_pmem.output.table import Field
from drgn_pmem.output.text import escape

__all__ = ("Records", "Table")

Table = tuple[str, Sequence[Any], Sequence[Field]]
"""Title, rows, columns."""

_ROWS = 10


class Records(list[Any]):
    """
    Records of an answer.

    :param records: The records.
    :param tables: How the command shows them.
    """

    def __init__(self, records: Iterable[Any], tables: Iterable[Table] = ()) -> None:
        super().__init__(records)
        self._tables = tuple(tables)

    def __repr__(self) -> str:
        width = shutil.get_terminal_size().columns
        blocks = []
        for title, rows, fields in self._shown():
            lines = [escape(title)] if title else []
            cells = [[field.text(row, rounded=True) for field in fields] for row in rows[:_ROWS]]
            lines.append(fitted(cells, fields, width, expand=False)[0])
            if len(rows) > _ROWS:
                lines.append(f"... {len(rows) - _ROWS} more of {len(rows)}")
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks) or super().__repr__()

    def _repr_html_(self) -> str:
        """For notebooks."""
        parts = []
        for title, rows, fields in self._shown():
            cells = "".join(f"<th>{html.escape(field.name)}</th>" for field in fields)
            lines = [f"<tr>{cells}</tr>"]
            for row in rows[: _ROWS * 10]:
                cells = "".join(f"<td>{html.escape(field.text(row))}</td>" for field in fields)
                lines.append(f"<tr>{cells}</tr>")
            caption = f"{escape(title)} {len(rows)} rows".strip()
            parts.append(
                f"<table><caption>{html.escape(caption)}</caption>{''.join(lines)}</table>"
            )
        return "\n".join(parts) or f"<pre>{html.escape(super().__repr__())}</pre>"

    def _shown(self) -> list[Table]:
        """The tables that have rows, with their default columns."""
        chosen = (
            (title, rows, [field for field in fields if field.shown])
            for title, rows, fields in self._tables
        )
        return [(title, rows, fields) for title, rows, fields in chosen if rows and fields]
