# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What a line at the prompt is: a command, one of the shell's own commands, or Python. Decided here
only, so that running, completing and colouring a line agree.
"""

from collections.abc import Callable, Collection, Sequence
import enum
import re
from typing import NamedTuple

__all__ = ("Kind", "Line", "Names", "read_line", "split_text")


class Kind(enum.Enum):
    """What a line is."""

    EMPTY = "empty"
    COMMAND = "command"
    """One of ours: ``pmem-list -v``, ``%pmem-list -v``."""
    OTHER = "other"
    """One of drgn's or of another plugin: ``%crash kmem -i``, ``crash kmem -i``."""
    BUILTIN = "builtin"
    """The shell's own: ``help``, ``exit``, ``\\timing``."""
    SYSTEM = "system"
    """``!ls``: for sh."""
    QUESTION = "question"
    """``WORDS?``, ``?WORDS``: help about the words."""
    PYTHON = "python"


class Line(NamedTuple):
    """A line and what it is."""

    kind: Kind
    name: str
    """Command or builtin; empty for Python."""
    rest: str
    """What follows the name; the whole text for Python."""


class Names(NamedTuple):
    """The names that can begin a line."""

    commands: Collection[str]
    others: Collection[str]
    builtins: Collection[str]
    variables: Collection[str] = ()
    """Python's global variables: they win over commands whose name is an identifier."""


_FIRST = re.compile(
    r"\s*(?P<mark>%?)(?P<name>[^\s|<>&;()\[\]{}\"'`#,=%?]+)(?P<after>.?)", re.DOTALL
)

_OPERATOR = re.compile(
    r"\s*(=|\.|\(|\[|,|:|[-+*/@%&^]=|(?:in|is|if|and|or|not)\b|[*/%@^]|<<|==|!=)"
)


def read_line(text: str, names: Names) -> Line:
    """Classify a text at the prompt."""
    stripped = text.strip()
    if not stripped:
        return Line(Kind.EMPTY, "", "")
    if stripped.startswith("\\"):
        name, _, rest = stripped.partition(" ")
        return Line(Kind.BUILTIN, name, rest.strip())
    if stripped.startswith("!"):
        return Line(Kind.SYSTEM, "!", stripped[1:].strip())
    if "\n" in stripped:
        return Line(Kind.PYTHON, "", text)
    # No Python begins with a question mark.
    if stripped.startswith("?") or (stripped.endswith("?") and not stripped.startswith("#")):
        return Line(Kind.QUESTION, "?", stripped.strip("?").strip())
    match = _FIRST.match(text)
    if match is None:
        return Line(Kind.PYTHON, "", text)
    name, rest = match["name"], text[match.end("name") :].strip()
    marked = bool(match["mark"])
    if marked or _starts_command(name, text[match.end("name") :], names):
        for kind, known in (
            (Kind.COMMAND, names.commands),
            (Kind.BUILTIN, names.builtins),
            (Kind.OTHER, names.others),
        ):
            if name in known:
                return Line(kind, name, rest)
        if marked:
            return Line(Kind.OTHER, name, rest)
    return Line(Kind.PYTHON, "", text)


def _starts_command(name: str, rest: str, names: Names) -> bool:
    """
    Whether a line that begins with a command's name means the command. ``pmem-list`` always does;
    ``fadump`` may be a Python variable, too.
    """
    if not name.isidentifier():
        return True
    if rest and not rest[0].isspace() and rest[0] not in "|<>":
        return False
    return name not in names.variables and not _OPERATOR.match(rest)


def split_text(text: str, names: Names, is_complete: Callable[[str], bool]) -> list[str]:
    """
    Text of several lines (pasted, standard input, ``-e``) as the inputs that typing it would have
    been: commands line by line, the Python between them block by block.

    :param is_complete: Tells whether Python source can be run as it is.
    """
    inputs: list[str] = []
    block: list[str] = []

    def flush() -> None:
        if any(line.strip() for line in block):
            inputs.append("\n".join(block))
        block.clear()

    for line in text.splitlines():
        # A line that looks like a command inside a string or an open bracket is none.
        outside = not any(part.strip() for part in block) or is_complete("\n".join(block) + "\n")
        if outside and line[:1].strip() and read_line(line, names).kind is not Kind.PYTHON:
            flush()
            inputs.append(line)
        else:
            block.append(line)
    flush()
    return inputs


def words_before(text: str) -> Sequence[str]:
    """The words of an unfinished command line; quotes may be open."""
    import shlex

    for closing in ("", '"', "'"):
        try:
            return shlex.split(text + closing)
        except ValueError:
            continue
    return text.split()
