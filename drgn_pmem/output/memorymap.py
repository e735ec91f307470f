# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The map of physical memory, drawn: as SVG for a page, as bars for text.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from drgn_pmem.output.bars import (
    DATA,
    FREE,
    INFOBLOCK,
    MEMMAP,
    METADATA,
    Part,
    bar,
    legend_of,
    use_ascii,
)
from drgn_pmem.output.terminal import paragraph
from drgn_pmem.output.text import escape, human_size, plural

if TYPE_CHECKING:
    from drgn_pmem.analysis.findings.memorymap import MapRow

__all__ = ("MAP_STYLE", "map_svg", "map_text")

_WIDTH, _LEFT, _RIGHT = 1000, 210, 10
_ROW, _TOP = 46, 8
_BAR, _STRIP = 16, 7

_CLASSES = {
    "RAM": "ram",
    "info block": "infoblock",
    "memmap": "memmap",
    "metadata": "metadata",
    "data": "data",
    "free": "free",
    "unknown": "unknown",
}

MAP_STYLE = """
.map { width: 100%; max-width: 1150px; height: auto; font: 11px system-ui, sans-serif; }
.map text { fill: currentColor; }
.map .small { font-size: 9px; opacity: 0.75; }
.map .ram { fill: #8796a5; } .map .data { fill: #4a8ccf; } .map .memmap { fill: #d08a1d; }
.map .metadata { fill: #e3c27a; }
.map .infoblock { fill: #1f9e8f; } .map .free { fill: #8883; } .map .unknown { fill: #a060a0; }
.map .saved { fill: #2f9e44; } .map .lost { fill: #8883; }
.map .poison { fill: #d02020; } .map .pinned { fill: #8a3ffc; }
"""
"""Style of :func:`map_svg`."""


def map_svg(rows: "Sequence[MapRow]", link: bool = True) -> ET.Element:
    """
    The map: a bar for each row, what it is above, how much of it the dump holds below, marks on
    top.

    :param link: Marks lead to ``#pfn-0x...``, where the page has such a place.
    """
    height = _TOP + _ROW * len(rows) + 26
    svg = ET.Element("svg", {"class": "map", "viewBox": f"0 0 {_WIDTH} {height}", "role": "img"})
    _text(svg, "title", "Map of physical memory")
    for number, row in enumerate(rows):
        _draw_row(svg, row, _TOP + number * _ROW, link)
    _draw_legend(svg, _TOP + _ROW * len(rows) + 14)
    return svg


def _draw_row(svg: ET.Element, row: "MapRow", top: float, link: bool) -> None:
    size = row.end - row.start
    scale = (_WIDTH - _LEFT - _RIGHT) / size
    _text(svg, "text", f"{row.label}, {human_size(size).split(' (')[0]}", x="0", y=f"{top + 20}")
    place = f"{row.start:#x}-{row.end:#x}"
    _text(svg, "text", place, {"class": "small"}, x="0", y=f"{top + 32}")
    for piece in row.pieces:
        x = _LEFT + (piece.start - row.start) * scale
        width = max(1.2, piece.size * scale)
        what = f"{piece.kind} {piece.start:#x}-{piece.start + piece.size:#x}"
        rectangle = _rectangle(svg, _CLASSES[piece.kind], x, top + 10, width, _BAR)
        _text(rectangle, "title", what)
        _rectangle(svg, "lost", x, top + 10 + _BAR + 1, width, _STRIP)
        if piece.saved:
            strip = _rectangle(svg, "saved", x, top + 10 + _BAR + 1, width, _STRIP)
            strip.set("opacity", f"{0.3 + 0.7 * piece.saved:.2f}")
            _text(strip, "title", f"{piece.saved:.0%} saved: {what}")
    # Bad pages on top of held ones.
    for mark in sorted(row.marks, key=lambda mark: mark.kind == "poison"):
        x = _LEFT + (mark.physical - row.start) * scale
        parent = ET.SubElement(svg, "a", href=f"#pfn-{mark.pfn:#x}") if link else svg
        wide = 4 if mark.kind == "poison" else 6
        points = f"{x - wide:.1f},{top} {x + wide:.1f},{top} {x:.1f},{top + 9}"
        triangle = ET.SubElement(parent, "polygon", {"class": mark.kind, "points": points})
        _text(triangle, "title", f"{mark.kind}: PFN {mark.pfn:#x} {mark.label}")


def _draw_legend(svg: ET.Element, y: float) -> None:
    names = [
        ("ram", "RAM"), ("infoblock", "info block"), ("memmap", "memmap"),
        ("metadata", "other metadata"), ("data", "data"), ("free", "free"),
        ("saved", "in the dump"), ("lost", "not in the dump"),
        ("poison", "poison"), ("pinned", "pinned"),
    ]  # fmt: skip
    x = _RIGHT
    for kind, name in names:
        _rectangle(svg, kind, x, y - 8, 9, 9)
        _text(svg, "text", name, {"class": "small"}, x=f"{x + 12}", y=f"{y}")
        x += 42 + 6 * len(name)


def _rectangle(
    svg: ET.Element, kind: str, x: float, y: float, width: float, height: float
) -> ET.Element:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{width:.1f}", "height": f"{height}"}
    return ET.SubElement(svg, "rect", {"class": kind, **place})


def _text(
    parent: ET.Element, tag: str, text: str, attributes: dict[str, str] | None = None, **more: str
) -> None:
    ET.SubElement(parent, tag, attributes or {}, **more).text = escape(text)


def map_text(rows: "Sequence[MapRow]", width: int = 64) -> str:
    """The same as bars of characters, one line a row."""
    kinds = {"info block": INFOBLOCK, "memmap": MEMMAP, "metadata": METADATA, "free": FREE}
    lines, bars = [], []
    for row in rows:
        parts = [Part(kinds.get(p.kind, DATA), p.size, p.state) for p in row.pieces]
        size = human_size(row.end - row.start).split(" (")[0]
        counts = [
            plural(sum(mark.kind == kind for mark in row.marks), noun)
            for kind, noun in (("poison", "bad page"), ("pinned", "pinned page"))
            if any(mark.kind == kind for mark in row.marks)
        ]
        more = f"  {', '.join(counts)}" if counts else ""
        drawn = bar(parts, width, use_ascii())
        bars.append(drawn)
        lines.append(f"{row.label:<9} {row.start:>#12x} {size:>11}  {drawn}{more}")
    explained = (paragraph(line) for line in legend_of(bars, use_ascii()).splitlines())
    return "\n".join([*lines, "", *explained])
