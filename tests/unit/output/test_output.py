# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tables, sizes and text: what reaches a reader."""

from dataclasses import dataclass
import json
import re

from hypothesis import given, strategies as st
import pytest

from drgn_pmem.commands import load_commands
from drgn_pmem.errors import UsageError
from drgn_pmem.output.columns import fitted, vertical
from drgn_pmem.output.json import dumps, humanize
from drgn_pmem.output.notes import merged
from drgn_pmem.output.table import Field, choose, csv_text, scripted, sort, table
from drgn_pmem.output.terminal import Look, colours, layout
from drgn_pmem.output.text import cell, escape, human_size, natural, plural, short_size
from drgn_pmem.output.where import parse_where, select
from drgn_pmem.record import Show


@dataclass(frozen=True)
class Row:
    name: str | None
    size: int | None


FIELDS = (
    Field("NAME", lambda r: r.name),
    Field("SIZE", lambda r: r.size, right=True),
    Field("DOUBLE", lambda r: r.size and 2 * r.size, right=True, shown=False),
)
OTHER = (Field("COLOUR", lambda r: "red"),)
ROWS = [Row("b", 9), Row("a", 10), Row(None, None)]


@given(st.text())
def test_escaped_text_has_nothing_that_moves_a_cursor(text: str) -> None:
    safe = escape(text)
    assert safe.isprintable()
    assert not set(safe) & set("\x1b\x9b\u202e\u2066\u200b")


@given(st.binary())
def test_any_bytes_can_be_shown(data: bytes) -> None:
    assert escape(data).isprintable()


def test_plain_text_stays() -> None:
    assert escape("/mnt/größe 1/文件") == "/mnt/größe 1/文件"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (5000 * 1024 - 1, "5119999"),
        (67108864, "64.00 MiB (67.11 MB)"),
        (130023424, "124.00 MiB (130.02 MB)"),
        (32832 * 10**6, "30.58 GiB (32.83 GB)"),
        (3 << 40, "3.00 TiB (3.30 TB)"),
    ],
)
def test_sizes_as_ndctl_prints_them(size: int, text: str) -> None:
    assert human_size(size) == text


def test_unknown_is_a_dash_and_lists_are_joined() -> None:
    assert [cell(v) for v in (None, "", [], ["a", None], True, 0)] == [
        "-", "-", "-", "a,-", "yes", "0",
    ]  # fmt: skip


def test_table_aligns_numbers_right_and_hides_fields_until_asked() -> None:
    assert table(ROWS, choose(FIELDS, None)).splitlines() == [
        "NAME  SIZE",
        "b        9",
        "a       10",
        "-        -",
    ]


def test_choosing_fields() -> None:
    assert [f.name for f in choose(FIELDS, "size,name")] == ["SIZE", "NAME"]
    assert [f.name for f in choose(FIELDS, "+double")] == ["NAME", "SIZE", "DOUBLE"]
    assert choose(FIELDS, "colour", known=OTHER) == []
    with pytest.raises(UsageError, match="no field 'taste'; the fields are name, size, double"):
        choose(FIELDS, "taste")


def test_sorting_is_by_value_and_unknown_comes_last() -> None:
    assert [r.size for r in sort(ROWS, FIELDS, "size")] == [9, 10, None]
    assert [r.name for r in sort(ROWS, FIELDS, "-name")] == ["b", "a", None]
    assert sort(ROWS, FIELDS, "colour", known=OTHER) == ROWS


def test_scripted_and_vertical() -> None:
    assert scripted(ROWS[:1], choose(FIELDS, None)) == "b\t9"
    cells = [["b", "9"], ["a", "10"]]
    assert vertical(cells, FIELDS[:2]) == "NAME  b\nSIZE  9\n\nNAME  a\nSIZE  10"


def test_alignments_are_humanized_where_ndctl_does() -> None:
    """namespace5.0 of the sample 6.12-providers, as ``ndctl list -Nu -vv`` printed it."""
    device = {"chardev": "dax5.0", "align": 1 << 30}
    value = {
        "dev": "namespace5.0",
        "align": 1 << 30,
        "daxregion": {"align": 1 << 30, "devices": [device]},
    }
    assert humanize(value) == {
        "dev": "namespace5.0",
        "align": 1 << 30,
        "daxregion": {
            "align": 1 << 30,
            "devices": [{"chardev": "dax5.0", "align": "1024.00 MiB (1073.74 MB)"}],
        },
    }
    assert humanize({"chardev": "dax5.0", "align": 2 << 20})["align"] == 2 << 20


