# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
vmemmap_list
------------

Addresses of the hash MMU of ppc64, which has no page tables for the linear mapping (its place is
fixed) nor for the vmemmap (a singly linked list of ``struct vmemmap_backing`` says where it is).
vmcoreinfo exports all that is needed.

Sources: arch/powerpc/mm/init_64.c, arch/powerpc/include/asm/pgalloc.h,
arch/powerpc/include/asm/book3s/64/hash-64k.h.
"""

from collections.abc import Callable, Iterator
import contextlib

from drgn import FaultError, Program

from drgn_pmem.dumpfile import State, coverage_of, vmcoreinfo_of
from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel.byteorder import is_little_endian
from drgn_pmem.kernel.tablewalk import Extent, mapped, merge, not_known, unmapped
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems, WalkError
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "PPC64_PAGE_OFFSET",
    "Backing",
    "linear_end",
    "read_linear",
    "vmemmap_backings",
    "walk_hash",
)

PPC64_PAGE_OFFSET = 0xC000000000000000
"""Start of the linear mapping, which also holds the kernel's own image, with either MMU."""

_VMEMMAPS = ((0xC00C000000000000, 0xC00E000000000000), (0xF000000000000000, 1 << 64))
"""Where the vmemmap of the hash MMU with 64K pages is: since Linux kernel commit 0034d395f89d
("powerpc/mm/hash64: Map all the kernel regions in the same 0xc range") (in v5.2), and before."""

_MAX_BACKINGS = 1 << 20
_MAX_PSIZE = 64
"""MMU_PAGE_COUNT is below 20."""


class Backing(Record):
    """One block of the vmemmap."""

    virtual: int = shown(Show.ADDRESS)
    physical: int = shown(Show.ADDRESS)
    size: int = shown(Show.SIZE)
    """bytes"""


def linear_end(prog: Program) -> int:
    """End of the linear mapping (virtual, exclusive): where the next region can begin."""
    # H_KERN_VIRT_START of hash-4k.h and hash-64k.h; the radix MMU has more space.
    return PPC64_PAGE_OFFSET + (0x3D << 40 if vmcoreinfo_of(prog).page_size == 4096 else 1 << 51)


def read_linear(prog: Program, virtual: int, size: int) -> bytes:
    """
    Bytes of the linear mapping of ppc64.

    :raises NotSaved: if the dump does not hold them
    :raises WalkError: if the address is not in the linear mapping
    """
    if not PPC64_PAGE_OFFSET <= virtual < linear_end(prog):
        raise WalkError(f"{virtual:#x} is not in the linear mapping: damaged")
    physical = virtual - PPC64_PAGE_OFFSET
    for part in coverage_of(prog).ranges(physical, physical + size):
        if part.state is not State.SAVED:
            raise NotSaved(
                f"physical {part.start:#x} is {part.state.value}", address=virtual, state=part.state
            )
    try:
        return prog.read(physical, size, True)
    except FaultError as error:
        raise NotSaved(str(error), address=virtual) from error


def _word(prog: Program, virtual: int, size: int = 8) -> int:
    data = read_linear(prog, virtual, size)
    return int.from_bytes(data, "little" if is_little_endian(prog) else "big")


def _known(what: str, value: int | None, look_up: Callable[[], int | None]) -> int:
    """A value from vmcoreinfo, else from the debug info."""
    if value is None:
        # not a problem: what is missing is named below
        with contextlib.suppress(LookupError):
            value = look_up()
    if value is None:
        raise MissingDebugInfo(
            f"vmcoreinfo has no {what} and no debug info of the kernel is loaded (-s VMLINUX)",
            "vmlinux",
        )
    return value


def _symbol(prog: Program, name: str) -> int:
    address = vmcoreinfo_of(prog).symbols.get(name)
    return _known(f"SYMBOL({name})", address, lambda: prog[name].address_)


def _offset(prog: Program, type_name: str, member: str) -> int:
    offset = vmcoreinfo_of(prog).offsets.get(f"{type_name}.{member}")
    return _known(
        f"OFFSET({type_name}.{member})",
        offset,
        lambda: prog.type(f"struct {type_name}").member(member).offset,
    )


def _size(prog: Program, type_name: str) -> int:
    size = vmcoreinfo_of(prog).sizes.get(type_name)
    return _known(f"SIZE({type_name})", size, lambda: prog.type(f"struct {type_name}").size)


