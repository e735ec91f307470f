# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every media error of the lab is found, with what it hit, and no other."""

import re
from typing import Any

import pytest

from drgn_pmem.analysis.pages.words import parse_page

from ..samples import Case, run_json, run_text, truth_pages
from .truth_owners import data_starts, events, recorded, shown_path, sysfs

pytestmark = pytest.mark.holds("pmem-poison")

SECTOR = 512


@pytest.fixture(autouse=True)
def _recorded(case: Case) -> None:
    recorded(case)


def poisoned(case: Case) -> dict[int, dict[str, Any]]:
    return {page["pfn"]: page for page in run_json(case.prog, "pmem-poison")}


def lines(case: Case, name: str) -> list[dict[str, str]]:
    """key=value lines of a file of the truth; none if it was not made."""
    if not (case.sample.truth / name).exists():
        return []
    return [
        dict(word.split("=", 1) for word in line.split() if "=" in word)
        for line in case.truth(name).splitlines()
        if "=" in line
    ]


def expected(case: Case) -> dict[int, dict[str, Any]]:
    """PFN -> what the lab did there."""
    found: dict[int, dict[str, Any]] = {}
    log = case.truth("dmesg")
    for event in events(case, "HWPOISON"):
        # A kernel without CONFIG_MEMORY_FAILURE refuses; one without memory_failure_dev_pagemap()
        # poisons the page, and then cannot do anything about those who use it.
        failed = f"Memory failure: {event.number('pfn'):#x}: recovery action" in log
        if event.number("pfn") and (event.number("madvise") == 0 or failed):
            found[event.number("pfn")] = {
                "path": event.values["path"],
                "offset": event.number("fileoff"),
                "source": "kernel log",
            }
    for check in lines(case, "machine-checks"):
        found[int(check["address"], 0) // case.page] = {
            "path": check.get("path"),
            "offset": int(check.get("fileoff", "0"), 0),
            "source": "ndbus0 badrange",
        }
    for bad in lines(case, "badblocks"):
        start = data_starts(case)[bad["device"]] + int(bad["sector"]) * SECTOR
        found[start // case.page] = {
            "path": bad["path"],
            "offset": int(bad["fileoff"], 0),
            "source": f"{bad['device']} badblocks",
        }
    return found


def test_every_media_error_is_found_and_no_other(case: Case) -> None:
    assert set(poisoned(case)) == set(expected(case))


def test_each_names_the_file_the_offset_and_who_dies(case: Case) -> None:
    victims: dict[tuple[str, int], set[int]] = {}
    for page in truth_pages(case.sample):
        victims.setdefault((shown_path(page), page.offset), set()).add(page.pid)
    found = poisoned(case)
    for pfn, truth in expected(case).items():
        page = found[pfn]
        assert truth["source"] in page["sources"]
        if truth["path"] is None:
            continue
        (owner,) = page["owners"]
        assert (owner["path"], owner["offset"]) == (truth["path"], truth["offset"])
        pids = {process["pid"] for process in page["processes"]}
        assert pids == victims[truth["path"], truth["offset"]]
        assert pids
        assert page["place"] == "data"


def test_pmem_page_names_who_reports_the_page_as_bad(case: Case) -> None:
    """The page after each bad one is good, unless it is bad itself."""
    bad = expected(case)
    if not bad:
        return  # the lab hurt no page of this machine
    asked = sorted(bad | dict.fromkeys(pfn + 1 for pfn in bad))
    pages = run_json(case.prog, "pmem-page " + " ".join(f"pfn:{pfn:#x}" for pfn in asked))
    assert [page["pfn"] for page in pages] == asked
    for page in pages:
        if page["pfn"] in bad:
            assert bad[page["pfn"]]["source"] in page["poison"]
        else:
            assert page["poison"] == [] or (page["poison"] is None and page["state"] != "saved"), (
                "not known without the struct page"
            )


def test_the_dimm_is_that_of_the_region(case: Case) -> None:
    """As ndctl listed the mappings of the regions: e820 and virtio-pmem have none."""
    regions = {
        region["dev"]: [mapping["dimm"] for mapping in region.get("mappings", [])]
        for bus in case.truth_json("ndctl.all.json")
        for region in bus["regions"]
    }
    namespaces = {
        namespace["dev"]: region["dev"]
        for bus in case.truth_json("ndctl.all.json")
        for region in bus["regions"]
        for namespace in region.get("namespaces", [])
    }
    for page in poisoned(case).values():
        assert page["dimms"] == regions[namespaces[page["namespace"]]]


