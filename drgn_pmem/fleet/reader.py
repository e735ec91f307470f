# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The process that reads one dump
-------------------------------

``python -m drgn_pmem.fleet.reader``, with the task (:mod:`drgn_pmem.fleet.request`) on standard
input: opens the dump, writes its report and then its result. It limits its own memory before it
looks at the dump, dies with the process that started it, and leaves what it says on standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from drgn_pmem.errors import PmemError
from drgn_pmem.fleet.find import Identity, identity_of
from drgn_pmem.fleet.memory import is_of_memory, memory_text
from drgn_pmem.fleet.request import Request
from drgn_pmem.fleet.result import State, make_result, write_result

if TYPE_CHECKING:
    from drgn import Program

    from drgn_pmem.spec import Answer

__all__ = ("main",)

_PR_SET_PDEATHSIG = 1
_FILE = 1 << 30
"""Bytes of a file that is written at most."""
_MAPPED = 4 << 30
"""Addresses beyond memory and the dump: libraries and debug info, which are mapped."""


def main() -> int:
    """:return: Exit status: 0 if the result was written."""
    started = time.monotonic()
    task = json.load(sys.stdin)
    _die_with(task["parent"])
    request = Request.loads(task["request"])
    _limit(request)

    def result(state: State, error: str | None, **more: Any) -> dict[str, Any]:
        seconds = time.monotonic() - started
        tries = {"tries": task["tries"], "before": task["before"]}
        return make_result(request, state, error, seconds=seconds, **tries, **more)

    try:
        value = _check(request)
        if value is None:
            value = _read(request)
        done = result(**value)
    except Exception as error:
        # What is neither of the memory limit nor of the dump ends the process, with a traceback.
        if is_of_memory(error):
            done = result(State.MEMORY, memory_text(request.memory_limit))
        elif isinstance(error, PmemError):
            done = result(State.REFUSED, _line(error))
        else:
            raise
    if done["state"] != State.DONE.value:
        for path in (request.html, request.json):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    write_result(request, done)
    return 0


def _die_with(parent: int) -> None:
    """End with the process that started this one, whatever ends it (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _limit(request: Request) -> None:
    """
    Bound memory. What is written to counts against RLIMIT_DATA; the dump may be mapped, which
    takes addresses and no memory.
    """
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: _FILE,
        resource.RLIMIT_DATA: request.memory_limit,
        resource.RLIMIT_AS: request.memory_limit + request.size + _MAPPED,
    }
    for which, wanted in limits.items():
        _, hard = resource.getrlimit(which)
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        resource.setrlimit(which, (wanted, wanted))


def _check(request: Request) -> dict[str, Any] | None:
    """Whether this machine sees the same file: None, or the result that says what it sees."""
    wanted = Identity(request.size, request.changed, request.sha256)
    try:
        found = identity_of(request.dump)
    except OSError as error:
        return _unseen(f"{request.dump}: {error.strerror}")
    if found != wanted:
        return _unseen(
            f"{request.dump} is another file there than where the run was started, or it changed "
            f"since ({found.size} bytes, {wanted.size} there)"
        )
    return None


def _unseen(why: str) -> dict[str, Any]:
    return {"state": State.UNSEEN, "error": f"{os.uname().nodename}: {why}"}


def _read(request: Request) -> dict[str, Any]:
    """Write the report; the rest of the result."""
    from dataclasses import replace

    from drgn_pmem.commands import load_command
    from drgn_pmem.commands.report import Report, read_report
    from drgn_pmem.fleet.summary import summary_of
    from drgn_pmem.output import json as output_json
    from drgn_pmem.output.files import write_file
    from drgn_pmem.session import open_with_debug_info
    from drgn_pmem.spec import Answer, ask

    target = open_with_debug_info(
        request.dump,
        debug_directories=request.debug_directories,
        kernel_directories=request.debug_directories,
    )
    made: list[Report] = []

    def both(prog: Program, args: argparse.Namespace) -> Answer:
        """As pmem-report, whose answer is either HTML or JSON."""
        made.append(read_report(prog, draw=True))
        return Answer(made[0].sections, problems=made[0].problems)

    spec = replace(load_command("pmem-report"), function=both)
    answer = ask(spec, target.prog, spec.parser().parse_args([]))
    value = made[0].to_json()
    try:
        write_file(request.json, output_json.dumps(value) + "\n")
        write_file(request.html, made[0].html())
    except OSError as error:
        return _unseen(f"the report cannot be written: {error.filename}: {error.strerror}")
    return {
        "state": State.DONE,
        "error": None,
        "complete": answer.whole,
        "notes": target.notes,
        "missing": target.missing,
        "lacks": answer.all_lacks(),
        **summary_of(value),
    }


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
