# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The line at the bottom of the prompt."""

from prompt_toolkit.application.current import get_app
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.utils import get_cwidth

from drgn_pmem.output.text import escape, plural
from drgn_pmem.shell.session import Session
from drgn_pmem.shell.summary import Summary

__all__ = ("cut", "toolbar")


def toolbar(session: Session, summary: Summary) -> StyleAndTextTuples:
    """
    The dump, its kernel, its persistent memory and the first warning, as far as they fit; the panic
    message is dropped first, then the keys.
    """
    mode = "Vi" if get_app().editing_mode == EditingMode.VI else "Emacs"
    recording = f"log {session.output.journal.path.name}" if session.output.journal else ""
    columns = get_app().output.get_size().columns
    parts = [
        ("", summary.short_name),
        ("", summary.release),
        ("", summary.pmem),
        ("class:bottom-toolbar.warning", _warning(summary, columns // 2)),
        ("", recording),
        ("", summary.panic),
        ("class:bottom-toolbar.key", f"F1 help  F2 {mode}"),
    ]
    for drop in (None, 5, 6, 4, 1):
        if drop is not None:
            parts[drop] = ("", "")
        fragments = _join(parts)
        if sum(get_cwidth(text) for _, text, *_ in fragments) <= columns:
            break
    return fragments


def _warning(summary: Summary, columns: int) -> str:
    """The first warning, cut to fit, or how many findings; the banner has shown the whole."""
    lines = summary.warnings
    if not lines:
        worst = [item for item in summary.findings if item.severity is summary.findings[0].severity]
        return f" {plural(len(worst), f'{worst[0].severity.value} finding')} " if worst else ""
    more = f" (+{len(lines) - 1})" if len(lines) > 1 else ""
    text = escape(lines[0]).removeprefix(f"{summary.name}: ")
    return f" {cut(text, max(10, columns - len(more) - 2))}{more} "


def cut(text: str, columns: int) -> str:
    """A text that fits, its end replaced by dots where it does not."""
    return text if len(text) <= columns else text[: max(columns, 10) - 3] + "..."


def _join(parts: "list[tuple[str, str]]") -> StyleAndTextTuples:
    fragments: StyleAndTextTuples = []
    for style, text in parts:
        if text:
            fragments += [("", " "), (style, text), ("", " ")]
    return fragments
