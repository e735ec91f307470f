# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The crashed kernel in a dump of its capture kernel: what /proc/vmcore would have been."""

from pathlib import Path
import struct

import drgn
import pytest

from drgn_pmem.dumpfile import State, coverage_of, dump_of, open_dump
from drgn_pmem.dumpfile.crashed import find_crashed_kernels
from drgn_pmem.errors import DumpFileError
from drgn_pmem.session import open_core
from tests.unit.dumpfile.test_locate import UTS, text, uts
from tests.unit.dumpfile.writers import PAGE, Elf, Load, note, page_bytes

VIRTUAL = 0xFFFF888000000000
RAM = 0x100000
"""Memory of the crashed kernel, one MiB after which the capture kernel's begins."""
CAPTURE = 0x2000000
HEADER, NOTES, INFO, BACKUP = (CAPTURE + at for at in (0x20000, 0x30000, 0x31000, 0x100000))
SIZE = CAPTURE + 0x200000
REGISTERS = bytes(range(16)) * 21
"""NT_PRSTATUS of x86_64: 336 bytes."""


def crash_header(registers: bool = True, low: int = BACKUP) -> dict[int, bytes]:
    """
    Bytes by physical address: a crash header and the notes that it leads to.

    :param low: Where the first 640 KiB were copied to.
    """
    loads = [(0, low, 0xA0000), (RAM, RAM, CAPTURE - RAM)]
    phdrs = [
        struct.pack("<IIQQQQQQ", 4, 0, NOTES, 0, NOTES, 0x400, 0x400, 4),
        struct.pack("<IIQQQQQQ", 4, 0, INFO, 0, INFO, 0x1000, 0x1000, 4),
        *(
            struct.pack("<IIQQQQQQ", 1, 7, offset, VIRTUAL + start, start, size, size, 0)
            for start, offset, size in loads
        ),
    ]
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 4, 62, 1, 0, 64, 0, 0, 64, 56, len(phdrs), 0, 0, 0
    )
    return {
        HEADER: head + b"".join(phdrs),
        NOTES: note(b"CORE", 1, REGISTERS) if registers else b"",
        INFO: note(b"VMCOREINFO", 0, text()),
    }


def machine(path: Path, parts: dict[int, bytes], size: int = SIZE) -> str:
    """A dump by a hypervisor of all memory."""
    memory = bytearray(size)
    memory[UTS : UTS + len(uts())] = uts()
    memory[0x5000 : 0x5000 + PAGE] = b"c" * PAGE  # the capture kernel's own, at low addresses
    memory[BACKUP + 0x5000 : BACKUP + 0x5000 + PAGE] = page_bytes(5)
    memory[RAM : RAM + PAGE] = page_bytes(RAM // PAGE)
    for address, data in parts.items():
        memory[address : address + len(data)] = data
    load = Load(0, size, bytes(memory), virtual=0, flags=0)
    return str(Elf([load], note(b"QEMU", 0, bytes(8))).write(path))


def test_the_crashed_kernel_is_opened_with_its_registers_and_its_own_low_memory(
    tmp_path: Path,
) -> None:
    prog, lines = open_core(machine(tmp_path / "vmcore", crash_header()), crashed=True)
    assert prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL
    assert prog["VMCOREINFO"].string_() == text()
    assert f"{HEADER:#x}: registers of 1 CPUs" in lines[0]
    assert prog.read(0x5000, PAGE, True) == page_bytes(5), "the backup region"
    assert prog.read(RAM, PAGE, True) == page_bytes(RAM // PAGE)
    dump = dump_of(prog)
    assert [(n.name, n.type) for n in dump.notes] == [(b"CORE", 1), (b"VMCOREINFO", 0)]
    assert dump.note_data(dump.notes[0]) == REGISTERS
    assert [(s.physical, s.memory_size) for s in dump.segments] == [
        (0, 0xA0000),
        (RAM, CAPTURE - RAM),
    ]
    assert not dump.hypervisor


def test_a_raw_image_of_memory_has_it_too(tmp_path: Path) -> None:
    dump = open_dump(machine(tmp_path / "vmcore", crash_header()))
    assert dump.memory is not None
    (tmp_path / "memory").write_bytes(dump.memory.read(0, SIZE))
    prog, _ = open_core([f"{tmp_path}/memory@0"], crashed=True)
    assert prog.read(0x5000, PAGE, True) == page_bytes(5)
    assert dump_of(prog).note_data(dump_of(prog).notes[0]) == REGISTERS


def test_the_capture_kernels_memory_is_not_the_crashed_kernels(tmp_path: Path) -> None:
    prog, _ = open_core(machine(tmp_path / "vmcore", crash_header()), crashed=True)
    assert coverage_of(prog).state(CAPTURE) is State.ABSENT
    with pytest.raises(drgn.FaultError):
        prog.read(CAPTURE, 1, True)


def test_of_two_headers_that_of_the_capture_kernel_is_taken(tmp_path: Path) -> None:
    """The crashed kernel keeps a copy of what it loaded, before the purgatory knew more."""
    copy = {RAM + 0x8000: crash_header(low=0)[HEADER]}
    path = machine(tmp_path / "vmcore", crash_header() | copy)
    found = find_crashed_kernels(open_dump(path))
    assert [k.address for k in found] == [HEADER, RAM + 0x8000]
    prog, _ = open_core(path, crashed=True)
    assert prog.read(0x5000, PAGE, True) == page_bytes(5)


def test_what_the_dump_lacks_of_the_crashed_kernel_is_absent(tmp_path: Path) -> None:
    """Its header and notes are there, a part of its memory is not."""
    parts = crash_header()
    memory = bytearray(SIZE)
    memory[UTS : UTS + len(uts())] = uts()
    for address, data in parts.items():
        memory[address : address + len(data)] = data
    hole = RAM + 0x100000
    loads = [
        Load(start, end - start, bytes(memory[start:end]), virtual=start, flags=0)
        for start, end in ((0, hole), (hole + PAGE, SIZE))
    ]
    path = Elf(loads, note(b"QEMU", 0, bytes(8))).write(tmp_path / "vmcore")
    prog, _ = open_core(str(path), crashed=True)
    states = [coverage_of(prog).state(hole + at) for at in (-1, 0, PAGE - 1, PAGE)]
    assert states == [State.SAVED, State.ABSENT, State.ABSENT, State.SAVED]


def test_a_kernel_that_has_not_crashed_is_not_taken_for_one(tmp_path: Path) -> None:
    path = machine(tmp_path / "vmcore", crash_header(registers=False))
    with pytest.raises(DumpFileError, match="has not crashed; open the dump without --crashed"):
        open_core(path, crashed=True)


def test_a_dump_without_a_crash_header_is_said_to_have_none(tmp_path: Path) -> None:
    path = machine(tmp_path / "vmcore", {})
    with pytest.raises(DumpFileError, match="no crashed kernel"):
        open_core(path, crashed=True)


@pytest.mark.parametrize("at", [32, 54, 56, 64 + 40])
def test_a_damaged_header_is_none(tmp_path: Path, at: int) -> None:
    """Its offsets, sizes and counts, and the size of its notes."""
    parts = crash_header()
    damaged = bytearray(parts[HEADER])
    damaged[at : at + 8] = b"\xff" * 8
    path = machine(tmp_path / "vmcore", parts | {HEADER: bytes(damaged)})
    with pytest.raises(DumpFileError, match="no crashed kernel"):
        open_core(path, crashed=True)
