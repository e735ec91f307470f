# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Label storage area of a DIMM
----------------------------

Two copies of a namespace index, then slots for labels (:linux:`drivers/nvdimm/label.h`), all
little-endian. The area is not part of the persistent memory: the kernel reads it from the DIMM and
keeps it in ``nvdimm_drvdata.data`` (``nsarea.config_size`` bytes). A dump has that copy.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
from typing import Any

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.checksum import nd_fletcher64
from drgn_pmem.formats.clayout import CLayout
from drgn_pmem.formats.label import Label, parse_label
from drgn_pmem.record import Record

__all__ = ("LabelArea", "LabelSlot", "NamespaceIndex", "parse_label_area")

_SIGNATURE = b"NAMESPACE_INDEX\0"
_ALIGN = 256
_INDEX_SIZE = 0x48
# The kernel uses the size that a DIMM reports; real areas have 128 KiB (NVDIMM) to 512 KiB.
_MAX_AREA = 16 << 20

_LAYOUT = CLayout("""
struct nd_namespace_index {
    char     sig[16];
    char     flags[3];
    uint8_t  labelsize;
    uint32_t seq;
    uint64_t myoff;
    uint64_t mysize;
    uint64_t otheroff;
    uint64_t labeloff;
    uint32_t nslot;
    uint16_t major;
    uint16_t minor;
    uint64_t checksum;          /* u8 free[] follows: a bit is set for a free slot */
};
""")


class NamespaceIndex(Record):
    """``struct nd_namespace_index``, one of the two copies."""

    labelsize: int
    seq: int
    myoff: int
    mysize: int
    otheroff: int
    labeloff: int
    nslot: int
    major: int
    minor: int
    checksum: int
    problems: tuple[str, ...] = ()
    """
    Why the kernel does not use this copy; empty for a valid one. After an update the kernel's own
    RAM copy has the index in force twice, so that the other one's offsets are wrong: no damage.
    """

    @property
    def label_size(self) -> int:
        """Bytes of a label."""
        return 128 << self.labelsize if (self.major, self.minor) >= (1, 2) else 128


class LabelSlot(Record):
    """A slot that the current index does not list as free."""

    index: int
    label: Label
    problems: tuple[str, ...] = ()
    """Why the kernel skips this label; empty for a valid one."""

    def to_json(self) -> dict[str, Any]:
        return {"index": self.index, **self.label.to_json(), "problems": list(self.problems)}


