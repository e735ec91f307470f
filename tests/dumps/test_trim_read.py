# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Other tools read a trimmed dump: makedumpfile its log, drgn with libkdumpfile its memory, crash its
log, tasks and memory.

crash needs all of the kernel's debug info: DRGN_PMEM_CRASH_VMLINUX names the vmlinux of the 6.1
samples that vmcores/lab/x86_64/build-kernel.sh leaves. ``make test-trim`` asks for every sample.
"""

import functools
import os
from pathlib import Path
import shutil
import subprocess
import tempfile

import drgn
import pytest

from drgn_pmem.dumpfile import State, dump_of, open_dump
from drgn_pmem.formats.build_id import build_id_of_file
from drgn_pmem.symbols import vmcoreinfo_value

from ..samples import Case, run_answer
from .test_trim import EVERYTHING, PRODUCT, TO, case_of, options

CASES = [*PRODUCT, (case_of("6.1-fileload:elf"), "lzo")] if not EVERYTHING else PRODUCT
STEP = 0x200000
"""bytes: how far apart the pages are that are read"""

CRASH_VMLINUX = os.environ.get("DRGN_PMEM_CRASH_VMLINUX", "")


def trimmed(case: Case, to: str, folder: Path) -> Path:
    new = folder / "new"
    run_answer(case.prog, f"pmem-trim -o {new} --no-verify {options(to)}")
    return new


def log_of(dump: Path) -> tuple[str, bytes]:
    """The kernel's log by makedumpfile, and what it says about itself."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        done = subprocess.run(
            ["makedumpfile", "--dump-dmesg", dump, log], capture_output=True, text=True
        )
        return done.stdout + done.stderr, log.read_bytes() if log.exists() else b""


log_of_input = functools.cache(log_of)


@pytest.mark.skipif(shutil.which("makedumpfile") is None, reason="makedumpfile is not installed")
@pytest.mark.holds("pmem-trim")
@pytest.mark.parametrize(("case", "to"), CASES, ids=str)
def test_makedumpfile_reads_the_log(case: Case, to: str, tmp_path: Path) -> None:
    _, before = log_of_input(case.dump)
    said, log = log_of(trimmed(case, to, tmp_path))
    if "compression unsupported" in said:
        pytest.skip(f"this makedumpfile was built without {to}")
    if not log:
        pytest.skip(f"this makedumpfile reads neither: {said}") if not before else pytest.fail(said)
    # Of a dump without vmcoreinfo, such as QEMU's, it reads the log of the new one only.
    assert log == before or not before
    assert b"Linux version" in log


@pytest.mark.holds("pmem-trim")
@pytest.mark.parametrize(("case", "to"), CASES, ids=str)
def test_libkdumpfile_reads_what_is_kept_and_nothing_else(
    case: Case, to: str, tmp_path: Path
) -> None:
    """Through drgn, which reads ELF cores itself."""
    new = trimmed(case, to, tmp_path)
    prog, dump, source = drgn.Program(), open_dump(new), dump_of(case.prog).memory
    assert source is not None
    prog.set_core_dump(new)
    read = 0
    for part in dump.coverage.extent():
        for start in range(part.start, part.end, STEP):
            size = min(512, part.end - start)
            if part.state is State.SAVED:
                assert prog.read(start, size, True) == source.read(start, size), hex(start)
                read += 1
            elif part.state is State.EXCLUDED and to != "elf":
                with pytest.raises(drgn.FaultError):
                    prog.read(start, size, True)
    assert read > 10


COMMANDS = "sys\nlog\nps\nbt -a\nmount\nkmem -i\nquit\n"
OF_THE_FILE = ("DUMPFILE", "KERNEL", "please wait")


def crash_says(dump: Path, *options: str) -> list[str]:
    done = subprocess.run(
        ["crash", "-s", "--no_scroll", *options, CRASH_VMLINUX, dump],
        input=COMMANDS,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [
        line for line in done.stdout.splitlines() if not any(word in line for word in OF_THE_FILE)
    ]


crash_says_of_input = functools.cache(crash_says)


def crash_can(case: Case) -> bool:
    wanted = vmcoreinfo_value(case.prog, "BUILD-ID")
    return bool(CRASH_VMLINUX) and build_id_of_file(CRASH_VMLINUX)[0] == wanted


@pytest.mark.skipif(
    not CRASH_VMLINUX or shutil.which("crash") is None,
    reason="crash is not installed, or DRGN_PMEM_CRASH_VMLINUX names no vmlinux",
)
@pytest.mark.holds("pmem-trim")
@pytest.mark.parametrize("to", TO)
@pytest.mark.parametrize("name", ["6.1-fileload:elf", "6.1-fileload:zlib", "6.1-hotadd:elf"])
def test_crash_says_the_same(name: str, to: str, tmp_path: Path) -> None:
    case = case_of(name)
    if not crash_can(case):
        pytest.skip(f"{CRASH_VMLINUX} is not of the kernel of {case}")
    before = crash_says_of_input(case.dump)
    assert len(before) > 100
    # Of ELF cores, crash takes what is left out for zeroes (docs/handing-on.md).
    options = ["--zero_excluded"] if case.format == "elf" and to != "elf" else []
    assert crash_says(trimmed(case, to, tmp_path), *options) == before
