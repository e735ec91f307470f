# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Use without a prompt: one command, a script, lines of text. Each returns an exit status."""

from collections.abc import Sequence
import contextlib
import io
import os
import shlex
import sys
import traceback
from typing import TYPE_CHECKING

import drgn

from drgn_pmem.errors import MissingDebugInfo, PmemError, UsageError
from drgn_pmem.output.text import escape, escape_lines
from drgn_pmem.session import Target
from drgn_pmem.shell.failures import explain
from drgn_pmem.shell.log import logger
from drgn_pmem.shell.words import Kind
from drgn_pmem.spec import SPECS, run

if TYPE_CHECKING:
    from drgn_pmem.shell.session import Session

__all__ = ("other_commands", "run_command", "run_other_command", "run_script", "run_texts")

_SIGINT = 128 + 2
_HINT = "--log-level debug shows the traceback"


def run_command(target: Target, name: str, words: Sequence[str]) -> int:
    """One of our commands: 0 complete answer, 1 none or incomplete, or dumps that differ."""
    drgn.set_default_prog(target.prog)
    notes = io.StringIO()
    try:
        # Without the kernel's debug info some commands answer in part, with a note; the others
        # fail with one line.
        with contextlib.redirect_stderr(notes if target.missing_kernel else sys.stderr):
            answer = run(SPECS[name], target.prog, words)
        if answer is not None and not answer.whole and not answer.records and notes.getvalue():
            raise MissingDebugInfo(target.missing)
        sys.stdout.flush()
        sys.stderr.write(notes.getvalue())
    except (UsageError, BrokenPipeError):
        raise
    except Exception as error:
        # Whatever a hostile dump causes in a command, the user sees one line.
        logger.debug("%s", name, exc_info=True)
        raise PmemError(explain(error, name, target.missing, _HINT)) from error
    if answer is None:
        return 0
    return _SIGINT if answer.interrupted else answer.status


def other_commands(prog: drgn.Program) -> list[str]:
    """Names of the commands of drgn and its other plugins."""
    from drgn.commands import DEFAULT_COMMAND_NAMESPACE

    return [name for name, _ in DEFAULT_COMMAND_NAMESPACE.enabled(prog) if name not in SPECS]


def run_other_command(target: Target, words: Sequence[str]) -> int:
    """A command of drgn (``crash kmem -i``) or of another plugin."""
    from drgn.cli import default_globals
    from drgn.commands import CommandArgumentError, run_command as run_drgn_command

    drgn.set_default_prog(target.prog)
    line = shlex.join(words)
    try:
        run_drgn_command(target.prog, line, globals=default_globals(target.prog))
    except CommandArgumentError as error:
        raise UsageError(str(error)) from error
    except BrokenPipeError:
        raise
    except Exception as error:
        logger.debug("%s", line, exc_info=True)
        raise PmemError(explain(error, words[0], target.missing, _HINT)) from error
    return 0


def run_script(target: Target, words: Sequence[str]) -> int:
    """A Python script and its arguments, as ``drgn -c VMCORE script.py``."""
    import runpy

    drgn.set_default_prog(target.prog)
    path = words[0]
    sys.argv = list(words)
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    try:
        runpy.run_path(path, init_globals={"prog": target.prog}, run_name="__main__")
    except (PmemError, BrokenPipeError):
        raise
    except Exception:
        # The script is the user's: show its traceback.
        sys.stderr.write(escape_lines(traceback.format_exc()))
        return 1
    return 0


def run_texts(
    target: Target, texts: Sequence[str], arguments: Sequence[str], name: str = "-e"
) -> int:
    """
    Texts as if they were typed at the prompt, one input after the other until one fails.

    :param arguments: ``sys.argv`` for the Python in them.
    :return: 0 if every answer was complete, 1 if one was not or something failed, 2 after wrong
        usage.
    """
    from drgn_pmem.shell.failures import Leave
    from drgn_pmem.shell.session import Session

    sys.argv = list(arguments)
    sys.path.insert(0, "")
    session = Session(target)
    _refuse_words(session, texts, arguments[1:])
    session.python.names["__file__"] = name
    try:
        for text in texts:
            if not session.run(text):
                return _status_of(session.failed)
    except Leave as leave:
        return int(leave.args[0])
    return int(session.incomplete)


def _refuse_words(session: "Session", texts: Sequence[str], words: Sequence[str]) -> None:
    """
    :raises UsageError: for words after ``-e`` that nothing reads: they are ``sys.argv`` of Python
    """
    if not words:
        return
    lines = [session.read(line) for text in texts for line in session.split(text)]
    python = any(line.kind in (Kind.PYTHON, Kind.SYSTEM) for line in lines)
    if words[0].lstrip("%") in SPECS or not python:
        raise UsageError(
            f"'{escape(words[0])}' after -e is not run: quote a whole line (-e 'COMMAND ARGS'), "
            "and give -e once for each line"
        )


def _status_of(error: BaseException | None) -> int:
    """Exit status after an input that failed."""
    if isinstance(error, KeyboardInterrupt):
        return _SIGINT
    return 2 if isinstance(error, (UsageError, drgn.commands.CommandArgumentError)) else 1