class LabelArea(Record):
    """A label storage area."""

    label_size: int
    indexes: tuple[NamespaceIndex | None, NamespaceIndex | None]
    """Both copies; ``None`` without the signature."""
    current: int
    """The copy in force, 0 or 1."""
    slots: tuple[LabelSlot, ...]
    """Slots in use, in order."""

    @property
    def bad_indexes(self) -> tuple[tuple[int, str], ...]:
        """Number of each copy of the index that is not valid, and why."""
        current = self.indexes[self.current]
        assert current is not None
        own = dataclasses.replace(current, problems=())
        found = []
        for copy, index in enumerate(self.indexes):
            if index is None:
                found.append((copy, "no NAMESPACE_INDEX signature"))
            elif index.problems and dataclasses.replace(index, problems=()) != own:
                # The kernel's copy in RAM has the index in force twice after an update.
                found.append((copy, ", ".join(index.problems)))
        return tuple(found)

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels that the kernel uses."""
        return tuple(slot.label for slot in self.slots if not slot.problems)


def _sizeof_index(config_size: int, label_size: int) -> int:
    """``sizeof_namespace_index()``: bytes of each copy, 0 if the area is too small."""

    def index_size(slots: int) -> int:
        return -(-(_INDEX_SIZE + -(-slots // 8)) // _ALIGN) * _ALIGN

    slots = (config_size - 2 * index_size(config_size // label_size)) // label_size
    if slots < 2 or 2 * index_size(slots) > config_size - slots * label_size:
        return 0
    return index_size(slots)


def parse_label_area(data: bytes) -> LabelArea:
    """
    Decode a label storage area and choose the index in force, as ``nd_label_validate()`` in
    :linux:`drivers/nvdimm/label.c` does: by sequence number among the copies that are valid, for
    128-byte labels first.

    :param data: The area, ``nsarea.config_size`` bytes.
    :raises FormatError: if neither copy of the index is valid, saying why for each.
    """
    if len(data) > _MAX_AREA:
        raise FormatError(f"{len(data)} bytes are too many for a label area (at most 16 MiB)")
    tried: list[str] = []
    for label_size in (128, 256):
        size = _sizeof_index(len(data), label_size)
        if not size:
            raise FormatError(f"{len(data)} bytes are too few for a label area")
        indexes = tuple(_parse_index(data, copy, size, label_size) for copy in (0, 1))
        valid = [copy for copy in (0, 1) if (index := indexes[copy]) and not index.problems]
        if valid:
            first, second = indexes
            current = _best(first, second) if len(valid) == 2 and first and second else valid[0]
            chosen = indexes[current]
            assert chosen is not None
            slots = tuple(_used_slots(data, current * size, 2 * size, chosen.nslot, label_size))
            return LabelArea(
                label_size=label_size, indexes=(first, second), current=current, slots=slots
            )
        for copy, index in enumerate(indexes):
            why = ", ".join(index.problems) if index else "no NAMESPACE_INDEX signature"
            if index is None or index.label_size == label_size or label_size == 256:
                tried.append(f"index {copy} ({label_size}-byte labels): {why}")
    if not any(indexes):
        raise FormatError("not a label area: neither index has the NAMESPACE_INDEX signature")
    raise FormatError("no valid label index: " + "; ".join(tried))


def _parse_index(data: bytes, copy: int, size: int, label_size: int) -> NamespaceIndex | None:
    offset = copy * size
    members = _LAYOUT.unpack("nd_namespace_index", data, offset)
    if members.pop("sig") != _SIGNATURE:
        return None
    del members["flags"]
    index = NamespaceIndex(**members)
    problems = []
    if (index.major, index.minor) >= (1, 2) and index.labelsize > 1:
        problems.append(f"labelsize {index.labelsize} is not 0 or 1")
    elif index.label_size != label_size:
        problems.append(f"it is for {index.label_size}-byte labels")
    area = data[offset : offset + size]
    if nd_fletcher64(area[:0x40] + bytes(8) + area[0x48:]) != index.checksum:
        problems.append("wrong checksum")
    if index.seq & 3 == 0:
        problems.append(f"sequence number {index.seq} is invalid")
    for name, value in (
        ("myoff", copy * size),
        ("otheroff", (1 - copy) * size),
        ("labeloff", 2 * size),
    ):
        if getattr(index, name) != value:
            problems.append(f"{name} is {getattr(index, name):#x}, not {value:#x}")
    if not _INDEX_SIZE <= index.mysize <= size:
        problems.append(f"mysize {index.mysize:#x} is not in {_INDEX_SIZE:#x}..{size:#x}")
    if index.nslot * label_size + 2 * size > len(data):
        problems.append(f"{index.nslot} slots do not fit {len(data)} bytes")
    return dataclasses.replace(index, problems=tuple(problems))


def _best(first: NamespaceIndex, second: NamespaceIndex) -> int:
    """``best_seq()``: sequence numbers count 1, 2, 3, 1, ...; the second copy wins a tie."""
    a, b = first.seq & 3, second.seq & 3
    return 1 if a == b or a % 3 + 1 == b else 0


def _used_slots(
    data: bytes, index: int, base: int, nslot: int, label_size: int
) -> Iterator[LabelSlot]:
    for slot in range(nslot):
        bitmap = index + _INDEX_SIZE + slot // 8
        # A damaged nslot can exceed the bitmap's own bytes; labels follow it, not a
        # bitmap.
        if bitmap >= index + base // 2:
            return
        if data[bitmap] >> slot % 8 & 1:
            continue
        offset = base + slot * label_size
        label = parse_label(data[offset : offset + label_size])
        problems = []
        if label.slot != slot:
            problems.append(f"written for slot {label.slot}")
        if label.checksum_ok is False:
            problems.append("wrong checksum")
        yield LabelSlot(index=slot, label=label, problems=tuple(problems))
