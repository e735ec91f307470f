# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""pmem-segments agrees with readelf, with the raw program headers and with iomem."""

import re
import struct
import subprocess
import time
from typing import Any

import numpy as np
import pytest

from drgn_pmem.analysis.coverage.segments import read_segments
from drgn_pmem.analysis.coverage.writer import Writer
from drgn_pmem.dumpfile import PF_DEV, State, coverage_of
from drgn_pmem.kernel.debuginfo import has_type

from ..samples import (
    CASES,
    CUT_SHORT,
    OF_KEXEC,
    Case,
    open_crash,
    run_json,
    run_text,
    without_debug_info,
)

pytestmark = pytest.mark.holds("pmem-segments")


ELF_CASES = [
    case for case in CASES if case.format.removesuffix(CUT_SHORT) in ("raw", "elf", "qemu-elf")
]
KEXEC_CASES = [
    case for case in ELF_CASES if case in OF_KEXEC and not case.format.startswith("qemu")
]
KDUMP_CASES = [case for case in CASES if case.format in ("zlib", "lzo", "snappy", "zstd")]


def readelf(case: Case) -> list[tuple[int, int, int, int, int]]:
    """(offset, virtual, physical, file size, memory size) of each PT_LOAD, by readelf."""
    out = subprocess.run(
        ["readelf", "-lW", str(case.dump)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    lines = re.findall(r"^  LOAD +(\w+) (\w+) (\w+) (\w+) (\w+)", out, re.MULTILINE)
    return [tuple(int(value, 16) for value in line) for line in lines]  # type: ignore[misc]


def raw_flags(case: Case) -> list[int]:
    """p_flags of each PT_LOAD: readelf does not show the bit."""
    with case.dump.open("rb") as file:
        (offset,) = struct.unpack_from("<Q", file.read(64), 32)
        file.seek(54)
        size, count = struct.unpack("<HH", file.read(4))
        file.seek(offset)
        table = file.read(size * count)
    headers = [struct.unpack_from("<II", table, size * index) for index in range(count)]
    return [flags for kind, flags in headers if kind == 1]


def iomem(case: Case, name: str) -> list[tuple[int, int]]:
    """[start, end) of the lines of /proc/iomem of this name."""
    lines = re.findall(r"^ *(\w+)-(\w+) : (.*)$", case.truth("iomem"), re.MULTILINE)
    return [(int(a, 16), int(b, 16) + 1) for a, b, what in lines if what == name]


def physical(segment: dict[str, Any]) -> tuple[int, int]:
    start = int(segment["physical"], 16)
    return start, start + segment["memory_size"]


@pytest.mark.parametrize("case", ELF_CASES, ids=str)
def test_segments_are_those_of_readelf(case: Case) -> None:
    ours = [
        (
            s["file_offset"],
            int(s["virtual"], 16),
            int(s["physical"], 16),
            s["file_size"],
            s["memory_size"],
        )
        for s in case.json("pmem-segments")
    ]
    assert ours == readelf(case)


@pytest.mark.parametrize("case", ELF_CASES, ids=str)
def test_flags_are_those_in_the_file(case: Case) -> None:
    ours = case.json("pmem-segments")
    assert [s["flags"] for s in ours] == raw_flags(case)
    assert [s["pmem"] for s in ours] == [bool(flags & PF_DEV) for flags in raw_flags(case)]


@pytest.mark.parametrize("case", ELF_CASES, ids=str)
def test_iomem_under_a_segment_is_what_the_machine_showed(case: Case) -> None:
    ram = iomem(case, "System RAM")
    pmem = iomem(case, "Persistent Memory")
    assert ram
    for segment in case.json("pmem-segments"):
        start, end = physical(segment)
        names = {(r["name"], int(r["start"], 16)) for r in segment["iomem"]}
        for name, places in (("System RAM", ram), ("Persistent Memory", pmem)):
            there = {(name, a) for a, b in places if a < end and start < b}
            assert {n for n in names if n[0] == name} == there


@pytest.mark.parametrize("case", ELF_CASES, ids=str)
def test_namespaces_under_a_segment_are_where_sysfs_had_them(case: Case) -> None:
    recorded = {
        name: (int(value("resource"), 16), int(value("size")))
        for name in set(re.findall(r"^(namespace\d+\.\d+)/", case.truth("sysfs.nd"), re.MULTILINE))
        if (value := sysfs(case, name)) and value("size") not in ("", "0") and value("resource")
    }
    assert recorded
    for segment in case.json("pmem-segments"):
        start, end = physical(segment)
        there = {n for n, (a, size) in recorded.items() if a < end and start < a + size}
        assert set(segment["namespaces"]) == there


def sysfs(case: Case, device: str) -> Any:
    """Function that gives an attribute of a device on the nd bus, as recorded."""

    def value(attribute: str) -> str:
        found = re.search(rf"^{device}/{attribute}=([^|\n]*)", case.truth("sysfs.nd"), re.MULTILINE)
        return found[1] if found else ""

    return value


@pytest.mark.parametrize("case", KEXEC_CASES, ids=str)
def test_loader_is_told_by_the_order_of_the_headers(case: Case) -> None:
    recorded = {"kexec_file_load": Writer.FILE_LOAD, "kexec_load": Writer.TOOLS}
    loader = read_segments(case.prog).value.loader
    assert loader.by_kernel == recorded[case.sample.loader]
    unknown = has_backup_region(case) or pmem_follows_ram(case)
    assert loader.by_order == (None if unknown else loader.by_kernel)


def pmem_follows_ram(case: Case) -> bool:
    """No RAM is above what is called persistent memory, if anything is (that of a device tree is
    not): both loaders put it last. (On x86_64, the first MiB tells.)"""
    ram = iomem(case, "System RAM") + iomem(case, "System RAM (kmem)")
    last = max(end for _, end in ram)
    first = min((start for start, _ in iomem(case, "Persistent Memory")), default=last)
    return case.sample.architecture != "x86_64" and last <= first


def has_backup_region(case: Case) -> bool:
    """Before v5.5, kexec_file_load of x86_64 put the first 640 KiB into the headers, as kexec-tools
    does: the order is the same."""
    return has_type(case.prog, "struct kimage_arch") and case.prog.type(
        "struct kimage_arch"
    ).has_member("backup_src_start")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_segment_contradicts_but_for_ram_on_pmem(case: Case) -> None:
    ram = iomem(case, "System RAM (kmem)")
    for segment in case.json("pmem-segments"):
        start, end = physical(segment)
        for note in segment["notes"]:
            assert "used as RAM (kmem)" in note
            assert any(a < end and start < b for a, b in ram)


def page_set(case: Case, places: list[tuple[int, int]]) -> set[int]:
    """Whole pages of ranges."""
    return {page for a, b in places for page in range(-(-a // case.page), b // case.page)}


@pytest.mark.parametrize("case", KEXEC_CASES, ids=str)
def test_ram_that_is_not_in_the_dump_is_named(case: Case) -> None:
    """Of a late hotplug; the first MiB, which kexec_file_load leaves out on purpose, apart."""
    ram = page_set(case, iomem(case, "System RAM") + iomem(case, "System RAM (kmem)"))
    there = page_set(case, [(start, start + size) for _, _, start, _, size in readelf(case)])
    missing = ram - page_set(case, iomem(case, "Crash kernel")) - there
    answer = read_segments(case.prog).value
    low = {page for page in missing if page * case.page < 1 << 20}
    assert page_set(case, [(r.start, r.end) for r in answer.missing_ram]) == missing - low
    named = [note for note in answer.notes if re.match(r"RAM 0x", note)]
    assert len(named) == len(answer.missing_ram)
    has_low = case.sample.architecture == "x86_64" and not has_backup_region(case)
    assert bool(low) == (has_low and case.sample.loader == "kexec_file_load")
    assert bool(low) == any("below 1 MiB" in note for note in answer.notes)


@pytest.mark.parametrize("case", KDUMP_CASES, ids=str)
def test_ranges_of_a_bitmap_are_pages_that_existed(case: Case) -> None:
    """The raw dump of the same crash says which pages there were."""
    if "raw" not in case.sample.formats:
        pytest.skip("no raw dump of this crash")
    raw = Case(case.sample, "raw")
    there: set[int] = set()
    for _, _, start, _, size in readelf(raw):
        # makedumpfile leaves a page out that ends in the middle
        there.update(range(start // case.page, (start + size) // case.page))
    ours: list[int] = []
    for segment in case.json("pmem-segments"):
        start, end = physical(segment)
        ours += range(start // case.page, end // case.page)
    assert sorted(ours) == sorted(there)


@pytest.mark.parametrize("case", KDUMP_CASES, ids=str)
def test_pmem_of_a_bitmap_is_told_from_iomem_and_the_output_says_so(case: Case) -> None:
    def pages(places: list[tuple[int, int]]) -> set[int]:
        return {page for a, b in places for page in range(a // case.page, b // case.page)}

    ours = case.json("pmem-segments")
    pmem = pages(iomem(case, "Persistent Memory")) - pages(iomem(case, "System RAM (kmem)"))
    told = pages([physical(s) for s in ours if s["pmem"]])
    rest = pages([physical(s) for s in ours if not s["pmem"]])
    assert told <= pmem
    assert not rest & pmem
    assert all(s["flags"] is None for s in ours)
    _, notes = run_text(case.prog, "pmem-segments")
    assert "no p_flags" in notes
    # /proc/iomem of POWER names none
    by = "iomem and regions" if pmem else "regions and page maps"
    assert f"pmem is identified by {by}" in notes


def test_bytes_in_the_file_are_those_that_coverage_counts(case: Case) -> None:
    coverage = coverage_of(case.prog)
    for segment in case.json("pmem-segments"):
        start, end = physical(segment)
        counted = coverage.count(start, end)
        assert segment["states"] == {state.value: size for state, size in counted.items()}
        if segment["type"] == "bitmap":
            assert segment["file_size"] == counted.get(State.SAVED, 0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_segments_without_debug_info(case: Case) -> None:
    prog = without_debug_info(case)
    ours = run_json(prog, "pmem-segments")
    full = case.json("pmem-segments")

    def places(segments: list[dict[str, Any]]) -> "np.ndarray[Any, Any]":
        ends = np.array([physical(s) for s in segments], np.uint64)
        return np.unique(ends)

    if full[0]["type"] == "PT_LOAD":
        assert [physical(s) for s in ours] == [physical(s) for s in full]
        assert [s["flags"] for s in ours] == [s["flags"] for s in full]
    else:
        # Nothing tells what was pmem: the ranges are not cut there, and no one claims to know.
        assert set(places(ours).tolist()) <= set(places(full).tolist())
        assert {s["pmem"] for s in ours} == {None}
    _, notes = run_text(prog, "pmem-segments")
    assert "iomem_resource is not known: no debug info of the kernel: " in notes
    assert "give its vmlinux with -s" in notes


@pytest.mark.parametrize("case", CASES, ids=str)
def test_segments_take_less_than_a_second_beyond_opening(case: Case) -> None:
    prog = open_crash(case.sample, case.dump)
    before = time.process_time()
    run_text(prog, "pmem-segments")
    assert time.process_time() - before < 1
