# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any bytes give a dump or one of our errors, soon."""

import itertools
import random

from hypothesis import HealthCheck, given, settings, strategies as st
import pytest

from drgn_pmem.dumpfile import State, open_dump
from drgn_pmem.dumpfile.locate import find_vmcoreinfo
from drgn_pmem.dumpfile.program import open_program
from drgn_pmem.errors import DumpFileError
from tests.unit.dumpfile.writers import (
    PAGE,
    VMCOREINFO,
    Elf,
    Kdump,
    Load,
    flatten,
    note,
    page_bytes,
)

INFO = note(b"VMCOREINFO", 0, VMCOREINFO)
SEEDS = {
    "elf64": Elf([Load(0x1000, 2 * PAGE, page_bytes(1)), Load(0x1800, PAGE, page_bytes(2))], INFO),
    "elf32be": Elf([Load(0x1000, PAGE, page_bytes(1))], b"", 32, ">", "s390"),
    "xnum": Elf([Load(n << 12, PAGE, b"") for n in range(0xFFFF)], INFO),
    "kdump": Kdump({1, 2, 3, 9}, {1, 3}, 100),
    "kdump32": Kdump({1, 2, 3, 9}, {1, 3}, 100, bits=32, packed=True, version=4),
}
FILES = {name: seed.bytes() for name, seed in SEEDS.items()}
FILES["flat"] = flatten(FILES["kdump"])
FILES["flatelf"] = flatten(FILES["elf64"], record=500)


def refused(call, *args) -> str:
    """What our own error says; empty if there was none. Any other error goes through."""
    try:
        call(*args)
    except DumpFileError as error:
        return str(error)
    return ""


def use(path) -> None:
    """Open and ask everything; only our own error may come out, in one line."""
    assert "\n" not in refused(ask, path)


def ask(path) -> None:
    dump = open_dump(path)
    for segment in itertools.islice(dump.segments, 100):
        segment.to_json()
    for item in dump.notes[:100]:
        item.to_json()
        dump.note_data(item)
    coverage = dump.coverage
    assert sum(coverage.count().values()) == 1 << 64
    assert dump.to_json()["truncated"] == dump.truncated
    for item in coverage.extent()[:50]:
        if item.state is State.SAVED:
            said = refused(dump.memory.read, item.start, 1)
            assert said == "" or "damaged page" in said or "compressed with" in said
    find_vmcoreinfo(dump)


fuzz = settings(
    max_examples=150,
    deadline=10_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@fuzz
@given(
    st.sampled_from([b"", b"\x7fELF", b"KDUMP   ", b"makedumpfile\0\0\0\0"]),
    st.binary(max_size=9000),
)
def test_any_bytes(tmp_path, magic, data):
    path = tmp_path / "dump"
    path.write_bytes(magic + data)
    use(path)


@fuzz
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(
        st.tuples(
            st.floats(0, 1),
            st.sampled_from([1, 2, 4, 8]),
            st.sampled_from([0, 1, -1, 1 << 31, 1 << 62, 0xFFFF, 0x7FFFFFFFFFFFFFFF])
            | st.integers(0, 1 << 64),
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 7000) | st.none(),
)
def test_damaged_dumps(tmp_path, name, changes, cut):
    data = bytearray(FILES[name])
    for where, size, value in changes:
        # Headers are worth more than pages: most changes go to the first two blocks.
        at = int(where * where * (min(len(data), 12_000) - 8))
        data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    path = tmp_path / "dump"
    path.write_bytes(bytes(data[:cut]))
    use(path)


@pytest.mark.parametrize("name", ["elf64", "elf32be", "kdump", "kdump32"])
def test_every_field_of_the_headers_at_its_extremes(tmp_path, name):
    whole = FILES[name]
    generator = random.Random(name)
    path = tmp_path / "dump"
    header = {"elf64": 64 + 3 * 56, "elf32be": 52 + 32, "kdump": 464, "kdump32": 452}[name]
    places = [*range(0, header, 4), *(range(PAGE, PAGE + 104, 4) if "kdump" in name else ())]
    for at in places:
        for value in (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x01\0\0\x80", generator.randbytes(4)):
            path.write_bytes(whole[:at] + value + whole[at + 4 :])
            use(path)


EXTREMES = (0, 1, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)
HEADERS = {
    "elf64": (range(0, 64 + 3 * 56, 4), "little"),
    "kdump": ((*range(0, 464, 4), *range(PAGE, PAGE + 104, 4)), "little"),
    "flat": ((*range(0, 40, 8), *range(PAGE, PAGE + 16 + 464, 8)), "big"),
    "flatelf": ((*range(0, 40, 8), *range(PAGE, PAGE + 16 + 64 + 3 * 56, 8)), "big"),
}
"""Places of fields, and the byte order of the values tried there (of flattened dumps' own)."""


@pytest.mark.parametrize("name", HEADERS)
def test_a_field_of_any_value_is_an_answer_or_one_line(tmp_path, capfd, name):
    """make fuzz tries all; here some, and drgn opens the file as well."""
    whole = FILES[name]
    places, order = HEADERS[name]
    path = tmp_path / "dump"
    every = [
        (at, value.to_bytes(width, order))
        for at in places
        for width in (4, 8)
        for value in EXTREMES
        if not value >> 8 * width
    ]
    for at, value in every[:: 1 if settings.default.max_examples > 1000 else 24]:
        path.write_bytes(whole[:at] + value + whole[at + len(value) :])
        use(path)
        assert "\n" not in refused(open_program, path)
