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

from drgn import Program

from drgn_pmem.kernel.dax import DaxDevice, for_each_dax_device
from drgn_pmem.kernel.daxfs import DaxInode, read_inode
from drgn_pmem.kernel.memory import Layout, list_nodes, memory_of
from drgn_pmem.kernel.paths import paths_of_inode
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.record import Record, Show, shown

__all__ = ("DaxChar", "for_each_dax_char")

_MAX_NODES = 1 << 12


class DaxChar(Record):
    """One DAX character device."""

    name: str
    """``"dax0.1"``"""
    paths: tuple[str, ...]
    """Of its device nodes, from their dentries; ``/dev/NAME`` if none was ever opened."""
    node: DaxInode | None
    """The device node (devtmpfs); None if none was ever opened."""
    nodes: tuple[DaxInode, ...] = shown(Show.HIDDEN)
    """All device nodes that were ever opened, also those of other mounts."""
    inode: DaxInode
    """Inode of the device itself, whose address space its mappings are in."""
    device: DaxDevice
    page_shift: int = shown(Show.HIDDEN)

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


def _nodes(prog: Program, dax_device: int, problems: Problems) -> list[DaxInode]:
    memory = memory_of(prog)
    head = dax_device + Layout(memory, "struct dax_device", "dax").offset("cdev.list")
    link = Layout(memory, "struct inode").offset("i_devices")
    found: dict[int, DaxInode] = {}
    if not any(memory.read(head, 2 * memory.word_size)):
        # No driver was ever bound (dev_dax_probe() calls cdev_init()), so no node was ever opened.
        return []
    for node in problems.collect(list_nodes(memory, head, "cdev.list", _MAX_NODES)):
        with problems.trying(f"device node {node - link:#x}"):
            found[node] = read_inode(prog, node - link)
    return list(found.values())


def for_each_dax_char(prog: Program) -> Partial[tuple[DaxChar, ...]]:
    """DAX character devices; those that are System RAM now (kmem) left out."""
    problems = Problems()
    found: list[DaxChar] = []
    for device in problems.collect(for_each_dax_device(prog)):
        if device.mode == "system-ram":
            continue
        with problems.trying(device.chardev):
            dax_device = device.object.dax_dev.value_()
            if dax_device:
                found.append(_read_char(prog, device, dax_device, problems))
    return problems.partial(tuple(found))


def _read_char(prog: Program, device: DaxDevice, dax_device: int, problems: Problems) -> DaxChar:
    offset = Layout(memory_of(prog), "struct dax_device", "dax").offset("inode")
    inode = read_inode(prog, dax_device + offset)
    nodes = _nodes(prog, dax_device, problems)
    paths = [path for node in nodes for path in problems.take(paths_of_inode(prog, node)).paths]
    return DaxChar(
        name=device.chardev,
        paths=tuple(dict.fromkeys(paths)) or (f"/dev/{device.chardev}",),
        node=nodes[0] if nodes else None,
        nodes=tuple(nodes),
        inode=inode,
        device=device,
        page_shift=int(prog["PAGE_SHIFT"]),
    )
