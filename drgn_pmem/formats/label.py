# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Namespace and region labels of DIMMs
------------------------------------

One label says what one DIMM contributes to a namespace or (CXL) to a region. The layouts are in
:linux:`drivers/nvdimm/label.h`, all little-endian; :mod:`drgn_pmem.formats.labelarea` finds the
labels in a DIMM's label storage area.
"""

from __future__ import annotations

import dataclasses
from typing import Any
import uuid

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.checksum import nd_fletcher64
from drgn_pmem.formats.clayout import CLayout, uuid_text
from drgn_pmem.record import Record

__all__ = (
    "ABSTRACTIONS",
    "CxlNamespaceLabel",
    "CxlRegionLabel",
    "EfiLabel",
    "Label",
    "parse_label",
)

CXL_REGION_UUID = "529d7c61-da07-47c4-a93f-ecdf2c06f444"
CXL_NAMESPACE_UUID = "68bb2c0a-5a77-4937-9f85-3caf41a0f93c"

ABSTRACTIONS = {
    "8aed63a2-29a2-4c66-8b12-f05d15d3922a": "btt",
    "18633bfc-1735-4217-8ac9-17239282d3f8": "btt2",
    "266400ba-fb9f-4677-bcb0-968f11d0d225": "pfn",
    "97a86d9c-3cdd-4eda-986f-5068b4f80088": "dax",
}
"""Personality that a label gives its namespace, by GUID."""

_LAYOUT = CLayout("""
struct nvdimm_efi_label {       /* 128 bytes before version 1.2: up to slot */
    char     uuid[16];
    char     name[64];
    uint32_t flags;
    uint16_t nlabel;
    uint16_t position;
    uint64_t isetcookie;
    uint64_t lbasize;
    uint64_t dpa;
    uint64_t rawsize;
    uint32_t slot;
    uint8_t  align;
    char     reserved[3];
    char     type_guid[16];
    char     abstraction_guid[16];
    char     reserved2[88];
    uint64_t checksum;
};

struct nvdimm_cxl_label {
    char     type[16];
    char     uuid[16];
    char     name[64];
    uint32_t flags;
    uint16_t nrange;
    uint16_t position;
    uint64_t dpa;
    uint64_t rawsize;
    uint32_t slot;
    uint32_t align;
    char     region_uuid[16];
    char     abstraction_uuid[16];
    uint16_t lbasize;
    char     reserved[86];
    uint64_t checksum;
};

struct cxl_region_label {
    char     type[16];
    char     uuid[16];
    uint32_t flags;
    uint16_t nlabel;
    uint16_t position;
    uint64_t dpa;
    uint64_t rawsize;
    uint64_t hpa;
    uint32_t slot;
    uint32_t ig;
    uint32_t align;
    char     reserved[172];
    uint64_t checksum;
};
""")

_FLAGS = {1: "readonly", 2: "local", 4: "btt", 8: "updating"}


class _Label:
    """Common to all labels."""

    flags: int
    slot: int

    @property
    def flag_names(self) -> list[str]:
        """Names of the known flags that are set."""
        return [name for bit, name in _FLAGS.items() if self.flags & bit]

    def to_json(self) -> dict[str, Any]:
        """
        All fields; the name as text, the flags by name, and the personality that the GUID means.
        """
        json: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }
        if "name" in json:
            json["name"] = json["name"].partition(b"\0")[0].decode("utf-8", "backslashreplace")
        json["flag_names"] = self.flag_names
        abstraction = json.get("abstraction_guid")
        if abstraction:
            json["abstraction"] = ABSTRACTIONS.get(abstraction)
        return json


class EfiLabel(_Label, Record):
    """
    ``struct nvdimm_efi_label``; the fields after :attr:`slot` are ``None`` in a 128-byte label
    (before 1.2).
    """

    uuid: str
    name: bytes
    flags: int
    nlabel: int
    """Labels (DIMMs) of the interleave set."""
    position: int
    isetcookie: int
    lbasize: int
    dpa: int
    """Address in the DIMM, bytes."""
    rawsize: int
    """Bytes that this DIMM contributes."""
    slot: int
    align: int | None = None
    type_guid: str | None = None
    abstraction_guid: str | None = None
    checksum_ok: bool | None = None
    """``None``: this version has no checksum."""


class CxlNamespaceLabel(_Label, Record):
    """``struct nvdimm_cxl_label`` (CXL 2.0)."""

    uuid: str
    name: bytes
    flags: int
    nrange: int
    position: int
    dpa: int
    rawsize: int
    slot: int
    align: int
    """In units of 256 MiB."""
    region_uuid: str
    abstraction_guid: str
    lbasize: int
    checksum_ok: bool = True


class CxlRegionLabel(_Label, Record):
    """``struct cxl_region_label`` (CXL 2.0)."""

    uuid: str
    flags: int
    nlabel: int
    position: int
    dpa: int
    rawsize: int
    hpa: int
    """Physical address that the region must have."""
    slot: int
    ig: int
    """Interleave granularity: ``256 << ig`` bytes."""
    align: int
    checksum_ok: bool = True


Label = EfiLabel | CxlNamespaceLabel | CxlRegionLabel

_CXL: dict[str, tuple[str, type[Label]]] = {
    CXL_REGION_UUID: ("cxl_region_label", CxlRegionLabel),
    CXL_NAMESPACE_UUID: ("nvdimm_cxl_label", CxlNamespaceLabel),
}
_CXL_TYPES: dict[type, tuple[str, str]] = {
    record: (kind, struct) for kind, (struct, record) in _CXL.items()
}


def parse_label(data: bytes) -> Label:
    """
    Decode one label; the first 16 bytes of a CXL label are its type.

    :param data: 128 bytes (before version 1.2) or 256 bytes.
    :raises FormatError: for any other size. A wrong checksum is a field of the record.
    """
    if len(data) not in (128, 256):
        raise FormatError(f"a label has 128 or 256 bytes, not {len(data)}")
    short = len(data) == 128
    struct: str = "nvdimm_efi_label"
    record: type[Label] = EfiLabel
    if not short:
        struct, record = _CXL.get(uuid_text(data[:16]), (struct, record))
    members = _LAYOUT.unpack(struct, data.ljust(256, b"\0"))
    computed = nd_fletcher64(data[:-8] + bytes(8))
    values: dict[str, Any] = {"checksum_ok": computed == members["checksum"]}
    for field in dataclasses.fields(record):
        name = field.name
        if record is CxlNamespaceLabel and name == "abstraction_guid":
            values[name] = uuid_text(members["abstraction_uuid"])
        elif name.endswith("guid"):
            # EFI labels hold a guid_t, whose first three groups are little-endian.
            values[name] = str(uuid.UUID(bytes_le=members[name]))
        elif name.endswith("uuid"):
            values[name] = uuid_text(members[name])
        elif name == "name":
            values[name] = members[name].rstrip(b"\0")
        elif name != "checksum_ok":
            values[name] = members[name]
    if short:
        values.update(align=None, type_guid=None, abstraction_guid=None, checksum_ok=None)
    return record(**values)