def test_our_own_facts_are_not_humanized() -> None:
    value = {"size": 67108864, "offset": 0, "dump": {"size": 67108864}}
    assert humanize(value) == {
        "size": "64.00 MiB (67.11 MB)",
        "offset": "0",
        "dump": {"size": 67108864},
    }


def test_plural() -> None:
    assert [plural(1, "page"), plural(2, "entry")] == ["1 page", "2 entries"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (49201152, "46.9 MiB"),
        (67108864, "64 MiB"),
        ((1 << 30) - 1, "1 GiB"),
        (1536 << 20, "1.5 GiB"),
        (999 << 30, "999 GiB"),
        (1 << 70, "1024 EiB"),
    ],
)
def test_short_sizes(size: int, text: str) -> None:
    assert short_size(size) == text


WIDE = (
    Field("NAME", lambda r: r[0]),
    Field("PHYSICAL", lambda r: r[1], right=True),
    Field("WHY", lambda r: r[2], keep=1, wrap=True),
    Field("SECTOR", lambda r: r[3], right=True),
)
WIDE_ROWS = [
    ("pmem0", "0x100000000", "a long reason that nobody can read in one line of a terminal", 8),
    ("pmem1", "0x200000000", "none", 16),
]


def cells_of(rows, fields):
    return [[field.text(row) for field in fields] for row in rows]


def test_text_is_broken_first_then_columns_go_the_least_important_first() -> None:
    cells = cells_of(WIDE_ROWS, WIDE)
    text, missing = fitted(cells, WIDE, 120)
    assert (text, missing) == (table(WIDE_ROWS, WIDE), [])
    text, missing = fitted(cells, WIDE, 60)
    assert missing == []
    assert max(map(len, text.splitlines())) <= 60
    # Nothing is lost by breaking.
    begin, end = (text.splitlines()[0].index(word) for word in ("WHY", "SECTOR"))
    words = " ".join(line[begin:end] for line in text.splitlines()[1:-1])
    assert " ".join(words.split()) == WIDE_ROWS[0][2]
    assert fitted(cells, WIDE, 47)[1] == ["SECTOR"]
    assert fitted(cells, WIDE, 39)[1] == ["PHYSICAL", "SECTOR"]
    assert fitted(cells, WIDE, 10)[1] == ["PHYSICAL", "WHY", "SECTOR"]


def test_the_addresses_of_segments_fit_80_columns() -> None:
    (spec,) = [spec for spec in load_commands() if spec.name == "pmem-segments"]
    row = "60|0x153000000-0x155000000|32 MiB|64 KiB|0x17|yes|Persistent Memory|namespace0.0,"
    row += "namespace0.1|128 MiB was used as RAM (kmem): PF_DEV makes it user data"
    fields = [field for field in spec.fields if field.shown]
    left_out = fitted([row.split("|")] * 2, fields, 80)[1]
    assert not {"PHYSICAL", "NAMESPACES", "NOTES"} & set(left_out)


def test_what_the_user_chose_is_never_left_out() -> None:
    fields = choose(WIDE, "+sector,+physical")
    assert [field.name for field in fields] == ["NAME", "PHYSICAL", "WHY", "SECTOR"]
    cells = cells_of(WIDE_ROWS, fields)
    assert fitted(cells, fields, 40)[1] == ["WHY"]
    # Too wide without any other: field by field, and so is a record alone.
    assert fitted(cells, fields, 20)[0].startswith("NAME      pmem0\nPHYSICAL  0x100000000\n")
    assert fitted(cells[:1], WIDE, 40)[0].startswith("NAME      pmem0\n")
    assert not fitted(cells[:1], WIDE, 40, expand=False)[0].startswith("NAME      pmem0\n")


