# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Device mapper
-------------

dm-linear (LVM's plain volumes) on top of persistent memory: which piece of a dm disk lies where on
the disks below. DAX entries hold the physical page already; the table is what turns it into the
sector that the file system on the dm disk counts. Sources: drivers/md/dm-core.h, dm-linear.c,
include/linux/device-mapper.h.
"""

from dataclasses import dataclass
from typing import Any

from drgn import Program

from drgn_pmem.errors import MissingDebugInfo, NotInKernel
from drgn_pmem.kernel.daxfs import dax_disks, disk_name, start_sector
from drgn_pmem.kernel.memory import Layout, Memory, cached, memory_of
from drgn_pmem.partial import WalkError

__all__ = ("DmPiece", "dm_pieces", "sector_below", "sectors_above")

_MAX_TARGETS = 1 << 16
_MAX_DEPTH = 16


@dataclass(frozen=True)
class DmPiece:
    """One linear target of a dm disk. Sectors are 512 bytes."""

    disk: str
    """``"dm-0"``"""
    start: int
    """First sector on the dm disk."""
    sectors: int
    below: str
    """Disk that it lies on: ``"pmem6.1"``, or another dm disk."""
    below_start: int
    """First sector there (of the whole disk, also if it lies on a partition)."""

    def to_json(self) -> dict[str, Any]:
        return {
            "disk": self.disk,
            "start": self.start,
            "sectors": self.sectors,
            "below": self.below,
            "below_start": self.below_start,
        }


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

    def pieces(self, disk: int) -> list[DmPiece]:
        values = self.disk.read(disk)
        name = disk_name(self.prog, disk)
        table = self.device.read(values["private"])["map"]
        if not table:
            return []
        head = self.table.read(table)
        if head["count"] > _MAX_TARGETS:
            raise WalkError(f"table of {name}: {head['count']} targets are too many")
        size = self.target.type.size or 0
        found = []
        for number in range(head["count"]):
            target = self.target.read(head["targets"] + number * size)
            if self.memory.string(self.type.read(target["type"])["name"], 64) != b"linear":
                continue
            linear = self.linear.read(target["private"])
            bdev = self.dev.read(linear["dev"])["bdev"]
            below = disk_name(self.prog, self.bdev.read(bdev)["disk"])
            start = linear["start"] + start_sector(self.prog, bdev)
            found.append(DmPiece(name, target["begin"], target["length"], below, start))
        return found


def _read(prog: Program) -> tuple[list[DmPiece], list[str]]:
    pieces: list[DmPiece] = []
    problems: list[str] = []
    try:
        tables = _Tables(prog)
        dm_fops = {prog[name].address_ for name in ("dm_blk_dops", "dm_rq_blk_dops")}
    except NotInKernel:
        return [], []
    except (MissingDebugInfo, LookupError) as error:
        return [], [str(error)]
    for disk in dax_disks(prog) or ():
        try:
            if tables.disk.read(disk)["fops"] in dm_fops:
                pieces += tables.pieces(disk)
        except WalkError as error:
            problems.append(f"dm disk {disk:#x}: {error}")
    return pieces, problems


def dm_pieces(prog: Program) -> tuple[list[DmPiece], list[str]]:
    """
    Linear pieces of all dm disks with DAX; read once per program.

    :return: The pieces; why there may be more (no debug info of dm_mod, tables not in the dump).
    """
    pieces: tuple[list[DmPiece], list[str]] = cached(prog, "dm", lambda: _read(prog))
    return pieces


def sectors_above(prog: Program, disk: str, sector: int) -> dict[str, int]:
    """
    Where a sector of a disk appears: on the disk itself and on the dm disks that lie on it.

    :param disk: ``"pmem6.1"``
    :param sector: 512-byte sector
    :return: Disk -> sector on it.
    """
    found = {disk: sector}
    todo = [(disk, sector)]
    for _ in range(_MAX_DEPTH):
        todo = [
            (piece.disk, piece.start + at - piece.below_start)
            for name, at in todo
            for piece in dm_pieces(prog)[0]
            if piece.below == name and 0 <= at - piece.below_start < piece.sectors
        ]
        todo = [(name, at) for name, at in todo if name not in found]
        found.update(todo)
        if not todo:
            break
    return found


def sector_below(prog: Program, disk: str, sector: int) -> tuple[str, int] | None:
    """
    Where a sector of a disk lies at the bottom: of a disk that is no dm disk, there.

    :param disk: ``"dm-0"``
    :param sector: 512-byte sector
    :return: Disk and sector on it; None if it lies on no linear target.
    """
    for _ in range(_MAX_DEPTH):
        pieces = [piece for piece in dm_pieces(prog)[0] if piece.disk == disk]
        if not pieces:
            return disk, sector
        piece = next((p for p in pieces if 0 <= sector - p.start < p.sectors), None)
        if piece is None:
            break
        disk, sector = piece.below, piece.below_start + sector - piece.start
    return None
