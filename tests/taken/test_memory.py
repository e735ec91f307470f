# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A page that was taken away is gone on every path, and nothing else is."""

from collections.abc import Callable, Iterator
from pathlib import Path
import shutil
import struct

import drgn
import pytest

from drgn_pmem.dumpfile import State, coverage_of, dump_of
from drgn_pmem.errors import DumpFileError

from ..samples import Case, open_crash, samples
from .memory import page_size_of, record_reads, take_away, virtual_aliases
from .trial import Trial, forked, outcome

CASES = [Case(samples()["6.1-fileload"], format) for format in ("elf", "zlib")]
CASES.append(Case(samples()["ppc64le-6.12"], "qemu-elf"))


@pytest.fixture(scope="module", params=CASES, ids=str)
def trial(request: pytest.FixtureRequest) -> Trial:
    return Trial(request.param)


def in_a_fork(make: Callable[[], None]) -> None:
    """Run assertions in a process of its own."""
    answer = forked(make)
    assert answer is None, answer.fault


def init_task(prog: drgn.Program) -> tuple[int, int]:
    """(virtual, physical) address of something that every kernel has."""
    from drgn.helpers.linux.mm import follow_phys

    virtual = prog["init_task"].address_
    assert virtual is not None
    physical = follow_phys(prog["init_mm"].address_of_(), virtual).value_()
    return virtual, physical


def faults(prog: drgn.Program, address: int, physical: bool) -> bool:
    try:
        prog.read(address, 1, physical)
    except drgn.FaultError:
        return True
    return False


@pytest.mark.parametrize("state", [State.EXCLUDED, State.ABSENT])
def test_page_cannot_be_read_by_any_of_its_addresses(trial: Trial, state: State) -> None:
    prog = trial.prog

    def check() -> None:
        virtual, physical = init_task(prog)
        size = page_size_of(prog)
        page = physical // size * size
        aliases = virtual_aliases(prog, page, size)
        reads = [(page, True), (page + size - 1, True), (virtual, False)]
        reads += [(alias, False) for alias, _, _ in aliases]
        reads += [(alias + length - 1, False) for alias, _, length in aliases]
        around = [(page - 1, True), (page + size, True)]
        assert not any(faults(prog, *read) for read in reads + around)
        take_away(prog, page, state)
        assert all(faults(prog, *read) for read in reads)
        assert not any(faults(prog, *read) for read in around)

    in_a_fork(check)


@pytest.mark.parametrize("state", [State.EXCLUDED, State.ABSENT])
def test_dump_says_that_the_page_was_not_saved(trial: Trial, state: State) -> None:
    prog = trial.prog

    def check() -> None:
        _, physical = init_task(prog)
        size = page_size_of(prog)
        page = physical // size * size
        before = coverage_of(prog)
        take_away(prog, page, state)
        after = coverage_of(prog)
        assert after is dump_of(prog).coverage
        assert after.count(page, page + size) == {state: size}
        for start, end in ((0, page), (page + size, 1 << 64)):
            assert list(after.ranges(start, end)) == list(before.ranges(start, end))
        memory = dump_of(prog).memory
        assert memory is not None
        for address, length in ((page, 1), (page - 1, 2), (page + size - 1, 2)):
            with pytest.raises(DumpFileError):
                memory.read(address, length)
        assert memory.read(page - 1, 1) == prog.read(page - 1, 1, True)
        for start, data in memory.chunks():
            assert start + len(data) <= page or page + size <= start

    in_a_fork(check)


def test_only_one_of_two_programs_of_a_dump_is_without_the_page(trial: Trial) -> None:
    """pmem-diff of a dump with itself reads in the other one what was taken away."""
    from drgn_pmem.analysis.pages.blocks import Block
    from drgn_pmem.analysis.pages.readers import reader_of
    from drgn_pmem.dumpfile.program import open_program

    prog = trial.prog

    def check() -> None:
        _, physical = init_task(prog)
        size = page_size_of(prog)
        page = physical // size * size
        block = Block(pfn=0, count=1, pieces=((page, 64),))
        take_away(prog, page, State.EXCLUDED)
        with pytest.raises((AssertionError, DumpFileError)):
            reader_of(prog).read(block, 64)
        other = open_program(trial.case.dump)[0]
        assert bytes(reader_of(other).read(block, 64)) == other.read(page, 64, True)

    in_a_fork(check)


def test_every_page_that_drgn_reads_is_recorded(trial: Trial) -> None:
    from drgn_pmem.dumpfile.program import open_program

    prog = trial.prog

    def check() -> None:
        virtual, physical = init_task(prog)
        size = page_size_of(prog)
        reads = record_reads(prog, open_program(trial.case.dump)[0])
        assert prog.read(virtual, 16) == prog.read(physical, 16, True)
        assert physical // size * size in reads

    in_a_fork(check)


