# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Fletcher-64
-----------

The checksum of every structure that libnvdimm writes to media: info blocks, BTT arenas, label
indexes and labels. The kernel's is ``nd_fletcher64()`` in :linux:`drivers/nvdimm/core.c`.
"""

from __future__ import annotations

from itertools import accumulate
import struct

from drgn_pmem.errors import FormatError

__all__ = ("nd_fletcher64", "nd_sb_checksum")


def nd_fletcher64(data: bytes) -> int:
    """
    Fletcher-64 over *data* as little-endian 32-bit words.

    The low half is the sum of the words modulo 2^32, the high half the sum of all those sums.

    :param data: A multiple of 4 bytes.
    :raises FormatError: if it is not.
    """
    count, rest = divmod(len(data), 4)
    if rest:
        raise FormatError(f"Fletcher-64 is over 32-bit words, {len(data)} bytes are not a multiple")
    low = [total & 0xFFFFFFFF for total in accumulate(struct.unpack(f"<{count}I", data))]
    if not low:
        return 0
    return (sum(low) & 0xFFFFFFFF) << 32 | low[-1]


def nd_sb_checksum(block: bytes) -> int:
    """
    Checksum of an info block: over all its bytes, with the checksum (the last 8 bytes) taken as
    zero.

    :param block: ``struct nd_gen_sb``, 4096 bytes.
    """
    return nd_fletcher64(block[:-8] + bytes(8))
