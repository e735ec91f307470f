# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Crash headers as the kernel prepares them
-----------------------------------------

The layouts of ``crash_prepare_elf64_headers()`` (:linux:`kernel/crash_core.c`,
:linux:`kernel/kexec_file.c` before Linux 6.5) and ``fadump_create_elfcore_headers()``
(:linux:`arch/powerpc/kernel/fadump.c`), from the addresses that these functions get.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

from drgn_pmem.formats.architecture import PPC64
from drgn_pmem.formats.clayout import ByteOrder
from drgn_pmem.formats.elfcorehdr import (
    PF_DEV,
    PF_RWX,
    PT_LOAD,
    PT_NOTE,
    CrashHeader,
    HeaderSource,
    ProgramHeader,
    Role,
    build_elfcorehdr,
)
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "CrashRange",
    "crash_exclude_mem_range",
    "crash_prepare_elf64_headers",
    "elfcorehdr_size",
    "fadump_create_elfcore_headers",
)


class CrashRange(Record):
    """Memory that a crash header offers."""

    start: int = shown(Show.ADDRESS)
    end: int = shown(Show.ADDRESS)
    """Physical, exclusive."""
    flags: int = PF_RWX
    offset: int | None = shown(Show.ADDRESS, default=None)
    """Where the bytes will be, if not at :attr:`start`: backup region, fadump destination."""


def crash_exclude_mem_range(
    ranges: Sequence[CrashRange], start: int, end: int, *, stop_at_partial: bool = False
) -> list[CrashRange]:
    """
    Cut a range out.

    :param end: Exclusive.
    :param stop_at_partial: Do as kernels did that stop at the first range that is cut but not
        removed, so that the rest of an exclusion that spans ranges stays in (Linux 6.1 does so).
    """
    kept: list[CrashRange] = []
    stopped = False
    for item in ranges:
        if stopped or end <= item.start or start >= item.end:
            kept.append(item)
            continue
        if item.start < start:
            kept.append(dataclasses.replace(item, end=start))
        if end < item.end:
            shift = None if item.offset is None else item.offset + end - item.start
            kept.append(dataclasses.replace(item, start=end, offset=shift))
        stopped = stop_at_partial and (item.start < start or end < item.end)
    return kept


def _load(
    item: CrashRange, virtual: Callable[[int], int], role: Role | None = None
) -> ProgramHeader:
    return ProgramHeader(
        type=PT_LOAD,
        flags=item.flags,
        offset=item.start if item.offset is None else item.offset,
        virtual=virtual(item.start),
        physical=item.start,
        file_size=item.end - item.start,
        memory_size=item.end - item.start,
        role=role or (Role.PMEM if item.flags & PF_DEV else Role.MEMORY),
    )


def _note(address: int, size: int, role: Role, number: int | None = None) -> ProgramHeader:
    return ProgramHeader(
        type=PT_NOTE,
        flags=0,
        offset=address,
        physical=address,
        file_size=size,
        memory_size=size,
        role=role,
        number=number,
    )


def crash_prepare_elf64_headers(
    *,
    machine: int,
    cpu_notes: Sequence[tuple[int, int]],
    vmcoreinfo: tuple[int, int],
    kernel_text: tuple[int, int, int] | None,
    ranges: Sequence[CrashRange],
    virtual: Callable[[int], int],
    size: int | None = None,
) -> CrashHeader:
    """
    The header that ``kexec_file_load()`` and crash hotplug write: always marked little-endian.

    :param machine: ``e_machine``.
    :param cpu_notes: Physical address and size in bytes of ``crash_notes`` for each CPU: all
        possible ones, before Linux 6.5 all present ones.
    :param vmcoreinfo: Physical address and size in bytes of the vmcoreinfo note.
    :param kernel_text: Physical and virtual address and size in bytes of ``_text.._end``; ``None``
        on ppc64.
    :param ranges: Memory, exclusions cut out, in the kernel's order.
    :param virtual: ``__va()``.
    :param size: Bytes of the buffer (:func:`elfcorehdr_size`).
    """
    phdrs = [_note(*notes, Role.CPU_NOTES, cpu) for cpu, notes in enumerate(cpu_notes)]
    phdrs.append(_note(*vmcoreinfo, Role.VMCOREINFO))
    if kernel_text:
        physical, address, length = kernel_text
        text = CrashRange(start=physical, end=physical + length)
        phdrs.append(_load(text, lambda _: address, Role.KERNEL_TEXT))
    phdrs += (_load(item, virtual) for item in ranges)
    header = CrashHeader(source=HeaderSource.REBUILT, phdrs=tuple(phdrs), machine=machine)
    return dataclasses.replace(header, raw=build_elfcorehdr(header, size))


def fadump_create_elfcore_headers(
    *,
    cpu_notes: tuple[int, int],
    vmcoreinfo: tuple[int, int],
    boot_regions: Sequence[tuple[int, int]],
    boot_mem_dest_addr: int,
    ranges: Sequence[tuple[int, int]],
    virtual: Callable[[int], int],
    byteorder: ByteOrder = "little",
) -> CrashHeader:
    """
    The header of a firmware-assisted dump: as the capture kernel writes it since Linux 6.10, and
    the crashing one before.

    :param cpu_notes: Physical address and size in bytes of the notes of all CPUs; zeroes until they
        are known.
    :param vmcoreinfo: Where the note was moved to, and its size in bytes.
    :param boot_regions: Physical address and size of each boot memory region, which firmware moves.
    :param boot_mem_dest_addr: Where it moves the first one; the others follow it.
    :param ranges: Start and end (exclusive) of all memory above, without the reserved dump area.
    """
    phdrs = [_note(*cpu_notes, Role.CPU_NOTES), _note(*vmcoreinfo, Role.VMCOREINFO)]
    destination = boot_mem_dest_addr
    for start, length in boot_regions:
        item = CrashRange(start=start, end=start + length, offset=destination)
        phdrs.append(_load(item, virtual, Role.BOOT_MEMORY))
        destination += length
    phdrs += (_load(CrashRange(start=start, end=end), virtual) for start, end in ranges)
    header = CrashHeader(
        source=HeaderSource.REBUILT,
        phdrs=tuple(phdrs),
        machine=PPC64.e_machine,
        byteorder=byteorder,
        # the ELF ABI; big-endian kernels are built for version 1 by default
        e_flags=2 if byteorder == "little" else 1,
    )
    return dataclasses.replace(header, raw=build_elfcorehdr(header))


def elfcorehdr_size(possible_cpus: int, ranges: int) -> int:
    """
    Bytes that ``crash_prepare_elf64_headers()`` allocates, used or not.

    :param ranges: Memory ranges; the kernel adds one for its text, mapped or not.
    """
    return -(-(64 + (possible_cpus + 1 + ranges + 1) * 56) // 4096) * 4096
