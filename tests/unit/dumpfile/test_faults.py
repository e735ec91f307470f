# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a dump does not hold faults, whatever drgn or libkdumpfile would have read there."""

import drgn
import pytest

from drgn_pmem.dumpfile import State, coverage_of, live_dump, set_dump
from drgn_pmem.dumpfile.faults import fault_on_excluded
from drgn_pmem.dumpfile.program import open_program
from drgn_pmem.errors import DumpFileError
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
    assert fault_on_excluded(prog)
    assert fault_on_excluded(prog)
    for pfn, lost in ((1, False), (2, True), (3, False), (4, True)):
        assert faults(prog, base + pfn * PAGE, PAGE, physical) == lost
    # the later of two segments has this page
    assert prog.read(base + 0x3000, PAGE, physical) == page_bytes(3)


def test_70_thousand_excluded_ranges_all_fault(tmp_path):
    count = 70_000
    loads = [Load(0x2000 * n, PAGE, b"", virtual=VIRTUAL + 0x2000 * n) for n in range(count)]
    prog = program(Elf(loads, note(b"VMCOREINFO", 0, VMCOREINFO)).write(tmp_path / "vmcore"))
    assert fault_on_excluded(prog)
    assert faults(prog, 0x2000 * (count - 1))
    assert faults(prog, VIRTUAL + 0x2000 * (count - 1), physical=False)


def test_the_page_that_a_cut_kdump_file_ends_in_faults(tmp_path):
    kdump = Kdump(set(range(1, 9)), set(range(1, 9)), 100, stored=True)
    path = tmp_path / "vmcore"
    path.write_bytes(kdump.bytes()[: -2 * PAGE - 100])
    prog = program(path)
    cut = prog.read(6 * PAGE, PAGE, physical=True)
    assert cut == page_bytes(6)[:-100] + bytes(100), "libkdumpfile has changed"
    assert fault_on_excluded(prog)
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
    assert "incomplete" in lines[0]


def test_a_kdump_file_that_ends_in_its_bitmaps_is_not_given_to_libkdumpfile(tmp_path):
    path = tmp_path / "vmcore"
    path.write_bytes(Kdump({1}, {1}, 100).bytes()[: 3 * PAGE + 5])
    with pytest.raises(DumpFileError, match="ends before its bitmaps"):
        open_program(path)


def test_nothing_to_guard(tmp_path):
    assert not fault_on_excluded(program(Kdump({1, 2}, {1}, 100).write(tmp_path / "vmcore")))
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    with pytest.raises(DumpFileError):
        fault_on_excluded(prog)
    set_dump(prog, live_dump())
    assert not fault_on_excluded(prog)
