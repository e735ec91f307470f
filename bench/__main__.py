# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
``python -m bench [DUMP [VMLINUX]]``: measure, and print tables. All measures of a table run in
turns, under the same load; the best round counts.
"""

import argparse
import json
import os
from pathlib import Path
import subprocess
import sys
import time

from tabulate import tabulate

from bench.dump import ROOT, find_dump, find_vmlinux
from bench.headers import COUNT, header_seconds
from bench.rates import MEASURES, Rate
from bench.subject import Subject, open_subject

_FLOOR = 50e6
"""Pages per second that one thread must do on an uncompressed ELF dump."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("dump", nargs="?", type=Path, help="default: the large dump")
    parser.add_argument("vmlinux", nargs="?", type=Path, help="default: the dump's")
    parser.add_argument(
        "--crash-vmlinux",
        type=Path,
        metavar="VMLINUX",
        help="for crash, which wants all of the debug info; default: vmlinux.full beside the dump",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the numbers to a file")
    args = parser.parse_args()
    path = args.dump or find_dump()
    subject = open_subject(path, args.vmlinux or find_vmlinux(path))
    full = args.crash_vmlinux or path.with_name("vmlinux.full")
    subject.crash_vmlinux = full if full.exists() else subject.vmlinux
    print(
        f"{path.name}: {subject.pages} struct pages of one namespace; "
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    numbers: dict[str, object] = {"pages": subject.pages, "rates": rates(subject, args.rounds)}
    if subject.vmlinux is not None:
        numbers["commands"] = commands(subject, args.rounds)
    numbers["headers"] = seconds = header_seconds(args.rounds)
    print(f"\nan elfcorehdr of {COUNT} program headers, CPU ms:")
    print(", ".join(f"{name} {value * 1000:,.0f}" for name, value in seconds.items()))
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=2))
    return 0


def rates(subject: Subject, rounds: int) -> dict[str, dict[str, float]]:
    """
    Pages per second of every measure, and per second of CPU time: on a loaded machine,
    the second shows what one core can do.
    """
    best: dict[str, Rate] = {}
    for turn in range(rounds):
        for measure in MEASURES:
            if measure.once and turn:
                continue
            rate = measure.run(subject)
            if rate is not None:
                best[measure.name] = rate.better(best.get(measure.name))
    ours = best["scan, 1 thread"]
    rows = []
    for measure in MEASURES:
        rate = best.get(measure.name)
        if rate is None:
            rows.append((measure.name, "-", "-", "-", f"{measure.what}: {measure.missing}"))
            continue
        times = ours.per_second / rate.per_second
        rows.append(
            (
                measure.name,
                f"{rate.per_second:,.0f}",
                "" if measure.name.startswith("scan") else f"{times:,.2f}",
                f"{rate.per_cpu_second:,.0f}" if rate.cpu else "-",
                measure.what,
            )
        )
    print()
    print(
        tabulate(
            rows,
            headers=("", "pages/s", "1 thread is times", "pages/CPU s", "what"),
            tablefmt="plain",
            disable_numparse=True,
            colalign=("left", "right", "right", "right", "left"),
        )
    )
    print(f"floor: {_FLOOR:,.0f} pages/s on one core of an uncompressed ELF dump")
    return {name: rate.to_json() for name, rate in best.items()}


def _child(line: str, subject: Subject) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.child", line, str(subject.path), str(subject.vmlinux)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def _owned_page(subject: Subject) -> int:
    """A page of some file."""
    from drgn_pmem.analysis.pages.scan import Kind, scan_pages

    scan = scan_pages(
        subject.prog,
        [(subject.start_pfn, subject.end_pfn, Kind.PAGE)],
        where=lambda runs: runs["mapping"] > 3,
    ).value
    return int(scan.runs["pfn"][0]) if len(scan.runs) else subject.start_pfn


def _start(command: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(
        command, check=False, capture_output=True, env=os.environ | environment, cwd=ROOT
    )
    return time.perf_counter() - start


def commands(subject: Subject, rounds: int) -> dict[str, dict[str, float]]:
    """Commands beyond opening the dump, each in a process of its own."""
    page = f"{_owned_page(subject):#x}"
    lines = {
        "pmem-pages": "pmem-pages",
        "pmem-pages --ranges": "pmem-pages --ranges",
        "pmem-rmap": f"pmem-rmap {page}",
        "pmem-files": "pmem-files",
    }
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for name, line in lines.items():
            answer = _child(line, subject)
            known = best.setdefault(name, answer)
            best[name] = {key: min(value, known[key]) for key, value in answer.items()}
    rows = [
        (name, f"{b['seconds'] * 1000:,.0f}", f"{b['cpu'] * 1000:,.0f}", f"{b['open'] * 1000:,.0f}",
         f"{b['peak'] / 2**20:,.0f}", f"{b['records']:.0f}")
        for name, b in best.items()
    ]  # fmt: skip
    print()
    print(
        tabulate(
            rows,
            headers=("command", "ms beyond opening", "CPU ms", "opening ms", "peak MiB", "records"),
            tablefmt="plain",
            disable_numparse=True,
            colalign=("left", *["right"] * 5),
        )
    )
    drgn = [str(Path(sys.executable).with_name("drgn")), "-q", "--no-default-symbols", "-c"]
    drgn += [str(subject.path), "-e", "None"]
    starts = {
        "drgn without the plugin": min(
            _start(drgn, {"DRGN_DISABLE_PLUGINS": "pmem"}) for _ in range(rounds)
        ),
        "drgn with the plugin": min(_start(drgn, {}) for _ in range(rounds)),
    }
    print()
    for name, seconds in starts.items():
        print(f"{name}: {seconds * 1000:,.0f} ms to start")
    return {**best, "start": starts}


if __name__ == "__main__":
    sys.exit(main())
