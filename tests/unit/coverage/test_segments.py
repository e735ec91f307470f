# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What segments contradict, and who wrote them, on synthetic dumps and machines."""

import dataclasses
import functools
from pathlib import Path
import struct
import subprocess
import sys

import numpy as np
import pytest

from drgn_pmem.analysis.coverage.segments import (
    NO_CXL,
    _missing_ram,
    _Reader,
    read_segments,
)
from drgn_pmem.analysis.coverage.writer import Writer, guess_loader
from drgn_pmem.analysis.inventory.machine import MachineMap
from drgn_pmem.dumpfile import PF_DEV, DumpFile, open_dump
from drgn_pmem.dumpfile.elf import MAX_PROGRAM_HEADERS
from drgn_pmem.dumpfile.program import open_program
from drgn_pmem.kernel.iomem import IORESOURCE_SYSTEM_RAM, Resource
from drgn_pmem.kernel.kexec import NamedRange
from drgn_pmem.ranges import Range, RangeSet

from ...samples import run_json, run_text
from ..calls import calls_of
from ..dumpfile.writers import VMCOREINFO, Elf, Load, note

MIB = 1 << 20
GIB = 1 << 30
PMEM = 7 | PF_DEV

KERNEL = Load(16 * MIB, 4 * MIB, virtual=0xFFFFFFFF81000000)
"""kexec_file_load and kexec-tools both put the kernel image first."""


def dump(path: Path, *loads: Load, notes: bytes = b"", machine: str = "x86_64") -> DumpFile:
    notes = notes or note(b"VMCOREINFO", 0, VMCOREINFO)
    return open_dump(Elf([*loads], notes, machine=machine).write(path / "vmcore"))


def machine(
    pmem: list[tuple[int, int]], reserved: list[tuple[int, int]] | None = None
) -> MachineMap:
    return MachineMap(
        iomem=[],
        pmem=RangeSet(Range(a, b) for a, b in pmem),
        pmem_sources=("regions",) if pmem else (),
        namespaces=[],
        reservations=[NamedRange(name="crashk_res", start=a, end=b) for a, b in reserved or []],
    )


def notes_of(opened: DumpFile, where: MachineMap, outside: bool = False) -> list[tuple[str, ...]]:
    return [segment.notes for segment in _Reader(opened, where, outside).read()]


@pytest.mark.parametrize(
    ("lost", "start", "found", "pmem"),
    [
        ((), 0, False, False),
        ((), GIB, False, False),
        (("iomem",), 0, False, False),
        (("regions",), GIB, False, None),
        (("iomem",), GIB, False, None),
        (("iomem",), 4 * GIB, True, None),
        (("regions",), 4 * GIB, True, True),
    ],
)
def test_range_of_a_bitmap_is_no_pmem_only_where_that_is_known(
    tmp_path: Path, lost: tuple[str, ...], start: int, found: bool, pmem: bool | None
) -> None:
    ram = Resource(
        name="System RAM",
        start=0,
        end=GIB - 1,
        flags=IORESOURCE_SYSTEM_RAM,
        desc="",
        depth=0,
        object=None,
    )
    where = dataclasses.replace(machine([(4 * GIB, 5 * GIB)]), iomem=[ram], lost_sources=lost)
    reader = _Reader(dump(tmp_path, KERNEL), where, False)
    assert reader._pmem(Range(start, start + MIB), found) is pmem


def test_segment_is_not_blamed_while_pmem_is_not_known(tmp_path: Path) -> None:
    opened = dump(tmp_path, KERNEL, Load(MIB, GIB), Load(4 * GIB, GIB, flags=PMEM))
    where = machine([(MIB, 2 * MIB)])
    assert any("PF_DEV" in note for notes in notes_of(opened, where) for note in notes)
    lost = dataclasses.replace(where, lost_sources=("iomem",))
    assert not any("PF_DEV" in note for notes in notes_of(opened, lost) for note in notes)


def test_file_load_appends_pmem_and_leaves_out_the_first_mib(tmp_path: Path) -> None:
    opened = dump(
        tmp_path, KERNEL, Load(MIB, GIB), Load(8 * GIB, GIB), Load(4 * GIB, GIB, flags=PMEM)
    )
    loader = guess_loader(opened)
    assert loader.by_order is Writer.FILE_LOAD
    assert "pmem comes after RAM at higher addresses" in loader.reason
    assert "first MiB of memory has no segment" in loader.reason


def test_kexec_tools_follows_iomem(tmp_path: Path) -> None:
    opened = dump(
        tmp_path,
        KERNEL,
        Load(0x1000, 0x9E000),
        Load(MIB, GIB),
        Load(4 * GIB, GIB, flags=PMEM),
        Load(8 * GIB, GIB),
    )
    loader = guess_loader(opened)
    assert loader.by_order is Writer.TOOLS
    assert "in the order of /proc/iomem" in loader.reason


