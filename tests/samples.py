# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The sample dumps, for tests.

A case is a sample in one of its formats. What a test expects comes from the sample's ``truth/``,
which the crashed kernel's own tools printed before the crash, never from an earlier answer of ours.
"""

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass
import functools
import io
import json
from pathlib import Path
import re
import shlex
from typing import Any

from drgn import Program

import drgn_pmem
from drgn_pmem.commands import load_commands
from drgn_pmem.shell.sample import Sample, load_index
from drgn_pmem.spec import SPECS, Answer, run

__all__ = (
    "CASES",
    "Case",
    "TruthPage",
    "open_crash",
    "pmem_samples",
    "program",
    "run_json",
    "run_text",
    "samples",
    "truth_pages",
)


@functools.cache
def samples() -> dict[str, Sample]:
    """Every sample of vmcores/ and of the folders that DRGN_PMEM_SAMPLES names."""
    return load_index()[0]


@dataclass(frozen=True)
class Case:
    """A sample in one of its formats."""

    sample: Sample
    format: str

    def __str__(self) -> str:
        return f"{self.sample.name}:{self.format}"

    @property
    def prog(self) -> Program:
        return program(self.sample.name, self.format)

    def json(self, line: str) -> Any:
        """The JSON that a command prints on it; computed once per process."""
        return json.loads(_json_text(self.sample.name, self.format, line))

    def truth(self, name: str) -> str:
        """Text of a file of the truth."""
        return (self.sample.truth / name).read_text()

    def truth_json(self, name: str) -> Any:
        return json.loads(self.truth(name))


def pmem_samples() -> list[Sample]:
    """The samples of machines with NVDIMMs; those of firmware-assisted dump have none."""
    return [sample for sample in samples().values() if sample.loader != "fadump"]


CASES = [Case(sample, format) for sample in pmem_samples() for format in sample.formats]


@functools.lru_cache(maxsize=2)
def program(name: str, format: str) -> Program:
    """The program of a case, opened once per process and a few at a time."""
    sample = samples()[name]
    return open_crash(sample, sample.dump(format))


def open_crash(sample: Sample, path: Path) -> Program:
    """A dump of a sample's crash, opened anew with the sample's debug info."""
    return drgn_pmem.open(
        path,
        sample.debug_info(),
        debug_directories=sample.debug_directories,
        kernel_directories=sample.kernel_directories,
    )


@functools.cache
def _json_text(name: str, format: str, line: str) -> str:
    return _run(program(name, format), f"{line} --json")[1]


def _run(prog: Program, line: str) -> tuple[Answer | None, str, str]:
    load_commands()
    words = shlex.split(line)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        answer = run(SPECS[words[0]], prog, words[1:])
    return answer, out.getvalue(), err.getvalue()


def run_json(prog: Program, line: str) -> Any:
    """The JSON that a command prints; ``--json`` is added to the line."""
    return json.loads(_run(prog, f"{line} --json")[1])


def run_text(prog: Program, line: str) -> tuple[str, str]:
    """Standard output and standard error of a command."""
    return _run(prog, line)[1:]


@dataclass(frozen=True)
class TruthPage:
    """One page that a process had mapped, as ``/proc/PID/pagemap`` said last before the crash."""

    pid: int
    comm: str
    path: str
    inode: int
    offset: int
    """bytes in the file"""
    address: int
    """virtual, in the process"""
    present: bool
    pfn: int


_PAGE = re.compile(
    r"PAGE pid=(?P<pid>\d+) comm=(?P<comm>\S+) path=(?P<path>\S+) ino=(?P<inode>\d+) "
    r"fileoff=(?P<offset>\w+) va=(?P<address>\w+) present=(?P<present>\d) pfn=(?P<pfn>\w+)"
)


def truth_pages(sample: Sample) -> Iterator[TruthPage]:
    """Every page of the last recording before the crash."""
    files = sorted(sample.truth.glob("final.*.txt")) or sorted(sample.truth.glob("map.*.txt"))
    assert files, f"no recording of mapped pages in {sample.truth}"
    for file in files:
        for match in _PAGE.finditer(file.read_text()):
            yield TruthPage(
                pid=int(match["pid"]),
                comm=match["comm"],
                path=match["path"],
                inode=int(match["inode"]),
                offset=int(match["offset"], 16),
                address=int(match["address"], 16),
                present=match["present"] == "1",
                pfn=int(match["pfn"], 16),
            )
