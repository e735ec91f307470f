# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compressed pages in bulk, against the pages that were written and against libkdumpfile."""

from collections.abc import Iterator
import random
import struct

import drgn
from hypothesis import HealthCheck, given, settings, strategies as st
import numpy as np
import pytest

from drgn_pmem.dumpfile import State, compressed, open_dump
from drgn_pmem.dumpfile.program import open_program
from drgn_pmem.errors import DumpFileError
from tests.unit.dumpfile.test_kdump import LAYOUTS, program, read
from tests.unit.dumpfile.writers import PAGE, Kdump, page_bytes

HOW = ["zlib", "lzo", "snappy", "zstd", "mixed", "stored"]
PFNS = set(range(3, 40)) | set(range(100, 130)) | {200}
EQUAL = {pfn: page_bytes(pfn if pfn % 11 == 0 else 5) for pfn in PFNS}
"""Long rows of equal pages, others between."""
TABLE = 4 * PAGE
"""Where the descriptors of these dumps are."""


def dump_of_pages(how: str = "zlib", **values: object) -> Kdump:
    values.setdefault("contents", EQUAL)
    return Kdump(PFNS, PFNS, 300, how=how, stored=how == "stored", **values)  # type: ignore[arg-type]


def pages_of(dump) -> Iterator[tuple[int, bytes | None]]:
    """PFN and contents of every page, read in bulk."""
    pages = dump.memory.pages
    for item in dump.coverage.extent():
        if item.state is not State.SAVED:
            continue
        pfn = item.start // PAGE
        for stretch in pages.stretches(pages.numbers(item.start, item.size)):
            assert stretch.count > 0
            assert (stretch.data is None) == bool(stretch.why)
            for _ in range(stretch.count):
                yield pfn, stretch.data
                pfn += 1
        assert pfn == item.end // PAGE


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("how", HOW)
def test_pages_are_what_was_written_and_what_drgn_reads(tmp_path, how, shared):
    path = dump_of_pages(how, shared=shared).write(tmp_path / "vmcore")
    dump, prog = open_dump(path), program(path)
    assert dict(pages_of(dump)) == EQUAL
    for pfn in PFNS:
        assert read(prog, pfn * PAGE) == EQUAL[pfn] == dump.memory.read(pfn * PAGE, PAGE)
    size = 37 * PAGE
    assert dump.memory.read(3 * PAGE, size) == prog.read(3 * PAGE, size, physical=True)


@pytest.mark.parametrize(("bits", "order", "packed", "machine"), LAYOUTS)
@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_every_version_and_machine(tmp_path, version, bits, order, packed, machine):
    kdump = dump_of_pages(
        "mixed", version=version, bits=bits, order=order, packed=packed, machine=machine
    )
    dump = open_dump(kdump.write(tmp_path / "vmcore"))
    assert dict(pages_of(dump)) == EQUAL
    assert (
        dump.memory.read(3 * PAGE + 9, 3 * PAGE)
        == b"".join(EQUAL[pfn] for pfn in (3, 4, 5, 6))[9 : 9 + 3 * PAGE]
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.integers(0, 250), st.integers(0, 5), min_size=1, max_size=200),
    st.booleans(),
    st.sampled_from(HOW),
)
def test_any_pages_in_any_order(tmp_path_factory, numbers, shared, how):
    contents = {pfn: page_bytes(number) for pfn, number in numbers.items()}
    kdump = Kdump(
        set(contents), set(contents), 300, how=how, stored=how == "stored", contents=contents,
        shared=shared,
    )  # fmt: skip
    dump = open_dump(kdump.write(tmp_path_factory.mktemp("k") / "vmcore"))
    assert dict(pages_of(dump)) == contents
    pages = dump.memory.pages
    mixed = sorted(contents) + sorted(contents)[::-1]
    rows = pages.stretches(np.array([pages.number(pfn * PAGE) for pfn in mixed]))
    assert [row.data for row in rows for _ in range(row.count)] == [contents[p] for p in mixed]


def test_each_distinct_page_is_decompressed_once(tmp_path, monkeypatch):
    decompressed = []
    whole = compressed.decompress
    monkeypatch.setattr(
        compressed,
        "decompress",
        lambda how, data, size: decompressed.append(data) or whole(how, data, size),
    )
    dump = open_dump(dump_of_pages().write(tmp_path / "vmcore"))
    assert dict(pages_of(dump)) == EQUAL
    assert dict(pages_of(dump)) == EQUAL
    assert len(decompressed) == len(set(decompressed)) == len(set(EQUAL.values()))


def test_few_pages_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "_KEPT", 16 * PAGE)
    dump = open_dump(Kdump(PFNS, PFNS, 300).write(tmp_path / "vmcore"))
    assert dict(pages_of(dump)) == {pfn: page_bytes(pfn) for pfn in PFNS}
    assert len(dump.memory.pages._kept) == 16


@pytest.mark.parametrize("batch", [1, 7])
def test_batches_do_not_matter(tmp_path, batch, monkeypatch):
    monkeypatch.setattr(compressed, "_BATCH", batch)
    monkeypatch.setattr(compressed, "_READ", 100)
    dump = open_dump(dump_of_pages("mixed").write(tmp_path / "vmcore"))
    assert dict(pages_of(dump)) == EQUAL