def objects_of(prog: drgn.Program) -> Iterator[tuple[str, int]]:
    """(kind, virtual address) of what answers about files and processes stand on."""
    from drgn.helpers.linux.fs import for_each_file, for_each_mount
    from drgn.helpers.linux.pid import for_each_task

    from drgn_pmem.kernel.namespace import for_each_namespace
    from drgn_pmem.kernel.nvdimm import for_each_bus
    from drgn_pmem.kernel.pgmap import for_each_pgmap

    for task in for_each_task(prog):
        if task.comm.string_().startswith(b"lab-"):
            yield "mm_struct", task.mm.value_()
    task = next(task for task in for_each_task(prog) if task.comm.string_() == b"lab-alpha")
    file = next(
        file for _, file in for_each_file(task)
        if file.f_inode.i_mapping.nrpages and file.f_path.dentry.d_name.name.string_() == b"alpha"
    )  # fmt: skip
    yield from (
        ("task_struct", task.value_()),
        ("fd table", task.files.fdt.fd.value_()),
        ("file", file.value_()),
        ("dentry", file.f_path.dentry.value_()),
        ("inode", file.f_inode.value_()),
        ("xarray node", file.f_mapping.i_pages.xa_head.value_() & ~3),
        ("mount", next(for_each_mount(prog)).value_()),
        ("resource", prog["iomem_resource"].child.value_()),
        ("bus", next(iter(for_each_bus(prog))).object.value_()),
    )
    for kind, found in (("namespace", for_each_namespace(prog)), ("pgmap", for_each_pgmap(prog))):
        for record in found:
            yield kind, record.object.value_()


def test_reads_of_every_kind_of_object_are_recorded() -> None:
    """Of what the commands walk; page tables, which have no object, by the root of them."""
    from drgn.helpers.linux.mm import follow_phys

    trial = Trial(CASES[0])
    _, reads = trial.reads("pmem-report")

    def check() -> None:
        prog = trial.prog
        size = page_size_of(prog)
        found: dict[str, bool] = {}
        for kind, virtual in (*objects_of(prog), ("page tables", prog["init_mm"].pgd.value_())):
            physical = follow_phys(prog["init_mm"].address_of_(), virtual).value_()
            found[kind] = found.get(kind, False) or physical // size * size in reads
        assert len(found) == 13
        assert all(found.values()), found

    in_a_fork(check)


def test_nothing_taken_away_changes_nothing(trial: Trial) -> None:
    for line in ("pmem-segments", "pmem-list -BDRNXi -vv", "fadump"):
        full = trial.full(line)
        assert full == trial.full(line)
        assert full == trial.reads(line)[0]


def test_answers_are_those_of_a_file_that_lacks_the_page(tmp_path: Path) -> None:
    """An ELF dump rewritten so that its program headers leave the page out."""
    trial = Trial(CASES[0])
    line = "pmem-list -BDRNXi -vv"
    _, reads = trial.reads(line)
    assert len(reads) > 50
    changed = 0
    for page in sorted(reads)[:: len(reads) // 6]:
        cut = tmp_path / "vmcore"
        leave_out(trial.case.dump, cut, page, page_size_of(trial.prog))
        ours = trial.without(line, page, State.EXCLUDED)
        # not in a fork: OpenMP, with which drgn loads debug info, would wait for its threads there
        theirs = outcome(open_crash(trial.case.sample, cut), line)
        assert not theirs.fault, theirs.fault
        assert theirs.error == ours.error
        assert (ours.json, ours.whole) == (theirs.json, theirs.whole)
        changed += ours != trial.full(line)
        cut.unlink()
    assert changed


def leave_out(dump: Path, copy: Path, page: int, size: int) -> None:
    """A copy of a 64-bit little-endian ELF dump without the bytes of a page, which its program
    headers still cover."""
    shutil.copyfile(dump, copy)
    with open(copy, "r+b") as file:
        header = bytearray(file.read(64))
        (table,) = struct.unpack_from("<Q", header, 32)
        (count,) = struct.unpack_from("<H", header, 56)
        file.seek(table)
        headers = list(struct.iter_unpack("<IIQQQQQQ", file.read(56 * count)))
        headers = [part for old in headers for part in split(old, page, size)]
        file.seek(0, 2)
        struct.pack_into("<Q", header, 32, file.tell())
        struct.pack_into("<H", header, 56, len(headers))
        file.write(b"".join(struct.pack("<IIQQQQQQ", *part) for part in headers))
        file.seek(0)
        file.write(header)


def split(header: tuple[int, ...], page: int, size: int) -> Iterator[tuple[int, ...]]:
    kind, flags, offset, virtual, physical, in_file, in_memory, align = header
    if kind != 1 or not physical <= page < physical + in_memory:
        yield header
        return
    at = page - physical
    for start, length, saved in (
        (0, at, True),
        (at, size, False),
        (at + size, in_memory - at - size, True),
    ):
        if length > 0:
            yield (kind, flags, offset + start, virtual + start, physical + start,
                   min(length, max(in_file - start, 0)) if saved else 0, length, align)  # fmt: skip
