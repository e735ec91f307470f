# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What vmlinux alone tells of the namespaces is what sysfs and ndctl said of them."""

from typing import Any

from drgn_pmem.kernel.outline import NamespaceOutline, for_each_outline

from ..samples import Case
from .test_memmap import recorded_sysfs


def recorded(case: Case) -> dict[str, dict[str, Any]]:
    """Enabled namespaces by name, as ndctl listed them."""
    return {
        namespace["dev"]: namespace
        for bus in case.truth_json("ndctl.json")
        for region in bus["regions"]
        for namespace in region.get("namespaces", [])
    }


def outlines(case: Case) -> dict[str, NamespaceOutline]:
    return {outline.dev: outline for outline in for_each_outline(case.prog)}


def test_they_are_the_enabled_namespaces(case: Case) -> None:
    assert set(outlines(case)) == set(recorded(case))


def test_each_lies_where_sysfs_had_it(case: Case) -> None:
    sysfs = recorded_sysfs(case)
    for name, outline in outlines(case).items():
        assert outline.start == int(sysfs[name]["resource"], 16)
        size = outline.end - outline.start
        if outline.pgmap or recorded(case)[name]["mode"] in ("sector", "raw"):
            assert size == int(sysfs[name]["size"])
        else:
            # In system-ram mode (kmem), and nothing tells: its metadata at least.
            assert recorded(case)[name]["mode"] == "devdax"
            assert 0 < size <= int(sysfs[name]["size"])
        (region,) = (
            region["dev"]
            for bus in case.truth_json("ndctl.json")
            for region in bus["regions"]
            if any(n["dev"] == name for n in region.get("namespaces", []))
        )
        assert outline.region == region


def test_what_it_says_of_mode_map_device_and_size_is_what_ndctl_said(case: Case) -> None:
    told = set()
    for name, outline in outlines(case).items():
        truth = recorded(case)[name]
        if outline.mode is not None:
            told.add(outline.mode)
            assert outline.mode == truth["mode"]
        if outline.map is not None:
            assert outline.map == truth["map"]
        if outline.data is not None:
            assert outline.end - outline.data == truth["size"]
        if outline.chardev is not None:
            assert outline.chardev == truth["daxregion"]["devices"][0]["chardev"]
    assert told == {"fsdax", "devdax"}
