# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What physical memory was which, without a dump."""

from types import SimpleNamespace
from typing import Any

import drgn
import pytest

from drgn_pmem.analysis.inventory import machine
from drgn_pmem.partial import Cause, Partial, Problem
from drgn_pmem.ranges import Range


def namespace(dev: str, start: int, size: int, seed: bool) -> Any:
    return SimpleNamespace(
        dev=dev, resource=start, raw_size=size, seed=seed, range=Range(start, start + size)
    )


def test_the_only_namespace_of_a_region_without_labels_has_its_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel calls it the region's seed, as it does the spare device of a region with labels,
    which has no capacity. pmem-segments named no namespace under e820 and virtio-pmem."""
    monkeypatch.setattr(machine, "has_kernel_debug_info", lambda prog: True)
    for name in ("for_each_iomem", "for_each_region", "for_each_pgmap"):
        monkeypatch.setattr(machine, name, lambda prog: Partial([]))
    monkeypatch.setattr(machine, "crash_reservations", lambda prog: Partial([]))
    found = [
        namespace("namespace7.0", 0x100000000, 0x18000000, True),
        namespace("namespace1.1", 0, 0, True),
        namespace("namespace1.0", 0x140000000, 0x10000000, False),
    ]
    monkeypatch.setattr(machine, "for_each_namespace", lambda prog: Partial(found))
    answer = machine.read_machine(drgn.Program()).value
    assert machine.namespace_names(answer, 0x100000000, 0x140000000) == ["namespace7.0"]
    assert machine.namespace_names(answer, 0, 1 << 40) == ["namespace7.0", "namespace1.0"]


WINDOW, PMEM = Range(0x800000000, 0x900000000), Range(0x140000000, 0x150000000)


@pytest.mark.parametrize(("whole", "pmem"), [(True, [PMEM]), (False, [PMEM, WINDOW])])
def test_virtiofs_dax_window_is_no_persistent_memory(
    monkeypatch: pytest.MonkeyPatch, whole: bool, pmem: list[Range]
) -> None:
    """It is memory of the host, with a page map for a DAX file system as fsdax namespaces have. A
    namespace requests its memory by its name."""
    resources: Any = [
        SimpleNamespace(
            name=name, start=own.start, end=own.end - 1, desc=0, flags=0, range=own, depth=1
        )
        for name, own in (("0000:00:04.0", WINDOW), ("virtio3", WINDOW), ("namespace0.0", PMEM))
    ]
    lost = [] if whole else [Problem(cause=Cause.NOT_SAVED, why="the rest")]
    pgmaps: Any = [
        SimpleNamespace(type="MEMORY_DEVICE_FS_DAX", is_fsdax=True, ranges=(own,))
        for own in (PMEM, WINDOW)
    ]
    monkeypatch.setattr(machine, "has_kernel_debug_info", lambda prog: True)
    monkeypatch.setattr(machine, "physical_end", lambda prog: 1 << 46)
    monkeypatch.setattr(machine, "for_each_iomem", lambda prog: Partial(resources, lost))
    monkeypatch.setattr(machine, "for_each_pgmap", lambda prog: Partial(pgmaps))
    for name in ("for_each_region", "for_each_namespace", "crash_reservations"):
        monkeypatch.setattr(machine, name, lambda prog: Partial([]))
    assert list(machine.read_machine(drgn.Program()).value.pmem.ranges) == pmem
