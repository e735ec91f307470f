# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pages per second of drgn-pmem and of the alternatives. Each measure looks at flags,
refcount and mapping of as many struct pages as it can in its time."""

from collections.abc import Callable
from dataclasses import dataclass
import itertools
import os
from pathlib import Path
import resource
import shutil
import subprocess
import time

from drgn import Object
from drgn.helpers.linux.mm import for_each_page
import numpy as np

from bench.subject import Subject
from drgn_pmem.analysis.pages.scan import Kind, scan_pages
from drgn_pmem.dumpfile import DumpFormat, dump_of
from drgn_pmem.kernel.page import page_layout

__all__ = ("MEASURES", "Measure", "Rate", "crash_rate")

_LOOP_PAGES = 20_000
"""Pages that the slow loops look at."""
_CRASH_SECONDS = 20
_READ = 4 << 20


@dataclass(frozen=True)
class Rate:
    """What one run of a measure gave."""

    pages: int
    seconds: float
    cpu: float = 0.0
    """CPU time, in seconds."""

    @property
    def per_second(self) -> float:
        return self.pages / self.seconds if self.seconds else 0.0

    @property
    def per_cpu_second(self) -> float:
        return self.pages / self.cpu if self.cpu else 0.0

    def better(self, other: "Rate | None") -> "Rate":
        """The best of both, each by itself."""
        if other is None:
            return self
        return Rate(self.pages, min(self.seconds, other.seconds), min(self.cpu, other.cpu))

    def to_json(self) -> dict[str, float]:
        return {
            "pages": self.pages,
            "pages_per_second": self.per_second,
            "pages_per_cpu_second": self.per_cpu_second,
        }


class _Clock:
    """Time of a piece of work."""

    def __init__(self) -> None:
        self._start, self._cpu = time.perf_counter(), time.process_time()

    def rate(self, pages: int) -> Rate:
        seconds, cpu = time.perf_counter() - self._start, time.process_time() - self._cpu
        return Rate(pages, seconds, cpu)


@dataclass(frozen=True)
class Measure:
    """Something to time."""

    name: str
    what: str
    run: Callable[[Subject], "Rate | None"]
    """None if it cannot run here."""
    missing: str = ""
    """Why it could not."""
    once: bool = False
    """Too slow for every round."""


def _ours(workers: int) -> Callable[[Subject], Rate]:
    def run(subject: Subject) -> Rate:
        clock = _Clock()
        scan = scan_pages(
            subject.prog, [(subject.start_pfn, subject.end_pfn, Kind.PAGE)], workers=workers
        ).value
        rate = clock.rate(subject.pages)
        assert scan.pages == subject.end_pfn - subject.start_pfn
        return rate

    return run


def _drgn_loop(subject: Subject) -> Rate:
    """A plain loop over struct page objects."""
    layout = page_layout(subject.prog)
    pages = Object(subject.prog, "struct page *", layout.vmemmap)
    count = min(_LOOP_PAGES, subject.blocks[0].count)
    seen: dict[tuple[int, int, int], int] = {}
    clock = _Clock()
    for pfn in range(subject.start_pfn, subject.start_pfn + count):
        page = pages + pfn
        flags = page.flags
        key = (
            # a struct since v7.1
            flags.f.value_() if hasattr(flags, "f") else flags.value_(),
            page._refcount.counter.value_(),
            page.mapping.value_(),
        )
        seen[key] = seen.get(key, 0) + 1
    return clock.rate(count)


def _helper_loop(subject: Subject) -> Rate:
    """drgn's for_each_page(): it starts at the first page of the machine."""
    seen: dict[int, int] = {}
    clock = _Clock()
    count = 0
    for page in itertools.islice(for_each_page(subject.prog), _LOOP_PAGES):
        mapping = page.mapping.value_()
        seen[mapping] = seen.get(mapping, 0) + 1
        count += 1
    return clock.rate(count)