def test_ram_on_pmem_is_ram(tmp_path: Path) -> None:
    """dax/kmem: its part comes among the RAM, with the flag, and again with its region."""
    opened = dump(
        tmp_path,
        KERNEL,
        Load(MIB, GIB),
        Load(5 * GIB, GIB, flags=PMEM),
        Load(8 * GIB, GIB),
        Load(4 * GIB, 2 * GIB, flags=PMEM),
    )
    assert guess_loader(opened).by_order is Writer.FILE_LOAD


def test_ram_on_pmem_tells_where_no_ram_lies_above_pmem(tmp_path: Path) -> None:
    """arm64: kexec_file_load takes RAM from memblock; /proc/iomem has it below its region."""
    ram, region = Load(5 * GIB, GIB, flags=PMEM), Load(5 * GIB, 2 * GIB, flags=PMEM)
    first = Load(4 * GIB, GIB, flags=PMEM)
    opened = dump(tmp_path, KERNEL, Load(GIB, GIB), ram, first, region, machine="aarch64")
    assert guess_loader(opened).by_order is Writer.FILE_LOAD
    opened = dump(tmp_path, KERNEL, Load(GIB, GIB), first, region, ram, machine="aarch64")
    assert guess_loader(opened).by_order is Writer.TOOLS


def test_qemu_without_notes_of_its_own_is_told_by_segments_without_flags(tmp_path: Path) -> None:
    opened = dump(tmp_path, Load(GIB, GIB, flags=0), Load(4 * GIB, GIB, flags=0), machine="aarch64")
    assert opened.hypervisor
    assert guess_loader(opened).by_order is Writer.HYPERVISOR
    opened = dump(tmp_path, Load(GIB, GIB, flags=0), Load(4 * GIB, GIB), machine="aarch64")
    assert not opened.hypervisor
    assert guess_loader(opened).by_order is None


def test_headers_that_contradict_each_other_name_no_one(tmp_path: Path) -> None:
    opened = dump(
        tmp_path, KERNEL, Load(MIB, GIB), Load(4 * GIB, GIB, flags=PMEM), Load(8 * GIB, GIB)
    )
    loader = guess_loader(opened)
    assert loader.by_order is None
    assert "kexec_file_load" in loader.reason
    assert "kexec-tools" in loader.reason


def test_without_pmem_other_machines_do_not_tell(tmp_path: Path) -> None:
    opened = dump(tmp_path, KERNEL, Load(0, GIB), machine="ppc64")
    assert guess_loader(opened).by_order is None
    opened = dump(
        tmp_path, KERNEL, Load(0, GIB), Load(2 * GIB, GIB, flags=PMEM), Load(4 * GIB, GIB),
        machine="ppc64",
    )  # fmt: skip
    assert guess_loader(opened).by_order is Writer.TOOLS


def test_the_crashed_kernel_may_say_otherwise(tmp_path: Path) -> None:
    opened = dump(tmp_path, KERNEL, Load(MIB, GIB))
    assert "but the crashed kernel says kexec-tools" in guess_loader(opened, Writer.TOOLS).text
    assert guess_loader(opened, Writer.FILE_LOAD).text.endswith("crashed kernel confirms it")


def test_qemu_is_known_by_its_notes(tmp_path: Path) -> None:
    notes = note(b"QEMU", 0, bytes(440)) + note(b"VMCOREINFO", 0, VMCOREINFO)
    assert guess_loader(dump(tmp_path, Load(0, GIB), notes=notes)).by_order is Writer.HYPERVISOR


@pytest.mark.parametrize(
    ("start", "cxl", "line"),
    [
        (GIB, False, "never sets PF_DEV and leaves no persistent memory out"),
        (8 * GIB, False, "PF_DEV, and 1 GiB of persistent memory is not in it"),
        (8 * GIB, True, f"1 GiB of persistent memory is not in it ({NO_CXL})"),
    ],
)
def test_what_a_hypervisors_dump_lacks_of_persistent_memory(
    tmp_path: Path, start: int, cxl: bool, line: str
) -> None:
    """QEMU never dumps CXL memory; such a dump was said to leave nothing out."""
    opened = dump(tmp_path, Load(0, 4 * GIB, flags=0), notes=note(b"QEMU", 0, bytes(440)))
    window = Resource(
        name="CXL Window 0",
        start=start,
        end=start + GIB - 1,
        flags=0,
        desc="IORES_DESC_NONE",
        depth=0,
        object=None,
    )
    where = machine([(start, start + GIB)])
    where = dataclasses.replace(where, iomem=[window] if cxl else [])
    (said,) = _Reader(opened, where, True).notes()
    assert said.endswith(line)


