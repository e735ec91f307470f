# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
DAX file systems
----------------

Superblocks on DAX devices and the DAX inodes in memory. Only VFS structures are needed, so the walk
works with vmlinux alone where the file system is a module; with the debug info of XFS its realtime
device counts too. Sources: include/linux/fs.h, drivers/dax/super.c (``dax_hosts``),
fs/xfs/xfs_mount.h and xfs_buf.h.

An inode that is not in memory has no DAX entries, so it is not mapped: ``s_inodes`` is complete for
owners.
"""

from collections.abc import Iterator

from drgn import Object, Program

from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel.debuginfo import find_type, find_variable, has_type, no_debug_info
from drgn_pmem.kernel.memory import (
    Layout,
    address_of,
    cached,
    hlist_nodes,
    list_nodes,
    memory_of,
)
from drgn_pmem.kernel.partitions import for_each_disk
from drgn_pmem.kernel.xarray import for_each_xarray_entry
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "DaxInode",
    "DaxSuper",
    "dax_disks",
    "device_number",
    "for_each_dax_inode",
    "for_each_dax_super",
    "has_reflinks",
    "host_of_mapping",
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


class DaxSuper(Record):
    """``struct super_block`` of a file system on a DAX device."""

    address: int = shown(Show.ADDRESS)
    type: str
    """``"ext4"``, ``"xfs"``"""
    id: str
    """``s_id``: the block device's name."""
    dev: int
    """``dev_t``, as the inodes' ``st_dev``."""
    root: int = shown(Show.ADDRESS)
    """Address of the root ``struct dentry``."""
    disks: tuple[str, ...]
    """Names of the DAX disks under it: ``"pmem0"``, ``"dm-0"``. If it cannot be known which disks
    have DAX, all disks under it."""
    disk: str | None
    """Name of the disk of its block device, of which :attr:`id` may be a partition; None if it has
    no block device."""
    start_sector: int
    """Of its block device on the disk: 0 unless it is a partition."""
    object: Object = shown(Show.HIDDEN)
    """``struct super_block *``"""


class DaxInode(Record):
    """``struct inode`` with DAX on, in memory."""

    address: int = shown(Show.ADDRESS)
    ino: int
    mode: int
    size: int
    """bytes"""
    nlink: int
    mapping: int = shown(Show.ADDRESS)
    """Address of its ``struct address_space``."""
    super: DaxSuper | None
    """Its file system; None for the inode of a DAX device itself."""
    rdev: int
    """``dev_t`` of a device node."""
    object: Object = shown(Show.HIDDEN)
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


def start_sector(prog: Program, bdev: "Object | int") -> int:
    """
    First sector of a block device on its disk: 0 unless it is a partition.

    :param bdev: ``struct block_device *``, or its address.
    :raises NotSaved: if the dump does not hold it
    """
    layouts = inodes_of(prog)
    bdev = address_of(bdev)
    if layouts.part is not None:
        bdev = layouts.part.read(bdev)["part"]
    # NULL: not open
    return layouts.start.read(bdev)["start"] if bdev else 0


def inodes_of(prog: Program) -> Inodes:
    """The layouts, made once."""
    layouts: Inodes = cached(prog, "inodes", lambda: Inodes(prog))
    return layouts


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def disk_name(prog: Program, disk: "Object | int") -> str:
    """
    Name of a disk as in the dump: ``"pmem0"``.

    :param disk: ``struct gendisk *``, or its address.
    :raises NotSaved: if the dump does not hold it
    """
    layouts = inodes_of(prog)
    return _text(layouts.memory.string(address_of(disk) + layouts.disk_name, 32))


def dax_disks(prog: Program) -> Partial[dict[int, int]]:
    """
    Disks with DAX: address of the ``struct gendisk`` -> of its ``struct dax_device``. Read once per
    program; incomplete without debug info of the dax module.
    """
    disks: Partial[dict[int, int]] = cached(prog, "dax_disks", lambda: _read_dax_disks(prog))
    return disks


def _read_dax_disks(prog: Program) -> Partial[dict[int, int]]:
    problems = Problems()
    disks: dict[int, int] = {}
    with problems.trying("disks with DAX"):
        try:
            # An array by disk since Linux kernel commit fb08a1908cb1 ("dax: simplify the dax_device
            # <-> gendisk association") (in v5.17); before, a hash table of DAX devices by the names
            # of their disks.
            hosts = find_variable(prog, "dax_hosts", "dax")
        except MissingDebugInfo:
            _read_dax_disks_by_name(prog, disks, problems)
        else:
            found = problems.collect(for_each_xarray_entry(hosts.address_of_(), "dax_hosts"))
            disks.update((index, entry.value_()) for index, entry in found)
    return problems.partial(disks)


