# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Text that is printed while it is made: the lines of an answer that takes a while appear one by one.
Whoever prints answers opens :func:`streaming`; without it nothing is printed.
"""

from collections.abc import Iterator
import contextlib
from contextvars import ContextVar
import sys

from drgn_pmem.output.text import escape_lines

__all__ = ("is_streaming", "say", "streaming")

_streaming: ContextVar[bool] = ContextVar("drgn_pmem.streaming", default=False)


@contextlib.contextmanager
def streaming(on: bool) -> Iterator[None]:
    """A block in which :func:`say` prints to standard output."""
    token = _streaming.set(on)
    try:
        yield
    finally:
        _streaming.reset(token)


def is_streaming() -> bool:
    """Whether :func:`say` prints."""
    return _streaming.get()


def say(text: str) -> None:
    """Print text now, escaped, if someone opened :func:`streaming`."""
    if _streaming.get():
        # one write: a reader such as head may leave between two
        sys.stdout.write(escape_lines(text) + "\n")
        sys.stdout.flush()
