# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Bars
----

A region or namespace as one line of characters: what is where (info block, struct pages, other
metadata, data, free) and whether the dump holds it. :func:`legend` explains the characters.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
import itertools
import sys

from drgn_pmem.partial import State
from drgn_pmem.ranges import Range

__all__ = (
    "DATA",
    "FREE",
    "INFOBLOCK",
    "MEMMAP",
    "METADATA",
    "Part",
    "bar",
    "legend",
    "legend_of",
    "namespace_bar",
    "use_ascii",
)

INFOBLOCK = "info block"
MEMMAP = "memmap"
METADATA = "other metadata"
"""BTT map and log, reserved space: what is metadata without being struct pages."""
DATA = "data"
FREE = "free"

_SYMBOLS = {
    (INFOBLOCK, State.SAVED): ("●", "I"),
    (INFOBLOCK, State.EXCLUDED): ("◐", "i"),
    (INFOBLOCK, State.ABSENT): ("○", ","),
    (MEMMAP, State.SAVED): ("◆", "M"),
    (MEMMAP, State.EXCLUDED): ("◈", "m"),
    (MEMMAP, State.ABSENT): ("◇", ":"),
    (METADATA, State.SAVED): ("■", "B"),
    (METADATA, State.EXCLUDED): ("▣", "b"),
    (METADATA, State.ABSENT): ("□", ";"),
    (DATA, State.SAVED): ("█", "#"),
    (DATA, State.EXCLUDED): ("▒", "+"),
    (DATA, State.ABSENT): ("░", "."),
}
"""(Unicode, ASCII) by kind and state."""

_ANY_KIND = {State.TRUNCATED: ("×", "x"), State.DAMAGED: ("¤", "%"),
             State.UNMAPPED: ("¿", "?"), State.UNKNOWN: ("¡", "!")}  # fmt: skip
_FREE = ("─", "-")

# A cell that covers several states shows the worst one.
_BADNESS = {
    State.SAVED: 0,
    State.EXCLUDED: 1,
    State.UNMAPPED: 2,
    State.ABSENT: 3,
    State.TRUNCATED: 4,
    State.DAMAGED: 5,
    State.UNKNOWN: 6,
}


@dataclass(frozen=True)
class Part:
    """A stretch of one kind in one state."""

    kind: str
    """:data:`INFOBLOCK`, :data:`MEMMAP`, :data:`METADATA`, :data:`DATA` or :data:`FREE`."""
    size: int
    """bytes"""
    state: State | None = None
    """None where it does not matter (free, reserved for struct pages and not used)."""

    def to_json(self) -> dict[str, object]:
        state = None if self.state is None else self.state.value
        return {"kind": self.kind, "size": self.size, "state": state}


def bar(parts: Sequence[Part], width: int, ascii: bool = False) -> str:
    """
    Draw parts in order, each as long as its share of the bytes but at least one character: an info
    block of 8 KiB next to a terabyte is visible.

    :param width: Characters, the brackets included.
    :param ascii: Only ASCII characters, for terminals that are not UTF-8.
    :return: ``width`` characters; empty if there are no parts or the width is too small.
    """
    runs = [
        (kind, list(group))
        for kind, group in itertools.groupby((p for p in parts if p.size > 0), lambda p: p.kind)
    ]
    cells = width - 2
    if not runs or cells < 1:
        return ""
    sizes = [sum(part.size for part in group) for _, group in runs]
    lengths = _share(sizes, cells)
    drawn = "".join(
        _draw(group, length, ascii)
        for (_, group), length in zip(runs, lengths, strict=True)
        if length
    )
    return f"[{drawn}]"


