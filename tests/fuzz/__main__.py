# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
All of the fuzzers, on all cores, for some minutes: ``python -m tests.fuzz -h``. What failed is kept
in build/fuzz/failed, one file each, which ``--again FILE`` asks again.
"""

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
import importlib.util
import json
import os
from pathlib import Path
import random
import re
import subprocess
import sys
import time

from ..samples import Case, samples
from .files import ALL_LINES, Damaged
from .kernel import Change, Kernel
from .targets import TARGETS

_FOLDER = Path("build/fuzz")
_FAILED = _FOLDER / "failed"
_CUTS = 1000
"""Random places a file at which it is cut, and as many at which it is changed."""
_SHARES = {"guided": 0.15, "kernel": 0.45, "files": 0.4}
"""Of the time: as an hour on two cores has a million executions of readers, 20,000 command runs and
5,000 cut files."""
_READERS = "executions of format readers"
_TEXT = "executions of words and escapes"
_RUNS = "command runs on mutated memory"
_CUT = "cut files"
_CHANGED = "changed files"
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


@dataclass
class Count:
    """What came of one task."""

    task: str
    cases: dict[str, int] = field(default_factory=dict)
    """What was done, and how often."""
    failed: list[str] = field(default_factory=list)
    error: str = ""
    """Why the task itself could not be done."""

    def add(self, what: str, number: int = 1) -> None:
        self.cases[what] = self.cases.get(what, 0) + number

    def __str__(self) -> str:
        done = ", ".join(f"{number:,} {what}" for what, number in self.cases.items())
        return f"{self.task}: {done or 'nothing'}, {len(self.failed)} failed"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", default=str(time.time_ns()))
    parser.add_argument("--only", action="append", choices=_SHARES)
    parser.add_argument("--again", metavar="FILE", help="ask one case again that failed")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    args = parser.parse_args()
    _FAILED.mkdir(parents=True, exist_ok=True)
    if args.again:
        said = again(json.loads(Path(args.again).read_text()))
        print(said or "nothing is wrong")
        return bool(said)
    if args.task:
        count = of_task(args.task, 60 * args.minutes, args.seed)
        print(json.dumps(count.__dict__))
        return 0
    print(f"seed {args.seed}", flush=True)
    counts = list(run_all(args))
    print()
    for what in (_READERS, _TEXT, _RUNS, _CUT, _CHANGED):
        print(f"{what:<32} {sum(count.cases.get(what, 0) for count in counts):>12,}")
    print(f"{'failed':<32} {sum(len(count.failed) for count in counts):>12,}")
    return any(count.failed or count.error for count in counts)


def run_all(args: argparse.Namespace) -> Iterator[Count]:
    """Every task, as many at a time as there are jobs, each with its share of the time."""
    chance = random.Random(args.seed)
    kinds = args.only or list(_SHARES)
    whole = sum(_SHARES[kind] for kind in kinds)
    tasks: list[tuple[str, float]] = []
    for kind in kinds:
        minutes = args.minutes * args.jobs * _SHARES[kind] / whole
        if kind == "guided" and importlib.util.find_spec("atheris") is None:
            version = ".".join(map(str, sys.version_info[:2]))
            print(f"guided: left out, atheris is not installed (has it a wheel for {version}?)")
            continue
        names = list(TARGETS) if kind == "guided" else dumps(chance, minutes)
        tasks += [(f"{kind} {name}", minutes / len(names)) for name in names]
    with ThreadPoolExecutor(args.jobs) as pool:
        for count in pool.map(lambda task: started(*task, args.seed), tasks):
            print(count, flush=True)
            for line in (*count.failed, *filter(None, [count.error])):
                print(f"    {line}", flush=True)
            yield count


def dumps(chance: random.Random, minutes: float) -> list[str]:
    """Some of the dumps, every one in a long run: one for each minute."""
    every = [f"{s.name}:{format}" for s in samples().values() for format in s.formats]
    every = [name for name in every if not name.endswith(":raw")]
    chance.shuffle(every)
    return every[: max(1, round(minutes))]


def started(task: str, minutes: float, seed: str) -> Count:
    """A task in a process of its own."""
    kind, name = task.split(" ", 1)
    own = [sys.executable, "-m"]
    if kind == "guided":
        folder = _FOLDER / name
        seconds = max(1, round(60 * minutes))
        command = [*own, "tests.fuzz.guided", name, str(folder), f"-max_total_time={seconds}"]
    else:
        command = [*own, "tests.fuzz", "--task", task, "--minutes", str(minutes), "--seed", seed]
    # Of more threads libgomp, by which drgn reads debug info, waits for ever in a fork.
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=one)
    if kind != "guided":
        lines = done.stdout.splitlines()
        if done.returncode or not lines:
            return Count(task, error=f"status {done.returncode}: {done.stderr[-2000:]}")
        return Count(**json.loads(lines[-1]))
    executed = _EXECUTED.search(done.stdout + done.stderr)
    count = Count(task)
    count.add(
        _TEXT if name in ("words", "escapes") else _READERS, int(executed[1] if executed else 0)
    )
    if done.returncode:
        kept = sorted((folder / "failed").iterdir()) if (folder / "failed").exists() else []
        count.failed = [str(path) for path in kept[-1:]]
        count.error = "\n    ".join(done.stderr.splitlines()[-12:])
    return count


def of_task(task: str, seconds: float, seed: str) -> Count:
    """One task, in this process."""
    kind, name = task.split(" ", 1)
    chance = random.Random(f"{seed} {task}")
    count = Count(task)
    sample, _, format = name.partition(":")
    case = Case(samples()[sample], format)
    until = time.monotonic() + seconds
    for facts, said in of_kernel(case, chance) if kind == "kernel" else of_files(case, chance):
        count.add(_RUNS if "line" in facts else _CUT if "cut" in facts else _CHANGED)
        if said:
            path = _FAILED / f"{kind}-{name}-{len(count.failed)}-{os.getpid()}.json"
            path.write_text(json.dumps({"task": task, **facts, "said": said}, indent=1))
            count.failed.append(f"{path}: {facts}: {said.strip().splitlines()[-1]}")
        if time.monotonic() > until or len(count.failed) > 20:
            break
    return count


def of_kernel(case: Case, chance: random.Random) -> Iterator[tuple[dict[str, object], str]]:
    kernel = Kernel(case)
    while True:
        line, changes = kernel.case(chance)
        yield {"line": line, "changes": [*map(str, changes)]}, kernel.ask(line, changes)


def of_files(case: Case, chance: random.Random) -> Iterator[tuple[dict[str, object], str]]:
    damaged = Damaged(case.dump, _FOLDER / "files")
    try:
        cuts, changes = damaged.cuts(chance, _CUTS), damaged.changes(chance, _CUTS)
        for number, size in enumerate(cuts):
            yield {"cut": size}, damaged.cut(size)
            if number % 3 == 0:
                at, data = next(changes, (0, b""))
                yield {"at": at, "data": data.hex()}, damaged.changed(at, data)
    finally:
        damaged.close()


def again(facts: dict[str, object]) -> str:
    """What a case that failed says now."""
    kind, name = str(facts["task"]).split(" ", 1)
    sample, _, format = name.partition(":")
    case = Case(samples()[sample], format)
    if kind == "kernel":
        changes = [
            Change(int(at, 0), bytes.fromhex(data))
            for at, data in (change.split("=") for change in facts["changes"])  # type: ignore[attr-defined]
        ]
        return Kernel(case).ask(str(facts["line"]), changes)
    damaged = Damaged(case.dump, _FOLDER / "files")
    try:
        if "cut" in facts:
            return damaged.cut(int(str(facts["cut"])), ALL_LINES)
        return damaged.changed(int(str(facts["at"])), bytes.fromhex(str(facts["data"])), ALL_LINES)
    finally:
        damaged.close()


if __name__ == "__main__":
    sys.exit(main())
