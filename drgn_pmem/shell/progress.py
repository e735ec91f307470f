# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Shows the progress of long work on standard error, if that is a terminal: a bar appears when the
work has lasted a moment, and disappears at its end.
"""

from collections.abc import Iterator
import contextlib
import sys
import time
from typing import TYPE_CHECKING

from drgn_pmem.output.progress import Report
from drgn_pmem.output.text import escape
from drgn_pmem.shell.output import terminal_of

if TYPE_CHECKING:
    from drgn_pmem.shell.progressbar import Bar

__all__ = ("show", "stage")

_DELAY = 0.4
"""Seconds of work before a bar appears."""
_INTERVAL = 0.1


@contextlib.contextmanager
def show(label: str, total: int) -> Iterator[Report]:
    """Show a piece of work, see :mod:`drgn_pmem.output.progress`."""
    if not _is_terminal():
        yield lambda done, total: None
        return
    shown = _Shown(label, total)
    try:
        yield shown.report
    finally:
        shown.close()


def stage(text: str) -> None:
    """Show what is worked on in the last line of the terminal; nothing if it is empty."""
    if _is_terminal():
        terminal = terminal_of(sys.stderr)
        terminal.write(f"\r\x1b[K{escape(text)}")
        terminal.flush()


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


class _Shown:
    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total
        self._start = self._last = time.monotonic()
        self._bar: Bar | None = None

    def report(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last < _INTERVAL or now - self._start < _DELAY:
            return
        self._last = now
        if self._bar is None:
            # prompt_toolkit is imported here: work that is done in a moment does not pay for it.
            from drgn_pmem.shell.progressbar import Bar

            self._bar = Bar(self._label, now - self._start)
        self._bar.update(done, total or self._total)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
