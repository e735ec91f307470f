# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
HTML
----

A report as one self-contained page: no script, nothing loaded from elsewhere, for a ticket. All
text is escaped as for a terminal first, then for HTML by :mod:`xml.etree`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from drgn_pmem.output.table import Field
from drgn_pmem.output.text import escape_lines

__all__ = ("Section", "page")

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 110em; padding: 0 1em; }
h2 { border-top: 1px solid #8888; margin-top: 2em; padding-top: 0.7em; font-size: 1.15em; }
h2 span { font-weight: normal; }
h3 { font-size: 1em; }
code, pre, td { font-family: ui-monospace, monospace; font-size: 13px; }
pre, .wide { overflow-x: auto; }
pre { line-height: 1.3; }
table { border-collapse: collapse; margin-bottom: 1.2em; }
th, td { text-align: left; padding: 0.15em 0.8em 0.15em 0; vertical-align: top; }
th { white-space: nowrap; font-size: 12px; border-bottom: 1px solid #8888; }
tr:nth-child(odd) td { background: #8881; }
th.number, td.number { text-align: right; }
.complete { color: #287a28; }
.degraded, .interrupted { color: #b06a00; }
.impossible { color: #c03030; }
@media (prefers-color-scheme: dark) {
  .complete { color: #7c7; }
  .degraded, .interrupted { color: #fb6; }
  .impossible { color: #f88; }
}
"""


@dataclass(frozen=True)
class Section:
    """A part of a page: what was asked, and the answer."""

    line: str
    """The command, as it is typed; its name is the section's anchor."""
    description: str
    state: str
    """One word."""
    found: str
    """A few words; may be empty."""
    body: "str | Sequence[tuple[str, Sequence[Any], Sequence[Field]]]"
    """A drawing, or (title, records, fields) of each table."""
    notes: Sequence[str]

    @property
    def anchor(self) -> str:
        return self.line.split()[0]


def page(title: str, facts: Iterable[tuple[str, str]], sections: Sequence[Section]) -> str:
    """
    The page, with a list of its sections in front.

    :param facts: Name and text of each, shown at the top.
    """
    html = ET.Element("html", lang="en")
    head = ET.SubElement(html, "head")
    ET.SubElement(head, "meta", charset="utf-8")
    ET.SubElement(head, "meta", name="viewport", content="width=device-width")
    _add(head, "title", title)
    _add(head, "style", _STYLE)
    body = ET.SubElement(html, "body")
    _add(body, "h1", title)
    about = ET.SubElement(body, "table")
    for name, text in facts:
        row = ET.SubElement(about, "tr")
        _add(row, "th", name)
        _add(row, "td", text)
    contents = ET.SubElement(ET.SubElement(body, "nav"), "table")
    _row(contents, "th", ("SECTION", "ANSWER", "FOUND"), ({}, {}, {}))
    for section in sections:
        row = ET.SubElement(contents, "tr")
        _add(ET.SubElement(row, "td"), "a", section.line, href=f"#{section.anchor}")
        _add(row, "td", section.state, {"class": section.state})
        _add(row, "td", section.found)
    for section in sections:
        body.append(_section(section))
    return f"<!DOCTYPE html>\n{ET.tostring(html, 'unicode', method='html')}\n"


def _section(section: Section) -> ET.Element:
    element = ET.Element("section", id=section.anchor)
    heading = ET.SubElement(element, "h2")
    _add(heading, "code", section.line).tail = " "
    _add(heading, "span", section.description)
    if isinstance(section.body, str):
        if section.body:
            _add(element, "pre", section.body)
    else:
        for title, records, fields in section.body:
            _table(element, title, records, fields)
    if section.notes:
        notes = ET.SubElement(element, "ul")
        for note in section.notes:
            _add(notes, "li", note)
    return element


def _table(parent: ET.Element, title: str, records: Sequence[Any], fields: Sequence[Field]) -> None:
    if not records or not fields:
        return
    if title:
        _add(parent, "h3", title)
    table = ET.SubElement(ET.SubElement(parent, "div", {"class": "wide"}), "table")
    names = [field.name for field in fields]
    numbers = [{"class": "number"} if field.right else {} for field in fields]
    _row(table, "th", names, numbers)
    for record in records:
        _row(table, "td", [field.text(record) for field in fields], numbers)


def _row(
    table: ET.Element, tag: str, texts: Sequence[str], attributes: Sequence[dict[str, str]]
) -> None:
    row = ET.SubElement(table, "tr")
    for text, more in zip(texts, attributes, strict=True):
        _add(row, tag, text, more)


def _add(
    parent: ET.Element, tag: str, text: str, attributes: "dict[str, str] | None" = None, **more: str
) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes or {}, **more)
    element.text = escape_lines(text)
    return element
