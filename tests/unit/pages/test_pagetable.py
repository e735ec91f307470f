# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kernel page tables of every layout, against tables that the test wrote."""

import itertools
import re

from drgn import Architecture, Program
import pytest

from drgn_pmem.dumpfile import State
from drgn_pmem.errors import PmemError
from drgn_pmem.kernel.memory import BadAddress, memory_of
from drgn_pmem.kernel.mmu import find_mmu
from drgn_pmem.kernel.pagetable import (
    Extent,
    for_each_extent,
    kernel_coverage,
    read_saved,
    translate,
)
from drgn_pmem.kernel.root import Verdict, ppc64_is_radix, root_of, walk_process
from drgn_pmem.kernel.tablewalk import unmapped, walk_tables
from drgn_pmem.kernel.vmemmap_list import vmemmap_backings
from drgn_pmem.partial import Cause, NotSaved, Problem

from .physical import PAGE, UTS, Machine, Tables, aarch64, ppc64_radix, uts, with_uts, x86_64

VMEMMAP = 0xFFFFEA0000000000
M2, G1 = 1 << 21, 1 << 30


def mapped(prog: Program, start: int, end: int) -> list[tuple[int, int, int]]:
    """(virtual, physical, size) of what is mapped; checks that the extents are a partition."""
    extents = list(for_each_extent(prog, start, end))
    assert extents[0].virtual == start
    assert extents[-1].end == end
    for before, after in itertools.pairwise(extents):
        assert before.end == after.virtual
    return [(e.virtual, e.physical, e.size) for e in extents if e.physical is not None]


def test_contiguous_pages_are_one_extent_and_a_gap_ends_it() -> None:
    machine = Machine()
    tables, info = x86_64(machine)
    tables.map_pages(VMEMMAP, [0x100000000 + i * PAGE for i in range(700)], 12)
    tables.map(VMEMMAP + 701 * PAGE, 0x100000000 + 701 * PAGE, 12)
    prog = machine.program(info)
    assert mapped(prog, VMEMMAP, VMEMMAP + 800 * PAGE) == [
        (VMEMMAP, 0x100000000, 700 * PAGE),
        (VMEMMAP + 701 * PAGE, 0x100000000 + 701 * PAGE, PAGE),
    ]
    gap = list(for_each_extent(prog, VMEMMAP, VMEMMAP + 800 * PAGE))[1]
    assert gap == Extent(
        virtual=VMEMMAP + 700 * PAGE,
        physical=None,
        size=PAGE,
        state=State.UNMAPPED,
        reason="not mapped",
    )


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("sme", [0, 1 << 47])
def test_x86_leaves_of_every_size(levels: int, sme: int) -> None:
    machine = Machine()
    tables, info = x86_64(machine, levels, sme)
    base = VMEMMAP if levels == 4 else 0xFFD4000000000000
    tables.map(base, 0x200000000, 30)
    tables.map(base + G1, 0x240000000, 21)  # goes on where the 1 GiB leaf ends
    tables.map(base + G1 + M2, 0x80000000, 21)
    tables.map(base + G1 + 2 * M2, 0x5000, 12)
    prog = machine.program(info)
    assert mapped(prog, base - G1, base + 2 * G1) == [
        (base, 0x200000000, G1 + M2),
        (base + G1 + M2, 0x80000000, M2),
        (base + G1 + 2 * M2, 0x5000, PAGE),
    ]
    assert translate(prog, base + G1 + M2 + 0x12345) == 0x80012345
    with pytest.raises(NotSaved) as error:
        translate(prog, base + G1 + 2 * M2 + PAGE)
    assert error.value.state is State.UNMAPPED


@pytest.mark.parametrize("levels", [4, 5])
def test_x86_processes_use_addresses_above_128_tib_with_five_levels_only(levels: int) -> None:
    machine = Machine()
    kernel, info = x86_64(machine, levels)
    kernel.map(VMEMMAP if levels == 4 else 0xFFD4000000000000, 0x200000000, 30)
    own = Tables(machine, 0x6000000, kernel.levels, kernel.table, kernel.leaf)
    low, high = 0x7F6691A11000, 3 << 53
    own.map(low, 0x123456000, 12)
    if levels == 5:
        own.map(high, 0x140000000, 21)
        own.map(high + M2, 0x5000, 12)
    prog = machine.program(info)

    def pages(start: int, end: int) -> list[tuple[int, int, int]]:
        extents = walk_process(prog, own.root, start, end)
        return [(e.virtual, e.physical, e.size) for e in extents if e.physical is not None]

    assert pages(low - M2, low + M2) == [(low, 0x123456000, PAGE)]
    assert pages(high - M2, high + G1) == (
        [] if levels == 4 else [(high, 0x140000000, M2), (high + M2, 0x5000, PAGE)]
    )


