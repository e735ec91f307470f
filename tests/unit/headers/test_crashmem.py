# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which memory a crash header covers, from a memory map."""

from typing import Any

from drgn import Program
import pytest

from drgn_pmem.analysis.headers import memory, rebuild
from drgn_pmem.analysis.headers.memory import crash_memory, kexec_tools_memory, system_ram
from drgn_pmem.analysis.headers.rebuild import _text_of_kexec_tools
from drgn_pmem.errors import NotFound
from drgn_pmem.formats.architecture import (
    AARCH64,
    PPC64,
    X86_64,
    Architecture,
    find_architecture,
)
from drgn_pmem.kernel.crash_core import KernelText
from drgn_pmem.kernel.iomem import IORESOURCE_BUSY, IORESOURCE_SYSTEM_RAM, Resource
from drgn_pmem.kernel.kexec import NamedRange
from drgn_pmem.kernel.memblock import MemblockRegion
from drgn_pmem.partial import Partial

RAM = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY
MEM = 0x200
PMEM = "IORES_DESC_PERSISTENT_MEMORY"
MIB = 1 << 20


def resource(
    name: str, start: int, end: int, flags: int = RAM, desc: str = "IORES_DESC_NONE", depth: int = 0
) -> Resource:
    """One line of /proc/iomem; *end* is exclusive here."""
    nothing: Any = None
    return Resource(
        name=name, start=start, end=end - 1, flags=flags, desc=desc, depth=depth, object=nothing
    )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give crashmem a machine: its memory map and its reservations."""

    def make(
        resources: list[Resource] | None = None,
        reserved: list[NamedRange] | None = None,
        memblock: list[MemblockRegion] | None = None,
    ) -> Program:
        monkeypatch.setattr(memory, "for_each_iomem", lambda prog: Partial(resources or []))
        monkeypatch.setattr(memory, "keeps_backup_region", lambda prog: False)
        monkeypatch.setattr(memory, "crash_reservations", lambda prog: Partial(reserved or []))
        monkeypatch.setattr(memory, "for_each_mem_range", lambda prog: Partial(memblock or []))
        return Program()

    return make


def spans(ranges: Any) -> list[tuple[int, int]]:
    return [(item.start, item.end) for item in ranges]


def test_nested_ram_counts_once() -> None:
    """System RAM (kmem) below Persistent Memory counts; a busy child of RAM is no second range."""
    resources = [
        resource("System RAM", MIB, 16 * MIB),
        resource("System RAM", 2 * MIB, 3 * MIB, depth=1),
        resource("Persistent Memory", 32 * MIB, 64 * MIB, MEM, PMEM),
        resource("dax0.0", 32 * MIB, 64 * MIB, MEM | IORESOURCE_BUSY, depth=1),
        resource("System RAM (kmem)", 33 * MIB, 64 * MIB, depth=2),
    ]
    assert spans(system_ram(resources)) == [(MIB, 16 * MIB), (33 * MIB, 64 * MIB)]


def test_not_busy_is_not_ram() -> None:
    """Memory that is there but not online is not dumped."""
    assert system_ram([resource("System RAM", MIB, 2 * MIB, IORESOURCE_SYSTEM_RAM)]) == []


def test_x86_leaves_out_the_low_megabyte_and_the_reservation(machine: Any) -> None:
    prog = machine(
        [resource("System RAM", 0x1000, 0x9FC00), resource("System RAM", MIB, 64 * MIB)],
        [NamedRange(name="crashk_res", start=16 * MIB, end=32 * MIB)],
    )
    memory = crash_memory(prog, X86_64, None, pmem=False)
    assert spans(memory.ranges) == [(MIB, 16 * MIB), (32 * MIB, 64 * MIB)]
    assert memory.cut_wrongly == ()


def test_x86_appends_pmem_and_marks_what_lies_in_it(machine: Any) -> None:
    """The patch walks persistent memory after RAM, and marks by where a range begins."""
    prog = machine(
        [
            resource("System RAM", MIB, 16 * MIB),
            resource("Persistent Memory", 32 * MIB, 64 * MIB, MEM, PMEM),
            resource("System RAM (kmem)", 48 * MIB, 64 * MIB, depth=1),
            resource("System RAM", 128 * MIB, 160 * MIB),
        ]
    )
    memory = crash_memory(prog, X86_64, None, pmem=True)
    assert [(item.start // MIB, item.flags) for item in memory.ranges] == [
        (1, 0x7),
        (48, 0x17),
        (128, 0x7),
        (32, 0x17),
    ]
    unpatched = crash_memory(prog, X86_64, None, pmem=False)
    assert [(item.start // MIB, item.flags) for item in unpatched.ranges] == [
        (1, 0x7),
        (48, 0x7),
        (128, 0x7),
    ]


def test_an_exclusion_over_two_ranges_is_named(machine: Any) -> None:
    """Kernels before 6.9 stop cutting at the first range that they shorten."""
    prog = machine(
        [resource("System RAM", MIB, 16 * MIB), resource("System RAM", 16 * MIB, 32 * MIB)],
        [NamedRange(name="crashk_low_res", start=15 * MIB, end=17 * MIB)],
    )
    memory = crash_memory(prog, X86_64, None, pmem=False)
    assert spans(memory.ranges) == [(MIB, 15 * MIB), (17 * MIB, 32 * MIB)]
    assert [item.name for item in memory.cut_wrongly] == ["crashk_low_res"]


def test_arm64_takes_memblock(machine: Any) -> None:
    prog = machine(
        memblock=[MemblockRegion(start=0x40000000, end=0x48000000, flags=0)],
        reserved=[NamedRange(name="crashk_res", start=0x42000000, end=0x43000000)],
    )
    memory = crash_memory(prog, AARCH64, None, pmem=False)
    assert spans(memory.ranges) == [(0x40000000, 0x42000000), (0x43000000, 0x48000000)]


def test_arm64_appends_pmem_to_memblock_and_marks_what_lies_in_it(machine: Any) -> None:
    """Memory that a driver added is in memblock, too: a dax device that became RAM comes twice."""
    prog = machine(
        [
            resource("System RAM", 0x40000000, 0x48000000),
            resource("Persistent Memory", 0x80000000, 0x90000000, MEM, PMEM),
            resource("System RAM (kmem)", 0x88000000, 0x90000000, depth=1),
        ],
        memblock=[
            MemblockRegion(start=0x40000000, end=0x48000000, flags=0),
            MemblockRegion(start=0x88000000, end=0x90000000, flags=0x8),
        ],
    )
    memory = crash_memory(prog, AARCH64, None, pmem=True)
    assert [(item.start, item.end, item.flags) for item in memory.ranges] == [
        (0x40000000, 0x48000000, 0x7),
        (0x88000000, 0x90000000, 0x17),
        (0x80000000, 0x90000000, 0x17),
    ]


def test_ppc64_has_a_range_of_its_own_for_the_backup(machine: Any) -> None:
    """The first 64 KiB are read from where the purgatory copied them; ranges stay sorted."""
    prog = machine(
        memblock=[
            MemblockRegion(start=0, end=256 * MIB, flags=0),
            MemblockRegion(start=256 * MIB, end=512 * MIB, flags=0),
        ],
        reserved=[NamedRange(name="crashk_res", start=128 * MIB, end=192 * MIB)],
    )
    memory = crash_memory(prog, PPC64, None, pmem=False)
    assert spans(memory.ranges) == [
        (0, 0x10000),
        (0x10000, 128 * MIB),
        (192 * MIB, 256 * MIB),
        (256 * MIB, 512 * MIB),
    ]


def test_kexec_tools_keeps_low_memory_and_all_that_is_called_ram(machine: Any) -> None:
    prog = machine(
        [
            resource("System RAM", 0x1000, 0x9FC00),
            resource("System RAM", MIB, 64 * MIB),
            resource("Crash kernel", 16 * MIB, 32 * MIB, RAM, depth=1),
            resource("Persistent Memory", 80 * MIB, 96 * MIB, MEM, PMEM),
            resource("System RAM (kmem)", 80 * MIB, 96 * MIB, depth=1),
        ]
    )
    memory = kexec_tools_memory(prog, X86_64)
    assert spans(memory.ranges) == [
        (0x1000, 0x9FC00),
        (MIB, 16 * MIB),
        (32 * MIB, 64 * MIB),
        (80 * MIB, 96 * MIB),
    ]


def arm64_lines() -> list[Resource]:
    """Of an arm64 machine with pages of 16 KiB: reserved memory does not interrupt the ranges."""
    return [
        resource("System RAM", 0x40000000, 0x7BB70000),
        resource("reserved", 0x40208000, 0x40209000, MEM, depth=1),
        resource("Kernel code", 0x5C350000, 0x5E0C0000, depth=1),
        resource("reserved", 0x5E0C0000, 0x5E410000, MEM, depth=1),
        resource("Kernel data", 0x5E410000, 0x5E900000, depth=1),
        resource("Crash kernel", 0x63000000, 0x7B000000, depth=1),
        resource("reserved", 0x7BB70000, 0x7BB80000, MEM),
        resource("System RAM", 0x7BB80000, 0x7C440000),
        resource("Persistent Memory", 0x110000000, 0x130000000, MEM, PMEM),
        resource("System RAM (kmem)", 0x110200000, 0x130000000, depth=2),
    ]


def test_kexec_tools_of_aarch64_leaves_out_the_ram_of_dax_devices(machine: Any) -> None:
    """As it said itself: its "System RAM" is a whole line of /proc/iomem."""
    assert spans(kexec_tools_memory(machine(arm64_lines()), AARCH64).ranges) == [
        (0x40000000, 0x63000000),
        (0x7B000000, 0x7BB70000),
        (0x7BB80000, 0x7C440000),
    ]


@pytest.mark.parametrize(
    ("architecture", "size"), [(AARCH64, 0x5E900000 - 0x5C350000), (X86_64, 0x2001000)]
)
def test_kexec_tools_takes_the_kernels_size_from_iomem_on_aarch64(
    architecture: Architecture, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "for_each_iomem", lambda prog: Partial(arm64_lines()))
    text = KernelText(virtual=0xFFFFD00455950000, physical=0x5C340000, size=0x2000001)
    found = _text_of_kexec_tools(Program(), text, architecture)
    assert (found.virtual, found.physical, found.size) == (text.virtual, 0x5C350000, size)


def test_an_unknown_architecture_is_said_to_be_unknown(machine: Any) -> None:
    with pytest.raises(NotFound, match="s390x"):
        crash_memory(machine(), find_architecture("s390x"), None, pmem=False)
    with pytest.raises(NotFound, match="ppc64"):
        kexec_tools_memory(machine(), PPC64)
