# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whole runs of drgn-pmem fleet, on this machine and on a Dask scheduler with workers."""

import contextlib
import json
import os
from pathlib import Path
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from typing import Any

import pytest

from drgn_pmem.shell.sample import find_sample
from tests.fleet.conftest import fleet, wait_until
from tests.fleet.hostile import write_endless
from tests.unit.dumpfile.writers import Elf, Load

SAMPLE, FORMAT = "6.1-clobbered", "elf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dump, what is no kernel's dump, and debug info under a name of its own."""
    sample = find_sample(SAMPLE)
    (tmp_path / "crash/one").mkdir(parents=True)
    (tmp_path / "debug").mkdir()
    os.symlink(sample.dump(FORMAT), tmp_path / "crash/one/vmcore")
    (tmp_path / "crash/broken").write_bytes(Elf([Load(0, 4096, bytes(4096))]).bytes())
    for path in sample.debug_info():
        os.symlink(path, tmp_path / "debug" / f"{path.name}-of-some-name")
    return tmp_path


def table(folder: Path) -> dict[str, tuple[Any, ...]]:
    database = sqlite3.connect(folder / "fleet.sqlite")
    rows = database.execute("SELECT path, state, error, complete, tries, critical FROM dumps")
    return {os.path.basename(path): tuple(more) for path, *more in rows}


def own_report(dump: Path, vmlinux: Path) -> tuple[dict[str, Any], int]:
    command = [sys.executable, "-m", "drgn_pmem", "-c", dump, "-s", vmlinux, "pmem-report"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    return json.loads(done.stdout), done.returncode


def test_a_fleet_has_of_each_dump_what_pmem_report_says(folder: Path) -> None:
    out = folder / "out"
    arguments = (folder / "crash", "-o", out, "--debug-directory", folder / "debug", "-j", 2)
    done = fleet(*arguments)
    assert done.returncode == 1
    assert re.search(r"\[\d/2\] crash/broken: cannot be opened: .*no VMCOREINFO", done.stderr)
    assert "2 dumps: 1 with critical findings, 1 without a report" in done.stdout
    rows = table(out)
    assert rows["broken"][0] == "cannot be opened"
    assert rows["vmcore"][:2] == ("done", None)

    (made,) = (out / "reports").glob("*.json")
    report = json.loads(made.read_text())
    sample = find_sample(SAMPLE)
    own, status = own_report(folder / "crash/one/vmcore", sample.debug_info()[0])
    for facts in (own["report"], report["report"]):
        facts.pop("made")
        facts.pop("vmlinux")  # by the name that it was found under
    assert report == own
    assert rows["vmcore"][2] == (status == 0)
    assert made.with_suffix(".html").read_text().startswith("<!DOCTYPE html>")

    # Nothing is read again; what changed is.
    before = made.stat().st_mtime_ns
    again = fleet("-o", out, "--resume")
    assert "2 dumps done before, 0 to do" in again.stderr
    os.utime(folder / "crash/broken", ns=(1, 1))
    third = fleet("-o", out, "--resume")
    assert "1 dump done before, 1 to do" in third.stderr
    assert made.stat().st_mtime_ns == before

    # An earlier run's results are not written over by accident.
    refused = fleet(*arguments)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "give --resume" in refused.stderr
    assert not list((out / "results").glob("*.log")) + list((out / "results").glob("*.begun"))


def test_a_folder_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    done = fleet(tmp_path, "-o", tmp_path)
    assert done.returncode == 2
    assert "not the folder of a fleet" in done.stderr
    assert os.listdir(tmp_path) == ["index.html"]


def listening(pid: int) -> set[str]:
    """Addresses at which a process listens, in hexadecimal as the kernel has them."""
    found = set()
    with contextlib.suppress(OSError):
        links = {os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
        for name in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A" and f"socket:[{words[9]}]" in links:
                    found.add(words[1].partition(":")[0])
    return found


def test_ctrl_c_keeps_what_is_done_and_no_one_else_can_connect_or_write(tmp_path: Path) -> None:
    crash, out = tmp_path / "crash", tmp_path / "out"
    crash.mkdir()
    write_endless(crash / "vmcore")
    (crash / "broken").write_bytes(Elf([Load(0, 4096, bytes(4096))]).bytes())
    command = [sys.executable, "-m", "drgn_pmem", "fleet", crash, "-o", out, "-j", "2"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stderr is not None
        assert "broken" in process.stderr.readline()
        assert listening(process.pid) <= {"0100007F"}
        other = fleet(crash, "-o", out, "--resume")
        assert other.returncode == 1
        assert f"another run writes there (process {process.pid} on" in other.stderr
        # As a terminal does: to all of the foreground.
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "1 of 2 done; go on with: drgn-pmem fleet --resume" in said
    assert "Traceback" not in said
    assert set(table(out)) == {"broken"}
    assert f"{crash}/vmcore" in (out / "index.html").read_text()
    assert not readers(out)


def readers(out: Path) -> list[str]:
    """Processes that still write to the results of a folder."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{name}/fd/2").startswith(str(out)):
                found.append(name)
    return found


def test_without_dask_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['distributed'] = None\n"
        "from drgn_pmem.shell.cli import main\n"
        f"sys.exit(main(['fleet', {str(tmp_path)!r}, '-o', {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install 'drgn-pmem[fleet]'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_no_scheduler_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from drgn_pmem.errors import PmemError
    from drgn_pmem.fleet import engine

    monkeypatch.setattr(engine, "_CONNECT", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(PmemError, match=f"no Dask scheduler at {address}"):
            engine.Engine(1, address)


def test_a_worker_that_is_killed_takes_no_dump_along(folder: Path, scheduler: str) -> None:
    out = folder / "out"
    command = [sys.executable, "-m", "drgn_pmem", "fleet", folder / "crash", "-o", out]
    command += ["--debug-directory", folder / "debug", "--scheduler", scheduler]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        begun: list[Path] = []

        def has_begun() -> bool:
            begun[:] = (out / "results").glob("one-vmcore-*.begun")
            return bool(begun and begun[0].read_text())

        wait_until(has_begun)
        worker = int(begun[0].read_text().split()[2])
        os.kill(worker, signal.SIGKILL)
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 1
    rows = table(out)
    assert rows["vmcore"][0] == "done", said
    assert rows["vmcore"][3] == 2
    assert rows["broken"][0] == "cannot be opened"
    assert "read 2 times: first, its worker died" in (out / "index.html").read_text()
    assert not readers(out)
