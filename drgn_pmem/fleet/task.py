# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The task of a worker
--------------------

Starts the process that reads one dump (:mod:`drgn_pmem.fleet.reader`), waits for it, ends it when
its time is over or the run was stopped, and says what came of it. A process that dies is started
once more. A worker that dies leaves a line in ``begun`` for each time: whoever gets the dump next
knows how often it was tried.

Text goes in and comes out: JSON with paths and numbers.
"""

import contextlib
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from drgn_pmem.fleet.memory import memory_text, says_memory
from drgn_pmem.fleet.request import Request, product_version
from drgn_pmem.fleet.result import State, load_result, make_result, write_result

__all__ = ("MAX_TRIES", "last_lines", "read_dump", "times_begun")

MAX_TRIES = 2
"""How often a dump is begun whose reader or worker dies."""
_POLL = 0.2
"""Seconds between two looks at whether the run still goes on."""
_LAST = 4096
"""Bytes of the end of standard error that are looked at."""
_LINES = 3


def read_dump(text: str) -> str:
    """
    Read one dump.

    :param text: A :class:`~drgn_pmem.fleet.request.Request` as JSON.
    :return: JSON: ``state`` (null if the run was stopped), ``error``, and whether the result was
        written (``written``). If not, this machine does not see the folder.
    """
    request = Request.loads(text)
    if request.version != product_version():
        return _answer(
            State.UNSEEN,
            f"{os.uname().nodename} has drgn-pmem {product_version()}, the run is of "
            f"{request.version}: install the same there",
        )
    if not request.marker.exists():
        return _answer(
            State.UNSEEN, f"{os.uname().nodename} does not see the folder {request.folder}"
        )
    result = load_result(request.result)
    if result is not None and result.value["run"] == request.run:
        # Dask asks once more where a worker died that had the answer and not yet given it.
        return _answer(result.state, result.error, written=True)
    before = ""
    while True:
        tries = times_begun(request) + 1
        if tries > request.tries:
            return _finish(
                request,
                State.CRASHED,
                f"its worker died {tries - 1} times{last_lines(request.log)}",
                tries=tries - 1,
                seconds=0.0,
            )
        with request.begun.open("a") as file:
            file.write(f"{request.run} {os.uname().nodename} {os.getpid()}\n")
        started = time.monotonic()
        if tries > 1 and not before:
            before = f"its worker died{last_lines(request.log)}"
        state, error = _run_reader(request, tries, before)
        if state is None:
            return _answer(None)
        if state is State.DONE:
            return _read_result(request)
        if state is not State.CRASHED or tries >= request.tries:
            seconds = time.monotonic() - started
            return _finish(request, state, error, tries=tries, seconds=seconds)
        before = error


def times_begun(request: Request) -> int:
    """How often the dump was begun in this run."""
    try:
        lines = request.begun.read_text().splitlines()
    except FileNotFoundError:
        return 0
    return sum(line.split(" ")[0] == request.run for line in lines)


def last_lines(log: Path) -> str:
    """The end of what a process wrote, in one line; empty if it wrote nothing."""
    lines = _last_lines(log)
    return "; its last lines: " + " | ".join(lines) if lines else ""


def _last_lines(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _LAST, 0))
            text = file.read().decode("utf-8", "backslashreplace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()][-_LINES:]


def _answer(state: State | None, error: str | None = None, *, written: bool = False) -> str:
    value = {"state": state.value if state else None, "error": error, "written": written}
    return json.dumps(value)


def _finish(request: Request, state: State, error: str, *, tries: int, seconds: float) -> str:
    """Write the result of a dump without a report."""
    for path in (request.html, request.json):
        with contextlib.suppress(OSError):
            path.unlink()
    value = make_result(request, state, error, tries=tries, seconds=seconds)
    try:
        write_result(request, value)
    except OSError as failed:
        return _answer(
            State.UNSEEN,
            f"{os.uname().nodename}: the result cannot be written: {failed.strerror}",
        )
    _tidy(request)
    return _answer(state, error, written=True)


def _read_result(request: Request) -> str:
    result = load_result(request.result)
    if result is None or result.value["run"] != request.run:
        return _answer(State.UNSEEN, f"{os.uname().nodename}: the result was lost")
    _tidy(request)
    return _answer(result.state, result.error, written=True)


def _tidy(request: Request) -> None:
    for path in (request.log, request.begun):
        with contextlib.suppress(OSError):
            path.unlink()


def _run_reader(request: Request, tries: int, before: str) -> tuple[State | None, str]:
    """
    :param before: How the first try ended; empty if this is the first.
    :return: ``DONE`` if the process wrote a result, whatever that is; None if the run was stopped;
        else what ended the process.
    """
    task: dict[str, Any] = {"request": request.dumps(), "tries": tries, "before": before}
    task["parent"] = os.getpid()
    with (
        tempfile.TemporaryFile() as given,
        # Not another process's log: one that a dying worker left may still be written to.
        _new_file(request.log) as log,
    ):
        given.write(json.dumps(task).encode())
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", "drgn_pmem.fleet.reader"],
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
        try:
            return _wait(process, request)
        finally:
            _kill(process)


def _new_file(path: Path) -> Any:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return path.open("xb")


def _environment() -> dict[str, str]:
    """One dump, one core: as many dumps as there are cores are read at a time."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": "1",
    }


def _wait(process: "subprocess.Popen[bytes]", request: Request) -> tuple[State | None, str]:
    end = time.monotonic() + request.timeout
    while True:
        try:
            status = process.wait(_POLL)
            break
        except subprocess.TimeoutExpired:
            if not request.marker.exists():
                return None, ""
            if time.monotonic() > end:
                why = f"not done after {request.timeout:g} s (--timeout)"
                return State.TIMEOUT, why + last_lines(request.log)
    if status == 0:
        return State.DONE, ""
    if says_memory("\n".join(_last_lines(request.log))):
        return State.MEMORY, memory_text(request.memory_limit)
    how = f"signal {_name(-status)}" if status < 0 else f"exit status {status}"
    if status == -signal.SIGABRT:
        how += f" (too little memory? --memory-limit is {request.memory_limit >> 20} MiB)"
    return State.CRASHED, f"its reader ended with {how}{last_lines(request.log)}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the process and all that it started, if it has not ended."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
