# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Info blocks of fsdax and devdax namespaces
------------------------------------------

``struct nd_pfn_sb`` (:linux:`drivers/nvdimm/pfn.h`) is 4 KiB into a namespace. It says where the
namespace's user data begins (``dataoff``) and whether the ``struct page`` array is before it, on
the persistent memory itself (``mode``). Everything is little-endian on every architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.btt import BTT_SIGNATURE, BttArena, parse_btt
from drgn_pmem.formats.clayout import CLayout
from drgn_pmem.formats.superblock import SB_SIZE, unpack_sb
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "DAX_SIGNATURE",
    "INFO_BLOCK_OFFSET",
    "INFO_BLOCK_SIZE",
    "PFN_MODE_PMEM",
    "PFN_MODE_RAM",
    "PFN_SIGNATURE",
    "FoundInfoBlock",
    "InfoBlock",
    "data_range",
    "effective_align",
    "fill_in_defaults",
    "find_infoblocks",
    "memmap_size",
    "metadata_range",
    "parse_infoblock",
)

PFN_SIGNATURE = b"NVDIMM_PFN_INFO\0"
DAX_SIGNATURE = b"NVDIMM_DAX_INFO\0"
INFO_BLOCK_OFFSET = 0x1000
INFO_BLOCK_SIZE = SB_SIZE
PFN_MODE_RAM = 1
PFN_MODE_PMEM = 2

_LAYOUT = CLayout("""
struct nd_pfn_sb {
    char     signature[16];
    char     uuid[16];
    char     parent_uuid[16];
    uint32_t flags;
    uint16_t version_major;
    uint16_t version_minor;
    uint64_t dataoff;           /* from the base of the namespace */
    uint64_t npfns;
    uint32_t mode;
    uint32_t start_pad;         /* from minor version 1 */
    uint32_t end_trunc;
    uint32_t align;             /* from 2 */
    uint32_t page_size;         /* from 4 */
    uint16_t page_struct_size;
    char     padding[3994];     /* zero from 3 */
    uint64_t checksum;
};
""")

_NUMBERS = (
    "dataoff",
    "npfns",
    "mode",
    "start_pad",
    "end_trunc",
    "align",
    "page_size",
    "page_struct_size",
)


class InfoBlock(Record):
    """``struct nd_pfn_sb``, fields as they are in the block (see :func:`fill_in_defaults`)."""

    signature: str
    uuid: str
    parent_uuid: str
    flags: int
    version_major: int
    version_minor: int
    dataoff: int
    """Bytes from the namespace's base (plus :attr:`start_pad`) to its user data."""
    npfns: int
    """Pages of user data."""
    mode: int
    """Where the struct pages are: :data:`PFN_MODE_RAM` or :data:`PFN_MODE_PMEM`."""
    start_pad: int = 0
    end_trunc: int = 0
    align: int = 0
    page_size: int = 0
    page_struct_size: int = 0
    checksum: int = 0
    checksum_ok: bool = True
    """
    False for a damaged block, and for the kernel's RAM copy of an old one: see
    :func:`fill_in_defaults`.
    """

    @property
    def version(self) -> str:
        return f"{self.version_major}.{self.version_minor}"

    def to_json(self) -> dict[str, Any]:
        """The keys and values of ``ndctl read-infoblock -j``, and ``checksum_ok``."""
        return {
            "signature": self.signature,
            "uuid": self.uuid,
            "parent_uuid": self.parent_uuid,
            "flags": self.flags,
            "version": self.version,
            **{name: getattr(self, name) for name in _NUMBERS},
            "checksum_ok": self.checksum_ok,
        }


def parse_infoblock(data: bytes, *, verify: bool = True) -> InfoBlock:
    """
    Decode an info block.

    :param data: ``struct nd_pfn_sb``, 4096 bytes or more.
    :param verify: Refuse a wrong checksum. ``nd_pfn->pfn_sb`` in RAM needs ``False``:
        ``nd_pfn_validate()`` fills in the fields that an old block does not have and leaves its
        checksum alone.
    :raises FormatError: naming the signature, checksum or size that is wrong.
    """
    members, computed = unpack_sb(
        _LAYOUT,
        "nd_pfn_sb",
        data,
        (PFN_SIGNATURE, DAX_SIGNATURE),
        "not an info block: signature {} is neither NVDIMM_PFN_INFO nor NVDIMM_DAX_INFO",
    )
    block = InfoBlock(**members, checksum_ok=computed == members["checksum"])
    if verify and not block.checksum_ok:
        raise FormatError(
            f"damaged info block: checksum {block.checksum:#018x}, its bytes give {computed:#018x}"
        )
    return block


def fill_in_defaults(block: InfoBlock, page_size: int = 4096) -> InfoBlock:
    """
    The block as ``nd_pfn_validate()`` leaves it in ``nd_pfn->pfn_sb``: fields that its version does
    not have filled in.

    :param page_size: The kernel's ``PAGE_SIZE`` in bytes.
    """
    filled: dict[str, Any] = {}
    if block.version_minor < 1:
        filled.update(start_pad=0, end_trunc=0)
    if block.version_minor < 2:
        filled.update(align=0)
    if block.version_minor < 4:
        filled.update(page_size=page_size, page_struct_size=64)
    return dataclasses.replace(block, **filled)


