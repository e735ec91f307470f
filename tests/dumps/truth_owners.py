# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the truth of a sample says about pages, files and processes, parsed for several tests."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
import functools
from pathlib import Path
import re
from typing import Any

import pytest

from ..samples import (
    Case,
    TruthPage,
    dax_without_namespace,
    page_size,
    recorded_pmem,
    samples,
    truth_pages,
)

__all__ = (
    "Event",
    "data_starts",
    "events",
    "extents",
    "is_pmem",
    "kept_by_memory_failure",
    "marked_as_reserved",
    "pages",
    "physical_of_sector",
    "recorded",
    "recorded_extents",
    "shown_path",
)

SECTOR = 512


def recorded(case: Case) -> None:
    """Skip the test if nobody recorded what the sample's processes mapped (it has no pmem)."""
    if not any(case.sample.truth.glob("final.*.txt")):
        pytest.skip("no process of this sample maps persistent memory")


@dataclass(frozen=True)
class Event:
    """A line of map.COMM.txt: what a process did."""

    what: str
    values: dict[str, str]

    def number(self, key: str) -> int:
        return int(self.values[key], 0)


def events(case: Case, *wanted: str) -> list[Event]:
    """Lines that start with one of the words; each once."""
    found = []
    for file in sorted(case.sample.truth.glob("map.*.txt")):
        for line in file.read_text().splitlines():
            what, _, rest = line.partition(" ")
            if what in wanted:
                event = Event(what, dict(re.findall(r"(\w+)=(\S+)", rest)))
                if event not in found:
                    found.append(event)
    return found


def marked_as_reserved(case: Case) -> set[int]:
    """
    PFNs that a kernel which does not know persistent memory in memory_failure() (before v4.19)
    marked as poisoned and could not handle, the pages of the memmap among them. It keeps its
    reference to each.
    """
    line = r"Memory failure: (0x\w+): recovery action for reserved kernel page: Failed"
    return {int(pfn, 16) for pfn in re.findall(line, case.truth("dmesg"))}


