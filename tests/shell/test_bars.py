# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""One-line maps: nothing is hidden, nothing looks better than it is."""

import io
import sys

from hypothesis import given, settings, strategies as st
import pytest

from drgn_pmem.dumpfile.coverage import State
from drgn_pmem.output.bars import (
    DATA,
    FREE,
    INFOBLOCK,
    MEMMAP,
    METADATA,
    Part,
    bar,
    legend,
    legend_of,
    namespace_bar,
    use_ascii,
)
from drgn_pmem.ranges import Range

PARTS = st.lists(
    st.builds(
        Part,
        kind=st.sampled_from((INFOBLOCK, MEMMAP, METADATA, DATA, FREE)),
        size=st.integers(0, 1 << 50),
        state=st.sampled_from(State),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(PARTS, st.integers(0, 120), st.booleans())
def test_a_bar_is_as_wide_as_asked(parts: list[Part], width: int, ascii: bool) -> None:
    text = bar(parts, width, ascii)
    empty = width < 3 or not any(part.size for part in parts)
    assert len(text) == (0 if empty else width)
    assert not ascii or text.isascii()


@settings(deadline=None)
@given(PARTS, st.integers(70, 120))
def test_every_kind_can_be_seen(parts: list[Part], width: int) -> None:
    text = bar(parts, width)
    if any(part.size and part.kind == FREE for part in parts):
        assert "─" in text
    shown = {
        INFOBLOCK: "●◐○×¤¿¡",
        MEMMAP: "◆◈◇×¤¿¡",
        METADATA: "■▣□×¤¿¡",
        DATA: "█▒░×¤¿¡",
    }
    for kind, symbols in shown.items():
        if any(part.size and part.kind == kind for part in parts):
            assert set(symbols) & set(text)


@settings(deadline=None)
@given(PARTS, st.integers(3, 40))
def test_nothing_lost_is_drawn_as_saved(parts: list[Part], width: int) -> None:
    """A kind of which nothing is saved has no saved cell."""
    text = bar(parts, width)
    for kind, saved in (
        (INFOBLOCK, "●"),
        (MEMMAP, "◆"),
        (METADATA, "■"),
        (DATA, "█"),
    ):
        if not any(p.kind == kind and p.size and p.state is State.SAVED for p in parts):
            assert saved not in text


def test_a_namespace_whose_struct_pages_alone_were_saved() -> None:
    parts = [
        Part(INFOBLOCK, 8 << 10, State.SAVED),
        Part(MEMMAP, 16 << 20, State.SAVED),
        Part(DATA, 1 << 30, State.ABSENT),
    ]
    assert bar(parts, 24) == "[●◆" + "░" * 20 + "]"
    assert bar(parts, 24, ascii=True) == "[IM" + "." * 20 + "]"


def test_shares_follow_sizes() -> None:
    parts = [Part(DATA, 3, State.SAVED), Part(FREE, 1)]
    assert bar(parts, 18) == "[" + "█" * 12 + "─" * 4 + "]"


def test_a_cell_shows_the_worst_of_what_it_covers() -> None:
    saved, lost = Part(DATA, 999, State.SAVED), Part(DATA, 1, State.TRUNCATED)
    text = bar([saved, lost, saved], 12)
    assert text.count("×") in (1, 2)
    assert text.strip("[]█") in ("×", "××")


@pytest.mark.parametrize("ascii", [False, True])
def test_the_legend_explains_every_character_of_a_bar(ascii: bool) -> None:
    kinds = (INFOBLOCK, MEMMAP, METADATA, DATA)
    parts = [Part(kind, 1, state) for kind in kinds for state in State] + [Part(FREE, 1)]
    # Each alone: no cell hides another.
    used = {character for part in parts for character in bar([part], 3, ascii)[1:-1]}
    text = legend(ascii)
    assert used <= set(text)
    assert text.isascii() == ascii
    assert len(used) == 17


def test_a_memmap_is_drawn_only_where_there_is_one_and_the_legend_has_what_is_drawn() -> None:
    saved = State.SAVED
    parts = [("metadata", 1, saved), ("info block", 1, saved), ("metadata", 1, saved)]
    parts.append(("data", 1, State.ABSENT))
    assert namespace_bar(parts, 6, memmap=True) == "[■●◆░]"
    assert namespace_bar(parts, 6, memmap=False) == "[■●■░]"
    # Space that is reserved for struct pages and was not used is not lost, whatever was saved.
    parts[2:3] = [("metadata", 1, State.EXCLUDED), ("metadata", 1, saved)]
    assert namespace_bar(parts, 6, memmap=True) == "[■●◈░]"
    for used, drawn in ((Range(0x13, 0x14), "[■●◆░]"), (Range(0x12, 0x13), "[■●◈░]")):
        assert namespace_bar(parts, 6, memmap=True, start=0x10, used=used) == drawn
    assert legend_of(["[■●■░]"]) == ("info block ● saved   other metadata ■ saved   data ░ absent")
    assert legend_of([]) == ""


def test_ascii_is_for_streams_that_are_not_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, expected in (("utf-8", False), ("ascii", True), ("latin-1", True)):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        assert use_ascii() is expected
