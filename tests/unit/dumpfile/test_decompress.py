# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pages of each compression that makedumpfile writes."""

import ctypes
import random
import zlib

import drgn  # noqa: F401  loads the libraries
import pytest

from drgn_pmem.dumpfile import decompress as module
from drgn_pmem.dumpfile.decompress import DecompressError, decompress

PAGE = 4096
PAGES = [bytes(PAGE), bytes(range(256)) * 16, random.Random(1).randbytes(100) * 41]


def compress(how: str, data: bytes) -> bytes:
    if how == "zlib":
        return zlib.compress(data)
    library = module._library(how)
    assert library is not None
    out, length = ctypes.create_string_buffer(4 * PAGE), ctypes.c_size_t(4 * PAGE)
    size = ctypes.c_size_t(len(data))
    if how == "lzo":
        work = ctypes.create_string_buffer(1 << 20)
        assert library.lzo1x_1_compress(data, size, out, ctypes.byref(length), work) == 0
    elif how == "snappy":
        assert library.snappy_compress(data, size, out, ctypes.byref(length)) == 0
    else:
        library.ZSTD_compress.restype = ctypes.c_size_t
        length.value = library.ZSTD_compress(out, length, data, size, 1)
    return out.raw[: length.value]


@pytest.mark.parametrize("how", ["zlib", "lzo", "snappy", "zstd"])
@pytest.mark.parametrize("page", [page[:PAGE] for page in PAGES], ids=len)
def test_a_page_comes_back(how, page):
    assert decompress(how, compress(how, page), PAGE) == page


@pytest.mark.parametrize("how", ["zlib", "lzo", "snappy", "zstd"])
def test_damaged_data_is_refused_and_never_written_past_a_page(how):
    packed = compress(how, bytes(PAGE) * 2)
    if how == "zlib":
        assert len(decompress(how, packed, PAGE)) == PAGE + 1  # the caller wants PAGE
    else:
        with pytest.raises(DecompressError, match="damaged"):
            decompress(how, packed, PAGE)
    rng = random.Random(2)
    good = compress(how, PAGES[1])
    for _ in range(300):
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        try:
            assert (
                len(decompress(how, bytes(bad[: rng.randrange(1, len(bad) + 1)]), PAGE)) <= PAGE + 1
            )
        except DecompressError:
            continue


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(module, "_library", lambda how: None)
    with pytest.raises(DecompressError, match=r"libzstd\.so\.1 is not installed"):
        decompress("zstd", b"", PAGE)
