# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Progress of a run
-----------------

A line on standard error for each dump that ended; on a terminal, below it, how many are done, are
read now and failed, and the time left.
"""

import sys
import time

from drgn_pmem.fleet.result import Result
from drgn_pmem.fleet.row import row_of, short_name
from drgn_pmem.output.progress import stage
from drgn_pmem.output.text import escape

__all__ = ("Watch", "duration")

_PATIENCE = 30
"""Seconds without a worker after which that is said."""


class Watch:
    """
    Shows the progress of a run.

    :param total: Dumps to read.
    :param quiet: Whether nothing is printed.
    """

    def __init__(self, total: int, *, quiet: bool) -> None:
        self.ended = 0
        self.failed = 0
        self._total = total
        self._quiet = quiet
        self._started = time.monotonic()
        self._alone_since: float | None = None

    def show(self, running: int, threads: int) -> None:
        """:param threads: How many dumps can be read at a time now."""
        now = time.monotonic()
        if threads:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        elif now - self._alone_since > _PATIENCE:
            self._alone_since = float("inf")
            self._say("no worker is connected to the scheduler; waiting for one")
        if not self._quiet:
            stage(self._line(running, now))

    def _line(self, running: int, now: float) -> str:
        parts = [f"{self.ended} of {self._total} done", f"{running} running"]
        parts += [f"{self.failed} failed"] if self.failed else []
        if self.ended:
            left = (now - self._started) / self.ended * (self._total - self.ended)
            parts.append(f"{duration(left)} left")
        return ", ".join(parts)

    def end(self, result: Result) -> None:
        """A dump has its result."""
        self.ended += 1
        row = row_of(result)
        if row.has_report:
            counts = [f"{n} {what}" for n, what in zip(row.counts, _WHAT, strict=True) if n]
            counts += [] if row.complete else ["incomplete"]
            what = ", ".join(counts) or "nothing found"
            what += f" (read {row.tries} times: first, {row.before})" if row.tries > 1 else ""
        else:
            self.failed += 1
            what = f"{row.state.value}: {row.error}"
        width = len(str(self._total))
        self._say(f"[{self.ended:{width}}/{self._total}] {short_name(row.dump)}: {what}")

    def _say(self, line: str) -> None:
        if not self._quiet:
            stage("")
            print(escape(line), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is shown any more."""
        if not self._quiet:
            stage("")


_WHAT = ("critical", "warning", "info")


def duration(seconds: float) -> str:
    """A time left, rounded: ``40 s``, ``12 min``, ``3 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
