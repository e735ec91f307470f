# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Writes docs/support-matrix.md from docs/support-matrix.json, which the tests write (``make matrix``
does both), and from docs/checked-by-hand.json: kernels whose dumps are not in the repository and
that no distribution of ``make test-distro`` has.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
import json
from pathlib import Path
import re
from string import ascii_uppercase
import textwrap
from typing import Any

FOLDER = Path(__file__).parent

WIDTH = 110
"""Columns of a line of text."""

MARKS = {"complete": "✓", "degraded": "◐", "impossible": "✗", "failed": "FAILED"}

BY_HAND_COLUMNS = ("kernel", "loader", "formats", "checked", "result")

COLUMNS = ("passed", "unproven", "degraded", "impossible", "failed")
"""Of the summary."""

INTRODUCTION = (
    "Which command answers what, on which kernel, architecture and dump format. `make matrix` "
    "writes this page from a run of the tests over the sample dumps in vmcores/ and, where they "
    "were made, over those of distribution kernels (`make test-distro`); a kernel that was not at "
    "hand keeps the rows of its last run. Each command was asked of each dump: where it cannot do "
    "without a page or a file, of pages that processes had mapped and a file of theirs."
)

LEGEND = (
    "- ✓ passed: the answer is complete, and tests hold it against what the machine itself "
    "recorded before it crashed",
    "- ◐ degraded: it answers, and says what the answer lacks; the numbers lead to the reasons "
    "below the table",
    "- ✗ impossible: it says in one line why there is no answer; the number leads to it",
    "- ? after a mark, unproven: no test holds this answer against what was recorded",
    "- FAILED: a test of it failed",
)

REASONS = (
    "Reasons, as the commands print them, without what was looked for. Those that differ in names "
    "and numbers only are one: the first is shown."
)

BEYOND = (
    "Live kernels have no row of their own: `make test-live` boots a guest with NVDIMMs, e820, "
    "virtio-pmem and soft-reserved memory, runs every command in it (`-k`, `-k --live-pmem`) and "
    "from outside (`--qemu`), and compares the answers with ndctl, pagemap and /proc/iomem of the "
    "same minute. `-k` has RAM only: persistent memory is absent from /proc/kcore."
)

BY_HAND = (
    "Dumps of kernels that were built for the purpose, of the same guest, compared with what the "
    "machine had recorded by the same tests; the dumps are not in vmcores/."
)


def main() -> None:
    """Write the page beside this file."""
    matrix = json.loads((FOLDER / "support-matrix.json").read_text())
    by_hand = json.loads((FOLDER / "checked-by-hand.json").read_text())
    (FOLDER / "support-matrix.md").write_text(page(matrix, by_hand))


def page(matrix: dict[str, Any], by_hand: Sequence[dict[str, str]]) -> str:
    """
    The page, Markdown.

    :param by_hand: Rows of :data:`BY_HAND_COLUMNS`.
    """
    kernels = [
        (kernel, dict(samples))
        for kernel, samples in groupby(
            sorted(matrix["samples"].items(), key=lambda item: _order(item[1])),
            key=lambda item: f"Linux {item[1]['release']}, {item[1]['architecture']}",
        )
    ]
    parts = ["# Support matrix", _wrap(INTRODUCTION), "\n".join(map(_item, LEGEND))]
    parts += ["## Summary", _summary(kernels), _wrap(BEYOND)]
    rows = [[row[column] for column in BY_HAND_COLUMNS] for row in by_hand]
    parts += ["## Checked by hand", _wrap(BY_HAND), _table([[*BY_HAND_COLUMNS], *rows])]
    for kernel, samples in kernels:
        parts += [f"## {kernel}", *_kernel(samples)]
    return "\n\n".join(parts) + "\n"


def _order(sample: dict[str, Any]) -> tuple[Any, ...]:
    """x86_64 first, older kernels first."""
    numbers = tuple(int(n) for n in re.findall(r"\d+", sample["release"])[:3])
    return sample["architecture"] != "x86_64", sample["architecture"], numbers, sample["release"]


def _summary(kernels: list[tuple[str, dict[str, Any]]]) -> str:
    """One row for each dump."""
    rows = []
    for kernel, samples in kernels:
        for name, sample in samples.items():
            for format, cells in sample["formats"].items():
                count = Counter(map(_column, cells.values()))
                rows.append([kernel, name, format, *(str(count[c] or "-") for c in COLUMNS)])
    return _table([["kernel", "sample", "format", *COLUMNS], *rows])


def _column(cell: dict[str, Any]) -> str:
    if cell["state"] == "complete":
        return "passed" if cell["held"] else "unproven"
    return str(cell["state"])


def _kernel(samples: dict[str, Any]) -> Iterator[str]:
    """What the dumps are, the table, the reasons."""
    letters = dict(zip(samples, ascii_uppercase, strict=False))
    yield "\n".join(
        _item(f"- {letter}: {name}, run {samples[name]['ran']}: {samples[name]['description']}")
        for name, letter in letters.items()
    )
    columns = [
        (f"{letters[name]} {format}", cells)
        for name, sample in samples.items()
        for format, cells in sample["formats"].items()
    ]
    commands = sorted({command for _, cells in columns for command in cells})
    reasons: dict[str, tuple[int, str]] = {}
    rows = [["command", *(head for head, _ in columns)]]
    for command in commands:
        rows.append([command, *(_cell(cells.get(command), reasons) for _, cells in columns)])
    yield _table(rows)
    if reasons:
        yield _wrap(REASONS)
        yield "\n".join(_item(f"{number}. {text}") for number, text in reasons.values())


def _cell(cell: dict[str, Any] | None, reasons: dict[str, tuple[int, str]]) -> str:
    """A mark, and the numbers of its reasons."""
    if cell is None:
        return "-"
    mark = MARKS[cell["state"]] + ("" if cell.get("held", True) else "?")
    numbers = []
    for reason in cell.get("reasons", ()):
        kind, text = _kind(reason)
        number, _ = reasons.setdefault(kind, (len(reasons) + 1, text))
        numbers.append(number)
    return " ".join([mark, ",".join(map(str, sorted(set(numbers))))]).rstrip()


_FOR_WHAT = re.compile(
    r".* is not known: (?=no debug info)|.*: (?=the (file ends before|dump does not hold what) )"
    r"|(there may be more|without this, less is told): "
)
"""For what something is the reason."""


def _kind(reason: str) -> tuple[str, str]:
    """
    :return: What is the same of reasons that differ only in names, numbers, and for what they are
        the reason; the reason without for what.
    """
    text = _FOR_WHAT.sub("", reason, count=1)
    return re.sub(r"(namespace|region|dax|pmem)\d+\.\d+|0x[0-9a-f]+|\d+", "#", text), text


def _item(text: str) -> str:
    """An item of a list, wrapped."""
    indent = " " * (text.index(" ") + 1)
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _wrap(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _table(rows: list[list[str]]) -> str:
    """A table whose columns stand below each other also where Markdown is read as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


if __name__ == "__main__":
    main()
