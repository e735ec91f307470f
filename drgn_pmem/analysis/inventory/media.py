# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What namespaces hold, and why they are raw or disabled
------------------------------------------------------

Of each namespace with a block device, what its first bytes hold (a file system, a partition table)
beside what is mounted from it; of one that is raw or disabled, why. Sources: drivers/nvdimm/pmem.c
(``nd_pmem_probe()``), claim.c and namespace_devs.c, and what they print to the kernel log.
"""

from collections.abc import Callable, Iterable, Mapping
import re
from typing import Any

from drgn import Object, Program
from drgn.helpers.linux.fs import for_each_mount

from drgn_pmem.analysis.inventory.blockcheck import physical_reader
from drgn_pmem.analysis.inventory.foundblock import FoundBlock
from drgn_pmem.analysis.inventory.infoblocks import find_blocks
from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.errors import FormatError
from drgn_pmem.formats.btt import BttArenaPlace, decode_map_entry, walk_btt
from drgn_pmem.formats.content import CONTENT_PARTS, Content, identify
from drgn_pmem.kernel.debuginfo import need_kernel_debug_info
from drgn_pmem.kernel.dm import DmPiece, dm_pieces
from drgn_pmem.kernel.iomem import for_each_iomem
from drgn_pmem.kernel.kernellog import read_log
from drgn_pmem.kernel.namespace import Namespace, for_each_namespace
from drgn_pmem.kernel.paths import path_of_mount
from drgn_pmem.kernel.region import for_each_region
from drgn_pmem.kernel.strings import kernel_string
from drgn_pmem.kernel.walk import bounded
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems
from drgn_pmem.record import Record, shown

__all__ = ("Media", "Mount", "lost_memory", "read_media")

_KMEM = "System RAM (kmem)"
_WORRY = re.compile(
    r"could not|fail|unable|error|not support|misalign|invalid|corrupt|conflict", re.I
)
_MAX_LOG = 1 << 24


class Mount(Record):
    """A mount of a block device."""

    path: str
    type: str


class Media(Record):
    """What a namespace holds, and why it is raw or disabled."""

    content: Content | None
    """By its first bytes; None if it has no block device, or they were not saved."""
    content_state: State | None = shown(json=False)
    """Whether its first bytes were saved; None if it has no block device."""
    mounts: tuple[Mount, ...] | None
    """What is mounted from its block device, its partitions or linear dm disks on it; None if that
    is not known."""
    has_disk: bool = shown(json=False)
    """Whether it has a block device."""
    why: str | None
    """Why it is raw or disabled, one sentence; None if it is neither."""

    def to_json(self) -> dict[str, Any]:
        values = super().to_json()
        if self.content_state is not None:
            content = values["content"] or {"kind": None, "label": None}
            values["content"] = {**content, "state": self.content_state.value}
        return values


def read_media(prog: Program) -> Partial[dict[str, Media]]:
    """
    Media of every namespace, by its name (``"namespace0.0"``). First bytes that were not saved are
    no problem of the answer: :attr:`Media.content_state` says so. The info block of a raw namespace
    that was not saved is one, unless the dump has no user data of that namespace at all, as most
    dumps.
    """
    problems = Problems()
    namespaces = problems.take(for_each_namespace(prog))
    mounts = _mounts(prog)
    by_disk = problems.take(mounts)
    log = problems.attempt("the kernel log", lambda: read_log(prog))
    lines = (log or b"")[-_MAX_LOG:].decode("utf-8", "backslashreplace").splitlines()
    blocks = {block.start: block for block in _blocks(prog, problems)}
    found = {}
    for namespace in namespaces:
        with problems.trying(namespace.dev):
            block = blocks.get(namespace.resource)
            _name_lost_block(prog, namespace, block, problems)
            content = _content(prog, namespace, problems)
            found[namespace.dev] = Media(
                content=content,
                content_state=_content_state(prog, namespace, content),
                mounts=_mounts_of(namespace, by_disk, mounts.complete),
                has_disk=namespace.blockdev is not None,
                why=_why(namespace, block, lines, log is not None),
            )
    return problems.partial(found)


def _blocks(prog: Program, problems: Problems) -> list[FoundBlock]:
    """Info blocks of the namespaces. One that was not saved is no problem here: only a raw
    namespace needs it (:func:`_name_lost_block`)."""
    found = find_blocks(prog, of_namespaces=True)
    own = Problems()
    blocks = own.take(found).blocks
    missing = {block.namespace for block in blocks if block.state is not State.SAVED}
    problems.extend(
        problem for problem in own if problem.subject is None or problem.subject not in missing
    )
    return blocks


def _name_lost_block(
    prog: Program, namespace: Namespace, block: FoundBlock | None, problems: Problems
) -> None:
    """Why a namespace is raw is not known without the place of its info block."""
    if block is None or block.state is State.SAVED or namespace.mode != "raw":
        return
    if not namespace.enabled or namespace.force_raw:
        return
    held = coverage_of(prog).count(namespace.range.start, namespace.range.end)
    if held.get(State.SAVED):
        what, why = f"why {namespace.dev} is raw", f"its info block is {block.state.value}"
        problems.add(Problem(cause=Cause.NOT_SAVED, what=what, why=why, state=block.state))


def _mounts(prog: Program) -> Partial[dict[str, tuple[Mount, ...]]]:
    """What is mounted from each disk."""
    problems = Problems()
    found: dict[str, tuple[Mount, ...]] = {}
    with problems.trying(""):
        need_kernel_debug_info(prog, "what is mounted")
        for mount in problems.collect(bounded(for_each_mount(prog), "mounts")):
            with problems.trying(f"mount at {mount.value_():#x}"):
                device = mount.mnt.mnt_sb.s_bdev.read_()
                if device:
                    disk = kernel_string(device.bd_disk.disk_name)
                    path, type_ = path_of_mount(prog, mount), _file_system(mount)
                    record = Mount(path=path, type=type_)
                    found[disk] = (*found.get(disk, ()), record)
    if any(disk.startswith("dm-") for disk in found):
        for below, mounts in _below(problems.take(dm_pieces(prog)), found).items():
            found[below] = (*found.get(below, ()), *mounts)
    return problems.partial(found)


def _file_system(mount: Object) -> str:
    """As /proc/mounts has it: ``"ext4"``, ``"fuse.sshfs"``."""
    super_ = mount.mnt.mnt_sb
    name = kernel_string(super_.s_type.name)
    subtype = kernel_string(super_.s_subtype) if super_.s_subtype else ""
    return f"{name}.{subtype}" if subtype else name


def _below(
    pieces: Iterable[DmPiece], by_disk: Mapping[str, tuple[Mount, ...]]
) -> dict[str, tuple[Mount, ...]]:
    """Mounts of dm disks, by each disk that they are on."""
    places: dict[str, set[str]] = {}
    for piece in pieces:
        if piece.below is not None:
            places.setdefault(piece.disk, set()).add(piece.below)
    found: dict[str, tuple[Mount, ...]] = {}
    for disk, mounts in by_disk.items():
        seen, todo = {disk}, [disk]
        while todo:
            for below in sorted(places.get(todo.pop(), set()) - seen):
                seen.add(below)
                todo.append(below)
                found[below] = (*found.get(below, ()), *mounts)
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _mounts_of(
    namespace: Namespace, by_disk: Mapping[str, tuple[Mount, ...]], complete: bool
) -> tuple[Mount, ...] | None:
    """None if it is not known whether there are any."""
    if namespace.blockdev is None:
        without = namespace.mode == "devdax" or namespace.enabled is False
        return () if without else None
    return by_disk.get(namespace.blockdev, () if complete else None)


def _content(prog: Program, namespace: Namespace, problems: Problems) -> Content | None:
    if namespace.blockdev is None:
        return None
    read = physical_reader(prog, problems)
    if namespace.mode == "sector":
        try:
            chain = walk_btt(
                lambda offset, size: read(namespace.resource + offset, size), namespace.raw_size
            )
        except (NotSaved, FormatError):
            # not a problem: the answer shows the content as not known
            return None
        return identify(_through_btt(read, namespace.resource, chain.arenas[0]))
    if namespace.data_offset is None:
        return None
    first = namespace.resource + namespace.data_offset
    return identify(lambda offset, size: read(first + offset, size))


def _content_state(prog: Program, namespace: Namespace, content: Content | None) -> State | None:
    """What the dump holds of the bytes that :func:`_content` looks at."""
    if namespace.blockdev is None:
        return None
    if content is not None:
        return State.SAVED
    if namespace.mode == "sector" or namespace.data_offset is None:
        return State.UNKNOWN
    first = namespace.resource + namespace.data_offset
    states = (coverage_of(prog).state(first + offset) for offset, _ in CONTENT_PARTS)
    return next((state for state in states if state is not State.SAVED), State.UNKNOWN)


def _through_btt(
    read: Callable[[int, int], bytes | None], start: int, place: BttArenaPlace
) -> Callable[[int, int], bytes | None]:
    """``read(offset, size)`` of a sector-mode device, by the map of its first arena
    (``btt_map_read()``)."""
    arena, base = place.arena, start + place.offset
    unit = arena.external_lbasize

    def block(number: int) -> bytes | None:
        entry = read(base + arena.mapoff + 4 * number, 4) if number < arena.external_nlba else None
        if entry is None:
            return None
        mapped = decode_map_entry(int.from_bytes(entry, "little"))
        if mapped.state == "trim":
            return bytes(unit)
        if mapped.state == "error":
            return None
        lba = number if mapped.state == "initial" else mapped.lba
        return read(base + arena.dataoff + lba * arena.internal_lbasize, unit)

    def through(offset: int, size: int) -> bytes | None:
        if not 512 <= unit <= 4096:
            return None
        parts = [block(number) for number in range(offset // unit, -(-(offset + size) // unit))]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return b"".join(known)[offset % unit :][:size]

    return through


def _why(
    namespace: Namespace, block: FoundBlock | None, lines: list[str], log_known: bool
) -> str | None:
    if namespace.enabled is None:
        return "whether a driver is bound is not known"
    if not namespace.enabled:
        return _why_disabled(namespace, lines, log_known)
    if namespace.has_no_claim and namespace.mode == "fsdax":
        return "no info block needed: its region maps the pages of a namespace without labels"
    if namespace.mode != "raw":
        return None
    if namespace.force_raw:
        return "raw: force_raw is set, so that the kernel does not look for an info block"
    if block is None:
        return "raw: no driver found an info block"
    if block.refused:
        return f"raw: the kernel refuses its {block.kind} info block: {block.refused[0].why}"
    if block.block is not None:
        return f"raw, although there is a valid {block.kind} info block: written after setup"
    if block.state is not State.SAVED:
        return (
            "raw: reason unknown: the bytes where an info block would be were not saved "
            f"({block.state.value})"
        )
    return f"raw: {'; '.join(block.notes)}"


def _why_disabled(namespace: Namespace, lines: list[str], log_known: bool) -> str:
    if namespace.raw_size == 0:
        spare = ": the spare device of its region" if namespace.seed else ""
        return f"disabled: no capacity{spare}"
    names = [name for name in (namespace.dev, namespace.claim) if name is not None]
    name = re.compile("|".join(rf"\b{re.escape(name)}(?![\d.])" for name in names))
    said = [line for line in lines if name.search(line) and _WORRY.search(line)]
    if said:
        return f"disabled: {said[-1].strip()}"
    claimed = f", although {namespace.claim} claims it" if namespace.claim is not None else ""
    log = "names no failure" if log_known else "was not saved, so the reason is not known"
    return f"disabled: no driver is bound{claimed}; the kernel log {log}"


def lost_memory(prog: Program) -> Partial[list[str]]:
    """Memory that is still online as RAM after its namespace was destroyed, one sentence each."""
    problems = Problems()
    every = for_each_namespace(prog)
    namespaces = problems.take(every)
    if not every.complete:
        return problems.partial([])  # a namespace that could not be read may be the one
    found = []
    for resource in problems.take(for_each_iomem(prog)):
        if resource.name != _KMEM:
            continue
        owner = next((n for n in namespaces if n.raw_size and resource.start in n.range), None)
        if owner is not None and owner.enabled is not False:
            continue
        if not _in_pmem(prog, resource.start, problems):
            continue
        gone = "its namespace is gone" if owner is None else f"{owner.dev} is disabled"
        found.append(
            f"{resource.start:#x}-{resource.end + 1:#x} is still online as {_KMEM} although "
            f"{gone}: the region holds this memory until the machine reboots"
        )
    return problems.partial(found)


def _in_pmem(prog: Program, address: int, problems: Problems) -> bool:
    """Whether an address is in a region of persistent memory: RAM of other devices (CXL, hmem) is
    online in the same way and never had a namespace."""
    return any(address in region.range for region in problems.take(for_each_region(prog)))
