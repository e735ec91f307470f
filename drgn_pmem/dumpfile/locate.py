# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Finding VMCOREINFO in memory
----------------------------

A dump that QEMU or libvirt wrote has no VMCOREINFO note unless the guest had the vmcoreinfo device,
and without it drgn knows no kernel. The kernel keeps the note in memory all the time, header and
all (``update_vmcoreinfo_note()`` in kernel/vmcore_info.c, kernel/crash_core.c before v6.9), ready
for the next crash: it can be found.

Memory may hold more than one: that of an earlier boot, or a dump file in the page cache. A note is
the kernel's own if the kernel image that it describes is where it says: its ``init_uts_ns`` has the
release that the note has.
"""

from collections.abc import Iterator
from typing import Any

from drgn_pmem.dumpfile.fit import Fit, fit_of
from drgn_pmem.dumpfile.records import DumpFile, PhysicalMemory
from drgn_pmem.dumpfile.vmcoreinfo import Vmcoreinfo
from drgn_pmem.errors import DumpFileError
from drgn_pmem.record import Record, Show, shown

__all__ = ("MAX_SEARCH", "Candidate", "find_vmcoreinfo", "search")

MAX_SEARCH = 1 << 38
"""Bytes of saved memory that are searched (256 GiB, a few minutes)."""
MAX_CANDIDATES = 256
_NAME = b"VMCOREINFO\0"
_HEADER = 12
_MIN_SIZE, _MAX_SIZE = 64, 1 << 20


class Candidate(Record):
    """A VMCOREINFO note in memory."""

    address: int = shown(Show.ADDRESS)
    """Physical address of the note's header (bytes)."""
    text: bytes
    """Its text, without trailing NULs."""
    verified: bool
    """Whether the kernel that it describes is where it says."""

    @property
    def info(self) -> Vmcoreinfo:
        """The parsed text."""
        return Vmcoreinfo.parse(self.text)

    def to_json(self) -> dict[str, Any]:
        """The address as ``"0x..."``, the size of the text in bytes."""
        return {
            "address": hex(self.address),
            "size": len(self.text),
            "osrelease": self.info.osrelease,
            "verified": self.verified,
        }


def find_vmcoreinfo(dump: DumpFile, memory: PhysicalMemory | None = None) -> Candidate | None:
    """
    The VMCOREINFO note of the crashed kernel, from its memory.

    :param dump: An opened dump.
    :param memory: Where to read memory, if not from the file itself.
    :return: The note that was verified; else the one with the time of a crash, else the longest.
    """
    best: Candidate | None = None
    for candidate in search(dump, memory):
        if candidate.verified:
            return candidate
        if best is None or _rank(candidate) > _rank(best):
            best = candidate
    return best


def _rank(candidate: Candidate) -> tuple[bool, int]:
    return candidate.info.crash_time is not None, len(candidate.text)


def search(
    dump: DumpFile, memory: PhysicalMemory | None = None, limit: int = MAX_SEARCH
) -> Iterator[Candidate]:
    """
    All notes in saved memory whose text has OSRELEASE and PAGESIZE; RAM first, then what the dump
    marks as pmem.

    :param limit: Stop after this many bytes.
    """
    memory = memory if memory is not None else dump.memory
    if memory is None:
        return
    found = 0
    tail, tail_end = b"", -1
    for address, data in memory.chunks():
        # A note that begins in one piece and goes on in the next is found in the second.
        if address != tail_end:
            tail = b""
        block, base = tail + data, address - len(tail)
        position = block.find(_NAME)
        while position >= 0:
            start = base + position - _HEADER
            candidate = _check(dump, memory, start) if start >= 0 and start % 4 == 0 else None
            if candidate is not None:
                yield candidate
                found += 1
                if found >= MAX_CANDIDATES:
                    return
            position = block.find(_NAME, position + 1)
        tail, tail_end = data[-(len(_NAME) - 1) :], address + len(data)
        limit -= len(data)
        if limit <= 0:
            return


def _check(dump: DumpFile, memory: PhysicalMemory, address: int) -> Candidate | None:
    try:
        header = memory.read(address, _HEADER)
        name_size, size, kind = (
            int.from_bytes(header[at : at + 4], "little" if dump.byteorder == "little" else "big")
            for at in (0, 4, 8)
        )
        if name_size != len(_NAME) or kind != 0 or not _MIN_SIZE <= size <= _MAX_SIZE:
            return None
        # Only the part that is saved without a gap counts; the text ends at the first NUL anyway.
        text = memory.read(address + _HEADER + 12, size).split(b"\0", 1)[0]
    except DumpFileError:
        # not a problem: a candidate that is not saved is not the note
        return None
    if not text.startswith(b"OSRELEASE=") or b"\nPAGESIZE=" not in text:
        return None
    info = Vmcoreinfo.parse(text)
    if not info.page_size or not info.osrelease:
        return None
    verified = fit_of(info, memory.read) is Fit.YES
    return Candidate(address=address, text=text, verified=verified)