def test_a_range_that_starts_and_ends_inside_leaves() -> None:
    machine = Machine()
    tables, info = x86_64(machine)
    tables.map_pages(VMEMMAP, [0x10000000, 0x20000000], 21)
    prog = machine.program(info)
    assert mapped(prog, VMEMMAP + 0x1000, VMEMMAP + M2 + 0x40) == [
        (VMEMMAP + 0x1000, 0x10001000, M2 - 0x1000),
        (VMEMMAP + M2, 0x20000000, 0x40),
    ]


def test_addresses_that_no_table_can_translate() -> None:
    machine = Machine()
    _, info = x86_64(machine)
    prog = machine.program(info)
    assert list(for_each_extent(prog, 1 << 50, 1 << 51)) == [unmapped(1 << 50, 1 << 51)]
    assert list(for_each_extent(prog, 5, 5)) == []


@pytest.mark.parametrize(
    ("page_shift", "bits", "block"), [(12, 39, 21), (12, 48, 30), (12, 52, 21), (14, 47, 25),
                                      (14, 52, 25), (16, 42, 29), (16, 48, 29), (16, 52, 29)]
)  # fmt: skip
def test_aarch64(page_shift: int, bits: int, block: int) -> None:
    machine = Machine(Architecture.AARCH64)
    tables, info = aarch64(machine, page_shift, bits)
    page = 1 << page_shift
    base = (1 << 64) - (1 << (bits - 1))
    high = 0xA << 48 if bits == 52 else 0  # addresses beyond 48 bits
    tables.map_pages(base, [high | 0x80000000 + i * page for i in range(3)], page_shift)
    tables.map(base + 3 * page, 0x40000000, page_shift)
    tables.map(base + (1 << block), high | 1 << block, block)
    prog = machine.program(info)
    assert mapped(prog, base, base + (2 << block)) == [
        (base, high | 0x80000000, 3 * page),
        (base + 3 * page, 0x40000000, page),
        (base + (1 << block), high | 1 << block, 1 << block),
    ]


def test_aarch64_built_for_52_bits_on_a_machine_with_48() -> None:
    """The 64K-page kernel keeps its top table laid out for 52 bits; TCR_EL1_T1SZ says 16."""
    machine = Machine(Architecture.AARCH64)
    tables, info = aarch64(machine, 16, 52)
    base = 0xFFFFFC0000000000
    tables.map(base, 0x90000000, 16)
    prog = machine.program(info.replace("T1SZ)=0xc", "T1SZ)=0x10"))
    assert mapped(prog, base, base + (1 << 17)) == [(base, 0x90000000, 1 << 16)]


@pytest.mark.parametrize("page_shift", [12, 16])
def test_ppc64_radix(page_shift: int) -> None:
    machine = Machine(Architecture.PPC64)
    tables, info = ppc64_radix(machine, page_shift)
    base, page = 0xC00C000000000000, 1 << page_shift
    tables.map_pages(base, [0x100000000, 0x100000000 + page], page_shift)
    tables.map(base + M2, 0x180000000, 21)
    tables.map(base + G1, 0x1C0000000, 30)
    prog = machine.program(info)
    assert mapped(prog, base, base + 2 * G1) == [
        (base, 0x100000000, 2 * page),
        (base + M2, 0x180000000, M2),
        (base + G1, 0x1C0000000, G1),
    ]


HASH_INFO = (
    f"SYMBOL(init_uts_ns)={0xC000000000000000 + UTS:x}\nOFFSET(uts_namespace.name)=0\n"
    "PAGESIZE=65536\nSYMBOL(swapper_pg_dir)=c000000003000000\nNUMBER(RADIX_MMU)=0\n"
    "SYMBOL(vmemmap_list)=c000000001000000\nSYMBOL(mmu_vmemmap_psize)=c000000001000008\n"
    "SYMBOL(mmu_psize_defs)=c000000001000100\nSIZE(mmu_psize_def)=72\n"
    "OFFSET(mmu_psize_def.shift)=0\nSIZE(vmemmap_backing)=24\nOFFSET(vmemmap_backing.list)=0\n"
    "OFFSET(vmemmap_backing.phys)=8\nOFFSET(vmemmap_backing.virt_addr)=16\n"
)


