# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What physical memory was which, without a dump."""

from types import SimpleNamespace
from typing import Any

import drgn
import pytest

from drgn_pmem.analysis.inventory import machine
from drgn_pmem.partial import Partial
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
