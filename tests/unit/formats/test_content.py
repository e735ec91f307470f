# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the first bytes of a device are, each kind as its own tools write it."""

from collections.abc import Callable
import struct
from types import SimpleNamespace

from hypothesis import given, strategies as st
import pytest

from drgn_pmem.commands.common import media_fields, nothing
from drgn_pmem.formats.content import Content, identify
from drgn_pmem.output.table import Field

SIZE = 0x11000


def disk(*parts: tuple[int, bytes]) -> bytearray:
    data = bytearray(SIZE)
    for offset, content in parts:
        data[offset : offset + len(content)] = content
    return data


def reader(data: bytes, missing: tuple[int, ...] = ()) -> Callable[[int, int], bytes | None]:
    return lambda offset, size: None if offset in missing else bytes(data[offset : offset + size])


def ext(compat: int, incompat: int, label: bytes = b"") -> tuple[tuple[int, bytes], ...]:
    features = struct.pack("<II", compat, incompat)
    return (0x438, b"\x53\xef"), (0x45C, features), (0x478, label)


BOOT = (0x1FE, b"\x55\xaa")


@pytest.mark.parametrize(
    ("parts", "kind", "label"),
    [
        (ext(0x4, 0x2C2, b"root"), "ext4", "root"),
        (ext(0x4, 0x2), "ext3", None),
        (ext(0, 0x2), "ext2", None),
        (ext(0, 0x8, b"log"), "jbd", "log"),
        (((0, b"XFSB"), (0x6C, b"data")), "xfs", "data"),
        (((0x10040, b"_BHRfS_M"), (0x1012B, b"pool")), "btrfs", "pool"),
        (((0xFF6, b"SWAPSPACE2"),), "swap", None),
        (((0xFFF6, b"SWAPSPACE2"),), "swap", None),  # of a kernel with 64 KiB pages
        (((512, b"LABELONE"), (512 + 24, b"LVM2 001")), "LVM2_member", None),
        (((0, b"LUKS\xba\xbe"),), "crypto_LUKS", None),
        ((BOOT, (0x52, b"FAT32   ")), "vfat", None),
        ((BOOT, (3, b"NTFS    ")), "ntfs", None),
        ((BOOT, (0x1C2, b"\xee"), (512, b"EFI PART")), "gpt", None),
        ((BOOT, (0x1C2, b"\x83")), "dos", None),
        ((BOOT, (0x1BE, b"\x12"), (0x1C2, b"\x83")), "unknown", None),
        (((0x700, b"something"),), "unknown", None),
        ((), "zero", None),
    ],
)
def test_each_kind(parts: tuple[tuple[int, bytes], ...], kind: str, label: str | None) -> None:
    assert identify(reader(disk(*parts))) == Content(kind=kind, label=label)


def test_what_was_not_saved_is_not_known() -> None:
    assert identify(reader(disk(*ext(0x4, 0x40)), (0,))) is None
    # Nothing in the first page: it may still be Btrfs, or swap of large pages.
    assert identify(reader(disk(), (0x10000,))) is None
    assert identify(reader(disk(), (0xF000,))) is None
    found = identify(reader(disk(*ext(0x4, 0x40)), (0xF000, 0x10000)))
    assert found == Content(kind="ext4")


@given(st.binary(max_size=SIZE))
def test_any_bytes_are_of_some_kind(data: bytes) -> None:
    assert identify(reader(data.ljust(SIZE, b"\0"))) is not None


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (Content(kind="unknown"), "other data"),  # it was read; "unknown" is what was not
        (Content(kind="zero"), "zero"),
        (Content(kind="xfs", label="lab"), "xfs (lab)"),
        (None, "not saved"),
    ],
)
def test_what_is_of_no_known_kind_is_not_called_unknown(
    content: Content | None, shown: str
) -> None:
    media = SimpleNamespace(content=content, has_disk=True)
    (field,) = media_fields([Field("HOLDS", nothing)], lambda record: media)
    assert field.text(None) == shown
