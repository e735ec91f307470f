# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of fleets share."""

from collections.abc import Callable, Iterator
import json
from pathlib import Path
import subprocess
import sys
import time
from typing import Any

import pytest

from drgn_pmem.fleet.find import identity_of, name_of
from drgn_pmem.fleet.request import Request, product_version

Ask = Callable[..., Request]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Makes the request for a dump, of a run that goes on in ``fleet`` below the test's folder."""
    folder = tmp_path / "fleet"
    for name in ("reports", "results"):
        (folder / name).mkdir(parents=True)
    (folder / ".run-run").touch()

    def make(dump: Path, **changed: Any) -> Request:
        values: dict[str, Any] = {
            "dump": str(dump),
            **identity_of(str(dump)).to_json(),
            "name": name_of(str(dump)),
            "folder": str(folder),
            "run": "run",
            "version": product_version(),
            "debug_directories": (),
            "debug_info": "",
            "timeout": 60.0,
            "memory_limit": 1 << 30,
            "tries": 2,
        }
        return Request(**values | changed)

    return make


def fleet(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "drgn_pmem", "fleet", *map(str, arguments)]
    return subprocess.run(
        command, **{"capture_output": True, "text": True, "timeout": 3000, **options}
    )


def wait_until(happens: Any) -> None:
    for _ in range(1200):
        if happens():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """A scheduler with two workers, each a process of its own, at 127.0.0.1."""
    dask = [sys.executable, "-m", "dask"]
    file = tmp_path / "scheduler.json"
    here = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    work = ["--no-nanny", "--nthreads", "1", "--local-directory", str(tmp_path / "scratch")]
    commands = [
        [*dask, "scheduler", *here, "--port", "0"],
        [*dask, "worker", *here, *work],
        [*dask, "worker", *here, *work],
    ]
    processes = []
    try:
        for command in commands:
            processes.append(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            wait_until(file.exists)
        yield json.loads(file.read_text())["address"]
    finally:
        for process in processes:
            process.kill()
            process.wait()
