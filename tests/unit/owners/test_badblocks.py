# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""struct badblocks is decoded as include/linux/badblocks.h packs it."""

import struct

from drgn import FaultError, Object
from hypothesis import given, settings, strategies as st
import pytest

from drgn_pmem.errors import PmemError
from drgn_pmem.kernel.badblocks import BadList, BadRange, read_badblocks

from .fake import Fake

LIST = 0xFFFF_8880_0000_0000
PAGE = 0xFFFF_8880_0000_1000


def badblocks(fake: Fake, **members: int) -> Object:
    fake.fill("badblocks", LIST, **members)
    return Object(fake.prog, "struct badblocks", address=LIST)


def pack(start: int, length: int, acknowledged: bool) -> int:
    """BB_MAKE()"""
    return start << 9 | (length - 1) | acknowledged << 63


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, (1 << 54) - 1), st.integers(1, 512), st.booleans()), max_size=512
    ),
    st.integers(0, 3),
)
def test_every_range_comes_back(ranges: list[tuple[int, int, bool]], shift: int) -> None:
    fake = Fake()
    fake.write(PAGE, b"".join(struct.pack("<Q", pack(*r)) for r in ranges) or b"\0")
    found = read_badblocks(badblocks(fake, count=len(ranges), shift=shift, page=PAGE))
    assert found == [(start << shift, length << shift, ack) for start, length, ack in ranges]


def test_a_switched_off_list_has_nothing() -> None:
    fake = Fake()
    assert read_badblocks(badblocks(fake, count=3, shift=-1, page=PAGE)) == []


@pytest.mark.parametrize("count", [513, 1 << 20, -1])
def test_an_absurd_count_is_refused(count: int) -> None:
    fake = Fake()
    with pytest.raises(PmemError, match="implausible count"):
        read_badblocks(badblocks(fake, count=count, shift=0, page=PAGE))


def test_a_list_that_is_not_in_the_dump_faults() -> None:
    fake = Fake()
    with pytest.raises(FaultError):
        read_badblocks(badblocks(fake, count=3, shift=0, page=PAGE))


def test_the_arithmetic_is_shown() -> None:
    bad = BadRange(
        kind=BadList.DISK,
        source="pmem0 badblocks",
        start=0x1_0020_0000 + 16280 * 512,
        length=4096,
        base=0x1_0020_0000,
        sector=16280,
    )
    assert bad.arithmetic == (
        "pmem0 badblocks: sector 16280 (8 of 512 bytes);"
        " 0x100200000 + 16280 * 512 = physical 0x1009f3000"
    )
