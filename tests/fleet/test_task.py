# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A dump that hangs, fills or crashes its reader ends that process and nothing else."""

import errno
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from drgn_pmem.errors import PmemError
from drgn_pmem.fleet import task
from drgn_pmem.fleet.memory import is_of_memory
from drgn_pmem.fleet.request import Request
from drgn_pmem.fleet.result import Result, State, load_result
from drgn_pmem.fleet.task import read_dump
from tests.fleet.conftest import Ask
from tests.fleet.hostile import write_endless, write_hungry
from tests.unit.dumpfile.writers import Elf, Load


def answer(request: Request) -> tuple[dict[str, Any], Result | None]:
    return json.loads(read_dump(request.dumps())), load_result(request.result)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A dump without anything in it."""
    path = tmp_path / "vmcore"
    path.write_bytes(Elf([Load(0, 4096, bytes(4096))]).bytes())
    return path


@pytest.fixture
def instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a shell script the reader."""

    def make(script: str) -> None:
        path = tmp_path / "reader"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        monkeypatch.setattr(task.sys, "executable", str(path))

    return make


def test_a_dump_that_takes_too_long_is_ended(ask: Ask, tmp_path: Path) -> None:
    request = ask(write_endless(tmp_path / "vmcore"), timeout=2.0)
    said, result = answer(request)
    assert said == {"state": "timed out", "error": result.error, "written": True}
    assert result is not None
    assert result.state is State.TIMEOUT
    assert "not done after 2 s (--timeout)" in str(result.error)
    assert not readers_of(request)


def test_a_dump_that_takes_too_much_memory_is_ended(ask: Ask, tmp_path: Path) -> None:
    request = ask(write_hungry(tmp_path / "vmcore"), memory_limit=200 << 20)
    _, result = answer(request)
    assert result is not None
    assert (result.state, result.tries) == (State.MEMORY, 1)
    assert result.error == "more than 200 MiB of memory (--memory-limit)"


def test_a_file_that_cannot_be_opened_says_why(ask: Ask, small: Path) -> None:
    request = ask(small)
    request.html.write_text("of another dump that was there")
    _, result = answer(request)
    assert result is not None
    assert result.state is State.REFUSED
    assert "no VMCOREINFO" in str(result.error)
    assert not request.html.exists()
    assert not request.log.exists()
    assert not request.begun.exists()


def test_a_reader_that_dies_is_started_once_more(ask: Ask, small: Path, instead: Any) -> None:
    instead("echo about to die >&2; kill -SEGV $$")
    _, result = answer(ask(small))
    assert result is not None
    assert (result.state, result.tries) == (State.CRASHED, 2)
    assert result.error == "its reader ended with signal SIGSEGV; its last lines: about to die"


@pytest.mark.parametrize(
    "last",
    [
        "python: libdw: Cannot allocate memory",
        "Exception: libelf error: out of memory",
        "RuntimeError: can't start new thread",
        "  what():  std::bad_alloc",
    ],
)
def test_what_a_library_says_of_memory_is_the_limit(
    ask: Ask, small: Path, instead: Any, last: str
) -> None:
    """It "crashed the reader", twice."""
    instead(f'echo "{last}" >&2; exit 1')
    _, result = answer(ask(small))
    assert result is not None
    assert (result.state, result.tries) == (State.MEMORY, 1)
    assert result.error == "more than 1024 MiB of memory (--memory-limit)"


def test_an_error_that_memory_led_to_is_the_limits() -> None:
    """A dump was said to be one that cannot be opened."""

    def raised(error: BaseException, cause: BaseException | None) -> BaseException:
        error.__cause__ = cause
        return error

    refused = PmemError("vmcore: cannot be opened")
    assert is_of_memory(MemoryError())
    assert is_of_memory(raised(refused, OSError(errno.ENOMEM, "Cannot allocate memory")))
    assert is_of_memory(raised(refused, Exception("libelf error: out of memory")))
    assert not is_of_memory(raised(refused, OSError(errno.EIO, "Input/output error")))
    assert not is_of_memory(PmemError("/crash/out of memory"))


def test_and_its_second_answer_counts(ask: Ask, small: Path, instead: Any, tmp_path: Path) -> None:
    instead(f'if mkdir {tmp_path}/once; then kill -KILL $$; fi; exec {sys.executable} "$@"')
    _, result = answer(ask(small))
    assert result is not None
    assert (result.state, result.tries) == (State.REFUSED, 2)
    assert result.before == "its reader ended with signal SIGKILL"


def test_a_dump_whose_workers_died_is_not_read_again(ask: Ask, small: Path, instead: Any) -> None:
    instead("exit 7")
    request = ask(small)
    request.begun.write_text("run a 1\nother a 2\nrun b 3\n")
    request.log.write_text("\nreading\n*** stack smashing detected ***\n")
    _, result = answer(request)
    assert result is not None
    assert (result.state, result.tries) == (State.CRASHED, 2)
    assert result.error == (
        "its worker died 2 times; its last lines: reading | *** stack smashing detected ***"
    )


def test_a_dump_that_is_done_is_not_read_again_for_a_worker_that_dies_later(
    ask: Ask, small: Path, instead: Any
) -> None:
    request = ask(small)
    said, _ = answer(request)
    instead("exit 7")
    again, result = answer(request)
    assert again == said
    assert result is not None
    assert (result.state, result.tries) == (State.REFUSED, 1)


def test_another_file_at_the_path_is_not_read(ask: Ask, small: Path) -> None:
    request = ask(small, sha256="of another file")
    _, result = answer(request)
    assert result is not None
    assert result.state is State.UNSEEN
    assert os.uname().nodename in str(result.error)
    assert "another file" in str(result.error)


def test_a_worker_that_does_not_see_the_folder_says_so(ask: Ask, small: Path) -> None:
    said, result = answer(ask(small, folder="/nowhere"))
    assert result is None
    assert said["state"] == State.UNSEEN.value
    assert "does not see the folder /nowhere" in said["error"]
    assert not said["written"]


def test_a_worker_of_another_version_says_so(ask: Ask, small: Path) -> None:
    said, result = answer(ask(small, version="0.0.9"))
    assert result is None
    assert "the run is of 0.0.9: install the same there" in said["error"]


def test_a_run_that_was_stopped_ends_its_readers(ask: Ask, small: Path, instead: Any) -> None:
    request = ask(small)
    instead(f"rm {request.marker}; sleep 60 & wait")
    said, result = answer(request)
    assert said["state"] is None
    assert result is None
    wait_until(lambda: not readers_of(request))


def test_a_reader_dies_with_its_worker(ask: Ask, tmp_path: Path) -> None:
    request = ask(write_endless(tmp_path / "vmcore"))
    code = "import sys; from drgn_pmem.fleet.task import read_dump; read_dump(sys.argv[1])"
    worker = subprocess.Popen([sys.executable, "-c", code, request.dumps()])
    try:
        wait_until(lambda: bool(readers_of(request)))
        # It has asked the kernel to die with its parent before it opens the dump.
        wait_until(lambda: any(opens(pid, request.dump) for pid in readers_of(request)))
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    wait_until(lambda: not readers_of(request))


def wait_until(happens: Any) -> None:
    for _ in range(600):
        if happens():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def readers_of(request: Request) -> list[int]:
    """Processes whose standard error is the log of a dump, as that of its readers is."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            path = os.readlink(f"/proc/{pid}/fd/2")
        except OSError:
            continue
        if path.removesuffix(" (deleted)") == str(request.log):
            found.append(pid)
    return found


def opens(pid: int, path: str) -> bool:
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return path in links
