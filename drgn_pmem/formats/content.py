# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What the first bytes of a device hold
-------------------------------------

File systems, partition tables, volume managers and swap by their magic numbers, as ``blkid`` knows
them. Sources: include/uapi/linux/magic.h; fs/xfs/libxfs/xfs_format.h, fs/ext4/ext4.h,
fs/btrfs/fs.h, include/linux/swap.h, block/partitions/efi.h and msdos.c; LVM2's and LUKS's own
on-disk formats.
"""

from collections.abc import Callable
import struct

from drgn_pmem.record import Record

__all__ = ("CONTENT_PARTS", "Content", "identify")

Read = Callable[[int, int], bytes | None]

CONTENT_PARTS = ((0, 4096), (0xF000, 4096), (0x10000, 4096))
"""(offset, bytes) that :func:`identify` reads: both ends of a page of 4 and of 64 KiB, and the
super block of Btrfs."""

_EXT_COMPAT_JOURNAL, _EXT_INCOMPAT_JOURNAL_DEV = 0x4, 0x8
_EXT4_INCOMPAT = 0x40 | 0x80 | 0x200
"""extents, 64bit, flex_bg"""


class Content(Record):
    """What a device holds by its first bytes."""

    kind: str
    """blkid's word: ``"ext4"``, ``"xfs"``, ``"swap"``, ``"LVM2_member"``, ``"gpt"``, ...;
    ``"zero"`` if all that was looked at is zero, ``"unknown"`` for bytes of no kind known here."""
    label: str | None = None
    """Name that it was given."""


def _text(data: bytes) -> str | None:
    return data.split(b"\0")[0].decode("utf-8", "backslashreplace") or None


def _ext(head: bytes) -> Content:
    compat, incompat = struct.unpack_from("<II", head, 0x400 + 0x5C)
    label = _text(head[0x478:0x488])
    if incompat & _EXT_INCOMPAT_JOURNAL_DEV:
        return Content(kind="jbd", label=label)
    if incompat & _EXT4_INCOMPAT:
        return Content(kind="ext4", label=label)
    return Content(kind="ext3" if compat & _EXT_COMPAT_JOURNAL else "ext2", label=label)


_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"XFSB", "xfs"),
    (0, b"LUKS\xba\xbe", "crypto_LUKS"),
    (0, b"hsqs", "squashfs"),
    (0x400, b"\x10\x20\xf5\xf2", "f2fs"),
    (0x400, b"\xe2\xe1\xf5\xe0", "erofs"),
    (3, b"NTFS    ", "ntfs"),
    (3, b"EXFAT   ", "exfat"),
    (0x52, b"FAT32   ", "vfat"),
    (0x36, b"FAT16   ", "vfat"),
    (0x36, b"FAT12   ", "vfat"),
    (0, b"\xfc\x4e\x2b\xa9", "linux_raid_member"),
)
_SWAP = (b"SWAPSPACE2", b"SWAP-SPACE")


def identify(read: Read) -> Content | None:
    """
    What a device holds.

    :param read: ``read(offset, size)`` of the device; None where its bytes are not known.
    :return: None if bytes that decide are not known.
    """
    head = read(0, 4096)
    if head is None:
        return None
    found = _by_first_page(head)
    if found is not None:
        return found
    # These are elsewhere, so that without their bytes nothing is known of the device.
    end_of_64k, btrfs = (read(offset, size) for offset, size in CONTENT_PARTS[1:])
    if btrfs is not None and btrfs[0x40:0x48] == b"_BHRfS_M":
        return Content(kind="btrfs", label=_text(btrfs[0x12B:0x22B]))
    if end_of_64k is not None and end_of_64k[-10:] in _SWAP:
        return Content(kind="swap")
    if _is_mbr(head):  # the last, because boot sectors of file systems end in the same way
        return Content(kind="dos")
    if end_of_64k is None or btrfs is None:
        return None
    return Content(kind="unknown" if any(head + end_of_64k + btrfs) else "zero")


def _by_first_page(head: bytes) -> Content | None:
    for offset, magic, kind in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return Content(kind=kind, label=_text(head[0x6C:0x78]) if kind == "xfs" else None)
    if head[0x438:0x43A] == b"\x53\xef":
        return _ext(head)
    if head[512:520] == b"EFI PART":
        return Content(kind="gpt")
    for sector in range(0, 2048, 512):
        if head[sector : sector + 8] == b"LABELONE" and head[sector + 24 :][:8] == b"LVM2 001":
            return Content(kind="LVM2_member")
    return Content(kind="swap") if head[-10:] in _SWAP else None


def _is_mbr(head: bytes) -> bool:
    """A partition table: the signature, and entries as msdos.c takes them."""
    entries = [head[at : at + 16] for at in range(0x1BE, 0x1FE, 16)]
    return (
        head[0x1FE:0x200] == b"\x55\xaa"
        and all(entry[0] in (0, 0x80) for entry in entries)
        and any(entry[4] for entry in entries)
    )
