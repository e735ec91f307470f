# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Keys of the prompt."""

from collections.abc import Callable
import re

from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.application.current import get_app
from prompt_toolkit.enums import DEFAULT_BUFFER, EditingMode
from prompt_toolkit.filters import Condition, has_completions, has_focus, has_selection
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from drgn_pmem.shell.session import Session
from drgn_pmem.shell.words import Kind

__all__ = ("Toggles", "key_bindings")

_INDENT = " " * 4


class Toggles:
    """What the function keys switch."""

    def __init__(self, complete_while_typing: bool) -> None:
        self.complete_while_typing = complete_while_typing


def key_bindings(
    session: Session, toggles: Toggles, warnings: Callable[[], list[str]]
) -> KeyBindings:
    """
    Bindings for Enter, Tab and the function keys.

    :param warnings: The lines that F4 shows.
    """
    keys = KeyBindings()
    typing = has_focus(DEFAULT_BUFFER)

    @Condition
    def choosing() -> bool:
        state = get_app().current_buffer.complete_state
        return state is not None and state.current_completion is not None

    @Condition
    def indenting() -> bool:
        document = get_app().current_buffer.document
        return "\n" in document.text and not document.current_line_before_cursor.strip()

    @keys.add("enter", filter=typing & has_completions & choosing)
    def _take(event: KeyPressEvent) -> None:
        # The first Enter accepts the selection of the menu, the next one runs the line.
        event.current_buffer.complete_state = None

    @keys.add("enter", filter=typing & ~choosing)
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_finished(session, buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n" + next_indent(buffer.document.current_line_before_cursor))

    @keys.add("escape", "enter", filter=typing)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("tab", filter=typing & indenting & ~has_selection)
    def _indent(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text(_INDENT)

    @keys.add("backspace", filter=typing & indenting & ~has_selection)
    def _dedent(event: KeyPressEvent) -> None:
        before = event.current_buffer.document.current_line_before_cursor
        event.current_buffer.delete_before_cursor(
            len(_INDENT) if before and len(before) % len(_INDENT) == 0 else 1
        )

    @keys.add("f1", filter=typing)
    def _help(event: KeyPressEvent) -> None:
        line = session.read(event.current_buffer.text)
        topic = line.name if line.kind is Kind.COMMAND else ""
        run_in_terminal(_quietly(lambda: session.run(f"help {topic}".rstrip())))

    @keys.add("f2")
    def _keys(event: KeyPressEvent) -> None:
        vi = event.app.editing_mode == EditingMode.VI
        event.app.editing_mode = EditingMode.EMACS if vi else EditingMode.VI

    @keys.add("f3")
    def _complete(event: KeyPressEvent) -> None:
        toggles.complete_while_typing = not toggles.complete_while_typing
        if not toggles.complete_while_typing:
            event.current_buffer.cancel_completion()

    @keys.add("f4", filter=typing)
    def _warnings(event: KeyPressEvent) -> None:
        run_in_terminal(lambda: print("\n".join(warnings())))

    return keys


def _quietly(function: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        function()

    return run


def is_finished(session: Session, text: str) -> bool:
    """Whether Enter runs a text (else it begins a new line)."""
    # Of several inputs, which were pasted, the last may go on.
    text = text[text.rfind(session.split(text)[-1]) :]
    if session.read(text).kind is not Kind.PYTHON:
        return True
    last = text.rsplit("\n", 1)[-1]
    if "\n" in text and not last.strip():
        # An empty line ends a block, as in Python's own prompt; this one is indented already.
        return session.python.is_complete(text.rstrip() + "\n")
    return session.python.is_complete(text)


def next_indent(line: str) -> str:
    """Indentation of the line after one."""
    match = re.match(r"\s*", line)
    indent = match.group() if match else ""
    if re.search(r":\s*(#.*)?$", line):
        return indent + _INDENT
    if re.match(r"\s*(return|pass|break|continue|raise)\b", line):
        return indent[: -len(_INDENT)]
    return indent
