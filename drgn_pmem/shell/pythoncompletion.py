# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Completion of Python: names, attributes, members of drgn objects."""

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping
import itertools
import keyword
import re
from typing import Any

import drgn
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

__all__ = ("PythonCompleter",)

_EXPRESSION = re.compile(
    r"""
    (?P<object>                          # no calls: completing must not run code
        [^\W\d]\w*
        (?:\.\w+ | \[(?:-?\d+ | "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*')\])*
    )
    \.(?P<attribute>\w*)$
    """,
    re.VERBOSE,
)
_NAME = re.compile(r"(?<![\w.])[^\W\d]\w*$")
_OBJECT_METHODS = frozenset(dir(drgn.Object))


_TYPE = re.compile(r"(?:struct|union|enum) ")
_QUOTED = re.compile(
    r"""
    (?:
        (?P<symbol>\bprog(?:\[|\.(?:symbol|object|variable|function|constant)\())
      | (?P<call>[(,]\s*)
    )
    (?P<quote>["'])(?P<text>[^"'\\]*)$
    """,
    re.VERBOSE,
)
"""The string that is being typed, of an argument or of ``prog["``."""

_MOST = 1000
"""Offers of symbols and types at most: the menu is for choosing."""


class PythonCompleter(Completer):
    """
    :param names: Global variables.
    :param quoted: What can stand in strings, with descriptions: names of functions and variables
        ("symbol") and of types ("type").
    """

    def __init__(
        self, names: dict[str, Any], quoted: Mapping[str, Callable[[], dict[str, str]]]
    ) -> None:
        self._names = names
        self._quoted = quoted
        self._last: tuple[str, Any] = ("", None)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        text = document.current_line_before_cursor
        inside = _inside(text)
        if inside:
            quoted = _QUOTED.search(text)
            if quoted and inside == quoted["quote"]:
                yield from self._in_string(quoted)
            return
        match = _EXPRESSION.search(text)
        if match:
            yield from self._attributes(match["object"], match["attribute"])
            return
        match = _NAME.search(text)
        if match:
            yield from self.names(match.group())

    def _in_string(self, match: re.Match[str]) -> Iterator[Completion]:
        typed = match["text"]
        kind = "symbol" if match["symbol"] else "type"
        if not typed or (kind == "type" and not _TYPE.match(typed)):
            return
        offers = self._quoted[kind]()
        found = (name for name in offers if name.startswith(typed))
        for name in sorted(itertools.islice(found, _MOST)):
            yield Completion(name, -len(typed), display_meta=offers[name])

    def names(self, word: str) -> Iterator[Completion]:
        """Names that begin with a word: variables, then builtins and keywords."""
        seen = set()
        for scope in (self._names, builtins.__dict__):
            for name in sorted(scope):
                if name.startswith(word) and name not in seen and _is_wanted(name, word):
                    seen.add(name)
                    yield Completion(name, -len(word), display_meta=_lazily(_describe, scope[name]))
        for name in keyword.kwlist:
            if name.startswith(word) and name not in seen:
                yield Completion(name, -len(word), display_meta="keyword")

    def _attributes(self, expression: str, prefix: str) -> Iterator[Completion]:
        # The object of a line stays the same while its attribute is typed.
        if self._last[0] != expression:
            try:
                self._last = (expression, eval(expression, self._names))
            except Exception:
                return  # what was typed has no value yet: nothing is offered
        value = self._last[1]
        try:
            names = dir(value)
        except Exception:
            return  # the user's own __dir__() failed: nothing is offered
        if isinstance(value, drgn.Object):
            # Members of the structure first; they are what is looked for.
            names = [n for n in names if n not in _OBJECT_METHODS] + sorted(_OBJECT_METHODS)
        for name in names:
            if name.startswith(prefix) and _is_wanted(name, prefix):
                yield Completion(
                    name, -len(prefix), display_meta=_lazily(_describe_attribute, value, name)
                )


def _is_wanted(name: str, typed: str) -> bool:
    """Private names only if the word begins with an underscore."""
    if name.startswith("__"):
        return typed.startswith("__")
    return not name.startswith("_") or typed.startswith("_")


def _lazily(function: Callable[..., str], *arguments: Any) -> Callable[[], str]:
    """Only the lines of the menu that are on the screen are described."""

    def describe() -> str:
        try:
            return function(*arguments)
        except Exception:
            return ""  # the menu lacks a description, not the name

    return describe


def _describe(value: Any) -> str:
    if isinstance(value, drgn.Object):
        return str(value.type_.type_name())
    if isinstance(value, type) or callable(value):
        text = (getattr(value, "__doc__", None) or "").strip()
        return text.splitlines()[0] if text else type(value).__name__
    return type(value).__name__


def _describe_attribute(value: Any, name: str) -> str:
    if not isinstance(value, drgn.Object):
        # Not getattr: a property may be slow.
        return _describe(getattr(type(value), name, None)) if hasattr(type(value), name) else ""
    if name in _OBJECT_METHODS:
        return _describe(getattr(drgn.Object, name))
    type_ = value.type_
    while type_.kind in (drgn.TypeKind.TYPEDEF, drgn.TypeKind.POINTER):
        type_ = type_.type
    return str(type_.member(name).type.type_name())


def _inside(text: str) -> str:
    """The quote of a string, or the ``#`` of a comment, that a text ends in; empty if in none."""
    quote = ""
    escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#":
            return "#"
    return quote
