# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
BTT arenas of sector-mode namespaces
------------------------------------

``struct btt_sb`` (:linux:`drivers/nvdimm/btt.h`), little-endian. A namespace is a chain of arenas
of up to 512 GiB, each::

    info block | data blocks | map | log | backup of the info block

BTT 1.1 begins 4 KiB into the namespace, BTT 2.0 at its base. Offsets in an arena count from its own
start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.clayout import CLayout
from drgn_pmem.formats.superblock import SB_SIZE, unpack_sb
from drgn_pmem.partial import Cause, NotSaved, Problem
from drgn_pmem.record import Record, shown

__all__ = (
    "BTT_SIGNATURE",
    "BttArena",
    "BttArenaPlace",
    "BttChain",
    "BttMapEntry",
    "check_btt",
    "decode_map_entry",
    "parse_btt",
    "walk_btt",
)

BTT_SIGNATURE = b"BTT_ARENA_INFO\0\0"

_ARENA_MIN_SIZE = 1 << 24
_IB_FLAG_ERROR = 1
_LOG_GROUP_SIZE = 64
# 2 PiB of arenas of the usual 512 GiB; a chain of more is damage.
_MAX_ARENAS = 4096

_LAYOUT = CLayout("""
struct btt_sb {
    char     signature[16];
    char     uuid[16];
    char     parent_uuid[16];
    uint32_t flags;
    uint16_t version_major;
    uint16_t version_minor;
    uint32_t external_lbasize;
    uint32_t external_nlba;
    uint32_t internal_lbasize;
    uint32_t internal_nlba;
    uint32_t nfree;
    uint32_t infosize;
    uint64_t nextoff;           /* 0: the last arena */
    uint64_t dataoff;
    uint64_t mapoff;
    uint64_t logoff;
    uint64_t info2off;
    char     padding[3968];
    uint64_t checksum;
};
""")

_NUMBERS = (
    "external_lbasize",
    "external_nlba",
    "internal_lbasize",
    "internal_nlba",
    "nfree",
    "infosize",
    "nextoff",
    "dataoff",
    "mapoff",
    "logoff",
    "info2off",
)


class BttArena(Record):
    """``struct btt_sb``; offsets in bytes from the start of this arena."""

    uuid: str
    parent_uuid: str
    flags: int
    version_major: int
    version_minor: int
    external_lbasize: int
    external_nlba: int
    internal_lbasize: int
    internal_nlba: int
    nfree: int
    infosize: int
    nextoff: int
    dataoff: int
    mapoff: int
    logoff: int
    info2off: int
    signature: str = "BTT_ARENA_INFO"
    checksum: int = 0
    checksum_ok: bool = True

    @property
    def version(self) -> str:
        return f"{self.version_major}.{self.version_minor}"

    @property
    def size(self) -> int:
        """Bytes of this arena, info block and backup included."""
        return self.nextoff or self.info2off + SB_SIZE

    @property
    def error(self) -> bool:
        """The arena is in error state: the kernel made it read-only."""
        return bool(self.flags & _IB_FLAG_ERROR)

    def to_json(self) -> dict[str, Any]:
        """The keys and values of ``ndctl read-infoblock -j``, and ``checksum_ok``."""
        return {
            "signature": self.signature,
            "uuid": self.uuid,
            "parent_uuid": self.parent_uuid,
            "flags": self.flags,
            "version": self.version,
            **{name: getattr(self, name) for name in _NUMBERS},
            "checksum_ok": self.checksum_ok,
        }


def parse_btt(data: bytes, *, verify: bool = True) -> BttArena:
    """
    Decode the info block of an arena.

    :param data: ``struct btt_sb``, 4096 bytes or more.
    :param verify: Refuse a wrong checksum.
    :raises FormatError: naming the signature, checksum or size that is wrong.
    """
    members, computed = unpack_sb(
        _LAYOUT,
        "btt_sb",
        data,
        (BTT_SIGNATURE,),
        "not a BTT arena: signature {} is not BTT_ARENA_INFO",
    )
    arena = BttArena(**members, checksum_ok=computed == members["checksum"])
    if verify and not arena.checksum_ok:
        raise FormatError(
            f"damaged BTT arena: checksum {arena.checksum:#018x}, its bytes give {computed:#018x}"
        )
    return arena


def check_btt(arena: BttArena, available: int) -> list[str]:
    """
    What is inconsistent in an arena, one sentence each.

    :param available: Bytes from the arena's start to the end of the namespace.
    """
    problems = []
    if (arena.version_major, arena.version_minor) not in ((1, 1), (2, 0)):
        problems.append(f"version {arena.version} is neither 1.1 nor 2.0")
    if arena.error:
        problems.append("the error flag is set: the kernel made the arena read-only")
    places = ("dataoff", "mapoff", "logoff", "info2off")
    offsets = [SB_SIZE - 1, *(getattr(arena, name) for name in places)]
    for name, before, offset in zip(places, offsets, offsets[1:], strict=False):
        if offset <= before:
            problems.append(f"{name} {offset:#x} overlaps the part before it")
    if arena.info2off + SB_SIZE > available:
        problems.append(f"info2off {arena.info2off:#x} is beyond the namespace's end")
    if arena.nextoff and arena.nextoff < arena.info2off + SB_SIZE:
        problems.append(f"nextoff {arena.nextoff:#x} points into the arena itself")
    if arena.internal_nlba != arena.external_nlba + arena.nfree:
        problems.append(
            f"internal_nlba {arena.internal_nlba} is not"
            f" external_nlba {arena.external_nlba} + nfree {arena.nfree}"
        )
    if arena.internal_lbasize < arena.external_lbasize:
        problems.append(
            f"internal_lbasize {arena.internal_lbasize} is below"
            f" external_lbasize {arena.external_lbasize}"
        )
    for what, need, start, end in (
        ("data", arena.internal_nlba * arena.internal_lbasize, arena.dataoff, arena.mapoff),
        ("map", arena.external_nlba * 4, arena.mapoff, arena.logoff),
        ("log", arena.nfree * _LOG_GROUP_SIZE, arena.logoff, arena.info2off),
    ):
        if start < end < start + need:
            problems.append(f"the {what} needs {need} bytes but has {end - start}")
    return problems