def test_poison_in_metadata_is_named_as_such(case: Case) -> None:
    found = poisoned(case)
    for check in lines(case, "machine-checks"):
        if "metadata" not in check:
            continue
        page = found[int(check["address"], 0) // case.page]
        assert page["place"] == "struct pages"
        assert page["owners"] == []
        held = page["struct_pages_of"]
        # 64 bytes each, as SIZE(page) of vmcoreinfo says on x86.
        assert held["npfns"] == case.page // 64
        (namespace,) = (
            values
            for device, values in sysfs(case).items()
            if device == page["namespace"] and values["alt_name"] == check["metadata"]
        )
        start = int(namespace["resource"], 0)
        assert start <= held["first_pfn"] * case.page < start + int(namespace["size"])
        # Why no file has it: it is no data, whether or not its own struct page was saved.
        (owners,) = case.json(f"pmem-rmap pfn:{page['pfn']:#x}")
        assert any("not data: no file has it" in note for note in owners["notes"])
        assert not any("no DAX file in memory" in note for note in owners["notes"])
        _, notes = run_text(case.prog, f"pmem-page pfn:{page['pfn']:#x}")
        assert "finds owners" not in notes


def test_offsets_and_sectors_name_the_same_page_again(case: Case) -> None:
    """The offset was counted from the namespace's start: fed back, it named another page."""
    out, _ = run_text(case.prog, "pmem-poison -H -o pfn,namespace,offset,device,sector")
    seen = 0
    for line in out.splitlines():
        pfn, namespace, offset, device, sector = line.split("\t")
        if offset != "-":
            assert parse_page(case.prog, f"{namespace}+{offset}") == int(pfn, 16)
            seen += 1
        if sector != "-" and device != "-" and not device.startswith("dax"):
            assert parse_page(case.prog, f"{device}:{sector}") == int(pfn, 16)
    assert seen or not any(page["data_offset"] for page in poisoned(case).values())


def test_offsets_are_those_of_ndctl(case: Case) -> None:
    """Regions count from their start, block devices from their data, in 512-byte sectors."""
    if not (case.sample.truth / "ndctl-list-RM.json").exists():
        pytest.skip("no list of media errors was recorded")
    resources = {
        device: int(values["resource"], 0)
        for device, values in sysfs(case).items()
        if device.startswith("region")
    }
    ours = sorted(
        (r["source"].split()[0], r["sector"], r["length"] // SECTOR)
        for page in poisoned(case).values()
        for r in page["ranges"]
        if r["source"].startswith("region")
    )
    recorded = sorted(
        (region["dev"], bad["offset"], bad["length"])
        for region in case.truth_json("ndctl-list-RM.json")
        for bad in region.get("badblocks", [])
    )
    assert ours == recorded
    for page in poisoned(case).values():
        for r in page["ranges"]:
            if r["source"].startswith("region"):
                assert int(r["physical"], 16) == (
                    resources[r["source"].split()[0]] + r["sector"] * SECTOR
                )


def test_badblocks_of_block_devices_are_those_of_sysfs(case: Case) -> None:
    if not (case.sample.truth / "badblocks.block").exists():
        pytest.skip("the badblocks of block devices were not recorded")
    ours = sorted(
        (r["sector"], r["length"] // SECTOR)
        for page in poisoned(case).values()
        for r in page["ranges"]
        if r["source"].startswith("pmem")
    )
    recorded = sorted(
        (int(start), int(length))
        for line in case.truth("badblocks.block").splitlines()
        if line.startswith("pmem")
        for start, length in re.findall(r"(\d+) (\d+)\|", line.partition("=")[2])
    )
    assert ours == recorded


def test_the_counter_is_compared_with_the_struct_pages_that_were_saved(case: Case) -> None:
    """A bad page whose struct page the dump lacks is none the less a bad page that was found."""
    _, notes = run_text(case.prog, "pmem-poison")
    for marked in re.findall(r"PG_hwpoison is set in the struct pages of (\d+) of", notes):
        found = poisoned(case).values()
        assert int(marked) == sum("HWPoison" in page["sources"] for page in found)
        assert "poisoned pmem pages were found" not in notes


def test_the_arithmetic_is_shown(case: Case) -> None:
    for page in poisoned(case).values():
        text = " ".join(page["arithmetic"])
        assert f"{int(page['physical'], 16):#x}" in text
        if page["sector"] is not None:
            assert f"sector {page['sector']}" in text
            start = data_starts(case)[page["device"]]
            assert start + page["sector"] * SECTOR == int(page["physical"], 16)
    out, err = run_text(case.prog, "pmem-poison -v")
    for pfn in poisoned(case):
        assert f"{pfn:#x}" in out
        assert f"PFN {pfn:#x}:" in err
