# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Superblocks of libnvdimm
------------------------

What ``struct nd_pfn_sb`` (:linux:`drivers/nvdimm/pfn.h`) and ``struct btt_sb``
(:linux:`drivers/nvdimm/btt.h`) have in common: 4096 bytes, little-endian, with a signature and two
UUIDs in front, padding and a checksum (``nd_sb_checksum()``) at the end.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.checksum import nd_sb_checksum
from drgn_pmem.formats.clayout import CLayout, uuid_text

__all__ = ("SB_SIZE", "unpack_sb")

SB_SIZE = 0x1000

_UUIDS = ("uuid", "parent_uuid")


def unpack_sb(
    layout: CLayout, struct: str, data: bytes, signatures: Collection[bytes], wrong: str
) -> tuple[dict[str, Any], int]:
    """
    Members of a superblock, signature and UUIDs as text, without the padding; and the checksum that
    its bytes give.

    :param struct: Which C structure of the layout.
    :param data: 4096 bytes or more.
    :param signatures: Those that may be there, 16 bytes each.
    :param wrong: Message for any other signature: a format string with ``{}`` for it.
    :raises FormatError: if the signature is wrong or there are too few bytes
    """
    members = layout.unpack(struct, data)
    if members["signature"] not in signatures:
        raise FormatError(wrong.format(repr(members["signature"])))
    del members["padding"]
    for name in _UUIDS:
        members[name] = uuid_text(members[name])
    members["signature"] = members["signature"].rstrip(b"\0").decode("ascii")
    return members, nd_sb_checksum(data[:SB_SIZE])
