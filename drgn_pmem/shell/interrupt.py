# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Ctrl-C. The first stops the running command; another one while the first is still being handled, or
between commands, must not end the session.
"""

from collections.abc import Iterator
import contextlib
import signal
import threading
import time
from types import FrameType

__all__ = ("Interrupts",)

_PATIENCE = 1.0
"""Seconds after which another Ctrl-C counts again: something swallowed the first."""


class Interrupts:
    """Turns SIGINT into :exc:`KeyboardInterrupt` while a command runs, into nothing otherwise."""

    def __init__(self) -> None:
        self._depth = 0
        self._last = 0.0

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle SIGINT in this way until the end of the block (main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """A block that Ctrl-C may stop."""
        self._last = 0.0
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._depth and now - self._last > _PATIENCE:
            self._last = now
            raise KeyboardInterrupt
