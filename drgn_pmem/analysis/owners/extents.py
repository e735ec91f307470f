# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Files by their extents
----------------------

Files in memory whose extents have a page: XFS keeps the extents of a file in memory, also those
that were never read through a mapping and have no DAX entry. They show who shares an extent
(reflink).
"""

from drgn import Program

from drgn_pmem.kernel.badblocks import SECTOR
from drgn_pmem.kernel.daxfs import DaxSuper, for_each_dax_super
from drgn_pmem.kernel.dm import sectors_above
from drgn_pmem.kernel.memory import cached
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.kernel.xfsextents import XfsExtent, xfs_extents_of
from drgn_pmem.partial import Partial, Problems

__all__ = ("extents_of_page", "sector_on")


def sector_on(prog: Program, namespace: Namespace, physical: int, disk: str) -> Partial[int | None]:
    """
    Sector of a page on a disk: that of its namespace, or a dm disk on top of it.

    :param physical: Physical address in the namespace.
    :param disk: ``"dm-0"``
    :return: 512-byte sector; None if the page is not on that disk.
    """
    if namespace.blockdev is None or namespace.data_offset is None:
        return Partial(None)
    offset = physical - namespace.resource - namespace.data_offset
    if offset < 0:
        return Partial(None)  # info block and memmap
    above = sectors_above(prog, namespace.blockdev, offset // SECTOR)
    return above.map(lambda sectors: sectors.get(disk))


def extents_of_page(
    prog: Program, namespace: Namespace | None, physical: int
) -> Partial[list[tuple[XfsExtent, int]]]:
    """
    Extents of files in memory that have a page.

    :param namespace: That of the page.
    :param physical: Its physical address.
    :return: Each extent, and where the page is in its file (bytes).
    """
    problems = Problems()
    found: list[tuple[XfsExtent, int]] = []
    if namespace is None or namespace.blockdev is None:
        return problems.partial(found)
    supers: Partial[tuple[DaxSuper, ...]] = cached(
        prog, "dax_supers", lambda: for_each_dax_super(prog)
    )
    for super_ in problems.take(supers, "file systems"):
        # A realtime or log device has sectors of another disk.
        if super_.type != "xfs" or super_.disk is None or super_.disks != (super_.disk,):
            continue
        sector = problems.take(sector_on(prog, namespace, physical, super_.disk), super_.id)
        if sector is None or sector < super_.start_sector:
            continue
        extents = problems.take(xfs_extents_of(prog, super_))
        if extents is None:
            continue
        block, rest = divmod((sector - super_.start_sector) * SECTOR, extents.block_size)
        for extent in extents.at(block):
            offset = (extent.offset + block - extent.block) * extents.block_size + rest
            found.append((extent, offset))
    return problems.partial(found)