def hash_machine(nodes: list[tuple[int, int, int]]) -> Machine:
    """(address of the next node, physical, virtual), each 32 bytes after the one before."""
    machine = Machine(Architecture.PPC64)
    with_uts(machine, 0)
    first = 0xC000000002000000
    machine.write(0x1000000, first.to_bytes(8, "little") + (5).to_bytes(4, "little"))
    machine.write(0x1000100 + 5 * 72, (24).to_bytes(4, "little"))
    for number, node in enumerate(nodes):
        machine.write(0x2000000 + 32 * number, b"".join(w.to_bytes(8, "little") for w in node))
    return machine


def test_ppc64_hash_finds_the_vmemmap_through_its_list() -> None:
    base, node = 0xF000000000000000, 0xC000000002000000
    machine = hash_machine(
        [(node + 32, 0x200000000, base + (1 << 24)), (0, 0x180000000, base + (3 << 24))]
    )
    prog = machine.program(HASH_INFO)
    assert mapped(prog, base, base + (4 << 24)) == [
        (base + (1 << 24), 0x200000000, 1 << 24),
        (base + (3 << 24), 0x180000000, 1 << 24),
    ]
    assert translate(prog, 0xC000000012345678) == 0x12345678


def test_ppc64_hash_list_that_comes_back() -> None:
    base, node = 0xF000000000000000, 0xC000000002000000
    machine = hash_machine([(node + 32, 0x200000000, base), (node, 0x180000000, base + (1 << 24))])
    prog = machine.program(HASH_INFO)
    assert mapped(prog, base, base + (2 << 24)) == [
        (base, 0x200000000, 1 << 24),
        (base + (1 << 24), 0x180000000, 1 << 24),
    ]


NODES = [
    (0xC000000002000020, 0x200000000, 0xF000000000000000),
    (0xC000000002000040, 0x180000000, 0xF000000001000000),
    (0, 0x1C0000000, 0xF000000002000000),
]


def states(prog: Program, start: int, end: int) -> list[tuple[int, State]]:
    return [(e.virtual - start, e.state) for e in for_each_extent(prog, start, end)]


@pytest.mark.parametrize("excluded", [True, False])
def test_ppc64_hash_list_that_was_not_saved_to_its_end(excluded: bool) -> None:
    """What the rest of the list would have mapped is not known, and never unmapped."""
    nodes = [(0xC000000005000000, 0x200000000, 0xF000000000000000)]
    machine = hash_machine(nodes)
    if excluded:
        machine.excluded.add(0x5000000)
    base, lost = 0xF000000000000000, State.EXCLUDED if excluded else State.ABSENT
    prog = machine.program(HASH_INFO)
    assert states(prog, base, base + (4 << 24)) == [(0, State.SAVED), (1 << 24, lost)]
    with pytest.raises(NotSaved, match=r"vmemmap_list: physical 0x50000.. is") as error:
        translate(prog, base + (3 << 24))
    assert error.value.state is lost
    assert not vmemmap_backings(prog).complete


@pytest.mark.parametrize(
    ("write", "why"),
    [
        ((0x2000048, bytes(16)), "the entry at 0xc000000002000040 is for 0x0: damaged"),
        ((0x2000040, (0xC000000002000000).to_bytes(8, "little")), "cyclic"),
        ((0x2000040, (0x1234).to_bytes(8, "little")), "0x123c is not in the linear"),
        ((0x1000008, (99).to_bytes(4, "little")), "mmu_vmemmap_psize is 99: damaged"),
        ((0x1000100 + 5 * 72, (3).to_bytes(4, "little")), "shift is 3: damaged"),
    ],
)
def test_ppc64_hash_list_that_is_damaged(write: tuple[int, bytes], why: str) -> None:
    machine = hash_machine(NODES)
    machine.write(*write)
    prog = machine.program(HASH_INFO)
    last = list(for_each_extent(prog, 0xF000000000000000, 0xF000000004000000))[-1]
    assert (last.physical, last.state) == (None, State.UNKNOWN)
    assert why in (last.reason or "")


@pytest.mark.parametrize(
    "line", ["SYMBOL(vmemmap_list)", "SIZE(mmu_psize_def)", "OFFSET(vmemmap_backing.phys)"]
)
def test_ppc64_hash_list_that_nothing_describes(line: str) -> None:
    prog = hash_machine(NODES).program(HASH_INFO.replace(line, "SYMBOL(other)"))
    with pytest.raises(NotSaved, match=re.escape(f"vmcoreinfo has no {line}")) as error:
        translate(prog, 0xF000000000000000)
    assert error.value.state is State.UNKNOWN


