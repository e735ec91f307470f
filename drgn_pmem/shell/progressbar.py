# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""prompt_toolkit's progress bar with rate and time left, for :mod:`drgn_pmem.shell.progress`."""

from datetime import datetime, timedelta
import sys
from typing import Any

from prompt_toolkit.formatted_text import AnyFormattedText
from prompt_toolkit.input import DummyInput, create_input
from prompt_toolkit.layout.dimension import AnyDimension, D
from prompt_toolkit.output import create_output
from prompt_toolkit.shortcuts import ProgressBar
from prompt_toolkit.shortcuts.progress_bar import ProgressBarCounter, formatters as f

from drgn_pmem.shell.output import terminal_of

__all__ = ("Bar",)


class Bar:
    """
    A bar on standard error, for one piece of work.

    :param label: What is worked on.
    :param elapsed: Seconds that the work has already taken.
    """

    def __init__(self, label: str, elapsed: float) -> None:
        self._bar = ProgressBar(
            formatters=_formatters(),
            output=create_output(stdout=terminal_of(sys.stderr)),
            # It reads the terminal so that Ctrl-C reaches the work: keys make no signals while
            # prompt_toolkit has the terminal.
            input=create_input() if sys.stdin.isatty() else DummyInput(),
        )
        self._bar.__enter__()
        self._bar.app.erase_when_done = True
        self._counter: ProgressBarCounter[object] = self._bar(label=label)
        self._counter.start_time = datetime.now() - timedelta(seconds=elapsed)

    def update(self, done: int, total: int) -> None:
        """:param total: 0 if not known."""
        self._counter.total = total or None
        self._counter.items_completed = done

    def close(self) -> None:
        """Remove the bar from the screen."""
        self._bar.__exit__()


class _Rate(f.Formatter):
    """Units a second, with a prefix: bytes, pages and rows come in millions."""

    def format(self, progress_bar: Any, progress: Any, width: int) -> AnyFormattedText:
        seconds = progress.time_elapsed.total_seconds()
        rate = progress.items_completed / seconds if seconds > 0 else 0.0
        for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if rate >= limit:
                return f"{rate / limit:7.1f} {unit}/s"
        return f"{rate:9.0f}/s"

    def get_width(self, progress_bar: Any) -> AnyDimension:
        return D.exact(11)


def _formatters() -> list[f.Formatter]:
    symbol = "━" if (sys.stderr.encoding or "").lower().startswith("utf") else "#"
    return [
        f.Label(),
        f.Text(" "),
        f.Bar(start="[", end="]", sym_a=symbol, sym_b=symbol, sym_c=" ", unknown=symbol),
        f.Percentage(),
        _Rate(),
        f.Text("  time left "),
        f.TimeLeft(),
    ]