class BttArenaPlace(Record):
    """One arena of a chain."""

    offset: int
    """Bytes from the base of the namespace."""
    arena: BttArena
    backup: str
    """The backup at ``info2off``: ``same``, ``differs``, ``damaged`` or ``unreadable``."""
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "offset": self.offset,
            **self.arena.to_json(),
            "backup": self.backup,
            "problems": list(self.problems),
        }


class BttChain(Record):
    """The arenas of a namespace; as many as could be read when something is wrong."""

    arenas: tuple[BttArenaPlace, ...]
    problems: tuple[Problem, ...] = shown(
        json=lambda problems: [str(problem) for problem in problems], default=()
    )
    """Why the chain ends early; empty for a whole one."""

    @property
    def external_nlba(self) -> int:
        """Sectors of all arenas."""
        return sum(place.arena.external_nlba for place in self.arenas)


def walk_btt(read: Callable[[int, int], bytes | None], namespace_size: int) -> BttChain:
    """
    All arenas of a namespace, as ``discover_arenas()`` in :linux:`drivers/nvdimm/btt.c` walks them.

    As in the kernel, the chain ends at an arena whose info block is damaged: its backup is only
    compared.

    :param read: ``read(offset, size)`` gives bytes of the namespace, or ``None`` (or fewer) where
        there are none.
    :param namespace_size: Bytes.
    :raises FormatError: if no arena begins at 4 KiB (BTT 1.1) or at 0 (BTT 2.0).
    :raises NotSaved: if none was found, and one of these places could not be read.
    """
    errors = []
    unread = False
    for base, major in ((SB_SIZE, 1), (0, 2)):
        try:
            first = _read_arena(read, base)
        except (FormatError, NotSaved) as error:
            errors.append(f"at {base:#x}: {error}")
            unread |= isinstance(error, NotSaved)
            continue
        if first.version_major == major:
            break
        errors.append(f"at {base:#x}: version {first.version} does not belong there")
    else:
        why = "; ".join(errors)
        if unread:
            raise NotSaved(f"whether there is a BTT in this namespace is not known: {why}")
        raise FormatError(f"no valid BTT in this namespace: {why}")

    places = []
    offset, arena = base, first
    while True:
        backup = _compare_backup(read, offset, arena)
        problems = check_btt(arena, namespace_size - offset)
        if arena.uuid != first.uuid:
            problems.append(f"uuid {arena.uuid} is not the first arena's {first.uuid}")
        place = BttArenaPlace(offset=offset, arena=arena, backup=backup, problems=tuple(problems))
        places.append(place)
        if arena.nextoff == 0:
            return BttChain(arenas=tuple(places))
        # Offsets only ever grow, so there is no cycle; small steps are what a hostile chain can do.
        if arena.nextoff < _ARENA_MIN_SIZE:
            end = f"nextoff {arena.nextoff:#x} is less than the smallest arena (16 MiB)"
        elif offset + arena.nextoff + SB_SIZE > namespace_size:
            end = f"nextoff {arena.nextoff:#x} leads beyond the namespace's end"
        elif len(places) == _MAX_ARENAS:
            end = f"more than {_MAX_ARENAS} arenas"
        else:
            offset += arena.nextoff
            try:
                arena = _read_arena(read, offset)
                continue
            except (FormatError, NotSaved) as error:
                problem = Problem.of(error, f"arena {len(places)} at {offset:#x}")
                return BttChain(arenas=tuple(places), problems=(problem,))
        what = f"arena {len(places)} at {offset:#x}"
        problem = Problem(cause=Cause.DAMAGED, what=what, why=end)
        return BttChain(arenas=tuple(places), problems=(problem,))


def _read_arena(read: Callable[[int, int], bytes | None], offset: int) -> BttArena:
    data = read(offset, SB_SIZE)
    if data is None or len(data) < SB_SIZE:
        raise NotSaved("info block not saved")
    return parse_btt(data)


def _compare_backup(read: Callable[[int, int], bytes | None], offset: int, arena: BttArena) -> str:
    data = read(offset + arena.info2off, SB_SIZE)
    if data is None or len(data) < SB_SIZE:
        return "unreadable"
    try:
        return "same" if parse_btt(data) == arena else "differs"
    except FormatError:
        return "damaged"


class BttMapEntry(Record):
    """Where the map puts an external block."""

    state: str
    """
    ``initial`` (never written: identity), ``normal``, ``trim`` (reads as zeroes) or ``error``.
    """
    lba: int
    """Internal block; of no meaning for ``initial``."""


def decode_map_entry(entry: int) -> BttMapEntry:
    """
    Decode a 32-bit map entry, as ``btt_map_read()`` does.

    :param entry: ``u32``, in host order.
    """
    states = {0: "initial", 1: "error", 2: "trim", 3: "normal"}
    return BttMapEntry(state=states[entry >> 30 & 3], lba=entry & 0x3FFFFFFF)
