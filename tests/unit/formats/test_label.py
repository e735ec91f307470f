# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Label storage areas. The expected bytes are put together by ``struct`` from the offsets of the UEFI
and CXL specifications, independently of the declarations under test.
"""

import contextlib
import dataclasses
import json
import struct
import uuid

from hypothesis import given, settings, strategies as st
import pytest

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.checksum import nd_fletcher64
from drgn_pmem.formats.label import (
    CxlNamespaceLabel,
    CxlRegionLabel,
    EfiLabel,
    parse_label,
)
from drgn_pmem.formats.labelarea import parse_label_area
from tests.builders import build_label, build_label_area

UUID = "56b11990-66b1-4d91-9cac-ca084c051259"
PFN = "266400ba-fb9f-4677-bcb0-968f11d0d225"
PMEM = "66f0d379-b4f3-4074-ac43-0d3318b78cdb"


def u(bits):
    return st.integers(0, (1 << bits) - 1)


def label(slot=0, **change):
    values = {
        "uuid": UUID,
        "name": b"database",
        "flags": 0,
        "nlabel": 1,
        "position": 0,
        "isetcookie": 0x1122334455667788,
        "lbasize": 512,
        "dpa": 0x10000000,
        "rawsize": 1 << 30,
        "slot": slot,
        "align": 0,
        "type_guid": PMEM,
        "abstraction_guid": PFN,
        "checksum_ok": True,
    }
    return EfiLabel(**{**values, **change})


def short(slot=0, **change):
    none = dict.fromkeys(("align", "type_guid", "abstraction_guid", "checksum_ok"))
    return label(slot, **none, **change)


uuids = st.uuids().map(str)
# A UUID that happens to be CXL's type would make an EFI label a CXL one.
common = {"uuid": uuids, "flags": u(32), "position": u(16), "dpa": u(64), "rawsize": u(64)}
names = st.binary(max_size=64).map(lambda name: name.rstrip(b"\0"))
efi_labels = st.builds(
    EfiLabel,
    **common,
    name=names,
    nlabel=u(16),
    isetcookie=u(64),
    lbasize=u(64),
    slot=u(32),
    align=u(8),
    type_guid=uuids,
    abstraction_guid=uuids,
    checksum_ok=st.just(True),
)
short_labels = efi_labels.map(
    lambda label: dataclasses.replace(
        label, align=None, type_guid=None, abstraction_guid=None, checksum_ok=None
    )
)
cxl_labels = st.builds(
    CxlNamespaceLabel,
    **common,
    name=names,
    nrange=u(16),
    slot=u(32),
    align=u(32),
    region_uuid=uuids,
    abstraction_guid=uuids,
    lbasize=u(16),
)
region_labels = st.builds(
    CxlRegionLabel, **common, nlabel=u(16), hpa=u(64), slot=u(32), ig=u(32), align=u(32)
)
labels = efi_labels | short_labels | cxl_labels | region_labels


def test_an_efi_label_has_the_layout_of_uefi():
    data = struct.pack(
        "<16s64sIHHQQQQIB3x16s16s88x",
        uuid.UUID(UUID).bytes,
        b"database",
        5,
        2,
        1,
        0x1122334455667788,
        512,
        0x10000000,
        1 << 30,
        3,
        12,
        uuid.UUID(PMEM).bytes_le,
        uuid.UUID(PFN).bytes_le,
    )
    data += struct.pack("<Q", nd_fletcher64(data + bytes(8)))
    assert len(data) == 256
    expected = label(3, flags=5, nlabel=2, position=1, align=12)
    assert parse_label(data) == expected
    assert build_label(expected) == data
    record = expected.to_json()
    assert (record["name"], record["flag_names"], record["abstraction"]) == (
        "database",
        ["readonly", "btt"],
        "pfn",
    )


def test_a_label_before_version_1_2_is_its_first_half():
    assert build_label(short(3)) == build_label(label(3))[:124] + bytes(4)
    assert parse_label(build_label(short(3))) == short(3)


def test_cxl_labels_have_the_layout_of_cxl():
    namespace = struct.pack(
        "<16s16s64sIHHQQII16s16sH86x",
        uuid.UUID("68bb2c0a-5a77-4937-9f85-3caf41a0f93c").bytes,
        uuid.UUID(UUID).bytes,
        b"cxl",
        8,
        1,
        2,
        3 << 28,
        4 << 28,
        5,
        6,
        uuid.UUID(PMEM).bytes,
        uuid.UUID(PFN).bytes,
        4096,
    )
    namespace += struct.pack("<Q", nd_fletcher64(namespace + bytes(8)))
    assert parse_label(namespace) == CxlNamespaceLabel(
        uuid=UUID,
        name=b"cxl",
        flags=8,
        nrange=1,
        position=2,
        dpa=3 << 28,
        rawsize=4 << 28,
        slot=5,
        align=6,
        region_uuid=PMEM,
        abstraction_guid=PFN,
        lbasize=4096,
    )
    region = struct.pack(
        "<16s16sIHHQQQIII172x",
        uuid.UUID("529d7c61-da07-47c4-a93f-ecdf2c06f444").bytes,
        uuid.UUID(UUID).bytes,
        8,
        1,
        2,
        3 << 28,
        4 << 28,
        5 << 28,
        6,
        7,
        8,
    )
    region += struct.pack("<Q", nd_fletcher64(region + bytes(8)))
    assert parse_label(region) == CxlRegionLabel(
        uuid=UUID,
        flags=8,
        nlabel=1,
        position=2,
        dpa=3 << 28,
        rawsize=4 << 28,
        hpa=5 << 28,
        slot=6,
        ig=7,
        align=8,
    )
    for data in (namespace, region):
        assert len(data) == 256
        assert build_label(parse_label(data)) == data
        assert parse_label(data).to_json()["flag_names"] == ["updating"]


@given(labels)
def test_labels_round_trip(record):
    data = build_label(record)
    assert len(data) in (128, 256)
    assert parse_label(data) == record
    json.dumps(record.to_json())


@given(labels, st.integers(0, 255), st.integers(1, 255))
def test_a_flipped_byte_of_a_label_is_noticed(record, offset, bits):
    data = bytearray(build_label(record))
    if len(data) == 128:
        return
    data[offset] ^= bits
    assert parse_label(bytes(data)).checksum_ok is False


def test_a_name_that_is_no_text_stays_printable():
    assert label(name=b"\xff\x1b[2J\0hidden").to_json()["name"] == "\\xff\x1b[2J"


def test_a_label_that_does_not_fit_is_an_error():
    with pytest.raises(FormatError, match="does not fit slot"):
        build_label(label(1 << 32))
    with pytest.raises(FormatError, match="name is 64 bytes"):
        build_label(label(name=b"n" * 65))
    with pytest.raises(FormatError, match="128 or 256 bytes, not 7"):
        parse_label(b"1234567")


@pytest.mark.parametrize("make", [label, short])
def test_an_area_lists_the_slots_that_are_not_free(make):
    size = 256 if make is label else 128
    used = [make(0), make(5, name=b""), make(300)]
    area = parse_label_area(build_label_area(used, label_size=size))
    assert area.label_size == size
    assert area.labels == tuple(used)
    assert [slot.index for slot in area.slots] == [0, 5, 300]
    assert area.indexes[0].nslot == {256: 510, 128: 1020}[size]
    assert [index.problems for index in area.indexes] == [(), ()]
    json.dumps(area.to_json())


def test_the_index_has_the_layout_of_uefi():
    # 128 KiB hold two 256-byte indexes and 511 labels of 256 bytes, less what the kernel rounds
    # down.
    data = build_label_area([label(1)], seq=3)
    fields = struct.unpack_from("<16s3sBIQQQQIHH", data)
    assert fields == (
        b"NAMESPACE_INDEX\0",
        bytes(3),
        1,
        3,
        0,
        256,
        256,
        512,
        510,
        1,
        2,
    )
    # One bit per slot; beyond nslot they are zero.
    bitmap = int.from_bytes(data[0x48:256], "little")
    assert bitmap == ((1 << 510) - 1) & ~(1 << 1)


@pytest.mark.parametrize(
    ("first", "second", "current"),
    [(1, 3, 0), (2, 1, 0), (3, 2, 0), (3, 1, 1), (1, 2, 1), (2, 3, 1), (2, 2, 1)],
)
def test_the_index_with_the_later_sequence_number_is_in_force(first, second, current):
    one = build_label_area([label(1)], seq=first)
    other = build_label_area([label(2)], seq=second % 3 + 1)
    # The second index of an area has the number before the first one's.
    data = bytearray(one)
    data[256:512] = other[256:512]
    data[512 + 2 * 256 : 512 + 3 * 256] = other[512 + 2 * 256 : 512 + 3 * 256]
    area = parse_label_area(bytes(data))
    assert [index.seq for index in area.indexes] == [first, second]
    assert area.current == current
    assert [slot.index for slot in area.slots] == [current + 1]


def test_a_damaged_index_leaves_the_other_one():
    for damaged in (0, 1):
        data = bytearray(build_label_area([label(1)]))
        data[damaged * 256 + 0x50] ^= 1
        area = parse_label_area(bytes(data))
        assert area.current == 1 - damaged
        assert area.indexes[damaged].problems == ("wrong checksum",)
        assert area.bad_indexes == ((damaged, "wrong checksum"),)
        assert area.labels == (label(1),)


def test_the_ram_copy_after_an_update_has_one_index_twice():
    # nd_label_write_index() copies the index in force over the other one.
    for current in (0, 1):
        data = bytearray(build_label_area([label(1)]))
        index = data[current * 256 : current * 256 + 256]
        data[:512] = index * 2
        area = parse_label_area(bytes(data))
        assert area.bad_indexes == ()
        assert area.current == current
        assert area.labels == (label(1),)


def test_labels_that_the_kernel_skips_are_kept_with_the_reason():
    data = bytearray(build_label_area([label(1), label(2), label(3)]))
    data[512 + 256 + 0x20] ^= 1
    data[512 + 2 * 256 : 512 + 3 * 256] = build_label(label(7))
    area = parse_label_area(bytes(data))
    assert [slot.problems for slot in area.slots] == [
        ("wrong checksum",),
        ("written for slot 7",),
        (),
    ]
    assert area.labels == (label(3),)


def patched(offset, layout, value):
    """An area with one field of both indexes changed and their checksums made right again."""
    data = bytearray(build_label_area([label(1)]))
    for copy in (0, 256):
        struct.pack_into(layout, data, copy + offset, value)
        data[copy + 0x40 : copy + 0x48] = bytes(8)
        data[copy + 0x40 : copy + 0x48] = struct.pack(
            "<Q", nd_fletcher64(bytes(data[copy : copy + 256]))
        )
    return bytes(data)


@pytest.mark.parametrize(
    ("offset", "layout", "value", "words"),
    [
        (0x00, "<B", 0x20, "not a label area"),
        (0x13, "<B", 9, "labelsize 9 is not 0 or 1"),
        (0x14, "<I", 4, "sequence number 4 is invalid"),
        (0x18, "<Q", 1 << 63, "myoff is 0x8000000000000000"),
        (0x20, "<Q", 0, "mysize 0x0"),
        (0x20, "<Q", 1 << 63, "mysize 0x8000000000000000"),
        (0x28, "<Q", 7, "otheroff is 0x7"),
        (0x30, "<Q", 0, "labeloff is 0x0"),
        (0x38, "<I", 0xFFFFFFFF, "4294967295 slots do not fit"),
    ],
)
def test_each_check_of_the_kernel_has_its_words(offset, layout, value, words):
    with pytest.raises(FormatError, match=words):
        parse_label_area(patched(offset, layout, value))


def test_an_index_for_labels_of_another_size_is_refused():
    # In 512 KiB the indexes for 128-byte labels are larger, so they cannot be taken for one
    # another.
    data = bytearray(build_label_area([label(1)], config_size=512 << 10))
    data[0x13] = data[512 + 0x13] = 0
    with pytest.raises(FormatError, match=r"index 1 .*: it is for 128-byte labels"):
        parse_label_area(bytes(data))


def test_sizes_that_no_area_has():
    with pytest.raises(FormatError, match="too few"):
        parse_label_area(bytes(512))
    with pytest.raises(FormatError, match="too many"):
        parse_label_area(bytes((16 << 20) + 1))
    with pytest.raises(FormatError, match="no label area"):
        build_label_area([], config_size=512)
    with pytest.raises(FormatError, match="no slot 9999"):
        build_label_area([label(9999)])


@settings(max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 1023), st.sampled_from([0, 1024, 4096, 1 << 17]))
def test_any_bytes_give_an_area_or_a_format_error(noise, offset, size):
    data = bytearray(build_label_area([label(1)])[:size] if size else b"")
    data[offset : offset + len(noise)] = noise
    with contextlib.suppress(FormatError):
        json.dumps(parse_label_area(bytes(data)).to_json())
