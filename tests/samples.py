# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The sample dumps, for tests.

A case is a sample in one of its formats. What a test expects comes from the sample's ``truth/``,
which the crashed kernel's own tools printed before the crash, never from an earlier answer of ours.
"""

import atexit
from collections.abc import Iterator
import contextlib
from dataclasses import dataclass
import functools
import io
import json
import os
from pathlib import Path
import re
import shlex
import shutil
import struct
import tempfile
from typing import Any

from drgn import Program
from drgn.helpers.linux.mm import follow_phys

import drgn_pmem
from drgn_pmem.commands import load_commands
from drgn_pmem.dumpfile.program import open_program
from drgn_pmem.shell.sample import Sample, load_index
from drgn_pmem.spec import SPECS, Answer, run

__all__ = (
    "ASKED",
    "CASES",
    "CUT_SHORT",
    "FLATTENED",
    "NO_DEBUG_INFO",
    "OF_KEXEC",
    "Case",
    "TruthPage",
    "bare",
    "dax_without_namespace",
    "named",
    "open_crash",
    "page_size",
    "physical_of_struct_page",
    "pmem_samples",
    "program",
    "recorded_pmem",
    "run_answer",
    "run_json",
    "run_text",
    "samples",
    "truth_pages",
    "without_debug_info",
)

NO_DEBUG_INFO = "no debug info"

ASKED: set[tuple[str, str, str]] = set()
"""(sample, format, command) of what was asked since someone emptied it: tests/matrix.py does."""

_NAME = "tests.samples.name"
"""Where a program keeps which sample and format it is."""


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

    @property
    def dump(self) -> Path:
        """The file."""
        return _file(self.sample, self.format)

    @property
    def page(self) -> int:
        """Bytes of a page of its kernel."""
        return page_size(self.sample.truth)

    def json(self, line: str) -> Any:
        """The JSON that a command prints on it; computed once per process."""
        ASKED.add((self.sample.name, self.format, line.split()[0]))
        return json.loads(_json_text(self.sample.name, self.format, line))

    def truth(self, name: str) -> str:
        """Text of a file of the truth."""
        return (self.sample.truth / name).read_text()

    def truth_json(self, name: str) -> Any:
        return json.loads(self.truth(name))


def pmem_samples() -> list[Sample]:
    """The samples of machines with NVDIMMs: their libnvdimm was asked."""
    return [s for s in samples().values() if (s.truth / "sysfs.nd").exists()]


@functools.cache
def page_size(truth: Path) -> int:
    """Of the kernel whose processes were recorded; what maps huge pages says that of them."""
    sizes = [
        int(size) * 1024
        for smaps in truth.glob("proc/*/smaps")
        for size in re.findall(r"^KernelPageSize: +(\d+) kB$", smaps.read_text(), re.MULTILINE)
    ]
    return min(sizes)


def recorded_pmem(case: Case) -> list[tuple[int, int]]:
    """[start, end) of every region, as /sys had it: /proc/iomem does not say of all that they are
    persistent memory (virtio-pmem)."""
    return _recorded_pmem(case.sample.name)


@functools.cache
def _recorded_pmem(sample: str) -> list[tuple[int, int]]:
    found: dict[str, dict[str, str]] = {}
    for region, name, value in re.findall(
        r"^(region\d+)/(resource|size)=(\w+)",
        (samples()[sample].truth / "sysfs.nd").read_text(),
        re.MULTILINE,
    ):
        found.setdefault(region, {})[name] = value
    starts = {region: int(f["resource"], 16) for region, f in found.items()}
    return sorted((start, start + int(found[region]["size"])) for region, start in starts.items())


def dax_without_namespace(case: Case) -> dict[str, dict[str, Any]]:
    """DAX devices that no namespace made (hmem, volatile CXL), as daxctl listed them, by name."""
    return _dax_without_namespace(case.sample.name)


@functools.cache
def _dax_without_namespace(sample: str) -> dict[str, dict[str, Any]]:
    return {
        device["chardev"]: device
        for region in json.loads((samples()[sample].truth / "daxctl.json").read_text())
        if "/ndbus" not in region["path"]
        for device in region["devices"]
    }


CUT_SHORT = ", cut short"
"""After a format: of a file that has two thirds of the dump, as a full disk leaves it."""

FLATTENED = ", flattened"
"""After a format: of makedumpfile's file in the format that it writes for a pipe (-F)."""

CASES = [
    Case(sample, format)
    for sample in pmem_samples()
    for format in sample.formats
    if format != "qemu-capture"  # a dump of the capture kernel: tests/dumps/test_crashed.py
]
CASES.append(Case(pmem_samples()[0], "lzo" + FLATTENED))
CASES.append(Case(pmem_samples()[0], "elf" + CUT_SHORT))
OF_KEXEC = [case for case in CASES if case.sample.loader.startswith("kexec")]
"""Those with a crash kernel loaded by kexec; others registered firmware-assisted dump, or had no
crash kernel."""


