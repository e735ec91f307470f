# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
``python -m bench.opening [FOLDER]``: from the start of Python to an open dump, and to the first
answer, beside drgn alone: one crash in five formats, each measure in a process of its own, all of a
round in turns. Whole processes; medians of several rounds.
"""

import argparse
from dataclasses import dataclass
import os
from pathlib import Path
import resource
import statistics
import subprocess
import sys
import time

from tabulate import tabulate

from bench.dump import ROOT, find_dump
from bench.formats import make_formats

__all__ = ("DRGN", "WITHOUT_PLUGIN")

DRGN = """
import sys, time
import drgn
prog = drgn.Program()
prog.set_core_dump(sys.argv[1])
prog.load_debug_info([sys.argv[2]])
prog.type("struct page")
prog["init_mm"]
"""
"""drgn alone, with the types and the first symbol, which every use needs."""
WITHOUT_PLUGIN = {"DRGN_DISABLE_PLUGINS": "pmem"}

_OPEN = """
import sys
import drgn_pmem
prog = drgn_pmem.open(sys.argv[1], [sys.argv[2]])
prog.type("struct page")
prog["init_mm"]
"""
_COVERAGE = f"{_OPEN}drgn_pmem.coverage_of(prog)\n"


@dataclass(frozen=True)
class _Time:
    """Of a process."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall * 1e3:,.0f} ({self.cpu * 1e3:,.0f})"


def _timed(words: list[str], environment: dict[str, str]) -> _Time:
    def used() -> float:
        child = resource.getrusage(resource.RUSAGE_CHILDREN)
        return child.ru_utime + child.ru_stime

    start, cpu = time.perf_counter(), used()
    subprocess.run(
        words, cwd=ROOT, check=True, capture_output=True, env={**os.environ, **environment}
    )
    return _Time(time.perf_counter() - start, used() - cpu)


def _measures(path: Path, vmlinux: Path, page: str) -> dict[str, tuple[list[str], dict[str, str]]]:
    files = [str(path), str(vmlinux)]
    command = ["-c", files[0], "-s", files[1]]
    ours = str(Path(sys.executable).parent / "drgn-pmem")
    return {
        "drgn alone": ([sys.executable, "-c", DRGN, *files], WITHOUT_PLUGIN),
        "open()": ([sys.executable, "-c", _OPEN, *files], {}),
        "open(), coverage": ([sys.executable, "-c", _COVERAGE, *files], {}),
        "pmem-rmap": ([ours, *command, "pmem-rmap", page], {}),
        "pmem-files": ([ours, *command, "pmem-files"], {}),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.opening", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--page", default="0x150000", help="for pmem-rmap")
    args = parser.parse_args()
    folder = args.folder or find_dump().parent
    found: dict[tuple[str, str], list[_Time]] = {}
    for _ in range(args.rounds):
        for name, path in make_formats(folder).items():
            for what, measure in _measures(path, folder / "vmlinux", args.page).items():
                found.setdefault((name, what), []).append(_timed(*measure))
    medians = {
        key: _Time(
            statistics.median(t.wall for t in times), statistics.median(t.cpu for t in times)
        )
        for key, times in found.items()
    }
    names = list(dict.fromkeys(name for name, _ in medians))
    columns = list(dict.fromkeys(what for _, what in medians))
    rows = [
        (name, *(str(medians[name, what]) for what in columns),
         f"{medians[name, 'open()'].wall / medians[name, 'drgn alone'].wall:.2f}")
        for name in names
    ]  # fmt: skip
    print(
        tabulate(
            rows,
            headers=("format", *columns, "open() of drgn"),
            tablefmt="pipe",
            disable_numparse=True,
            colalign=("left", *["right"] * (len(columns) + 1)),
        )
    )
    print("\nmilliseconds of the whole process, of CPU in parentheses")
    return 0


if __name__ == "__main__":
    sys.exit(main())
