# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
``python -m bench.formats [FOLDER]``: one crash in five formats, side by side. FOLDER has ``vmcore``
(the raw one that ``make bench-dump`` leaves, with ``vmlinux`` beside it); ``vmcore.zlib``,
``.lzo``, ``.snappy`` and ``.zstd`` are made from it where they are missing. Medians of several
rounds, all measures of a round in turns, so that they run under the same load; on a machine that
does other work, seconds of CPU compare better than seconds.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
import json
import os
from pathlib import Path
import resource
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
from tabulate import tabulate

from bench.dump import ROOT, find_dump
from bench.rates import Rate, crash_rate
from bench.recompress import recompress
from bench.subject import Subject, open_subject
from drgn_pmem.analysis.pages.scan import Kind, scan_pages
from drgn_pmem.dumpfile import DumpFormat, dump_of
from drgn_pmem.dumpfile.bitmap import COMPRESSION
from drgn_pmem.dumpfile.compressed import CompressedPages
from drgn_pmem.dumpfile.decompress import decompress

_FORMATS = ("raw", "zlib", "lzo", "zstd", "snappy")
_MAKEDUMPFILE = {"zlib": "-c", "lzo": "-l"}
_LINES = ("pmem-rmap", "pmem-page", "pmem-files", "pmem-report")
_FASTER_THAN_DRGN = 20.0


def make_formats(folder: Path, wanted: Sequence[str] = _FORMATS[1:]) -> dict[str, Path]:
    """The files of the crash by format; makes those that are missing."""
    raw = folder / "vmcore"
    paths = {"raw": raw}
    for how in wanted:
        path = folder / f"vmcore.{how}"
        part = folder / f"vmcore.{how}.part"
        if not path.exists() and how in _MAKEDUMPFILE:
            if shutil.which("makedumpfile") is None:
                continue
            print(f"making {path.name}: makedumpfile {_MAKEDUMPFILE[how]} -d 31", file=sys.stderr)
            subprocess.run(
                ["makedumpfile", "--message-level", "2", _MAKEDUMPFILE[how], "-d", "31",
                 str(raw), str(part)],
                check=True,
            )  # fmt: skip
            os.replace(part, path)
        elif not path.exists() and "lzo" in paths:
            print(f"making {path.name} from {paths['lzo'].name}", file=sys.stderr)
            recompress(paths["lzo"], part, how)
            os.replace(part, path)
        if path.exists():
            paths[how] = path
    return dict(sorted(paths.items(), key=lambda item: _FORMATS.index(item[0])))


@dataclass
class _Limit:
    """What reading the struct pages costs at least."""

    size: int = 0
    """Bytes of the file: descriptors and data of the pages that hold them."""
    distinct: int = 0
    """Different compressed pages among these."""
    first: int = 0
    """File offset of the data."""
    pages: tuple[tuple[str, bytes], ...] = ()
    """How each distinct one is compressed, and its bytes."""


def _limit(subject: Subject) -> _Limit:
    dump = dump_of(subject.prog)
    if dump.contained is not DumpFormat.KDUMP or dump.memory is None:
        return _Limit()
    pages: CompressedPages = dump.memory.pages  # type: ignore[attr-defined]
    numbers = np.concatenate([pages.numbers(at, size) for at, size in subject.pieces])
    offset, size, flags = pages.descriptors(numbers)
    distinct: dict[tuple[str, bytes], None] = {}
    places = set(zip(offset.tolist(), size.tolist(), flags.tolist(), strict=True))
    for at, length, flag in sorted(places):
        distinct.setdefault((COMPRESSION.get(flag, ""), dump.read(at, length)))
    compressed = tuple(page for page in distinct if page[0])
    low = int(offset.min())
    data = int((offset + size.astype(np.uint64)).max()) - low
    unshared = sum(length for _, length, _ in places)
    return _Limit(min(data, 2 * unshared) + 24 * len(numbers), len(distinct), low, compressed)


def _dd(path: Path, offset: int, size: int) -> None:
    subprocess.run(
        ["dd", f"if={path}", "of=/dev/null", "bs=4M", f"skip={offset}", f"count={size}",
         "iflag=skip_bytes,count_bytes", "status=none"],
        check=True,
    )  # fmt: skip


def _timed(work: Callable[[], object], pages: int) -> Rate:
    def used() -> float:
        child = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + child.ru_utime + child.ru_stime

    start, cpu = time.perf_counter(), used()
    work()
    return Rate(pages, time.perf_counter() - start, used() - cpu)


def _measures(subject: Subject, limit: _Limit) -> dict[str, Callable[[], Rate]]:
    todo = [(subject.start_pfn, subject.end_pfn, Kind.PAGE)]
    block = dump_of(subject.prog).kdump.block_size if limit.size else 4096  # type: ignore[union-attr]

    def scan(workers: int) -> Callable[[], Rate]:
        def run() -> object:
            return scan_pages(subject.prog, todo, workers=workers)

        return lambda: _timed(run, subject.pages)

    def read() -> None:
        for physical, size in subject.pieces:
            subject.prog.read(physical, size, True)

    def decode() -> None:
        for how, data in limit.pages:
            decompress(how, data, block)

    physical, length = subject.pieces[0][0], sum(size for _, size in subject.pieces)
    offset = limit.first
    if not limit.size:
        segment = next(
            s for s in dump_of(subject.prog).segments
            if s.physical is not None and s.physical <= physical < s.physical + s.file_size
        )  # fmt: skip
        offset = segment.file_offset + physical - (segment.physical or 0)
    measures = {
        "scan, 1 thread": scan(1),
        "scan, 2 threads": scan(2),
        "drgn's read": lambda: _timed(read, subject.pages),
        "dd": lambda: _timed(
            lambda: _dd(subject.path, offset, limit.size or length), subject.pages
        ),
    }
    if limit.pages:
        measures["decode once"] = lambda: _timed(decode, subject.pages)
    return measures