def _read_dax_disks_by_name(prog: Program, disks: dict[int, int], problems: Problems) -> None:
    table = find_variable(prog, "dax_host_list", "dax")
    device = Layout(memory_of(prog), "struct dax_device", "dax", host="host")
    link, size = device.offset("list"), table[0].type_.size or 0
    named: dict[bytes, int] = {}
    for number in range(len(table)):
        head = (table.address_ or 0) + number * size
        for node in problems.collect(hlist_nodes(device.memory, head, "dax_host_list")):
            with problems.trying(f"dax_device {node - link:#x}"):
                host = device.read(node - link)["host"]
                named[device.memory.string(host, 32)] = node - link
    for disk in problems.collect(for_each_disk(prog)):
        with problems.trying(f"gendisk {disk.value_():#x}"):
            name = disk.disk_name.string_()
            if name in named:
                disks[disk.value_()] = named[name]


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
    """:param disks: None if it cannot be known which disks have DAX."""
    memory = layouts.memory
    values = layouts.super.read(address)
    type_name = _text(memory.string(layouts.fs_type.read(values["type"])["name"], 64))
    below: list[int] = []
    if values["bdev"]:
        below.append(layouts.bdev.read(values["bdev"])["disk"])
    if type_name == "xfs" and has_type(prog, "struct xfs_mount"):
        below += _xfs_disks(prog, layouts, values["fs_info"])
    elif type_name == "xfs" and disks is not None and not disks.keys() & set(below):
        raise MissingDebugInfo(
            f"XFS whose realtime device is unknown: {no_debug_info('xfs')}", "xfs"
        )
    on_dax = [disk for disk in dict.fromkeys(below) if disks is None or disk in disks]
    if not on_dax:
        return None
    return DaxSuper(
        address=address,
        type=type_name,
        id=_text(memory.string(address + layouts.super_id, layouts.super_id_size)),
        dev=values["dev"],
        root=values["root"],
        disks=tuple(disk_name(prog, disk) for disk in on_dax),
        disk=disk_name(prog, below[0]) if values["bdev"] else None,
        start_sector=start_sector(prog, values["bdev"]) if values["bdev"] else 0,
        object=layouts.super.object(address),
    )


def for_each_dax_super(prog: Program) -> Partial[tuple[DaxSuper, ...]]:
    """
    Superblocks of file systems on DAX devices. If it cannot be known which disks have DAX, those on
    any disk: only their inodes with DAX on count.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    problems = Problems()
    layouts = inodes_of(prog)
    partial = dax_disks(prog)
    disks = problems.take(partial)
    head = find_variable(prog, "super_blocks", "vmlinux").address_
    assert head is not None
    found: dict[int, DaxSuper] = {}
    for node in problems.collect(list_nodes(layouts.memory, head, "super_blocks")):
        address = node - layouts.super_list
        with problems.trying(f"super_block {address:#x}"):
            record = _read_super(prog, layouts, address, disks if partial.complete else None)
            if record is not None:
                found[address] = record
    return problems.partial(tuple(found.values()))


_XFS_REFLINK = 1 << 2
"""XFS_SB_FEAT_RO_COMPAT_REFLINK of fs/xfs/libxfs/xfs_format.h: on disk, so never changed."""


def has_reflinks(prog: Program, super_: DaxSuper) -> Partial[bool | None]:
    """
    Whether files of a file system may share extents (reflink); of those with DAX only XFS can.

    :return: None if that is not known.
    """
    problems = Problems()
    if super_.type != "xfs":
        return problems.partial(False)
    with problems.trying(f"features of {super_.id}"):
        mount = find_type(prog, "struct xfs_mount", "xfs")
        xfs = Object(prog, prog.pointer_type(mount), super_.object.s_fs_info.value_())
        features = xfs.m_sb.sb_features_ro_compat.value_()
        return problems.partial(bool(features & _XFS_REFLINK))
    return problems.partial(None)


def _inode_record(
    layouts: Inodes, address: int, values: dict[str, int], super_: DaxSuper | None
) -> DaxInode:
    return DaxInode(
        address=address,
        ino=values["ino"],
        mode=values["mode"],
        size=values["size"],
        nlink=values["nlink"],
        mapping=values["mapping"],
        super=super_,
        rdev=values["rdev"],
        object=layouts.inode.object(address),
    )


def read_inode(prog: Program, inode: "Object | int", super_: DaxSuper | None = None) -> DaxInode:
    """
    Record of an inode.

    :param inode: ``struct inode *``, or its address.
    :raises NotSaved: if the dump does not hold it
    """
    layouts = inodes_of(prog)
    address = address_of(inode)
    return _inode_record(layouts, address, layouts.inode.read(address), super_)


def for_each_dax_inode(prog: Program, super_: DaxSuper, problems: Problems) -> Iterator[DaxInode]:
    """
    Inodes of a file system that have DAX on, one at a time: there may be very many.

    :param problems: Gets what could not be read.
    """
    layouts = inodes_of(prog)
    what = f"s_inodes of {super_.id}"
    head = super_.address + layouts.super_inodes
    seen: set[int] = set()
    with problems.trying(""):
        for node in list_nodes(layouts.memory, head, what, _MAX_INODES):
            address = node - layouts.inode_list
            with problems.trying(f"{what}: inode {address:#x}"):
                values = layouts.inode.read(address)
                of_us = values["flags"] & S_DAX and values["super"] == super_.address
                # A cyclic list comes to some of its entries twice.
                if of_us and address not in seen:
                    seen.add(address)
                    yield _inode_record(layouts, address, values, super_)


def host_of_mapping(prog: Program, mapping: "Object | int") -> DaxInode | None:
    """
    The inode of an address space, which must point back to it.

    :param mapping: ``struct address_space *``, or its address.
    :return: None if it is not the address space of an inode.
    :raises NotSaved: if the dump does not hold it
    """
    layouts = inodes_of(prog)
    mapping = address_of(mapping)
    host = layouts.mapping.read(mapping)["host"]
    inode = read_inode(prog, host) if host else None
    return inode if inode is not None and inode.mapping == mapping else None


def i_pages_of(prog: Program, inode: DaxInode) -> int:
    """Address of an inode's ``i_pages``."""
    return inode.mapping + inodes_of(prog).i_pages
