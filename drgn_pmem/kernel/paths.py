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

from drgn import Object, Program, TypeKind

from drgn_pmem.kernel.daxfs import DaxInode, inodes_of, read_inode
from drgn_pmem.kernel.debuginfo import find_variable
from drgn_pmem.kernel.memory import (
    Layout,
    Memory,
    address_of,
    cached,
    hlist_nodes,
    list_nodes,
    memory_of,
)
from drgn_pmem.kernel.tasks import tasks_of
from drgn_pmem.partial import Partial, Problems, WalkError
from drgn_pmem.record import Record, Show, shown

__all__ = ("InodePaths", "path_of_file", "path_of_mount", "paths_of_inode")

_MNT_INTERNAL = 0x4000
"""Mounts of the kernel itself; a macro of include/linux/mount.h, unchanged since v2.6.34."""

_MAX_ERRNO = 4095
_MAX_DEPTH = 1 << 12
_MAX_ALIASES = 1 << 10
_MAX_MOUNTS = 1 << 14
_NAME_MAX = 255


class InodePaths(Record):
    """The paths of a file."""

    paths: tuple[str, ...]
    """As every mount shows every hard link of it; the plain mount of the initial mount namespace
    first. Not escaped."""
    deleted: bool | None
    """It has no name any more and exists only because it is open or mapped. None if the dentries
    that show it could not be read."""
    path: str | None
    """The first path, ``" (deleted)"`` after it as the kernel shows it. None if it has none in
    memory, or if it is not certain which is the first: not all of them could be read."""

    @property
    def name(self) -> str | None:
        """:attr:`path`, or a path that is certain although another one may come first."""
        return self.path or (self.paths[0] if self.paths else None)


class _Mount(Record):
    address: int = shown(Show.ADDRESS)
    parent: int = shown(Show.ADDRESS)
    mountpoint: int = shown(Show.ADDRESS)
    root: int = shown(Show.ADDRESS)
    internal: bool
    namespace: int = shown(Show.ADDRESS)


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
        self.mounts: dict[int, Partial[list[_Mount]]] = {}
        self.prefixes: dict[int, bytes] = {}


def _first_namespace(prog: Program) -> Partial[int]:
    """Mount namespace of PID 1; 0 if it cannot be read."""
    problems = Problems()
    memory = memory_of(prog)
    task = Layout(memory, "struct task_struct", nsproxy="nsproxy")
    proxy = Layout(memory, "struct nsproxy", namespace="mnt_ns")
    partial = tasks_of(prog)
    first = next((t.address for t in problems.take(partial).tasks if t.pid == 1), None)
    if first is None and partial.complete:
        # init_task's own is an empty one since v7.3.
        first = find_variable(prog, "init_task", "vmlinux").address_
    namespace = 0
    with problems.trying("mount namespace of PID 1"):
        if first is not None:
            nsproxy = task.read(first)["nsproxy"]
            namespace = proxy.read(nsproxy)["namespace"] if nsproxy else 0
    return problems.partial(namespace)


def _layouts(prog: Program) -> _Layouts:
    layouts: _Layouts = cached(prog, "paths", lambda: _Layouts(prog))
    return layouts


def _read_mount(layouts: _Layouts, address: int) -> _Mount:
    values = layouts.mount.read(address)
    return _Mount(
        address=address,
        parent=values["parent"],
        mountpoint=values["mountpoint"],
        root=values["root"],
        # A mount in no namespace (0 or an error pointer) is the kernel's own, or lazily unmounted.
        internal=bool(values["flags"] & _MNT_INTERNAL)
        or not values["namespace"]
        or values["namespace"] > layouts.memory.word_mask - _MAX_ERRNO,
        namespace=values["namespace"],
    )


def _mount_addresses(layouts: _Layouts, super_address: int) -> Iterator[int]:
    head, memory = super_address + layouts.s_mounts, layouts.memory
    if layouts.mounts_are_list:
        for node in list_nodes(memory, head, "s_mounts", _MAX_MOUNTS):
            yield node - layouts.mount_link
    else:
        yield from hlist_nodes(memory, head, "s_mounts", _MAX_MOUNTS, link=layouts.mount_link)


def _read_mounts(layouts: _Layouts, super_address: int, root: int) -> Partial[list[_Mount]]:
    problems = Problems()
    mounts: dict[int, _Mount] = {}
    what = f"mounts of super_block {super_address:#x}"
    for address in problems.collect(_mount_addresses(layouts, super_address), what):
        with problems.trying(f"mount {address:#x}"):
            mounts[address] = _read_mount(layouts, address)
    chosen = [m for m in mounts.values() if not m.internal]
    if not chosen and not problems:
        # Invisible ones (devtmpfs has one at "/") only if there is no other.
        chosen = list(mounts.values())
    namespace = problems.take(layouts.namespace) if len(chosen) > 1 else None
    chosen.sort(key=lambda m: (m.namespace != namespace, m.root != root))
    return problems.partial(chosen)