HOSTILE = [
    ("size of zero", 8, "<I", 0, State.DAMAGED),
    ("size of 4 GiB", 8, "<I", 0xFFFFFFFF, State.DAMAGED),
    ("size of three pages", 8, "<I", 3 * PAGE, State.DAMAGED),
    ("offset after the end", 0, "<Q", 1 << 40, State.DAMAGED),
    ("offset of 2^63", 0, "<Q", 1 << 63, State.DAMAGED),
    ("offset of 2^64 - 1", 0, "<Q", (1 << 64) - 1, State.DAMAGED),
    ("not compressed", 12, "<I", 0, State.DAMAGED),
    # These name bytes of the file; only reading them shows that they are none of a page.
    ("offset of the header", 0, "<Q", 0, State.SAVED),
    ("lzo", 12, "<I", 2, State.SAVED),
]


@pytest.mark.parametrize(
    ("at", "form", "value", "state"), [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE]
)
def test_a_damaged_descriptor_is_named_and_the_rest_stands(tmp_path, at, form, value, state):
    data = bytearray(dump_of_pages().bytes())
    struct.pack_into(form, data, TABLE + 24 * 10 + at, value)
    (tmp_path / "vmcore").write_bytes(data)
    dump = open_dump(tmp_path / "vmcore")
    found = dict(pages_of(dump))
    bad = 3 + 10
    assert dump.coverage.count(bad * PAGE, (bad + 1) * PAGE) == {state: PAGE}
    assert dump.coverage.count()[State.SAVED] == (len(PFNS) - (state is State.DAMAGED)) * PAGE
    assert not dump.truncated
    words = f"the page at {bad * PAGE:#x} is damaged"
    if state is State.SAVED:
        assert found.pop(bad) is None
        words = "damaged page at offset"
    assert bad not in found
    for address, size in ((bad * PAGE, 8), ((bad - 1) * PAGE, 3 * PAGE)):
        with pytest.raises(DumpFileError, match=words):
            dump.memory.read(address, size)
    # drgn's own reader would end the process where a descriptor leads beyond the end of the file.
    if state is State.DAMAGED:
        prog, notes = open_program(tmp_path / "vmcore")
        assert any(f"entries for {PAGE} bytes of memory cannot be right" in n for n in notes)
        with pytest.raises(drgn.FaultError, match="damaged"):
            prog.read(bad * PAGE, 8, True)
        assert prog.read((bad + 1) * PAGE, PAGE, True) == EQUAL[bad + 1]
    assert {p: d for p, d in found.items() if p != bad} == {
        p: d for p, d in EQUAL.items() if p != bad
    }
    held = b"".join(data for _, data in dump.memory.chunks())
    assert len(held) == (len(PFNS) - 1) * PAGE


def test_a_damaged_descriptor_of_a_dump_that_is_cut_short_is_not_truncated(tmp_path):
    data = bytearray(dump_of_pages().bytes())
    struct.pack_into("<Q", data, TABLE + 24 * 10, 1 << 40)
    (tmp_path / "vmcore").write_bytes(data[:-100])
    dump = open_dump(tmp_path / "vmcore")
    assert dump.truncated
    assert dump.coverage.state(13 * PAGE) is State.DAMAGED
    assert dump.coverage.state(200 * PAGE) is State.TRUNCATED  # the last one
    assert dump.memory.read(14 * PAGE, PAGE) == EQUAL[14]


def test_a_damaged_page_is_no_other_page(tmp_path):
    """One bit of the data of each page in turn: its checksum says so."""
    whole = dump_of_pages().bytes()
    start = TABLE + 24 * len(PFNS)
    lost = 0
    for at in random.Random(3).sample(range(start, len(whole)), 60):
        data = bytearray(whole)
        data[at] ^= 0x10
        (tmp_path / "vmcore").write_bytes(data)
        found = dict(pages_of(open_dump(tmp_path / "vmcore")))
        damaged = sum(data is None for data in found.values())
        assert damaged <= 1  # a bit of zlib's header may change nothing
        lost += damaged
        assert all(data in (None, EQUAL[pfn]) for pfn, data in found.items())
    assert lost > 50


@pytest.mark.parametrize("how", ["zlib", "stored"])
def test_a_file_that_is_cut_short_while_it_is_read_gives_no_zeroes(tmp_path, how):
    path = dump_of_pages(how).write(tmp_path / "vmcore")
    dump = open_dump(path)
    assert dump.coverage.count()[State.SAVED] == len(PFNS) * PAGE
    assert dump.memory is not None
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)
    found = dict(pages_of(dump))
    assert found[200] is None
    assert all(data in (None, EQUAL[pfn]) for pfn, data in found.items())
    assert found[3] == EQUAL[3]


def test_memory_that_was_not_dumped_has_no_number(tmp_path):
    pages = open_dump(dump_of_pages().write(tmp_path / "vmcore")).memory.pages
    for address in (0, 2 * PAGE, 40 * PAGE, 201 * PAGE, 1 << 50):
        with pytest.raises(DumpFileError, match="is not in it"):
            pages.number(address)
    with pytest.raises(DumpFileError, match=r"not in it|not all"):
        pages.numbers(39 * PAGE, 62 * PAGE)
