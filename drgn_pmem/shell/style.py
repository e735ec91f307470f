# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Colours of what is printed. The terminal's own sixteen, so that they fit its background."""

import re

__all__ = ("paint", "paint_json")

_CODES = {"error": "31", "key": "34", "string": "32", "number": "36", "word": "35", "dim": "2"}

_JSON = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=\s*:)|(?P<string>"(?:[^"\\]|\\.)*")'
    r"|(?P<number>-?\b\d+(?:\.\d+)?\b)|(?P<word>\b(?:true|false|null)\b)"
)


def paint(kind: str, text: str) -> str:
    """Colour a text by what it is."""
    return f"\033[{_CODES[kind]}m{text}\033[0m"


def paint_json(text: str) -> str:
    """Colour JSON text."""
    return _JSON.sub(lambda match: paint(match.lastgroup or "word", match.group()), text)
