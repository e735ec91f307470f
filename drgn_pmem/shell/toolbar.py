# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The line at the bottom of the prompt."""

from prompt_toolkit.application.current import get_app
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.utils import get_cwidth

from drgn_pmem.output.text import cut, escape
from drgn_pmem.shell.session import Session
from drgn_pmem.shell.summary import Summary

__all__ = ("toolbar",)

_WARNING = 3
"""Which part of the bar the warning is."""


def toolbar(session: Session, summary: Summary) -> StyleAndTextTuples:
    """
    The dump, its kernel, its persistent memory and the worst warning, as far as they fit; the panic
    message is dropped first, then the keys; a finding shrinks to a number before the release goes.
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
    for drop in (None, 5, 6, 4, _WARNING, 1):
        if drop == _WARNING:
            parts[drop] = (parts[drop][0], _warning(summary, columns // 2, short=True))
        elif drop is not None:
            parts[drop] = ("", "")
        fragments = _join(parts)
        if sum(get_cwidth(text) for _, text, *_ in fragments) <= columns:
            break
    return fragments


def _warning(summary: Summary, columns: int, short: bool = False) -> str:
    """
    The worst of all warnings and findings, cut to fit, how many more there are, and the key that
    shows them all.

    A critical finding comes before the warnings, unless one of those says that the dump misleads.

    :param short: Of findings, only how many are as bad as the worst.
    """
    lines, findings = summary.warnings, summary.findings
    count = len(lines) + len(findings)
    if not count:
        return ""
    critical = bool(findings) and findings[0].severity.rank == 0
    if lines and not (critical and not summary.misleads):
        text = escape(lines[0]).removeprefix(f"{summary.name}: ")
    elif short:
        worst = findings[0].severity
        of_them = sum(item.severity is worst for item in findings)
        return f" {of_them} {worst.value}: F4 "
    else:
        text = f"{findings[0].severity.value}: {escape(findings[0].text)}"
    after = f" (+{count - 1})" if count > 1 else ""
    after += " F4 all"
    return f" {cut(text, max(10, columns - len(after) - 2))}{after} "


def _join(parts: "list[tuple[str, str]]") -> StyleAndTextTuples:
    fragments: StyleAndTextTuples = []
    for style, text in parts:
        if text:
            fragments += [("", " "), (style, text), ("", " ")]
    return fragments
