# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How runs end that do not come to their end, and what a terminal shows of one that goes on."""

from collections.abc import Callable
import os
from pathlib import Path
import sys
from typing import Any

import pytest

from drgn_pmem.errors import PmemError
from drgn_pmem.fleet import run
from drgn_pmem.fleet.find import Found
from drgn_pmem.fleet.folder import open_folder
from drgn_pmem.fleet.options import parse_fleet
from drgn_pmem.fleet.result import Result, State, make_result
from drgn_pmem.fleet.watch import Watch
from drgn_pmem.output import progress
from drgn_pmem.shell import progress as terminal
from tests.fleet.conftest import Ask


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (SystemExit(143), 143, "ended by SIGTERM"),
        (SystemExit(129), 129, "ended by SIGHUP"),
    ],
)
def test_a_run_that_is_ended_says_how_to_go_on(
    error: BaseException,
    status: int,
    said: str,
    ask: Ask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After SIGTERM nothing was said."""
    (tmp_path / "vmcore").write_bytes(b"x")
    out = str(tmp_path / "out")
    options = parse_fleet([str(tmp_path), "-o", out])
    assert options is not None
    monkeypatch.setattr(run, "_read_all", failing(error))
    requests = [ask(tmp_path / "vmcore")]
    with open_folder(out, resume=False) as folder:
        assert run._work(folder, Found((requests[0].dump,), ()), requests, options) == status
    assert capsys.readouterr().err == (
        f"{said}: 0 of 1 done; go on with: drgn-pmem fleet --resume -o {out}\n"
    )
    assert "vmcore" in (tmp_path / "out/index.html").read_text()


def end(path: Path, error: BaseException, *, begun: bool = False) -> None:
    """A run that ends with an error; ``mine`` is another's file."""
    with open_folder(str(path), resume=False) as folder:
        if begun:
            folder.debug_info.mkdir()
            folder.begin(["/crash"], [])
        if path.name == "used":
            (path / "mine").touch()
        raise error


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path: Path) -> None:
    """A fleet that found no dump, or no scheduler, left it."""
    for begun in (False, True):
        with pytest.raises(PmemError):
            end(tmp_path / "out", PmemError("no dump, or no scheduler"), begun=begun)
        assert not (tmp_path / "out").exists()


def test_but_not_one_that_was_there_or_that_a_run_can_go_on_in(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    for name in ("before", "used"):
        with pytest.raises(PmemError):
            end(tmp_path / name, PmemError("no dump"))
        assert (tmp_path / name).exists()
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["mine"]
    with pytest.raises(KeyboardInterrupt):
        end(tmp_path / "stopped", KeyboardInterrupt(), begun=True)
    assert (tmp_path / "stopped/.fleet.json").exists()


def test_a_terminal_shows_the_progress_in_one_line(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vmcore").write_bytes(b"x")
    request = ask(tmp_path / "vmcore")
    late = make_result(request, State.TIMEOUT, "late", tries=1, seconds=1.0)
    reading, writing = os.openpty()
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        progress.show_with(terminal.show, terminal.stage)
        try:
            watch = Watch(3, quiet=False)
            watch.show(2, 2)
            watch.end(Result(late))
            watch.show(1, 2)
            watch.close()
        finally:
            progress.show_with(None)
        shown = os.read(reading, 1 << 16).decode()
    os.close(reading)
    # Each time the line is written over: what stays are the lines of the dumps.
    begun, ended, rest = shown.split("\r\x1b[K")[1], *shown.split("\r\x1b[K")[2:4]
    assert begun == "0 of 3 done, 2 running"
    assert ended == f"[1/3] {tmp_path.name}/vmcore: timed out: late\r\n"
    assert rest.startswith("1 of 3 done, 1 running, 1 failed, ")
    assert shown.endswith(" left\r\x1b[K")
