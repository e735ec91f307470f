# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Completion: commands, their options and values from the specs; Python names and members."""

from collections.abc import Callable, Iterable, Iterator
import os
import re

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from drgn_pmem.shell.candidates import Candidates
from drgn_pmem.shell.help import DESCRIPTIONS, TOPICS
from drgn_pmem.shell.pythoncompletion import PythonCompleter
from drgn_pmem.shell.session import Session
from drgn_pmem.shell.words import Kind, Names, read_line, words_before
from drgn_pmem.spec import SPECS, Argument, Spec

__all__ = ("ShellCompleter",)

_FIRST_WORD = re.compile(r"\s*\??\s*[%\\!]?[\w?-]*")
_FORMS = {
    "pfn:": "a PFN",
    "phys:": "a physical address",
}
_SPECIAL = set(" \t\"'\\|<>&;()#$*?")


class ShellCompleter(Completer):
    """
    Completion of a line of the shell. Runs on the main thread, for each key; it only looks up known
    values.
    """

    def __init__(self, session: Session, candidates: Candidates) -> None:
        self._session = session
        self._candidates = candidates
        self._python = PythonCompleter(
            session.python.names, {"symbol": candidates.symbols, "type": candidates.types}
        )
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        text = document.text_before_cursor
        names = self._session.names()
        if "\n" not in text:
            if _FIRST_WORD.fullmatch(text):
                yield from self._first_word(text.strip().lstrip("? "), names)
                return
            line = read_line(text, names)
            if line.kind is not Kind.PYTHON:
                yield from self._arguments(text, line.kind, line.name)
                return
        yield from self._python.get_completions(document, complete_event)

    def _first_word(self, word: str, names: Names) -> Iterator[Completion]:
        bare = word.removeprefix("%")
        if word.startswith("!"):
            return
        if word and not word.startswith("\\"):
            # pmem-namespaces is also found by "namespaces".
            groups: tuple[list[str], list[str]] = ([], [])
            for name in sorted(names.commands):
                if name.startswith(bare):
                    groups[0].append(name)
                elif f"-{bare}" in name:
                    groups[1].append(name)
            for name in groups[0] + groups[1]:
                yield _completion(name, bare, SPECS[name].description)
        for name in names.builtins:
            if word and name.startswith(word):
                yield _completion(name, word, DESCRIPTIONS[name])
        if word.startswith("%"):
            for name in sorted(names.others):
                if name.startswith(bare) and name not in names.commands:
                    yield _completion(name, bare, "command of drgn or of another plugin")
        elif word and not word.startswith("\\"):
            yield from self._python.names(word)

    def _arguments(self, text: str, kind: Kind, name: str) -> Iterator[Completion]:
        before, _, redirected = text.rpartition(">")
        if before and "|" not in redirected:
            yield from self._path(redirected.lstrip())
            return
        if "|" in text:
            return
        words = list(words_before(text))
        current = "" if text[-1:].isspace() else words.pop()
        if kind is Kind.COMMAND:
            yield from self._command_arguments(SPECS[name], words[1:], current)
        elif kind is Kind.BUILTIN:
            yield from self._builtin_arguments(name, words[1:], current)

    def _builtin_arguments(self, name: str, words: list[str], current: str) -> Iterator[Completion]:
        offers: dict[str, str] = {}
        if name in ("help", "\\?") and not words:
            offers = {**TOPICS, **{spec: SPECS[spec].description for spec in sorted(SPECS)}}
        elif name in ("\\f", "\\fd") and not words:
            offers = self._session.favourites.all()
        elif name == "\\timing" and not words:
            offers = {"on": "", "off": ""}
        elif name == "\\x" and not words:
            offers = {
                "on": "field by field",
                "off": "as tables",
                "auto": "a record that is too wide, field by field",
            }
        elif name in ("\\log", "\\symbols"):
            yield from self._path(current)
        elif name == "\\fs" and words:
            yield from self._first_word(current, self._session.names()) if len(words) == 1 else ()
        yield from _matching(offers, current)

    def _command_arguments(
        self, spec: Spec, words: list[str], current: str
    ) -> Iterator[Completion]:
        arguments = spec.all_arguments()
        options = {name: a for a in arguments if a.is_option for name in a.names}
        before = options.get(words[-1]) if words else None
        if before is not None and before.takes_value:
            yield from self._values(spec, before, current)
        elif current.startswith("-"):
            used = {id(options[word]) for word in words if word in options}
            for argument in arguments:
                if argument.is_option and (
                    id(argument) not in used
                    or argument.options.get("action") in ("append", "extend", "count")
                ):
                    name = _option_name(argument, current)
                    if name is not None:
                        metavar = f" {argument.options.get('metavar', '')}".rstrip()
                        yield _completion(name, current, argument.help, name + metavar)
        else:
            positional = _positional(arguments, words, options)
            if positional is not None:
                yield from self._values(spec, positional, current)

    def _values(self, spec: Spec, argument: Argument, current: str) -> Iterator[Completion]:
        choices = argument.options.get("choices")
        if choices is not None:
            yield from _matching({str(choice): "" for choice in choices}, current)
        elif argument.kind == "field":
            yield from _fields(spec, argument, current)
        elif argument.kind == "where":
            yield from _conditions(spec, current)
        elif argument.kind == "file":
            yield from self._path(current)
        elif argument.kind == "page":
            yield from _matching(self._candidates.get("page"), current, ranked=True)
            # A page can be named by its offset in a namespace or a file, or by a sector.
            for kind, separator in (("namespace", "+"), ("path", ":"), ("blockdev", ":")):
                yield from _matching(self._candidates.get(kind), current, separator)
            if ":" in current:
                yield from _matching(self._candidates.get("sector"), current, ranked=True)
            yield from self._forced_pages(current)
        elif argument.kind is not None:
            yield from _matching(self._candidates.get(argument.kind), current)

    def _forced_pages(self, current: str) -> Iterator[Completion]:
        """``pfn:`` and ``phys:``, and after ``pfn:`` the known PFNs."""
        if current.startswith("pfn:"):
            pages = {f"pfn:{page}": what for page, what in self._candidates.get("page").items()}
            yield from _matching(pages, current, ranked=True)
        else:
            yield from _matching(_FORMS, current)

    def _path(self, current: str) -> Iterator[Completion]:
        for found in self._paths.get_completions(
            Document(current, len(current)), CompleteEvent(completion_requested=True)
        ):
            is_folder = os.path.isdir(os.path.expanduser(current + found.text))
            yield Completion(
                found.text + ("/" if is_folder else ""),
                start_position=found.start_position,
                display=found.display,
            )