def test_the_last_line_names_what_was_left_out() -> None:
    lines = layout(WIDE_ROWS, WIDE, Look(width=39)).splitlines()
    assert max(map(len, lines)) <= 39
    assert " ".join(lines[-2:]).endswith("-o +physical,sector for more")
    assert layout(WIDE_ROWS, WIDE, Look(width=40, expanded=True)).startswith("NAME      pmem0\n")
    assert layout(WIDE_ROWS, WIDE) == table(WIDE_ROWS, WIDE)


@given(
    st.lists(st.tuples(*[st.text("ab, c", max_size=60)] * 4), min_size=1, max_size=4),
    st.integers(30, 200),
)
def test_no_table_is_wider_than_asked(rows: list[tuple[str, ...]], width: int) -> None:
    fields = [Field(f"F{i}", lambda r, i=i: r[i], wrap=True) for i in range(4)]
    text, _ = fitted(cells_of(rows, fields), fields, width)
    assert max(map(len, text.splitlines())) <= width


def test_states_have_colours_and_columns_stay_aligned() -> None:
    fields = (Field("STATE", lambda r: r, coloured=True), Field("NEXT", lambda r: "x"))
    text = layout(["saved", "saved 98%, excluded 2%"], fields, Look(width=80, colour=True))
    plain = layout(["saved", "saved 98%, excluded 2%"], fields, Look(width=80))
    assert "\x1b[32msaved\x1b[0m" in text
    assert "\x1b[33mexcluded\x1b[0m" in text
    assert re.sub(r"\x1b\[\d*m", "", text) == plain


def test_no_colour_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.isatty", lambda number: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with open("/dev/null") as stream:
        assert colours(stream)
        monkeypatch.setenv("NO_COLOR", "1")
        assert not colours(stream)
        monkeypatch.delenv("NO_COLOR")
        monkeypatch.setenv("TERM", "dumb")
        assert not colours(stream)


def test_csv() -> None:
    rows = [Row('a,"b', 1), Row(None, None)]
    assert csv_text(rows, FIELDS[:2]) == 'name,size\n"a,""b",1\n-,-'
    assert csv_text(rows, FIELDS[:2], header=False) == '"a,""b",1\n-,-'


@dataclass(frozen=True)
class Counted:
    name: str
    refcount: int | None
    address: str
    flags: tuple[str, ...]


PINNED = [
    Counted("namespace0.0", 1, "0x1000", ("dirty", "locked")),
    Counted("namespace0.1", 2, "0x2000", ()),
    Counted("namespace1.0", None, "0x3000", ("dirty",)),
]
COUNTED = (
    Field("NAME", lambda r: r.name),
    Field("REFCOUNT", lambda r: r.refcount),
    Field("ADDRESS", lambda r: r.address),
    Field("FLAGS", lambda r: r.flags),
    Field("SIZE", lambda r: 64 << 20, show=Show.SIZE),
)


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("refcount > 1", "0.1"),
        ("refcount>=1", "0.0 0.1"),
        ("REFCOUNT != 1", "0.1"),
        ("refcount = -", "1.0"),
        ("refcount != -", "0.0 0.1"),
        ("name = namespace1.0", "1.0"),
        ("name ~ SPACE0 and refcount <= 0x1", "0.0"),
        ("name !~ space0", "1.0"),
        ("address = 8192", "0.1"),
        ("address < 0x2001", "0.0 0.1"),
        ("flags = dirty", "0.0 1.0"),
        ("flags != dirty", "0.1"),
        ('flags = "dirty" and address > 0x1000', "1.0"),
        ("size = 64M", "0.0 0.1 1.0"),
        ("size > 64MiB", ""),
        ("size < 1g", "0.0 0.1 1.0"),
    ],
)
def test_rows_are_chosen_by_their_values(condition: str, names: str) -> None:
    ((_, rows, _),), _ = select(parse_where(condition), [("", PINNED, COUNTED)])
    assert [row.name for row in rows] == [f"namespace{name}" for name in names.split()]


def test_rows_whose_value_is_not_known_are_counted() -> None:
    _, notes = select(parse_where("refcount > 1"), [("", PINNED, COUNTED)])
    assert notes == [
        "--where: 1 row left out whose REFCOUNT is not known, or that has none (refcount = - shows "
        "them)"
    ]
    assert select(parse_where("name ~ x"), [("", PINNED, COUNTED)]).notes == []


