# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Extents of XFS files
--------------------

Where the data of the XFS inodes in memory is, by the extent lists that the kernel keeps of them. A
file that shares an extent with another (reflink) has it in its list also where it was never read
through a mapping and has no DAX entry. Sources: fs/xfs/libxfs/xfs_inode_fork.h, xfs_iext_tree.c,
xfs_format.h.
"""

from bisect import bisect_left
from collections.abc import Iterator
import stat
import struct

from drgn import Object, Program

from drgn_pmem.kernel.daxfs import DaxInode, DaxSuper, inodes_of, read_inode
from drgn_pmem.kernel.debuginfo import find_type
from drgn_pmem.kernel.memory import Layout, cached, list_nodes, memory_of
from drgn_pmem.partial import Cause, Partial, Problem, Problems, WalkError
from drgn_pmem.record import Record

__all__ = ("XfsExtent", "XfsExtents", "xfs_extents_of")

_MAX_INODES = 1 << 20
_MAX_EXTENTS = 1 << 22
_MAX_NODES = 1 << 20

_FMT_EXTENTS, _FMT_BTREE = 2, 3
"""XFS_DINODE_FMT_EXTENTS, XFS_DINODE_FMT_BTREE: on disk, so never changed."""
_REALTIME = 1 << 0
"""XFS_DIFLAG_REALTIME: on disk, too."""
_IFEXTENTS = 1 << 1
"""XFS_IFEXTENTS of if_flags."""

_RECORD = 16
_RECORDS = 15
"""Records of a leaf: xfs_iext_tree.c fills 256 bytes, with two pointers."""
_KEYS = 16
_NO_KEY = 1 << 63
_OFFSET_BITS = 54
_COUNT_BITS = 21
_UNWRITTEN = 1 << 21
_NULL_START = (1 << 52) - (1 << 17)
"""STARTBLOCKMASK: blocks from here on are none, a delayed allocation (``isnullstartblock()``)."""


class XfsExtent(Record):
    """Neighbouring blocks of a file."""

    inode: DaxInode
    offset: int
    """In the file, in blocks."""
    block: int
    """On the data device, in blocks from its start."""
    count: int
    """blocks"""
    cow: bool
    """Of the copy-on-write fork: to become the file's when it has been written."""


class XfsExtents:
    """Extents of all inodes of a file system that are in memory."""

    def __init__(self, block_size: int, extents: list[XfsExtent]) -> None:
        self.block_size = block_size
        """bytes"""
        self.extents = sorted(extents, key=lambda e: e.block)
        self._most = max((extent.count for extent in extents), default=0)
        self._by_inode: dict[int, list[XfsExtent]] = {}
        for extent in self.extents:
            self._by_inode.setdefault(extent.inode.address, []).append(extent)

    def at(self, block: int) -> list[XfsExtent]:
        """
        Extents that have a block of the device, in order of inode.

        :param block: From the start of the device.
        """
        return sorted(self._overlapping(block, 1), key=lambda e: (e.inode.ino, e.offset))

    def _overlapping(self, block: int, count: int) -> list[XfsExtent]:
        first = bisect_left(self.extents, block - self._most + 1, key=lambda e: e.block)
        end = bisect_left(self.extents, block + count, key=lambda e: e.block)
        return [e for e in self.extents[first:end] if block < e.block + e.count]

    def shared_blocks(self, inode: int) -> list[tuple[int, int]]:
        """
        Parts of a file that other files have too, or the same one elsewhere.

        :param inode: Address of its ``struct inode``.
        :return: (first, end exclusive), in blocks of the file; they may overlap.
        """
        found = []
        for own in self._by_inode.get(inode, []):
            for other in self._overlapping(own.block, own.count):
                if other is own or own.cow or other.cow:
                    continue
                start = max(own.block, other.block)
                end = min(own.block + own.count, other.block + other.count)
                shift = own.offset - own.block
                found.append((start + shift, end + shift))
        return found


