# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Namespaces by vmlinux alone
---------------------------

What ``iomem_resource`` and ``pgmap_array`` say of the namespaces where the debug info of libnvdimm
is not loaded. Drivers request the memory of a namespace under its name (``devm_namespace_enable()``
in drivers/nvdimm/claim.c; of devdax only what is before the data, drivers/dax/pmem.c, and the data
under the name of the device, drivers/dax/device.c and kmem.c; before v5.1 all of it). Sector and
raw mode look the same, and only an altmap or the DAX device says where data begins.
"""

from collections.abc import Sequence
import re

from drgn import Program

from drgn_pmem.kernel.iomem import Resource, for_each_iomem
from drgn_pmem.kernel.pgmap import Pgmap, for_each_pgmap
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.record import Record, Show, shown

__all__ = ("NamespaceOutline", "for_each_outline")

_NAMESPACE = re.compile(r"namespace(\d+)\.\d+")
_DAX = re.compile(r"dax\d+\.\d+")


class NamespaceOutline(Record):
    """An enabled namespace. Physical addresses, ends exclusive."""

    dev: str
    region: str
    """From the number in its name (``dev_set_name()`` in drivers/nvdimm/namespace_devs.c)."""
    start: int = shown(Show.ADDRESS)
    end: int = shown(Show.ADDRESS)
    mode: str | None
    """``"fsdax"`` or ``"devdax"``; None if it has no page map (sector or raw), or if the page maps
    could not be read."""
    map: str | None
    data: int | None = shown(Show.ADDRESS)
    """First byte of the data; None if not known."""
    chardev: str | None
    pgmap: int = shown(Show.ADDRESS)
    """Address of its ``struct dev_pagemap``; 0 if it has none."""


def for_each_outline(prog: Program) -> Partial[list[NamespaceOutline]]:
    """Enabled namespaces, in address order."""
    problems = Problems()
    resources = [r for r in problems.take(for_each_iomem(prog)) if r.name is not None]
    pgmaps = problems.take(for_each_pgmap(prog))
    daxes = [r for r in resources if _DAX.fullmatch(r.name or "")]
    found = []
    for resource in resources:
        named = _NAMESPACE.fullmatch(resource.name or "")
        if named:
            around = [r for r in resources if r.start <= resource.start and resource.end <= r.end]
            last = max(r.end for r in around)
            after = (r for r in resources if r.start > resource.end)
            other = next((r for r in after if _NAMESPACE.fullmatch(r.name or "")), None)
            last = last if other is None else min(last, other.start - 1)
            found.append(_outline(resource, named[0], f"region{named[1]}", daxes, pgmaps, last))
    return problems.partial(found)


def _outline(
    resource: Resource,
    dev: str,
    region: str,
    daxes: Sequence[Resource],
    pgmaps: Sequence[Pgmap],
    last: int,
) -> NamespaceOutline:
    """
    :param last: Last byte that may be of it: before the next namespace in its persistent memory.
    """
    start, end = resource.start, resource.end + 1
    pgmap = next(
        (p for p in pgmaps if any(r.start < end and start < r.end for r in p.ranges)), None
    )
    if pgmap is not None:
        end = max(end, *(r.end for r in pgmap.ranges))
    # The first device begins where the metadata ends, as RAM (kmem) in the next memory block; more
    # of them follow after "daxctl split". Devices have the page map of the namespace or, as RAM,
    # none. One that begins after the namespace may be of other memory (hmem, CXL).
    inside = [
        d
        for d in daxes
        if start < d.start < end or (pgmap is None and end <= d.start and d.end <= last)
    ]
    data = mode = None
    if inside:
        mode, first = "devdax", min(d.start for d in inside)
        data = first if first <= end else None
        end = max(end, *(d.end + 1 for d in inside))
    elif pgmap is not None:
        # Before v5.1, what device DAX requests is the namespace, and no device has its data.
        mode = "fsdax" if pgmap.is_fsdax else "devdax" if pgmap.is_device_dax else None
        if pgmap.altmap is not None:
            data = pgmap.first_pfn << pgmap.page_shift
    return NamespaceOutline(
        dev=dev,
        region=region,
        start=start,
        end=end,
        mode=mode,
        map=None if pgmap is None else "mem" if pgmap.altmap is None else "dev",
        data=data,
        chardev=inside[0].name if len(inside) == 1 else None,
        pgmap=pgmap.address if pgmap is not None else 0,
    )
