# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Imports ahead
-------------

drgn reads a dump's headers and its debug info without the interpreter for the most part. Meanwhile
a thread imports what the answers need, numpy above all. Importing touches no program.
"""

from collections.abc import Sequence
import importlib
import threading

__all__ = ("failures", "import_ahead")

failures: list[Exception] = []
"""Imports that failed. A module in C may not say the same when it is imported once more."""


def import_ahead(modules: Sequence[str]) -> None:
    """
    Import modules in a thread, in order, up to one that fails; where it is needed its import fails
    once more, and there the error is reported.
    """

    def load() -> None:
        try:
            for name in modules:
                importlib.import_module(name)
        except Exception as error:
            failures.append(error)

    if modules:
        threading.Thread(target=load, name="imports", daemon=True).start()