def test_pmem_without_the_flag(tmp_path: Path) -> None:
    opened = dump(tmp_path, Load(MIB, GIB), Load(4 * GIB, GIB))
    (ram, pmem) = notes_of(opened, machine([(4 * GIB + MIB, 5 * GIB)]))
    assert ram == ()
    assert pmem == ("pmem without PF_DEV (1023 MiB)",)
    assert notes_of(opened, machine([(4 * GIB, 5 * GIB)]), outside=True) == [(), ()]


def test_flag_without_pmem(tmp_path: Path) -> None:
    opened = dump(tmp_path, Load(4 * GIB, GIB, flags=PMEM), Load(8 * GIB, GIB, flags=PMEM))
    (partly, none) = notes_of(opened, machine([(4 * GIB, 4 * GIB + MIB)]))
    assert partly == ("PF_DEV without pmem (1023 MiB is not pmem)",)
    assert none == ("PF_DEV without pmem (no pmem there)",)
    # Where nothing tells what was pmem, nothing is contradicted.
    assert notes_of(opened, machine([])) == [(), ()]


def test_the_crash_kernels_reservation(tmp_path: Path) -> None:
    opened = dump(tmp_path, Load(MIB, GIB), Load(4 * GIB, GIB))
    (inside, outside) = notes_of(opened, machine([], [(2 * MIB, 64 * MIB)]))
    assert len(inside) == 1
    assert inside[0].startswith("overlaps the crash kernel's reservation at 0x200000-0x4000000")
    assert outside == ()


@pytest.mark.parametrize(
    ("reserved", "known", "missing", "words"),
    [
        ([], True, [Range(16 * MIB, 32 * MIB)], "(16 MiB) is not in the dump"),
        ([(16 * MIB, 32 * MIB)], True, [], None),
        ([], False, [], "whether it is the crash kernel's is not known"),
    ],
)
def test_ram_is_missing_only_if_it_cannot_be_the_crash_kernels(
    tmp_path: Path,
    reserved: list[tuple[int, int]],
    known: bool,
    missing: list[Range],
    words: str | None,
) -> None:
    opened = dump(tmp_path, Load(MIB, 15 * MIB), Load(32 * MIB, MIB))
    ram = Resource(
        name="System RAM",
        start=MIB,
        end=33 * MIB - 1,
        flags=IORESOURCE_SYSTEM_RAM,
        desc="",
        depth=0,
        object=None,
    )
    where = dataclasses.replace(machine([], reserved), iomem=[ram], reservations_known=known)
    found, notes = _missing_ram(opened, where, guess_loader(opened), None)
    assert found == missing
    assert len(notes) == (words is not None)
    assert all(str(words) in note for note in notes)


def test_no_physical_address(tmp_path: Path) -> None:
    opened = dump(tmp_path, Load((1 << 64) - 1, GIB), Load(MIB, GIB))
    (first, second) = notes_of(opened, machine([(0, 1 << 40)]))
    assert first == ("maps no physical memory (p_paddr is -1)",)
    assert len(second) == 1


def test_a_dump_without_debug_info_is_listed_with_one_note_on_it(tmp_path: Path) -> None:
    loads = [KERNEL, Load(MIB, GIB, bytes(4096)), Load(4 * GIB, GIB, bytes(8192), flags=PMEM)]
    path = Elf(loads, note(b"VMCOREINFO", 0, VMCOREINFO)).write(tmp_path / "vmcore")
    prog, _ = open_program(path)
    shown = run_json(prog, "pmem-segments")
    assert [s["pmem"] for s in shown] == [False, False, True]
    assert shown[2]["states"] == {"saved": 8192, "excluded": GIB - 8192}
    _, notes = run_text(prog, "pmem-segments")
    assert notes.count("no debug info of the kernel") == 1


def many(path: Path, count: int) -> Path:
    loads = [Load(GIB + n * MIB, 4096) for n in range(count)]
    return Elf(loads, note(b"VMCOREINFO", 0, VMCOREINFO)).write(path / f"vmcore{count}")


def test_seventy_thousand_segments_are_listed(tmp_path: Path) -> None:
    prog, _ = open_program(many(tmp_path, 70_001))
    lines = run_text(prog, "pmem-segments -H -o index,physical")[0].splitlines()
    assert len(lines) == 70_001
    start = GIB + 70_000 * MIB
    assert lines[-1] == f"70001\t{start:#x}-{start + 4096:#x}"


