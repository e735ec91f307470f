# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Device DAX files
----------------

``/dev/daxX.Y``: which pages each has, its device nodes, its address space. A page's place in the
device follows from the device's ranges alone, so it needs no struct page. Sources:
drivers/dax/device.c, drivers/dax/dax-private.h, fs/char_dev.c (``cdev.list`` links the device nodes
that were ever opened).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from drgn import Program

from drgn_pmem.kernel.dax import DaxDevice, for_each_dax_device
from drgn_pmem.kernel.daxfs import DaxInode, read_inode
from drgn_pmem.kernel.memory import Layout, list_nodes, memory_of
from drgn_pmem.kernel.paths import paths_of_inode
from drgn_pmem.partial import WalkError

__all__ = ("DaxChar", "for_each_dax_char")

_MAX_NODES = 1 << 12


@dataclass(frozen=True)
class DaxChar:
    """One DAX character device."""

    name: str
    """``"dax0.1"``"""
    paths: tuple[str, ...]
    """Of its device nodes, from their dentries; ``/dev/NAME`` if none was ever opened."""
    node: DaxInode | None
    """The device node (devtmpfs); None if none was ever opened."""
    inode: DaxInode
    """Of the device itself: what its mappings hang on."""
    device: DaxDevice
    page_shift: int

    def index_of(self, pfn: int) -> int | None:
        """
        Page index in the device of a page; None if it is not the device's.

        :param pfn: PFN
        """
        address = pfn << self.page_shift
        before = 0
        for piece in self.device.ranges:
            if address in piece:
                return (before + address - piece.start) >> self.page_shift
            before += piece.size
        return None

    def pfn_of(self, index: int) -> int | None:
        """
        PFN of a page of the device.

        :param index: Page index in the device.
        """
        offset = index << self.page_shift
        for piece in self.device.ranges:
            if offset < piece.size:
                return (piece.start + offset) >> self.page_shift
            offset -= piece.size
        return None


def _nodes(prog: Program, dax_device: int, problems: list[str]) -> Iterator[DaxInode]:
    memory = memory_of(prog)
    head = dax_device + Layout(memory, "struct dax_device", "dax").offset("cdev.list")
    link = Layout(memory, "struct inode").offset("i_devices")
    try:
        for node in list_nodes(memory, head, "cdev.list", _MAX_NODES):
            yield read_inode(prog, node - link)
    except WalkError as error:
        problems.append(str(error))


def for_each_dax_char(prog: Program, problems: list[str]) -> Iterator[DaxChar]:
    """
    DAX character devices; those that are System RAM now (kmem) left out.

    :param problems: Gets a line for each that cannot be read.
    :raises MissingDebugInfo: without debug info of device_dax
    :raises WalkError: after what could be read
    """
    offset = Layout(memory_of(prog), "struct dax_device", "dax").offset("inode")
    page_shift = int(prog["PAGE_SHIFT"])
    for device in for_each_dax_device(prog):
        dax_device = device.object.dax_dev.value_()
        if device.mode == "system-ram" or not dax_device:
            continue
        try:
            inode = read_inode(prog, dax_device + offset)
        except WalkError as error:
            problems.append(f"{device.chardev}: {error}")
            continue
        nodes = list(_nodes(prog, dax_device, problems))
        paths = [path for node in nodes for path in paths_of_inode(prog, node).paths]
        yield DaxChar(
            device.chardev,
            tuple(dict.fromkeys(paths)) or (f"/dev/{device.chardev}",),
            nodes[0] if nodes else None,
            inode,
            device,
            page_shift,
        )
