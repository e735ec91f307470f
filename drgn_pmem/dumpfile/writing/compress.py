# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Compressing a page
------------------

The compressions of kdump-compressed dumps, as makedumpfile uses them: zlib at its fastest level,
LZO1X-1, zstd. Python's zlib releases the interpreter lock; so do calls of the C libraries, the same
that :mod:`drgn_pmem.dumpfile.decompress` uses.
"""

from collections.abc import Callable
import ctypes
import zlib

from drgn_pmem.dumpfile.decompress import _library as library
from drgn_pmem.errors import UsageError

__all__ = ("COMPRESSIONS", "Compress", "compressor")

Compress = Callable[[bytes], bytes]
"""Compresses one page. Not to be called by two threads at a time."""

COMPRESSIONS = ("zlib", "zstd", "lzo", "none")

_LEVEL = 1
"""Of zlib and zstd: what makedumpfile uses."""
_LZO_WORK_MEMORY = 1 << 17
"""``LZO1X_1_MEM_COMPRESS``: 16384 pointers (lzo1x.h)."""
_WINDOW_BITS = 15


def compressor(how: str, page_size: int) -> Compress | None:
    """
    A compressor with buffers of its own, for one thread; None for ``"none"``.

    :param how: One of :data:`COMPRESSIONS`.
    :param page_size: The longest page (bytes).
    :raises UsageError: if the library for it is not installed
    """
    if how == "none":
        return None
    if how == "zlib":
        return _zlib
    found = library(how)
    if found is None:
        raise UsageError(f"no library for {how} is installed; use --compress zlib")
    return _zstd(found, page_size) if how == "zstd" else _lzo(found, page_size)


def _zlib(page: bytes) -> bytes:
    return zlib.compress(page, _LEVEL)


def _zstd(found: ctypes.CDLL, page_size: int) -> Compress:
    found.ZSTD_compressBound.restype = ctypes.c_size_t
    found.ZSTD_compressBound.argtypes = (ctypes.c_size_t,)
    found.ZSTD_createCCtx.restype = ctypes.c_void_p
    found.ZSTD_createCCtx.argtypes = ()
    found.ZSTD_freeCCtx.argtypes = (ctypes.c_void_p,)
    found.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    call = found.ZSTD_compressCCtx
    call.restype = ctypes.c_size_t
    call.argtypes = (
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_int,
    )
    size = found.ZSTD_compressBound(page_size)
    context = _Context(found)
    out = ctypes.create_string_buffer(size)

    def compress(page: bytes) -> bytes:
        length = call(context.address, out, size, page, len(page), _LEVEL)
        if found.ZSTD_isError(length):
            raise MemoryError("zstd cannot compress a page")
        return ctypes.string_at(out, length)

    return compress


class _Context:
    """A ``ZSTD_CCtx``, freed with this object."""

    def __init__(self, found: ctypes.CDLL) -> None:
        self._free = found.ZSTD_freeCCtx
        self.address = found.ZSTD_createCCtx()
        if not self.address:
            raise MemoryError("no memory for zstd")

    def __del__(self) -> None:
        if self.address:
            self._free(self.address)


def _lzo(found: ctypes.CDLL, page_size: int) -> Compress:
    call = found.lzo1x_1_compress
    call.restype = ctypes.c_int
    call.argtypes = (
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_size_t),
        ctypes.c_void_p,
    )
    # What lzo's documentation says a block may grow to.
    size = page_size + page_size // 16 + 64 + 3
    out = ctypes.create_string_buffer(size)
    work = ctypes.create_string_buffer(_LZO_WORK_MEMORY)
    length = ctypes.c_size_t()
    place = ctypes.byref(length)

    def compress(page: bytes) -> bytes:
        if call(page, len(page), out, place, work):
            raise MemoryError("lzo cannot compress a page")
        return ctypes.string_at(out, length.value)

    return compress
