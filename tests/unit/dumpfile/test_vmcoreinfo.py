# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""VMCOREINFO lines, those of a hostile dump among them."""

from hypothesis import given, strategies as st

from drgn_pmem.dumpfile import Vmcoreinfo
from drgn_pmem.dumpfile.vmcoreinfo import MAX_LINES

TEXT = (
    b"OSRELEASE=6.1.0-44-amd64\nBUILD-ID=dead\nPAGESIZE=4096\nSYMBOL(_stext)=ffffffff81000000\n"
    b"OFFSET(page.flags)=0\nSIZE(page)=64\nLENGTH(zone.free_area)=11\nNUMBER(phys_base)=-27262976\n"
    b"NUMBER(kimage_voffset)=0xffff7fffc0000000\nKERNELOFFSET=3ce00000\nCRASHTIME=1795215129\n"
    b"NUMBER(sme_mask)=0\n"
)


def test_lines_of_each_kind():
    info = Vmcoreinfo.parse(TEXT)
    assert info.osrelease == "6.1.0-44-amd64"
    assert info.build_id == "dead"
    assert info.page_size == 4096
    assert info.crash_time == 1795215129
    assert info.kernel_offset == 0x3CE00000
    assert info.symbols == {"_stext": 0xFFFFFFFF81000000}
    assert info.offsets == {"page.flags": 0}
    assert info.sizes == {"page": 64}
    assert info.lengths == {"zone.free_area": 11}
    assert info.numbers == {
        "phys_base": -27262976,
        "kimage_voffset": 0xFFFF7FFFC0000000,
        "sme_mask": 0,
    }


def test_what_is_missing_is_none():
    info = Vmcoreinfo.parse(b"")
    assert (info.osrelease, info.build_id, info.page_size, info.crash_time) == (None,) * 4
    assert info.kernel_offset is None


def test_symbols_to_json_are_hexadecimal():
    assert Vmcoreinfo.parse(TEXT).to_json()["symbols"] == {"_stext": "0xffffffff81000000"}


def test_the_last_of_two_lines_counts_and_text_ends_at_the_first_nul():
    info = Vmcoreinfo.parse(b"PAGESIZE=4096\nPAGESIZE=65536\n\0PAGESIZE=1\n")
    assert info.page_size == 65536


def test_lines_that_are_none_are_left_out():
    info = Vmcoreinfo.parse(
        b"\n=\nno equals sign\n=value\nSYMBOL(x)=zz\nSIZE(y)=0x10\nSIZE(z)=1_000\nSIZE()=7\n"
        b"NUMBER(big)=" + b"9" * 5000 + b"\nOFFSET(a=3\nSIZE(q)\n"
    )
    assert info.symbols == info.numbers == info.offsets == {}
    assert info.sizes == {"": 7}


def test_terminal_escapes_stay_escaped():
    info = Vmcoreinfo.parse(b"OSRELEASE=\x1b]0;owned\x07\x9b31m\xff\nSYMBOL(\x1b[2J)=1\n")
    assert info.osrelease == "\\x1b]0;owned\\x07\\x9b31m\\xff"
    assert info.symbols == {"\\x1b[2J": 1}


def test_the_number_of_lines_is_bounded():
    info = Vmcoreinfo.parse(b"".join(b"K%d=1\n" % n for n in range(MAX_LINES + 1000)))
    assert len(info.values) == MAX_LINES


@given(st.binary(max_size=400))
def test_any_bytes_parse_to_printable_text(data):
    info = Vmcoreinfo.parse(data)
    for table in (info.values, info.symbols, info.offsets, info.sizes, info.numbers):
        for key, value in table.items():
            assert key.isascii()
            assert key.isprintable() or key == ""
            assert isinstance(value, int) or (value.isascii() and (value + "x").isprintable())
