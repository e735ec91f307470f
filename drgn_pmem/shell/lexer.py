# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Colours of what is typed: commands by their specs, the rest as Python."""

import builtins
from collections.abc import Callable
import keyword
import re

from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.styles import Style

from drgn_pmem.shell.words import Kind, Names, read_line
from drgn_pmem.spec import SPECS

__all__ = ("STYLE", "ShellLexer")

# The terminal's own sixteen colours: they fit its background.
STYLE = Style.from_dict(
    {
        "prompt": "ansigreen",
        "command": "ansiblue bold",
        "unknown": "ansired",
        "option": "ansicyan",
        "keyword": "ansimagenta",
        "builtin": "ansicyan",
        "string": "ansigreen",
        "number": "ansiyellow",
        "comment": "ansibrightblack",
        "operator": "",
        "system": "ansimagenta",
        "bottom-toolbar": "noreverse bg:ansibrightblack ansiwhite",
        "bottom-toolbar.warning": "noreverse bg:ansiyellow ansiblack",
        "bottom-toolbar.key": "bold",
    }
)

_PYTHON = re.compile(
    r"""
    (?P<comment>\#[^\n]*)
  | (?P<string>[rRbBfFuU]{0,2}(?:
        \"\"\"(?:[^\\]|\\.)*?(?:\"\"\"|\Z) | '''(?:[^\\]|\\.)*?(?:'''|\Z)
      | "(?:[^"\\\n]|\\.)*(?:"|$) | '(?:[^'\\\n]|\\.)*(?:'|$)))
  | (?P<number>\b(?:0[xX][\da-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|\d[\d_]*(?:\.\d*)?(?:[eE][-+]?\d+)?))
  | (?P<name>[^\W\d]\w*)
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)

_COMMAND = re.compile(
    r"""
    (?P<system>\|.*)
  | (?P<operator>\d?>{1,2}|<)
  | (?P<string>"(?:[^"\\]|\\.)*(?:"|$) | '[^']*(?:'|$))
  | (?P<option>(?<!\S)--?[A-Za-z][\w-]*)
  | (?P<number>(?<!\S)(?:0[xX][\da-fA-F]+|\d+)(?!\S))
    """,
    re.VERBOSE,
)


class ShellLexer(Lexer):
    """:param names: Gives what can begin a line now."""

    def __init__(self, names: Callable[[], Names]) -> None:
        self._names = names

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        fragments = self._lex(document.text)
        lines: list[StyleAndTextTuples] = [[]]
        for style, text, *_ in fragments:
            for number, part in enumerate(text.split("\n")):
                if number:
                    lines.append([])
                if part:
                    lines[-1].append((style, part))

        def get_line(number: int) -> StyleAndTextTuples:
            return lines[number] if number < len(lines) else []

        return get_line

    def _lex(self, text: str) -> StyleAndTextTuples:
        line = read_line(text, self._names())
        if line.kind in (Kind.PYTHON, Kind.EMPTY):
            return _python(text)
        if line.kind is Kind.SYSTEM:
            return [("class:system", text)]
        start = text.find(line.name) + len(line.name)
        if line.kind is Kind.QUESTION:
            first = (text.replace("?", " ").split() or ["?"])[0]
            start = text.find(first) + len(first)
        style = "class:command"
        names = self._names()
        if line.kind is Kind.OTHER and line.name not in names.others:
            style = "class:unknown"
        if line.kind is Kind.BUILTIN and line.name not in names.builtins:
            style = "class:unknown"
        rest = text[start:]
        if line.kind is Kind.COMMAND:
            return [(style, text[:start]), *_command(rest, _options(line.name))]
        return [(style, text[:start]), *_command(rest, None)]


def _options(name: str) -> set[str]:
    return {n for a in SPECS[name].all_arguments() if a.is_option for n in a.names}


def _command(text: str, options: "set[str] | None") -> StyleAndTextTuples:
    fragments: StyleAndTextTuples = []
    end = 0
    for match in _COMMAND.finditer(text):
        fragments.append(("", text[end : match.start()]))
        style = match.lastgroup or ""
        if style == "option" and options is not None and not _is_option(match.group(), options):
            style = "unknown"
        fragments.append((f"class:{style}", match.group()))
        end = match.end()
    return [*fragments, ("", text[end:])]


def _is_option(word: str, options: set[str]) -> bool:
    """``-vv`` and ``-BDRNX`` are several options in one word; an unfinished word is none yet."""
    if word in options or any(option.startswith(word) for option in options):
        return True
    return not word.startswith("--") and all(f"-{letter}" in options for letter in word[1:])


def _python(text: str) -> StyleAndTextTuples:
    fragments: StyleAndTextTuples = []
    end = 0
    for match in _PYTHON.finditer(text):
        fragments.append(("", text[end : match.start()]))
        kind, word = match.lastgroup, match.group()
        if kind == "name":
            if keyword.iskeyword(word):
                style = "class:keyword"
            elif hasattr(builtins, word):
                style = "class:builtin"
            else:
                style = ""
        else:
            style = f"class:{kind}"
        fragments.append((style, word))
        end = match.end()
    return [*fragments, ("", text[end:])]
