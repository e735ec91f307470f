# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Arguments of commands
---------------------

How a command declares its arguments, and how the words that a user types are parsed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from drgn_pmem.errors import UsageError

__all__ = ("COMMON", "LIST", "Argument", "Parser", "entries", "join_descending")


class Argument:
    """
    One argument of a command.

    :param names: As for :meth:`argparse.ArgumentParser.add_argument`.
    :param kind: What the value names, for completion: ``"namespace"``, ``"region"``, ``"bus"``,
        ``"dimm"``, ``"daxdev"``, ``"blockdev"``, ``"page"`` (PFN, physical address, struct page
        address, namespace+offset, device:sector), ``"path"`` (DAX file), ``"pid"``, ``"field"``,
        ``"where"`` (a condition on fields),
        ``"file"`` (on this machine), or None for free text and flags.
    :param help: One line.
    :param options: The rest of what ``add_argument`` takes.
    """

    def __init__(self, *names: str, help: str, kind: str | None = None, **options: Any) -> None:
        self.names = names
        self.kind = kind
        self.help = help
        self.options = options

    @property
    def is_option(self) -> bool:
        return self.names[0].startswith("-")

    @property
    def takes_value(self) -> bool:
        action = self.options.get("action", "store")
        return action in ("store", "append", "extend") and self.options.get("nargs") != 0


LIST = (
    Argument("-o", "--fields", kind="field", metavar="FIELDS",
             help="show these fields, comma-separated; +FIELD adds to the default ones"),
    Argument("-s", "--sort", kind="field", metavar="FIELD",
             help="sort by a field; -FIELD for descending"),
    Argument("--where", kind="where", metavar="CONDITION",
             help="only rows that match, as 'refcount > 1 and namespace = namespace0.0'; "
             "operators: = != < <= > >= ~ (contains) !~"),
    Argument("-H", "--no-header", action="store_true", help="no header, tabs between values"),
    Argument("--csv", action="store_true",
             help="comma-separated values; items of a list are separated by ;"),
    Argument("--bytes", action="store_true",
             help="sizes in bytes, as they are where the output is not a terminal"),
    Argument("--limit", type=int, metavar="N", help="show the first N rows only"),
)  # fmt: skip
"""Arguments of every command that lists records."""

COMMON = (
    Argument(
        "--json",
        action="store_true",
        help="print JSON; --json=full: an object with the answer, its notes and what it lacks",
    ),
    Argument("--drgn", action="store_true", help="print Python code that gives the same answer"),
    Argument("-h", "--help", action="store_true", help="show this help"),
)
"""Arguments of every command."""


_OF_TABLES = {"fields": "-o", "sort": "-s", "no_header": "-H", "csv": "--csv", "bytes": "--bytes"}


class Parser(argparse.ArgumentParser):
    """The parser of a command's words."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} (see {self.prog} -h)")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """:raises UsageError: also for options of tables beside ``--json``, which would have no
        effect"""
        parsed = super().parse_args(args, namespace)
        given = [
            option
            for name, option in _OF_TABLES.items()
            if getattr(parsed, name, None) not in (None, False)
        ]
        if given and getattr(parsed, "json", False):
            raise UsageError(
                f"{self.prog}: {', '.join(given)} {'has' if len(given) == 1 else 'have'} no effect "
                "on --json, which has every field; give one or the other"
            )
        return parsed


def join_descending(words: Sequence[str]) -> list[str]:
    """``-s -size`` as ``-s-size``: argparse would take ``-size`` for an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("-s", "--sort") and word.startswith("-"):
            joined[-1] = f"-s{word}"
        else:
            joined.append(word)
    return joined


def entries(rows: Sequence[tuple[str, str]]) -> str:
    """Names and what they mean in two columns, in the width in which argparse shows the options."""
    import shutil  # on use: only -h needs them
    import textwrap

    columns = shutil.get_terminal_size().columns - 2
    indent = max(len(name) for name, _ in rows) + 4
    return "\n".join(
        textwrap.fill(
            text,
            max(columns, indent + 20),
            initial_indent=f"  {name}".ljust(indent),
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
        )
        for name, text in rows
    )
