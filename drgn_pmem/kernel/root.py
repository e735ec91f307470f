# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The root of the page tables, verified
-------------------------------------

vmcoreinfo has the address of the kernel's page tables, and it may be that of another boot or
kernel, or a wrong one made by a hypervisor. Before any address is translated, a known value is read
through the tables: the kernel's release in ``init_uts_ns`` has to be the note's OSRELEASE; where
the dump does not hold that page, the tables have to map the top table at its own address.

Sources: include/linux/uts_namespace.h, arch/powerpc/mm/init_64.c.
"""

from collections.abc import Iterator
from dataclasses import replace
import enum

from drgn import Architecture, FaultError, Program

from drgn_pmem.dumpfile import State, Vmcoreinfo, coverage_of, dump_of, vmcoreinfo_of
from drgn_pmem.dumpfile.faults import add_over_all
from drgn_pmem.dumpfile.fit import Fit, fit_of, name_offsets, release_at, symbol_shift
from drgn_pmem.errors import DumpFileError, PmemError
from drgn_pmem.kernel.byteorder import is_little_endian
from drgn_pmem.kernel.mmu import Mmu, find_mmu, hash_process_mmu
from drgn_pmem.kernel.tablewalk import Extent, mapped, merge, not_known, walk_tables, walk_with_drgn
from drgn_pmem.kernel.vmemmap_list import PPC64_PAGE_OFFSET, linear_end, read_linear, walk_hash
from drgn_pmem.record import Record

__all__ = (
    "Root",
    "Verdict",
    "corrected_kernel_offset",
    "ppc64_is_radix",
    "refuse_unfit",
    "root_of",
    "walk_process",
    "walk_verified",
)

_KEY = "drgn_pmem.root"
_REFUSED = "drgn_pmem.root.refused"
_MMU_FTR_TYPE_RADIX = 0x40


class Verdict(enum.Enum):
    """Whether vmcoreinfo belongs to the memory of the dump."""

    VERIFIED = "verified"
    """Its content was found in memory, through the page tables."""
    UNVERIFIED = "unverified"
    """The dump lacks the evidence: translations are used, but nothing is "unmapped"."""
    WRONG = "wrong"
    """Something else is there: no address can be translated."""


class Root(Record):
    """What is known of the kernel's page tables."""

    verdict: Verdict
    reason: str | None
    """Why they are not verified."""


def root_of(prog: Program) -> Root:
    """
    Whether vmcoreinfo fits the memory of the dump; found out once and kept in ``prog.cache``.

    :raises DumpFileError: if the program has no dump
    """
    root: Root | None = prog.cache.get(_KEY)
    if root is None:
        root = prog.cache[_KEY] = _verify(prog)
    return root


def refuse_unfit(prog: Program) -> str | None:
    """
    Where vmcoreinfo does not fit the memory, make every read of a virtual address fault: drgn would
    translate it by that vmcoreinfo, too.

    :return: Why nothing is translated; None if vmcoreinfo fits, or that cannot be determined (also
        of a program that has no dump: memory that was added segment by segment)
    """
    try:
        root = root_of(prog)
    except DumpFileError:
        # not a problem: every translation raises it
        return None
    shift = symbol_shift(prog)
    if root.verdict is not Verdict.WRONG and shift:
        offset = vmcoreinfo_of(prog).kernel_offset
        why = f"KERNELOFFSET {offset or 0:#x} puts the debug info {abs(shift):#x} bytes off"
        root = prog.cache[_KEY] = _wrong(vmcoreinfo_of(prog), why)
    if root.verdict is not Verdict.WRONG:
        return None
    if _REFUSED not in prog.cache:
        prog.cache[_REFUSED] = True
        reason = str(root.reason)

        def fault(address: int, count: int, offset: int, physical: bool) -> bytes:
            raise FaultError(reason, address)

        add_over_all(prog, dump_of(prog), fault, False)
    return root.reason


def corrected_kernel_offset(prog: Program) -> int | None:
    """
    The KERNELOFFSET that belongs to the memory, where that of vmcoreinfo is wrong: by the address
    of ``init_uts_ns``, which the page tables confirmed, and the debug info of the same build.

    :return: None if vmcoreinfo has the right one, or the right one cannot be determined
    """
    info = vmcoreinfo_of(prog)
    shift = symbol_shift(prog)
    if not shift or root_of(prog).verdict is not Verdict.VERIFIED:
        return None
    build_id = prog.main_module().build_id
    if info.build_id is None or build_id is None or build_id.hex() != info.build_id:
        return None
    return ((info.kernel_offset or 0) + shift) % (1 << 64)


