# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Work while the shell is idle: on the main thread, in small pieces between which the prompt reads
keys, and not while the user types.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
import threading
import time
from typing import TYPE_CHECKING, Any

from drgn_pmem.shell.log import logger

if TYPE_CHECKING:
    from prompt_toolkit.application import Application

__all__ = ("Idle", "Step")

_PAUSE = 0.6
"""Seconds without a key after which the shell is idle."""
_SLICE = 0.008
"""Seconds of work after which keys are read."""


@dataclass(frozen=True)
class Step:
    """A piece of work: a name for the log, and a generator that yields between its parts."""

    name: str
    work: Callable[[], Iterable[None]]


class Idle:
    """
    :param modules: What the work will import: a thread does that, so that the prompt does not
        stand still (importing touches no program).
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self._steps: list[Step] = []
        self._running: Iterator[None] | None = None
        self._last_key = 0.0
        self._modules = list(modules)
        self._thread: threading.Thread | None = None

    def add(self, steps: Iterable[Step]) -> None:
        """Add work to the end."""
        self._steps.extend(steps)

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self._running is None and not self._steps

    def attach(self, app: "Application[Any]") -> None:
        """Work during a prompt; to be called when it begins."""
        app.key_processor.before_key_press += self._on_key
        self._last_key = time.monotonic()
        app.create_background_task(self._work(app))

    def run_all(self) -> None:
        """Do all there is now."""
        while self.step():
            pass

    def step(self) -> bool:
        """One small piece of work. :return: False if nothing is left."""
        if self._running is None:
            if not self._steps:
                return False
            self._running = iter(self._steps[0].work())
        try:
            next(self._running)
        except StopIteration:
            self._finish()
        except Exception as error:
            # A damaged dump makes a list of candidates shorter; commands say what is wrong.
            logger.debug("%s: %s", self._steps[0].name, error, exc_info=True)
            self._finish()
        return not self.done

    def _finish(self) -> None:
        self._running = None
        del self._steps[0]

    def _on_key(self, _: object) -> None:
        self._last_key = time.monotonic()

    def _import(self) -> None:
        import importlib

        for module in self._modules:
            try:
                importlib.import_module(module)
            except ImportError as error:
                logger.debug("%s: %s", module, error)

    async def _work(self, app: "Application[Any]") -> None:
        while not self.done:
            await asyncio.sleep(0.05)
            if time.monotonic() - self._last_key < _PAUSE:
                continue
            if self._thread is None:
                self._thread = threading.Thread(target=self._import, daemon=True)
                self._thread.start()
            if self._thread.is_alive():
                continue
            end = time.monotonic() + _SLICE
            while time.monotonic() < end and self.step():
                pass
            app.invalidate()
