# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Paths
-----

Inode to path through its dentries, as every mount of the file system shows it. drgn has helpers for
the same (:mod:`drgn.helpers.linux.fs`); these are bounded, know unlinked files, and name every bind
mount, the plain one first. Sources: include/linux/dcache.h, fs/mount.h, fs/d_path.c.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from drgn import FaultError, Program, TypeKind
from drgn.helpers.linux.pid import find_task

from drgn_pmem.kernel.daxfs import DaxInode, inodes_of
from drgn_pmem.kernel.memory import Layout, Memory, cached, hlist_nodes, list_nodes, memory_of
from drgn_pmem.partial import WalkError

__all__ = ("InodePaths", "path_of_file", "paths_of_inode")

_MNT_INTERNAL = 0x4000
"""Mounts of the kernel itself; a macro of include/linux/mount.h, unchanged since v2.6.34."""

_MAX_ERRNO = 4095
_MAX_DEPTH = 1 << 12
_MAX_ALIASES = 1 << 10
_MAX_MOUNTS = 1 << 14
_NAME_MAX = 255


@dataclass(frozen=True)
class InodePaths:
    """Where a file is to be found."""

    paths: tuple[str, ...]
    """As every mount shows every hard link of it; the plain mount of the initial mount namespace
    first. Not escaped."""
    deleted: bool
    """No name leads to it any more: it lives because it is open or mapped."""
    problems: tuple[str, ...] = ()

    @property
    def path(self) -> str | None:
        """The first path, ``" (deleted)"`` after it as the kernel shows it."""
        if not self.paths:
            return None
        return f"{self.paths[0]} (deleted)" if self.deleted else self.paths[0]


@dataclass(frozen=True)
class _Mount:
    address: int
    parent: int
    mountpoint: int
    root: int
    internal: bool
    namespace: int


class _Layouts:
    def __init__(self, prog: Program) -> None:
        memory: Memory = memory_of(prog)
        self.memory = memory
        self.dentry = Layout(
            memory,
            "struct dentry",
            parent="d_parent",
            name="d_name.name",
            length="d_name.len",
            inode="d_inode",
            hashed="d_hash.pprev",
        )
        # Since Linux kernel commit 3b7d764a37d0 ("struct dentry: make ->d_u anonymous") (in v7.1).
        self.alias = self.dentry.offset("d_alias", "d_u.d_alias")
        self.i_dentry = Layout(memory, "struct inode").offset("i_dentry")
        self.mount = Layout(
            memory,
            "struct mount",
            parent="mnt_parent",
            mountpoint="mnt_mountpoint",
            root="mnt.mnt_root",
            flags="mnt.mnt_flags",
            namespace="mnt_ns",
        )
        self.vfsmount = self.mount.offset("mnt")
        super_ = Layout(memory, "struct super_block")
        self.s_mounts = super_.offset("s_mounts")
        # Since Linux kernel commit 09a1b33c080f ("preparations to taking MNT_WRITE_HOLD out of
        # ->mnt_flags") (in v6.18), an open-coded singly linked list.
        kind = super_.type.member("s_mounts").type.unaliased_kind()
        self.mounts_are_list = kind != TypeKind.POINTER
        self.mount_link = self.mount.offset(
            "mnt_instance" if self.mounts_are_list else "mnt_next_for_sb"
        )
        self.file = Layout(
            memory, "struct file", mount="f_path.mnt", dentry="f_path.dentry", inode="f_inode"
        )
        self.namespace = _first_namespace(prog)
        self.mounts: dict[int, tuple[list[_Mount], list[str]]] = {}
        self.prefixes: dict[int, bytes] = {}


def _first_namespace(prog: Program) -> int:
    """Mount namespace of PID 1 (init_task's own is an empty one since v7.3)."""
    try:
        task = find_task(prog, 1)
        if task:
            return int(task.nsproxy.mnt_ns)
    except (FaultError, LookupError):
        pass
    try:
        return int(prog["init_task"].nsproxy.mnt_ns)
    except (FaultError, LookupError):
        pass
    return 0


def _layouts(prog: Program) -> _Layouts:
    layouts: _Layouts = cached(prog, "paths", lambda: _Layouts(prog))
    return layouts


def _read_mount(layouts: _Layouts, address: int) -> _Mount:
    values = layouts.mount.read(address)
    return _Mount(
        address,
        values["parent"],
        values["mountpoint"],
        values["root"],
        # A mount in no namespace (0 or an error pointer) is the kernel's own, or lazily unmounted.
        bool(values["flags"] & _MNT_INTERNAL)
        or not values["namespace"]
        or values["namespace"] > layouts.memory.word_mask - _MAX_ERRNO,
        values["namespace"],
    )


def _mount_addresses(layouts: _Layouts, super_address: int) -> Iterator[int]:
    head = super_address + layouts.s_mounts
    if layouts.mounts_are_list:
        for node in list_nodes(layouts.memory, head, "s_mounts", _MAX_MOUNTS):
            yield node - layouts.mount_link
        return
    seen: set[int] = set()
    mount = layouts.memory.word(head)
    while mount:
        if mount in seen or len(seen) >= _MAX_MOUNTS:
            raise WalkError("s_mounts: the list is cyclic or too long")
        seen.add(mount)
        yield mount
        mount = layouts.memory.word(mount + layouts.mount_link)