def effective_align(block: InfoBlock) -> int:
    """
    Alignment in bytes; a block without one has the largest power of two that is not above its
    ``dataoff``.
    """
    if block.version_minor >= 2 and block.align:
        return block.align
    return 1 << max(block.dataoff.bit_length() - 1, 0)


def metadata_range(block: InfoBlock, namespace_start: int) -> tuple[int, int]:
    """
    Physical start and end of all that is not user data: reserve, struct pages and padding. End
    exclusive, bytes.
    """
    start_pad = fill_in_defaults(block).start_pad
    return namespace_start, namespace_start + start_pad + block.dataoff


def data_range(block: InfoBlock, namespace_start: int, page_size: int = 4096) -> tuple[int, int]:
    """
    Physical start and end of the user data. End exclusive, bytes.

    With a ``start_pad`` (old, misaligned namespaces) this is where block I/O finds it; the kernel's
    DAX path forgets the padding, which is why new blocks have none.
    """
    filled = fill_in_defaults(block, page_size)
    start = metadata_range(block, namespace_start)[1]
    return start, start + filled.npfns * filled.page_size


def memmap_size(
    block: InfoBlock, page_size: int = 4096, page_struct_size: int | None = None
) -> int:
    """
    Bytes of struct pages for the whole mapping, which begins before the metadata.

    :param page_struct_size: ``sizeof(struct page)``; default: what the block was made for.
    """
    filled = fill_in_defaults(block, page_size)
    if not filled.page_size:
        return 0
    pages = filled.dataoff // filled.page_size + filled.npfns
    return pages * (page_struct_size or filled.page_struct_size)


class FoundInfoBlock(Record):
    """An info block that a scan found: its signature is there, its checksum may be wrong
    (``block.checksum_ok``)."""

    namespace: int = shown(Show.ADDRESS)
    """Physical address at which the namespace would begin."""
    address: int = shown(Show.ADDRESS)
    """Physical address of the block itself."""
    block: InfoBlock | BttArena

    def to_json(self) -> dict[str, Any]:
        return {
            "namespace": f"{self.namespace:#x}",
            "address": f"{self.address:#x}",
            **self.block.to_json(),
        }


def find_infoblocks(
    read: Callable[[int, int], bytes | None], start: int, end: int, step: int = 2 << 20
) -> Iterator[FoundInfoBlock]:
    """
    Scan physical memory for info blocks, with no debug info: where a namespace may begin, a known
    signature. BTT 2.0 keeps its block in the first page, all others in the second.

    The content of a file on pmem can hold such blocks, too: the caller decides what a hit inside
    another namespace is. Further arenas and backup blocks of a BTT that was found are not reported
    again, and a block in the first page is only reported with a valid checksum.

    :param read: ``read(address, size)`` gives the bytes, or ``None`` (or fewer) where the dump does
        not hold them.
    :param start: First physical address that a namespace may have, in bytes; a candidate even if it
        is not aligned.
    :param end: End of the range, exclusive.
    :param step: Alignment of namespaces in bytes.
    :raises FormatError: if *step* is not a multiple of 4096.
    """
    if step <= 0 or step % INFO_BLOCK_SIZE:
        raise FormatError(f"the step of a scan is a multiple of 4096 bytes, not {step}")
    known: set[int] = set()
    namespace = start
    while namespace < end:
        for offset in (0, INFO_BLOCK_OFFSET):
            address = namespace + offset
            if address + INFO_BLOCK_SIZE > end:
                continue
            block = _read_block(read, address, v2=offset == 0)
            if isinstance(block, BttArena):
                again = address in known
                known.add(address + block.info2off)
                if block.nextoff:
                    known.add(address + block.nextoff)
                if again:
                    continue
            if block is not None:
                yield FoundInfoBlock(namespace=namespace, address=address, block=block)
        namespace = (namespace // step + 1) * step


def _read_block(
    read: Callable[[int, int], bytes | None], address: int, v2: bool
) -> InfoBlock | BttArena | None:
    signature = read(address, 16)
    if signature not in ((BTT_SIGNATURE,) if v2 else (BTT_SIGNATURE, PFN_SIGNATURE, DAX_SIGNATURE)):
        return None
    data = read(address, INFO_BLOCK_SIZE)
    if data is None or len(data) < INFO_BLOCK_SIZE:
        return None
    if signature != BTT_SIGNATURE:
        return parse_infoblock(data, verify=False)
    arena = parse_btt(data, verify=False)
    if v2:
        # A v1.1 block in the first page is a backup or a later arena, not where the kernel looks
        # for a namespace's.
        return arena if arena.checksum_ok and arena.version_major == 2 else None
    return arena if arena.version_major != 2 or not arena.checksum_ok else None