@pytest.mark.parametrize(
    "condition",
    ["", "refcount", "refcount >", "> 1", "refcount > many", "a = 1 or b = 2", "a = b c"],
)
def test_what_is_no_condition_is_wrong_usage(condition: str) -> None:
    with pytest.raises(UsageError):
        parse_where(condition)


def test_a_condition_on_a_field_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="no field 'taste'; the fields are name, refcount"):
        select(parse_where("taste = 1"), [("", PINNED, COUNTED)])


@pytest.mark.parametrize("condition", ["name > 5", "flags <= 1"])
def test_words_are_not_compared_as_numbers(condition: str) -> None:
    with pytest.raises(UsageError, match=r"has words, [<>=]+ compares numbers; use = or ~ \(its"):
        select(parse_where(condition), [("", PINNED, COUNTED)])


@pytest.mark.parametrize("names", ["", "+", ",", "name,", "+name,+"])
def test_an_empty_name_of_a_field_is_wrong_usage(names: str) -> None:
    with pytest.raises(UsageError, match="has an empty name; -o FIELD,FIELD shows these"):
        choose(FIELDS, names)


def test_lists_in_csv_keep_their_items() -> None:
    fields = [Field("PATHS", lambda row: row)]
    rows = [["/a,b", "/c"], ["/a;b"], []]
    assert csv_text(rows, fields, header=False) == '"/a,b;/c"\n/a\\;b\n-'


def test_bytes_of_a_command_line_that_are_no_text_are_shown_as_bytes() -> None:
    assert escape(b"/tmp/\xff".decode("utf-8", "surrogateescape")) == "/tmp/\\xff"
    assert escape("\ud800") == "\\ud800"


def test_notes_that_differ_only_in_the_namespace_become_one() -> None:
    assert merged(
        [
            "namespace0.0: info block not saved (absent)",
            "something else",
            "namespace1.0: info block not saved (absent)",
            "namespace1.1: info block not saved (absent)",
            "namespace1.1: 5 bytes",
            "namespace1.2: 6 bytes",
        ]
    ) == [
        "3 namespaces: info block not saved (absent) (namespace0.0, 1.0, 1.1)",
        "something else",
        "namespace1.1: 5 bytes",
        "namespace1.2: 6 bytes",
    ]
    # in the order of the tables, whichever came first
    assert merged([f"namespace{n}: lost" for n in ("5.0", "10.0", "2.0")]) == [
        "3 namespaces: lost (namespace2.0, 5.0, 10.0)"
    ]
    assert merged(["x of namespace0.0 y", "x of namespace0.1 y"]) == [
        "x of namespace0.0 y (the same of namespace0.1)"
    ]
    # Which of two names differs is not known.
    two = ["namespace0.0 and namespace0.1", "namespace0.0 and namespace0.2"]
    assert merged(two) == two


def test_notes_that_differ_only_in_numbers_become_one_if_they_are_many() -> None:
    lines = [f"PFN {n:#x}: see {n:#x}" for n in (1, 2, 3)]
    assert merged(lines) == ["PFN 0x1: see 0x1 (and 2 more: 0x2, 0x3)"]
    assert merged(lines[:2]) == lines[:2]
    many = merged([f"PFN {n:#x}" for n in range(100)])
    assert many == [f"PFN 0x0 (and 99 more: {', '.join(map(hex, range(1, 13)))}, ...)"]


def test_the_help_of_every_command_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for spec in load_commands():
        text = spec.parser().format_help()
        assert max(map(len, text.splitlines())) <= 120, spec.name
        assert "%%" not in text, spec.name


def test_a_table_of_wide_text_is_aligned() -> None:
    lines = table([Row("文件", 1), Row("file", 2)], FIELDS[:2]).splitlines()
    assert lines[1] == "文件     1"
    assert lines[2] == "file     2"


def test_names_are_in_the_order_of_their_numbers() -> None:
    names = ["region10", "namespace2.10", "namespace2.9", "region2", "dax0.0"]
    ordered = ["dax0.0", "namespace2.9", "namespace2.10", "region2", "region10"]
    assert sorted(names, key=natural) == ordered
    assert natural(None) == [""]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@given(_VALUES)
def test_rows_of_json_one_by_one_are_the_text_of_the_list(value: object) -> None:
    assert dumps(value) == json.dumps(value, indent=2)
