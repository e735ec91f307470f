# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Media errors
------------

What the kernel knew of bad memory: the bad ranges of a bus (physical addresses), the badblocks of
regions, block devices and sector-mode namespaces (512-byte sectors, each counted from its own
start). What the kernel log says is in :mod:`drgn_pmem.kernel.failurelog`. Sources:
drivers/nvdimm/badrange.c, block/badblocks.c, include/linux/badblocks.h.
"""

import enum

from drgn import Object, Program, cast
from drgn.helpers.linux.list import list_for_each_entry

from drgn_pmem.kernel.debuginfo import find_type, member
from drgn_pmem.kernel.namespace import Namespace, for_each_namespace
from drgn_pmem.kernel.nvdimm import Bus, for_each_bus
from drgn_pmem.kernel.region import for_each_region
from drgn_pmem.kernel.walk import bounded
from drgn_pmem.partial import Cause, Partial, Problem, Problems, WalkError
from drgn_pmem.record import Record, Show, shown

__all__ = ("SECTOR", "BadList", "BadRange", "read_bad_ranges", "read_badblocks")

SECTOR = 512
"""bytes"""

# include/linux/badblocks.h: macros.
_LENGTH_MASK = 0x1FF
_OFFSET_MASK = 0x7FFFFFFFFFFFFE00
_OFFSET_SHIFT = 9
_ACK = 1 << 63

_MAX_ENTRIES = 1 << 16
_ENTRY_SIZE = 8


class BadList(enum.Enum):
    """Whose list a range is in."""

    BUS = "bus"
    """Every media error that the kernel learns of goes there first."""
    REGION = "region"
    DISK = "disk"
    """That of the block device: the only one that can also be written by hand (its ``badblocks`` in
    sysfs)."""
    NAMESPACE = "namespace"
    """In sector mode."""
    DEVICE = "device"
    """What a CXL device last answered (:mod:`drgn_pmem.kernel.devicepoison`): may be out of
    date."""


class BadRange(Record):
    """Memory that one source says is bad."""

    kind: BadList = shown(json=False)
    source: str | None
    """``"ndbus0 badrange"``, ``"region0 badblocks"``, ``"pmem0 badblocks"``; None for the badblocks
    of a disk whose name could not be read."""
    start: int = shown(Show.ADDRESS, key="physical")
    """Physical address."""
    length: int
    """bytes"""
    base: int = shown(Show.ADDRESS)
    """Physical address that the source counts from; 0 for absolute addresses."""
    sector: int | None
    """First 512-byte sector, from :attr:`base`; None for absolute addresses."""
    acknowledged: bool = True

    @property
    def end(self) -> int:
        """Physical address after it."""
        return self.start + self.length

    @property
    def arithmetic(self) -> str:
        """How the physical address follows from what the source says."""
        source = self.source or "badblocks of a disk whose name was not saved"
        if self.sector is None:
            return f"{source}: physical {self.start:#x}, {self.length} bytes"
        sectors = self.length // SECTOR
        return (
            f"{source}: sector {self.sector} ({sectors} of {SECTOR} bytes);"
            f" {self.base:#x} + {self.sector} * {SECTOR} = physical {self.start:#x}"
        )


def read_badblocks(badblocks: Object) -> list[tuple[int, int, bool]]:
    """
    Decode a ``struct badblocks``.

    :param badblocks: ``struct badblocks``
    :return: (first 512-byte sector, sectors, acknowledged) of each entry.
    :raises WalkError: if its count is implausible
    :raises FaultError: if the dump does not hold its page
    """
    count, shift = badblocks.count.value_(), badblocks.shift.value_()
    page = badblocks.page.value_()
    # A negative shift means that the list is disabled.
    if shift < 0 or count == 0 or not page:
        return []
    prog = badblocks.prog_
    if not 0 <= count <= prog["PAGE_SIZE"].value_() // _ENTRY_SIZE or shift > 32:
        raise WalkError(f"badblocks {badblocks.address_ or 0:#x}: implausible count {count}")
    entries = Object(prog, prog.array_type(prog.type("unsigned long long"), count), address=page)
    found = []
    for entry in entries.value_():
        start = (entry & _OFFSET_MASK) >> _OFFSET_SHIFT
        length = (entry & _LENGTH_MASK) + 1
        found.append((start << shift, length << shift, bool(entry & _ACK)))
    return found


def _of_badblocks(
    kind: BadList,
    source: str | None,
    badblocks: Object,
    base: int,
    end: int,
    problems: Problems,
    what: str = "",
) -> list[BadRange]:
    """
    :param base: Physical address that the sectors count from.
    :param end: Physical address at which the device ends: what is bad after it is damaged.
    """
    found = problems.attempt(source or what, lambda: read_badblocks(badblocks)) or []
    beyond = [entry for entry in found if base + (entry[0] + entry[1]) * SECTOR > end]
    if beyond:
        why = (
            f"{len(beyond)} of {len(found)} entries were left out, because they are after the "
            f"device's end at {end:#x}: sector {beyond[0][0]}, {beyond[0][1]} sectors"
        )
        problems.add(Problem(cause=Cause.DAMAGED, what=source or what, why=why))
    return [
        BadRange(
            kind=kind,
            source=source,
            start=base + sector * SECTOR,
            length=sectors * SECTOR,
            base=base,
            sector=sector,
            acknowledged=acknowledged,
        )
        for sector, sectors, acknowledged in found
        if base + (sector + sectors) * SECTOR <= end
    ]


def _of_bus(bus: Bus, problems: Problems) -> list[BadRange]:
    # Since Linux kernel commit aa9ad44a42b4 ("libnvdimm: move poison list functions to a new
    # 'badrange' file") (in v4.15).
    badrange = member(bus.object, "badrange")
    entries = list_for_each_entry("struct badrange_entry", badrange.list.address_of_(), "list")
    source = f"{bus.dev} badrange"
    found = []
    for entry in problems.collect(bounded(entries, source, limit=_MAX_ENTRIES)):
        with problems.trying(source):
            start, length = entry.start.value_(), entry.length.value_()
            found.append(
                BadRange(
                    kind=BadList.BUS,
                    source=source,
                    start=start,
                    length=length,
                    base=0,
                    sector=None,
                )
            )
    return found


def _of_namespace(prog: Program, namespace: Namespace, problems: Problems) -> list[BadRange]:
    if namespace.idle or namespace.object is None:
        return []
    if namespace.mode == "sector":
        # Only there the namespace's own list is live: the others give it up when they are claimed.
        nsio = cast("struct nd_namespace_io *", namespace.object)
        return _of_badblocks(
            BadList.NAMESPACE,
            f"{namespace.dev} badblocks",
            nsio.bb,
            namespace.resource,
            namespace.range.end,
            problems,
        )
    if namespace.mode == "devdax":
        return []
    find_type(prog, "struct pmem_device", "nd_pmem")
    claim = namespace.claim_object
    device = namespace.object.dev if claim is None else claim.dev
    pmem = cast("struct pmem_device *", device.driver_data)
    if not pmem:
        return []
    # The block device's, not the namespace's: without its name they cannot be assigned.
    source = f"{namespace.blockdev} badblocks" if namespace.blockdev else None
    what = f"badblocks of the block device of {namespace.dev}"
    if source is None:
        problems.add(Problem(cause=Cause.NOT_SAVED, why="its name is not known"), what)
    if namespace.data_offset is None:
        problems.add(WalkError("the start of the namespace's data is unknown"), what)
        return []
    base = namespace.resource + namespace.data_offset
    return _of_badblocks(BadList.DISK, source, pmem.bb, base, namespace.range.end, problems, what)


def read_bad_ranges(prog: Program) -> Partial[list[BadRange]]:
    """Everything that libnvdimm knew to be bad; a range is there as often as sources have it."""
    problems = Problems()
    ranges: list[BadRange] = []
    for bus in problems.take(for_each_bus(prog)):
        ranges += _of_bus(bus, problems)
    for region in problems.take(for_each_region(prog)):
        source = f"{region.dev} badblocks"
        with problems.trying(source):
            ranges += _of_badblocks(
                BadList.REGION,
                source,
                region.object.bb,
                region.resource,
                region.range.end,
                problems,
            )
    for namespace in problems.take(for_each_namespace(prog)):
        with problems.trying(f"bad blocks of {namespace.dev}"):
            ranges += _of_namespace(prog, namespace, problems)
    return problems.partial(ranges)
