# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What only a guest without NVDIMMs and without a crash kernel shows: a header that nobody loaded, and
a namespace of which half is padding. Memory of every provider is in the tests of all samples.
"""

import re
from typing import Any

import pytest

from ..samples import CASES, Case, run_text
from .test_elfcorehdr import headers, ram

GIB = 1 << 30
LOW = 1 << 20
"""Bytes that the kernel leaves out of the header: 1 MiB (since v5.10)."""

NOTHING_LOADED = [case for case in CASES if case.sample.loader == "none"]


@pytest.mark.holds("elfcorehdr")
@pytest.mark.parametrize("case", NOTHING_LOADED, ids=str)
def test_a_header_that_nobody_loaded_is_rebuilt_and_compared_with_none(case: Case) -> None:
    result = headers(case)
    assert result.loader is None
    assert result.found is None
    assert result.differences == ()
    assert result.rebuilt is not None
    notes = [p for p in result.rebuilt.phdrs if p.what.startswith("CPU notes")]
    cpus = re.findall(r"^cpu\d+/crash_notes=(\w+)", case.truth("sysfs.cpu"), re.MULTILINE)
    assert [p.physical for p in notes] == [int(address, 16) for address in cpus]
    memory = [(p.physical, p.end) for p in result.rebuilt.loads if p.what == "memory"]
    assert memory == [
        (max(start, LOW), end) for start, end in ram(case.truth("iomem")) if end > LOW
    ]
    text = " ".join(run_text(case.prog, "elfcorehdr"))
    assert "no crash kernel is loaded" in text
    assert "removed" not in text


def aligned(case: Case) -> list[dict[str, Any]]:
    """Namespaces with an alignment of 1 GiB and their struct pages in RAM, by ndctl."""
    return [
        namespace
        for bus in case.truth_json("ndctl.json")
        for region in bus["regions"]
        for namespace in region.get("namespaces", [])
        if (namespace.get("align"), namespace.get("map")) == (GIB, "mem")
    ]


@pytest.mark.holds("pmem-coverage", "pmem-memmap", "pmem-pages")
@pytest.mark.parametrize("case", [case for case in CASES if aligned(case)], ids=str)
def test_padding_to_the_alignment_is_no_memmap_and_no_data(case: Case) -> None:
    for namespace in aligned(case):
        name = namespace["dev"]
        (item,) = (n for n in case.json("pmem-coverage") if n["namespace"] == name)
        whole = int(item["end"], 16) - int(item["start"], 16)
        assert sum(item["userdata"].values()) == namespace["size"] == whole - GIB
        assert sum(item["metadata"].values()) + sum(item["infoblock"].values()) <= 16 << 10
        (memmap,) = (m for m in case.json("pmem-memmap") if m["namespace"] == name)
        assert memmap["infoblock_ram"]["dataoff"] == GIB
        assert memmap["struct_pages"]["on_pmem"] == 0
        groups = [g for g in case.json("pmem-pages") if g["namespace"] == name]
        assert not any(g["status"] == "memmap" for g in groups)
        out, _ = run_text(case.prog, f"pmem-coverage {name}")
        (bar,) = re.findall(r"\[(.*)\]$", out, re.MULTILINE)
        # ASCII: the info block and what is beside it, then free to the middle, then data
        assert re.fullmatch(r"..-+([.#])\1*", bar)
        assert abs(bar.count("-") + 2 - len(bar) // 2) <= 1
