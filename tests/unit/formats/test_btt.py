# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
BTT arenas. ``data/btt-*.json`` is what ``ndctl read-infoblock -j`` (76.1) said of
``data/btt-*.infoblock``.
"""

import contextlib
import dataclasses
import json
from pathlib import Path

from hypothesis import given, settings, strategies as st
import pytest

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.btt import (
    BttArena,
    check_btt,
    decode_map_entry,
    parse_btt,
    walk_btt,
)
from drgn_pmem.partial import Cause, NotSaved
from tests.builders import build_btt

DATA = Path(__file__).parent / "data"
MIB = 1 << 20
SIZE = 64 * MIB


def u(bits):
    return st.integers(0, (1 << bits) - 1)


arenas = st.builds(
    BttArena,
    uuid=st.uuids().map(str),
    parent_uuid=st.uuids().map(str),
    flags=u(32),
    version_major=u(16),
    version_minor=u(16),
    **{
        name: u(32)
        for name in (
            "external_lbasize",
            "external_nlba",
            "internal_lbasize",
            "internal_nlba",
            "nfree",
            "infosize",
        )
    },
    **{name: u(64) for name in ("nextoff", "dataoff", "mapoff", "logoff", "info2off")},
)


def layout(size, version=(1, 1), nextoff=0):
    """
    An arena as ``alloc_arena()`` in drivers/nvdimm/btt.c lays it out: 512-byte sectors, 256 free
    blocks.
    """
    available = size // 4096 * 4096 - 2 * 4096 - 256 * 64
    internal = (available - 4096) // (512 + 4)
    mapsize = -(-(internal - 256) * 4 // 4096) * 4096
    mapoff = 4096 + available - mapsize
    return BttArena(
        uuid="42e1d574-76ac-402c-9132-5436e31528c0",
        parent_uuid="ef83e49c-4c4a-4fae-b908-72e94675b1b7",
        flags=0,
        version_major=version[0],
        version_minor=version[1],
        external_lbasize=512,
        external_nlba=internal - 256,
        internal_lbasize=512,
        internal_nlba=internal,
        nfree=256,
        infosize=4096,
        nextoff=nextoff,
        dataoff=4096,
        mapoff=mapoff,
        logoff=mapoff + mapsize,
        info2off=mapoff + mapsize + 256 * 64,
    )


class Namespace:
    """Bytes of a namespace, sparse."""

    def __init__(self, *places, backup=True):
        self.pages = {}
        for offset, arena in places:
            self.pages[offset] = build_btt(arena)
            if backup:
                self.pages[offset + arena.info2off] = build_btt(arena)
        self.reads = 0

    def read(self, offset, size):
        self.reads += 1
        page = self.pages.get(offset, bytes(4096))
        return page and page[:size]


@pytest.mark.parametrize("name", ["btt-1.1", "btt-2.0"])
def test_an_arena_reads_as_ndctl_reads_it(name):
    (truth,) = json.loads((DATA / f"{name}.json").read_text())
    data = (DATA / f"{name}.infoblock").read_bytes()
    record = parse_btt(data).to_json()
    assert record.pop("checksum_ok")
    assert list(record.items()) == list(truth.items())
    assert build_btt(parse_btt(data)) == data


@given(arenas)
def test_round_trip(arena):
    again = parse_btt(build_btt(arena))
    assert dataclasses.replace(again, checksum=0) == arena
    json.dumps(again.to_json())


@given(arenas, st.integers(0, 4095), st.integers(1, 255))
def test_a_flipped_byte_is_noticed(arena, offset, bits):
    data = bytearray(build_btt(arena))
    data[offset] ^= bits
    words = "not a BTT arena" if offset < 16 else "damaged BTT arena"
    with pytest.raises(FormatError, match=words):
        parse_btt(bytes(data))


def test_a_damaged_arena_is_read_on_request():
    data = bytearray(build_btt(layout(SIZE)))
    data[0x30] = 1
    arena = parse_btt(bytes(data), verify=False)
    assert arena.error
    assert not arena.checksum_ok


@settings(max_examples=200)
@given(st.binary(max_size=64), st.sampled_from([b"", b"BTT_ARENA_INFO\0\0"]))
def test_any_bytes_give_a_record_or_a_format_error(data, prefix):
    for bytes_ in (prefix + data, (prefix + data).ljust(4096, b"\xff")):
        for verify in (True, False):
            with contextlib.suppress(FormatError):
                json.dumps(parse_btt(bytes_, verify=verify).to_json())


@pytest.mark.parametrize(("base", "version"), [(4096, (1, 1)), (0, (2, 0))])
def test_a_namespace_of_one_arena(base, version):
    arena = layout(SIZE - base, version)
    assert arena.info2off + 4096 == SIZE - base
    chain = walk_btt(Namespace((base, arena)).read, SIZE)
    (place,) = chain.arenas
    assert (place.offset, place.backup, place.problems) == (base, "same", ())
    assert chain.external_nlba == arena.external_nlba
    assert chain.problems == ()


def test_a_chain_of_three():
    places = [
        (4096, layout(32 * MIB, nextoff=32 * MIB)),
        (4096 + 32 * MIB, layout(32 * MIB, nextoff=32 * MIB)),
        (4096 + 64 * MIB, layout(16 * MIB)),
    ]
    chain = walk_btt(Namespace(*places).read, 81 * MIB)
    assert [place.offset for place in chain.arenas] == [offset for offset, _ in places]
    assert chain.external_nlba == sum(arena.external_nlba for _, arena in places)
    assert [place.problems for place in chain.arenas] == [(), (), ()]
    assert json.loads(json.dumps(chain.to_json()))["arenas"][2]["offset"] == 4096 + 64 * MIB


def test_a_version_1_arena_at_the_base_is_none():
    with pytest.raises(FormatError, match=r"version 1\.1 does not belong there"):
        walk_btt(Namespace((0, layout(SIZE))).read, SIZE)


def test_no_btt_is_an_error_that_says_where_was_looked():
    with pytest.raises(FormatError, match=r"at 0x1000: .*at 0x0: "):
        walk_btt(Namespace().read, SIZE)


def test_a_btt_that_was_not_saved_is_not_known():
    with pytest.raises(NotSaved, match="not known: at 0x1000: info block not saved"):
        walk_btt(lambda offset, size: None, SIZE)
    first = (4096, layout(32 * MIB, nextoff=32 * MIB))
    namespace = Namespace(first)
    namespace.pages[4096 + 32 * MIB] = None
    chain = walk_btt(namespace.read, SIZE)
    assert len(chain.arenas) == 1
    assert chain.problems[0].cause is Cause.NOT_SAVED


@pytest.mark.parametrize(
    ("page", "state"),
    [
        (None, "unreadable"),
        (bytes(4096), "damaged"),
        (build_btt(dataclasses.replace(layout(SIZE - 4096), flags=1)), "differs"),
    ],
)
def test_the_backup_is_compared(page, state):
    arena = layout(SIZE - 4096)
    namespace = Namespace((4096, arena))
    namespace.pages[4096 + arena.info2off] = page
    assert walk_btt(namespace.read, SIZE).arenas[0].backup == state


@pytest.mark.parametrize(
    ("nextoff", "words"),
    [
        (4096, "less than the smallest arena"),
        (1 << 63, "beyond the namespace's end"),
        (32 * MIB, "not a BTT arena"),
    ],
)
def test_a_broken_chain_keeps_what_was_read(nextoff, words):
    chain = walk_btt(Namespace((4096, layout(32 * MIB, nextoff=nextoff))).read, SIZE)
    assert len(chain.arenas) == 1
    assert words in str(chain.problems[0])
    assert chain.problems[0].cause is Cause.DAMAGED


def test_an_endless_chain_ends():
    page = build_btt(layout(16 * MIB, nextoff=16 * MIB))
    chain = walk_btt(lambda offset, size: page[:size], 1 << 60)
    assert len(chain.arenas) == 4096
    assert "more than 4096 arenas" in str(chain.problems[0])


def test_an_arena_of_another_btt_is_named():
    other = "00000000-0000-0000-0000-000000000001"
    places = [
        (4096, layout(32 * MIB, nextoff=32 * MIB)),
        (4096 + 32 * MIB, dataclasses.replace(layout(16 * MIB), uuid=other)),
    ]
    chain = walk_btt(Namespace(*places).read, 81 * MIB)
    assert "is not the first arena's" in chain.arenas[1].problems[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version_minor": 2}, "version 1.2 is neither"),
        ({"flags": 1}, "read-only"),
        ({"dataoff": 0}, "dataoff 0x0 overlaps"),
        ({"mapoff": 4096}, "mapoff 0x1000 overlaps"),
        ({"logoff": 4096}, "logoff 0x1000 overlaps"),
        ({"info2off": 4096}, "info2off 0x1000 overlaps"),
        ({"info2off": SIZE}, "beyond the namespace's end"),
        ({"nextoff": 16 * MIB}, "points into the arena itself"),
        ({"nfree": 255}, "nfree 255"),
        ({"internal_lbasize": 256}, "below external_lbasize"),
        ({"internal_lbasize": 4096}, "the data needs"),
        ({"external_nlba": 1 << 30, "internal_nlba": (1 << 30) + 256}, "the map needs"),
        ({"nfree": 1 << 20}, "the log needs"),
    ],
)
def test_each_inconsistency_has_its_words(change, words):
    assert check_btt(layout(SIZE - 4096), SIZE - 4096) == []
    problems = check_btt(dataclasses.replace(layout(SIZE - 4096), **change), SIZE - 4096)
    assert any(words in problem for problem in problems), problems


@given(arenas, u(64))
def test_checks_never_fail(arena, available):
    assert all(isinstance(problem, str) for problem in check_btt(arena, available))


@pytest.mark.parametrize(
    ("entry", "state", "lba"),
    [
        (0x00000000, "initial", 0),
        (0x40000007, "error", 7),
        (0x80000007, "trim", 7),
        (0xC0000007, "normal", 7),
        (0xFFFFFFFF, "normal", 0x3FFFFFFF),
    ],
)
def test_map_entries(entry, state, lba):
    assert decode_map_entry(entry).to_json() == {"state": state, "lba": lba}
