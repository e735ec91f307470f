# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""pmem-infoblocks finds what ``ndctl read-infoblock`` and ``ndctl read-labels`` recorded."""

import re
from typing import Any
import uuid

import pytest

from drgn_pmem.dumpfile import coverage_of

from ..samples import CASES, Case, bare, recorded_pmem
from .test_segments import iomem, sysfs

pytestmark = pytest.mark.holds("pmem-infoblocks")


def recorded(case: Case) -> dict[int, tuple[str, dict[str, Any]]]:
    """
    Physical start of a namespace -> its name and what ``ndctl read-infoblock`` printed. It reads
    the files of NVDIMMs; of other namespaces (e820) the uuid is known.
    """
    blocks: dict[int, tuple[str, dict[str, Any]]] = {}
    nvdimms = iomem(case, "Persistent Memory") or recorded_pmem(case)  # POWER names none
    for device in re.findall(
        r"^((?:pfn|dax)[\d.]+)/namespace=namespace", case.truth("sysfs.nd"), re.M
    ):
        claim = sysfs(case, device)
        start = int(sysfs(case, claim("namespace"))("resource"), 16)
        if not any(low <= start < high for low, high in nvdimms):
            blocks[start] = (claim("namespace"), {"uuid": claim("uuid")})
    for file in case.sample.truth.glob("infoblock.*.json"):
        name = file.name.removeprefix("infoblock.").removesuffix(".json")
        found = case.truth_json(file.name)
        start = sysfs(case, name)("resource")
        if found and start:
            (block,) = found
            del block["file"]
            blocks[int(start, 16)] = (name, block)
    assert blocks
    return blocks


def held(case: Case) -> dict[int, tuple[str, dict[str, Any]]]:
    """Those of which the dump holds the block."""
    coverage = coverage_of(case.prog)
    return {s: b for s, b in recorded(case).items() if coverage.saved(s + 0x1000, 0x1000)}


def found(answer: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {
        int(item["start"], 16): item
        for item in answer
        if item["kind"] in ("fsdax", "devdax", "btt")
    }


def assert_blocks(answer: list[dict[str, Any]], truth: dict[int, Any]) -> None:
    ours = found(answer)
    assert set(ours) == set(truth)
    for start, (_, block) in truth.items():
        shown = ours[start]["infoblock"]
        assert {key: shown[key] for key in block} == block
        assert shown["checksum_ok"] is True
        assert int(ours[start]["address"], 16) == start + 0x1000


def test_blocks_are_those_that_ndctl_read(case: Case) -> None:
    answer = case.json("pmem-infoblocks")
    truth = held(case)
    assert_blocks(answer, truth)
    named = {start: item["namespace"] for start, item in found(answer).items()}
    assert named == {start: name for start, (name, _) in truth.items()}


def test_blocks_are_found_without_debug_info(case: Case) -> None:
    answer = bare(case, "pmem-infoblocks")[0]
    assert_blocks(answer, held(case))


def test_a_block_that_the_dump_does_not_hold_is_shown_as_such(case: Case) -> None:
    coverage = coverage_of(case.prog)
    missing = {s: b for s, b in recorded(case).items() if s not in held(case)}
    shown = {
        int(item["start"], 16): item
        for item in case.json("pmem-infoblocks")
        if item["kind"] is None
    }
    for start, (name, _) in missing.items():
        assert shown[start]["namespace"] == name
        assert shown[start]["state"] == coverage.state(start + 0x1000).value
        assert shown[start]["state"] != "saved"
        assert shown[start]["infoblock"] is None


def test_the_chain_of_a_btt_is_whole(case: Case) -> None:
    truth = held(case)
    for start, item in found(case.json("pmem-infoblocks")).items():
        if item["kind"] != "btt":
            continue
        size = int(sysfs(case, truth[start][0])("size"))
        assert item["btt"]["problems"] == []
        last = item["btt"]["arenas"][-1]
        assert last["nextoff"] == 0
        assert last["offset"] + last["info2off"] + 4096 <= size
        assert {arena["backup"] for arena in item["btt"]["arenas"]} <= {"same", "unreadable"}


def recorded_labels(case: Case) -> dict[str, dict[int, dict[str, Any]]]:
    """DIMM -> slot -> label as ``ndctl read-labels`` printed it, before the crash; of a DIMM that
    has none, it prints an empty one."""
    files = sorted(case.sample.truth.glob("labels.*.json"))
    if not files:
        pytest.skip("no labels were recorded")
    dimms = [dimm for file in files for dimm in case.truth_json(file.name)]
    return {
        dimm["dev"]: {
            label["slot"]: label
            for label in dimm["label"]
            if label["uuid"] != str(uuid.UUID(int=0))
        }
        for dimm in dimms
    }


def slots(answer: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [slot for item in answer if item["kind"] == "labels" for slot in item["labels"]["slots"]]


def assert_label(ours: dict[str, Any], truth: dict[str, Any]) -> None:
    for key in ("uuid", "name", "position", "nlabel", "isetcookie", "lbasize", "rawsize", "slot"):
        assert ours[key] == truth[key], key
    assert int(str(ours["dpa"]), 0) == truth["dpa"]


def test_labels_are_those_that_ndctl_read(case: Case) -> None:
    truth = recorded_labels(case)
    ours = {item["dimm"]: item for item in case.json("pmem-infoblocks") if item["kind"] == "labels"}
    assert set(ours) == set(truth)
    for dimm, labels in truth.items():
        shown = ours[dimm]["labels"]["slots"]
        for slot in shown:
            assert_label(slot, labels[slot["index"]])
        assert {slot["uuid"] for slot in shown} == {label["uuid"] for label in labels.values()}


def test_labels_are_found_without_debug_info(case: Case) -> None:
    truth = recorded_labels(case)
    ours = slots(bare(case, "pmem-infoblocks")[0])
    wanted = {label["uuid"] for labels in truth.values() for label in labels.values()}
    assert {slot["uuid"] for slot in ours} == wanted


@pytest.mark.parametrize("case", [c for c in CASES if c.format == "raw"], ids=str)
def test_the_output_says_where_it_looked(case: Case) -> None:
    flagged = any(segment["pmem"] for segment in case.json("pmem-segments"))
    _, notes = bare(case, "pmem-infoblocks")
    (line,) = re.findall(r"note: searched (.*)", notes)
    assert line.startswith(
        "persistent memory known from PF_DEV" if flagged else "all saved memory at every 2 MiB"
    )
