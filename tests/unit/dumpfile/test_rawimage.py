# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Raw images of memory: FILE@ADDRESS."""

import drgn
import pytest

from drgn_pmem.analysis.findings.crash import read_crash
from drgn_pmem.dumpfile import DumpFormat, State, coverage_of, dump_of
from drgn_pmem.dumpfile.rawimage import open_images, split_image
from drgn_pmem.errors import DumpFileError, UsageError
from drgn_pmem.session import open_core
from tests.samples import CASES, run_text
from tests.unit.dumpfile.test_locate import UTS, in_memory, text, uts
from tests.unit.dumpfile.writers import PAGE, page_bytes


@pytest.fixture
def images(tmp_path):
    """A kernel's memory in two images, the second after a hole; vmcoreinfo is in neither's head."""
    low, high = bytearray(UTS + PAGE), bytearray(4 * PAGE)
    low[UTS : UTS + len(uts())] = uts()
    note = in_memory(text())
    low[0x2000 : 0x2000 + len(note)] = note
    high[PAGE : 2 * PAGE] = page_bytes(7)
    (tmp_path / "low").write_bytes(low)
    (tmp_path / "high").write_bytes(high)
    return [f"{tmp_path}/high@{1 << 32}", f"{tmp_path}/low@0x0"]


def test_images_are_one_dump_and_vmcoreinfo_is_found_in_memory(images):
    prog, lines = open_core(images)
    assert prog["VMCOREINFO"].string_() == text()
    assert prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL
    assert "VMCOREINFO" in lines[0]
    assert prog.read(UTS, 5, True) == b"Linux"
    assert prog.read((1 << 32) + PAGE, PAGE, True) == page_bytes(7)
    assert dump_of(prog).format is DumpFormat.IMAGE
    assert [(item.start, item.end) for item in coverage_of(prog).extent()] == [
        (0, UTS + PAGE),
        (1 << 32, (1 << 32) + 4 * PAGE),
    ]
    with pytest.raises(drgn.FaultError, match="absent"):
        prog.read(UTS + PAGE, 1, True)


def test_the_size_of_a_dump_in_several_images_is_known(images):
    prog, _ = open_core(images)
    found = read_crash(prog)
    assert found.value.size == UTS + 5 * PAGE
    assert not any("size" in problem.what for problem in found.problems)


def test_memory_goes_on_from_one_image_to_the_next(tmp_path):
    (tmp_path / "a").write_bytes(page_bytes(1))
    (tmp_path / "b").write_bytes(page_bytes(2))
    dump = open_images([(f"{tmp_path}/b", PAGE), (f"{tmp_path}/a", 0)])
    assert dump.memory.read(PAGE - 8, 16) == page_bytes(1)[-8:] + page_bytes(2)[:8]
    assert b"".join(data for _, data in dump.memory.chunks()) == page_bytes(1) + page_bytes(2)
    assert dump.coverage.count()[State.SAVED] == 2 * PAGE


def test_what_is_wrong_with_images_is_said(tmp_path):
    (tmp_path / "a").write_bytes(bytes(2 * PAGE))
    a = f"{tmp_path}/a"
    with pytest.raises(UsageError, match=r"ends at 0x2000 and overlaps .*/a@0x1000"):
        open_core([f"{a}@0", f"{a}@0x1000"])
    with pytest.raises(UsageError, match="no physical memory"):
        open_core([f"{a}@0xffffffffffffffff"])
    with pytest.raises(UsageError, match="FILE@ADDRESS"):
        open_core([a, f"{a}@0x10000"])
    with pytest.raises(UsageError, match="FILE@ADDRESS"):
        open_core([f"{a}@12monkeys"])
    with pytest.raises(DumpFileError, match="No such file"):
        open_core([f"{tmp_path}/none@0"])
    with pytest.raises(DumpFileError, match="no VMCOREINFO"):
        open_core([f"{a}@0"])


def test_a_file_that_is_named_like_an_image_is_itself(tmp_path):
    path = tmp_path / "vmcore@0"
    path.write_bytes(b"hello, world")
    assert split_image(str(path)) is None
    with pytest.raises(DumpFileError, match="not a dump"):
        open_core([str(path)])


def test_images_of_a_sample_give_its_namespaces(tmp_path):
    case = CASES[0]
    names = []
    for name, base in (("low", 0), ("high", 1 << 32)):
        names.append(f"{tmp_path}/{name}@{base:#x}")
        with open(tmp_path / name, "wb") as file:  # sparse
            for address, data in dump_of(case.prog).memory.chunks():
                if (address >> 32 != 0) == (base != 0):
                    file.seek(address - base)
                    file.write(data)
    prog, _ = open_core(names)
    prog.load_debug_info([str(path) for path in case.sample.debug_info()])
    command = "pmem-list -o namespace,mode,size,uuid"
    assert run_text(prog, command)[0] == run_text(case.prog, command)[0]
    assert "raw memory has no program headers" in "".join(run_text(prog, "pmem-segments"))
