# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builders of on-media and firmware structures, for tests: the product only reads them."""

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any
import uuid

from drgn_pmem.errors import FormatError
from drgn_pmem.formats import btt, fadump_rtas, infoblock, label as label_format, labelarea
from drgn_pmem.formats.btt import BTT_SIGNATURE, BttArena
from drgn_pmem.formats.checksum import nd_fletcher64, nd_sb_checksum
from drgn_pmem.formats.clayout import CLayout
from drgn_pmem.formats.fadump_rtas import RtasFadumpMem
from drgn_pmem.formats.infoblock import DAX_SIGNATURE, PFN_SIGNATURE, InfoBlock
from drgn_pmem.formats.label import CxlNamespaceLabel, EfiLabel, Label
from drgn_pmem.formats.superblock import _UUIDS

__all__ = (
    "build_btt",
    "build_infoblock",
    "build_label",
    "build_label_area",
    "build_rtas_fadump_mem",
)


def _uuid_bytes(text: str) -> bytes:
    """
    The 16 bytes of a ``uuid_t``.

    :raises FormatError: if *text* is not a UUID.
    """
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise FormatError(f"{text!r} is not a UUID") from None


def _pack_sb(layout: CLayout, struct: str, members: Mapping[str, Any]) -> bytes:
    """
    The 4096 bytes of a superblock, with their checksum (the one among the members is not used).

    :param members: As ``unpack_sb()`` gives them, the signature in bytes.
    :raises FormatError: if a member does not fit or a UUID is none
    """
    data = layout.pack(struct, {**members, **{name: _uuid_bytes(members[name]) for name in _UUIDS}})
    return data[:-8] + nd_sb_checksum(data).to_bytes(8, "little")


def build_infoblock(block: InfoBlock) -> bytes:
    """
    The 4096 bytes of an info block, with their checksum (the record's own is not used).

    :raises FormatError: if a field does not fit, or the signature or a UUID is none.
    """
    members = dataclasses.asdict(block)
    del members["checksum_ok"]
    members["signature"] = block.signature.encode() + b"\0"
    if members["signature"] not in (PFN_SIGNATURE, DAX_SIGNATURE):
        raise FormatError(f"{block.signature!r} is neither NVDIMM_PFN_INFO nor NVDIMM_DAX_INFO")
    return _pack_sb(infoblock._LAYOUT, "nd_pfn_sb", members)


def build_btt(arena: BttArena) -> bytes:
    """
    The 4096 bytes of an arena's info block, with their checksum (the record's own is not used).

    :raises FormatError: if a field does not fit or a UUID is none.
    """
    members = dataclasses.asdict(arena)
    del members["checksum_ok"]
    members["signature"] = BTT_SIGNATURE
    return _pack_sb(btt._LAYOUT, "btt_sb", members)


def build_label(label: Label) -> bytes:
    """
    The 256 bytes of a label with its checksum; 128 bytes for an EFI label whose ``align`` is
    ``None``.

    :raises FormatError: if a field does not fit or a UUID is none.
    """
    members: dict[str, int | bytes] = {}
    struct = "nvdimm_efi_label"
    if type(label) in label_format._CXL_TYPES:
        kind, struct = label_format._CXL_TYPES[type(label)]
        members["type"] = _uuid_bytes(kind)
    for field in dataclasses.fields(label):
        name, value = field.name, getattr(label, field.name)
        if name == "checksum_ok" or value is None:
            continue
        if isinstance(label, CxlNamespaceLabel) and name == "abstraction_guid":
            members["abstraction_uuid"] = _uuid_bytes(value)
        elif name.endswith("guid"):
            members[name] = uuid.UUID(bytes=_uuid_bytes(value)).bytes_le
        else:
            members[name] = _uuid_bytes(value) if name.endswith("uuid") else value
    data = label_format._LAYOUT.pack(struct, members)
    if isinstance(label, EfiLabel) and label.align is None:
        return data[:128]
    return data[:-8] + nd_fletcher64(data[:-8] + bytes(8)).to_bytes(8, "little")


def build_label_area(
    labels: Iterable[Label],
    config_size: int = 128 << 10,
    label_size: int = 256,
    *,
    seq: int = 1,
    version: tuple[int, int] | None = None,
) -> bytes:
    """
    A label storage area whose first index is in force and lists *labels* at their slots.

    :param seq: Sequence number, 1 to 3, of the first index; the second has the one before.
    :param version: Default 1.1 for 128-byte labels, else 1.2.
    :raises FormatError: if the labels do not fit.
    """
    size = labelarea._sizeof_index(config_size, label_size) if label_size in (128, 256) else 0
    if not size or not 1 <= seq <= 3:
        raise FormatError(
            f"no label area has {config_size} bytes, {label_size}-byte labels and"
            f" sequence number {seq}"
        )
    nslot = (config_size - 2 * size) // label_size
    area = bytearray(config_size)
    free = bytearray(-(-nslot // 8))
    for slot in range(nslot):
        free[slot // 8] |= 1 << slot % 8
    for label in labels:
        data = build_label(label)
        if label.slot >= nslot or len(data) != label_size:
            raise FormatError(f"no slot {label.slot} for a label of {len(data)} bytes")
        free[label.slot // 8] &= ~(1 << label.slot % 8)
        offset = 2 * size + label.slot * label_size
        area[offset : offset + label_size] = data
    major, minor = version or ((1, 1) if label_size == 128 else (1, 2))
    for copy in (0, 1):
        members: dict[str, int | bytes] = {
            "sig": labelarea._SIGNATURE,
            "labelsize": label_size >> 8,
            "seq": seq if copy == 0 else (seq + 1) % 3 + 1,
            "myoff": copy * size,
            "mysize": size,
            "otheroff": (1 - copy) * size,
            "labeloff": 2 * size,
            "nslot": nslot,
            "major": major,
            "minor": minor,
        }
        index = (labelarea._LAYOUT.pack("nd_namespace_index", members) + free).ljust(size, b"\0")
        checksum = nd_fletcher64(index).to_bytes(8, "little")
        area[copy * size : (copy + 1) * size] = index[:0x40] + checksum + index[0x48:]
    return bytes(area)


def build_rtas_fadump_mem(mem: RtasFadumpMem) -> bytes:
    """
    The bytes of the structure.

    :raises FormatError: if a field does not fit, or the first section would lie in the header.
    """
    members: dict[str, int | bytes] = {
        field.name: getattr(mem, field.name)
        for field in dataclasses.fields(mem)
        if field.name != "sections"
    }
    members["dump_num_sections"] = len(mem.sections)
    data = fadump_rtas._LAYOUT.pack("rtas_fadump_section_header", members, "big")
    if not len(data) <= mem.offset_first_dump_section <= 4096:
        raise FormatError(f"no section can be at offset {mem.offset_first_dump_section}")
    return data.ljust(mem.offset_first_dump_section, b"\0") + b"".join(
        fadump_rtas._LAYOUT.pack("rtas_fadump_section", dataclasses.asdict(section), "big")
        for section in mem.sections
    )
