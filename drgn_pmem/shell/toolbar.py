# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The line at the bottom of the prompt."""

from prompt_toolkit.application.current import get_app
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.utils import get_cwidth

from drgn_pmem.shell.session import Session
from drgn_pmem.shell.summary import Summary

__all__ = ("toolbar",)


def toolbar(session: Session, summary: Summary) -> StyleAndTextTuples:
    """
    The dump, its kernel, its persistent memory and the first warning, as far as they fit; the panic
    message is the first to go, the keys are the next.
    """
    mode = "Vi" if get_app().editing_mode == EditingMode.VI else "Emacs"
    recording = f"log {session.output.journal.path.name}" if session.output.journal else ""
    parts = [
        ("", summary.short_name),
        ("", summary.release),
        ("", summary.pmem),
        ("class:bottom-toolbar.warning", _warning(summary)),
        ("", recording),
        ("", summary.panic),
        ("class:bottom-toolbar.key", f"F1 help  F2 {mode}"),
    ]
    columns = get_app().output.get_size().columns
    for drop in (None, 5, 6, 4):
        if drop is not None:
            parts[drop] = ("", "")
        fragments = _join(parts)
        if sum(get_cwidth(text) for _, text, *_ in fragments) <= columns:
            break
    return fragments


def _warning(summary: Summary) -> str:
    if not summary.warnings:
        return ""
    more = f" (+{len(summary.warnings) - 1})" if len(summary.warnings) > 1 else ""
    return f" {summary.warnings[0]}{more} "


def _join(parts: "list[tuple[str, str]]") -> StyleAndTextTuples:
    fragments: StyleAndTextTuples = []
    for style, text in parts:
        if text:
            fragments += [("", " "), (style, text), ("", " ")]
    return fragments