def _median(rates: list[Rate]) -> Rate:
    return Rate(
        rates[0].pages,
        statistics.median(rate.seconds for rate in rates),
        statistics.median(rate.cpu for rate in rates),
    )


def compare_scans(subjects: dict[str, Subject], rounds: int, crash: bool) -> dict[str, object]:
    """Print how fast each format is scanned, beside drgn's read and the limits."""
    limits = {name: _limit(subject) for name, subject in subjects.items()}
    measures = {name: _measures(subject, limits[name]) for name, subject in subjects.items()}
    found: dict[str, dict[str, list[Rate]]] = {name: {} for name in subjects}
    for turn in range(rounds):
        for name, own in measures.items():
            for what, measure in own.items():
                if what == "drgn's read" and turn >= 2 and name != "raw":
                    continue  # seconds each; it varies little
                found[name].setdefault(what, []).append(measure())
    medians = {n: {w: _median(r) for w, r in own.items()} for n, own in found.items()}
    rows = []
    for name, own in medians.items():
        scan, drgn, raw = (
            own["scan, 1 thread"],
            own["drgn's read"],
            medians["raw"]["scan, 1 thread"],
        )
        limit = limits[name]
        kmem = crash_rate(subjects[name]) if crash else None
        rows.append(
            (
                name,
                f"{limit.size / 2**20:,.0f}" if limit.size else f"{scan.pages * 64 / 2**20:,.0f}",
                f"{limit.distinct:,}" if limit.size else "-",
                *(f"{own[what].seconds * 1e3:,.0f} ({own[what].cpu * 1e3:,.0f})" if what in own
                  else "-" for what in ("scan, 1 thread", "scan, 2 threads", "drgn's read", "dd",
                                        "decode once")),
                f"{scan.per_cpu_second / 1e6:,.0f}",
                f"{drgn.seconds / scan.seconds:,.1f} ({drgn.cpu / scan.cpu:,.1f})",
                f"{raw.seconds / scan.seconds:,.2f} ({raw.cpu / scan.cpu:,.2f})",
                f"{kmem.per_second:,.0f}" if kmem else "-",
            )
        )  # fmt: skip
    print(
        tabulate(
            rows,
            headers=("format", "MiB read", "distinct pages", "scan, 1 thread", "scan, 2 threads",
                     "drgn's read", "dd", "decode once", "Mpages/CPU s", "x drgn", "x raw scan",
                     "crash kmem -p /s"),
            tablefmt="pipe",
            disable_numparse=True,
            colalign=("left", *["right"] * 11),
        )
    )  # fmt: skip
    print(
        "\nmilliseconds, of CPU in parentheses; x: how many times as fast as, by time (by CPU)."
        f" Floor of compressed dumps: {_FASTER_THAN_DRGN:.0f} x drgn, 1 x raw scan"
    )
    return {
        name: {what: rate.to_json() for what, rate in own.items()} for name, own in medians.items()
    }


def compare_commands(subjects: dict[str, Subject], rounds: int) -> dict[str, object]:
    """Print what commands take beyond opening, each in a process of its own."""
    raw = subjects["raw"]
    scan = scan_pages(
        raw.prog,
        [(raw.start_pfn, raw.end_pfn, Kind.PAGE)],
        where=lambda runs: runs["mapping"] > 3,
    ).value
    page = f"{int(scan.runs['pfn'][0]) if len(scan.runs) else raw.start_pfn:#x}"
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for line in _LINES:
            words = f"{line} {page}" if line in ("pmem-rmap", "pmem-page") else line
            for name, subject in subjects.items():
                done = subprocess.run(
                    [sys.executable, "-m", "bench.child", words, str(subject.path),
                     str(subject.vmlinux)],
                    cwd=ROOT, check=True, capture_output=True, text=True,
                )  # fmt: skip
                found.setdefault((line, name), []).append(json.loads(done.stdout))
    medians = {
        key: {what: statistics.median(run[what] for run in runs) for what in runs[0]}
        for key, runs in found.items()
    }
    print(
        "\n"
        + tabulate(
            [
                (line, name, *(f"{m[what] * 1e3:,.0f}" for what in
                               ("open", "open_cpu", "seconds", "cpu")),
                 f"{m['cpu'] / m['open_cpu']:.2f}", f"{m['peak'] / 2**20:,.0f}")
                for (line, name), m in medians.items()
            ],
            headers=("command", "format", "opening ms", "of CPU", "beyond it ms", "of CPU",
                     "of opening", "peak MiB"),
            tablefmt="pipe",
            disable_numparse=True,
            colalign=("left", "left", *["right"] * 6),
        )
    )  # fmt: skip
    return {f"{line} {name}": value for (line, name), value in medians.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.formats", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--crash", action="store_true", help="also crash's kmem -p, 20 s each")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    folder = args.folder or find_dump().parent
    vmlinux = folder / "vmlinux"
    subjects = {name: open_subject(path, vmlinux) for name, path in make_formats(folder).items()}
    full = folder / "vmlinux.full"
    for subject in subjects.values():
        subject.crash_vmlinux = full if full.exists() else vmlinux
    print(
        f"{subjects['raw'].pages:,} struct pages; {os.cpu_count()} CPUs,"
        f" load {os.getloadavg()[0]:.1f}; medians of {args.rounds}\n"
    )
    numbers = {
        "scans": compare_scans(subjects, args.rounds, args.crash),
        "commands": compare_commands(subjects, args.rounds),
    }
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
