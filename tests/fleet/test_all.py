# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
A fleet of every sample in every format (``make test-fleet``): what each report says, what hostile
dumps and killed workers do to the others, and what a second worker is worth.
"""

import contextlib
import json
import os
from pathlib import Path
import signal
import sqlite3
import subprocess
import sys
import time
from typing import Any

import pytest

from drgn_pmem.shell.sample import load_index
from tests.fleet.conftest import fleet, wait_until
from tests.fleet.hostile import write_endless, write_hungry

pytestmark = pytest.mark.skipif(
    os.environ.get("DRGN_PMEM_FLEET") != "all", reason="make test-fleet: takes minutes"
)

GAIN = 1.8
"""What a second worker is worth at least, on two cores that do nothing else."""
ROUNDS = 2


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``crash`` with every dump, ``debug`` with every vmlinux."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "debug").mkdir()
    for sample in load_index()[0].values():
        for format in sample.formats:
            path = folder / "crash" / sample.name / format
            path.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(sample.dump(format), path)
        for file in sample.debug_info():
            os.symlink(file, folder / "debug" / f"{sample.name}-{file.name}")
    return folder


def dumps(folder: Path) -> set[str]:
    return {str(path) for path in (folder / "crash").glob("*/*")}


def states(out: Path) -> dict[str, tuple[Any, ...]]:
    database = sqlite3.connect(out / "fleet.sqlite")
    rows = database.execute("SELECT path, state, tries, complete, json FROM dumps")
    return {path: tuple(more) for path, *more in rows}


def own_report(dump: str, debug: Path) -> tuple[Any, int]:
    """What pmem-report says of a dump that is opened as the fleet's was."""
    options = ["--main-symbols", "--debug-directory", str(debug), "--kernel-directory", str(debug)]
    command = [sys.executable, "-m", "drgn_pmem", "-q", "-c", dump, *options, "pmem-report"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    return json.loads(done.stdout), done.returncode


def test_each_report_is_what_pmem_report_says(everything: Path) -> None:
    out = everything / "one-by-one"
    fleet(everything / "crash", "-o", out, "--debug-directory", everything / "debug")
    rows = states(out)
    assert set(rows) == dumps(everything)
    for dump, (state, tries, complete, report) in rows.items():
        assert (state, tries) == ("done", 1), dump
        made = json.loads((out / report).read_text())
        own, status = own_report(dump, out / "debug-info")
        for facts in (own["report"], made["report"]):
            facts.pop("made")
        assert made == own, dump
        assert bool(complete) == (status == 0), dump


def test_hostile_dumps_and_a_killed_worker_take_no_other_along(
    everything: Path, tmp_path: Path, scheduler: str
) -> None:
    out = tmp_path / "out"
    crash = tmp_path / "crash"
    crash.mkdir()
    others = dumps(everything) - {
        str(everything / "crash/6.1-fileload" / f) for f in ("elf", "lzo")
    }
    for path in sorted(others):
        name = "-".join(Path(path).parts[-2:])
        os.symlink(os.path.realpath(path), crash / name)
    write_endless(crash / "endless")
    write_hungry(crash / "hungry")
    command = [sys.executable, "-m", "drgn_pmem", "fleet", crash, "-o", out]
    command += ["--debug-directory", everything / "debug", "--scheduler", scheduler]
    command += ["--timeout", "120", "--memory-limit", "400M"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def midway() -> bool:
        return len(list((out / "results").glob("*.json"))) >= len(others) // 3

    def begun() -> list[tuple[str, int]]:
        """Dumps that were begun a moment ago, and their workers: the readers are at work."""
        found = []
        for path in (out / "results").glob("*.begun"):
            with contextlib.suppress(OSError, IndexError):
                fresh = time.time() - path.stat().st_mtime < 0.5
                if fresh and not path.name.startswith(("crash-endless", "crash-hungry")):
                    found.append((path.stem, int(path.read_text().split()[2])))
        return found

    try:
        for _ in range(10):
            with contextlib.suppress(AssertionError):
                wait_until(midway)
                break
        found: list[tuple[str, int]] = []
        wait_until(lambda: found.extend(begun()) or bool(found))
        killed, worker = found[0]
        os.kill(worker, signal.SIGKILL)
        _, said = process.communicate(timeout=3000)
    finally:
        process.kill()
    print(said)
    rows = {Path(path).name: row for path, row in states(out).items()}
    assert rows.pop("endless")[0] == "timed out"
    assert rows.pop("hungry")[0] == "out of memory"
    assert set(rows) == {"-".join(Path(path).parts[-2:]) for path in others}
    assert all(row[0] == "done" for row in rows.values())
    (again,) = [name for name, row in rows.items() if row[1] == 2]
    assert killed.startswith(f"crash-{again}-")


def test_a_dump_that_kills_its_workers_is_a_result(tmp_path: Path, scheduler: str) -> None:
    """Two workers are killed with SIGKILL while they read it, as the OOM killer does; the third
    worker does not read it again."""
    out, crash = tmp_path / "out", tmp_path / "crash"
    crash.mkdir()
    write_endless(crash / "deadly")
    command = [sys.executable, "-m", "drgn_pmem", "fleet", crash, "-o", out]
    process = subprocess.Popen(
        [*command, "--scheduler", scheduler, "--timeout", "300"], stderr=subprocess.PIPE, text=True
    )
    dask = [sys.executable, "-m", "dask", "worker", scheduler, "--no-dashboard", "--no-nanny"]
    third = subprocess.Popen(
        [*dask, "--nthreads", "1", "--local-directory", str(tmp_path / "third")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def readers() -> list[list[str]]:
        begun = (out / "results").glob("crash-deadly-*.begun")
        return [line.split() for path in begun for line in path.read_text().splitlines()]

    killed = []
    try:
        for times in (1, 2):
            wait_until(lambda times=times: len(readers()) == times)
            killed.append(int(readers()[-1][2]))
            os.kill(killed[-1], signal.SIGKILL)
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
        third.kill()
        third.wait()
    print(said)
    assert process.returncode == 1
    assert len(set(killed)) == 2
    assert states(out)[str(crash / "deadly")][:2] == ("crashed the reader", 2)
    assert "crash/deadly: crashed the reader: its worker died 2 times" in said


def test_a_second_worker_is_worth_its_core(everything: Path, tmp_path: Path) -> None:
    times: dict[int, list[float]] = {1: [], 2: []}
    loads = []
    for number in range(ROUNDS):
        for jobs in (1, 2):
            out = tmp_path / f"{number}-{jobs}"
            loads.append(os.getloadavg()[0])
            started = time.monotonic()
            debug = ("--debug-directory", everything / "debug")
            done = fleet(everything / "crash", "-o", out, *debug, "-j", jobs, timeout=3000)
            times[jobs].append(time.monotonic() - started)
            assert len(states(out)) == len(dumps(everything)), done.stderr
    gain = min(times[1]) / min(times[2])
    print(
        f"{len(dumps(everything))} dumps; seconds by workers: {times}; {gain:.2f} times; {loads=}"
    )
    assert gain >= GAIN, f"{gain:.2f} times; load before each run: {loads}"
