# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
A CXL device's answer to "Get Poison List"
------------------------------------------

``struct cxl_mbox_poison_out`` (:linux:`drivers/cxl/cxlmem.h`; CXL 3.0, 8.2.9.8.4.1), little-endian:
a head of 32 bytes and records of 16. The driver has one buffer for it per device and does not clear
it when it allocates it: contents that no device answers with are refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.clayout import CLayout
from drgn_pmem.ranges import Range, RangeSet
from drgn_pmem.record import Record, Show, shown

__all__ = ("CxlMediaError", "CxlPoisonList", "parse_poison_list")

_LAYOUT = CLayout("""
struct head {
    uint8_t  flags;
    uint8_t  rsvd1;
    char     overflow_ts[8];    /* not aligned */
    char     count[2];
    char     rsvd2[20];
};
struct cxl_poison_record {
    uint64_t address;
    uint32_t length;            /* in units of 64 bytes */
    uint32_t rsvd;
};
""")

_MORE, _OVERFLOW, _SCANNING = 1, 2, 4
_UNIT = 64
_SOURCES = {0: "Unknown", 1: "External", 2: "Internal", 3: "Injected", 7: "Vendor Specific"}
"""As ``cxl list --media-errors`` names them."""


class CxlMediaError(Record):
    """``struct cxl_poison_record``. JSON: the keys of ``cxl list -M --media-errors``."""

    offset: int
    """Address in the device (DPA), bytes."""
    length: int = shown(Show.SIZE)
    """bytes"""
    source: str


class CxlPoisonList(Record):
    """The answer to one request for the poison list, or to the last part of one."""

    media_errors: tuple[CxlMediaError, ...]
    more: bool
    """The device had more records than this answer has."""
    overflow: bool
    """The device found more than it can keep."""
    scanning: bool
    """A scan of the media was in progress: the list may be incomplete."""


def parse_poison_list(data: bytes, memory: Iterable[Range]) -> CxlPoisonList | None:
    """
    The answer of a device.

    :param data: The driver's buffer, as long as an answer can be.
    :param memory: The device's own addresses.
    :return: None if the buffer has no records: the last answer was empty, or none was asked for.
    :raises FormatError: if no device answers so: the buffer was never filled, or is overwritten
    """
    head = _LAYOUT.unpack("head", data)
    flags, count = head["flags"], int.from_bytes(head["count"], "little")
    if head["rsvd1"] or any(head["rsvd2"]) or flags & ~(_MORE | _OVERFLOW | _SCANNING):
        raise FormatError("reserved bits of its head are set")
    if not count:
        return None
    size, start = _LAYOUT.size("cxl_poison_record"), _LAYOUT.size("head")
    if start + count * size > len(data):
        room = (len(data) - start) // size
        raise FormatError(f"it counts {count} records; there is room for {room}")
    within = RangeSet(memory)
    records = [_LAYOUT.unpack("cxl_poison_record", data, start + i * size) for i in range(count)]
    return CxlPoisonList(
        media_errors=tuple(_media_error(record, within) for record in records),
        more=bool(flags & _MORE),
        overflow=bool(flags & _OVERFLOW),
        scanning=bool(flags & _SCANNING),
    )


def _media_error(record: dict[str, int], within: RangeSet) -> CxlMediaError:
    offset, length = record["address"] & -_UNIT, record["length"] * _UNIT
    source = _SOURCES.get(record["address"] & 7)
    if record["rsvd"] or record["address"] & 0x38 or source is None or not length:
        raise FormatError("a record has a length of 0, an unknown source or reserved bits set")
    if within.size(offset, offset + length) != length:
        raise FormatError(f"address {offset:#x} is not one of the device")
    return CxlMediaError(offset=offset, length=length, source=source)
