# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever text a dump holds, a page has it as text."""

from html.parser import HTMLParser
import re

from hypothesis import given, strategies as st

from drgn_pmem.output.html import Section, lines_below, page
from drgn_pmem.output.table import Field
from drgn_pmem.output.text import escape

FIELDS = (Field("NAME", lambda record: record), Field("AGAIN", lambda record: [record], right=True))


class Texts(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def made_of(text: str) -> str:
    safe = escape(text)
    tables = Section("pmem-list -N", "all", "complete", "", [(safe, [text], FIELDS)], [safe])
    drawing = Section("pmem-coverage", "some", "degraded", "1 namespace", safe, [])
    return page(safe, [("panic", safe)], [tables, drawing])


KNOWN = Texts(made_of("plain")).tags


@given(st.text(min_size=1))
def test_text_of_a_dump_is_text(text: str) -> None:
    found = Texts(made_of(text))
    assert found.tags == KNOWN
    # title, h1, panic, table's title, two cells, note, drawing
    assert found.texts.count(escape(text)) >= 8


def test_markup_and_terminal_escapes() -> None:
    html = made_of("</td><script>alert('1')</script>&amp;\x1b[31m\u202e")
    assert "<script" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "&lt;/td&gt;&lt;script&gt;" in html


def test_a_table_without_rows_is_left_out() -> None:
    empty = Section("pmem-pins", "held pages", "complete", "0 held pages", [("", [], FIELDS)], [])
    assert "NAME" not in page("title", [], [empty])


def test_the_lines_below_a_table_are_on_the_page_and_processes_say_where() -> None:
    """The verdicts of pmem-coverage were missing; a process was followed by the same word twice."""
    fields = (Field("PATH", str), Field("MAPPED_BY", lambda path: "7/cat"))
    tables = [("", ["/mnt/a", "/mnt/b"], fields)]
    below = lines_below(tables[0][1], lambda records, look: f"{len(records)} files <below>")
    files = Section("pmem-files", "files", "complete", "2 files", tables, [], below)
    html = page("title", [], [files])
    assert "2 files &lt;below&gt;" in html
    process = re.sub(r"<[^>]+>", "", html[html.index('id="processes"') :])
    assert "7/cat: pmem-files /mnt/a, pmem-files /mnt/b" in process
    assert lines_below([], lambda records, look: "nothing") == ""