def namespace_bar(
    parts: Iterable[tuple[str, int, State | None]],
    width: int,
    memmap: bool,
    start: int = 0,
    used: Range | None = None,
) -> str | None:
    """
    A namespace as one line.

    :param parts: (kind of stretch, bytes, state) from front to end, as
        :mod:`drgn_pmem.analysis.inventory.parts` names the kinds.
    :param width: Characters.
    :param memmap: Whether the namespace holds struct pages, after its info block.
    :param start: Physical address where the parts begin.
    :param used: Where in the space after the info block the struct pages are; None if that is not
        known. The rest of the space is reserved and was never written: nothing is lost with it.
    """
    from drgn_pmem.analysis.inventory import parts as names

    kinds = {names.INFOBLOCK: INFOBLOCK, names.METADATA: METADATA, names.USERDATA: DATA}
    kinds[names.UNKNOWN] = DATA  # what of it is data is not known, which of it was saved is
    drawn = []
    at = start
    for kind, size, state in parts:
        there = Range(at, at + size)
        at += size
        if used is not None and kinds.get(kind) == MEMMAP and state is not State.SAVED:
            # a part may begin before the struct pages and end after them
            low, high = (min(max(cut, there.start), there.end) for cut in (used.start, used.end))
            drawn += [
                Part(MEMMAP, low - there.start),
                Part(MEMMAP, high - low, state),
                Part(MEMMAP, there.end - high),
            ]
            continue
        drawn.append(Part(kinds.get(kind, FREE), size, state))
        if kind == names.INFOBLOCK and memmap:
            kinds[names.METADATA] = MEMMAP
    return bar(drawn, width, use_ascii()) or None


def _share(sizes: Sequence[int], cells: int) -> list[int]:
    """Share cells by size, at least one each as long as there are enough; the largest first."""
    lengths = [0] * len(sizes)
    by_size = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    for i in by_size[:cells]:
        lengths[i] = 1
    rest = cells - sum(lengths)
    total = sum(sizes)
    # The share of each beyond its first cell, then the cells lost to rounding.
    owed = [max(0.0, size * cells / total - 1) for size in sizes]
    scale = rest / sum(owed) if sum(owed) else 0.0
    exact = [share * scale for share in owed]
    for i, share in enumerate(exact):
        lengths[i] += int(share)
    lost = cells - sum(lengths)
    for i in sorted(range(len(sizes)), key=lambda i: int(exact[i]) - exact[i])[:lost]:
        lengths[i] += 1
    return lengths


def _draw(group: Sequence[Part], length: int, ascii: bool) -> str:
    """Cells of one kind."""
    total = sum(part.size for part in group)
    ends = list(itertools.accumulate(part.size for part in group))
    symbols = []
    first = 0
    for cell in range(length):
        start, end = cell * total // length, max((cell + 1) * total // length, 1)
        while ends[first] <= start:
            first += 1
        last = first
        while last + 1 < len(group) and ends[last] < end:
            last += 1
        worst = max(group[first : last + 1], key=lambda part: _badness(part.state))
        symbols.append(_symbol(worst, ascii))
    return "".join(symbols)


def _badness(state: State | None) -> int:
    return -1 if state is None else _BADNESS[state]


def _symbol(part: Part, ascii: bool) -> str:
    if part.kind == FREE or part.state is None:
        return _FREE[ascii]
    pair = _ANY_KIND.get(part.state) or _SYMBOLS[part.kind, part.state]
    return pair[ascii]


def legend(ascii: bool = False) -> str:
    """What the characters of :func:`bar` mean, in two lines."""
    return _legend(ascii, lambda symbol: True)


def legend_of(bars: Iterable[str], ascii: bool = False) -> str:
    """What the characters that these bars have mean; empty if there are no bars."""
    used = set("".join(bars).replace("[", "").replace("]", ""))
    return _legend(ascii, used.__contains__)


def _legend(ascii: bool, wanted: Callable[[str], bool]) -> str:
    lines = []
    for kind in (INFOBLOCK, MEMMAP, METADATA, DATA):
        states = [
            f"{_SYMBOLS[kind, state][ascii]} {state.value}"
            for state in (State.SAVED, State.EXCLUDED, State.ABSENT)
            if wanted(_SYMBOLS[kind, state][ascii])
        ]
        lines += [f"{kind} {' '.join(states)}"] if states else []
    others = [
        f"{pair[ascii]} {name}"
        for name, pair in (("free", _FREE), *((s.value, pair) for s, pair in _ANY_KIND.items()))
        if wanted(pair[ascii])
    ]
    return "\n".join("   ".join(line) for line in (lines, others) if line)


def use_ascii() -> bool:
    """Whether standard output cannot take the Unicode characters."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        "●◐○◆◈◇■▣□█▒░×¤¿¡─".encode(encoding)
    except (LookupError, UnicodeEncodeError):
        return True
    return False
