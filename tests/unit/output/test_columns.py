# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Columns of tables: where a list is broken."""

from drgn_pmem.commands import load_command
from drgn_pmem.output.columns import broken, fitted


def test_a_word_that_fills_the_line_up_to_its_comma() -> None:
    """The mark after the comma, where a line may be broken, was printed: a NUL."""
    assert broken("a" * 23 + ",bbb", 24) == ["a" * 23 + ",", "bbb"]


def test_on_80_columns_pmem_poison_keeps_whom_it_hits() -> None:
    """The namespace was kept, and who maps the page left out."""
    known = {
        "PFN": "0x129c01", "PHYSICAL": "0x129c01000", "NAMESPACE": "namespace2.0",
        "SOURCES": "ndbus0 badrange,region2 badblocks,pmem2 badblocks,HWPoison,kernel log",
        "HITS": "/mnt/ext4/machine-check", "FILE_OFFSET": "0x1000",
        "PROCESSES": "399/lab-victim,417/lab-poison2",
    }  # fmt: skip
    fields = [field for field in load_command("pmem-poison").fields if field.shown]
    row = [known.get(field.name, "data") for field in fields]
    left_out = {width: fitted([row, row], fields, width)[1] for width in (80, 100, 120)}
    assert not {"HITS", "FILE_OFFSET", "PROCESSES"} & set(left_out[80])
    assert "SOURCES" not in left_out[100]
    assert "NAMESPACE" in left_out[100]
    assert "NAMESPACE" not in left_out[120]
