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

from drgn_pmem.kernel.badblocks import BadList, BadRange
from drgn_pmem.kernel.cxl import for_each_cxl_memdev, for_each_cxl_region, has_cxl_memory
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.ranges import Range, RangeSet
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
        rest: list[tuple[Range, str]] = []
        for error in last.media_errors:
            addresses = Range(error.offset, error.offset + error.length)
            found = [region.physical(memdev.memdev, addresses) for region in regions]
            parts = [part for part in found if part is not None]
            ranges += [_bad_range(memdev.memdev, *part) for part in parts]
            left = RangeSet(own for own, _ in parts).gaps(addresses.start, addresses.end)
            rest += [(gap, error.source) for gap in left]
        more = "; the device had more" if last.more or last.overflow else ""
        notes.append(
            f"{memdev.memdev} poison list: what the device answered when it was last asked, and"
            f" may be out of date{more}"
        )
        notes += [
            f"{memdev.memdev} poison list: {gap.size} bytes at device address {gap.start:#x}"
            f" ({source}), whose physical address is not known: in no region, or interleaved"
            for gap, source in rest
        ]
    return problems.partial(DevicePoison(ranges=tuple(ranges), notes=tuple(notes)))


def _bad_range(memdev: str, addresses: Range, start: int) -> BadRange:
    return BadRange(
        kind=BadList.DEVICE,
        source=f"{memdev} poison list",
        start=start,
        length=addresses.size,
        base=0,
        sector=None,
    )
