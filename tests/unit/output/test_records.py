# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Columns that records declare, and what a command leaves in ``_``."""

from html.parser import HTMLParser

import pytest

from drgn_pmem.output.records import Records
from drgn_pmem.output.table import Field, sort, table
from drgn_pmem.record import Record, Show, shown


class Device(Record):
    name: str
    size: int = shown(Show.SIZE)


class Page(Record):
    pfn: int = shown(Show.ADDRESS)
    files: tuple[int, ...] = shown(Show.ADDRESS, default=())
    device: Device | None = None


FIELDS = (
    Field.of("PFN", "pfn", right=True),
    Field.of("DEVICE", "device.name"),
    Field.of("SIZE", "device.size", right=True),
    Field.of("FILES", "files", shown=False),
)
PAGES = [
    Page(pfn=0x1000, files=(0x10, 0x20), device=Device(name="pmem0", size=64 << 20)),
    Page(pfn=0x200),
]


def test_a_column_shows_what_the_record_declares() -> None:
    assert table(PAGES, FIELDS).splitlines() == [
        "   PFN  DEVICE      SIZE  FILES",
        "0x1000  pmem0   67108864  0x10,0x20",
        " 0x200  -              -  -",
    ]


def test_sizes_are_human_readable_when_asked_for() -> None:
    assert FIELDS[2].text(PAGES[0]) == "67108864"
    assert FIELDS[2].text(PAGES[0], rounded=True) == "64 MiB"
    assert FIELDS[2].text(PAGES[1], rounded=True) == "-"


def test_addresses_are_sorted_by_value_also_those_that_are_text() -> None:
    assert [p.pfn for p in sort(PAGES, FIELDS, "pfn")] == [0x200, 0x1000]
    text = (Field("PFN", lambda p: f"{p.pfn:#x}-{p.pfn + 1:#x}"),)
    assert [p.pfn for p in sort(PAGES, text, "pfn")] == [0x200, 0x1000]


def test_records_are_an_ordinary_list_that_shows_as_a_short_table() -> None:
    records = Records([Page(pfn=n) for n in range(99)], ())
    records = Records(records, [("", records, FIELDS[:1])])
    assert isinstance(records, list)
    assert records == [Page(pfn=n) for n in range(99)]
    assert [page.pfn for page in records if page.pfn < 2] == [0, 1]
    lines = repr(records).splitlines()
    assert lines[0].strip() == "PFN"
    assert len(lines) == 12
    assert lines[-1] == "... 89 more of 99"


def test_columns_that_do_not_fit_the_terminal_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(PAGES, [("Pages:", PAGES, FIELDS)])
    assert repr(records).splitlines()[:2] == ["Pages:", "   PFN  DEVICE    SIZE"]
    monkeypatch.setenv("COLUMNS", "15")
    assert repr(records).splitlines()[:2] == ["Pages:", "   PFN  DEVICE"]
    monkeypatch.setenv("COLUMNS", "3")
    assert repr(records).splitlines()[:2] == ["Pages:", "   PFN"]


def test_without_columns_it_is_shown_as_a_list() -> None:
    assert repr(Records([1, 2])) == "[1, 2]"
    assert repr(Records([], [("", [], FIELDS)])) == "[]"


def test_a_notebook_has_a_table_of_it_and_its_text_is_text() -> None:
    pages = [Page(pfn=1, device=Device(name="</td><script>\x1b[31m\u202e", size=1))]
    text = Records(pages, [("a < b", pages, FIELDS)])._repr_html_()
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(text)
    assert set(tags) == {"table", "caption", "tr", "th", "td"}
    assert "\x1b" not in text
    assert "\u202e" not in text
