# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
pmem-trim of the large dump: ``python -m bench.trim``. How fast it writes, beside the compressor
alone on the same pages and cores, in turns; then the whole command, with its memory.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
import os
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
import time

from tabulate import tabulate

import drgn_pmem
from drgn_pmem.analysis.trim.plan import plan_trim
from drgn_pmem.analysis.trim.source import contents_of
from drgn_pmem.analysis.trim.write import write_trimmed
from drgn_pmem.dumpfile.writing.compress import Compress, compressor
from drgn_pmem.dumpfile.writing.contents import Contents
from drgn_pmem.dumpfile.writing.pump import batches, threads
from drgn_pmem.partial import Problems

MiB = 1 << 20
HOW = ("zlib", "zstd", "lzo")
_AT_ONCE = 128
"""Batches (of a megabyte) that are in memory while their compression is measured."""


def _clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> tuple[float, float]:
    wall, cpu = _clock()
    return wall - start[0], cpu - start[1]


def _compress(work: tuple[Compress, list[bytes], int]) -> None:
    compress, chunks, size = work
    for data in chunks:
        for at in range(0, len(data), size):
            compress(data[at : at + size])


def compressor_alone(contents: Contents, how: str) -> tuple[float, float]:
    """Seconds (wall, CPU) of compressing all pages in memory; reading them is not counted."""
    size, memory, count = contents.page_size, contents.reader(), threads()
    calls = [compressor(how, size) for _ in range(count)]
    total = [0.0, 0.0]
    chunks: list[bytes] = []

    def measure(pool: ThreadPoolExecutor) -> None:
        work = [(call, chunks[n::count], size) for n, call in enumerate(calls)]
        start = _clock()
        list(pool.map(_compress, work))
        for number, seconds in enumerate(_since(start)):
            total[number] += seconds
        chunks.clear()

    with ThreadPoolExecutor(count) as pool:
        for batch in batches(contents.kept.whole(size)):
            chunks += [memory.read(part.start, part.size) for part in batch]
            if len(chunks) >= _AT_ONCE:
                measure(pool)
        measure(pool)
    return total[0], total[1]


def _tree(pid: int) -> list[int]:
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            found += _tree(int(child))
    return found


def _kilobytes(pid: int) -> dict[str, int]:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {
        line.split(":")[0]: int(line.split()[1])
        for line in text.splitlines()
        if line.endswith(" kB")
    }


def whole_command(dump: str, vmlinux: str, *options: str) -> tuple[float, int, int, int]:
    """
    Seconds, most memory of one process and of all (PSS: what they share counts once), size of the
    new file (bytes).
    """
    with tempfile.TemporaryDirectory(dir="build") as folder:
        new = Path(folder) / "new"
        words = [sys.executable, "-m", "drgn_pmem", "-c", dump, "-s", vmlinux]
        start, one, every = time.perf_counter(), 0, 0
        with subprocess.Popen(
            [*words, "pmem-trim", "-o", str(new), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as child:
            while child.poll() is None:
                together = 0
                for pid in _tree(child.pid):
                    try:
                        found = _kilobytes(pid)
                    except (OSError, KeyError):
                        continue  # it has ended
                    one = max(one, found["Rss"] << 10)
                    together += found["Pss"] << 10
                every = max(every, together)
                time.sleep(0.02)
        if child.returncode:
            raise SystemExit(f"pmem-trim {' '.join(options)}: exit status {child.returncode}")
        return time.perf_counter() - start, one, every, new.stat().st_size


def _print(headers: list[str], rows: list[list[str]]) -> None:
    print(tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dump", default="build/bench-dump/vmcore")
    parser.add_argument("--vmlinux", default="build/bench-dump/vmlinux")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    prog = drgn_pmem.open(args.dump, [args.vmlinux])
    plan = plan_trim(prog).whole()
    contents = contents_of(prog, plan, Problems())
    rows = []
    for how in HOW:
        ours: list[tuple[float, float]] = []
        alone: list[tuple[float, float]] = []
        for _ in range(args.rounds):
            with tempfile.TemporaryFile(dir="build") as file:
                start = _clock()
                write_trimmed(prog, plan, file.fileno(), "kdump", how, lambda done, total: None)
                ours.append(_since(start))
            alone.append(compressor_alone(contents, how))
        mib = plan.keep.total / MiB
        speeds = [
            [mib / statistics.median(times) for times in zip(*measured, strict=True)]
            for measured in (ours, alone)
        ]
        rows.append(
            [how]
            + [f"{wall:,.0f} ({cpu:,.0f})" for wall, cpu in speeds]
            + [" ".join(f"{a / b:.2f}" for a, b in zip(*speeds, strict=True))]
        )
    print(
        f"{plan.keep.total / MiB:,.0f} MiB kept, {threads()} threads, load {os.getloadavg()[0]:.1f}"
    )
    _print(["compression", "pmem-trim", "compressor alone", "ratio wall, CPU"], rows)
    print()
    rows = []
    for options in (
        ["--compress", "zlib"],
        ["--compress", "zlib", "--no-verify"],
        ["--compress", "zstd"],
        ["--compress", "lzo"],
        ["--format", "elf"],
    ):
        seconds, one, every, size = whole_command(args.dump, args.vmlinux, *options)
        numbers = [f"{seconds:.1f}"] + [f"{n / MiB:,.0f}" for n in (one, every, size)]
        rows.append([" ".join(options), *numbers])
    _print(["", "s", "MiB, one process", "MiB, all processes", "MiB of the file"], rows)


if __name__ == "__main__":
    main()
