# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
JSON
----

Records as JSON. The keys are a contract: ndctl's and daxctl's where they have one, ours elsewhere;
see docs/json.md.
"""

from collections.abc import Iterable
import json
from typing import Any

from drgn_pmem.output.text import escape, human_size
from drgn_pmem.partial import Problem

__all__ = ("dumps", "envelope", "humanize", "to_json")

_VERSION = 1
"""Of the envelope: rises if a key of it changes its meaning."""

_SIZE_KEYS = frozenset(("size", "available_size", "max_available_extent"))
"""Keys whose value ``ndctl list -u`` prints as a size."""

_PLAIN = frozenset((str, int, bool, float))

_HEX_KEYS = frozenset(("handle", "phys_id", "iset_id", "offset", "length"))
"""Keys whose value ``ndctl list -u`` prints in hexadecimal."""


def to_json(record: Any) -> Any:
    """The JSON value of a record: its ``to_json()``, applied through lists and dicts."""
    if record is None or type(record) in _PLAIN:
        return record
    if hasattr(record, "to_json"):
        record = record.to_json()
    if isinstance(record, dict):
        return {key: to_json(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_json(value) for value in record]
    if isinstance(record, bytes):
        return escape(record)
    return record


def humanize(value: Any, key: str = "") -> Any:
    """
    JSON with human-readable sizes and ids, as ``ndctl list -u``. ``dump`` objects, which ndctl does
    not have, stay as they are.
    """
    if key == "badblocks":
        return value  # sectors stay numbers
    if isinstance(value, dict):
        # ndctl prints the alignment of a region and of a DAX device as a size, that of a namespace
        # (which may name its character device, too) and of a DAX region as a number.
        as_size = "available_size" in value or ("chardev" in value and "dev" not in value)
        return {
            k: v if k == "dump" else humanize(v, "size" if as_size and k == "align" else k)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [humanize(v, key) for v in value]
    if isinstance(value, int) and not isinstance(value, bool):
        if key in _SIZE_KEYS:
            text = human_size(value)
            return value if text == str(value) else text
        if key in _HEX_KEYS:
            return f"{value:#x}" if value else "0"  # C's %#x prints no prefix for zero
    return value


def envelope(
    command: str, value: Any, notes: Iterable[str], problems: Iterable[Problem], complete: bool
) -> dict[str, Any]:
    """The object of ``--json=full``: an answer, its notes and what it lacks."""
    return {
        "version": _VERSION,
        "command": command,
        "complete": complete,
        "answer": value,
        "notes": list(dict.fromkeys(notes)),
        "problems": [
            {
                "cause": problem.cause.value,
                "what": problem.what or None,
                "why": problem.why,
                "state": problem.state.value if problem.state else None,
                "module": problem.module,
                "degrades": problem.degrades,
                "query": problem.query,
            }
            for problem in problems
        ],
    }


def dumps(value: Any) -> str:
    """JSON text, indented by two as ndctl's. Non-ASCII is escaped, so the text is safe on a
    terminal."""
    if not isinstance(value, list) or not value:
        return json.dumps(value, indent=2, default=str)
    # One by one: with an indent, the library makes a string of every word before it joins them. A
    # newline is never in the middle of one.
    rows = (json.dumps(row, indent=2, default=str).replace("\n", "\n  ") for row in value)
    return "[\n  " + ",\n  ".join(rows) + "\n]"
