# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
CXL facts of a listing
----------------------

What ``cxl list`` tells of the devices that ``ndctl list`` and ``daxctl list`` show: of a DIMM its
memory device and the regions that it is part of, of a region, or a DAX region of volatile memory,
the CXL region.
"""

from collections.abc import Callable
from typing import Any

from drgn import Program

from drgn_pmem.analysis.inventory.listing import Inventory
from drgn_pmem.kernel.cxl import (
    ACPI_ROOT,
    CxlMemdev,
    CxlRegion,
    for_each_cxl_memdev,
    for_each_cxl_region,
)
from drgn_pmem.kernel.dax import DaxRegion
from drgn_pmem.kernel.nvdimm import Dimm
from drgn_pmem.kernel.region import Region
from drgn_pmem.partial import Partial, Problems

__all__ = ("cxl_facts",)


def cxl_facts(prog: Program, inventory: Inventory) -> Partial[Callable[[Any], dict[str, Any]]]:
    """
    A function that gives the CXL facts of a record of the listing, empty if it has none. A machine
    that has nothing of CXL is not asked for any.
    """
    problems = Problems()
    of_bus = any(bus.provider == "CXL" for bus in inventory.buses)
    of_region = any(ACPI_ROOT in region.path for region in inventory.dax_regions)
    memdevs: list[CxlMemdev] = []
    regions: list[CxlRegion] = []
    if of_bus or of_region:
        memdevs = problems.take(for_each_cxl_memdev(prog))
        regions = problems.take(for_each_cxl_region(prog))
    by_id = {str(memdev.serial): memdev for memdev in memdevs}

    def facts(record: Any) -> dict[str, Any]:
        if isinstance(record, Dimm):
            # Its id is the serial number (cxl_nvdimm_alloc()).
            memdev = by_id.get(record.id or "")
            return {} if memdev is None else {"cxl": _of_memdev(memdev, regions)}
        if not isinstance(record, (Region, DaxRegion)):
            return {}
        own = next((r for r in regions if r.resource == record.range.start), None)
        return {} if own is None else {"cxl": own.to_json()}

    return problems.partial(facts)


def _of_memdev(memdev: CxlMemdev, regions: list[CxlRegion]) -> dict[str, Any]:
    own = [r for r in regions if memdev.memdev in {m.memdev for m in r.mappings}]
    return memdev.to_json() | {"regions": [region.to_json() for region in own]}