def _mounts_of(layouts: _Layouts, super_address: int, root: int) -> Partial[list[_Mount]]:
    """Mounts of a superblock, those a user means first."""
    if super_address not in layouts.mounts:
        layouts.mounts[super_address] = _read_mounts(layouts, super_address, root)
    return layouts.mounts[super_address]


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
            raise WalkError(f"mount {mount.address:#x}: its chain of parents does not end")
        layouts.prefixes[mount.address] = b"".join(b"/" + c for c in components)
    return layouts.prefixes[mount.address]


def path_of_mount(prog: Program, mount: Object) -> str:
    """
    Where something is mounted; not escaped.

    :param mount: ``struct mount *``
    :raises WalkError: if a chain of parents does not end
    """
    layouts = _layouts(prog)
    path = _mount_prefix(layouts, _read_mount(layouts, mount.value_())) or b"/"
    return path.decode("utf-8", "backslashreplace")


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
    raise WalkError(f"dentry {dentry:#x}: its chain of parents does not end")


class _NotBelow(WalkError):
    """A dentry that a (bind) mount does not show."""


def _dentry_paths(
    layouts: _Layouts, dentry: int, mounts: list[_Mount], problems: Problems
) -> Iterator[bytes]:
    for mount in mounts:
        try:
            components = _ascend(layouts, dentry, mount.root)
            yield _mount_prefix(layouts, mount) + b"".join(b"/" + c for c in components) or b"/"
        except _NotBelow:
            # not a problem: a bind mount of another folder
            continue
        except WalkError as error:
            problems.add(error, f"dentry {dentry:#x} in mount {mount.address:#x}")


def paths_of_inode(prog: Program, inode: "DaxInode | Object | int") -> Partial[InodePaths]:
    """
    Every path of an inode.

    :param inode: As the walkers of :mod:`drgn_pmem.kernel.daxfs` give it, ``struct inode *``, or
        its address.
    """
    problems = Problems()
    layouts = _layouts(prog)
    paths: dict[bool, list[bytes]] = {True: [], False: []}
    seen: set[bool] = set()
    deleted: bool | None = None
    if not isinstance(inode, DaxInode):
        inode = read_inode(prog, inode)
    with problems.trying(f"path of inode {inode.ino}"):
        super_address = inodes_of(prog).inode.read(inode.address)["super"]
        root = inodes_of(prog).super.read(super_address)["root"]
        mounts = problems.take(_mounts_of(layouts, super_address, root))
        nodes = hlist_nodes(
            layouts.memory, inode.address + layouts.i_dentry, "i_dentry", _MAX_ALIASES
        )
        all_dentries = Problems()
        for node in dict.fromkeys(all_dentries.collect(nodes)):
            dentry = node - layouts.alias
            with all_dentries.trying(f"dentry {dentry:#x}"):
                linked = bool(layouts.dentry.read(dentry)["hashed"]) or dentry == root
                seen.add(linked)
                paths[linked] += _dentry_paths(layouts, dentry, mounts, problems)
        problems.extend(all_dentries, f"path of inode {inode.ino}")
        if True in seen:
            deleted = False
        elif inode.nlink == 0 or not all_dentries:
            deleted = False in seen or inode.nlink == 0
    known = dict.fromkeys(paths[True] if True in seen or deleted is None else paths[False])
    texts = tuple(path.decode("utf-8", "backslashreplace") for path in known)
    first = None
    if texts and not problems:
        first = f"{texts[0]} (deleted)" if deleted else texts[0]
    return problems.partial(InodePaths(paths=texts, deleted=deleted, path=first))


def path_of_file(prog: Program, file: "Object | int") -> tuple[str, bool]:
    """
    Path of an open file as its opener sees it, and whether it is unlinked.

    :param file: ``struct file *``, or its address.
    :raises WalkError: if the dump does not hold it
    """
    layouts = _layouts(prog)
    values = layouts.file.read(address_of(file))
    mount = _read_mount(layouts, values["mount"] - layouts.vfsmount)
    components = _ascend(layouts, values["dentry"], mount.root)
    path = _mount_prefix(layouts, mount) + b"".join(b"/" + c for c in components) or b"/"
    dentry = layouts.dentry.read(values["dentry"])
    unlinked = not dentry["hashed"] and dentry["parent"] != values["dentry"]
    return path.decode("utf-8", "backslashreplace"), unlinked
