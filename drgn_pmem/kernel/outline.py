# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Namespaces by vmlinux alone
---------------------------

What ``iomem_resource`` and ``pgmap_array`` tell of the namespaces where the debug info of libnvdimm
is not loaded. Drivers request the memory of a namespace under its name (``devm_namespace_enable()``
in drivers/nvdimm/claim.c; of devdax only what is before the data, drivers/dax/pmem.c, and the data
under the name of the device, drivers/dax/device.c and kmem.c). Modes without struct pages cannot be
told apart, and where data begins only an altmap or the DAX device tells.
"""

from collections.abc import Iterator
from dataclasses import dataclass
import re

from drgn import Program

from drgn_pmem.kernel.iomem import Resource, for_each_iomem
from drgn_pmem.kernel.pgmap import Pgmap, for_each_pgmap
from drgn_pmem.kernel.walk import collect

__all__ = ("NamespaceOutline", "for_each_outline")

_NAMESPACE = re.compile(r"namespace(\d+)\.\d+")
_DAX = re.compile(r"dax\d+\.\d+")


@dataclass(frozen=True)
class NamespaceOutline:
    """An enabled namespace. Physical addresses, ends exclusive."""

    dev: str
    region: str
    """From the number in its name (``dev_set_name()`` in drivers/nvdimm/namespace_devs.c)."""
    start: int
    end: int
    mode: str | None
    """``"fsdax"`` or ``"devdax"``; None if it has no page map: sector, or raw."""
    map: str | None
    data: int | None
    """First byte of the data; None if it cannot be told."""
    chardev: str | None
    pgmap: int
    """Address of its ``struct dev_pagemap``; 0 if it has none."""


def for_each_outline(prog: Program) -> Iterator[NamespaceOutline]:
    """
    Enabled namespaces, in address order.

    :raises MissingDebugInfo: without debug info of vmlinux
    :raises WalkError: after what could be read
    """
    resources = list(for_each_iomem(prog))
    pgmaps, _ = collect(for_each_pgmap(prog))
    shift = int(prog["PAGE_SHIFT"])
    daxes = [r for r in resources if _DAX.fullmatch(r.name)]
    for resource in resources:
        named = _NAMESPACE.fullmatch(resource.name)
        if named:
            yield _outline(resource, f"region{named[1]}", daxes, pgmaps, shift)


def _outline(
    resource: Resource, region: str, daxes: list[Resource], pgmaps: list[Pgmap], shift: int
) -> NamespaceOutline:
    start, end = resource.start, resource.end + 1
    pgmap = next(
        (p for p in pgmaps if any(r.start < end and start < r.end for r in p.ranges)), None
    )
    if pgmap is not None:
        end = max(end, pgmap.end_pfn << shift)
    # The first device begins where the metadata ends; more of them follow after "daxctl split".
    inside = [d for d in daxes if start < d.start < end or d.start == end]
    data = mode = None
    if inside:
        end = max(end, *(d.end + 1 for d in inside))
        mode, data = "devdax", min(d.start for d in inside)
    elif pgmap is not None:
        mode = "fsdax"
        if pgmap.altmap is not None:
            data = pgmap.first_pfn << shift
    return NamespaceOutline(
        resource.name,
        region,
        start,
        end,
        mode,
        None if pgmap is None else "mem" if pgmap.altmap is None else "dev",
        data,
        inside[0].name if len(inside) == 1 else None,
        pgmap.address if pgmap is not None else 0,
    )