def _block_size(prog: Program) -> int:
    """``1 << mmu_psize_defs[mmu_vmemmap_psize].shift``"""
    index = _word(prog, _symbol(prog, "mmu_vmemmap_psize"), 4)
    if index > _MAX_PSIZE:
        raise WalkError(f"mmu_vmemmap_psize is {index}: damaged")
    entry = _symbol(prog, "mmu_psize_defs") + index * _size(prog, "mmu_psize_def")
    shift = _word(prog, entry + _offset(prog, "mmu_psize_def", "shift"), 4)
    if not 12 <= shift <= 34:
        raise WalkError(f"mmu_psize_defs[{index}].shift is {shift}: damaged")
    return 1 << shift


def vmemmap_backings(prog: Program) -> Partial[list[Backing]]:
    """The blocks of the vmemmap by virtual address. Kept in ``prog.cache``."""
    cached: Partial[list[Backing]] | None = prog.cache.get("drgn_pmem.vmemmap_list")
    if cached is None:
        problems = Problems()
        found: list[Backing] = []
        with problems.trying("vmemmap_list"):
            _read_list(prog, found, problems)
        found.sort(key=lambda backing: backing.virtual)
        cached = prog.cache["drgn_pmem.vmemmap_list"] = problems.partial(found)
    return cached


def _read_list(prog: Program, found: list[Backing], problems: Problems) -> None:
    size = _block_size(prog)
    at_next, at_physical, at_virtual = (
        _offset(prog, "vmemmap_backing", member) for member in ("list", "phys", "virt_addr")
    )
    seen: set[int] = set()
    node = _word(prog, _symbol(prog, "vmemmap_list"))
    while node:
        if node in seen:
            raise WalkError(f"the list is cyclic at {node:#x}")
        if len(seen) >= _MAX_BACKINGS:
            limit = f"stopped after {_MAX_BACKINGS} entries"
            problems.add(Problem(cause=Cause.LIMIT, why=limit, what="vmemmap_list"))
            return
        seen.add(node)
        physical, virtual = _word(prog, node + at_physical), _word(prog, node + at_virtual)
        if virtual and virtual % size == 0:
            found.append(Backing(virtual=virtual, physical=physical, size=size))
        else:
            problems.add(WalkError(f"the entry at {node:#x} is for {virtual:#x}: damaged"))
        node = _word(prog, node + at_next)


def walk_hash(prog: Program, start: int, end: int) -> Iterator[Extent]:
    """
    What the hash MMU maps.

    :param start: First virtual address.
    :param end: End, exclusive.
    """
    return merge(_walk_hash(prog, start, end))


def _walk_hash(prog: Program, start: int, end: int) -> Iterator[Extent]:
    top = linear_end(prog)
    if start < PPC64_PAGE_OFFSET:
        yield unmapped(start, min(end, PPC64_PAGE_OFFSET))
    if start < top and end > PPC64_PAGE_OFFSET:
        low, high = max(start, PPC64_PAGE_OFFSET), min(end, top)
        yield mapped(low, high, low - PPC64_PAGE_OFFSET)
    start = max(start, top)
    if start >= end:
        return
    problems = Problems()
    for backing in problems.take(vmemmap_backings(prog)):
        low, high = max(start, backing.virtual), min(end, backing.virtual + backing.size)
        if low >= high:
            continue
        if start < low:
            yield from _without_backing(start, low, problems)
        yield mapped(low, high, backing.physical + (low - backing.virtual))
        start = high
    if start < end:
        yield from _without_backing(start, end, problems)


def _without_backing(start: int, end: int, problems: Problems) -> Iterator[Extent]:
    """Not in the list: unmapped if this is the vmemmap and the list is complete."""
    for first, last in _VMEMMAPS:
        low, high = max(start, first), min(end, last)
        if low >= high:
            continue
        if start < low:
            yield _not_in_vmemmap(start, low)
        problem = next(iter(problems), None)
        if problem is not None:
            yield not_known(low, high, str(problem), problem.state)
        else:
            yield unmapped(low, high)
        start = high
    if start < end:
        yield _not_in_vmemmap(start, end)


def _not_in_vmemmap(start: int, end: int) -> Extent:
    return not_known(start, end, "the hash MMU's tables of vmalloc memory are not read")
