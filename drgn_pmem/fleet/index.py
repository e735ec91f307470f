# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
index.html
----------

A table of all dumps, worst first, with links to their reports; groups of dumps with the same
findings. As a report: no script, nothing from elsewhere, all text escaped.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from xml.etree import ElementTree as ET

from drgn_pmem.fleet.row import Row, groups_of, short_name, without_report, worst_first
from drgn_pmem.output.html import add, add_row, page_text, start_page
from drgn_pmem.output.text import escape, plural

__all__ = ("index_page", "summary_line", "time_text")

_COLUMNS = ("DUMP", "RELEASE", "CRASHED", "CRITICAL", "WARNING", "INFO", "ANSWERS", "FINDINGS",
            "PANIC")  # fmt: skip
_NUMBERS = ("CRITICAL", "WARNING", "INFO")
_MOST = 50
"""Dumps that a group names."""


def index_page(rows: Sequence[Row], facts: Sequence[tuple[str, str]]) -> str:
    """
    The page.

    :param facts: Name and text of what is said of the run.
    """
    html, body = start_page("Persistent memory in " + plural(len(rows), "dump"))
    add(body, "p", summary_line(rows))
    lost = without_report(rows)
    if lost:
        _no_reports(body, lost)
    done = worst_first(rows)
    add(body, "h2", "Dumps, worst first", id="dumps")
    if done:
        _dumps(body, done)
    else:
        add(body, "p", "No dump has a report.")
    _groups(body, rows)
    add(body, "h2", "About this index", id="about")
    about = ET.SubElement(body, "table", {"class": "about"})
    for name, text in facts:
        row = ET.SubElement(about, "tr")
        add(row, "th", name)
        add(row, "td", text)
    return page_text(html)


def summary_line(rows: Sequence[Row]) -> str:
    """How many dumps there are, and how many with what."""
    done = [row for row in rows if row.has_report]
    critical = sum(bool(row.counts[0]) for row in done)
    warning = sum(bool(row.counts[1]) and not row.counts[0] for row in done)
    rest = [row for row in done if not row.counts[0] and not row.counts[1]]
    unsure = sum(not row.complete for row in rest)
    stale = sum(bool(row.stale) for row in rows)
    parts = [
        f"{critical} with critical findings" if critical else "",
        f"{warning} with warnings" if warning else "",
        f"{len(rest)} with neither" + (f" ({unsure} of them incomplete)" if unsure else "")
        if rest
        else "",
        f"{len(rows) - len(done)} without a report" if len(done) < len(rows) else "",
        f"{stale} of them out of date" if stale else "",
    ]
    return f"{plural(len(rows), 'dump')}: " + (", ".join(filter(None, parts)) or "nothing to show")


def time_text(seconds: int | None) -> str:
    """When a machine crashed."""
    if seconds is None:
        return "-"
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError):
        return str(seconds)


def _no_reports(body: ET.Element, rows: Sequence[Row]) -> None:
    add(body, "h2", "Dumps without a report", id="no-report")
    table = ET.SubElement(body, "table")
    add_row(table, "th", ("DUMP", "STATE", "WHY", "TRIES"), ({}, {}, {}, {"class": "number"}))
    for row in rows:
        line = ET.SubElement(table, "tr", id=row.name)
        add(line, "td", row.dump)
        add(line, "td", row.state.value, {"class": "impossible"})
        add(line, "td", (row.error or "-") + (f"; {row.stale}" if row.stale else ""))
        add(line, "td", str(row.tries), {"class": "number"})


def _dumps(body: ET.Element, rows: Sequence[Row]) -> None:
    table = ET.SubElement(body, "table")
    classes = [{"class": "number"} if name in _NUMBERS else {} for name in _COLUMNS]
    add_row(table, "th", _COLUMNS, classes)
    for row in rows:
        line = ET.SubElement(table, "tr", id=row.name)
        add(
            ET.SubElement(line, "td", {"class": "name"}, title=escape(row.dump)),
            "a",
            short_name(row.dump),
            href=_report(row),
        )
        add(line, "td", row.release or "-")
        add(line, "td", time_text(row.time))
        for severity, count in zip(("critical", "warning", ""), row.counts, strict=True):
            add(line, "td", str(count), {"class": f"number {severity if count else ''}".strip()})
        good = row.complete and not row.stale
        answers = ET.SubElement(line, "td", {"class": "complete" if good else "degraded"})
        answers.text = "complete" if row.complete else "incomplete"
        if row.undecided:
            answers.text += f", {row.undecided} undecided"
        if row.stale:
            answers.text += escape(f"; out of date: {row.stale}")
        if row.tries > 1:
            answers.text += escape(f"; read {row.tries} times: first, {row.before}")
        _found(ET.SubElement(line, "td"), row.found, row.numbers)
        add(line, "td", row.panic or "-")


def _report(row: Row) -> str:
    return f"reports/{row.name}.html"


def _found(
    cell: ET.Element,
    found: Sequence[tuple[str, str]],
    numbers: Mapping[tuple[str, str], int] | None = None,
) -> None:
    """Names of the rules, coloured by severity; how often, if more than once."""
    if not found:
        cell.text = "-"
    for place, (severity, rule) in enumerate(found, 1):
        times = (numbers or {}).get((severity, rule), 1)
        name = add(cell, "span", rule, {"class": severity})
        name.tail = (f" ({times})" if times > 1 else "") + (", " if place < len(found) else "")


def _groups(body: ET.Element, rows: Sequence[Row]) -> None:
    groups = groups_of(rows)
    if not groups:
        return
    add(body, "h2", "The same critical findings and warnings", id="groups")
    table = ET.SubElement(body, "table")
    add_row(table, "th", ("DUMPS", "FINDINGS", "WHICH"), ({"class": "number"}, {}, {}))
    for found, same in groups:
        line = ET.SubElement(table, "tr")
        add(line, "td", str(len(same)), {"class": "number"})
        _found(ET.SubElement(line, "td"), found)
        cell = ET.SubElement(line, "td")
        for number, row in enumerate(same[:_MOST]):
            link = add(cell, "a", short_name(row.dump), href=_report(row))
            link.tail = "" if number + 1 == len(same[:_MOST]) else ", "
        if len(same) > _MOST:
            last = ET.SubElement(cell, "span")
            last.text = f" and {len(same) - _MOST} more"
