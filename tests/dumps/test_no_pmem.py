# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dumps of machines that had no persistent memory, by their own /proc/iomem: none is found."""

import pytest

from drgn_pmem.errors import MissingDebugInfo, NotFound

from ..samples import Case, pmem_samples, run_answer, samples
from .test_segments import readelf

WITHOUT = [
    Case(sample, format)
    for sample in samples().values()
    if sample not in pmem_samples()
    for format in sample.formats
]

EMPTY = (
    "pmem-files",
    "pmem-infoblocks",
    "pmem-list",
    "pmem-memmap",
    "pmem-namespaces",
    "pmem-pages",
    "pmem-pins",
    "pmem-poison",
)

each_case = pytest.mark.parametrize("case", WITHOUT, ids=str)


@pytest.mark.holds(*EMPTY, "pmem-coverage")
@pytest.mark.parametrize("command", [*EMPTY, "pmem-coverage"])
@each_case
def test_nothing_is_found(case: Case, command: str) -> None:
    assert "Persistent Memory" not in case.truth("first/iomem")
    try:
        answer, _, _ = run_answer(case.prog, f"{command} --json")
    except (MissingDebugInfo, NotFound):
        return
    assert answer is not None
    assert list(answer.records) == []


@pytest.mark.parametrize("command", ["pmem-coverage", "pmem-list", "pmem-namespaces"])
@each_case
def test_one_line_says_that_there_was_none(case: Case, command: str) -> None:
    """Not what debug info would help: these kernels were built without libnvdimm."""
    with pytest.raises(NotFound, match="this kernel knew of no persistent memory") as error:
        run_answer(case.prog, command)
    # The kernel cannot know what it has no driver for.
    assert "it had no libnvdimm, so NVDIMMs that the machine may have" in str(error.value)


@pytest.mark.holds("pmem-page", "pmem-rmap")
@pytest.mark.parametrize("command", ["pmem-page", "pmem-rmap"])
@each_case
def test_a_page_of_ram_has_no_namespace_and_no_owner(case: Case, command: str) -> None:
    (record,) = case.json(f"{command} 0x100")
    assert record["pfn"] == 0x100
    assert record["namespace"] is None
    assert not record.get("owner")
    assert not record.get("owners")


@pytest.mark.holds("pmem-segments")
@pytest.mark.parametrize("case", [c for c in WITHOUT if c.format == "raw"], ids=str)
def test_segments_are_those_of_readelf(case: Case) -> None:
    ours = case.json("pmem-segments")
    assert [
        (
            segment["file_offset"],
            int(segment["virtual"], 16),
            int(segment["physical"], 16),
            segment["file_size"],
            segment["memory_size"],
        )
        for segment in ours
    ] == readelf(case)
    assert not any(segment["pmem"] or segment["namespaces"] for segment in ours)


@pytest.mark.holds("pmem-usage")
@each_case
def test_counts_are_those_of_readelf(case: Case) -> None:
    ours = case.json("pmem-usage")
    size = ours["page_size"]
    there: set[int] = set()
    for _, _, start, _, memory_size in readelf(case):
        # As makedumpfile counts: a page that a segment has only the beginning of counts.
        there.update(range(-(-start // size), -(-(start + memory_size) // size)))
    assert ours["original"] == len(there)
    assert ours["total"] == max(there) + 1
