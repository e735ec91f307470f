# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a field is shown is declared once, and holds in JSON, ``repr`` and HTML."""

import dataclasses
import enum
from functools import cached_property
from typing import Any

import pytest

from drgn_pmem.record import Record, Show, shown


class Colour(enum.Enum):
    RED = "red"


class Flags(enum.Flag):
    A = 1
    B = 2


class Inner(Record):
    pfn: int


class Sample(Record):
    start: int = shown(Show.ADDRESS)
    places: tuple[int, ...] = shown(Show.ADDRESS)
    size: int = shown(Show.SIZE)
    colour: Colour
    inner: Inner | None = None
    label: str | None = shown(key="name", optional=True, default=None)
    lengths: tuple[int, ...] = shown(json=sum, default=())
    object: Any = shown(Show.HIDDEN, default=None)

    @cached_property
    def end(self) -> int:
        return self.start + self.size


SAMPLE = Sample(
    start=0x1000, places=(1, 32), size=4096, colour=Colour.RED, inner=Inner(pfn=7), object=object()
)


def test_json_follows_the_declaration() -> None:
    assert SAMPLE.to_json() == {
        "start": "0x1000",
        "places": ["0x1", "0x20"],
        "size": 4096,
        "colour": "red",
        "inner": {"pfn": 7},
        "lengths": 0,
    }
    assert dataclasses.replace(SAMPLE, label="x", lengths=(2, 3)).to_json()["name"] == "x"  # type: ignore[type-var]


def test_addresses_read_as_hexadecimal_in_python_and_can_be_pasted() -> None:
    text = repr(SAMPLE)
    assert "start=0x1000, places=(0x1, 0x20), size=4096, colour=Colour.RED" in text
    assert "object" not in text
    assert eval(text) == SAMPLE
    several = dataclasses.replace(  # type: ignore[type-var]
        SAMPLE, places=(1,), lengths={Colour.RED: [Colour.RED]}, label=Flags.A | Flags.B
    )
    assert eval(repr(several)) == several
    assert repr(Inner(pfn=7)) == "Inner(pfn=7)"


def test_records_are_frozen_and_take_keywords_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SAMPLE.size = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Inner(7)  # type: ignore[misc]
    assert SAMPLE.end == 0x2000


def test_hidden_fields_are_not_compared() -> None:
    assert dataclasses.replace(SAMPLE, object=None) == SAMPLE  # type: ignore[type-var]


def test_html_is_escaped() -> None:
    record = dataclasses.replace(SAMPLE, label="<script>")  # type: ignore[type-var]
    assert "&lt;script&gt;" in record._repr_html_()
    assert "<script>" not in record._repr_html_()


def test_records_are_equal_if_what_is_shown_of_them_is() -> None:
    other = dataclasses.replace(SAMPLE, object=object())  # type: ignore[type-var]
    assert other == SAMPLE
    assert hash(other) == hash(SAMPLE)
    assert other != dataclasses.replace(SAMPLE, size=1)  # type: ignore[type-var]
    assert len({SAMPLE, other, dataclasses.replace(SAMPLE, size=1)}) == 2  # type: ignore[type-var]


def test_records_of_other_types_are_not_equal() -> None:
    class Other(Inner):
        more: int = 0

    assert Inner(pfn=7) != Other(pfn=7)
    assert Other(pfn=7) != Inner(pfn=7)
    assert Other(pfn=7) == Other(pfn=7, more=0) != Other(pfn=7, more=1)
    assert Inner(pfn=7) != (7,)