def _completion(
    text: str, typed: str, description: str | Callable[[], str] = "", display: str | None = None
) -> Completion:
    meta = description if isinstance(description, str) else description()
    return Completion(
        _quote(text), start_position=-len(typed), display=display or text, display_meta=meta
    )


def _quote(word: str) -> str:
    """A word as it must be typed."""
    if not _SPECIAL.intersection(word) or word.startswith("\\"):
        return word
    return "'" + word.replace("'", "'\"'\"'") + "'"


def _matching(
    offers: dict[str, str], current: str, suffix: str = "", *, ranked: bool = False
) -> Iterator[Completion]:
    """
    Offers that begin with what was typed, then those that contain it.

    :param ranked: The offers are in the order in which they are wanted.
    """
    first = [value for value in offers if value.startswith(current)]
    others = [value for value in offers if current and current in value and value not in first]
    for value in first + others if ranked else sorted(first) + sorted(others):
        yield _completion(value + suffix, current, offers[value])


def _option_name(argument: Argument, current: str) -> str | None:
    """The option name that completes what was typed, the long one if there is a choice."""
    for name in sorted(argument.names, key=len, reverse=True):
        if name.startswith(current):
            return name
    return None


def _positional(
    arguments: Iterable[Argument], words: list[str], options: dict[str, Argument]
) -> Argument | None:
    """The positional argument that the next word is."""
    count = 0
    value_follows = False
    for word in words:
        if value_follows:
            value_follows = False
        elif word in options:
            value_follows = options[word].takes_value
        elif not word.startswith("-"):
            count += 1
    positionals = [argument for argument in arguments if not argument.is_option]
    for argument in positionals:
        if argument.options.get("nargs") in ("*", "+") or count == 0:
            return argument
        count -= 1
    return None


def _fields(spec: Spec, argument: Argument, current: str) -> Iterator[Completion]:
    """Fields for ``-o a,b`` and ``-s -a``."""
    several = "--fields" in argument.names
    done, comma, last = current.rpartition(",") if several else ("", "", current)
    sign = last[:1] if last[:1] in ("+", "-") and not comma else ""
    chosen = set(done.lstrip("+").lower().split(","))
    if several and current.startswith("+"):
        # Added to those that are shown by default.
        chosen |= {field.name.lower() for field in spec.fields if field.shown}
    for field in spec.fields:
        name = field.name.lower()
        if name.startswith(last[len(sign) :].lower()) and name not in chosen:
            yield Completion(
                name,
                start_position=-(len(last) - len(sign)),
                display=name,
                display_meta=field.help,
            )


def _conditions(spec: Spec, current: str) -> Iterator[Completion]:
    """Fields for ``--where 'a > 1 and b``; the quote is open, so that nothing is quoted again."""
    last = re.split(r"\band\s+", current)[-1]
    if re.fullmatch(r"\w*", last):
        for field in spec.fields:
            name = field.name.lower()
            if name.startswith(last.lower()):
                yield Completion(name, -len(last), display_meta=field.help)
