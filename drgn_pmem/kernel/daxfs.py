# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
DAX file systems
----------------

Superblocks on DAX devices and the DAX inodes in memory. Only VFS structures are needed, so the walk
works with vmlinux alone where the file system is a module; with the debug info of XFS its realtime
device counts too. Sources: include/linux/fs.h, drivers/dax/super.c (``dax_hosts``),
fs/xfs/xfs_mount.h and xfs_buf.h.

An inode that is not in memory has no DAX entries, so nobody maps it: ``s_inodes`` is complete for
owners.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from drgn import Object, Program
from drgn.helpers.linux.block import for_each_disk
from drgn.helpers.linux.xarray import xa_for_each

from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel.debuginfo import find_variable, has_type, no_debug_info
from drgn_pmem.kernel.memory import Layout, Memory, cached, hlist_nodes, list_nodes, memory_of
from drgn_pmem.kernel.walk import LIMIT, bounded
from drgn_pmem.partial import NotSaved, WalkError

__all__ = (
    "DaxInode",
    "DaxSuper",
    "dax_disks",
    "device_number",
    "for_each_dax_inode",
    "for_each_dax_super",
    "for_each_super",
    "read_inode",
)

S_DAX = 1 << 13
"""``inode.i_flags``; a macro of include/linux/fs.h, the same from v4.12 to v7.3."""

_MINOR_BITS = 20
_MAX_INODES = 1 << 26


def device_number(dev: int) -> str:
    """
    ``"259:0"``.

    :param dev: ``dev_t``
    """
    return f"{dev >> _MINOR_BITS}:{dev & ((1 << _MINOR_BITS) - 1)}"


@dataclass(frozen=True)
class DaxSuper:
    """``struct super_block`` of a file system on a DAX device."""

    address: int
    type: str
    """``"ext4"``, ``"xfs"``"""
    id: str
    """``s_id``: the block device's name."""
    dev: int
    """``dev_t``, as the inodes' ``st_dev``."""
    root: int
    """Address of the root ``struct dentry``."""
    disks: tuple[str, ...]
    """Names of the DAX disks under it: ``"pmem0"``, ``"dm-0"``."""
    start_sector: int
    """Of its block device on the disk: 0 unless it is a partition."""
    object: Object = field(repr=False, compare=False)
    """``struct super_block *``"""


@dataclass(frozen=True)
class DaxInode:
    """``struct inode`` with DAX on, in memory."""

    address: int
    ino: int
    mode: int
    size: int
    """bytes"""
    nlink: int
    mapping: int
    """Address of its ``struct address_space``."""
    super: DaxSuper | None
    """Its file system; None for the inode of a DAX device itself."""
    rdev: int
    """``dev_t`` of a device node."""
    object: Object = field(repr=False, compare=False)
    """``struct inode *``"""


class Inodes:
    """Layouts of the VFS structures, from the debug info, once per program."""

    def __init__(self, prog: Program) -> None:
        memory = self.memory = memory_of(prog)
        self.super = Layout(
            memory,
            "struct super_block",
            dev="s_dev",
            type="s_type",
            fs_info="s_fs_info",
            bdev="s_bdev",
            root="s_root",
        )
        self.super_list = self.super.offset("s_list")
        self.super_inodes = self.super.offset("s_inodes")
        self.super_id = self.super.offset("s_id")
        self.super_id_size = self.super.type.member("s_id").type.length or 32
        self.inode = Layout(
            memory,
            "struct inode",
            mode="i_mode",
            flags="i_flags",
            super="i_sb",
            mapping="i_mapping",
            ino="i_ino",
            nlink=("i_nlink", "__i_nlink"),
            rdev="i_rdev",
            size="i_size",
        )
        self.inode_list = self.inode.offset("i_sb_list")
        self.fs_type = Layout(memory, "struct file_system_type", name="name")
        self.mapping = Layout(memory, "struct address_space", host="host")
        self.i_pages = self.mapping.offset("i_pages", "page_tree")
        self.bdev = Layout(memory, "struct block_device", disk="bd_disk", dev="bd_dev")
        # Since Linux kernel commit 29ff57c61094 ("block: move the start_sect field to struct
        # block_device") (in v5.11); before, a partition is a struct hd_struct.
        if self.bdev.has("bd_start_sect"):
            self.start = Layout(memory, "struct block_device", start="bd_start_sect")
            self.part = None
        else:
            self.start = Layout(memory, "struct hd_struct", start="start_sect")
            self.part = Layout(memory, "struct block_device", part="bd_part")
        self.disk = Layout(memory, "struct gendisk", major="major")
        self.disk_name = self.disk.offset("disk_name")


