# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Text
----

How single values are printed. Text from a dump (``comm``, paths, uuids, provider names) is
untrusted. Records, notes and errors have it unchanged; :func:`escape` makes it safe on its way to a
terminal, a page or a log. Safe text stays unchanged, so escaping twice is harmless.
"""

from collections.abc import Sequence
import re
from typing import Any
import unicodedata

__all__ = ("cell", "cut", "escape", "escape_lines", "human_size", "natural", "plural", "short_size")

_KIB = 1024
_MIB = 1024 * _KIB
_GIB = 1024 * _MIB
_TIB = 1024 * _GIB


def escape(text: "str | bytes") -> str:
    """
    Make text from a dump safe to print: control characters, terminal escapes, bidirectional
    overrides and bytes that are not UTF-8 become ``\\x1b``-style escapes; everything printable
    stays.

    :param text: Text or raw bytes from the dump.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape_character(c) for c in text)


def escape_lines(text: str) -> str:
    """:func:`escape` for text of more than one line: its line breaks stay."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "\n".join(map(escape, text.split("\n")))


def _escape_character(c: str) -> str:
    # Cf holds the bidirectional overrides and zero-width characters; isprintable() is false for
    # every Other and Separator class.
    if c == " " or (c.isprintable() and unicodedata.category(c) != "Cf"):
        return c
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:
        # A byte of a command line or a file's name that is not UTF-8 (PEP 383).
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def human_size(size: int) -> str:
    """
    Human-readable size, as ``ndctl list -u`` prints it.

    Source: ``display_size()`` in ndctl's util/json.c.

    :param size: bytes
    """
    if size < 5000 * _KIB:
        return str(size)
    for limit, unit, binary, decimal in (
        (2 * _GIB, "M", _MIB, 1000**2),
        (2 * _TIB, "G", _GIB, 1000**3),
    ):
        if size < limit:
            return f"{size / binary:.2f} {unit}iB ({size / decimal:.2f} {unit}B)"
    return f"{size / _TIB:.2f} TiB ({size / 1000**4:.2f} TB)"


def short_size(size: int) -> str:
    """
    A size rounded to three digits: ``"46.9 MiB"``; below 1 KiB in bytes.

    :param size: bytes
    """
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    value, unit = float(size), 0
    # 1023.5 would round to 1024
    while abs(value) >= 1023.5 and unit < len(units) - 1:
        value, unit = value / _KIB, unit + 1
    digits = 0 if unit == 0 or abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    text = f"{value:.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text} {units[unit]}"


def natural(name: "str | None") -> list["int | str"]:
    """Key that sorts names of devices by their numbers: ``region2`` before ``region10``."""
    parts = re.split(r"(\d+)", name or "")
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]


def plural(count: int, noun: str) -> str:
    """``plural(2, "page")`` is ``"2 pages"``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"


def cut(text: str, columns: int) -> str:
    """A text that fits, its end replaced by dots where it does not."""
    return text if len(text) <= columns else text[: max(columns, 10) - 3] + "..."


def cell(value: Any) -> str:
    """
    One value as a table shows it: ``-`` for unknown, lists joined by commas, text escaped.

    :param value: str, bytes, int, bool, None or a sequence of those.
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (str, bytes)):
        return escape(value) or "-"
    if isinstance(value, Sequence):
        return ",".join(cell(v) for v in value) or "-"
    return escape(str(value))