def test_ppc64_hash_memory_outside_of_linear_mapping_and_vmemmap_is_not_known() -> None:
    prog = hash_machine(NODES).program(HASH_INFO)
    with pytest.raises(NotSaved, match="vmalloc") as error:
        translate(prog, 0xC008000000001000)
    assert error.value.state is State.UNKNOWN


def test_ppc64_mmu_by_its_tables_where_vmcoreinfo_does_not_say() -> None:
    """Since 6.7 it does."""
    machine = Machine(Architecture.PPC64)
    _, info = ppc64_radix(machine, 16)
    assert ppc64_is_radix(machine.program(info.replace("NUMBER(RADIX_MMU)=1\n", "")))
    machine = hash_machine(NODES)
    silent = HASH_INFO.replace("NUMBER(RADIX_MMU)=0\n", "")
    # Neither the top table nor debug info: a guess would be wrong for one of the two.
    prog = machine.program(silent)
    with pytest.raises(PmemError, match="radix or hash MMU is unknown"):
        ppc64_is_radix(prog)
    assert translate(prog, 0xC000000012345678) == 0x12345678
    assert states(prog, 0xF000000000000000, 0xF000000004000000) == [(0, State.UNKNOWN)]
    machine.write(0x3000000, bytes(1 << 16))
    assert not ppc64_is_radix(machine.program(silent))


def test_vmcoreinfo_of_the_other_mmu_does_not_fit() -> None:
    machine = Machine(Architecture.PPC64)
    _, info = ppc64_radix(machine, 16)
    prog = machine.program(info.replace("RADIX_MMU)=1", "RADIX_MMU)=0"))
    assert root_of(prog).verdict is Verdict.WRONG
    machine = hash_machine(NODES)
    machine.write(0x3000000, bytes(1 << 16))
    assert root_of(machine.program(HASH_INFO)).verdict is Verdict.VERIFIED
    prog = machine.program(HASH_INFO.replace("RADIX_MMU)=0", "RADIX_MMU)=1"))
    assert root_of(prog).verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("phys_base)=0", "phys_base)=2097152"),
        ("init_uts_ns)=ffffffff81800000", "init_uts_ns)=ffffffff81900000"),
        ("init_uts_ns)=ffffffff81800000", "init_uts_ns)=ffffffff81800100"),
        ("l5_enabled)=0", "l5_enabled)=1"),
    ],
)
def test_nothing_is_translated_by_vmcoreinfo_that_does_not_fit(old: str, new: str) -> None:
    machine = Machine()
    tables, info = x86_64(machine)
    tables.map(VMEMMAP, 0x8000000, 21)
    machine.write(0x2200000, bytes(2 * PAGE))
    assert old in info
    prog = machine.program(info.replace(old, new))
    assert root_of(prog).verdict is Verdict.WRONG
    assert states(prog, VMEMMAP, VMEMMAP + 2 * M2) == [(0, State.UNKNOWN)]
    with pytest.raises(NotSaved, match=r"vmcoreinfo \(Linux 6.1.0\) does not fit this memory"):
        read_saved(prog, VMEMMAP, 8)


def test_vmcoreinfo_of_another_release_does_not_fit() -> None:
    machine = Machine()
    _, info = x86_64(machine)
    machine.write(UTS, uts("6.1.1"))
    assert root_of(machine.program(info)).verdict is Verdict.WRONG


def test_of_tables_that_cannot_be_verified_nothing_is_unmapped() -> None:
    machine = Machine()
    tables, info = x86_64(machine)
    tables.map(VMEMMAP, 0x8000000, 21)
    del machine.pages[UTS]
    prog = machine.program(info)
    assert root_of(prog).verdict is Verdict.UNVERIFIED
    assert states(prog, VMEMMAP, VMEMMAP + 2 * M2) == [(0, State.SAVED), (M2, State.UNKNOWN)]
    # The tables map themselves where vmcoreinfo says that they are: that is as good.
    tables.map(0xFFFFFFFF82000000, 0x2000000, 21)
    prog = machine.program(info)
    assert root_of(prog).verdict is Verdict.VERIFIED
    assert states(prog, VMEMMAP, VMEMMAP + 2 * M2) == [(0, State.SAVED), (M2, State.UNMAPPED)]


