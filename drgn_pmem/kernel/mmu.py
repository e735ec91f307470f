# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
MMU
---

How the kernel's own page tables are laid out: where the top one is, how many bits each level
translates, what an entry means. All of it comes from vmcoreinfo, so that it works without debug
info. Only the physical address of an entry is decoded, not its permissions.

Sources: arch/x86/include/asm/pgtable_types.h, arch/arm64/include/asm/pgtable-hwdef.h,
arch/powerpc/include/asm/book3s/64/radix.h.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drgn import Architecture, Program
import numpy as np

from drgn_pmem.dumpfile.vmcoreinfo import Vmcoreinfo, vmcoreinfo_of
from drgn_pmem.kernel.byteorder import is_little_endian
from drgn_pmem.kernel.debuginfo import find_variable
from drgn_pmem.partial import WalkError
from drgn_pmem.ranges import Range

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]
    Flags = NDArray[np.bool_]

__all__ = (
    "Decoded",
    "Level",
    "Mmu",
    "find_mmu",
    "hash_process_mmu",
    "is_kernel_address",
    "physical_end",
    "physical_range",
)


# No Records, as they never leave the package: how tables are walked, not what was found.
@dataclass(frozen=True)
class Level:
    """One level of page tables."""

    shift: int
    """log2 of the bytes that one entry maps."""
    bits: int
    """log2 of the entries of a table."""


@dataclass(frozen=True)
class Decoded:
    """A run of entries of one table."""

    leaf: "Flags"
    """Maps memory."""
    table: "Flags"
    """Points to a table of the next level."""
    physical: "Words"
    """What the entry maps or points to; undefined where it does neither."""


@dataclass(frozen=True)
class Mmu:
    """The kernel's page tables."""

    name: str
    levels: tuple[Level, ...]
    """From the top."""
    root: int
    """Physical address of the top table."""
    valid: tuple[tuple[int, int], ...]
    """Virtual ranges that the tables can translate, end exclusive."""
    dtype: str
    """numpy type of an entry."""
    decode: "Callable[[Words, int], Decoded]"
    """Entries, index of their level -> what they mean."""


def _page_shift(info: Vmcoreinfo) -> int | None:
    size = info.page_size
    return size.bit_length() - 1 if size and size > 0 and size & (size - 1) == 0 else None


def _mask(high: int, low: int) -> np.uint64:
    """Bits *low* to *high* - 1."""
    return np.uint64((1 << high) - (1 << low))


# arch/x86/include/asm/pgtable_types.h, page_64_types.h
_X86_START_KERNEL_MAP = 0xFFFFFFFF80000000
_X86_PRESENT = np.uint64(1 << 0)
_X86_PSE = np.uint64(1 << 7)


def _find_x86_64(prog: Program, info: Vmcoreinfo) -> Mmu | None:
    top = info.symbols.get("swapper_pg_dir")
    phys_base = info.numbers.get("phys_base")
    if top is None or phys_base is None or top < _X86_START_KERNEL_MAP:
        return None
    count = 5 if info.numbers.get("pgtable_l5_enabled") else 4
    levels = tuple(Level(12 + 9 * i, 9) for i in reversed(range(count)))
    bits = 12 + 9 * count
    # Memory encryption (SME) sets a bit of the address in every entry.
    encrypted = (info.numbers.get("sme_mask") or 0) & (2**64 - 1)
    low = _mask(52, 12) & np.uint64(~encrypted & (2**64 - 1))

    def decode(entries: "Words", level: int) -> Decoded:
        present = (entries & _X86_PRESENT) != 0
        shift = levels[level].shift
        if shift == 12:
            leaf = present
        elif shift in (21, 30):
            leaf = present & ((entries & _X86_PSE) != 0)
        else:
            leaf = np.zeros(len(entries), bool)
        # A leaf above the lowest level has PAT at bit 12: below the address.
        physical = np.where(leaf, entries & low & _mask(64, shift), entries & low)
        return Decoded(leaf, present & ~leaf, physical)

    return Mmu(
        f"x86_64, {count} levels",
        levels,
        top - _X86_START_KERNEL_MAP + phys_base,
        ((0, 1 << (bits - 1)), (2**64 - (1 << (bits - 1)), 2**64)),
        "<u8",
        decode,
    )


_ARM_TYPE = np.uint64(3)


