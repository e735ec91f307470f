# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
HTML
----

A report as one self-contained page: no script, nothing loaded from elsewhere, for a ticket. All
text is escaped as for a terminal first, then for HTML by :mod:`xml.etree`. A PFN, a file and a
process are links to where the page says more about them.
"""

from collections.abc import Callable, Iterable, Sequence
import contextlib
from dataclasses import dataclass
import io
import re
import sys
from typing import Any
from xml.etree import ElementTree as ET

from drgn_pmem.output.memorymap import MAP_STYLE
from drgn_pmem.output.table import Field
from drgn_pmem.output.terminal import Look
from drgn_pmem.output.text import escape_lines

__all__ = ("Section", "add", "add_row", "lines_below", "page", "page_text", "start_page")

_STYLE = f"""
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 110em; }}
body {{ padding: 0 1em; }}
h2 {{ margin-top: 1.6em; font-size: 1.2em; }}
h3 {{ font-size: 1em; }}
summary {{ border-top: 1px solid #8888; margin-top: 1.2em; padding-top: 0.6em; cursor: pointer; }}
summary code {{ font-size: 15px; font-weight: bold; }}
summary .description, .fold {{ opacity: 0.8; }}
.fold {{ margin: 0.5em 0; border-top: 1px solid #8888; padding-top: 0.5em; }}
code, pre, td {{ font-family: ui-monospace, monospace; font-size: 12.5px; }}
pre {{ line-height: 1.3; white-space: pre-wrap; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; margin-bottom: 1.2em; max-width: 100%; }}
th, td {{ text-align: left; padding: 0.15em 0.6em 0.15em 0; vertical-align: top; }}
td, li, dd, p, h1 {{ overflow-wrap: anywhere; }}
td.critical, td.warning, td.info, .about th {{ white-space: nowrap; }}
td.name {{ min-width: 12em; }}
th {{ font-size: 11px; border-bottom: 1px solid #8888; }}
.about th {{ border-bottom: none; padding-right: 1em; }}
tr:nth-child(odd) td {{ background: #8881; }}
tr:target td, dt:target, li:target {{ background: #fd03; }}
th.number, td.number {{ text-align: right; }}
dl.screen {{ display: grid; grid-template-columns: max-content 1fr; gap: 0.35em 1em; }}
.screen dt {{ font-weight: bold; font-family: ui-monospace, monospace; }}
.screen dd {{ margin: 0; }}
.critical {{ color: #b02020; }}
.warning {{ color: #9a5b00; }}
@media (max-width: 1000px) {{
  th {{ overflow-wrap: anywhere; font-size: 10px; }}
  th:first-child {{ white-space: nowrap; }}
}}
.complete {{ color: #287a28; }}
.degraded, .interrupted {{ color: #9a5b00; }}
.impossible {{ color: #b02020; }}
{MAP_STYLE}
@media (prefers-color-scheme: dark) {{
  .complete {{ color: #7c7; }}
  .degraded, .interrupted, .warning {{ color: #fb6; }}
  .impossible, .critical {{ color: #f99; }}
}}
@media print {{
  @page {{ size: A4 landscape; margin: 12mm; }}
  :root {{ color-scheme: light; }}
  body {{ margin: 0; padding: 0; max-width: none; font-size: 11px; }}
  code, pre, td {{ font-size: 9px; }}
  a {{ color: inherit; text-decoration: none; }}
  tr, dt, dd {{ break-inside: avoid; }}
  h2, h3, summary {{ break-after: avoid; }}
  .map {{ max-height: 110mm; }}
}}
"""

_TOKEN = re.compile(
    r"(?<![\w/.-])(0x[0-9a-f]+|[0-9]+/[\w.:-]+|namespace[0-9]+\.[0-9]+|/[^\s,;()]+)"
)
"""What may be a link: a PFN, a process, a namespace, a path."""
_PROCESS = re.compile(r"[0-9]+/[\w.:-]+")

_PLACES = {"PFN": "pfn", "PATH": "file"}
"""Fields whose rows are what a PFN or a file leads to."""
_OF_PROCESSES = ("PROCESSES", "MAPPED_BY", "HELD_BY", "WAITED_BY", "OPEN_BY")


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
    after: str = ""
    """Lines below the tables."""

    @property
    def anchor(self) -> str:
        return self.line.split()[0]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show but notes."""
        return not self.body or (
            not isinstance(self.body, str) and not any(records for _, records, _ in self.body)
        )


def lines_below(records: Sequence[Any], footer: Callable[[Sequence[Any], Look], str] | None) -> str:
    """What a command shows below its tables, whatever the width of the terminal."""
    if footer is None or not records:
        return ""
    # The legend has the characters of the bars, which depend on the encoding.
    file = io.TextIOWrapper(io.BytesIO(), sys.stdout.encoding or "ascii")
    with contextlib.redirect_stdout(file):
        return escape_lines(footer(records, Look()))


def page(
    title: str,
    facts: Iterable[tuple[str, str]],
    sections: Sequence[Section],
    *,
    screen: Iterable[tuple[str, str, str]] = (),
    drawing: ET.Element | None = None,
) -> str:
    """
    The page: what it is about, what is wrong, the map, then the sections.

    :param facts: Name and text of each, shown at the top.
    :param screen: Label, text and severity of each line of the first screen; the severity is empty
        where nothing is wrong.
    :param drawing: The map of physical memory.
    """
    return _Page().make(title, facts, sections, tuple(screen), drawing)


def start_page(title: str) -> tuple[ET.Element, ET.Element]:
    """:return: A page with a title and the style of all pages, and its body to add to."""
    html = ET.Element("html", lang="en")
    head = ET.SubElement(html, "head")
    ET.SubElement(head, "meta", charset="utf-8")
    ET.SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    add(head, "title", title)
    add(head, "style", _STYLE)
    body = ET.SubElement(html, "body")
    add(body, "h1", title)
    return html, body


def page_text(html: ET.Element) -> str:
    """What a browser reads."""
    return f"<!DOCTYPE html>\n{ET.tostring(html, 'unicode', method='html')}\n"


class _Page:
    def __init__(self) -> None:
        self.places: dict[str, str] = {}
        """What may be a link -> the id of the element that it leads to."""
        self.mentions: dict[str, list[tuple[str, str]]] = {}
        """Process -> (id of a row that names it, section) of each."""
        self.rows = 0

    def make(
        self,
        title: str,
        facts: Iterable[tuple[str, str]],
        sections: Sequence[Section],
        screen: Sequence[tuple[str, str, str]],
        drawing: ET.Element | None,
    ) -> str:
        html, body = start_page(title)
        if screen:
            add(body, "h2", "Findings", id="findings")
            lines = ET.SubElement(body, "dl", {"class": "screen"})
            for label, text, severity in screen:
                add(lines, "dt", label, {"class": severity} if severity else None)
                add(lines, "dd", text)
        if drawing is not None:
            add(body, "h2", "Physical memory", id="map")
            body.append(drawing)
        add(body, "h2", "About this report", id="about")
        about = ET.SubElement(body, "table", {"class": "about"})
        for name, text in facts:
            row = ET.SubElement(about, "tr")
            add(row, "th", name)
            add(row, "td", text)
        _contents(body, sections)
        for section in sections:
            body.append(self._section(section))
        self._processes(body)
        self._link(body)
        return page_text(html)

    def _section(self, section: Section) -> ET.Element:
        element = ET.Element("section", id=section.anchor)
        if section.empty:
            # One line says that there is nothing, or why.
            line = ET.SubElement(element, "p", {"class": "fold"})
            add(line, "code", section.line).tail = " "
            add(line, "span", section.state, {"class": section.state}).tail = " "
            add(line, "span", "; ".join(section.notes) or "nothing found")
            return element
        details = ET.SubElement(element, "details", open="open")
        summary = ET.SubElement(details, "summary")
        add(summary, "code", section.line).tail = " "
        add(summary, "span", section.description, {"class": "description"}).tail = " "
        add(summary, "span", section.state, {"class": section.state})
        if isinstance(section.body, str):
            add(details, "pre", section.body)
        else:
            for title, records, fields in section.body:
                self._table(details, section.anchor, title, records, fields)
        if section.after:
            add(details, "pre", section.after)
        if section.notes:
            notes = ET.SubElement(details, "ul")
            for note in section.notes:
                add(notes, "li", note)
        return element

    def _table(
        self,
        parent: ET.Element,
        anchor: str,
        title: str,
        records: Sequence[Any],
        fields: Sequence[Field],
    ) -> None:
        if not records or not fields:
            return
        if title:
            add(parent, "h3", title)
        table = ET.SubElement(parent, "table")
        names = [field.name for field in fields]
        numbers = [{"class": "number"} if field.right else {} for field in fields]
        add_row(table, "th", names, numbers)
        for record in records:
            texts = [field.text(record) for field in fields]
            row = add_row(table, "td", texts, numbers)
            row.set("id", self._place(anchor, names, texts))
            if names[0] == "SEVERITY":
                row[0].set("class", texts[0])

    def _place(self, anchor: str, names: Sequence[str], texts: Sequence[str]) -> str:
        """Id of a row; what leads to it is noted."""
        self.rows += 1
        id = f"row-{self.rows}"
        for name, text in zip(names, texts, strict=True):
            if name in _PLACES and text not in self.places:
                id = f"pfn-{text}" if name == "PFN" else id
                self.places[text] = id
            if name == "NAMESPACE" and anchor == "pmem-namespaces":
                self.places.setdefault(text, id)
        of = "".join(f" {text}" for name, text in zip(names, texts, strict=True) if name in _PLACES)
        for name, text in zip(names, texts, strict=True):
            if name in _OF_PROCESSES:
                for process in dict.fromkeys(_PROCESS.findall(text)):
                    self.mentions.setdefault(process, []).append((id, f"{anchor}{of}"))
        return id

    def _processes(self, body: ET.Element) -> None:
        """Where each process is named."""
        if not self.mentions:
            return
        add(body, "h2", "Processes", id="processes")
        processes = ET.SubElement(body, "ul")
        for process, rows in sorted(self.mentions.items(), key=lambda item: _number(item[0])):
            id = f"process-{_number(process)}"
            if process not in self.places:
                self.places[process] = id
            item = add(processes, "li", f"{process}: ", id=id)
            for number, (row, anchor) in enumerate(rows):
                link = add(item, "a", anchor, href=f"#{row}")
                link.tail = "" if number + 1 == len(rows) else ", "

    def _link(self, body: ET.Element) -> None:
        """Make links of the words that lead somewhere, and of no others."""
        known = {element.get("id") for element in body.iter()}
        for element in list(body.iter()):
            href = element.get("href")
            if href is not None and href.removeprefix("#") not in known:
                del element.attrib["href"]
            if element.tag in ("td", "dd", "li") and len(element) == 0 and element.text:
                self._link_words(element)

    def _link_words(self, element: ET.Element) -> None:
        text, last = element.text or "", 0
        before: ET.Element | None = None
        for match in _TOKEN.finditer(text):
            place = self.places.get(match[1])
            if place is None:
                continue
            plain, last = text[last : match.start()], match.end()
            if before is None:
                element.text = plain
            else:
                before.tail = plain
            before = ET.SubElement(element, "a", href=f"#{place}")
            before.text = match[1]
        if before is not None:
            before.tail = text[last:]


def _number(process: str) -> int:
    return int(process.partition("/")[0])


def _contents(body: ET.Element, sections: Sequence[Section]) -> None:
    table = ET.SubElement(ET.SubElement(body, "nav"), "table")
    add_row(table, "th", ("SECTION", "ANSWER", "FOUND"), ({}, {}, {}))
    for section in sections:
        row = ET.SubElement(table, "tr")
        add(ET.SubElement(row, "td"), "a", section.line, href=f"#{section.anchor}")
        add(row, "td", section.state, {"class": section.state})
        add(row, "td", section.found)


def add_row(
    table: ET.Element, tag: str, texts: Sequence[str], attributes: Sequence[dict[str, str]]
) -> ET.Element:
    """Add a row of cells (``th`` or ``td``) to a table."""
    row = ET.SubElement(table, "tr")
    for text, more in zip(texts, attributes, strict=True):
        add(row, tag, text, more)
    return row


def add(
    parent: ET.Element, tag: str, text: str, attributes: "dict[str, str] | None" = None, **more: str
) -> ET.Element:
    """Add an element; its text is escaped."""
    element = ET.SubElement(parent, tag, attributes or {}, **more)
    element.text = escape_lines(text)
    return element