def start_sector(prog: Program, bdev: int) -> int:
    """
    First sector of a block device on its disk: 0 unless it is a partition.

    :param bdev: Address of its ``struct block_device``.
    :raises NotSaved: if the dump does not hold it
    """
    layouts = inodes_of(prog)
    if layouts.part is not None:
        bdev = layouts.part.read(bdev)["part"]
    # NULL: nobody has it open
    return layouts.start.read(bdev)["start"] if bdev else 0


def inodes_of(prog: Program) -> Inodes:
    """The layouts, made once."""
    layouts: Inodes = cached(prog, "inodes", lambda: Inodes(prog))
    return layouts


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def disk_name(prog: Program, disk: int) -> str:
    """
    Name of a disk as it stands in the dump: ``"pmem0"``.

    :param disk: Address of its ``struct gendisk``.
    :raises NotSaved: if the dump does not hold it
    """
    layouts = inodes_of(prog)
    return _text(layouts.memory.string(disk + layouts.disk_name, 32))


def dax_disks(prog: Program) -> dict[int, int] | None:
    """
    Disks with DAX: address of the ``struct gendisk`` -> of its ``struct dax_device``.

    :return: None if it cannot be known: the debug info of the dax module is not loaded.
    """
    try:
        # An xarray by disk; 5.10 has a hash table by name instead (dax_host_list).
        hosts = find_variable(prog, "dax_hosts", "dax")
    except MissingDebugInfo:
        return _dax_disks_by_name(prog)
    disks: dict[int, int] = {}
    for count, (index, entry) in enumerate(xa_for_each(hosts.address_of_())):
        if count >= LIMIT:
            break
        disks[index] = entry.value_()
    return disks


def _dax_disks_by_name(prog: Program) -> dict[int, int] | None:
    """Of kernels with ``dax_host_list``, a hash table of DAX devices by the names of their
    disks."""
    try:
        table = find_variable(prog, "dax_host_list", "dax")
        device = Layout(memory_of(prog), "struct dax_device", "dax", host="host")
    except MissingDebugInfo:
        return None
    link, size = device.offset("list"), table[0].type_.size or 0
    named: dict[bytes, int] = {}
    try:
        for number in range(len(table)):
            head = (table.address_ or 0) + number * size
            for node in hlist_nodes(device.memory, head, "dax_host_list"):
                host = device.read(node - link)["host"]
                named[device.memory.string(host, 32)] = node - link
        disks = {d.value_(): d.disk_name.string_() for d in bounded(for_each_disk(prog), "disks")}
    except WalkError:
        return None  # file systems on any disk are looked at then
    return {disk: named[name] for disk, name in disks.items() if name in named}


def _xfs_disks(prog: Program, layouts: Inodes, mount: int) -> Iterator[int]:
    """Disks of an XFS mount's data, log and realtime device that have DAX."""
    memory = layouts.memory
    targets = Layout(
        memory, "struct xfs_mount", "xfs", data="m_ddev_targp", log="m_logdev_targp",
        rt="m_rtdev_targp",
    )  # fmt: skip
    target = Layout(memory, "struct xfs_buftarg", "xfs", bdev="bt_bdev", dax="bt_daxdev")
    for address in targets.read(mount).values():
        if not address:
            continue
        values = target.read(address)
        if values["dax"]:
            yield layouts.bdev.read(values["bdev"])["disk"]


def _read_super(
    prog: Program, layouts: Inodes, address: int, disks: "dict[int, int] | None"
) -> DaxSuper | None:
    memory = layouts.memory
    values = layouts.super.read(address)
    type_name = _text(memory.string(layouts.fs_type.read(values["type"])["name"], 64))
    below: list[int] = []
    if values["bdev"]:
        below.append(layouts.bdev.read(values["bdev"])["disk"])
    if type_name == "xfs" and has_type(prog, "struct xfs_mount"):
        below += _xfs_disks(prog, layouts, values["fs_info"])
    elif type_name == "xfs" and disks is not None and not disks.keys() & set(below):
        raise WalkError(f"XFS whose realtime device is unknown: {no_debug_info('xfs')}")
    on_dax = [disk for disk in dict.fromkeys(below) if disks is None or disk in disks]
    if not on_dax:
        return None
    return DaxSuper(
        address,
        type_name,
        _text(memory.string(address + layouts.super_id, layouts.super_id_size)),
        values["dev"],
        values["root"],
        tuple(disk_name(prog, disk) for disk in on_dax),
        start_sector(prog, values["bdev"]) if values["bdev"] else 0,
        layouts.super.object(address),
    )


