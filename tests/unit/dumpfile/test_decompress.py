# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pages of each compression that makedumpfile writes."""

import random

import pytest

from drgn_pmem.dumpfile import decompress as module
from drgn_pmem.dumpfile.decompress import DecompressError, MissingDecoder, decompress
from tests.unit.dumpfile.writers import compress

PAGE = 4096
PAGES = [bytes(PAGE), bytes(range(256)) * 16, random.Random(1).randbytes(100) * 41]


HOW = ["zlib", "lzo", "snappy", "zstd"]
WAYS = [("zlib", "zlib"), *((how, way) for how in HOW[1:] for way in ("package", "C library"))]


@pytest.fixture(params=WAYS, ids="-".join)
def how(request, monkeypatch):
    """A compression, by each way to decompress it."""
    name, way = request.param
    module._decoder.cache_clear()
    if way == "package":
        pytest.importorskip({"lzo": "lzallright", "snappy": "cramjam", "zstd": "zstandard"}[name])
        monkeypatch.setattr(module, "_c_function", lambda how: None)
    else:
        monkeypatch.setattr(module, "_binding", lambda how: None)
    yield name
    module._decoder.cache_clear()


@pytest.mark.parametrize("page", [page[:PAGE] for page in PAGES], ids=range(len(PAGES)))
def test_a_page_comes_back(how, page):
    assert decompress(how, compress(how, page), PAGE) == page


def test_damaged_data_is_refused_and_never_written_past_a_page(how):
    for size in (PAGE - 1, PAGE + 1, 2 * PAGE, 1 << 20):
        with pytest.raises(DecompressError, match="damaged"):
            decompress(how, compress(how, bytes(size)), PAGE)
    good = compress(how, PAGES[1])
    for size in range(len(good)):
        with pytest.raises(DecompressError, match="damaged"):
            decompress(how, good[:size], PAGE)
    rng = random.Random(2)
    for _ in range(300):
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        try:
            assert len(decompress(how, bytes(bad), PAGE)) == PAGE
        except DecompressError:
            continue


def test_a_size_that_the_data_claims_costs_no_memory():
    for how, data in (
        ("snappy", b"\xff\xff\xff\xff\x0f" + bytes(20)),
        ("zstd", bytes.fromhex("28b52ffd e0 0000000000010000") + bytes(20)),
    ):
        with pytest.raises(DecompressError, match=f"damaged {how}"):
            decompress(how, data, PAGE)


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(module, "_library", lambda how: None)
    monkeypatch.setattr(module, "_binding", lambda how: None)
    module._decoder.cache_clear()
    assert not module.has_decoder("zstd")
    with pytest.raises(MissingDecoder, match=r"libzstd\.so\.1 is not installed.*drgn-pmem\[fast\]"):
        decompress("zstd", b"", PAGE)
    module._decoder.cache_clear()
