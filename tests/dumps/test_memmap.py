# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""pmem-memmap agrees with iomem, sysfs and the list that plain drgn walks."""

import contextlib
import re
from typing import Any

from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import pfn_to_page
import pytest

from drgn_pmem.errors import NotFound
from drgn_pmem.kernel.devm_memmap import for_each_memmap_entry, for_each_memmap_entry_vmcoreinfo

from ..samples import (
    CUT_SHORT,
    Case,
    dax_without_namespace,
    physical_of_struct_page,
    recorded_pmem,
    run_json,
    without_debug_info,
)

pytestmark = pytest.mark.holds("pmem-memmap")


def recorded_sysfs(case: Case) -> dict[str, dict[str, str]]:
    """/sys/bus/nd/devices as recorded: device -> attribute -> value."""
    devices: dict[str, dict[str, str]] = {}
    for line in case.truth("sysfs.nd").splitlines():
        path, _, value = line.partition("=")
        device, _, attribute = path.partition("/")
        devices.setdefault(device, {})[attribute] = value.rstrip("|")
    return devices


def recorded_claims(case: Case) -> dict[str, dict[str, str]]:
    """namespace -> sysfs attributes of the pfn or dax device that holds it."""
    return {
        attributes["namespace"]: attributes
        for device, attributes in recorded_sysfs(case).items()
        if re.match(r"(pfn|dax)\d", device) and attributes.get("namespace")
    }


def recorded_iomem(case: Case, wanted: str) -> list[tuple[str, int, int]]:
    """(name, start, end exclusive) of the lines of /proc/iomem whose name starts so."""
    return [
        (name, int(start, 16), int(end, 16) + 1)
        for start, end, name in re.findall(
            r"^ *(\w+)-(\w+) : (.*)$", case.truth("iomem"), re.MULTILINE
        )
        if name.startswith(wanted)
    ]


def memmaps(case: Case) -> dict[str, dict[str, Any]]:
    """Records of enabled namespaces by name; those of stray list entries have no ``mode``."""
    return {m["namespace"]: m for m in case.json("pmem-memmap") if "mode" in m}


def test_every_claimed_namespace_is_there(case: Case) -> None:
    ours = {name for name, memmap in memmaps(case).items() if memmap["map"] is not None}
    # without a label a region maps the pages of its raw namespace: ndctl calls that fsdax
    mapped = {
        namespace["dev"]
        for bus in case.truth_json("ndctl.json")
        for region in bus["regions"]
        for namespace in region.get("namespaces", [])
        if "map" in namespace
    }
    assert ours == set(recorded_claims(case)) | mapped | set(dax_without_namespace(case))


def test_info_block_in_ram_is_what_sysfs_showed(case: Case) -> None:
    for name, claim in recorded_claims(case).items():
        memmap = memmaps(case)[name]
        block = memmap["infoblock_ram"]
        start = int(memmap["resource"], 16) + block["start_pad"]
        assert hex(start + block["dataoff"]) == claim["resource"]
        assert memmap["size"] == int(claim["size"])
        assert block["uuid"] == claim["uuid"]
        assert {1: "ram", 2: "pmem"}[block["mode"]] == claim["mode"]
        assert block["align"] == int(re.sub(r".*\[(\d+)\].*", r"\1", claim["align"]))


def test_namespaces_lie_where_iomem_had_them(case: Case) -> None:
    recorded = {name: start for name, start, _ in recorded_iomem(case, "namespace")}
    ours = {name: int(memmap["resource"], 16) for name, memmap in memmaps(case).items()}
    assert recorded
    for name, start in recorded.items():
        assert ours[name] == start


