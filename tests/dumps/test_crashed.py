# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The crashed kernel in QEMU's dump of its capture kernel (--crashed) is what /proc/vmcore of the same
crash has: every segment and note, the memory, the registers, the answers of commands.
"""

from collections.abc import Iterator
from pathlib import Path

from drgn import Program
import pytest

import drgn_pmem
from drgn_pmem.analysis.headers.subject import Subject, subject_of
from drgn_pmem.dumpfile import dump_of
from drgn_pmem.dumpfile.vmcoreinfo import vmcoreinfo_of
from drgn_pmem.errors import NotFound
from drgn_pmem.kernel.crash_core import crashed_memory
from drgn_pmem.shell.sample import Sample

from ..samples import program, run_json, samples

CAPTURED = [sample for sample in samples().values() if "qemu-capture" in sample.formats]
STRIDE = 8 << 20


@pytest.fixture(params=CAPTURED, ids=lambda sample: sample.name)
def sample(request: pytest.FixtureRequest) -> Sample:
    return request.param


@pytest.fixture
def vmcore(sample: Sample) -> Program:
    """The same crash, saved by the capture kernel."""
    return program(sample.name, "raw")


_OPEN: dict[str, Program] = {}


@pytest.fixture
def crashed(sample: Sample) -> Program:
    if sample.name not in _OPEN:
        _OPEN.clear()
        _OPEN[sample.name] = drgn_pmem.open(
            sample.dump("qemu-capture"),
            sample.debug_info(),
            debug_directories=sample.debug_directories,
            kernel_directories=sample.kernel_directories,
            crashed=True,
        )
    return _OPEN[sample.name]


def test_segments_notes_and_coverage_are_those_of_vmcore(vmcore: Program, crashed: Program) -> None:
    ours, theirs = dump_of(crashed), dump_of(vmcore)
    assert ours.coverage.to_json() == theirs.coverage.to_json()
    assert [(s.physical, s.virtual, s.memory_size, s.flags) for s in ours.segments] == [
        (s.physical, s.virtual, s.memory_size, s.flags) for s in theirs.segments
    ]
    assert [(n.name, n.type, ours.note_data(n)) for n in ours.notes] == [
        (n.name, n.type, theirs.note_data(n)) for n in theirs.notes
    ]


def places(prog: Program) -> Iterator[int]:
    """Pages from all of its memory, of that which was moved and of that which was not."""
    for part in dump_of(prog).coverage.covered():
        yield from range(part.start, part.end - 4096, STRIDE)
        yield part.end - 4096


def test_its_memory_is_that_of_vmcore(vmcore: Program, crashed: Program) -> None:
    compared = 0
    for address in places(vmcore):
        assert crashed.read(address, 4096, True) == vmcore.read(address, 4096, True), hex(address)
        compared += 1
    assert compared > 50


def stack(prog: Program) -> tuple[int, object]:
    """Of the thread that crashed; what drgn says where it cannot (fadump's notes name no task)."""
    thread = prog.crashed_thread()
    try:
        return thread.tid, [(frame.name, frame.pc) for frame in thread.stack_trace()]
    except LookupError as error:
        return thread.tid, str(error)


def test_its_registers_are_those_of_vmcore(vmcore: Program, crashed: Program) -> None:
    assert stack(crashed) == stack(vmcore)


@pytest.mark.parametrize("command", ["fadump", "elfcorehdr", "pmem-segments"])
def test_commands_answer_as_of_vmcore(
    vmcore: Program, crashed: Program, sample: Sample, command: str
) -> None:
    if command == "fadump" and sample.loader != "fadump":
        for prog in (vmcore, crashed):
            with pytest.raises(NotFound, match="exists on POWER only"):
                run_json(prog, command)
        return

    def without_offsets(answer: object) -> object:
        if isinstance(answer, dict):
            skip = ("offset", "file_offset", "path", "raw")
            return {k: without_offsets(v) for k, v in answer.items() if k not in skip}
        return [without_offsets(v) for v in answer] if isinstance(answer, list) else answer

    assert without_offsets(run_json(crashed, command)) == without_offsets(run_json(vmcore, command))


def test_a_dump_of_the_first_kernel_has_no_crashed_one(sample: Sample) -> None:
    """It loaded a capture kernel, or registered a dump, and has not crashed."""
    path: Path = sample.dump("qemu-elf")
    with pytest.raises(drgn_pmem.DumpFileError, match=r"no crashed kernel|has not crashed"):
        drgn_pmem.open(path, sample.debug_info(), crashed=True)


def test_the_capture_kernel_knows_where_it_lies(sample: Sample, vmcore: Program) -> None:
    """Every byte of /proc/vmcore is in the memory that it reads, in the same order."""
    capture = program(sample.name, "qemu-capture")
    if subject_of(capture).value.subject is not Subject.CAPTURE_KERNEL:
        # With QEMU's vmcoreinfo device the dump has the note of the kernel that crashed, and is
        # opened as one of that.
        assert capture["elfcorehdr_addr"].value_() == 2**64 - 1
        assert not crashed_memory(capture).whole()
        return
    there, saved = crashed_memory(capture).whole(), dump_of(vmcore).coverage.covered()
    if vmcoreinfo_of(capture) == vmcoreinfo_of(vmcore):
        # QEMU has kept the first kernel's vmcoreinfo (-device vmcoreinfo): that one was opened.
        assert not there
        return
    # The list has whole pages, of 64 KiB.
    assert there.total == sum(part.end - (part.start & -0x10000) for part in saved)
    first, last = there.ranges[0].start, there.ranges[-1].end - 4096
    assert capture.read(first, 4096, True) == vmcore.read(saved[0].start, 4096, True)
    assert capture.read(last, 4096, True) == vmcore.read(saved[-1].end - 4096, 4096, True)
