# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Memory devices and regions of CXL, as ``cxl list -vvv`` printed them on the machine."""

from collections.abc import Iterator
import json
from typing import Any

import pytest

from ..samples import CASES, Case
from .test_segments import sysfs

CXL = [case for case in CASES if (case.sample.truth / "cxl.json").exists()]

LEFT_OUT = {"uuid", "qos_class_mismatch", "daxregion"}

pytestmark = [
    pytest.mark.holds("pmem-list"),
    pytest.mark.parametrize("case", CXL, ids=str),
]


def dicts(value: Any) -> Iterator[dict[str, Any]]:
    """Each object of a JSON value, however deep."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from dicts(item)


def recorded(case: Case, name: str, key: str) -> dict[str, dict[str, Any]]:
    """The objects that have both members, by the first."""
    return {
        item[name]: item
        for item in dicts(json.loads(case.truth("cxl.json")))
        if name in item and key in item
    }


def ours(case: Case, line: str) -> list[dict[str, Any]]:
    """What a listing says of CXL in its own facts."""
    return [
        item["dump"]["cxl"]
        for item in dicts(case.json(line))
        if isinstance(item.get("dump"), dict) and "cxl" in item["dump"]
    ]


def as_recorded(region: dict[str, Any]) -> dict[str, Any]:
    """Without the order of its devices, and without what cxl does not print (the uuid), makes up
    (whether classes of quality of service match), or has from daxctl, as test_list.py."""
    mappings = sorted(region["mappings"], key=lambda item: item["position"])
    left = {k: v for k, v in region.items() if k not in LEFT_OUT}
    return {**left, "mappings": mappings}


def test_memory_devices_of_dimms_are_as_recorded(case: Case) -> None:
    theirs = recorded(case, "memdev", "serial")
    memdevs = ours(case, "pmem-list -D")
    persistent = {name for name, item in theirs.items() if "pmem_size" in item}
    assert {memdev["memdev"] for memdev in memdevs} == persistent
    for memdev in memdevs:
        regions = memdev.pop("regions")
        shown = theirs[memdev["memdev"]]
        assert memdev.items() <= shown.items()
        assert {"serial", "pmem_size", "host", "firmware_version"} <= memdev.keys()
        for region in regions:
            wanted = recorded(case, "region", "decode_state")[region["region"]]
            assert as_recorded(region) == as_recorded(wanted)


def test_regions_are_as_recorded(case: Case) -> None:
    """Persistent ones are regions to libnvdimm, volatile ones DAX regions."""
    theirs = recorded(case, "region", "decode_state")
    found = {
        item["region"]: item for item in ours(case, "pmem-list -R") + ours(case, "pmem-list -X")
    }
    assert set(found) == set(theirs)
    assert {item["type"] for item in found.values()} == {"pmem", "ram"}
    assert {item["interleave_ways"] for item in found.values()} == {1, 2}
    for name, region in found.items():
        assert as_recorded(region) == as_recorded(theirs[name])


def test_the_id_of_a_dimm_is_its_serial_number(case: Case) -> None:
    for dimm in case.json("pmem-list -D"):
        assert dimm["id"] == str(dimm["dump"]["cxl"]["serial"])
        assert sysfs(case, dimm["dev"])("devtype") == "nvdimm"
