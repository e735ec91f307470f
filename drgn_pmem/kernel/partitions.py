# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Partitions
----------

Which part of which disk a partition is: its sectors count from its own start, those of the disk
from the disk's. Sources: include/linux/blk_types.h (``struct block_device``),
include/linux/genhd.h (``struct hd_struct``, before v5.11).
"""

from collections.abc import Iterator

from drgn import Object, Program, container_of

from drgn_pmem.kernel.debuginfo import find_type
from drgn_pmem.kernel.device import device_name, devices_of_class
from drgn_pmem.kernel.memory import cached
from drgn_pmem.kernel.strings import kernel_string
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.record import Record

__all__ = ("DiskPartition", "for_each_disk", "partitions_of")


class DiskPartition(Record):
    """A partition. Sectors are 512 bytes."""

    name: str
    """``"pmem2p1"``"""
    disk: str
    """``"pmem2"``"""
    start: int
    """First sector on the disk."""
    sectors: int


def _of_bdev(part: Object) -> tuple[str, int, int]:
    """Disk, first sector and number of sectors of a ``struct block_device *``."""
    disk = part.bd_disk.disk_name.string_()
    # bd_nr_sectors since Linux kernel commit f09313c57a17 ("block: cache inode size in bdev") (in
    # v5.15); before, the size is the inode's, which is after the block device in struct bdev_inode.
    try:
        sectors = part.bd_nr_sectors.value_()
    except AttributeError:
        inode = container_of(part, "struct bdev_inode", "bdev").vfs_inode
        sectors = inode.i_size.value_() >> 9
    return disk.decode("utf-8", "backslashreplace"), part.bd_start_sect.value_(), sectors


def _of_hd_struct(part: Object) -> tuple[str, int, int]:
    """The same of a ``struct hd_struct *``, whose device is a child of the disk's."""
    disk = kernel_string(part.__dev.kobj.parent.name)
    return disk, part.start_sect.value_(), part.nr_sects.value_()


def _for_each_partition(prog: Program) -> Iterator[Object]:
    """
    All partitions, disks among them. drgn's helper of this name walks without a bound.

    :return: ``struct block_device *`` objects, or ``struct hd_struct *`` before v5.11
    :raises WalkError: after those that could be read
    """
    is_bdev = find_type(prog, "struct block_device", "vmlinux").has_member("bd_device")
    of, member = ("struct block_device", "bd_device") if is_bdev else ("struct hd_struct", "__dev")
    for device in devices_of_class(prog["block_class"].address_of_(), "block_class"):
        yield container_of(device, of, member)


def for_each_disk(prog: Program) -> Iterator[Object]:
    """
    All disks.

    :return: ``struct gendisk *`` objects
    :raises WalkError: after the disks that could be read
    """
    for part in _for_each_partition(prog):
        if part.type_.type.type_name() == "struct block_device":
            disk = part.bd_disk.read_()
            if disk.part0.value_() == part.value_():
                yield disk
        elif part.partno.value_() == 0:
            yield container_of(part, "struct gendisk", "part0")


def _read(prog: Program) -> Partial[tuple[DiskPartition, ...]]:
    problems = Problems()
    found = []
    for part in problems.collect(_for_each_partition(prog), "partitions"):
        with problems.trying(f"partition at {part.value_():#x}"):
            is_bdev = part.type_.type.type_name() == "struct block_device"
            name = device_name(part.bd_device if is_bdev else part.__dev)
            if not is_bdev and part.partno.value_() == 0:
                continue
            disk, start, sectors = _of_bdev(part) if is_bdev else _of_hd_struct(part)
            if name != disk:
                found.append(DiskPartition(name=name, disk=disk, start=start, sectors=sectors))
    return problems.partial(tuple(found))


def partitions_of(prog: Program) -> Partial[tuple[DiskPartition, ...]]:
    """All partitions of all disks; read once per program."""
    found: Partial[tuple[DiskPartition, ...]] = cached(prog, "partitions", lambda: _read(prog))
    return found
