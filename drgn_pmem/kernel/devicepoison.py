# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Poison lists of CXL devices
---------------------------

What CXL memory devices last answered when they were asked for their poison lists, as physical
addresses. The lists themselves are in the devices: an answer may be older than what was found or
cleared since. Sources: drivers/cxl/core/mbox.c (``cxl_mem_get_poison()``),
drivers/cxl/core/region.c (``cxl_dpa_to_hpa()``).
"""

from drgn import Program

from drgn_pmem.formats.cxlpoison import CxlMediaError
from drgn_pmem.kernel.badblocks import BadList, BadRange
from drgn_pmem.kernel.cxl import (
    CxlRegion,
    for_each_cxl_memdev,
    for_each_cxl_region,
    has_cxl_memory,
)
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.record import Record

__all__ = ("DevicePoison", "read_device_poison")


class DevicePoison(Record):
    """The last answers of all CXL memory devices."""

    ranges: tuple[BadRange, ...] = ()
    """Those whose physical address is known."""
    notes: tuple[str, ...] = ()
    """What each list is, and what of it has no physical address."""


def read_device_poison(prog: Program) -> Partial[DevicePoison]:
    """Media errors of the last poison list of each CXL memory device; a machine that has no CXL
    memory is not asked for any."""
    problems = Problems()
    if not has_cxl_memory(prog):
        return problems.partial(DevicePoison())
    ranges, notes = [], []
    regions = problems.take(for_each_cxl_region(prog))
    for memdev in problems.take(for_each_cxl_memdev(prog)):
        last = memdev.last_poison_list
        if last is None:
            continue
        own = [_range(memdev.memdev, error, regions) for error in last.media_errors]
        ranges += [bad for bad in own if bad is not None]
        rest = [e for e, bad in zip(last.media_errors, own, strict=True) if bad is None]
        more = "; the device had more" if last.more or last.overflow else ""
        notes.append(
            f"{memdev.memdev} poison list: what the device answered when it was last asked, and"
            f" may be out of date{more}"
        )
        notes += [
            f"{memdev.memdev} poison list: {error.length} bytes at device address"
            f" {error.offset:#x} ({error.source}), whose physical address is not known: in no"
            " region, or interleaved"
            for error in rest
        ]
    return problems.partial(DevicePoison(ranges=tuple(ranges), notes=tuple(notes)))


def _range(memdev: str, error: CxlMediaError, regions: list[CxlRegion]) -> BadRange | None:
    found = (region.physical(memdev, error.offset) for region in regions)
    start = next((physical for physical in found if physical is not None), None)
    if start is None:
        return None
    return BadRange(
        kind=BadList.DEVICE,
        source=f"{memdev} poison list",
        start=start,
        length=error.length,
        base=0,
        sector=None,
    )
