# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the shell's tests share: a home of their own, the sample dump, the command line."""

from collections.abc import Callable, Iterator
import os
from pathlib import Path
import signal
import subprocess
import sys

import pexpect
import pytest

from drgn_pmem.session import Target
from drgn_pmem.shell.sample import Sample, find_sample
from drgn_pmem.shell.session import Session

from .terminal import TIMEOUT, Start, Terminal

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Programs started here can be interrupted, though these tests run behind someone's ``&``."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Config, history and favourites of a test do not touch the user's; the cache is the user's."""
    for variable, folder in (("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state")):
        monkeypatch.setenv(variable, str(tmp_path / folder))
    for variable in ("NO_COLOR", "PAGER", "DRGN_PMEM_PAGER", "LESS", "EDITOR", "VISUAL"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def sample() -> Sample:
    """The default sample."""
    return find_sample()


@pytest.fixture(scope="session")
def dump(sample: Sample) -> tuple[str, str]:
    """Paths of the default sample's dump and vmlinux, unpacked."""
    return str(sample.dump()), str(sample.debug_info()[0])


@pytest.fixture
def drgn_pmem() -> Run:
    """Runs ``drgn-pmem ARGUMENTS`` and returns what came of it."""

    def run(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, **options.pop("env", {})}  # type: ignore[dict-item]
        return subprocess.run(
            [sys.executable, "-m", "drgn_pmem", *arguments],
            **{"input": "", "capture_output": True, "text": True, "timeout": 300, **options},  # type: ignore[call-overload]
            env=environment,
        )

    return run


@pytest.fixture(scope="session")
def target(dump: tuple[str, str]) -> Target:
    """The default sample, opened in this process."""
    from drgn_pmem.commands import load_commands
    from drgn_pmem.shell.options import parse
    from drgn_pmem.shell.target import open_target

    load_commands()
    return open_target(parse(["-c", dump[0], "-s", dump[1], "--main-symbols"]))


@pytest.fixture
def session(target: Target) -> Session:
    """A session without a terminal."""

    return Session(target)


@pytest.fixture
def start(dump: tuple[str, str], tmp_path: Path) -> Iterator[Start]:
    children = []

    def run(
        *arguments: str, size: tuple[int, int] = (40, 120), wait: str = ">>> ", **environment: str
    ) -> Terminal:
        child = pexpect.spawn(
            sys.executable,
            ["-m", "drgn_pmem", "-c", dump[0], "-s", dump[1], "--main-symbols", *arguments],
            env={**os.environ, "TERM": "xterm", "LANG": "C.UTF-8", **environment},  # type: ignore[arg-type]
            dimensions=size,
            encoding="utf-8",
            timeout=TIMEOUT,
        )
        children.append(child)
        terminal = Terminal(child)
        if wait:
            terminal.see(wait)
        return terminal

    yield run
    for child in children:
        child.close(force=True)
