# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Bad pages
---------

What is known of a bad page of persistent memory, as records of :mod:`.poison`: who reports it, what
it hits, where that is.
"""

import enum
from typing import Any

from drgn_pmem.analysis.owners.search import PageOwners
from drgn_pmem.kernel.badblocks import SECTOR, BadList, BadRange
from drgn_pmem.kernel.failurelog import FailureEvent, FailureLine, FailureSource, history_of
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.record import Record, Show, shown

__all__ = ("Place", "Poison", "PoisonedPage")


class Place(enum.Enum):
    """What a byte of persistent memory holds."""

    DATA = "data"
    INFO_BLOCK = "info block"
    STRUCT_PAGES = "struct pages"
    METADATA = "metadata"
    """Of the namespace; nothing more is known."""
    RAW = "raw"
    """A namespace without struct pages."""
    OUTSIDE = "outside"
    """Of any namespace."""
    UNKNOWN = "unknown"


class PoisonedPage(Record):
    """One bad page and what it hits."""

    pfn: int
    physical: int = shown(Show.ADDRESS)
    """Of the first bad byte that is known, else of the page."""
    ranges: tuple[BadRange, ...]
    """What libnvdimm says of it."""
    lines: tuple[FailureLine, ...]
    """What the kernel log says of it."""
    namespace: Namespace | None
    place: Place
    describes: tuple[int, int] | None
    """First PFN and number of the pages whose struct pages it holds, if it holds any."""
    owners: PageOwners
    dimms: tuple[str, ...] | None
    """DIMMs that its memory is on; several where the region is interleaved over them. None if
    that is not known."""
    lists_known: bool
    """Whether all lists of bad ranges could be read."""

    @property
    def sources(self) -> list[str]:
        """Which records have it."""
        names = [r.source or "unknown" for r in self.ranges]
        if self.owners.trusted and self.owners.page.hwpoison:
            names.append("HWPoison")
        names += [line.source.value for line in self.lines]
        return list(dict.fromkeys(names))

    @property
    def injected(self) -> bool:
        """Only software says that it is bad, on request (``madvise(MADV_HWPOISON)``,
        hwpoison-inject): the bytes on the media are intact, and a reboot forgets it."""
        by_software = {line.source for line in self.lines} == {FailureSource.MEMORY_FAILURE}
        asked = any(line.event is FailureEvent.INJECTED for line in self.lines)
        return asked and by_software and not self.ranges

    @property
    def by_hand(self) -> bool:
        """Only the badblocks of its block device have it, which can be written through sysfs. Media
        errors are in the list of the bus first: none is known here, or it was cleared since. False
        where not all lists are known."""
        alone = bool(self.ranges) and all(r.kind is BadList.DISK for r in self.ranges)
        marked = self.owners.trusted and self.owners.page.hwpoison
        return self.lists_known and alone and not self.lines and not marked

    @property
    def listed_only(self) -> bool:
        """Only the last answer of a CXL device has it, which may be out of date."""
        alone = bool(self.ranges) and all(r.kind is BadList.DEVICE for r in self.ranges)
        marked = self.owners.trusted and self.owners.page.hwpoison
        return alone and not self.lines and not marked

    @property
    def history(self) -> list[tuple[float | None, str, str]]:
        """(seconds since boot, event, source) of each line of the log, in the order of the log:
        ``"reported"``, ``"handled"``, ``"cleared"``, ``"reported again"``."""
        return [(line.time, event, line.source.value) for line, event in history_of(self.lines)]

    @property
    def namespace_offset(self) -> int | None:
        """bytes from the start of the namespace: what ``ndctl inject-error`` counts from, in
        512-byte blocks."""
        return None if self.namespace is None else self.physical - self.namespace.resource

    @property
    def data_offset(self) -> int | None:
        """bytes from the start of the namespace's data: what its device counts from."""
        if self.namespace is None or self.namespace.data_offset is None:
            return None
        offset = self.physical - self.namespace.resource - self.namespace.data_offset
        return offset if offset >= 0 else None

    @property
    def arithmetic(self) -> list[str]:
        """From the physical address to the device's sector and the file's offset, step by step."""
        steps = [r.arithmetic for r in self.ranges]
        ns = self.namespace
        if ns is None or self.namespace_offset is None:
            return steps
        steps.append(
            f"{self.physical:#x} - {ns.dev} {ns.resource:#x} = offset {self.namespace_offset:#x}"
            f" (512-byte block {self.namespace_offset // SECTOR})"
        )
        device = ns.blockdev or ns.chardev
        if self.data_offset is not None and ns.data_offset and device:
            steps.append(
                f"{self.namespace_offset:#x} - data offset {ns.data_offset:#x} = {device}"
                f" {self.data_offset:#x} (sector {self.data_offset // SECTOR})"
            )
        for owner in self.owners.owners:
            inside = self.physical - (self.pfn << self.owners.page_shift)
            on = "" if owner.sector is None else f" (sector {owner.sector} of {owner.device})"
            steps.append(f"{owner.name or owner.inode} offset {owner.offset + inside:#x}{on}")
        return steps

    @property
    def hits(self) -> str:
        """What is lost, in words."""
        owners = self.owners.owners
        if self.place is Place.STRUCT_PAGES and self.describes:
            first, count = self.describes
            return f"struct pages of PFN {first:#x} to {first + count - 1:#x}"
        if owners:
            return ", ".join(str(o.name or f"inode {o.inode}") for o in owners)
        if self.place is Place.DATA:
            return "data that no DAX file in memory has" if self.owners.unowned else "data"
        return self.place.value

    @property
    def processes(self) -> "list[tuple[int, str, str]]":
        """(pid, comm, proof) of every process that has the page in a VMA."""
        found = {
            (m.task.tgid, m.task.comm, m.proof.value)
            for owner in self.owners.owners
            for m in owner.mappings
            if m.task is not None
        }
        return sorted(found)

    def to_json(self) -> dict[str, Any]:
        owners = self.owners.to_json()
        return {
            "pfn": self.pfn,
            "physical": f"{self.physical:#x}",
            "sources": self.sources,
            "ranges": [r.to_json() for r in self.ranges],
            "messages": [line.text for line in self.lines],
            "history": [
                {"time": time, "event": event, "source": source}
                for time, event, source in self.history
            ],
            "namespace": self.namespace.dev if self.namespace else None,
            "device": owners["device"],
            "dimms": None if self.dimms is None else list(self.dimms),
            "place": self.place.value,
            "struct_pages_of": (
                {"first_pfn": self.describes[0], "npfns": self.describes[1]}
                if self.describes
                else None
            ),
            "namespace_offset": self.namespace_offset,
            "data_offset": self.data_offset,
            "sector": None if self.data_offset is None else self.data_offset // SECTOR,
            "arithmetic": self.arithmetic,
            "state": owners["state"],
            "reason": owners["reason"],
            "hwpoison": owners["hwpoison"],
            "owners": owners["owners"],
            "processes": [
                {"pid": pid, "comm": comm, "proof": proof} for pid, comm, proof in self.processes
            ],
            "notes": owners["notes"],
        }


class Poison(Record):
    """All bad pages."""

    pages: tuple[PoisonedPage, ...]
    notes: tuple[str, ...] = shown(json=False)
