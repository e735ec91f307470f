# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
DAX devices without a namespace
-------------------------------

Soft-reserved memory (hmem) and volatile CXL memory have DAX devices (``dax2.0``) and no namespace.
Answers about namespaces, their struct pages and their coverage include them: they are shown as
namespaces of their own name, without info block.

Sources: drivers/dax/hmem/hmem.c, drivers/dax/cxl.c.
"""

from collections.abc import Iterator
import re

from drgn import Program

from drgn_pmem.kernel.dax import DaxDevice, DaxRegion, for_each_dax_region
from drgn_pmem.kernel.namespace import Namespace, for_each_namespace
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.ranges import Range

__all__ = ("dax_without_namespace",)

_NVDIMM_BUS = re.compile(r"/ndbus\d+/")
"""In the sysfs path of what libnvdimm has."""


def dax_without_namespace(prog: Program) -> Partial[list[Namespace]]:
    """
    DAX devices that belong to no namespace, as namespaces. A device of several ranges is one for
    each: ``dax2.0``, ``dax2.0[1]``.
    """
    problems = Problems()
    namespaces = problems.take(for_each_namespace(prog))
    found = []
    for region in problems.take(for_each_dax_region(prog)):
        if _NVDIMM_BUS.search(region.path):
            continue  # a namespace's, also where that could not be read
        if not any(_belongs(region, namespace) for namespace in namespaces):
            found += [item for device in region.devices for item in _as_namespaces(device, region)]
    return problems.partial(found)


def _belongs(region: DaxRegion, namespace: Namespace) -> bool:
    own = namespace.daxregion
    if own is not None and own.object.value_() == region.object.value_():
        return True
    return namespace.range.overlaps(region.range)


def _as_namespaces(device: DaxDevice, region: DaxRegion) -> Iterator[Namespace]:
    for number, part in enumerate(device.ranges):
        name = f"{device.chardev}[{number}]" if number else device.chardev
        yield _as_namespace(name, part, device, region)


def _as_namespace(name: str, part: Range, device: DaxDevice, region: DaxRegion) -> Namespace:
    return Namespace(
        dev=name,
        bus=None,
        region=region.path,
        mode="devdax",
        map="mem",  # no altmap: its struct pages can only be in RAM
        size=part.size,
        raw_size=part.size,
        resource=part.start,
        data_offset=0,
        uuid=None,
        raw_uuid=None,
        sector_size=None,
        align=device.align,
        blockdev=None,
        chardev=device.chardev,
        daxregion=region,
        enabled=device.mode is not None,
        seed=False,
        name=None,
        numa_node=None,
        target_node=device.target_node,
        label_uuid=None,
        claim_class=None,
        force_raw=None,
        claim=None,
        pgmap=device.pgmap,
        claim_object=None,
        object=None,
    )
