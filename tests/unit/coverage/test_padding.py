# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What is between the info block and the data of a namespace with an alignment of 1 GiB, as
``nd_pfn_init()`` (drivers/nvdimm/pfn_devs.c) places the data for ``ndctl create-namespace -a 1G``:
struct pages and the rest of the altmap with map=dev, nothing with map=mem.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drgn_pmem.analysis.coverage.records import NamespaceCoverage
from drgn_pmem.analysis.inventory.parts import (
    INFOBLOCK,
    METADATA,
    PADDING,
    USERDATA,
    stretches_of_namespace,
)
from drgn_pmem.dumpfile import PF_DEV, State, coverage_of
from drgn_pmem.formats.infoblock import PFN_MODE_PMEM, PFN_MODE_RAM
from drgn_pmem.partial import Problems
from drgn_pmem.ranges import Range

from ...samples import run_json
from ..dumpfile.writers import Load
from .test_infoblocks import BASE, block, opened

GIB = 1 << 30
MIB = 1 << 20
SIZE = 3 * GIB
MODES = pytest.mark.parametrize(("map_", "mode"), [("mem", PFN_MODE_RAM), ("dev", PFN_MODE_PMEM)])


def aligned(mode: int, start: int, size: int) -> dict[str, int]:
    """The fields of the info block that depend on the alignment: ``ALIGN(start + SZ_8K, align) -
    start``, with map=dev of the struct pages, too."""
    memmap = 64 * ((size - 8192) // 4096) if mode == PFN_MODE_PMEM else 0
    data = -(-(start + 8192 + memmap) // GIB) * GIB - start
    return {"dataoff": data, "npfns": (size - data) // 4096, "mode": mode, "align": GIB}


def dump(path: Path, mode: int, saved: int) -> Any:
    """A dump of a namespace of 3 GiB of which the first bytes were saved."""
    fields = aligned(mode, BASE, SIZE)
    assert fields["dataoff"] == GIB
    content = bytes(4096) + block(**fields)
    return opened(path, Load(BASE, SIZE, content.ljust(saved, b"\0"), flags=7 | PF_DEV))


@MODES
def test_what_precedes_the_data_is_metadata_only_of_map_dev(
    tmp_path: Path, map_: str, mode: int
) -> None:
    prog = dump(tmp_path, mode, 4 * MIB)
    (item,) = run_json(prog, "pmem-coverage")
    assert (item["map"], item["start"], item["end"]) == (map_, hex(BASE), hex(BASE + SIZE))
    assert item["infoblock"] == {"saved": 4096}
    assert item["userdata"] == {"excluded": 2 * GIB}
    if map_ == "mem":
        assert item["metadata"] == {"saved": 8192}
    else:
        assert item["metadata"] == {"saved": 4 * MIB, "excluded": GIB - 4 * MIB}


@MODES
def test_the_page_report_counts_it_as_makedumpfile_does(
    tmp_path: Path, map_: str, mode: int
) -> None:
    """By the list of the kernel, which has what the altmap has: without one, all is user data."""
    usage = run_json(dump(tmp_path, mode, 4 * MIB), "pmem-usage")
    pages, metadata = SIZE // 4096, GIB // 4096 if map_ == "dev" else 0
    assert sum(usage["pmem_metadata"].values()) == metadata
    assert sum(usage["pmem_userdata"].values()) == pages - metadata


@MODES
def test_the_bar_draws_it_as_what_it_is(tmp_path: Path, map_: str, mode: int) -> None:
    """Half the bar was drawn as memmap that is in RAM."""
    namespace: Any = SimpleNamespace(
        mode="fsdax", map=map_, range=Range(BASE, BASE + SIZE), data_offset=GIB, size=2 * GIB
    )
    prog = dump(tmp_path, mode, 4 * MIB)
    problems = Problems()
    stretches = tuple(stretches_of_namespace(prog, namespace, problems))
    assert not problems
    assert [(s.kind, s.end - s.start) for s in stretches] == [
        (METADATA, 4096),
        (INFOBLOCK, 4096),
        (PADDING if map_ == "mem" else METADATA, GIB - 8192),
        (USERDATA, 2 * GIB),
    ]
    item: Any = SimpleNamespace(stretches=stretches, coverage=coverage_of(prog))
    drawn = [part for part in NamespaceCoverage.parts(item) if part[1] > 8192]
    data = ("data", 2 * GIB, State.EXCLUDED)
    if map_ == "mem":
        assert drawn == [("free", GIB - 8192, None), data]
    else:
        saved = ("metadata", 4 * MIB - 8192, State.SAVED)
        assert drawn == [saved, ("metadata", GIB - 4 * MIB, State.EXCLUDED), data]


def test_data_of_a_namespace_that_begins_between_is_aligned_by_its_own_start(
    tmp_path: Path,
) -> None:
    """A start that is no multiple of 1 GiB: the padding is less than that."""
    fields = aligned(PFN_MODE_RAM, BASE + 512 * MIB, SIZE)
    assert fields["dataoff"] == 512 * MIB
    content = bytes(4096) + block(**fields)
    load = Load(BASE + 512 * MIB, SIZE, content, flags=7 | PF_DEV)
    (item,) = run_json(opened(tmp_path, load), "pmem-coverage")
    assert item["metadata"] == {"saved": 8192}
    assert item["userdata"] == {"excluded": SIZE - 512 * MIB}
