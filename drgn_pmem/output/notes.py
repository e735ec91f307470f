# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Notes of tables
---------------

Notes that differ only in the namespace, or only in PFNs and addresses, become one line. JSON has
each of them. In a file or pipe they follow the text.
"""

from collections.abc import Sequence
import os
import re
import stat
from typing import TextIO

from drgn_pmem.output.text import natural

__all__ = ("merged", "of_dashes", "with_notes")

_NAMESPACE = re.compile(r"\bnamespace\d+\.\d+\b")
_HEX = re.compile(r"\b0x[0-9a-f]+\b")
_FEW = 2
"""Lines with different numbers that stay as they are."""
_MOST = 12
"""Names listed at most."""


def merged(lines: Sequence[str]) -> list[str]:
    """Lines of which some stand for several, in the order in which each first occurs."""
    groups: dict[str, list[str]] = {}
    for line in dict.fromkeys(lines):
        groups.setdefault(_pattern(line), []).append(line)
    done = []
    for group in groups.values():
        names = [_NAMESPACE.findall(line) for line in group]
        if len(group) > 1 and all(names) and not _HEX.search(group[0]):
            pairs = sorted(zip(names, group, strict=True), key=lambda pair: natural(pair[0][0]))
            done.append(_of_namespaces(pairs[0][1], [each[0] for each, _ in pairs]))
        elif len(group) > _FEW and not any(names):
            numbers = [_HEX.findall(line)[0] for line in group[1:]]
            done.append(f"{group[0]} (and {len(numbers)} more: {_listed(numbers)})")
        else:
            done += group
    return done


_DASH = re.compile(r"(?<!\S)-(?!\S)")


def of_dashes(text: str) -> list[str]:
    """
    What a dash in tables of an incomplete answer may be: records have None for both.

    :param text: The tables.
    """
    return ['"-" is none, or not known: this answer is not complete'] * bool(_DASH.search(text))


def with_notes(
    text: str, notes: list[str], stream: TextIO, complete: bool
) -> tuple[str, list[str]]:
    """
    A text that goes into a file or a pipe of the user's, with its notes.

    :param stream: The file or pipe.
    :param complete: Whether the answer is.
    :return: The text, and the notes for standard error. What a pipe ends in may be the terminal
        itself, where every note would be seen twice, or a filter that drops them.
    """
    text = "\n".join(filter(None, (text, *(f"note: {note}" for note in notes))))
    if not notes or not _is_pipe(stream):
        return text, notes
    return text, [] if complete else ["incomplete: the notes at the end of the answer say why"]


def _is_pipe(stream: TextIO) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):
        # not a problem: a stream of a notebook or script
        return False


def _pattern(line: str) -> str:
    """What is the same in lines that become one."""
    names = set(_NAMESPACE.findall(line))
    if len(names) == 1:
        # Only one name may differ: two of them may stand for different things.
        return _NAMESPACE.sub("\0", line)
    return line if names else _HEX.sub("\1", line)


def _of_namespaces(line: str, names: Sequence[str]) -> str:
    listed = _listed([names[0], *(name.removeprefix("namespace") for name in names[1:])])
    head = f"{names[0]}: "
    if line.startswith(head) and names[0] not in line[len(head) :]:
        return f"{len(names)} namespaces: {line[len(head) :]} ({listed})"
    others = _listed(names[1:])
    return f"{line} (the same of {others})"


def _listed(names: Sequence[str]) -> str:
    more = ["..."] if len(names) > _MOST else []
    return ", ".join([*names[:_MOST], *more])