@functools.lru_cache(maxsize=2)
def program(name: str, format: str) -> Program:
    """The program of a case, opened once per process and a few at a time."""
    sample = samples()[name]
    return named(open_crash(sample, _file(sample, format)), name, format)


def _file(sample: Sample, format: str) -> Path:
    if format.endswith(CUT_SHORT):
        return _cut_short(sample.dump(format.removesuffix(CUT_SHORT)), page_size(sample.truth))
    if format.endswith(FLATTENED):
        return _flattened(sample.dump(format.removesuffix(FLATTENED)))
    return sample.dump(format)


@functools.cache
def _cut_short(dump: Path, page: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="drgn-pmem-cut-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / dump.name
    shutil.copyfile(dump, path)
    # within a page: what is left of that one counts as truncated too
    os.truncate(path, path.stat().st_size * 2 // 3 // page * page + 512)
    return path


@functools.cache
def _flattened(dump: Path) -> Path:
    """As makedumpfile has it: a header, then records of what it would write where (it goes back
    to write headers anew), big-endian, and an end mark (flattened_format.h)."""
    folder = Path(tempfile.mkdtemp(prefix="drgn-pmem-flat-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / dump.name
    data = dump.read_bytes()
    size = 1 << 16
    places = [*range(0, len(data), size), 0]
    with path.open("wb") as file:
        file.write((b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)).ljust(4096, b"\0"))
        for place in places:
            part = data[place : place + size]
            file.write(struct.pack(">qq", place, len(part)) + part)
        file.write(struct.pack(">qq", -1, -1))
    return path


def physical_of_struct_page(prog: Program, address: int) -> int:
    """By drgn, or where it walks no page table, by what the kernel keeps of the vmemmap."""
    if "vmemmap_list" not in prog or prog["vmemmap_list"].value_() == 0:
        return int(follow_phys(prog["init_mm"].address_of_(), address))
    # POWER with the hash MMU: arch/powerpc/mm/init_64.c
    size = 1 << prog["mmu_psize_defs"][prog["mmu_vmemmap_psize"]].shift.value_()
    backing = prog["vmemmap_list"]
    while not backing.virt_addr.value_() <= address < backing.virt_addr.value_() + size:
        backing = backing.list
    return int(backing.phys.value_() + address - backing.virt_addr.value_())


def open_crash(sample: Sample, path: Path) -> Program:
    """A dump of a sample's crash, opened anew with the sample's debug info."""
    return drgn_pmem.open(
        path,
        sample.debug_info(),
        debug_directories=sample.debug_directories,
        kernel_directories=sample.kernel_directories,
    )


def without_debug_info(case: Case) -> Program:
    """The dump opened with nothing but itself; once per process, as :func:`program`."""
    return _bare_program(case.sample.name, case.format)


def bare(case: Case, line: str) -> tuple[Any, str]:
    """The JSON and the notes that a command prints on it without debug info; computed once."""
    ASKED.add((case.sample.name, f"{case.format}, {NO_DEBUG_INFO}", line.split()[0]))
    out, notes = _bare_texts(case.sample.name, case.format, line)
    return json.loads(out), notes


@functools.cache
def _bare_texts(name: str, format: str, line: str) -> tuple[str, str]:
    return run_answer(_bare_program(name, format), f"{line} --json")[1:]


@functools.lru_cache(maxsize=2)
def _bare_program(name: str, format: str) -> Program:
    prog = open_program(_file(samples()[name], format))[0]
    return named(prog, name, f"{format}, {NO_DEBUG_INFO}")


def named(prog: Program, name: str, format: str) -> Program:
    """The program, with the name under which the support matrix has what it is asked."""
    prog.cache[_NAME] = name, format
    return prog


@functools.cache
def _json_text(name: str, format: str, line: str) -> str:
    return run_answer(program(name, format), f"{line} --json")[1]


def run_answer(prog: Program, line: str) -> tuple[Answer | None, str, str]:
    """Answer of a command, what it printed to standard output and to standard error."""
    load_commands()
    words = shlex.split(line)
    if _NAME in prog.cache:
        ASKED.add((*prog.cache[_NAME], words[0]))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        answer = run(SPECS[words[0]], prog, words[1:])
    return answer, out.getvalue(), err.getvalue()


def run_json(prog: Program, line: str) -> Any:
    """The JSON that a command prints; ``--json`` is added to the line."""
    return json.loads(run_answer(prog, f"{line} --json")[1])


def run_text(prog: Program, line: str) -> tuple[str, str]:
    """Standard output and standard error of a command."""
    return run_answer(prog, line)[1:]


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
