# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Imports ahead
-------------

drgn reads a dump's headers and its debug info without the interpreter for the most part. Meanwhile
a thread imports what the answers need, numpy above all. Importing touches no program.
"""

from collections.abc import Iterator, Sequence
import contextlib
import importlib
import os
import signal
import threading

__all__ = ("failures", "importing")

_FIRST = ("drgn.helpers.common", "drgn.helpers.linux")
"""
Packages that import their own modules, one of which drgn imports meanwhile: two threads that come
by the package and by a module of it wait for each other, and Python makes the import of one of them
fail. drgn needs both packages for any dump, so they are imported before the thread starts.
"""

failures: list[Exception] = []
"""Imports that failed. A module in C may not say the same when it is imported once more."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def importing(modules: Sequence[str]) -> Iterator[None]:
    """
    Import modules in a thread, in order, up to one that fails; where it is needed its import fails
    once more, and there the error is reported. At the end all are imported.

    Until then Ctrl-C, SIGTERM and SIGHUP end the process at once, with the status that they have
    later. An exception in the middle of an import may leave the lock of all imports taken
    (importlib of Python 3.11), and the two threads waiting for each other.
    """
    if not modules:
        yield
        return
    for name in _FIRST:
        importlib.import_module(name)
    thread = threading.Thread(target=_import, args=(modules,), name="imports")
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in handlers.items():
        if handler not in (signal.SIG_IGN, None):
            signal.signal(number, _leave)
    try:
        thread.start()
        yield
    finally:
        thread.join()
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def _leave(number: int, _: object) -> None:
    os._exit(128 + number)


def _import(modules: Sequence[str]) -> None:
    try:
        for name in modules:
            importlib.import_module(name)
    except Exception as error:
        failures.append(error)
