# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Short English for findings: lists that end, plurals, sizes."""

from collections.abc import Iterable
from typing import Any

from drgn_pmem.partial import Partial
from drgn_pmem.ranges import short_size

__all__ = ("duration", "few", "least", "plural", "short_size")

_SHOWN = 4


def few(items: Iterable[str], shown: int = _SHOWN) -> str:
    """The first items, each once, and how many more there are."""
    known = list(dict.fromkeys(items))
    more = f" and {len(known) - shown} more" if len(known) > shown else ""
    return ", ".join(known[:shown]) + more


def least(answer: Partial[Any]) -> str:
    """What precedes a number of things where there may be more."""
    return "" if answer.complete else "at least "


def plural(count: int, noun: str) -> str:
    """``plural(2, "page")`` is ``"2 pages"``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"


def duration(seconds: float) -> str:
    """The two largest units: ``"7.4 s"``, ``"1 min 52 s"``, ``"3 d 4 h"``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    left = int(seconds)
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if left >= size or parts:
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])
