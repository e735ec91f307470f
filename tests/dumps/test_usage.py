# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""pmem-usage says what makedumpfile reports, and what iomem and sysfs recorded of pmem."""

from pathlib import Path
import platform
import re
import shutil
import subprocess

import pytest

from drgn_pmem.shell.sample import Sample

from ..samples import CASES, Case, open_crash, recorded_pmem, run_json, run_text
from .test_segments import ELF_CASES, iomem, readelf

pytestmark = pytest.mark.holds("pmem-usage")


def report(raw: Path, out: Path, *options: str) -> dict[str, int]:
    """What makedumpfile reports while it makes a dump."""
    command = ["makedumpfile", "--message-level", "16", *options, str(raw), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return read_report(done.stdout + done.stderr)


def read_report(text: str) -> dict[str, int]:
    lines = re.findall(r"^ *([A-Z][\w -]*?) *: 0x(\w+)", text, re.MULTILINE)
    return {name: int(value, 16) for name, value in lines}


def test_counts_are_those_that_makedumpfile_reports(sample: Sample, tmp_path: Path) -> None:
    if shutil.which("makedumpfile") is None or "raw" not in sample.formats:
        pytest.skip("makedumpfile is not installed, or there is no raw dump")
    if sample.architecture != platform.machine():
        pytest.skip(
            f"makedumpfile reads dumps of its own machine only, not of {sample.architecture}"
        )
    out = tmp_path / "vmcore"
    # Without bit 1: pages of zeroes stay in a kdump-compressed dump, whatever is reported.
    theirs = report(sample.dump("raw"), out, "-c", "-d", "30")
    before = run_json(Case(sample, "raw").prog, "pmem-usage")
    more = before["overlap"] - before["partial_pages"]
    assert before["original"] + more == theirs["Original pages"]
    assert before["memory_hole"] - more == theirs["Memory Hole"]
    assert before["total"] == theirs["Total pages"]
    after = run_json(open_crash(sample, out), "pmem-usage")
    assert after["original"] == before["original"] - before["partial_pages"]
    assert after["total"] == theirs["Total pages"]
    # makedumpfile drops the part of a page that ends RAM without counting it.
    case = Case(sample, "raw")
    parts = sum(end % case.page != 0 for _, end in iomem(case, "System RAM"))
    assert 0 <= after["excluded"] - theirs["Excluded pages"] <= parts
    assert after["remaining"] == after["original"] - after["excluded"]


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if (case.sample.truth / f"makedumpfile.{case.format}").exists()],
    ids=str,
)
def test_counts_are_those_that_makedumpfile_reported(case: Case) -> None:
    """When it made this file; it counts a page that two headers share twice."""
    theirs = read_report(case.truth(f"makedumpfile.{case.format}"))
    raw = run_json(Case(case.sample, "raw").prog, "pmem-usage")
    ours = case.json("pmem-usage")
    # A bitmap has whole pages, an ELF header has bytes.
    lost = raw["partial_pages"] if case.format != "elf" else 0
    more = raw["overlap"] - lost
    assert raw["original"] + more == theirs["Original pages"]
    assert raw["memory_hole"] - more == theirs["Memory Hole"]
    assert raw["partial_pages"] == sum(
        (start + size) % case.page != 0
        for _, _, start, _, size in readelf(Case(case.sample, "raw"))
    )
    assert ours["original"] == raw["original"] - lost
    assert ours["total"] == theirs["Total pages"]
    if case.format == "zlib":
        # pages of zeroes stay in a kdump-compressed dump, whatever is reported
        assert ours["zero"] == theirs["Pages filled with zero"]
        assert ours["excluded"] + ours["zero"] == theirs["Excluded pages"]
        assert ours["overlap"] is None


@pytest.mark.parametrize("case", ELF_CASES, ids=str)
def test_counts_of_an_elf_dump_are_those_of_readelf(case: Case) -> None:
    there: set[int] = set()
    saved: set[int] = set()
    truncated: set[int] = set()
    end = case.dump.stat().st_size
    for offset, _, start, in_file, size in readelf(case):
        # A page counts where its first byte is. (Of a page that a segment has only the end of, as
        # the second of a firmware-assisted dump may, makedumpfile 1.7.8 counts that, too.)
        first = -(-start // case.page)
        there.update(range(first, -(-(start + size) // case.page)))
        saved.update(range(first, -(-(start + in_file) // case.page)))
        if offset + in_file > end:
            held = max(0, end - offset)
            truncated.update(range((start + held) // case.page, -(-(start + in_file) // case.page)))
    ours = case.json("pmem-usage")
    assert ours["truncated"] == len(truncated)
    assert ours["original"] == len(there)
    assert ours["remaining"] == len(saved)
    assert ours["excluded"] == len(there - saved)
    assert ours["total"] == max(there) + 1


def test_pmem_pages_are_those_that_the_machine_recorded(case: Case) -> None:
    """Metadata: what lies before the data of map=dev namespaces; all other pmem is user data."""
    sysfs = case.truth("sysfs.nd")
    devices: dict[str, dict[str, str]] = {}
    for device, attribute, value in re.findall(r"^([\w.]+)/(\w+)=([^|\n]*)", sysfs, re.MULTILINE):
        devices.setdefault(device, {})[attribute] = value
    metadata = sum(
        int(claim["resource"], 16) - int(devices[claim["namespace"]]["resource"], 16)
        for device, claim in devices.items()
        if re.match(r"(pfn|dax)\d", device) and claim.get("mode") == "pmem" and claim["namespace"]
    )
    pmem = sum(b - a for a, b in recorded_pmem(case))
    ram = sum(b - a for a, b in iomem(case, "System RAM (kmem)"))
    ours = case.json("pmem-usage")
    assert sum(ours["pmem_metadata"].values()) * case.page == metadata
    assert sum(ours["pmem_userdata"].values()) * case.page == pmem - ram - metadata


def test_lines_are_makedumpfiles(case: Case) -> None:
    out, _ = run_text(case.prog, "pmem-usage -H -o line,pages,hex")
    rows = [line.split("\t") for line in out.splitlines()]
    ours = case.json("pmem-usage")
    zero = [row for row in rows if row[0].strip() == "Pages filled with zero"]
    assert [int(pages) for _, pages, _ in zero] == ([] if ours["zero"] is None else [ours["zero"]])
    rows = [row for row in rows if row not in zero]
    assert [name.strip() for name, _, _ in rows] == [
        "Original pages",
        "Excluded pages",
        "Remaining pages",
        "Memory Hole",
        "Total pages",
        "pmem metadata pages",
        "pmem userdata pages",
    ]
    assert [int(pages) for _, pages, _ in rows][:5] == [
        ours[key] for key in ("original", "excluded", "remaining", "memory_hole", "total")
    ]
    assert all(int(pages) == int(shown, 16) for _, pages, shown in rows)
