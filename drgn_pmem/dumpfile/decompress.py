# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Decompressing a page of a kdump-compressed dump
-----------------------------------------------

zlib is in Python's library. For lzo, snappy and zstd the bindings that ``pip install
drgn-pmem[fast]`` installs are used: lzallright, cramjam, zstandard. Where one of them is not
installed, the C library of that compression is called that libkdumpfile uses: drgn has loaded it
into the process already, from its wheel or from the system. All of them let other threads run
meanwhile, and none writes more than a page, whatever the compressed bytes are.
"""

from collections.abc import Callable
import ctypes
import functools
import re
import threading
from typing import Any
import zlib

__all__ = ("DecompressError", "MissingDecoder", "decompress", "has_decoder")

_LIBRARIES = {"lzo": "lzo2", "snappy": "snappy", "zstd": "zstd"}
_SONAMES = {"lzo": "liblzo2.so.2", "snappy": "libsnappy.so.1", "zstd": "libzstd.so.1"}

Decoder = Callable[[bytes, int], "bytes | bytearray"]
"""Function of the compressed bytes and the size of a page, which decompresses at most one byte more
than that."""


class DecompressError(ValueError):
    """Bytes that are not a compressed page, or whose compression cannot be read here."""


class MissingDecoder(DecompressError):
    """No library for a compression."""


def decompress(how: str, data: bytes, size: int) -> bytes:
    """
    Decompress a page.

    :param how: ``"zlib"``, ``"lzo"``, ``"snappy"`` or ``"zstd"``.
    :param size: Page size (bytes); no more is decompressed.
    :raises DecompressError: if *data* is damaged or is not one page
    :raises MissingDecoder: if there is no library for it
    """
    decoder = _decoder(how)
    if decoder is None:
        raise MissingDecoder(
            f"compressed with {how}, and {_SONAMES[how]} is not installed; install it"
            " (pip install 'drgn-pmem[fast]')"
        )
    page = decoder(data, size)
    if len(page) != size:
        more = "more" if len(page) > size else "less"
        raise DecompressError(f"damaged {how} data: {more} than a page")
    return bytes(page)


def has_decoder(how: str) -> bool:
    """Whether pages of a compression can be decompressed here."""
    return _decoder(how) is not None


@functools.cache
def _decoder(how: str) -> Decoder | None:
    if how == "zlib":
        return _zlib
    return _binding(how) or _c_function(how)


def _zlib(data: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        page = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise DecompressError(f"damaged zlib data: {error}") from error
    if len(page) == size and not stream.eof:
        raise DecompressError("damaged zlib data: no end, and no checksum")
    return page


def _binding(how: str) -> Decoder | None:
    """The Python package for a compression, if it is installed."""
    try:
        return {"lzo": _lzallright, "snappy": _cramjam, "zstd": _zstandard}[how]()
    except ImportError:
        # not a problem: the C library does the same
        return None


def _lzallright() -> Decoder:
    from lzallright import InputNotConsumed, LZOCompressor, LZOError

    decompress = LZOCompressor.decompress

    def decode(data: bytes, size: int) -> bytes:
        # A damaged page may become longer: at most 255 times as long as its bytes are.
        try:
            page: bytes = decompress(data, size)
        except (LZOError, InputNotConsumed) as error:
            raise DecompressError(f"damaged lzo data: {error}") from error
        return page

    return decode


def _cramjam() -> Decoder:
    from cramjam import DecompressionError, snappy

    def decode(data: bytes, size: int) -> bytearray:
        page = bytearray(size)
        try:
            del page[snappy.decompress_raw_into(data, page) :]
        except DecompressionError as error:
            raise DecompressError(f"damaged snappy data: {error}") from error
        return page

    return decode


def _zstandard() -> Decoder:
    from zstandard import ZstdDecompressor, ZstdError, frame_content_size

    kept = threading.local()

    def decode(data: bytes, size: int) -> bytes:
        try:
            if frame_content_size(data) > size:
                raise DecompressError("damaged zstd data: more than a page")
            if not hasattr(kept, "decompressor"):
                kept.decompressor = ZstdDecompressor()
            page: bytes = kept.decompressor.decompress(data, max_output_size=size)
        except ZstdError as error:
            raise DecompressError(f"damaged zstd data: {error}") from error
        return page

    return decode


def _c_function(how: str) -> Decoder | None:
    library = _library(how)
    return None if library is None else functools.partial(_call, how, library)


def _call(how: str, library: Any, data: bytes, size: int) -> bytes:
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
