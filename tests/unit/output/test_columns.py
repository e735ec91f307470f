# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Columns of tables: where a list is broken."""

from drgn_pmem.output.columns import broken


def test_a_word_that_fills_the_line_up_to_its_comma() -> None:
    """The mark after the comma, where a line may be broken, was printed: a NUL."""
    assert broken("a" * 23 + ",bbb", 24) == ["a" * 23 + ",", "bbb"]
