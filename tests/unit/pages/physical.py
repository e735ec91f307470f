# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Kernels made of physical memory and page tables that a test writes itself: entries are encoded here
from the architectures' manuals, independently of the decoder under test.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from drgn import Architecture, Platform, PlatformFlags, Program

from drgn_pmem.dumpfile import Coverage, CoverageRange, State, set_coverage

PAGE = 4096
UTS = 0x1800000
"""Physical address of ``init_uts_ns``, by which the page tables are verified."""


def uts(release: str = "6.1.0") -> bytes:
    """struct new_utsname"""
    names = ("Linux", "node", release, "#1", "machine", "(none)")
    return b"".join(name.encode().ljust(65, b"\0") for name in names)


def with_uts(
    machine: "Machine", virtual: int, tables: "Tables | None" = None, shift: int = 12
) -> str:
    """Write ``init_uts_ns``, map it where there are tables, and describe it for vmcoreinfo."""
    machine.write(UTS, uts())
    if tables is not None:
        tables.map(virtual, UTS, shift)
    return f"SYMBOL(init_uts_ns)={virtual:x}\nOFFSET(uts_namespace.name)=0\n"


@dataclass
class Machine:
    """Physical memory, written page by page; what was never written is not in the dump."""

    architecture: Architecture = Architecture.X86_64
    pages: dict[int, bytearray] = field(default_factory=dict)
    excluded: set[int] = field(default_factory=set)
    """Page addresses that the dump covers but left out: drgn reads zeroes there."""

    def write(self, physical: int, data: bytes) -> None:
        while data:
            base = physical - physical % PAGE
            page = self.pages.setdefault(base, bytearray(PAGE))
            part = data[: base + PAGE - physical]
            page[physical - base : physical - base + len(part)] = part
            physical, data = physical + len(part), data[len(part) :]

    def _read(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        out = bytearray()
        while count:
            base = address - address % PAGE
            zero = bytearray(PAGE)
            page = zero if base in self.excluded else self.pages.get(base, zero)
            part = page[address - base : address - base + count]
            out += part
            address, count = address + len(part), count - len(part)
        return bytes(out)

    def program(self, vmcoreinfo: str) -> Program:
        flags = PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN
        prog = Program(Platform(self.architecture, flags))
        text = f"OSRELEASE=6.1.0\nKERNELOFFSET=0\n{vmcoreinfo}"
        prog.set_linux_kernel_custom(text.encode(), is_live=False)
        prog.add_memory_segment(0, 1 << 56, self._read, True)
        self.cover(prog)
        return prog

    def cover(self, prog: Program) -> None:
        """Tell what is in the dump; again after a change."""
        prog.cache.clear()
        ranges = [
            CoverageRange(
                base, base + PAGE, State.EXCLUDED if base in self.excluded else State.SAVED
            )
            for base in sorted({*self.pages, *self.excluded})
        ]
        set_coverage(prog, Coverage.from_ranges(ranges))


class Tables:
    """
    A page table writer.

    :param levels: (shift, bits) from the top.
    :param table: Entry that points to a table.
    :param leaf: Entry that maps memory: physical address, shift.
    """

    def __init__(self, machine: Machine, root: int, levels, table, leaf, byteorder="little"):
        self.machine = machine
        self.root = root
        self.levels = levels
        self.table, self.leaf = table, leaf
        self.byteorder = byteorder
        self.tables: dict[tuple[int, int], int] = {}
        self.next = root + (1 << 20)
        size = 8 << levels[0][1]
        machine.write(root, bytes(size))

    def map(self, virtual: int, physical: int, shift: int) -> None:
        """Map 1 << shift bytes."""
        table = self.root
        for depth, (level_shift, bits) in enumerate(self.levels):
            at = table + 8 * ((virtual >> level_shift) & ((1 << bits) - 1))
            if level_shift == shift:
                self._entry(at, self.leaf(physical, shift, depth))
                return
            key = (depth, virtual >> level_shift)
            if key not in self.tables:
                size = max(8 << self.levels[depth + 1][1], PAGE)
                self.next = -(-self.next // size) * size
                self.tables[key] = self.next
                self.machine.write(self.next, bytes(size))
                self._entry(at, self.table(self.next, depth))
                self.next += size
            table = self.tables[key]
        raise AssertionError("no level of that size")

    def map_pages(self, virtual: int, physicals: Iterable[int], shift: int) -> None:
        for number, physical in enumerate(physicals):
            self.map(virtual + (number << shift), physical, shift)

    def _entry(self, at: int, value: int) -> None:
        self.machine.write(at, value.to_bytes(8, self.byteorder))


X86_INFO = (
    "PAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff82000000\nNUMBER(phys_base)=0\n"
    "NUMBER(pgtable_l5_enabled)={l5}\nNUMBER(sme_mask)={sme}\n"
)


def x86_64(machine: Machine, levels: int = 4, sme: int = 0) -> tuple[Tables, str]:
    """Writer and vmcoreinfo. Flags: present, writable, accessed, dirty; NX at bit 63; PSE."""
    nx = 1 << 63

    def leaf(physical: int, shift: int, depth: int) -> int:
        return physical | sme | nx | 0x63 | (0x80 if shift > 12 else 0)

    tables = Tables(
        machine,
        0x2000000,
        [(12 + 9 * i, 9) for i in reversed(range(levels))],
        lambda physical, depth: physical | sme | 0x67,
        leaf,
    )
    info = X86_INFO.format(l5=int(levels == 5), sme=sme)
    return tables, info + with_uts(machine, 0xFFFFFFFF80000000 + UTS, tables)


def aarch64(machine: Machine, page_shift: int, bits: int) -> tuple[Tables, str]:
    """Writer and vmcoreinfo. Arm ARM D8.3: bits [1:0] 3 table or page, 1 block; with 64K pages
    address bits [51:48] in [15:12], with FEAT_LPA2 bits [51:50] in [9:8]; AF and attributes set."""
    per_level = page_shift - 3
    levels, shift = [], page_shift
    while shift < bits:
        levels.append((shift, min(per_level, bits - shift)))
        shift += per_level
    lowest = len(levels) - 1
    small_52 = page_shift < 16 and bits == 52

    def address(physical: int) -> int:
        if page_shift == 16:
            return (physical & ((1 << 48) - 1)) | (physical >> 48 & 0xF) << 12
        if small_52:
            return (physical & ((1 << 50) - 1)) | (physical >> 50 & 3) << 8
        return physical

    def leaf(physical: int, shift: int, depth: int) -> int:
        attributes = 0x0060000000000400 | (0 if small_52 else 0x300)
        return address(physical) | attributes | (3 if depth == lowest else 1)

    tables = Tables(
        machine,
        0x42000000,
        levels[::-1],
        lambda physical, depth: address(physical) | 3,
        leaf,
    )
    info = (
        f"PAGESIZE={1 << page_shift}\nSYMBOL(swapper_pg_dir)=ffff800012000000\n"
        f"NUMBER(kimage_voffset)=0xffff7fffd0000000\nNUMBER(VA_BITS)={bits}\n"
        f"NUMBER(TCR_EL1_T1SZ)={64 - bits:#x}\nNUMBER(PHYS_OFFSET)=0x40000000\n"
    )
    return tables, info + with_uts(machine, (1 << 64) - (16 << page_shift), tables, page_shift)


def ppc64_radix(machine: Machine, page_shift: int) -> tuple[Tables, str]:
    """Writer and vmcoreinfo. Power ISA 3.0: big-endian; bit 0 valid, bit 1 leaf; a directory entry
    has the size of the next level in its low bits."""
    bits = [13, 9, 9, 5 if page_shift == 16 else 9]
    levels, shift = [], page_shift
    for count in reversed(bits):
        levels.append((shift, count))
        shift += count
    tables = Tables(
        machine,
        0x3000000,
        levels[::-1],
        lambda physical, depth: physical | 1 << 63 | bits[depth + 1],
        lambda physical, shift, depth: physical | 3 << 62 | 0x18E,
        byteorder="big",
    )
    tables.map(0xC000000003000000, 0x3000000, 21)
    info = (
        f"PAGESIZE={1 << page_shift}\nSYMBOL(swapper_pg_dir)=c000000003000000\n"
        "NUMBER(RADIX_MMU)=1\n"
    )
    return tables, info + with_uts(machine, 0xC000000000000000 + UTS, tables, page_shift)