def _find_aarch64(prog: Program, info: Vmcoreinfo) -> Mmu | None:
    page_shift = _page_shift(info)
    top = info.symbols.get("swapper_pg_dir")
    voffset = info.numbers.get("kimage_voffset")
    bits = info.numbers.get("VA_BITS")
    if page_shift not in (12, 14, 16) or top is None or voffset is None or bits is None:
        return None
    # VA_BITS is what the kernel was configured for. Since Linux kernel commit bbdbc11804ff
    # ("arm64/crash_core: Export TCR_EL1.T1SZ in vmcoreinfo") (in v5.9), TCR_EL1_T1SZ has the
    # value in use. With 64K pages swapper_pg_dir is laid out for the configured size all the same
    # (TTBR1 is offset into it); with 4K and 16K pages a level goes away.
    t1sz = info.numbers.get("TCR_EL1_T1SZ")
    if page_shift != 16 and t1sz:
        bits = 64 - t1sz
    if not page_shift < bits <= 52:
        return None
    per_level = page_shift - 3
    count = -(-(bits - page_shift) // per_level)
    levels = tuple(
        Level(page_shift + per_level * i, min(per_level, bits - page_shift - per_level * i))
        for i in reversed(range(count))
    )
    # Bits 48 to 51 of the address: with 64K pages in bits 12 to 15 of the entry (FEAT_LPA); with
    # smaller pages bits 50 and 51 are in bits 8 and 9 (FEAT_LPA2), which the kernel uses exactly
    # when its virtual addresses have 52 bits too.
    low, high, high_shift = _mask(48, page_shift), np.uint64(0), np.uint64(0)
    if page_shift == 16:
        high, high_shift = np.uint64(0xF000), np.uint64(36)
    elif bits == 52:
        low, high, high_shift = _mask(50, page_shift), np.uint64(0x300), np.uint64(42)

    def decode(entries: "Words", level: int) -> Decoded:
        kind = entries & _ARM_TYPE
        shift = levels[level].shift
        if shift == page_shift:
            leaf, table = kind == 3, np.zeros(len(entries), bool)
        else:
            leaf, table = kind == 1, kind == 3
        physical = (entries & low) | ((entries & high) << high_shift)
        # A block's address is aligned to its size; the bits below are attributes.
        return Decoded(leaf, table, np.where(leaf, physical & _mask(64, shift), physical))

    return Mmu(
        f"aarch64, {1 << (page_shift - 10)}K pages, {bits} bits",
        levels,
        (top - voffset) & (2**64 - 1),
        ((2**64 - (1 << bits), 2**64),),
        "<u8" if is_little_endian(prog) else ">u8",
        decode,
    )


def is_kernel_address(prog: Program, address: int, size: int = 1) -> bool:
    """Whether kernel memory can be at an address; True if unknown."""
    if address < 0 or address + size > 1 << 64:
        return False
    if prog.platform is not None and prog.platform.arch == Architecture.PPC64:
        return address >= _PPC_PAGE_OFFSET
    mmu = find_mmu(prog)
    return mmu is None or address >= mmu.valid[-1][0]


_PHYSICAL_BITS = {
    Architecture.X86_64: 52,  # arch/x86/include/asm/sparsemem.h, five levels
    Architecture.AARCH64: 52,  # CONFIG_ARM64_PA_BITS
    Architecture.PPC64: 53,  # arch/powerpc/include/asm/book3s/64/mmu.h: at most 51; a margin
}
_LEAST_PHYSICAL_BITS = 32


def physical_end(prog: Program) -> int:
    """
    Upper bound of physical memory, exclusive: what begins or ends after it is damaged.

    Since Linux kernel commit 1d50e5d0c505 ("crash_core, vmcoreinfo: Append 'MAX_PHYSMEM_BITS' to
    vmcoreinfo") (in v5.9), vmcoreinfo has the number of bits; before, the maximum of the
    architecture.
    """
    arch = prog.platform.arch if prog.platform is not None else Architecture.UNKNOWN
    most = _PHYSICAL_BITS.get(arch, 57)
    bits = vmcoreinfo_of(prog).numbers.get("MAX_PHYSMEM_BITS", most)
    return 1 << (bits if _LEAST_PHYSICAL_BITS <= bits <= most else most)


def physical_range(prog: Program, start: int, last: int, what: str) -> Range:
    """
    A range of physical memory as the kernel has it.

    :param start: First byte.
    :param last: Last byte, inclusive.
    :param what: What has the range, for the message.
    :raises WalkError: if there can be no such memory
    """
    most = physical_end(prog)
    if not start <= last + 1 <= most:
        raise WalkError(
            f"{what}: {start:#x}-{last:#x} is not a range of physical memory, which ends at "
            f"{most:#x}: damaged"
        )
    return Range(start, last + 1)


# arch/powerpc/include/asm/book3s/64/pgtable.h and radix-4k.h, radix-64k.h
_PPC_PAGE_OFFSET = 0xC000000000000000
_PPC_PRESENT = np.uint64(1 << 63)
_PPC_PTE = np.uint64(1 << 62)
_PPC_TABLE_MASK = np.uint64(0x3FFFFFFFFFFFFF00)
_PPC_RPN_BITS = 57


def _find_ppc64(prog: Program, info: Vmcoreinfo) -> Mmu | None:
    page_shift = _page_shift(info)
    top = info.symbols.get("swapper_pg_dir")
    if page_shift not in (12, 16) or top is None:
        return None
    shifts_bits, shift = [], page_shift
    for bits in (5 if page_shift == 16 else 9, 9, 9, 13):
        shifts_bits.append(Level(shift, bits))
        shift += bits
    levels = tuple(reversed(shifts_bits))

    def decode(entries: "Words", level: int) -> Decoded:
        present = (entries & _PPC_PRESENT) != 0
        pte = (entries & _PPC_PTE) != 0
        lowest = level == len(levels) - 1
        leaf = present & pte
        # A table's entry has its index size in the low bits.
        table = np.zeros(len(entries), bool) if lowest else present & ~pte
        mapped = entries & _mask(_PPC_RPN_BITS, levels[level].shift)
        return Decoded(leaf, table, np.where(leaf, mapped, entries & _PPC_TABLE_MASK))

    return Mmu(
        f"ppc64 radix, {1 << (page_shift - 10)}K pages",
        levels,
        top & ~_PPC_PAGE_OFFSET,
        ((_PPC_PAGE_OFFSET, _PPC_PAGE_OFFSET + (1 << shift)),),
        ">u8",  # also on little-endian kernels
        decode,
    )


_HASH_SIZES = ("__pte_index_size", "__pmd_index_size", "__pud_index_size", "__pgd_index_size")
"""log2 of the entries of a table, from the lowest level (arch/powerpc/mm/book3s64/hash_utils.c,
``hash__early_init_mmu()``)"""
_MAX_INDEX = 16
_PPC_HASH_RPN_BITS = 53
"""``_PAGE_PA_MAX``: the hash MMU keeps the place in its hash table in the bits above."""


def hash_process_mmu(prog: Program, root: int) -> Mmu:
    """
    The page tables that a ppc64 kernel with the hash MMU keeps of a process. The processor does not
    walk them; the kernel fills its hash table from them. Entries are those of radix, but that an
    entry of an upper level has no bit for "present": it is 0 or the address of a table.

    :param root: Physical address of the top table.
    :raises NotSaved: if the kernel's variables for their layout are not in the dump
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    page_shift = _page_shift(vmcoreinfo_of(prog))
    if page_shift is None:
        raise WalkError("vmcoreinfo has no page size")
    levels, shift = [], page_shift
    for name in _HASH_SIZES:
        bits = find_variable(prog, name, "vmlinux").value_()
        if not 0 < bits <= _MAX_INDEX:
            raise WalkError(f"implausible {name} {bits}")
        levels.append(Level(shift, bits))
        shift += bits
    levels.reverse()

    def decode(entries: "Words", level: int) -> Decoded:
        pte = (entries & _PPC_PTE) != 0
        leaf = ((entries & _PPC_PRESENT) != 0) & pte
        lowest = level == len(levels) - 1
        table = np.zeros(len(entries), bool) if lowest else (entries != 0) & ~pte
        mapped = entries & _mask(_PPC_HASH_RPN_BITS, levels[level].shift)
        return Decoded(leaf, table, np.where(leaf, mapped, entries & _PPC_TABLE_MASK))

    return Mmu(
        f"ppc64 hash, {1 << (page_shift - 10)}K pages",
        tuple(levels),
        root,
        ((0, 1 << shift),),
        ">u8",  # as with radix
        decode,
    )


_FINDERS = {
    Architecture.X86_64: _find_x86_64,
    Architecture.AARCH64: _find_aarch64,
    Architecture.PPC64: _find_ppc64,
}


def find_mmu(prog: Program) -> Mmu | None:
    """
    The layout of the kernel's page tables, None if vmcoreinfo does not have what it follows from,
    or the architecture's is not known here. On ppc64 that of the radix MMU, whether or not it is in
    use (:mod:`drgn_pmem.kernel.root` finds out).
    """
    platform = prog.platform
    finder = _FINDERS.get(platform.arch) if platform is not None else None
    return finder(prog, vmcoreinfo_of(prog)) if finder else None
