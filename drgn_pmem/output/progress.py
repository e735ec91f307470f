# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Progress
--------

How long work reports its progress, whatever shows it. Work calls
``with progress("struct pages", total) as report`` and ``report(done, total)`` now and then; the
owner of the screen (the shell, the command line) sets with :func:`show_with` how it is shown.
Otherwise it costs a function call.
"""

from collections.abc import Callable, Iterator
import contextlib

__all__ = ("Report", "progress", "show_with", "stage")

Report = Callable[[int, int], None]
"""``report(done, total)``: units of work done and in all (0 if not known)."""

Show = Callable[[str, int], contextlib.AbstractContextManager[Report]]

Stage = Callable[[str], None]

_show: Show | None = None
_stage: Stage | None = None


def show_with(show: Show | None, stage: Stage | None = None) -> None:
    """
    Who shows progress from now on; None for no one.

    :param show: A function of a label and a total.
    :param stage: A function of the text of :func:`stage`.
    """
    global _show, _stage
    _show, _stage = show, stage


def stage(text: str) -> None:
    """Say what is worked on now, of several pieces of work; empty when it is done."""
    if _stage is not None:
        _stage(text)


def _ignore(done: int, total: int) -> None:
    return None


@contextlib.contextmanager
def progress(label: str, total: int = 0) -> Iterator[Report]:
    """
    Report the progress of a piece of work.

    :param label: What is worked on, in a few words.
    :param total: Units of work, 0 if not known yet.
    """
    if _show is None:
        yield _ignore
        return
    with _show(label, total) as report:
        yield report
