# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Comparing memory in place
-------------------------

Bytes of numpy arrays compared by the C library, without a copy and without an array of answers.
"""

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ("equal_at", "repeats", "repeats_at")

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memcmp.restype = ctypes.c_int


def repeats(data: "NDArray[np.uint8]", period: int) -> bool:
    """
    Whether bytes are a row of equal items.

    :param data: One-dimensional, contiguous.
    :param period: Size of an item (bytes).
    """
    return repeats_at(data.ctypes.data, period, len(data))


def repeats_at(address: int, period: int, size: int) -> bool:
    """
    As :func:`repeats`, of *size* bytes at an address of this process; the caller keeps the array
    that they are in.
    """
    return size <= period or _memcmp(address, address + period, size - period) == 0


def equal_at(address: int, other: int, size: int) -> bool:
    """Whether *size* bytes at two addresses of this process are equal; the caller keeps the arrays
    that they are in."""
    return bool(_memcmp(address, other, size) == 0)
