# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Media errors
------------

What the kernel knew of bad memory: the bad ranges of a bus (physical addresses), the badblocks of
regions, block devices and sector-mode namespaces (512-byte sectors, each counted from its own
start), and the kernel log. Sources: drivers/nvdimm/badrange.c, block/badblocks.c,
include/linux/badblocks.h, mm/memory-failure.c.
"""

from collections.abc import Iterator
from dataclasses import dataclass
import re
from typing import Any

from drgn import FaultError, Object, Program, cast
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.printk import get_dmesg

from drgn_pmem.errors import MissingDebugInfo, PmemError
from drgn_pmem.kernel.debuginfo import has_member, has_type
from drgn_pmem.kernel.namespace import Namespace, for_each_namespace
from drgn_pmem.kernel.nvdimm import for_each_bus
from drgn_pmem.kernel.region import for_each_region
from drgn_pmem.kernel.walk import bounded, collect

__all__ = (
    "SECTOR",
    "BadRange",
    "FailureLine",
    "for_each_failure_line",
    "read_bad_ranges",
    "read_badblocks",
)

SECTOR = 512
"""bytes"""

# include/linux/badblocks.h: macros.
_LENGTH_MASK = 0x1FF
_OFFSET_MASK = 0x7FFFFFFFFFFFFE00
_OFFSET_SHIFT = 9
_ACK = 1 << 63

_MAX_ENTRIES = 1 << 16
_ENTRY_SIZE = 8


@dataclass(frozen=True)
class BadRange:
    """Memory that one source says is bad."""

    source: str
    """``"ndbus0 badrange"``, ``"region0 badblocks"``, ``"pmem0 badblocks"``"""
    start: int
    """Physical address."""
    length: int
    """bytes"""
    base: int
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
        if self.sector is None:
            return f"{self.source}: physical {self.start:#x}, {self.length} bytes"
        sectors = self.length // SECTOR
        return (
            f"{self.source}: sector {self.sector} ({sectors} of {SECTOR} bytes);"
            f" {self.base:#x} + {self.sector} * {SECTOR} = physical {self.start:#x}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "physical": f"{self.start:#x}",
            "length": self.length,
            "base": f"{self.base:#x}",
            "sector": self.sector,
            "acknowledged": self.acknowledged,
        }


@dataclass(frozen=True)
class FailureLine:
    """A "Memory failure" line of the kernel log."""

    pfn: int
    text: str
    """The whole line, as it stands in the dump."""


def read_badblocks(badblocks: Object) -> list[tuple[int, int, bool]]:
    """
    Decode a ``struct badblocks``.

    :param badblocks: ``struct badblocks``
    :return: (first 512-byte sector, sectors, acknowledged) of each entry.
    :raises PmemError: if its count is absurd
    :raises FaultError: if the dump does not hold its page
    """
    count, shift = badblocks.count.value_(), badblocks.shift.value_()
    page = badblocks.page.value_()
    # A negative shift says that it is switched off.
    if shift < 0 or count == 0 or not page:
        return []
    prog = badblocks.prog_
    if not 0 <= count <= prog["PAGE_SIZE"].value_() // _ENTRY_SIZE or shift > 32:
        raise PmemError(f"badblocks {badblocks.address_ or 0:#x}: count {count} is not sound")
    entries = Object(prog, prog.array_type(prog.type("unsigned long long"), count), address=page)
    found = []
    for entry in entries.value_():
        start = (entry & _OFFSET_MASK) >> _OFFSET_SHIFT
        length = (entry & _LENGTH_MASK) + 1
        found.append((start << shift, length << shift, bool(entry & _ACK)))
    return found


def _of_badblocks(source: str, badblocks: Object, base: int) -> Iterator[BadRange]:
    for sector, sectors, acknowledged in read_badblocks(badblocks):
        yield BadRange(source, base + sector * SECTOR, sectors * SECTOR, base, sector, acknowledged)


def _of_buses(prog: Program) -> Iterator[BadRange]:
    for bus in for_each_bus(prog):
        badrange = bus.object
        if not has_member(badrange, "badrange"):
            continue
        entries = list_for_each_entry(
            "struct badrange_entry", badrange.badrange.list.address_of_(), "list"
        )
        for entry in bounded(entries, f"badrange of {bus.dev}", limit=_MAX_ENTRIES):
            start, length = entry.start.value_(), entry.length.value_()
            yield BadRange(f"{bus.dev} badrange", start, length, 0, None)


def _of_regions(prog: Program) -> Iterator[BadRange]:
    for region in for_each_region(prog):
        yield from _of_badblocks(
            f"{region.dev} badblocks", region.object.bb, region.object.ndr_start.value_()
        )


def _of_namespaces(prog: Program) -> Iterator[BadRange]:
    for namespace in for_each_namespace(prog):
        yield from _of_namespace(prog, namespace)


def _of_namespace(prog: Program, namespace: Namespace) -> Iterator[BadRange]:
    if not namespace.enabled or namespace.object is None:
        return
    if namespace.mode == "sector":
        # Only there the namespace's own list is live: the others give it up when they are claimed.
        nsio = cast("struct nd_namespace_io *", namespace.object)
        yield from _of_badblocks(f"{namespace.dev} badblocks", nsio.bb, namespace.resource)
        return
    if namespace.mode == "devdax" or not has_type(prog, "struct pmem_device"):
        return
    claim = namespace.claim_object
    device = namespace.object.dev if claim is None else claim.dev
    pmem = cast("struct pmem_device *", device.driver_data)
    if pmem and namespace.data_offset is not None:
        base = namespace.resource + namespace.data_offset
        yield from _of_badblocks(f"{namespace.blockdev} badblocks", pmem.bb, base)


def read_bad_ranges(prog: Program) -> tuple[list[BadRange], list[str]]:
    """
    Everything that libnvdimm knew to be bad.

    :return: The ranges, each as often as sources have it; why there may be more.
    """
    ranges: list[BadRange] = []
    problems: list[str] = []
    for read in (_of_buses, _of_regions, _of_namespaces):
        found, messages = collect(read(prog))
        ranges += found
        problems += messages
    return ranges, list(dict.fromkeys(problems))


_FAILURE = re.compile(rb"Memory failure: (0x[0-9a-f]{1,16}): ")
_INJECTED = re.compile(rb"Injecting memory failure for pfn (0x[0-9a-f]{1,16}) ")


def for_each_failure_line(prog: Program) -> Iterator[FailureLine]:
    """
    Lines of the kernel log about failed pages.

    :raises PmemError: if the log cannot be read
    """
    try:
        log = get_dmesg(prog)
    except LookupError:
        raise MissingDebugInfo(
            "the kernel log cannot be read without debug info of the kernel (-s VMLINUX)"
        ) from None
    except (FaultError, ValueError) as error:
        raise PmemError(f"the kernel log cannot be read: {error}") from error
    for line in log.splitlines():
        match = _FAILURE.search(line) or _INJECTED.search(line)
        if match:
            yield FailureLine(int(match[1], 16), line.decode("utf-8", "backslashreplace"))