def for_each_super(prog: Program) -> Iterator[int]:
    """
    Addresses of all superblocks.

    :raises WalkError: after what could be read
    """
    layouts = inodes_of(prog)
    head = find_variable(prog, "super_blocks", "vmlinux").address_
    assert head is not None
    for node in list_nodes(layouts.memory, head, "super_blocks"):
        yield node - layouts.super_list


def for_each_dax_super(prog: Program, problems: "list[str] | None" = None) -> Iterator[DaxSuper]:
    """
    Superblocks of file systems on DAX devices. If it cannot be known which disks have DAX, those on
    any disk.

    :param problems: Gets a line for each superblock that cannot be read; without it, it is skipped.
    :raises WalkError: after what could be read
    """
    layouts = inodes_of(prog)
    disks = dax_disks(prog)
    for address in for_each_super(prog):
        try:
            record = _read_super(prog, layouts, address, disks)
        except WalkError as error:
            if problems is not None:
                problems.append(f"super_block {address:#x}: {error}")
            continue
        if record is not None:
            yield record


def _inode_record(
    layouts: Inodes, address: int, values: dict[str, int], super_: DaxSuper | None
) -> DaxInode:
    return DaxInode(
        address,
        values["ino"],
        values["mode"],
        values["size"],
        values["nlink"],
        values["mapping"],
        super_,
        values["rdev"],
        layouts.inode.object(address),
    )


def read_inode(prog: Program, address: int, super_: DaxSuper | None = None) -> DaxInode:
    """
    Record of an inode.

    :param address: Of the ``struct inode``.
    :raises NotSaved: if the dump does not hold it
    """
    layouts = inodes_of(prog)
    return _inode_record(layouts, address, layouts.inode.read(address), super_)


def for_each_dax_inode(
    prog: Program, super_: DaxSuper, problems: "list[str] | None" = None
) -> Iterator[DaxInode]:
    """
    Inodes of a file system that have DAX on.

    :param problems: Gets a line for each inode that cannot be read; without it, it is skipped.
    :raises WalkError: after what could be read
    """
    layouts = inodes_of(prog)
    what = f"s_inodes of {super_.id}"
    head = super_.address + layouts.super_inodes
    for node in list_nodes(layouts.memory, head, what, _MAX_INODES):
        address = node - layouts.inode_list
        try:
            values = layouts.inode.read(address)
        except NotSaved as error:
            if problems is not None:
                problems.append(f"{what}: inode {address:#x}: {error}")
            continue
        if values["flags"] & S_DAX and values["super"] == super_.address:
            yield _inode_record(layouts, address, values, super_)


def host_of_mapping(prog: Program, mapping: int) -> DaxInode:
    """
    The inode of an address space, which must point back to it.

    :param mapping: Address of a ``struct address_space``.
    :raises WalkError: if it is none, or the dump does not hold it
    """
    layouts = inodes_of(prog)
    host = layouts.mapping.read(mapping)["host"]
    inode = read_inode(prog, host) if host else None
    if inode is None or inode.mapping != mapping:
        raise WalkError(f"{mapping:#x} is no address_space of an inode")
    return inode


def i_pages_of(prog: Program, inode: DaxInode) -> int:
    """Address of an inode's ``i_pages``."""
    return inode.mapping + inodes_of(prog).i_pages


def memory_of_inodes(prog: Program) -> Memory:
    """Shorthand for walkers beside this one."""
    return inodes_of(prog).memory


def json_of_inode(inode: DaxInode) -> dict[str, Any]:
    """The keys that every answer about a file has."""
    super_ = inode.super
    return {
        "inode": inode.ino,
        "device": super_.id if super_ else None,
        "dev": device_number(super_.dev) if super_ else device_number(inode.rdev),
    }
