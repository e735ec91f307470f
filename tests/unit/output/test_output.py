# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tables, sizes and text: what reaches a reader."""

from dataclasses import dataclass

from hypothesis import given, strategies as st
import pytest
from tabulate import tabulate

from drgn_pmem.errors import UsageError
from drgn_pmem.output.json import humanize
from drgn_pmem.output.table import Field, _ascii_table, choose, scripted, sort, table, vertical
from drgn_pmem.output.text import cell, escape, human_size, plural


@dataclass(frozen=True)
class Row:
    name: str | None
    size: int | None


FIELDS = (
    Field("NAME", lambda r: r.name),
    Field("SIZE", lambda r: r.size, right=True),
    Field("DOUBLE", lambda r: r.size and 2 * r.size, right=True, shown=False),
)
OTHER = (Field("COLOUR", lambda r: "red"),)
ROWS = [Row("b", 9), Row("a", 10), Row(None, None)]


@given(st.text())
def test_escaped_text_has_nothing_that_moves_a_cursor(text: str) -> None:
    safe = escape(text)
    assert safe.isprintable()
    assert not set(safe) & set("\x1b\x9b\u202e\u2066\u200b")


@given(st.binary())
def test_any_bytes_can_be_shown(data: bytes) -> None:
    assert escape(data).isprintable()


def test_plain_text_stays() -> None:
    assert escape("/mnt/größe 1/文件") == "/mnt/größe 1/文件"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (5000 * 1024 - 1, "5119999"),
        (67108864, "64.00 MiB (67.11 MB)"),
        (130023424, "124.00 MiB (130.02 MB)"),
        (32832 * 10**6, "30.58 GiB (32.83 GB)"),
        (3 << 40, "3.00 TiB (3.30 TB)"),
    ],
)
def test_sizes_as_ndctl_prints_them(size: int, text: str) -> None:
    assert human_size(size) == text


def test_unknown_is_a_dash_and_lists_are_joined() -> None:
    assert [cell(v) for v in (None, "", [], ["a", None], True, 0)] == [
        "-", "-", "-", "a,-", "yes", "0",
    ]  # fmt: skip


def test_table_aligns_numbers_right_and_hides_fields_until_asked() -> None:
    assert table(ROWS, choose(FIELDS, None)).splitlines() == [
        "NAME      SIZE",
        "b            9",
        "a           10",
        "-            -",
    ]


def test_choosing_fields() -> None:
    assert [f.name for f in choose(FIELDS, "size,name")] == ["SIZE", "NAME"]
    assert [f.name for f in choose(FIELDS, "+double")] == ["NAME", "SIZE", "DOUBLE"]
    assert choose(FIELDS, "colour", known=OTHER) == []
    with pytest.raises(UsageError, match="no field 'taste'; the fields are name, size, double"):
        choose(FIELDS, "taste")


def test_sorting_is_by_value_and_unknown_comes_last() -> None:
    assert [r.size for r in sort(ROWS, FIELDS, "size")] == [9, 10, None]
    assert [r.name for r in sort(ROWS, FIELDS, "-name")] == ["b", "a", None]
    assert sort(ROWS, FIELDS, "colour", known=OTHER) == ROWS


def test_scripted_and_vertical() -> None:
    assert scripted(ROWS[:1], choose(FIELDS, None)) == "b\t9"
    assert vertical(ROWS[:2], choose(FIELDS, None)) == "NAME  b\nSIZE  9\n\nNAME  a\nSIZE  10"


def test_our_own_facts_are_not_humanized() -> None:
    value = {"size": 67108864, "offset": 0, "dump": {"size": 67108864}}
    assert humanize(value) == {
        "size": "64.00 MiB (67.11 MB)",
        "offset": "0",
        "dump": {"size": 67108864},
    }


def test_plural() -> None:
    assert [plural(1, "page"), plural(2, "entry")] == ["1 page", "2 entries"]


@given(
    st.lists(
        st.lists(
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=9),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_a_table_of_ascii_text_is_as_tabulate_makes_it(
    rows: list[list[str]], right: list[bool]
) -> None:
    names = ["A", "LONGER NAME", "B_C"]
    expected = tabulate(
        rows,
        headers=names,
        tablefmt="plain",
        disable_numparse=True,
        colalign=["right" if to_right else "left" for to_right in right],
        preserve_whitespace=True,
    )
    assert _ascii_table(names, rows, right) == expected


def test_a_table_of_wide_text_is_aligned() -> None:
    lines = table([Row("文件", 1), Row("file", 2)], FIELDS[:2]).splitlines()
    assert lines[1] == "文件         1"
    assert lines[2] == "file         2"
