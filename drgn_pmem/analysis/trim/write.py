# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Writing a trimmed dump
----------------------

Writes what a plan keeps into an open file, and reads the file again: to check its memory against
the plan, and for its SHA-256.
"""

from collections.abc import Callable, Iterator
import hashlib
import os

from drgn import Program

from drgn_pmem.analysis.trim.plan import TrimPlan
from drgn_pmem.analysis.trim.source import contents_of
from drgn_pmem.dumpfile import State, dump_of, open_dump
from drgn_pmem.dumpfile.writing.compress import compressor
from drgn_pmem.dumpfile.writing.contents import Contents, Runs
from drgn_pmem.dumpfile.writing.elffile import write_elf
from drgn_pmem.dumpfile.writing.kdumpfile import write_kdump
from drgn_pmem.dumpfile.writing.pump import read_pages
from drgn_pmem.errors import DumpFileError
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.ranges import Range, RangeSet
from drgn_pmem.record import Record, Show, shown

__all__ = ("Written", "check_memory", "estimate", "sha256_of", "write_trimmed")

Report = Callable[[int, int], None]

_SAMPLES = 256
"""Number of pages that the estimate compresses, and that are compared after writing."""
_MARGIN = 1.25
_CHUNK = 1 << 20
_NOTHING = RangeSet()


class Written(Record):
    """A file that was written."""

    size: int
    """bytes"""
    damaged: RangeSet = shown(Show.HIDDEN)
    """Pages that were to be kept and cannot be decompressed: excluded in the file."""


def write_trimmed(
    prog: Program, plan: TrimPlan, number: int, format: str, compression: str, report: Report
) -> Partial[Written]:
    """
    Write what a plan keeps.

    :param number: File descriptor of an empty file, open for reading too.
    :param format: ``"kdump"`` or ``"elf"``.
    :param compression: Of a kdump-compressed dump.
    :param report: Called with bytes of memory done and in all.
    """
    problems = Problems()
    contents = contents_of(prog, plan, problems, format)
    pages = RangeSet(_write(number, contents, format, compression, report))
    if pages:
        why = (
            f"{len(pages)} damaged pages, which cannot be decompressed, are left out, the first at "
        )
        why += f"{pages.ranges[0].start:#x}"
        problems.add(Problem(cause=Cause.DAMAGED, why=why))
        os.ftruncate(number, 0)
        _write(number, contents.without(pages), format, compression, report)
    return problems.partial(Written(size=os.fstat(number).st_size, damaged=pages))


def _write(
    number: int, contents: Contents, format: str, compression: str, report: Report
) -> list[Range]:
    if format == "elf":
        return write_elf(number, contents, report)
    return write_kdump(number, contents, compression, report)


def estimate(prog: Program, plan: TrimPlan, format: str, compression: str) -> int:
    """Bytes that the file may take, from a sample of the pages."""
    problems = Problems()
    contents = contents_of(prog, plan, problems)
    compress = None if format == "elf" else compressor(compression, contents.page_size)
    memory, damaged, sizes = contents.reader(), list[Range](), []
    for page in _sample(plan.keep, contents.page_size):
        data = read_pages(contents, memory, page, damaged)
        if not any(data):
            sizes.append(0)
        else:
            sizes.append(page.size if compress is None else min(page.size, len(compress(data))))
    if not sizes:
        return 0
    share = sum(sizes) / (len(sizes) * contents.page_size)
    return int(plan.keep.total * min(share * _MARGIN, 1.0)) + plan.keep.total // 100


def _sample(runs: Runs, size: int) -> Iterator[Range]:
    """Pages at equal distances in what is kept."""
    step = max(size, runs.total // _SAMPLES // size * size)
    passed = 0
    for run in runs:
        first = run.start + -passed % step
        passed += run.size
        for start in range(first, run.end, step):
            if start + size <= run.end:
                yield Range(start, start + size)


def check_memory(prog: Program, plan: TrimPlan, path: str, damaged: RangeSet = _NOTHING) -> None:
    """
    Check that a written file holds what a plan keeps and nothing else.

    :param path: The file.
    :param damaged: Pages that could not be decompressed and are not in the file.
    :raises DumpFileError: if it does not
    """
    dump, written = dump_of(prog), open_dump(path)
    problems = Problems()
    contents = contents_of(prog, plan, problems).without(damaged)
    got = Runs.in_state(written.coverage, State.SAVED)
    extra = got.subtract(RangeSet(contents.kept)).total
    if extra:
        raise DumpFileError(f"the file holds {extra} bytes that were to be dropped")
    lost = contents.kept.total - got.total
    if lost:
        raise DumpFileError(f"the file lacks {lost} bytes that were to be kept")
    if written.truncated or written.vmcoreinfo != prog["VMCOREINFO"].string_().rstrip(b"\0"):
        raise DumpFileError("the headers of the file are not those that were written")
    memory = written.memory
    assert memory is not None
    own = contents.reader()
    for page in _sample(contents.kept, contents.page_size):
        if memory.read(page.start, page.size) != read_pages(contents, own, page, []):
            raise DumpFileError(f"{page} of the file is not what {dump.path} has")


def sha256_of(number: int, report: Report) -> str:
    """SHA-256 of a file, from its beginning."""
    digest, place, total = hashlib.sha256(), 0, os.fstat(number).st_size
    while data := os.pread(number, _CHUNK, place):
        digest.update(data)
        place += len(data)
        report(place, total)
    return digest.hexdigest()