def kept_by_memory_failure(case: Case) -> dict[int, str]:
    """PFNs of files among them -> the file."""
    files = {event.number("pfn"): event.values["path"] for event in events(case, "HWPOISON")}
    checks = case.sample.truth / "machine-checks"
    lines = checks.read_text() if checks.exists() else ""
    for address, path in re.findall(r"MCE address=(\w+) path=(\S+)", lines):
        files[int(address, 16) // case.page] = path
    return {pfn: files[pfn] for pfn in marked_as_reserved(case) & files.keys()}


@functools.cache
def iomem(truth: Path, name: str) -> list[tuple[int, int]]:
    """(start, end exclusive) of the lines of /proc/iomem with a name."""
    return [
        (int(start, 16), int(end, 16) + 1)
        for start, end, text in re.findall(
            r"^ *(\w+)-(\w+) : (.*)$", (truth / "iomem").read_text(), re.MULTILINE
        )
        if text == name
    ]


def is_pmem(case: Case, pfn: int) -> bool:
    """Whether a page is of a region or of a DAX device without one, and not System RAM on it."""
    address = pfn * case.page

    def inside(name: str) -> bool:
        return any(start <= address < end for start, end in iomem(case.sample.truth, name))

    regions = any(start <= address < end for start, end in recorded_pmem(case))
    devices = any(inside(device) for device in dax_without_namespace(case))
    return (regions or devices) and not inside("System RAM (kmem)")


def pages(case: Case, present: bool) -> list[TruthPage]:
    """
    Pages of the last recording. Every one for a sample's first format; for the others, which hold
    the same memory, all but every sixteenth page of 2 MiB mappings are left out.
    """
    return _pages(case.sample.name, case.format == next(iter(case.sample.formats)), present)


@functools.cache
def _pages(name: str, every: bool, present: bool) -> list[TruthPage]:
    sample = samples()[name]
    found = list(truth_pages(sample))
    page_bytes = page_size(sample.truth)
    # what an entry of the second lowest page table maps (on POWER, that is less)
    whole = page_bytes // 8
    size = whole * page_bytes
    large = Counter((page.pid, page.path, page.offset // size) for page in found)
    small = {p.pfn for p in found if large[p.pid, p.path, p.offset // size] < whole}
    return [
        page
        for page in found
        if page.present is present and (every or page.pfn in small or page.pfn % 16 == 0)
    ]


def shown_path(page: TruthPage) -> str:
    """The path without what /proc/PID/maps adds to it."""
    return page.path.removesuffix("(deleted)").rstrip()


def sysfs(case: Case) -> dict[str, dict[str, str]]:
    devices: dict[str, dict[str, str]] = {}
    for line in case.truth("sysfs.nd").splitlines():
        path, _, value = line.partition("=")
        device, _, attribute = path.partition("/")
        devices.setdefault(device, {})[attribute] = value.rstrip("|")
    return devices


def namespaces(case: Case) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if str(value.get("dev", "")).startswith("namespace"):
                found.append(value)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(case.truth_json("ndctl.json"))
    return found


def data_starts(case: Case) -> dict[str, int]:
    """Block device -> physical address of its sector 0."""
    starts = {
        claim["namespace"]: int(claim["resource"], 0)
        for device, claim in sysfs(case).items()
        if re.match(r"(pfn|dax)\d", device) and claim.get("namespace")
    }
    found = {}
    for n in namespaces(case):
        if "blockdev" in n and n["dev"] in starts:
            found[n["blockdev"]] = starts[n["dev"]]
        elif "blockdev" in n and "map" in n:  # without a label nothing claims it (virtio-pmem)
            found[n["blockdev"]] = int(sysfs(case)[n["dev"]]["resource"], 0)
    return found


def physical_of_sector(case: Case, source: str, sector: int) -> int:
    """
    Physical address of a sector of a mounted device.

    :param source: As /proc/mounts names it.
    """
    starts = data_starts(case)
    name = source.removeprefix("/dev/")
    if name in starts:
        return starts[name] + sector * SECTOR
    # dm-linear: its pieces lie on the namespace that the lab named after it.
    (below,) = (n["blockdev"] for n in namespaces(case) if n.get("name") == "lab-dm")
    table = name.removeprefix("mapper/")
    for line in case.truth("dmsetup.table").splitlines():
        device, start, length, target, _, base = line.split()
        first = int(start)
        if device == f"{table}:" and target == "linear" and first <= sector < first + int(length):
            return starts[below] + (int(base) + sector - first) * SECTOR
    raise AssertionError(f"{source} has no sector {sector}")


def recorded_extents(case: Case) -> Iterator[tuple[str, int, int, int]]:
    """(path, byte offset in the file, first 512-byte sector, bytes) as fiemap said."""
    path = ""
    for line in case.truth("fiemap").splitlines():
        if line.startswith("== "):
            path = line[3:]
            continue
        match = re.match(r" *\d+: \[(\d+)\.\.(\d+)\]: *(\d+)\.\.(\d+)", line)
        if match:
            first, last, sector, _ = (int(g) for g in match.groups())
            yield path, first * SECTOR, sector, (last - first + 1) * SECTOR


def extents(case: Case) -> Iterator[tuple[str, int, int, int]]:
    """(path, byte offset in the file, physical address, bytes) as fiemap and the mounts said. A
    mapped dm device may be in several pieces: only its extents' first pages are given."""
    mounts = [line.split()[:2] for line in case.truth("mounts").splitlines()]
    for path, offset, sector, length in recorded_extents(case):
        source, _ = max(
            (m for m in mounts if path.startswith(m[1].rstrip("/") + "/")),
            key=lambda m: len(m[1]),
        )
        physical = physical_of_sector(case, source, sector)
        yield path, offset, physical, min(length, case.page) if "mapper" in source else length