def test_the_work_grows_as_the_segments_do(tmp_path: Path) -> None:
    def work(path: Path) -> None:
        prog, _ = open_program(path)
        run_text(prog, "pmem-segments -H -o index,physical")

    paths = [many(tmp_path, count) for count in (1000, 2000)]
    work(paths[0])  # what is imported on first use
    once, twice = (calls_of(functools.partial(work, path)) for path in paths)
    assert twice < 2.2 * once


@pytest.mark.parametrize("line", ["pmem-segments", "pmem-usage", "pmem-infoblocks"])
def test_code_that_drgn_option_prints_compiles(line: str, tmp_path: Path) -> None:
    path = Elf([Load(MIB, MIB, bytes(MIB))], note(b"VMCOREINFO", 0, VMCOREINFO)).write(
        tmp_path / "vmcore"
    )
    prog, _ = open_program(path)
    code, _ = run_text(prog, f"{line} --drgn")
    exec(compile(code, line, "exec"), {"prog": prog})


def test_low_memory_does_not_tell_the_loader_of_kernels_before_5_5(tmp_path: Path) -> None:
    """Their kexec_file_load put it into the header, with a backup region."""
    loads = [KERNEL, Load(0x1000, 0x9E000), Load(MIB, GIB)]
    opened = dump(tmp_path, *loads)
    assert guess_loader(opened).by_order is Writer.TOOLS
    loader = guess_loader(opened, Writer.FILE_LOAD, low_tells=False)
    assert loader.by_order is None
    assert "the crashed kernel says kexec_file_load" in loader.text
    assert "before Linux 5.5" in loader.text
    pmem = dump(tmp_path, *loads, Load(8 * GIB, GIB), Load(4 * GIB, GIB, flags=PMEM))
    assert guess_loader(pmem, low_tells=False).by_order is Writer.FILE_LOAD


@pytest.mark.parametrize("young", [True, False])
def test_vmcoreinfo_tells_a_kernel_that_leaves_low_memory_out(tmp_path: Path, young: bool) -> None:
    """Without debug info; the line is younger than that."""
    text = VMCOREINFO if young else VMCOREINFO.replace(b"BUILD-ID=", b"OTHER=")
    loads = [KERNEL, Load(0x1000, 0x9E000), Load(MIB, GIB)]
    path = Elf(loads, note(b"VMCOREINFO", 0, text)).write(tmp_path / "vmcore")
    prog, _ = open_program(path)
    loader = read_segments(prog).value.loader
    assert (loader.by_order is Writer.TOOLS) == young


_MOST = """
import sys
from drgn_pmem.commands import load_command
from drgn_pmem.dumpfile.program import open_program
from drgn_pmem.spec import run
prog, _ = open_program(sys.argv[1])
answer = run(load_command("pmem-segments"), prog, ["--json", "--limit", "1"])
assert not answer.whole
# Not ru_maxrss: that begins with what the process that started this one had.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if "VmHWM" in line)
print(peak >> 10, file=sys.stderr)
"""


def test_the_most_program_headers_take_500_mib_and_those_not_shown_are_named(
    tmp_path: Path,
) -> None:
    count = MAX_PROGRAM_HEADERS
    start = Elf([Load(MIB, 4096)], note(b"VMCOREINFO", 0, VMCOREINFO)).bytes()
    table = np.zeros(count, "<u4,<u4,<u8,<u8,<u8,<u8,<u8,<u8")
    notes = np.frombuffer(start, table.dtype, 1, 64)[0]
    places = np.arange(count, dtype=np.uint64) << np.uint64(13)
    # Half a page each is saved: drgn is given a segment for each of the other halves.
    table["f0"], table["f1"], table["f5"], table["f6"] = 1, 7, 2048, 4096
    table["f3"] = places + np.uint64(0xFFFF888000000000)
    table["f4"] = places
    end = 64 + table.nbytes
    table["f2"] = end + 64
    table[0] = notes
    table["f2"][0] = end + 64
    header = bytearray(start[:64])
    struct.pack_into("<Q", header, 40, end)  # e_shoff
    struct.pack_into("<HHHH", header, 56, 0xFFFF, 64, 1, 0)
    section = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, count, 0, 0)
    body = start[64 + 2 * 56 :].ljust(4096, b"\0")
    path = tmp_path / "vmcore"
    path.write_bytes(bytes(header) + table.tobytes() + section + body)
    done = subprocess.run(
        [sys.executable, "-c", _MOST, path], capture_output=True, text=True, check=True
    )
    assert f"{count - 1 - 80_000} more segments are not shown" in done.stderr
    assert int(done.stderr.splitlines()[-1]) < 500
