# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Coverage is what independent readers find: readelf's headers byte by byte, libkdumpfile (through
drgn) page by page; and pmem-coverage says of each namespace what was recorded of it.
"""

from collections.abc import Iterator
import math
import mmap
from pathlib import Path
import re
import shutil
from typing import Any

import drgn
from drgn import Program
from drgn.helpers.linux.mm import pfn_to_page
import numpy as np
import pytest

import drgn_pmem
from drgn_pmem.dumpfile import Coverage, State, coverage_of, open_dump

from ..samples import (
    CASES,
    CUT_SHORT,
    FLATTENED,
    Case,
    dax_without_namespace,
    open_crash,
    physical_of_struct_page,
    recorded_pmem,
    run_json,
    run_text,
    without_debug_info,
)
from .test_segments import ELF_CASES, KDUMP_CASES, readelf

pytestmark = pytest.mark.holds("pmem-coverage")

UNIT = 512
"""Bytes that segments of most samples begin and end at multiples of."""

WHOLE_ELF_CASES = [case for case in ELF_CASES if not case.format.endswith(CUT_SHORT)]
"""Those that end where a segment does."""

STATES = {State.ABSENT: 0, State.EXCLUDED: 1, State.SAVED: 2, State.TRUNCATED: 3}


def painted(coverage: Coverage, end: int, unit: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Coverage as one code per unit."""
    codes = np.zeros(end // unit, np.uint8)
    for part in coverage.ranges(0, end):
        assert part.start % unit == 0
        assert part.end % unit == 0
        codes[part.start // unit : part.end // unit] = STATES[part.state]
    return codes


@pytest.mark.parametrize("case", WHOLE_ELF_CASES, ids=str)
def test_coverage_is_what_readelf_says_byte_by_byte(case: Case) -> None:
    segments = readelf(case)
    end = max(start + size for _, _, start, _, size in segments) + (1 << 30)
    end -= end % UNIT
    # the reserve area of firmware-assisted dump ends anywhere
    unit = math.gcd(UNIT, *(n for _, _, start, held, size in segments for n in (start, held, size)))
    expected = np.zeros(end // unit, np.uint8)
    for _, _, start, in_file, size in segments:  # of overlapping ones the later wins, as in drgn
        expected[start // unit : (start + in_file) // unit] = STATES[State.SAVED]
        expected[(start + in_file) // unit : (start + size) // unit] = STATES[State.EXCLUDED]
    ours = painted(open_dump(case.dump).coverage, end, unit)
    assert np.array_equal(ours, expected)


def readable(prog: Program, pages: int, size: int) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Of every page frame, whether plain drgn can read it."""
    can = np.ones(pages, bool)
    read = prog.read
    for pfn in range(pages):
        try:
            read(pfn * size, 8, True)
        except drgn.FaultError:
            can[pfn] = False
    return can


@pytest.mark.parametrize("case", [c for c in KDUMP_CASES if c.format == "zlib"][:1], ids=str)
def test_a_page_is_readable_exactly_where_coverage_says_saved(case: Case) -> None:
    """libkdumpfile, page by page over the whole dump and some more."""
    prog = Program()
    prog.set_core_dump(str(case.dump))
    coverage = open_dump(case.dump).coverage
    end = coverage.extent()[-1].end + (64 << 20)
    ours = painted(coverage, end, case.page) == STATES[State.SAVED]
    assert np.array_equal(ours, readable(prog, end // case.page, case.page))


@pytest.mark.parametrize("case", [c for c in ELF_CASES if c.format in ("raw", "elf")], ids=str)
def test_drgn_reads_the_bytes_of_the_file_where_coverage_says_saved(case: Case) -> None:
    """At both ends of each part: saved bytes as the file has them, zeroes where they were left
    out, a fault where nothing covers the address."""
    prog = Program()
    path = case.dump
    prog.set_core_dump(str(path))
    segments = readelf(case)
    with path.open("rb") as file:
        for part in coverage_of(prog).ranges(0, 1 << 40):
            for address in (part.start, part.end - UNIT):
                if part.state is State.ABSENT:
                    with pytest.raises(drgn.FaultError):
                        prog.read(address, UNIT, True)
                    continue
                data = prog.read(address, UNIT, True)
                if part.state is State.EXCLUDED:
                    assert data == bytes(UNIT)
                    continue
                offset, start = next(
                    (offset, start)
                    for offset, _, start, in_file, _ in reversed(segments)
                    if start <= address < start + in_file
                )
                file.seek(offset + address - start)
                assert data == file.read(UNIT)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_one_format_saved_the_raw_dump_has(case: Case) -> None:
    if case.format.startswith("qemu") or "raw" not in case.sample.formats:
        pytest.skip("made by QEMU, or this crash has no raw copy of /proc/vmcore")
    raw = open_dump(case.sample.dump("raw")).coverage
    ours = open_dump(case.dump).coverage
    end = raw.extent()[-1].end + (64 << 20)
    for part in ours.ranges(0, end):
        # Part of a page at the end of RAM is rounded up by kdump-compressed dumps only.
        low, high = -(-part.start // case.page) * case.page, part.end // case.page * case.page
        if part.state is not State.ABSENT and low < high:
            held = raw.count(low, high)
            assert held.get(State.ABSENT, 0) < case.page
        elif low < high:
            held = raw.count(low, high)
            assert sum(held.values()) - held.get(State.ABSENT, 0) < case.page


def test_compressors_save_the_same_pages(case: Case) -> None:
    if case.format not in ("lzo", "snappy", "zstd", "lzo" + FLATTENED) or (
        "zlib" not in case.sample.formats
    ):
        pytest.skip("this crash has no zlib dump to compare this format with")
    zlib = open_dump(case.sample.dump("zlib")).coverage
    assert open_dump(case.dump).coverage.to_json() == zlib.to_json()


def namespaces(case: Case) -> dict[str, dict[str, Any]]:
    return {n["namespace"]: n for n in case.json("pmem-coverage")}


def test_user_data_is_as_large_as_ndctl_said(case: Case) -> None:
    recorded = {
        namespace["dev"]: namespace
        for bus in case.truth_json("ndctl.json")
        for region in bus["regions"]
        for namespace in region.get("namespaces", [])
    }
    recorded |= dax_without_namespace(case)
    ours = namespaces(case)
    assert set(ours) == set(recorded)
    for name, item in ours.items():
        size = sum(item["userdata"].values())
        whole = int(item["end"], 16) - int(item["start"], 16)
        if item["mode"] in ("fsdax", "devdax"):
            assert size == recorded[name]["size"]
            assert sum(item["metadata"].values()) <= whole - size
        elif item["unknown"]:
            assert item["mode"] == "sector"
            assert (size, sum(item["unknown"].values())) == (0, whole)
        elif sum(item["metadata"].values()):
            # A BTT keeps some blocks spare.
            assert recorded[name]["size"] <= size < whole
        else:
            assert size == whole


def test_states_are_those_of_the_physical_ranges(case: Case) -> None:
    coverage = coverage_of(case.prog)
    for item in namespaces(case).values():
        counted: dict[str, int] = {}
        for kind in ("metadata", "userdata"):
            for state, size in item[kind].items():
                counted[state] = counted.get(state, 0) + size
        whole = coverage.count(int(item["start"], 16), int(item["end"], 16))
        left = sum(whole.values()) - sum(counted.values())
        for state, size in whole.items():
            assert size - left <= counted.get(state.value, 0) <= size


def test_location_is_where_drgn_finds_struct_pages(case: Case) -> None:
    """The first, the last and pages between, by drgn's own translation."""
    pmem = recorded_pmem(case)
    seen = 0
    for item in namespaces(case).values():
        if item["memmap"] is None:
            assert item["location"] is None
            continue
        seen += 1
        first, count = item["memmap"]["first_pfn"], item["memmap"]["npfns"]
        places = set()
        for pfn in range(first, first + count, max(1, count // 64)):
            address = pfn_to_page(case.prog, pfn)
            physical = physical_of_struct_page(case.prog, address.value_())
            places.add("pmem" if any(a <= physical < b for a, b in pmem) else "mem")
        assert set(item["location"].split(" + ")) == places
    assert seen


def test_struct_pages_are_saved_as_coverage_says(case: Case) -> None:
    coverage = coverage_of(case.prog)
    for item in namespaces(case).values():
        if item["memmap"] is None:
            continue
        first, count = item["memmap"]["first_pfn"], item["memmap"]["npfns"]
        size = case.prog.type("struct page").size
        assert size is not None
        assert sum(item["struct_pages"].values()) == count * size
        seen = set()
        for pfn in range(first, first + count, max(1, count // 256)):
            address = pfn_to_page(case.prog, pfn)
            physical = physical_of_struct_page(case.prog, address.value_())
            seen.add(coverage.state(physical).value)
        assert seen <= set(item["struct_pages"])


def test_case_is_that_of_the_rfc(case: Case) -> None:
    """Rows: what was dumped; columns: where the struct pages are."""
    for item in namespaces(case).values():
        userdata = item["userdata"].get("saved", 0) > 0
        pages = item["struct_pages"].get("saved", 0)
        if item["location"] is None:
            expected = None
        elif item["location"] == "mem":
            expected = "A" if userdata else "C" if pages else None
        elif userdata:
            expected = "B"
        else:
            on_pmem = pages - item["memmap"]["in_ram"]
            expected = "D" if on_pmem > 0 else None
        assert item["case"] == expected


@pytest.mark.parametrize("case", [c for c in CASES if c.format == "raw"], ids=str)
def test_struct_pages_on_pmem_that_no_header_covers_are_absent(case: Case) -> None:
    covered = any(segment["pmem"] for segment in case.json("pmem-segments"))
    seen = 0
    for item in namespaces(case).values():
        if item["location"] == "pmem":
            seen += 1
            assert set(item["struct_pages"]) == ({"saved"} if covered else {"absent"})
            if not covered:
                assert "none were saved" in item["verdict"]
                assert "absent" in item["verdict"]
                assert "--map=mem" in item["advice"]
    assert seen


def test_advice_is_for_this_very_dump(case: Case) -> None:
    """Who wrote the crash header, and whether makedumpfile could have done better."""
    if case.format.startswith("qemu") or any(s["pmem"] for s in case.json("pmem-segments")):
        pytest.skip("persistent memory is in this dump")
    absent = [i for i in namespaces(case).values() if set(i["struct_pages"]) == {"absent"}]
    assert absent
    for item in absent:
        assert f"-e {item['namespace']} --map=mem" in item["advice"]
        if "devm_memmap_vmcore_head" not in case.truth("kallsyms"):
            if case.sample.loader == "fadump":
                assert "a firmware-assisted dump has RAM only" in item["advice"]
                assert "(keep nd_pmem, papr_scm out of it)" in item["advice"]
                continue
            assert re.search(rf"\b{case.sample.loader}\b", item["advice"])
            compressed = open_dump(case.dump).kdump is not None
            assert ("no option of makedumpfile (-d " in item["advice"]) is compressed
            assert "virsh dump --memory-only" in item["advice"]


def test_ram_is_marked_only_by_a_kernel_that_marks_it(case: Case) -> None:
    """Pmem used as RAM: kexec-tools mark none, whatever list the kernel has."""
    used = [item for item in namespaces(case).values() if item["kmem"]]
    patched = "devm_memmap_vmcore_head" in case.truth("kallsyms")
    marks = patched and case.sample.loader == "kexec_file_load"
    for item in used:
        marked = "the crash header marks it with PF_DEV" in item["advice"]
        assert marked == (marks and not case.format.startswith("qemu"))


def is_clobbered(case: Case) -> bool:
    """The sample whose capture kernel bound the NVDIMMs (vmcores/README.md)."""
    return "clobbered" in case.sample.name


def test_struct_pages_that_the_capture_kernel_overwrote_are_told(case: Case) -> None:
    """Those on the pmem; those in RAM are the crashed kernel's in every sample."""
    for item in namespaces(case).values():
        check = item["check"]
        if check is None:
            continue
        assert check["heads"] > 0
        overwritten = is_clobbered(case) and item["location"] == "pmem"
        assert check["destroyed"] is overwritten
        if overwritten:
            assert check["foreign"] == check["heads"]
            assert check["used"] == 0
            assert check["entries_idle"] == check["entries"] > 0
            assert "initialised again after the crash" in item["verdict"]
            assert "blacklist" in item["advice"]
            out, _ = run_text(case.prog, "pmem-coverage -o namespace,struct_pages")
            assert dict(line.split(None, 1) for line in out.splitlines())[item["namespace"]] == (
                "overwritten"
            )
        else:
            assert check["foreign"] == 0
            assert "initialised again" not in item["verdict"]
    # Where a table says that all were saved, a note says what that is worth.
    for command in ("pmem-namespaces", "pmem-memmap"):
        _, notes = run_text(case.prog, command)
        assert ("saved, but overwritten after the crash" in notes) is is_clobbered(case)


def test_without_debug_info_struct_pages_are_found_all_the_same(case: Case) -> None:
    """By vmcoreinfo and the page tables: the same places and states as with debug info."""
    prog = without_debug_info(case)
    full = {item["start"]: item for item in namespaces(case).values()}
    blocks = [b for b in case.json("pmem-infoblocks") if b.get("infoblock")]
    if not blocks:
        with pytest.raises(drgn_pmem.errors.MissingDebugInfo, match="holds no info block"):
            run_text(prog, "pmem-coverage")
        return
    ours = {item["start"]: item for item in run_json(prog, "pmem-coverage")}
    compared = 0
    for start, item in ours.items():
        if start in full and full[start]["memmap"] is not None:
            compared += 1
            for key in ("location", "struct_pages", "metadata", "userdata", "case"):
                assert item[key] == full[start][key]
        if set(item["struct_pages"]) == {"unmapped"}:  # it was disabled
            assert item["verdict"].startswith("nothing maps its struct pages; ")
    assert compared


# What follows damages a copy of a dump in one place and asks what we say of it.


@pytest.fixture(scope="module")
def elf_case() -> Case:
    found = [
        c
        for c in CASES
        if c.format == "elf"
        and not is_clobbered(c)
        and any(s["pmem"] for s in c.json("pmem-segments"))
    ]
    if not found:
        pytest.skip("no ELF dump by makedumpfile with pmem in it")
    return found[0]


@pytest.fixture
def copy(elf_case: Case, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "vmcore"
    shutil.copyfile(elf_case.dump, path)
    yield path
    path.unlink()


def victim(case: Case) -> dict[str, Any]:
    """A file system's namespace with all its struct pages on the pmem, and files on it."""
    return next(
        item
        for item in namespaces(case).values()
        if item["mode"] == "fsdax"
        and item["location"] == "pmem"
        and set(item["struct_pages"]) == {"saved"}
        and item["check"]["used"] > 16
    )


def place(case: Case, item: dict[str, Any]) -> tuple[int, int, int]:
    """(file offset of its struct pages, their bytes, number of the program header)."""
    first = int(item["memmap"]["first_physical"], 16)
    size = item["memmap"]["size"]
    assert int(item["memmap"]["last_physical"], 16) - first + 64 == size
    for number, (offset, _, start, in_file, _) in enumerate(readelf(case)):
        if start <= first and first + size <= start + in_file:
            return offset + first - start, size, number
    raise AssertionError("its struct pages are in more than one segment")


def opened(case: Case, path: Path) -> Program:
    return open_crash(case.sample, path)


def answer_for(prog: Program, name: str) -> dict[str, Any]:
    (item,) = run_json(prog, f"pmem-coverage {name}")
    found: dict[str, Any] = item
    return found


def test_struct_pages_left_out_are_excluded_never_zero(elf_case: Case, copy: Path) -> None:
    item = victim(elf_case)
    _, size, number = place(elf_case, item)
    first = int(item["memmap"]["first_physical"], 16)
    start = readelf(elf_case)[number][2]
    with copy.open("r+b") as file:
        # p_filesz of that header: as makedumpfile writes what it left out. PT_NOTE comes first.
        header = 64 + 56 * (number + 1)
        file.seek(header)
        assert file.read(4) == (1).to_bytes(4, "little")
        file.seek(header + 32)
        file.write((first - start).to_bytes(8, "little"))
    plain = Program()
    plain.set_core_dump(str(copy))
    assert plain.read(first, 64, True) == bytes(64), "drgn reads zero flags"
    prog = opened(elf_case, copy)
    shown = answer_for(prog, item["namespace"])
    assert shown["struct_pages"] == {"excluded": size}
    assert "excluded" in shown["verdict"]
    assert shown["check"] is None
    pfn = item["memmap"]["first_pfn"] + 5
    (page,) = run_json(prog, f"pmem-page {pfn:#x}")
    assert page["state"] == "excluded"
    assert {page[key] for key in ("refcount", "mapping", "flags", "pgmap")} == {None}


def test_struct_pages_beyond_the_end_of_the_file_are_truncated(elf_case: Case, copy: Path) -> None:
    item = victim(elf_case)
    offset, size, _ = place(elf_case, item)
    with copy.open("r+b") as file:
        file.truncate(offset + size // 2 // elf_case.page * elf_case.page)
    prog = opened(elf_case, copy)
    shown = answer_for(prog, item["namespace"])
    assert shown["struct_pages"].keys() == {"saved", "truncated"}
    assert abs(shown["struct_pages"]["truncated"] - size // 2) <= elf_case.page
    assert "truncated" in shown["verdict"]
    assert "more space" in shown["advice"]
    pfn = item["memmap"]["first_pfn"] + item["memmap"]["npfns"] - 5
    (page,) = run_json(prog, f"pmem-page {pfn:#x}")
    assert page["state"] == "truncated"
    assert {page[key] for key in ("refcount", "mapping", "flags", "pgmap")} == {None}


def test_struct_pages_that_read_as_zero_count_as_excluded(elf_case: Case, copy: Path) -> None:
    item = victim(elf_case)
    offset, size, _ = place(elf_case, item)
    holes = 100 * elf_case.page
    with copy.open("r+b") as file:
        file.seek(offset + 7 * elf_case.page)
        file.write(bytes(holes))
    shown = answer_for(opened(elf_case, copy), item["namespace"])
    assert shown["struct_pages"] == {"saved": size - holes, "excluded": holes}
    assert shown["check"]["zero"] == holes // 64
    assert shown["check"]["destroyed"] is False
    assert any("read as zero" in note for note in shown["notes"])


def reinitialise(path: Path, case: Case, item: dict[str, Any], pgmap: int | None) -> None:
    """What memmap_init_zone_device() of another kernel writes: its page map, no mapping, no use."""
    offset, size, _ = place(case, item)
    page = case.prog.type("struct page")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        words = np.frombuffer(view, np.uint64, size // 8, offset).reshape(-1, 8)
        if pgmap is not None:
            words[:, page.member("lru").offset // 8] = pgmap
        words[:, page.member("mapping").offset // 8] = 0
        words[:, page.member("index").offset // 8] = 0
        halves = np.frombuffer(view, np.uint32, size // 4, offset).reshape(-1, 16)
        halves[:, page.member("_mapcount").offset // 4] = 0xFFFFFFFF
        halves[:, page.member("_refcount").offset // 4] = 1
        del words, halves


@pytest.mark.parametrize("same_pgmap", [False, True], ids=["another-pgmap", "same-pgmap"])
def test_struct_pages_of_the_capture_kernel_are_no_one_elses(
    elf_case: Case, copy: Path, same_pgmap: bool
) -> None:
    """Also where the page map happens to lie at the same address: the files tell."""
    item = victim(elf_case)
    reinitialise(copy, elf_case, item, None if same_pgmap else 0xFFFF888001234500)
    prog = opened(elf_case, copy)
    shown = answer_for(prog, item["namespace"])
    assert shown["check"]["destroyed"] is True
    assert shown["check"]["used"] == 0
    assert shown["check"]["entries_idle"] == shown["check"]["entries"] > 16
    assert (shown["check"]["foreign"] == 0) == same_pgmap
    assert "initialised again after the crash" in shown["verdict"]
    assert "nfit" in shown["advice"]
    others = [n for n in run_json(prog, "pmem-coverage") if n["namespace"] != item["namespace"]]
    assert not any(n["check"] and n["check"]["destroyed"] for n in others)


def test_text_names_every_namespace_with_verdict_and_advice(case: Case) -> None:
    out, _ = run_text(case.prog, "pmem-coverage")
    for name, item in namespaces(case).items():
        assert f"{name}: {item['verdict']}." in out
        assert item["advice"] in out
    rows, _ = run_text(case.prog, "pmem-coverage -H -o namespace,case")
    shown = dict(line.split("\t") for line in rows.splitlines())
    assert shown == {name: item["case"] or "-" for name, item in namespaces(case).items()}


def test_one_namespace_is_the_same_as_in_the_list(case: Case) -> None:
    for name, item in namespaces(case).items():
        if re.fullmatch(r"namespace\d+\.0", name):
            assert run_json(case.prog, f"pmem-coverage {name}") == [item]
