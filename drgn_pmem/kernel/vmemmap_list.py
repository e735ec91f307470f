# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
vmemmap_list
------------

Where the struct pages are on ppc64 with the hash MMU, which has no page tables for them: a singly
linked list of ``struct vmemmap_backing``. Sources: arch/powerpc/mm/init_64.c,
arch/powerpc/include/asm/pgalloc.h. vmcoreinfo exports all that is needed.
"""

from dataclasses import dataclass

from drgn import FaultError, Program

from drgn_pmem.dumpfile import coverage_of, vmcoreinfo_of
from drgn_pmem.kernel.mmu import is_little_endian

__all__ = ("PPC64_PAGE_OFFSET", "Backing", "for_each_backing")

PPC64_PAGE_OFFSET = 0xC000000000000000
"""Start of the linear mapping, which also holds the kernel's own image."""

_MAX_BACKINGS = 1 << 20
_MAX_PSIZE = 64
"""MMU_PAGE_COUNT is below 20."""


@dataclass(frozen=True)
class Backing:
    """One block of the vmemmap."""

    virtual: int
    physical: int
    size: int
    """bytes"""


class _Linear:
    """Words of the linear mapping, zero where the dump does not hold them."""

    def __init__(self, prog: Program) -> None:
        self._prog = prog
        self._coverage = coverage_of(prog)

    def word(self, virtual: int, size: int = 8) -> int | None:
        physical = virtual - PPC64_PAGE_OFFSET
        if physical < 0 or physical >> 51 or not self._coverage.saved(physical, size):
            return None
        try:
            data = self._prog.read(physical, size, True)
        except FaultError:
            return None
        return int.from_bytes(data, "little" if is_little_endian(self._prog) else "big")


def _symbol(prog: Program, name: str) -> int | None:
    address = vmcoreinfo_of(prog).symbols.get(name)
    if address is not None:
        return address
    try:
        return prog[name].address_
    except LookupError:
        return None


def _offset(prog: Program, type_name: str, member: str) -> int | None:
    offset = vmcoreinfo_of(prog).offsets.get(f"{type_name}.{member}")
    if offset is not None:
        return offset
    try:
        return prog.type(f"struct {type_name}").member(member).offset
    except LookupError:
        return None


def _size(prog: Program, type_name: str) -> int | None:
    size = vmcoreinfo_of(prog).sizes.get(type_name)
    if size is not None:
        return size
    try:
        return prog.type(f"struct {type_name}").size
    except LookupError:
        return None


def _block_size(prog: Program, memory: _Linear) -> int | None:
    """``1 << mmu_psize_defs[mmu_vmemmap_psize].shift``"""
    index_at, defs = _symbol(prog, "mmu_vmemmap_psize"), _symbol(prog, "mmu_psize_defs")
    size, offset = _size(prog, "mmu_psize_def"), _offset(prog, "mmu_psize_def", "shift")
    if index_at is None or defs is None or size is None or offset is None:
        return None
    index = memory.word(index_at, 4)
    if index is None or index > _MAX_PSIZE:
        return None
    shift = memory.word(defs + index * size + offset, 4)
    return 1 << shift if shift is not None and 12 <= shift <= 34 else None


def for_each_backing(prog: Program) -> list[Backing]:
    """
    The blocks of the vmemmap by virtual address; what could be read if the list is broken. Kept in
    ``prog.cache``.
    """
    cached = prog.cache.get("drgn_pmem.vmemmap_list")
    if cached is not None:
        return cached
    backings = sorted(_read_list(prog), key=lambda backing: backing.virtual)
    prog.cache["drgn_pmem.vmemmap_list"] = backings
    return backings


def _read_list(prog: Program) -> list[Backing]:
    memory = _Linear(prog)
    head = _symbol(prog, "vmemmap_list")
    size = _block_size(prog, memory)
    offsets = [_offset(prog, "vmemmap_backing", m) for m in ("list", "phys", "virt_addr")]
    if head is None or size is None or None in offsets:
        return []
    at_next, at_physical, at_virtual = (offset or 0 for offset in offsets)
    found: dict[int, Backing] = {}
    node = memory.word(head)
    while node and node not in found and len(found) < _MAX_BACKINGS:
        physical, virtual = memory.word(node + at_physical), memory.word(node + at_virtual)
        if physical is None or virtual is None:
            break
        found[node] = Backing(virtual, physical, size)
        node = memory.word(node + at_next)
    return [b for b in found.values() if b.virtual and b.virtual % size == 0]