class _Reader:
    """Reads the extents of the inodes of one file system."""

    def __init__(self, prog: Program, super_: DaxSuper, problems: Problems) -> None:
        self.prog = prog
        self.super = super_
        self.problems = problems
        self.memory = memory = memory_of(prog)
        mount = find_type(prog, "struct xfs_mount", "xfs")
        sb = Object(prog, prog.pointer_type(mount), super_.object.s_fs_info.value_()).m_sb
        self.block_size = sb.sb_blocksize.value_()
        self.ag_blocks = sb.sb_agblocks.value_()
        self.ag_log = sb.sb_agblklog.value_()
        if not 0 < self.ag_blocks <= 1 << self.ag_log or self.ag_log > 31:
            raise WalkError(f"superblock of {super_.id}: implausible size of allocation groups")
        self.inode = Layout(
            memory,
            "struct xfs_inode",
            "xfs",
            # Since Linux kernel commit db07349da2f5 ("xfs: move the di_flags field to struct
            # xfs_inode") (in v5.13).
            flags=("i_diflags", "i_d.di_flags"),
            cow="i_cowfp",
        )
        self.vfs = self.inode.offset("i_vnode")
        self.data = self.inode.offset("i_df")
        members: dict[str, str | tuple[str, ...]] = {
            "bytes": "if_bytes",
            "height": "if_height",
            # Since commit 6e145f943bd8 ("xfs: make if_data a void pointer") (in v6.8).
            "root": ("if_data", "if_u1.if_root"),
        }
        fork = Layout(memory, "struct xfs_ifork", "xfs", **members)
        # Since commit b2197a36c0ef ("xfs: remove XFS_IFEXTENTS") (in v5.13) not in if_flags. Before
        # v5.8, the format is a member of the inode's core, and only this flag says it.
        for key, name in (("needs", "if_needextents"), ("flags", "if_flags"),
                          ("format", "if_format")):  # fmt: skip
            if fork.has(name):
                members[key] = name
        self.fork = Layout(memory, "struct xfs_ifork", "xfs", **members)
        self.left = _MAX_EXTENTS

    def inodes(self) -> Iterator[int]:
        """Addresses of the VFS inodes in memory."""
        layouts = inodes_of(self.prog)
        head = self.super.address + layouts.super_inodes
        seen: set[int] = set()
        what = f"s_inodes of {self.super.id}"
        for node in list_nodes(self.memory, head, what, _MAX_INODES):
            if node not in seen:
                seen.add(node)
                yield node - layouts.inode_list

    def read(self) -> Iterator[XfsExtent]:
        for address in self.problems.collect(self.inodes(), "inodes with extents"):
            with self.problems.trying(f"extents of inode {address:#x}"):
                inode = read_inode(self.prog, address, self.super)
                if not stat.S_ISREG(inode.mode):
                    continue
                own = self.inode.read(address - self.vfs)
                if own["flags"] & _REALTIME:
                    continue  # its blocks are those of another device
                yield from self._of_fork(address - self.vfs + self.data, inode, False)
                if own["cow"]:
                    yield from self._of_fork(own["cow"], inode, True)

    def _of_fork(self, address: int, inode: DaxInode, cow: bool) -> Iterator[XfsExtent]:
        fork = self.fork.read(address)
        if fork.get("format", _FMT_EXTENTS) not in (_FMT_EXTENTS, _FMT_BTREE):
            return
        is_tree = fork.get("format") == _FMT_BTREE and not fork["height"]
        loaded = fork.get("flags", _IFEXTENTS) & _IFEXTENTS
        if fork.get("needs") or (is_tree and not fork["bytes"]) or not loaded:
            why = "the kernel has not read them into memory"
            what = f"extents of inode {inode.ino} on {self.super.id}"
            self.problems.add(Problem(cause=Cause.UNSUPPORTED, why=why), what)
            return
        for low, high in self._records(fork["root"], fork["height"], fork["bytes"], inode.ino):
            self.left -= 1
            if self.left < 0:
                raise WalkError(f"more than {_MAX_EXTENTS} extents: the others were not read")
            block = low >> _OFFSET_BITS | (high >> (_COUNT_BITS + 1) << (64 - _OFFSET_BITS))
            count = high & ((1 << _COUNT_BITS) - 1)
            group, rest = block >> self.ag_log, block & ((1 << self.ag_log) - 1)
            if block >= _NULL_START:
                continue
            if rest >= self.ag_blocks or not count:
                raise WalkError(f"inode {inode.ino}: implausible extent at block {block:#x}")
            yield XfsExtent(
                inode=inode,
                offset=low & ((1 << _OFFSET_BITS) - 1),
                block=group * self.ag_blocks + rest,
                count=count,
                cow=cow,
            )

    def _records(self, root: int, height: int, size: int, ino: int) -> Iterator[tuple[int, int]]:
        """The words of each record of an in-memory extent tree."""
        if not 0 <= height <= 8 or size < 0 or size % _RECORD:
            raise WalkError(f"inode {ino}: implausible extent tree of height {height}")
        if not height or not size:
            return
        order = self.memory.order
        if height == 1:
            data = self.memory.read(root, min(size, _RECORD * _RECORDS))
            yield from struct.iter_unpack(f"{order}QQ", data)
            return
        node = root
        for _ in range(height - 1):
            node = self.memory.word(node + 8 * _KEYS)  # the first pointer, after the keys
        left = size // _RECORD
        for _ in range(_MAX_NODES):
            data = self.memory.read(node, _RECORD * _RECORDS + 16)
            for low, high in struct.iter_unpack(f"{order}QQ", data[: _RECORD * _RECORDS]):
                if not high:
                    break
                left -= 1
                yield low, high
            node = int(struct.unpack_from(f"{order}Q", data, _RECORD * _RECORDS + 8)[0])
            if not node:
                break
        if left:
            raise WalkError(f"inode {ino}: its extent tree has {left} records less than it counts")


def xfs_extents_of(prog: Program, super_: DaxSuper) -> Partial[XfsExtents | None]:
    """
    Extents of the XFS inodes in memory, read once per file system.

    :return: None for another file system, and if they are not known.
    """

    def read() -> Partial[XfsExtents | None]:
        problems = Problems()
        with problems.trying(f"extents of the files of {super_.id}"):
            reader = _Reader(prog, super_, problems)
            extents = problems.collect(reader.read(), f"extents of the files of {super_.id}")
            return problems.partial(XfsExtents(reader.block_size, extents))
        return problems.partial(None)

    if super_.type != "xfs":
        return Partial(None)
    found: Partial[XfsExtents | None] = cached(prog, f"xfs_extents {super_.address:#x}", read)
    return found