def walk_verified(prog: Program, start: int, end: int) -> Iterator[Extent]:
    """
    What the kernel's page tables map.

    :param start: First virtual address.
    :param end: End, exclusive.
    """
    root = root_of(prog)
    if root.verdict is Verdict.WRONG:
        return iter((not_known(start, end, str(root.reason)),))
    extents = _walk(prog, start, end)
    if root.verdict is Verdict.VERIFIED:
        return extents
    return merge(_doubt(extent, root) for extent in extents)


def walk_process(prog: Program, pgd: int, start: int, end: int) -> Iterator[Extent]:
    """
    What the page tables of a process map. Processes have tables of the kernel's own format, on
    ppc64 with the hash MMU those that the kernel fills its hash table from.

    :param pgd: Physical address of the top table.
    :param start: First virtual address.
    :param end: End, exclusive.
    :raises PmemError: if tables of this kind cannot be walked
    """
    root = root_of(prog)
    if root.verdict is Verdict.WRONG:
        return iter((not_known(start, end, str(root.reason)),))
    mmu = find_mmu(prog)
    if _is_ppc64(prog) and not ppc64_is_radix(prog):
        return _of_process(prog, hash_process_mmu(prog, pgd), root, start, end)
    if mmu is None:
        raise PmemError(
            "page tables of processes cannot be walked: vmcoreinfo does not describe those of the "
            "kernel, or the architecture is not supported"
        )
    # User addresses are below the lowest bit that distinguishes them from kernel addresses.
    top = mmu.levels[0]
    own = replace(mmu, root=pgd, valid=((0, 1 << (top.shift + top.bits)),))
    return _of_process(prog, own, root, start, end)


def _of_process(prog: Program, mmu: Mmu, root: Root, start: int, end: int) -> Iterator[Extent]:
    extents = walk_tables(prog, mmu, start, end)
    if root.verdict is Verdict.VERIFIED:
        return extents
    return merge(_doubt(extent, root) for extent in extents)


def _doubt(extent: Extent, root: Root) -> Extent:
    if extent.state is not State.UNMAPPED:
        return extent
    return not_known(extent.virtual, extent.end, f"page tables not verified: {root.reason}")


def _walk(prog: Program, start: int, end: int) -> Iterator[Extent]:
    """Not verified."""
    mmu = find_mmu(prog)
    if not _is_ppc64(prog):
        return (
            walk_with_drgn(prog, start, end) if mmu is None else walk_tables(prog, mmu, start, end)
        )
    try:
        radix = ppc64_is_radix(prog)
    except PmemError as error:
        return _linear_only(prog, start, end, str(error))
    if not radix:
        return walk_hash(prog, start, end)
    if mmu is None:
        return _linear_only(prog, start, end, "vmcoreinfo has no address of page tables")
    return walk_tables(prog, mmu, start, end)


def _linear_only(prog: Program, start: int, end: int, reason: str) -> Iterator[Extent]:
    """The linear mapping of ppc64 is at the same address with either MMU."""
    low, high = max(start, PPC64_PAGE_OFFSET), min(end, linear_end(prog))
    if low >= high:
        yield not_known(start, end, reason)
        return
    if start < low:
        yield not_known(start, low, reason)
    yield mapped(low, high, low - PPC64_PAGE_OFFSET)
    if high < end:
        yield not_known(high, end, reason)


def _is_ppc64(prog: Program) -> bool:
    return prog.platform is not None and prog.platform.arch == Architecture.PPC64


def ppc64_is_radix(prog: Program) -> bool:
    """
    Whether a ppc64 kernel runs with radix page tables (else with the hash MMU).

    :raises PmemError: if that cannot be determined
    """
    # Since Linux kernel commit 36e826b568e4 ("powerpc/vmcore: Add MMU information to vmcoreinfo")
    # (in v6.7).
    radix = vmcoreinfo_of(prog).numbers.get("RADIX_MMU")
    if radix is not None:
        return radix != 0
    found = _tables_are_radix(prog)
    return _features_have_radix(prog) if found is None else found


def _tables_are_radix(prog: Program) -> bool | None:
    """Radix tables map the linear mapping, and with it themselves; those of the hash MMU hold
    vmalloc memory only. None if they cannot be read."""
    mmu = find_mmu(prog)
    if mmu is None:
        return None
    extent = next(
        walk_tables(prog, mmu, PPC64_PAGE_OFFSET + mmu.root, PPC64_PAGE_OFFSET + mmu.root + 1)
    )
    if extent.physical is not None:
        return extent.physical == mmu.root
    return False if extent.state is State.UNMAPPED else None