def test_list_is_the_one_that_plain_drgn_walks(case: Case) -> None:
    try:
        head = case.prog["devm_memmap_vmcore_head"]
    except KeyError:
        assert all(memmap["list"] is None for memmap in memmaps(case).values())
        with pytest.raises(NotFound, match="keeps no devm_memmap_vmcore list"):
            list(for_each_memmap_entry(case.prog))
        return
    plain = [
        (entry.start.value_(), entry.end.value_())
        for entry in list_for_each_entry("struct devm_memmap_vmcore", head.address_of_(), "entry")
    ]
    ours = [(e.start_pfn, e.end_pfn) for e in for_each_memmap_entry(case.prog)]
    assert ours == plain
    assert ours == [(e.start_pfn, e.end_pfn) for e in for_each_memmap_entry_vmcoreinfo(case.prog)]
    listed = [m["list"] for m in memmaps(case).values() if m["list"] is not None]
    live = {(e["start_pfn"], e["end_pfn"]) for e in listed if e["state"] == "live"}
    assert live == {
        (start // case.page, int(claim["resource"], 16) // case.page)
        for name, claim in recorded_claims(case).items()
        if claim["mode"] == "pmem"
        for start in [int(memmaps(case)[name]["resource"], 16)]
    }


def test_struct_pages_lie_where_drgn_finds_the_first_and_the_last(case: Case) -> None:
    regions = [(start, end) for _, start, end in recorded_iomem(case, "Persistent Memory")]
    regions = regions or recorded_pmem(case)  # POWER names none
    size = case.prog.type("struct page").size
    assert size is not None
    seen = 0
    for memmap in memmaps(case).values():
        pages = memmap["struct_pages"]
        if pages is None:
            continue
        seen += 1
        first, last = pages["first_pfn"], pages["first_pfn"] + pages["npfns"] - 1
        for pfn, ours in ((first, pages["first_physical"]), (last, pages["last_physical"])):
            address = pfn_to_page(case.prog, pfn).value_()
            assert int(ours, 16) == physical_of_struct_page(case.prog, address)
        places = [
            any(start <= physical < end for start, end in regions)
            for offset in range(0, pages["npfns"] * size, case.page)
            for address in [int(pages["virtual"], 16) + offset]
            for physical in [physical_of_struct_page(case.prog, address)]
        ]
        assert pages["on_pmem"] == min(case.page * sum(places), pages["npfns"] * size)
        assert pages["in_ram"] == pages["npfns"] * size - pages["on_pmem"]
    assert seen


def test_first_struct_page_that_counts_is_that_of_the_data(case: Case) -> None:
    for name, claim in recorded_claims(case).items():
        if claim["mode"] == "pmem":
            pages = memmaps(case)[name]["struct_pages"]
            assert pages["first_pfn"] == int(claim["resource"], 16) // case.page
            assert pages["npfns"] == int(claim["size"]) // case.page


def test_sources_agree(case: Case) -> None:
    for memmap in memmaps(case).values():
        # Where the dump lacks a source, whether all agree cannot be known.
        lost = case.format.endswith(CUT_SHORT) or memmap["infoblock_media_state"] != "saved"
        unknown = lost and memmap["agree"] is None
        assert memmap["agree"] or unknown, memmap["notes"]


def test_list_entry_of_a_namespace_that_was_disabled_is_stale(case: Case) -> None:
    """The kernel keeps an entry when a namespace is disabled: ndctl knew which one was."""
    disabled = {
        namespace["dev"]
        for bus in case.truth_json("ndctl.all.json")
        for region in bus["regions"]
        for namespace in region.get("namespaces", [])
        if namespace.get("state") == "disabled"
    }
    strays = [m for m in case.json("pmem-memmap") if "mode" not in m]
    assert all(m["list"]["state"] == "stale" for m in strays)
    assert {m["namespace"] for m in strays} <= disabled
    for m in strays:
        assert m["notes"] == [f"{m['namespace']} is disabled"]


def test_without_debug_info_no_entry_is_judged(case: Case) -> None:
    prog = without_debug_info(case)
    entries = [m["list"] for m in run_json(prog, "pmem-memmap")]
    with contextlib.suppress(NotFound):
        expected = [(e.start_pfn, e.end_pfn) for e in for_each_memmap_entry(case.prog)]
        assert [(e["start_pfn"], e["end_pfn"]) for e in entries] == expected
    assert {e["state"] for e in entries} <= {"unknown"}
