# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tables are drawn as tabulate draws them, without importing it or wcwidth for plain ASCII."""

from dataclasses import dataclass
import subprocess
import sys

from hypothesis import HealthCheck, given, settings, strategies as st
from tabulate import tabulate

from drgn_pmem.output.columns import broken, draw, paint_states


@dataclass
class Column:
    name: str
    right: bool
    coloured: bool
    keep: int = 1
    wrap: bool = False
    chosen: bool = False


TEXTS = st.text(alphabet="ab 0x-é漢", max_size=12) | st.sampled_from(["saved", "all excluded, ab"])
COLUMNS = st.builds(Column, st.sampled_from(["A", "LONG NAME"]), st.booleans(), st.booleans())


@st.composite
def tables(drawn: st.DrawFn) -> tuple[list[Column], list[list[str]]]:
    columns = drawn(st.lists(COLUMNS, min_size=1, max_size=3))
    row = st.lists(TEXTS, min_size=len(columns), max_size=len(columns))
    cells = drawn(st.lists(row, min_size=1, max_size=3))
    # An empty row, which no record has, tabulate leaves out.
    return columns, [[f"x{first}", *rest] for first, *rest in cells]


@given(tables(), st.booleans())
@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
def test_a_table_is_that_of_tabulate(
    table: tuple[list[Column], list[list[str]]], colour: bool
) -> None:
    columns, cells = table
    rows = [
        [
            paint_states(text) if colour and column.coloured else text
            for column, text in zip(columns, row, strict=True)
        ]
        for row in cells
    ]
    expected = tabulate(
        [[column.name for column in columns], *rows],
        tablefmt="plain",
        disable_numparse=True,
        colalign=["right" if column.right else "left" for column in columns],
        preserve_whitespace=True,
    )
    drawn = draw(cells, columns, colour)
    assert drawn.splitlines() == [line.rstrip() for line in expected.splitlines()]


def test_a_word_that_fills_the_line_up_to_its_comma() -> None:
    """The mark after the comma, where a line may be broken, was printed: a NUL."""
    assert broken("a" * 23 + ",bbb", 24) == ["a" * 23 + ",", "bbb"]


def test_a_table_of_ascii_imports_nothing() -> None:
    code = (
        "import sys\n"
        "from drgn_pmem.output.table import Field, table\n"
        "print(table(['x'], [Field('A', str)]))\n"
        "print([n for n in ('tabulate', 'wcwidth') if n in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "A\nx\n[]\n"
