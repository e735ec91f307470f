# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Device mapper
-------------

dm-linear (LVM's plain volumes) on top of persistent memory: where each piece of a dm disk is on the
disks below; for other targets, their type. DAX entries hold the physical page; the table turns it
into a sector of the dm disk, which the file system counts. Sources: drivers/md/dm-core.h,
dm-linear.c, include/linux/device-mapper.h.
"""

from collections.abc import Iterator
import functools
from typing import Any

from drgn import Object, Program, cast

from drgn_pmem.kernel.daxfs import dax_disks, disk_name, start_sector
from drgn_pmem.kernel.debuginfo import find_variable, has_type, has_variable
from drgn_pmem.kernel.memory import Layout, Memory, cached, memory_of
from drgn_pmem.kernel.partitions import for_each_disk
from drgn_pmem.partial import Partial, Problems, WalkError
from drgn_pmem.record import Record

__all__ = (
    "DmPiece",
    "SuspendedDisk",
    "dm_pieces",
    "sector_below",
    "sectors_above",
    "suspended_disks",
    "target_at",
)

_MAX_TARGETS = 1 << 16
_MAX_DEPTH = 16


class DmPiece(Record):
    """One target of a dm disk. Sectors are 512 bytes."""

    disk: str
    """``"dm-0"``"""
    start: int
    """First sector on the dm disk."""
    sectors: int
    type: str
    """``"linear"``, ``"striped"``"""
    below: str | None
    """Disk that it is on: ``"pmem6.1"``, or another dm disk; None if it is not linear."""
    below_start: int
    """First sector there (of the whole disk, also if it is on a partition); 0 if it is not
    linear."""


class _Tables:
    def __init__(self, prog: Program) -> None:
        self.prog = prog
        memory: Memory = memory_of(prog)
        self.memory = memory
        self.disk = Layout(memory, "struct gendisk", fops="fops", private="private_data")
        self.device = Layout(memory, "struct mapped_device", "dm_mod", map="map")
        self.table = Layout(
            memory, "struct dm_table", "dm_mod", count="num_targets", targets="targets"
        )
        self.target = Layout(
            memory,
            "struct dm_target",
            "dm_mod",
            type="type",
            begin="begin",
            length="len",
            private="private",
        )
        self.type = Layout(memory, "struct target_type", "dm_mod", name="name")
        self.linear = Layout(memory, "struct linear_c", "dm_mod", dev="dev", start="start")
        self.dev = Layout(memory, "struct dm_dev", "dm_mod", bdev="bdev")
        self.bdev = Layout(memory, "struct block_device", disk="bd_disk")

    def pieces(self, disk: int, problems: Problems) -> Iterator[DmPiece]:
        values = self.disk.read(disk)
        name = disk_name(self.prog, disk)
        table = self.device.read(values["private"])["map"]
        if not table:
            return
        head = self.table.read(table)
        if head["count"] > _MAX_TARGETS:
            raise WalkError(f"table of {name}: {head['count']} targets are too many")
        size = self.target.type.size or 0
        for number in range(head["count"]):
            with problems.trying(f"target {number} of {name}"):
                target = self.target.read(head["targets"] + number * size)
                name_of_type = self.memory.string(self.type.read(target["type"])["name"], 64)
                place: dict[str, Any] = {
                    "disk": name,
                    "start": target["begin"],
                    "sectors": target["length"],
                    "type": name_of_type.decode("utf-8", "backslashreplace"),
                }
                if name_of_type != b"linear":
                    yield DmPiece(**place, below=None, below_start=0)
                    continue
                linear = self.linear.read(target["private"])
                bdev = self.dev.read(linear["dev"])["bdev"]
                yield DmPiece(
                    **place,
                    below=disk_name(self.prog, self.bdev.read(bdev)["disk"]),
                    below_start=linear["start"] + start_sector(self.prog, bdev),
                )


def _fops(prog: Program) -> set[int | None]:
    """Addresses of the ``struct block_device_operations`` of dm disks."""
    found = {find_variable(prog, "dm_blk_dops", "dm_mod").address_}
    # Since Linux kernel commit 681cc5e8667e ("dm: fix request-based swap device") and its
    # neighbours (in v5.12) request-based disks have their own.
    if has_variable(prog, "dm_rq_blk_dops"):
        found.add(prog["dm_rq_blk_dops"].address_)
    return found


def _read(prog: Program) -> Partial[tuple[DmPiece, ...]]:
    problems = Problems()
    pieces: list[DmPiece] = []
    with problems.trying("device mapper"):
        fops = _fops(prog)
        tables = _Tables(prog)
        for disk in problems.take(dax_disks(prog)):
            with problems.trying(f"dm disk {disk:#x}"):
                if tables.disk.read(disk)["fops"] in fops:
                    pieces += tables.pieces(disk, problems)
    return problems.partial(tuple(pieces))


def dm_pieces(prog: Program) -> Partial[tuple[DmPiece, ...]]:
    """
    Targets of all dm disks with DAX; read once per program. Incomplete without debug info of
    dm_mod and dax.
    """
    pieces: Partial[tuple[DmPiece, ...]] = cached(prog, "dm", lambda: _read(prog))
    return pieces


def sectors_above(prog: Program, disk: str, sector: int) -> Partial[dict[str, int]]:
    """
    Where a sector of a disk appears: on the disk itself and on the dm disks on top of it.

    :param disk: ``"pmem6.1"``
    :param sector: 512-byte sector
    :return: Disk -> sector on it.
    """
    problems = Problems()
    pieces = problems.take(dm_pieces(prog))
    found = {disk: sector}
    todo = [(disk, sector)]
    for _ in range(_MAX_DEPTH):
        todo = [
            (piece.disk, piece.start + at - piece.below_start)
            for name, at in todo
            for piece in pieces
            if piece.below == name and 0 <= at - piece.below_start < piece.sectors
        ]
        todo = [(name, at) for name, at in todo if name not in found]
        found.update(todo)
        if not todo:
            break
    return problems.partial(found)


def sector_below(prog: Program, disk: str, sector: int) -> Partial[tuple[str, int] | None]:
    """
    The bottom disk and sector of a sector; the same if the disk is not a dm disk.

    :param disk: ``"dm-0"``
    :param sector: 512-byte sector
    :return: Disk and sector on it; None if it lies on no linear target (:func:`target_at` says on
        which one).
    """
    problems = Problems()
    all_pieces = problems.take(dm_pieces(prog))
    for _ in range(_MAX_DEPTH):
        pieces = [piece for piece in all_pieces if piece.disk == disk]
        if not pieces:
            return problems.partial((disk, sector))
        piece = next((p for p in pieces if 0 <= sector - p.start < p.sectors), None)
        if piece is None or piece.below is None:
            break
        disk, sector = piece.below, piece.below_start + sector - piece.start
    return problems.partial(None)


def target_at(prog: Program, disk: str, sector: int) -> Partial[str | None]:
    """Type of the first target under a sector of a dm disk that is not linear; None if there is
    none."""
    problems = Problems()
    all_pieces = problems.take(dm_pieces(prog))
    for _ in range(_MAX_DEPTH):
        piece = next(
            (p for p in all_pieces if p.disk == disk and 0 <= sector - p.start < p.sectors), None
        )
        if piece is None:
            break
        if piece.below is None:
            return problems.partial(piece.type)
        disk, sector = piece.below, piece.below_start + sector - piece.start
    return problems.partial(None)


_SUSPENDED = 1 << 1
"""``DMF_SUSPENDED``, a macro of drivers/md/dm-core.h (in older kernels of dm.c)."""


class SuspendedDisk(Record):
    """A dm disk that lets no I/O through."""

    name: str
    """``"dm-0"``"""
    mapped: str | None
    """Its name below /dev/mapper; None if the debug info does not have it."""


def suspended_disks(prog: Program) -> Partial[list[SuspendedDisk]]:
    """dm disks that are suspended. Incomplete without debug info of dm_mod."""
    problems = Problems()
    found: list[SuspendedDisk] = []
    with problems.trying("suspended dm disks"):
        fops = _fops(prog)
        for disk in problems.collect(for_each_disk(prog)):
            with problems.trying(f"disk {disk.value_():#x}"):
                if disk.fops.value_() not in fops:
                    continue
                device = cast("struct mapped_device *", disk.private_data)
                if not device.flags.value_() & _SUSPENDED:
                    continue
                name = disk.disk_name.string_().decode("utf-8", "backslashreplace")
                mapped = problems.attempt(name, functools.partial(_mapped_name, device))
                found.append(SuspendedDisk(name=name, mapped=mapped))
    return problems.partial(found)


def _mapped_name(device: Object) -> str | None:
    if not has_type(device.prog_, "struct hash_cell") or not device.interface_ptr:
        return None
    cell = cast("struct hash_cell *", device.interface_ptr)
    return cell.name.string_().decode("utf-8", "backslashreplace")
