# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Draws the pictures of README.md from the default sample: ``make docs``. map.svg is the map of
pmem-report, shell.svg what pmem-diagnose shows in the shell.
"""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from drgn import Program

FOLDER = Path(__file__).parent

_NAMESPACE = "http://www.w3.org/2000/svg"
_DARK = "@media (prefers-color-scheme: dark) { .map { color: #ddd; } }"
_SIZE, _LINE, _COLUMN = 13, 18, 7.83
"""Of the shell's font: size, height of a line, width of a character."""
_COLOURS = {
    "POISON": "#ff7b72", "PINNED": "#ffb454", "TASKS": "#ffb454", "KERNEL": "#ffb454",
    "ODD": "#d2a8ff", "DO": "#7ee787",
}  # fmt: skip


def main() -> None:
    """Draw them beside this file."""
    prog, path = open_sample()
    (FOLDER / "map.svg").write_text(draw_map(prog))
    (FOLDER / "shell.svg").write_text(draw_shell(prog, path))


def open_sample() -> tuple[Program, str]:
    """The default sample, and its path."""
    import drgn_pmem
    from drgn_pmem.shell.sample import find_sample

    sample = find_sample()
    path = str(sample.dump())
    return drgn_pmem.open(path, sample.debug_info()), path


def draw_map(prog: Program) -> str:
    """The map of physical memory."""
    from drgn_pmem.analysis.findings.memorymap import read_memory_map
    from drgn_pmem.output.memorymap import MAP_STYLE, map_svg

    svg = map_svg(read_memory_map(prog).whole(), link=False)
    svg.set("xmlns", _NAMESPACE)
    style = ET.Element("style")
    style.text = f"{MAP_STYLE}{_DARK}"
    svg.insert(0, style)
    return f"{ET.tostring(svg, 'unicode')}\n"


def draw_shell(prog: Program, path: str) -> str:
    """The first screen of pmem-diagnose, at the shell's prompt."""
    import drgn_pmem
    from drgn_pmem.analysis.findings.screen import Line
    from drgn_pmem.output.screen import line_text

    # The path of the dump is one of this machine.
    lines = [
        Line(label=line.label, text=line.text.replace(path, "vmcore"))
        for line in drgn_pmem.diagnose(prog).whole().lines
    ]
    screen = [text for line in lines for text in line_text(line, 120).splitlines()]
    return _terminal(["drgn-pmem> pmem-diagnose", *screen])


def _terminal(lines: list[str]) -> str:
    width = max(map(len, lines)) * _COLUMN + 24
    height = len(lines) * _LINE + 24
    size: dict[str, Any] = {"viewBox": f"0 0 {width:.0f} {height}", "width": f"{width:.0f}"}
    svg = ET.Element("svg", {"xmlns": _NAMESPACE, "height": f"{height}", **size})
    ET.SubElement(svg, "rect", width="100%", height="100%", rx="6", fill="#16181d")
    font = {"font-family": "ui-monospace, Menlo, Consolas, monospace", "font-size": f"{_SIZE}"}
    group = ET.SubElement(svg, "g", {"fill": "#d5d8dd", **font})
    for number, line in enumerate(lines):
        label = line.split(" ", 1)[0]
        place = {"x": "12", "y": f"{12 + (number + 1) * _LINE - 5}"}
        text = ET.SubElement(group, "text", place)
        span = ET.SubElement(text, "tspan", {"fill": _COLOURS.get(label, "#79c0ff")})
        span.text = line[: len(label)]
        # SVG takes several spaces for one.
        span.tail = line[len(label) :].replace(" ", "\u00a0")
    return f"{ET.tostring(svg, 'unicode')}\n"


if __name__ == "__main__":
    main()
