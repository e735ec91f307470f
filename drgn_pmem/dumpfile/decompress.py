# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Decompressing a page of a kdump-compressed dump
-----------------------------------------------

zlib is in Python's library. For lzo, snappy and zstd this calls the C libraries that libkdumpfile
uses: drgn has loaded them into the process already, from its wheel or from the system. Each call
writes into a buffer of one page and no further, whatever the compressed bytes are.
"""

import ctypes
import functools
import re
import zlib

__all__ = ("DecompressError", "decompress")

_LIBRARIES = {"lzo": "lzo2", "snappy": "snappy", "zstd": "zstd"}
_SONAMES = {"lzo": "liblzo2.so.2", "snappy": "libsnappy.so.1", "zstd": "libzstd.so.1"}


class DecompressError(ValueError):
    """Bytes that are not a compressed page, or whose compression cannot be read here."""


def decompress(how: str, data: bytes, size: int) -> bytes:
    """
    Decompress a page.

    :param how: ``"zlib"``, ``"lzo"``, ``"snappy"`` or ``"zstd"``.
    :param size: Page size (bytes); no more is decompressed.
    :raises DecompressError: if *data* is damaged, or there is no library for it
    """
    if how == "zlib":
        try:
            return zlib.decompressobj().decompress(data, size + 1)
        except zlib.error as error:
            raise DecompressError(str(error)) from error
    library = _library(how)
    if library is None:
        raise DecompressError(
            f"compressed with {how}, and {_SONAMES[how]} is not installed; install it"
        )
    out = ctypes.create_string_buffer(size)
    length = ctypes.c_size_t(size)
    if how == "lzo":
        failed = library.lzo1x_decompress_safe(
            data, ctypes.c_size_t(len(data)), out, ctypes.byref(length), None
        )
    elif how == "snappy":
        failed = library.snappy_uncompress(
            data, ctypes.c_size_t(len(data)), out, ctypes.byref(length)
        )
    else:
        library.ZSTD_decompress.restype = ctypes.c_size_t
        library.ZSTD_isError.argtypes = (ctypes.c_size_t,)
        length.value = library.ZSTD_decompress(out, length, data, ctypes.c_size_t(len(data)))
        failed = library.ZSTD_isError(length.value)
    if failed:
        raise DecompressError(f"damaged {how} data")
    return out.raw[: length.value]


@functools.cache
def _library(how: str) -> ctypes.CDLL | None:
    """The library that the process has loaded (drgn's wheel renames it), or the system's."""
    for path in (*_loaded(_LIBRARIES[how]), _SONAMES[how]):
        try:
            return ctypes.CDLL(path)
        except OSError:
            # not a problem: removed since, or not installed: the next one
            continue
    return None


def _loaded(name: str) -> list[str]:
    pattern = re.compile(rf"\s(/\S*/lib{name}(?:-[0-9a-f]+)?\.so[.0-9]*)$", re.MULTILINE)
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        return list(dict.fromkeys(pattern.findall(file.read())))
