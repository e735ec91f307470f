# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our reads of what a dump does not hold fault, whatever drgn or libkdumpfile would have read."""

import subprocess
import sys
import types

import drgn
import pytest

from drgn_pmem.dumpfile import State, coverage_of, live_dump, set_dump
from drgn_pmem.dumpfile.faults import guard_reads
from drgn_pmem.dumpfile.program import open_program
from drgn_pmem.errors import DumpFileError
from drgn_pmem.session import open_core
from tests.unit.dumpfile.writers import PAGE, VMCOREINFO, Elf, Kdump, Load, note, page_bytes

VIRTUAL = 0xFFFF888000000000


def program(path) -> drgn.Program:
    prog = drgn.Program()
    prog.set_core_dump(path)
    return prog


def faults(prog, address, size=1, physical=True) -> bool:
    try:
        prog.read(address, size, physical)
    except drgn.FaultError:
        return True
    return False


def as_ours(function, module="drgn_pmem.kernel.example"):
    """A function as a module of ours would have it: the guard looks at callers' modules."""
    return types.FunctionType(function.__code__, {"__name__": module, "drgn": drgn})


def ours_fault(prog, address, size=1, physical=True) -> bool:
    return as_ours(faults)(prog, address, size, physical)


@pytest.fixture
def elf(tmp_path):
    loads = [
        Load(0x1000, 4 * PAGE, page_bytes(1), virtual=VIRTUAL + 0x1000),
        Load(0x3000, PAGE, page_bytes(3), virtual=VIRTUAL + 0x3000),
    ]
    return Elf(loads, note(b"VMCOREINFO", 0, VMCOREINFO)).write(tmp_path / "vmcore")


@pytest.mark.parametrize("physical", [True, False])
def test_what_an_elf_dump_left_out_faults(elf, physical):
    prog = program(elf)
    base = 0 if physical else VIRTUAL
    assert prog.read(base + 0x2000, 8, physical) == bytes(8), "drgn has changed: it faults now"
    assert guard_reads(prog).whole()
    assert guard_reads(prog).whole()
    for pfn, lost in ((1, False), (2, True), (3, False), (4, True)):
        address = base + pfn * PAGE
        assert ours_fault(prog, address, PAGE, physical) == lost
        # what the user, or drgn's own command, reads is as without us
        assert len(prog.read(address, PAGE, physical).rstrip(b"\0")) == (0 if lost else PAGE)
    # the later of two segments has this page
    assert prog.read(base + 0x3000, PAGE, physical) == page_bytes(3)


def test_70_thousand_excluded_ranges_all_fault(tmp_path):
    count = 70_000
    loads = [Load(0x2000 * n, PAGE, b"", virtual=VIRTUAL + 0x2000 * n) for n in range(count)]
    prog = program(Elf(loads, note(b"VMCOREINFO", 0, VMCOREINFO)).write(tmp_path / "vmcore"))
    assert guard_reads(prog).whole()
    assert ours_fault(prog, 0x2000 * (count - 1))
    assert ours_fault(prog, VIRTUAL + 0x2000 * (count - 1), 1, False)


def test_the_page_that_a_cut_kdump_file_ends_in_faults(tmp_path):
    kdump = Kdump(set(range(1, 9)), set(range(1, 9)), 100, stored=True)
    path = tmp_path / "vmcore"
    path.write_bytes(kdump.bytes()[: -2 * PAGE - 100])
    prog = program(path)
    cut = prog.read(6 * PAGE, PAGE, physical=True)
    assert cut == page_bytes(6)[:-100] + bytes(100), "libkdumpfile has changed"
    assert guard_reads(prog).whole()
    for pfn in range(10):
        assert faults(prog, pfn * PAGE, PAGE) == (not coverage_of(prog).saved(pfn * PAGE, PAGE))
    assert [coverage_of(prog).state(pfn * PAGE) for pfn in (5, 6, 7, 8)] == [
        State.SAVED,
        State.TRUNCATED,
        State.TRUNCATED,
        State.TRUNCATED,
    ]
    opened, lines = open_program(path)
    assert faults(opened, 6 * PAGE)
    assert not faults(opened, 5 * PAGE, PAGE)
    assert "truncated" in lines[0]


def test_a_kdump_file_that_ends_in_its_bitmaps_is_not_given_to_libkdumpfile(tmp_path):
    path = tmp_path / "vmcore"
    path.write_bytes(Kdump({1}, {1}, 100).bytes()[: 3 * PAGE + 5])
    with pytest.raises(DumpFileError, match="ends before its bitmaps"):
        open_program(path)


def test_a_generator_of_ours_faults_and_its_caller_does_not(elf):
    def walk(prog):
        yield prog.read(0x1000, 8, True)
        yield prog.read(0x2000, 8, True)

    prog = program(elf)
    assert guard_reads(prog).whole()
    entries = as_ours(walk)(prog)
    assert next(entries) == page_bytes(1)[:8]
    assert prog.read(0x2000, 8, True) == bytes(8)
    with pytest.raises(drgn.FaultError, match="excluded"):
        next(entries)


