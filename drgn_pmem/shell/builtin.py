# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The shell's own commands: ``help``, ``exit`` and those that begin with a backslash."""

from collections.abc import Callable
from pathlib import Path
import shlex
from typing import TYPE_CHECKING

from drgn_pmem.errors import NotFound, PmemError, UsageError
from drgn_pmem.output.text import escape
from drgn_pmem.shell.failures import Leave
from drgn_pmem.shell.help import print_help
from drgn_pmem.shell.journal import Journal

if TYPE_CHECKING:
    from drgn_pmem.shell.state import SessionState

__all__ = ("BUILTINS",)


def _help(session: "SessionState", rest: str) -> None:
    print_help(session, rest)


def _leave(session: "SessionState", rest: str) -> None:
    raise Leave(0)


def _timing(session: "SessionState", rest: str) -> None:
    session.timing = _switch(rest, session.timing, "\\timing")
    print(f"timing is {'on' if session.timing else 'off'}")


def _switch(word: str, now: bool, name: str) -> bool:
    try:
        return {"": not now, "on": True, "off": False}[word.lower()]
    except KeyError:
        raise UsageError(f"{name} takes on or off, not {word!r}") from None


_EXPANDED = {"on": True, "off": False, "auto": None}
_SHOWN = {
    True: "records are shown field by field",
    False: "records are shown as tables",
    None: "records are shown as tables, or field by field where one is too wide for the terminal",
}


def _expand(session: "SessionState", rest: str) -> None:
    word = rest.lower()
    if not word:
        # As psql's: a switch between field by field and what it was.
        session.expanded = None if session.expanded else True
    elif word in _EXPANDED:
        session.expanded = _EXPANDED[word]
    else:
        raise UsageError(f"\\x takes on, off or auto, not {rest!r}")
    print(_SHOWN[session.expanded])


def _debug(session: "SessionState", rest: str) -> None:
    text = session.traceback()
    if not text:
        raise NotFound("nothing has failed in this session")
    print(text, end="")


def _log(session: "SessionState", rest: str) -> None:
    output = session.output
    if rest in ("", "off"):
        if output.journal is None:
            raise UsageError("this session is not logged; \\log FILE.md begins")
        path = output.journal.path
        output.stop_journal()
        print(f"log ends: {path}")
        return
    path = Path(rest).expanduser()
    try:
        journal = Journal(path, session.target.name)
    except OSError as error:
        raise PmemError(f"\\log {path}: {error.strerror}") from error
    output.stop_journal()
    output.journal = journal
    print(f"log: {path} (\\log ends it)")


def _symbols(session: "SessionState", rest: str) -> None:
    try:
        paths = shlex.split(rest)
    except ValueError as error:
        raise UsageError(f"\\symbols: {error}") from error
    if not paths:
        raise UsageError("\\symbols takes files with debug info: a vmlinux, modules")
    session.load_symbols([str(Path(path).expanduser()) for path in paths])
    print(escape(session.target.missing) or "all debug info is loaded")


def _favourite(session: "SessionState", rest: str) -> None:
    favourites = session.favourites
    name, _, arguments = rest.partition(" ")
    if not name:
        for known, line in favourites.all().items():
            print(f"{known}: {line}")
        if not favourites.all():
            print("no favourites; \\fs NAME LINE saves one")
        return
    line = favourites.expand(name, arguments)
    print(f">>> {line}")
    session.run_nested(line)


def _favourite_save(session: "SessionState", rest: str) -> None:
    name, _, line = rest.partition(" ")
    session.favourites.save(name, line.strip())
    print(f"saved: \\f {name}")


def _favourite_delete(session: "SessionState", rest: str) -> None:
    session.favourites.delete(rest)
    print(f"deleted: {rest}")


BUILTINS: dict[str, Callable[["SessionState", str], None]] = {
    "help": _help,
    "exit": _leave,
    "quit": _leave,
    "\\q": _leave,
    "\\?": _help,
    "\\timing": _timing,
    "\\x": _expand,
    "\\debug": _debug,
    "\\log": _log,
    "\\symbols": _symbols,
    "\\f": _favourite,
    "\\fs": _favourite_save,
    "\\fd": _favourite_delete,
}