def crash_rate(subject: Subject) -> Rate | None:
    """``kmem -p`` of crash: lines per second, its own start not counted."""
    program = shutil.which("crash")
    if program is None or subject.crash_vmlinux is None:
        return None
    command = [program, "-s", "--no_scroll", "--kaslr=auto", str(subject.crash_vmlinux)]
    command.append(str(subject.path))
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"kmem -p\nquit\n")
    process.stdin.close()
    lines, start, cpu = 0, 0.0, 0.0
    try:
        while chunk := os.read(process.stdout.fileno(), 1 << 20):
            if not start:
                start, cpu = time.perf_counter(), _cpu_of(process.pid)
                continue
            lines += chunk.count(b"\n")
            if time.perf_counter() - start > _CRASH_SECONDS:
                break
        end, cpu = time.perf_counter(), _cpu_of(process.pid) - cpu
    finally:
        process.kill()
        process.wait()
    return Rate(lines, end - start, cpu) if lines > 100 else None


def _cpu_of(pid: int) -> float:
    """CPU time of a process (seconds): utime and stime of proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _dd(subject: Subject) -> Rate | None:
    """dd of the part of the file that holds the struct pages."""
    dump = dump_of(subject.prog)
    physical, size = subject.pieces[0][0], sum(size for _, size in subject.pieces)
    if dump.format is not DumpFormat.ELF:
        return None
    segment = next(
        s
        for s in dump.segments
        if s.physical is not None and s.physical <= physical < s.physical + s.file_size
    )
    offset = segment.file_offset + physical - (segment.physical or 0)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(
        ["dd", f"if={subject.path}", "of=/dev/null", f"bs={_READ}", f"skip={offset}",
         f"count={size}", "iflag=skip_bytes,count_bytes", "status=none"],
        check=True,
    )  # fmt: skip
    seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - children.ru_utime - children.ru_stime
    return Rate(subject.pages, seconds, cpu)


def _read_only(subject: Subject) -> Rate:
    """prog.read() and nothing else."""
    clock = _Clock()
    for physical, size in subject.pieces:
        subject.prog.read(physical, size, True)
    return clock.rate(subject.pages)


def _numpy(subject: Subject) -> Rate:
    """prog.read() and counting with numpy, without coverage, runs, groups or compound pages."""
    layout = page_layout(subject.prog)
    page = np.dtype(
        {
            "names": ["flags", "mapping", "refcount"],
            "formats": ["u8", "u8", "i4"],
            "offsets": [layout.flags, layout.mapping, layout.refcount],
            "itemsize": layout.size,
        }
    )
    busy = 0
    first: np.void | None = None
    clock = _Clock()
    for physical, size in subject.pieces:
        data = subject.prog.read(physical, size - size % layout.size, True)
        pages = np.frombuffer(data, page)
        if first is None:
            first = pages[0]
        other = pages["flags"] != first["flags"]
        other |= pages["mapping"] != first["mapping"]
        other |= pages["refcount"] != first["refcount"]
        busy += int(np.count_nonzero(other))
    return clock.rate(subject.pages)


MEASURES = (
    Measure("scan, 1 thread", "drgn_pmem.analysis.pages.scan.scan_pages(workers=1)", _ours(1)),
    Measure("scan", f"the same, {min(os.cpu_count() or 1, 4)} threads",
            _ours(min(os.cpu_count() or 1, 4))),
    Measure("drgn loop", "(a) flags, refcount, mapping of each struct page in a Python loop",
            _drgn_loop),
    Measure("for_each_page", "(b) page.mapping of drgn's for_each_page()", _helper_loop),
    Measure("crash kmem -p", "(c) crash on the same dump, without its start", crash_rate,
            "crash is not installed, or cannot open this dump with this vmlinux", once=True),
    Measure("dd", "(d) dd of the same bytes to /dev/null", _dd, "not an uncompressed ELF dump"),
    Measure("prog.read", "(d) drgn reading the same bytes", _read_only),
    Measure("prog.read + numpy", "(d) and counting them with numpy alone", _numpy),
)  # fmt: skip