def test_a_search_goes_on_over_what_was_left_out(elf):
    prog = program(elf)
    assert guard_reads(prog).whole()
    search = prog.search_memory(page_bytes(3)[:16])
    search.set_address_range(0x1000, 0x5000, True)
    assert list(search) == list(range(0x3000, 0x4000, 64))


@pytest.mark.parametrize("module", ["drgn_pmem.shell.session", "drgn_pmem.plugin", "__main__"])
def test_what_the_shell_runs_for_the_user_is_not_ours(elf, module):
    prog = program(elf)
    assert guard_reads(prog).whole()
    assert not as_ours(faults, module)(prog, 0x2000, 8, True)


def test_a_dump_that_is_gone_is_a_problem(elf):
    prog = program(elf)
    elf.unlink()
    guarded = guard_reads(prog)
    assert not guarded.complete
    (problem,) = guarded.problems
    assert "no such file" in str(problem)
    assert "zeroes" in str(problem)


def test_a_drgn_that_cannot_translate_is_said_and_not_left_to_libkdumpfile(tmp_path, monkeypatch):
    path = tmp_path / "vmcore"
    path.write_bytes(Kdump({1, 2}, {1, 2}, 100, stored=True).bytes()[:-100])
    monkeypatch.setattr("drgn_pmem.dumpfile.faults._read_vm", None)
    prog = program(path)
    (problem,) = guard_reads(prog).problems
    assert "open it with drgn-pmem" in str(problem)
    with pytest.raises(drgn.FaultError, match="cannot be translated"):
        prog.read(VIRTUAL, 8)
    opened, _ = open_program(path)  # translates by itself
    assert guard_reads(opened).complete


READ_ALL = """
import sys, drgn
from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.dumpfile.faults import guard_reads
from drgn_pmem.dumpfile.program import open_program

for path in sys.argv[1:]:
    plain = drgn.Program()
    plain.set_core_dump(path)
    guard_reads(plain)
    for prog in (plain, open_program(path)[0]):
        for item in coverage_of(prog).extent():
            for address in (item.start, item.end - 4096):
                try:
                    prog.read(address, 4096, True)
                    assert item.state is State.SAVED, (hex(address), item.state)
                except drgn.FaultError:
                    assert item.state is not State.SAVED, hex(address)
        for address in (0xFFFFFFFF81000000, 0xFFFF888000000000, 0xFFFFFFFF82A00000):
            try:
                prog.read(address, 8)
            except drgn.FaultError:
                pass
    print("read", path)
"""


def test_no_read_of_a_cut_file_ends_the_process(tmp_path):
    pages = set(range(1, 60))
    paths = []
    for stored in (False, True):
        data = Kdump(pages, pages, 100, stored=stored).bytes()
        for lost in (1, 100, 1000, 4095, 4096, 4097, 3 * 4096, 6 * 4096, len(data) // 3):
            if len(data) - lost > 8 * PAGE:
                paths.append(tmp_path / f"{stored}{lost}")
                paths[-1].write_bytes(data[:-lost])
    run = subprocess.run(
        [sys.executable, "-c", READ_ALL, *paths], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("read ") == len(paths)


def test_nothing_to_guard(tmp_path):
    kdump = program(Kdump({1, 2}, {1}, 100).write(tmp_path / "vmcore"))
    assert not guard_reads(kdump).whole()
    segments = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    assert not guard_reads(segments).whole()
    live = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    set_dump(live, live_dump())
    assert not guard_reads(live).whole()


def qemu_elf(path):
    """As QEMU writes it: no flags, the physical address as virtual one."""
    loads = [
        Load(start, PAGE, bytes([fill]) * PAGE, virtual=start, flags=0)
        for start, fill in ((0, 0xAA), (0x100000, 0xBB))
    ]
    return Elf(loads, note(b"VMCOREINFO", 0, VMCOREINFO) + note(b"QEMU", 0, bytes(8))).write(path)


def test_a_small_pointer_reads_no_physical_memory_of_a_hypervisors_dump(tmp_path):
    """QEMU's headers would have drgn read the interrupt table through a NULL pointer."""
    path = qemu_elf(tmp_path / "vmcore")
    assert program(path).read(0x18, 1) == b"\xaa"
    opened, _ = open_core(str(path))
    assert faults(opened, 0x18, 1, False)
    assert opened.read(0x18, 1, True) == b"\xaa"
    assert opened.read(0x100000, 1, True) == b"\xbb"


def test_a_small_pointer_of_stock_drgn_reads_what_it_did(tmp_path):
    """Only our own reads fault in a program that drgn opened."""
    prog = program(qemu_elf(tmp_path / "vmcore"))
    assert guard_reads(prog).whole()
    assert prog.read(0x18, 1) == b"\xaa"
    assert ours_fault(prog, 0x18, 1, False)
