# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every name of a page that an answer prints, fed back, names that page."""

from collections.abc import Iterator
import json
from typing import Any

import pytest

from drgn_pmem.analysis.pages import words
from drgn_pmem.analysis.pages.words import parse_page, resolve_page
from drgn_pmem.errors import NotFound
from drgn_pmem.kernel import dm
from drgn_pmem.kernel.dm import DmPiece
from drgn_pmem.kernel.partitions import DiskPartition
from drgn_pmem.partial import Partial

from ..samples import CASES, Case, run_answer, run_json, run_text

PFNS = 40
"""Pages that are asked for in each dump."""


def names_of(record: dict[str, Any]) -> Iterator[str]:
    """What a record calls its page."""
    yield f"pfn:{record['pfn']:#x}"
    yield f"phys:{record['physical']}"
    if record.get("page"):
        yield record["page"]
    # pmem-page says "offset", pmem-poison "data_offset", of the namespace.
    offset = record.get("data_offset", record.get("offset"))
    if record.get("namespace") and offset is not None:
        yield f"{record['namespace']}+{offset:#x}"
    if record.get("device") and record.get("sector") is not None:
        yield f"{record['device']}:{record['sector']}"
    for owner in record.get("owners", []):
        if owner.get("sector") is not None:
            yield f"{owner['device']}:{owner['sector']}"
            yield f"/dev/{owner['device']}:{owner['sector']}"


def some_pages(case: Case) -> list[int]:
    """Pages of files, from all files."""
    found: list[int] = []
    for file in run_json(case.prog, "pmem-files"):
        for path in file["paths"][:1]:
            _, out, _ = run_answer(case.prog, f"pmem-file '{path}' --json")
            if out:
                found += [page["pfn"] for page in run_json(case.prog, f"pmem-file '{path}'")[:3]]
    return sorted({pfn for pfn in found if pfn})[:PFNS]


@pytest.mark.holds("pmem-rmap")
def test_a_printed_name_names_the_same_page(case: Case) -> None:
    pages = some_pages(case)
    lines = ["pmem-poison", "pmem-pins"]
    if pages:
        asked = " ".join(f"pfn:{pfn:#x}" for pfn in pages)
        lines += [f"pmem-rmap {asked}", f"pmem-page {asked}"]
    for line in lines:
        for record in run_json(case.prog, line):
            for name in names_of(record):
                assert parse_page(case.prog, name) == record["pfn"], (line, name)


@pytest.mark.holds("pmem-file", "pmem-pages")
def test_a_printed_offset_of_a_file_names_the_same_page(case: Case) -> None:
    """PATH:OFFSET, and the ends of the ranges that pmem-pages lists."""
    for file in run_json(case.prog, "pmem-files")[:4]:
        for path in file["paths"][:1]:
            _, out, _ = run_answer(case.prog, f"pmem-file '{path}' --json")
            for page in json.loads(out or "[]")[:1]:
                if page["pfn"] is None or page["copy"]:
                    continue
                again = run_json(case.prog, f"pmem-file '{path}:{page['offset']:#x}'")
                assert page["pfn"] in [found["pfn"] for found in again]
    ranges = run_json(case.prog, "pmem-pages --ranges --limit 200")
    for item in ranges:
        assert parse_page(case.prog, f"phys:{item['physical']}") == item["pfn"]
    some = ranges[:: max(1, len(ranges) // 8)]
    if some:
        lasts = " ".join(f"pfn:{item['pfn'] + item['pages'] - 1:#x}" for item in some)
        pages = run_json(case.prog, f"pmem-page {lasts}")
        assert [page["namespace"] for page in pages] == [item["namespace"] for item in some]


def test_the_sector_of_a_table_is_of_the_device_beside_it() -> None:
    zlib = next(case for case in CASES if str(case) == "6.1-fileload:zlib")
    out, _ = run_text(zlib.prog, "pmem-rmap 0x144e00 -o device,sector -H")
    assert out.split() == ["dm-0", "20480"]
    assert parse_page(zlib.prog, "dm-0:20480") == 0x144E00


@pytest.fixture
def parted(monkeypatch: pytest.MonkeyPatch) -> Case:
    """A dump in which a disk has a partition."""
    found = (DiskPartition(name="pmem2p1", disk="pmem2", start=2048, sectors=100_000),)
    monkeypatch.setattr(words, "partitions_of", lambda prog: Partial(found))
    return next(case for case in CASES if str(case) == "6.1-fileload:elf")


def test_sectors_of_a_partition_count_from_its_start(parted: Case) -> None:
    assert parse_page(parted.prog, "pmem2p1:43016") == 0x129C01
    assert parse_page(parted.prog, "/dev/pmem2p1:43016") == 0x129C01
    note = resolve_page(parted.prog, "pmem2p1:43016").value.note
    assert note is not None
    assert note.startswith("pmem2p1 begins at sector 2048 of pmem2; ")
    assert parse_page(parted.prog, "/dev/pmem2:45064") == 0x129C01


def test_a_partition_ends_before_its_disk(parted: Case) -> None:
    with pytest.raises(NotFound, match="pmem2p1 ends at sector 100000"):
        parse_page(parted.prog, "pmem2p1:100000")


@pytest.mark.parametrize("kind", ["striped", "mirror", "crypt"])
def test_targets_that_are_not_linear_are_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also below a linear one: what can be said is on what the sector is."""
    pieces = (
        DmPiece(disk="dm-7", start=0, sectors=64, type=kind, below=None, below_start=0),
        DmPiece(disk="dm-8", start=0, sectors=8, type="linear", below="dm-7", below_start=16),
        DmPiece(disk="dm-8", start=8, sectors=8, type="linear", below="pmem2", below_start=32),
    )
    monkeypatch.setattr(dm, "dm_pieces", lambda prog: Partial(pieces))
    monkeypatch.setattr(words, "dm_pieces", lambda prog: Partial(pieces))
    prog = next(case for case in CASES if str(case) == "6.1-fileload:elf").prog
    for disk in ("dm-7", "dm-8"):
        with pytest.raises(NotFound, match=f'{disk} is on a target of type "{kind}"'):
            parse_page(prog, f"{disk}:4")
    assert parse_page(prog, "dm-8:8") == parse_page(prog, "pmem2:32")


@pytest.mark.parametrize("command", ["pmem-page", "pmem-rmap"])
@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("pfn:0xfee00", '"Local APIC"'),
        ("phys:0xfee00000", '"Local APIC"'),
        ("pfn:0x7fffffff", "nothing"),
    ],
)
def test_what_is_no_memory_is_named(command: str, word: str, what: str) -> None:
    case = next(case for case in CASES if str(case) == "6.1-fileload:elf")
    with pytest.raises(NotFound, match=f"{word} is no memory: physical 0x[0-9a-f]+ is {what}"):
        run_json(case.prog, f"{command} {word}")


def test_a_huge_zero_page_is_no_huge_page_of_the_file() -> None:
    case = next(case for case in CASES if str(case) == "6.1-fileload:elf")
    files = {file["path"]: file for file in run_json(case.prog, "pmem-files")}
    hole, alpha = files["/mnt/ext4/hole"], files["/mnt/ext4/alpha"]
    assert (hole["pages"], hole["huge"]) == (0, 0)
    assert hole["zero"] >= 512
    assert (alpha["pages"], alpha["huge"]) == (536, 512)