def _features_have_radix(prog: Program) -> bool:
    """``cur_cpu_spec->mmu_features``"""
    try:
        variable = prog["cur_cpu_spec"]
        member = prog.type("struct cpu_spec").member("mmu_features")
    except LookupError:
        raise PmemError(
            "radix or hash MMU is unknown: vmcoreinfo has no NUMBER(RADIX_MMU), the top page "
            "table was not saved and no debug info of the kernel is loaded (-s VMLINUX)"
        ) from None
    order = "little" if is_little_endian(prog) else "big"
    try:
        spec = int.from_bytes(read_linear(prog, variable.address_ or 0, 8), order)  # type: ignore[arg-type]
        size = member.type.size or 4
        data = read_linear(prog, spec + member.offset, size)
    except PmemError as error:
        raise PmemError(f"radix or hash MMU is unknown: cur_cpu_spec: {error}") from None
    return bool(int.from_bytes(data, order) & _MMU_FTR_TYPE_RADIX)  # type: ignore[arg-type]


def _verify(prog: Program) -> Root:
    info = vmcoreinfo_of(prog)
    if _claims_wrong_mmu(prog, info):
        return _wrong(info, "its NUMBER(RADIX_MMU) contradicts the page tables")
    address = info.symbols.get("init_uts_ns")
    if address is None:
        reason = "vmcoreinfo has no SYMBOL(init_uts_ns)"
    else:
        where = f"init_uts_ns at {address:#x}"
        for offset in name_offsets(info):
            try:
                release = release_at(lambda at, size: _read(prog, at, size), address + offset)
            except _CannotRead as error:
                reason, state = f"{where}: {error}", error.state
                if state is State.UNMAPPED:
                    return _wrong(info, f"the page tables that it names do not map {where}")
                break
            if release is not None and release == info.osrelease:
                return Root(verdict=Verdict.VERIFIED, reason=None)
        else:
            return _wrong(info, f"the kernel's release is not {where}")
    mmu = find_mmu(prog)
    if mmu is not None and _maps_itself(prog, mmu, info):
        return Root(verdict=Verdict.VERIFIED, reason=None)
    if fit_of(info, lambda at, size: _read_physical(prog, at, size)) is Fit.NO:
        return _wrong(info, "the kernel image is not at its address")
    return Root(verdict=Verdict.UNVERIFIED, reason=reason)


def _wrong(info: Vmcoreinfo, why: str) -> Root:
    release = info.osrelease or "an unknown release"
    return Root(
        verdict=Verdict.WRONG,
        reason=f"vmcoreinfo (Linux {release}) does not fit this memory: {why}",
    )


class _CannotRead(DumpFileError):
    """:param state: Why; None if the reason is neither memory nor mapping."""

    def __init__(self, message: str, state: State | None) -> None:
        super().__init__(message)
        self.state = state


def _read(prog: Program, virtual: int, size: int) -> bytes:
    pieces = []
    for extent in _walk(prog, virtual, virtual + size):
        if extent.physical is None:
            raise _CannotRead(str(extent.reason), extent.state)
        pieces.append(_read_physical(prog, extent.physical, extent.size))
    return b"".join(pieces)


def _read_physical(prog: Program, physical: int, size: int) -> bytes:
    for part in coverage_of(prog).ranges(physical, physical + size):
        if part.state is not State.SAVED:
            raise _CannotRead(f"physical {part.start:#x} is {part.state.value}", part.state)
    try:
        return prog.read(physical, size, True)
    except FaultError as error:
        raise _CannotRead(str(error), None) from None


def _maps_itself(prog: Program, mmu: Mmu, info: Vmcoreinfo) -> bool:
    top = info.symbols.get("swapper_pg_dir")
    if top is None:
        return False
    return next(walk_tables(prog, mmu, top, top + 1)).physical == mmu.root


def _claims_wrong_mmu(prog: Program, info: Vmcoreinfo) -> bool:
    """Whether vmcoreinfo has radix where the tables are hash, or the reverse."""
    radix = info.numbers.get("RADIX_MMU")
    if radix is None or not _is_ppc64(prog):
        return False
    found = _tables_are_radix(prog)
    return found is not None and found != bool(radix)
