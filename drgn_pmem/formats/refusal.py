# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Why the kernel refuses an info block
------------------------------------

The checks that the kernel makes before a driver uses an info block, in the kernel's order:
``nd_pfn_validate()`` in :linux:`drivers/nvdimm/pfn_devs.c`, ``nd_btt_arena_is_valid()`` and
``nd_btt_version()`` in :linux:`drivers/nvdimm/btt_devs.c`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
import enum

from drgn_pmem.formats.btt import BttArena
from drgn_pmem.formats.infoblock import (
    INFO_BLOCK_OFFSET,
    PFN_MODE_PMEM,
    PFN_MODE_RAM,
    InfoBlock,
    effective_align,
    fill_in_defaults,
)
from drgn_pmem.record import Record

__all__ = ("Check", "Refusal", "check_arena", "check_infoblock")

_NIL_UUID = "00000000-0000-0000-0000-000000000000"
_BTT_MIN_SIZE = 16 << 20


class Check(enum.Enum):
    """What the kernel checks."""

    FORCE_RAW = "force_raw"
    CLAIM_CLASS = "claim class"
    CAPACITY = "capacity"
    CHECKSUM = "checksum"
    PARENT_UUID = "parent_uuid"
    VERSION = "version"
    MODE = "mode"
    PAGE_SIZE = "page_size"
    PAGE_STRUCT_SIZE = "page_struct_size"
    ALIGN = "align"
    DATAOFF = "dataoff"


_LEAVES_RAW = frozenset(
    (
        Check.FORCE_RAW,
        Check.CLAIM_CLASS,
        Check.CAPACITY,
        Check.CHECKSUM,
        Check.PARENT_UUID,
        Check.VERSION,
        Check.MODE,
    )
)
"""Checks after which the kernel goes on as if there were no info block (-ENODEV, -ENXIO)."""


class Refusal(Record):
    """One check that an info block fails."""

    check: Check
    why: str

    @property
    def leaves_raw(self) -> bool:
        """Whether the namespace becomes a raw one; otherwise (-EOPNOTSUPP) it stays disabled."""
        return self.check in _LEAVES_RAW

    def __str__(self) -> str:
        return self.why


def check_infoblock(
    block: InfoBlock,
    namespace_start: int,
    namespace_size: int | None,
    page_size: int = 4096,
    page_struct_size: int | None = 64,
    *,
    parent_uuid: str | None = None,
    compat_align: int | None = 2 << 20,
    supported_alignments: Collection[int] | None = None,
) -> list[Refusal]:
    """
    Why a kernel would refuse the block: the checks of ``nd_pfn_validate()``.

    :param namespace_start: Physical address of the namespace.
    :param namespace_size: Its size in bytes; ``None`` skips the checks that need it.
    :param page_struct_size: ``sizeof(struct page)`` of that kernel; ``None`` skips the check.
    :param parent_uuid: UUID of the namespace, all zero for a label-less one; ``None`` skips the
        check.
    :param compat_align: ``memremap_compat_align()`` in bytes: 2 MiB; 16 MiB on ppc64 with the hash
        MMU. ``None`` skips the checks (kernels before v5.7 have none).
    :param supported_alignments: ``nd_pfn_supported_alignments()`` in bytes; ``None`` skips the
        check.
    :return: One for each failed check, in the kernel's order; empty if the kernel accepts the
        block.
    """
    found = [*_contents(block, page_size, page_struct_size, parent_uuid)]
    align = effective_align(block)
    if (
        supported_alignments is not None
        and block.signature == "NVDIMM_DAX_INFO"
        and align not in supported_alignments
    ):
        found.append(
            Refusal(check=Check.ALIGN, why=f"align {align:#x} is not supported by the kernel")
        )
    return [*found, *_place(block, namespace_start, namespace_size, page_size, align, compat_align)]


