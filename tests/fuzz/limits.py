# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a command may do with hostile bytes: a process of its own is watched for anything else."""

from collections.abc import Callable
import contextlib
import faulthandler
import io
import os
from pathlib import Path
import resource
import shlex
import signal
import sys
import tempfile
import traceback

from drgn import Program

from drgn_pmem.commands import load_commands
from drgn_pmem.errors import PmemError
from drgn_pmem.spec import SPECS, run

__all__ = ("MEMORY", "SECONDS", "ask", "raw_characters", "watched")

SECONDS = 5
"""Of CPU, for one question."""
MEMORY = 500 << 20
"""bytes resident, at most"""
_BEGINNING = 150 << 20
"""A process that has opened a dump; what the caller has beyond that does not count."""
_ADDRESSES = 16 << 30
_WALL = 120


def raw_characters(text: str) -> set[str]:
    """What would reach the terminal as something else than text."""
    return {c for c in text if not c.isprintable() and c not in "\n\t"}


def ask(prog: Program, line: str) -> str:
    """What a command may not do; empty if it answers or refuses in one line."""
    name, *words = shlex.split(line)
    load_commands()
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run(SPECS[name], prog, words)
    except PmemError as error:
        if "\n" in str(error):
            return f"an error of several lines: {error}"
    except Exception:
        return traceback.format_exc(limit=-8)
    found = raw_characters(out.getvalue() + err.getvalue())
    return f"raw characters {found}" if found else ""


def watched(question: Callable[[], str]) -> str:
    """
    Ask in a fork, with limits.

    :param question: Returns what is wrong, empty if nothing is.
    :return: The same, or how the process ended or what it used too much of.
    """
    with tempfile.TemporaryDirectory(prefix="drgn-pmem-fuzz-") as folder:
        receive, send = os.pipe()
        child = os.fork()
        if not child:
            _child(question, folder, send)
        os.close(send)
        with os.fdopen(receive, "rb") as pipe:
            before = max(int.from_bytes(pipe.read(8), "little") - _BEGINNING, 0)
            said = pipe.read().decode()
        _, status, used = os.wait4(child, 0)
        left = [str(path) for path in Path(folder).rglob("*")]
    if os.WIFSIGNALED(status):
        return f"ended by {signal.Signals(os.WTERMSIG(status)).name}\n{said}"
    seconds, memory = used.ru_utime + used.ru_stime, (used.ru_maxrss << 10) - before
    if said:
        return said
    if os.WEXITSTATUS(status):
        return f"ended with status {os.WEXITSTATUS(status)}"
    if left:
        return f"wrote {', '.join(left)}"
    if seconds > SECONDS:
        return f"{seconds:.1f} s of CPU"
    return f"{memory >> 20} MiB of memory" if memory > MEMORY else ""


def _resident() -> int:
    """bytes, of this process"""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def _child(question: Callable[[], str], folder: str, send: int) -> None:
    status = 1
    try:
        os.write(send, _resident().to_bytes(8, "little"))
        faulthandler.disable()
        os.chdir(folder)
        os.environ.update(HOME=folder, TMPDIR=folder)
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # a file of one byte is SIGXFSZ
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CPU, (4 * SECONDS, 4 * SECONDS))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_WALL)
        try:
            said = question()
        except BaseException:
            said = traceback.format_exc(limit=-8)
        os.write(send, said.encode("utf-8", "backslashreplace")[:60_000])
        sys.stdout.flush()
        status = 0
    finally:
        os._exit(status)
