# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``help``: commands, keys, the tour; ``WORD?``."""

import inspect
from typing import TYPE_CHECKING, Any

import drgn
from drgn.commands import DEFAULT_COMMAND_NAMESPACE, CommandNotFoundError

from drgn_pmem.errors import NotFound
from drgn_pmem.output.text import escape
from drgn_pmem.shell.failures import did_you_mean
from drgn_pmem.spec import SPECS

if TYPE_CHECKING:
    from drgn_pmem.shell.state import SessionState

__all__ = ("DESCRIPTIONS", "KEYS", "TOPICS", "TOUR", "print_help")

DESCRIPTIONS = {
    "help": "commands; help COMMAND, help shell, help tour",
    "exit": "leave (also Ctrl-D)",
    "quit": "leave",
    "\\q": "leave",
    "\\?": "the same as help",
    "\\timing": "show how long each input takes: \\timing [on|off]",
    "\\x": "records field by field: \\x [on|off|auto]",
    "\\debug": "traceback of the last failure",
    "\\log": "log inputs and answers as Markdown: \\log FILE.md; \\log ends it",
    "\\symbols": "load debug info from files, as -s does",
    "\\f": "run a favourite: \\f NAME [WORD ...]; \\f lists them",
    "\\fs": "save a favourite: \\fs NAME LINE, with $1 ... $9 and $* for words of \\f",
    "\\fd": "delete a favourite: \\fd NAME",
}
"""The shell's own commands and their help."""

TOPICS = {
    "shell": "pipes, files, favourites, the log",
    "keys": "keys of the prompt",
    "tour": "a tour of the dump",
    "legend": "the characters of the bars in LAYOUT and MAP",
}

KEYS = (
    ("Tab", "complete; the menu shows what each word means"),
    ("Right, Ctrl-E", "take the grey suggestion from the history"),
    ("Up, Down, Ctrl-R", "history; search it"),
    ("Enter", "run; a new line inside unfinished Python"),
    ("Alt-Enter", "a new line anywhere"),
    ("F1", "help for the command on the line"),
    ("F2", "Emacs or Vi keys"),
    ("F3", "completion while typing on or off"),
    ("F4", "all warnings and findings; the bar shows the worst"),
    ("Ctrl-X Ctrl-E, Vi: v", "edit the line in $EDITOR"),
    ("Ctrl-C", "stop the running command; at the prompt, clear the line"),
    ("Ctrl-D", "leave"),
)

_SHELL = """\
A line is a command (pmem-list, %pmem-list), or Python with drgn's names and prog.

  COMMAND | grep WORD     into a program of this machine
  COMMAND > FILE          into a file (>> adds)
  COMMAND?, ?COMMAND      help with examples (also COMMAND -h)
  EXPRESSION?             what a Python object is
  !ls                     a program of this machine
  _                       the last answer: of a command, its records
  for n in _: print(n.dev, n.uuid)
"""

TOUR = (
    (
        "The persistent memory of the machine, as `ndctl list` shows it:",
        "pmem-list -RN -u",
    ),
    (
        "The same namespaces with where their struct pages are, and how much of them was saved.",
        "pmem-namespaces",
    ),
    (
        "Every source of where the struct pages are, side by side, and whether they agree:",
        "pmem-memmap",
    ),
    ("What the dump holds of each namespace, and what to change to get more:", "pmem-coverage"),
    ("Memory failures: which namespace, file, offset and processes they hit:", "pmem-poison"),
    ("DAX files, with their pages, and who maps them:", "pmem-files"),
    ("An answer is also records, for Python:", "_"),
    ("How to get the same records in a script:", "pmem-list --drgn"),
)
"""(what, line) of ``help tour``; every line runs on the sample."""


def print_help(session: "SessionState", words: str) -> None:
    """
    Print help about a word; without one, the overview.

    :raises NotFound: if there is nothing of this name
    """
    name = words.split()[0] if words.split() else ""
    topics = {"": _overview, "shell": _shell, "keys": _keys, "tour": _tour, "legend": _legend}
    name = name.removeprefix("%")
    if name in topics:
        print(topics[name]())
    elif name in SPECS:
        print(SPECS[name].parser().format_help().rstrip())
    else:
        print(_about_other(session, name, words))


def _overview() -> str:
    width = max(map(len, SPECS), default=0)
    lines = [f"  {name:<{width}}  {spec.description}" for name, spec in sorted(SPECS.items())]
    return "\n".join(
        [
            "Commands (with or without %):",
            *lines,
            "",
            "help COMMAND explains one, with examples. help tour shows them in use.",
            "help shell: pipes, files, favourites, the log. help keys: keys.",
            "Everything else is Python with drgn's names. prog is the dump; help(drgn) explains.",
        ]
    )


def _shell() -> str:

    return _SHELL + "\n" + "\n".join(f"  {name:<9} {text}" for name, text in DESCRIPTIONS.items())


def _keys() -> str:
    return "\n".join(f"  {key:<21} {text}" for key, text in KEYS)


def _legend() -> str:
    from drgn_pmem.output.bars import legend, use_ascii

    return f"Bars show a namespace front to end.\n{legend(use_ascii())}"


def _tour() -> str:
    known = [
        (text, line) for text, line in TOUR if line.split()[0] in SPECS or line.startswith("_")
    ]
    return "\n\n".join(
        ["A tour of this dump; type each line, or select it with Tab and the arrow keys."]
        + [f"{number}. {text}\n     {line}" for number, (text, line) in enumerate(known, 1)]
    )


def _about_other(session: "SessionState", name: str, expression: str) -> str:
    try:
        return DEFAULT_COMMAND_NAMESPACE.lookup(session.prog, name).format_help().rstrip()
    except CommandNotFoundError:
        pass
    session.python.add_all()
    try:
        value = eval(expression, session.python.names)
    except Exception:
        near = did_you_mean(name, [*SPECS, *TOPICS])
        raise NotFound(f"no help about '{escape(expression)}'{near or ' (see help)'}") from None
    return _about_value(expression, value)


def _about_value(expression: str, value: Any) -> str:
    if isinstance(value, drgn.Object):
        return f"{expression}: {value.type_.type_name()}\n\n{value.type_}"
    try:
        signature = str(inspect.signature(value))
    except (TypeError, ValueError):
        signature = f": {type(value).__name__}"
    return f"{expression}{signature}\n\n{inspect.getdoc(value) or 'no description'}"