def _contents(
    block: InfoBlock, page_size: int, page_struct_size: int | None, parent_uuid: str | None
) -> Iterator[Refusal]:
    """Checks that do not depend on the address of the namespace."""
    if not block.checksum_ok:
        yield Refusal(check=Check.CHECKSUM, why="the checksum is wrong")
    if parent_uuid is not None and block.parent_uuid != parent_uuid:
        yield Refusal(
            check=Check.PARENT_UUID,
            why=f"parent_uuid {block.parent_uuid} is not the namespace's {parent_uuid}",
        )
    if block.mode not in (PFN_MODE_RAM, PFN_MODE_PMEM):
        yield Refusal(
            check=Check.MODE,
            why=f"mode {block.mode} is neither 1 (struct pages in RAM) nor 2 (on pmem)",
        )
    if block.mode != PFN_MODE_PMEM:
        return
    filled = fill_in_defaults(block, page_size)
    if filled.page_size > page_size:
        yield Refusal(
            check=Check.PAGE_SIZE,
            why=f"page_size {filled.page_size} is larger than the kernel's {page_size} bytes",
        )
    if page_struct_size is not None and filled.page_struct_size < page_struct_size:
        yield Refusal(
            check=Check.PAGE_STRUCT_SIZE,
            why=f"page_struct_size {filled.page_struct_size} is smaller than"
            f" the kernel's {page_struct_size} bytes",
        )


def _place(
    block: InfoBlock,
    start: int,
    size: int | None,
    page_size: int,
    align: int,
    compat_align: int | None,
) -> Iterator[Refusal]:
    """Checks of size and alignment."""
    filled = fill_in_defaults(block, page_size)
    if size is not None and align > size:
        yield Refusal(
            check=Check.ALIGN, why=f"align {align:#x} exceeds the namespace's {size:#x} bytes"
        )
    if size is not None and block.dataoff >= size:
        yield Refusal(
            check=Check.DATAOFF,
            why=f"dataoff {block.dataoff:#x} exceeds the namespace's {size:#x} bytes",
        )
    data = start + block.dataoff + filled.start_pad
    if data % align:
        yield Refusal(
            check=Check.ALIGN,
            why=f"the data would begin at {data:#x}, not aligned to {align:#x}",
        )
    if block.dataoff % page_size:
        yield Refusal(
            check=Check.DATAOFF,
            why=f"dataoff {block.dataoff:#x} is not a multiple of {page_size} bytes",
        )
    if compat_align is None:
        return
    first = start + filled.start_pad
    if first % compat_align:
        yield Refusal(
            check=Check.ALIGN,
            why=f"the mapping would begin at {first:#x}, not aligned to {compat_align:#x}",
        )
    if size is not None and (end := start + size - filled.end_trunc) % compat_align:
        yield Refusal(
            check=Check.ALIGN,
            why=f"the mapping would end at {end:#x}, not aligned to {compat_align:#x}",
        )


def check_arena(
    arena: BttArena,
    offset: int,
    namespace_size: int | None,
    *,
    parent_uuid: str | None = None,
) -> list[Refusal]:
    """
    Why a kernel would refuse the first arena of a namespace: the checks of
    ``nd_btt_arena_is_valid()`` and ``nd_btt_version()``.

    :param offset: Of the arena in the namespace, bytes.
    :param namespace_size: bytes; ``None`` skips the check of it.
    :param parent_uuid: As for :func:`check_infoblock`; an arena without one fits every namespace.
    """
    found = []
    if namespace_size is not None and namespace_size < _BTT_MIN_SIZE:
        found.append(
            Refusal(
                check=Check.CAPACITY,
                why=f"the namespace has {namespace_size:#x} bytes, less than 16 MiB",
            )
        )
    if parent_uuid is not None and arena.parent_uuid not in (parent_uuid, _NIL_UUID):
        found.append(
            Refusal(
                check=Check.PARENT_UUID,
                why=f"parent_uuid {arena.parent_uuid} is not the namespace's {parent_uuid}",
            )
        )
    if not arena.checksum_ok:
        found.append(Refusal(check=Check.CHECKSUM, why="the checksum is wrong"))
    version = (1, 1) if offset == INFO_BLOCK_OFFSET else (2, 0)
    if (arena.version_major, arena.version_minor) != version:
        found.append(
            Refusal(
                check=Check.VERSION,
                why=f"version {arena.version} is not {version[0]}.{version[1]}",
            )
        )
    return found