def _mounts_of(
    layouts: _Layouts, super_address: int, root: int
) -> "tuple[list[_Mount], list[str]]":
    """Mounts of a superblock, those a user means first; what could not be read."""
    if super_address in layouts.mounts:
        return layouts.mounts[super_address]
    mounts: list[_Mount] = []
    problems: list[str] = []
    try:
        for address in _mount_addresses(layouts, super_address):
            mounts.append(_read_mount(layouts, address))
    except WalkError as error:
        problems.append(f"mounts of super_block {super_address:#x}: {error}")
    # Those that nobody sees (devtmpfs has one at "/") only if there is no other.
    mounts = [m for m in mounts if not m.internal] or mounts
    mounts.sort(key=lambda m: (m.namespace != layouts.namespace, m.root != root))
    layouts.mounts[super_address] = mounts, problems
    return mounts, problems


def _name(layouts: _Layouts, values: dict[str, int]) -> bytes:
    return layouts.memory.read(values["name"], min(values["length"], _NAME_MAX))


def _mount_prefix(layouts: _Layouts, mount: _Mount) -> bytes:
    """Path of a mount's root, without a slash at the end."""
    if mount.address not in layouts.prefixes:
        components: list[bytes] = []
        above = mount
        for _ in range(_MAX_DEPTH):
            if above.parent == above.address or not above.parent:
                break
            parent = _read_mount(layouts, above.parent)
            components = _ascend(layouts, above.mountpoint, parent.root) + components
            above = parent
        else:
            raise WalkError(f"mount {mount.address:#x}: its parents never end")
        layouts.prefixes[mount.address] = b"".join(b"/" + c for c in components)
    return layouts.prefixes[mount.address]


def _ascend(layouts: _Layouts, dentry: int, root: int) -> list[bytes]:
    """
    Names from a mount's root down to a dentry.

    :raises WalkError: if the dentry is not below that root
    """
    components: list[bytes] = []
    for _ in range(_MAX_DEPTH):
        if dentry == root:
            return components[::-1]
        values = layouts.dentry.read(dentry)
        if values["parent"] == dentry:
            raise _NotBelow(f"dentry {dentry:#x} is not below the mount")
        components.append(_name(layouts, values))
        dentry = values["parent"]
    raise WalkError(f"dentry {dentry:#x}: its parents never end")


class _NotBelow(WalkError):
    """A dentry that a (bind) mount does not show."""


def _dentry_paths(layouts: _Layouts, dentry: int, mounts: list[_Mount]) -> Iterator[bytes]:
    for mount in mounts:
        try:
            components = _ascend(layouts, dentry, mount.root)
        except _NotBelow:
            continue
        yield _mount_prefix(layouts, mount) + b"".join(b"/" + c for c in components) or b"/"


def paths_of_inode(prog: Program, inode: DaxInode) -> InodePaths:
    """
    Every path of an inode. Never raises for what the dump lacks: see
    :attr:`InodePaths.problems`.

    :param inode: As the walkers of :mod:`drgn_pmem.kernel.daxfs` give it.
    """
    layouts = _layouts(prog)
    try:
        super_address = inodes_of(prog).inode.read(inode.address)["super"]
        root = inodes_of(prog).super.read(super_address)["root"]
    except WalkError as error:
        return InodePaths((), False, (str(error),))
    mounts, mount_problems = _mounts_of(layouts, super_address, root)
    problems = list(mount_problems)
    linked: list[bytes] = []
    unlinked: list[bytes] = []
    try:
        for node in hlist_nodes(
            layouts.memory, inode.address + layouts.i_dentry, "i_dentry", _MAX_ALIASES
        ):
            dentry = node - layouts.alias
            hashed = layouts.dentry.read(dentry)["hashed"] or dentry == root
            (linked if hashed else unlinked).extend(_dentry_paths(layouts, dentry, mounts))
    except WalkError as error:
        problems.append(f"path of inode {inode.ino}: {error}")
    deleted = not linked and (bool(unlinked) or inode.nlink == 0)
    paths = dict.fromkeys(linked or unlinked)
    return InodePaths(
        tuple(path.decode("utf-8", "backslashreplace") for path in paths), deleted, tuple(problems)
    )


def path_of_file(prog: Program, file: int) -> tuple[str | None, bool]:
    """
    Path of an open file as its opener sees it, and whether it is unlinked.

    :param file: Address of a ``struct file``.
    :raises WalkError: if the dump does not hold it
    """
    layouts = _layouts(prog)
    values = layouts.file.read(file)
    mount = _read_mount(layouts, values["mount"] - layouts.vfsmount)
    components = _ascend(layouts, values["dentry"], mount.root)
    path = _mount_prefix(layouts, mount) + b"".join(b"/" + c for c in components) or b"/"
    dentry = layouts.dentry.read(values["dentry"])
    unlinked = not dentry["hashed"] and dentry["parent"] != values["dentry"]
    return path.decode("utf-8", "backslashreplace"), unlinked