def half_saved() -> tuple[Machine, Tables, str]:
    """Two tables of base pages; the memory behind the second half of the first is left out."""
    machine = Machine()
    tables, info = x86_64(machine)
    tables.map_pages(VMEMMAP, [0x8000000 + i * PAGE for i in range(1024)], 12)
    for i in range(256):
        machine.write(0x8000000 + i * PAGE, b"\x11" * PAGE)
    machine.excluded.update(0x8000000 + i * PAGE for i in range(256, 512))
    return machine, tables, info


def test_coverage_of_virtual_memory() -> None:
    machine, _, info = half_saved()
    prog = machine.program(info)
    end = VMEMMAP + 2000 * PAGE
    assert kernel_coverage(prog, VMEMMAP, 2000 * PAGE) == [
        (VMEMMAP, VMEMMAP + 256 * PAGE, State.SAVED),
        (VMEMMAP + 256 * PAGE, VMEMMAP + 512 * PAGE, State.EXCLUDED),
        (VMEMMAP + 512 * PAGE, VMEMMAP + 1024 * PAGE, State.ABSENT),
        (VMEMMAP + 1024 * PAGE, end, State.UNMAPPED),
    ]


def test_a_table_that_the_dump_left_out_is_not_read_as_unmapped() -> None:
    machine, tables, info = half_saved()
    lost = tables.tables[(2, VMEMMAP >> 21)]
    machine.excluded.add(lost)
    prog = machine.program(info)
    first = next(for_each_extent(prog, VMEMMAP, VMEMMAP + 1024 * PAGE))
    assert (first.physical, first.size, first.state) == (None, M2, State.EXCLUDED)
    assert first.reason == f"the page table at physical {lost:#x} is excluded"
    assert kernel_coverage(prog, VMEMMAP, M2) == [(VMEMMAP, VMEMMAP + M2, State.EXCLUDED)]


def test_read_saved_refuses_what_drgn_would_read_as_zeroes() -> None:
    machine, _, info = half_saved()
    prog = machine.program(info)
    assert read_saved(prog, VMEMMAP + 255 * PAGE, PAGE) == b"\x11" * PAGE
    assert prog.read(0x8000000 + 256 * PAGE, 8, True) == bytes(8)
    for address, state in (
        (VMEMMAP + 256 * PAGE - 4, State.EXCLUDED),
        (VMEMMAP + 512 * PAGE, State.ABSENT),
        (VMEMMAP + 1024 * PAGE, State.UNMAPPED),
    ):
        with pytest.raises(NotSaved) as error:
            read_saved(prog, address, 8)
        assert error.value.state is state


def test_tables_that_point_to_themselves_end() -> None:
    machine = Machine()
    machine.write(0x2000000, (0x2000000 | 0x67).to_bytes(8, "little") * 512)
    _, info = x86_64(Machine())
    prog = machine.program(info)
    mmu = find_mmu(prog)
    assert mmu is not None
    # Every entry of every level is the same: at the lowest it maps the table itself.
    (extent,) = walk_tables(prog, mmu, VMEMMAP + 0x123, VMEMMAP + 0x124)
    assert extent.physical == 0x2000123
    (extent,) = for_each_extent(prog, VMEMMAP, VMEMMAP + PAGE)
    assert (extent.physical, extent.state) == (None, State.UNKNOWN)


def test_a_read_that_fails_says_in_which_way() -> None:
    machine, tables, info = half_saved()
    prog = machine.program(info)
    memory = memory_of(prog)
    assert memory.read(VMEMMAP, 8) == b"\x11" * 8
    with pytest.raises(NotSaved, match=r"cannot read 0xffffea0000400000.*unmapped") as error:
        memory.read(VMEMMAP + 1024 * PAGE, 8)
    assert error.value.state is State.UNMAPPED
    lost = tables.tables[(2, VMEMMAP >> 21)]
    del machine.pages[lost]
    memory = memory_of(machine.program(info))
    with pytest.raises(NotSaved, match="absent") as error:
        memory.read(VMEMMAP, 8)
    assert error.value.state is State.ABSENT


@pytest.mark.parametrize("address", [0x18, 0x00007FFFFFFFF000, 0x1234567890ABCDEF, 2**64 - 4])
def test_a_pointer_to_no_kernel_memory_is_damaged_not_missing(address: int) -> None:
    machine, _, info = half_saved()
    memory = memory_of(machine.program(info))
    with pytest.raises(BadAddress, match="not a kernel address: damaged") as error:
        memory.read(address, 8)
    assert not isinstance(error.value, NotSaved)
    assert Problem.of(error.value).cause is Cause.DAMAGED
