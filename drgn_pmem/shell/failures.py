# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The one line for a failure, with how to see the traceback."""

from collections.abc import Sequence
import os
import traceback

import drgn

from drgn_pmem.errors import PmemError, numpy_error
from drgn_pmem.output.text import escape

__all__ = ("Leave", "did_you_mean", "explain")


class Leave(Exception):
    """The user wants to leave the shell. ``args[0]`` is the exit status."""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`` (did you mean pmem-list?)`` for a word that is nearly one of those known, or nothing."""
    import difflib

    near = difflib.get_close_matches(word, known, 2, 0.6)
    if not near:
        # pmem-namespaces is as often typed without its prefix.
        near = [name for name in known if name.startswith((f"pmem-{word}", word))][:2]
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def explain(error: BaseException, name: str = "", missing: str = "", hint: str = "") -> str:
    """
    One line for an error.

    :param name: The command that failed.
    :param missing: What is known of debug info that could not be found (``target.missing``).
    :param hint: How to see the traceback.
    """
    prefix = f"{name}: " if name else ""
    cause = error.__cause__
    if missing and isinstance(cause, LookupError) and not isinstance(cause, PmemError):
        error = cause  # the command has no more; the shell knows what was not loaded
    if isinstance(error, PmemError):
        text = _one_line(error)
        return text if not name or text.startswith(name) else prefix + text
    if isinstance(error, drgn.FaultError):
        return f"{prefix}the dump does not hold what this needs: {_one_line(error)}"
    if isinstance(error, (drgn.ObjectNotFoundError, LookupError)) and missing:
        return f"{prefix}{_one_line(error)}; {missing}"
    if isinstance(error, drgn.ObjectNotFoundError):
        return f"{prefix}{_one_line(error)} in the debug info given (-s)"
    if isinstance(error, OSError) and error.strerror:
        file = f"{escape(os.fsdecode(error.filename))}: " if error.filename else ""
        return f"{prefix}{file}{error.strerror}"
    numpy = numpy_error(error)
    if numpy is not None:
        return prefix + _one_line(numpy)
    where = traceback.extract_tb(error.__traceback__)
    line = f" at {os.path.basename(where[-1].filename)}:{where[-1].lineno}" if where else ""
    kind = type(error).__name__
    return f"{prefix}failed: {kind}: {_one_line(error)}{line}{f' ({hint})' if hint else ''}"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) if not isinstance(error, KeyError) else str(error.args[0])
    return escape(text)
