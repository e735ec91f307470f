# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Info blocks. The files in ``data`` were written by ``ndctl write-infoblock`` (``*.infoblock``) and
read by ``ndctl read-infoblock -j`` (``*.json``), version 76.1.
"""

import contextlib
import dataclasses
import json
from pathlib import Path
import shutil
import subprocess

from hypothesis import given, settings, strategies as st
import pytest

from drgn_pmem.errors import FormatError
from drgn_pmem.formats.btt import BttArena
from drgn_pmem.formats.checksum import nd_fletcher64
from drgn_pmem.formats.infoblock import (
    InfoBlock,
    data_range,
    effective_align,
    fill_in_defaults,
    find_infoblocks,
    memmap_size,
    metadata_range,
    parse_infoblock,
)
from drgn_pmem.formats.refusal import Check, Refusal, check_infoblock
from tests.builders import build_btt, build_infoblock

DATA = Path(__file__).parent / "data"
NDCTL = ["fsdax-1.4", "devdax-ram-1.4", "fsdax-padded-1.4"]
MIB = 1 << 20


def u(bits):
    return st.integers(0, (1 << bits) - 1)


blocks = st.builds(
    InfoBlock,
    signature=st.sampled_from(["NVDIMM_PFN_INFO", "NVDIMM_DAX_INFO"]),
    uuid=st.uuids().map(str),
    parent_uuid=st.uuids().map(str),
    flags=u(32),
    version_major=u(16),
    version_minor=st.integers(0, 5),
    dataoff=u(64),
    npfns=u(64),
    mode=st.integers(0, 3) | u(32),
    start_pad=u(32),
    end_trunc=u(32),
    align=u(32),
    page_size=u(32),
    page_struct_size=u(16),
)


def fsdax():
    return parse_infoblock((DATA / "fsdax-1.4.infoblock").read_bytes())


def slow_fletcher64(data):
    low = high = 0
    for offset in range(0, len(data), 4):
        low = (low + int.from_bytes(data[offset : offset + 4], "little")) % 2**32
        high = (high + low) % 2**64
    return (high << 32) % 2**64 | low


@given(st.binary(max_size=2048).map(lambda data: data[: len(data) // 4 * 4]))
def test_fletcher64_is_what_its_definition_says(data):
    assert nd_fletcher64(data) == slow_fletcher64(data)


def test_fletcher64_wraps_both_sums():
    data = b"\xff" * 65536
    assert nd_fletcher64(data) == slow_fletcher64(data)


def test_fletcher64_refuses_odd_sizes():
    with pytest.raises(FormatError, match="not a multiple"):
        nd_fletcher64(b"12345")


@pytest.mark.parametrize("name", NDCTL)
def test_a_block_of_ndctl_reads_as_ndctl_reads_it(name):
    (truth,) = json.loads((DATA / f"{name}.json").read_text())
    record = parse_infoblock((DATA / f"{name}.infoblock").read_bytes()).to_json()
    assert record.pop("checksum_ok")
    assert list(record.items()) == list(truth.items())


@pytest.mark.parametrize("name", NDCTL)
def test_a_block_of_ndctl_is_rebuilt_byte_for_byte(name):
    data = (DATA / f"{name}.infoblock").read_bytes()
    assert build_infoblock(parse_infoblock(data)) == data


@pytest.mark.skipif(not shutil.which("ndctl"), reason="needs ndctl")
@pytest.mark.parametrize("minor", range(5))
def test_ndctl_reads_what_is_built(tmp_path, minor):
    block = dataclasses.replace(fsdax(), version_minor=minor, flags=7, npfns=2**40, align=4096)
    path = tmp_path / "namespace"
    path.write_bytes(bytes(4096) + build_infoblock(block))
    output = subprocess.run(
        ["ndctl", "read-infoblock", "-j", "-i", path], capture_output=True, check=True
    ).stdout
    (truth,) = json.loads(output)
    del truth["file"]
    assert {**truth, "checksum_ok": True} == block.to_json()


@given(blocks)
def test_round_trip(block):
    again = parse_infoblock(build_infoblock(block))
    assert dataclasses.replace(again, checksum=0) == block
    json.dumps(again.to_json())


@settings(max_examples=300)
@given(st.binary(max_size=64), st.sampled_from([b"", b"NVDIMM_PFN_INFO\0"]), st.booleans())
def test_any_bytes_give_a_record_or_a_format_error(data, prefix, padded):
    data = prefix + data
    if padded:
        data = data.ljust(4096, b"\xa5")
    for verify in (True, False):
        with contextlib.suppress(FormatError):
            json.dumps(parse_infoblock(data, verify=verify).to_json())


@given(blocks, st.integers(0, 4095), st.integers(1, 255))
def test_a_flipped_byte_is_noticed(block, offset, bits):
    data = bytearray(build_infoblock(block))
    data[offset] ^= bits
    words = "not an info block" if offset < 16 else "damaged info block: checksum"
    with pytest.raises(FormatError, match=words):
        parse_infoblock(bytes(data))


def test_a_short_block_is_an_error():
    with pytest.raises(FormatError, match="needs 4096 bytes"):
        parse_infoblock((DATA / "fsdax-1.4.infoblock").read_bytes()[:4095])


def test_a_field_that_does_not_fit_is_an_error():
    with pytest.raises(FormatError, match="does not fit align"):
        build_infoblock(dataclasses.replace(fsdax(), align=1 << 32))
    with pytest.raises(FormatError, match="not a UUID"):
        build_infoblock(dataclasses.replace(fsdax(), uuid="nonsense"))
    with pytest.raises(FormatError, match="neither"):
        build_infoblock(dataclasses.replace(fsdax(), signature="NVDIMM_PFN_INFOS"))


def test_the_ram_copy_of_an_old_block_is_accepted_on_request():
    old = dataclasses.replace(fsdax(), version_minor=0, page_size=0, page_struct_size=0)
    media = build_infoblock(old)
    ram = bytearray(media)
    ram[0x54:0x58] = bytes(4)
    ram[0x58:0x5C] = (65536).to_bytes(4, "little")
    ram[0x5C:0x5E] = (64).to_bytes(2, "little")
    with pytest.raises(FormatError, match="checksum"):
        parse_infoblock(bytes(ram))
    copy = parse_infoblock(bytes(ram), verify=False)
    assert not copy.checksum_ok
    filled = fill_in_defaults(parse_infoblock(media), page_size=65536)
    assert dataclasses.replace(filled, checksum_ok=False) == copy


def test_each_version_has_its_fields_only():
    block = dataclasses.replace(fsdax(), start_pad=1, end_trunc=2, align=3, page_size=4)
    kept = [
        [
            name
            for name in ("start_pad", "end_trunc", "align", "page_size")
            if getattr(fill_in_defaults(dataclasses.replace(block, version_minor=minor)), name)
            == getattr(block, name)
        ]
        for minor in range(5)
    ]
    start, align = ["start_pad", "end_trunc"], ["start_pad", "end_trunc", "align"]
    assert kept == [[], start, align, align, [*align, "page_size"]]


def test_alignment_of_a_block_without_one_comes_from_dataoff():
    block = dataclasses.replace(fsdax(), version_minor=1, dataoff=18 * MIB, align=4096)
    assert effective_align(block) == 16 * MIB
    assert effective_align(dataclasses.replace(block, version_minor=2)) == 4096
    assert effective_align(dataclasses.replace(block, dataoff=0)) == 1


def test_ranges_of_a_namespace_with_its_memmap_on_pmem():
    # 1 GiB: 262142 pages need 16 MiB of struct pages behind 8 KiB, aligned to 2 MiB.
    start = 0x240000000
    assert metadata_range(fsdax(), start) == (start, start + 18 * MIB)
    assert data_range(fsdax(), start) == (start + 18 * MIB, start + 1024 * MIB)
    assert memmap_size(fsdax()) == 16 * MIB
    assert memmap_size(fsdax(), page_struct_size=128) == 32 * MIB


def test_ranges_of_a_padded_namespace():
    # ndctl made it for 2 GiB with start_pad and end_trunc: data ends where the truncated tail
    # begins.
    block = parse_infoblock((DATA / "fsdax-padded-1.4.infoblock").read_bytes())
    start, end = data_range(block, 0)
    assert start == block.start_pad + block.dataoff
    assert end == 2048 * MIB - block.end_trunc


def test_struct_pages_in_ram_take_no_pmem():
    block = parse_infoblock((DATA / "devdax-ram-1.4.infoblock").read_bytes())
    assert data_range(block, 0) == (2 * MIB, 1024 * MIB)


def test_the_kernel_accepts_blocks_of_ndctl():
    assert check_infoblock(fsdax(), 0x240000000, 1024 * MIB, parent_uuid=fsdax().parent_uuid) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"checksum_ok": False}, "the checksum is wrong"),
        ({"parent_uuid": "00000000-0000-0000-0000-000000000000"}, "is not the namespace's"),
        ({"mode": 3}, "mode 3 is neither"),
        ({"page_size": 65536}, "page_size 65536 is larger"),
        ({"page_struct_size": 32}, "page_struct_size 32 is smaller"),
        ({"align": 0x80000000}, "exceeds the namespace"),
        ({"align": 4096, "signature": "NVDIMM_DAX_INFO"}, "align 0x1000 is not supported"),
        ({"dataoff": 1 << 40}, "dataoff 0x10000000000 exceeds"),
        ({"dataoff": 17 * MIB}, "not aligned to 0x200000"),
        ({"dataoff": 18 * MIB + 512, "align": 512}, "not a multiple of 4096"),
        ({"start_pad": MIB}, "the mapping would begin at 0x240100000"),
        ({"end_trunc": MIB}, "the mapping would end at 0x27ff00000"),
    ],
)
def test_each_check_of_the_kernel_has_its_words(change, words):
    problems = check_infoblock(
        dataclasses.replace(fsdax(), **change),
        0x240000000,
        1024 * MIB,
        parent_uuid=fsdax().parent_uuid,
        supported_alignments=(2 * MIB, 1024 * MIB),
    )
    assert any(words in str(problem) for problem in problems), problems


def test_refusals_come_in_the_order_of_the_kernels_checks():
    """The first one decides: raw where the kernel goes on, disabled where it gives up."""
    nil = "00000000-0000-0000-0000-000000000000"
    bad = dataclasses.replace(fsdax(), checksum_ok=False, mode=7, align=0x80000000)
    found = check_infoblock(bad, 0x240000000, 1024 * MIB, parent_uuid=nil)
    order = [Check.CHECKSUM, Check.PARENT_UUID, Check.MODE, Check.ALIGN]
    assert [refusal.check for refusal in found][:4] == order
    assert [refusal.leaves_raw for refusal in found][:4] == [True, True, True, False]


@given(blocks, u(64), u(64), st.booleans())
def test_checks_and_ranges_never_fail(block, start, size, with_uuid):
    problems = check_infoblock(block, start, size, parent_uuid=block.uuid if with_uuid else None)
    assert all(isinstance(problem, Refusal) for problem in problems)
    assert metadata_range(block, start)[1] == data_range(block, start)[0]
    assert memmap_size(block) >= 0


class Memory:
    """Sparse physical memory; what was not put there is not in the dump."""

    def __init__(self, pieces, end):
        self.pieces = pieces
        self.end = end
        self.reads = 0

    def read(self, address, size):
        self.reads += 1
        for start, data in self.pieces.items():
            if start <= address < start + len(data):
                return data[address - start : address - start + size]
        return bytes(size) if address + size <= self.end else None


def arena(major=1, **change):
    values = {
        "uuid": "42e1d574-76ac-402c-9132-5436e31528c0",
        "parent_uuid": "ef83e49c-4c4a-4fae-b908-72e94675b1b7",
        "flags": 0,
        "version_major": major,
        "version_minor": 2 - major,
        "external_lbasize": 512,
        "external_nlba": 1000,
        "internal_lbasize": 512,
        "internal_nlba": 1256,
        "nfree": 256,
        "infosize": 4096,
        "nextoff": 0,
        "dataoff": 4096,
        "mapoff": 30 * MIB,
        "logoff": 31 * MIB,
        "info2off": 32 * MIB - 4096,
    }
    return BttArena(**{**values, **change})


def test_a_scan_finds_every_kind_where_the_kernel_looks_for_it():
    pfn = (DATA / "fsdax-1.4.infoblock").read_bytes()
    dax = (DATA / "devdax-ram-1.4.infoblock").read_bytes()
    damaged = pfn[:0x60] + b"!" + pfn[0x61:]
    base = 0x100000000
    memory = Memory(
        {
            base + 0x1000: pfn,
            base + 16 * MIB + 0x1000: damaged,
            base + 32 * MIB + 0x1000: dax,
            base + 33 * MIB + 0x1000: pfn,  # between two steps
            base + 64 * MIB: build_btt(arena(2)),
            base + 96 * MIB + 0x1000: build_btt(arena(1)),
            base + 128 * MIB: build_btt(arena(1)),  # the backup of the one before
            base + 160 * MIB: pfn,  # not where the kernel looks
            base + 190 * MIB + 0x1000: pfn[:2048],  # cut short
        },
        base + 256 * MIB,
    )
    found = list(find_infoblocks(memory.read, base, base + 256 * MIB))
    assert [(hit.namespace - base, hit.address - base, hit.block.signature) for hit in found] == [
        (0, 0x1000, "NVDIMM_PFN_INFO"),
        (16 * MIB, 16 * MIB + 0x1000, "NVDIMM_PFN_INFO"),
        (32 * MIB, 32 * MIB + 0x1000, "NVDIMM_DAX_INFO"),
        (64 * MIB, 64 * MIB, "BTT_ARENA_INFO"),
        (96 * MIB, 96 * MIB + 0x1000, "BTT_ARENA_INFO"),
    ]
    assert [hit.block.checksum_ok for hit in found] == [True, False, True, True, True]
    assert found[0].to_json()["namespace"] == "0x100000000"


def test_a_scan_reports_further_arenas_and_backups_once():
    first = arena(2, nextoff=32 * MIB)
    memory = Memory(
        {
            0: build_btt(first),
            32 * MIB - 4096: build_btt(first),
            32 * MIB: build_btt(arena(2)),
        },
        128 * MIB,
    )
    found = list(find_infoblocks(memory.read, 0, 128 * MIB, step=4096))
    assert [hit.address for hit in found] == [0]


def test_a_scan_begins_at_an_unaligned_start_and_stays_in_its_range():
    pfn = (DATA / "fsdax-1.4.infoblock").read_bytes()
    memory = Memory({0x3000 + 0x1000: pfn, 2 * MIB + 0x1000: pfn}, 4 * MIB)
    found = list(find_infoblocks(memory.read, 0x3000, 2 * MIB + 0x1FFF))
    assert [hit.namespace for hit in found] == [0x3000]


def test_a_scan_reads_little_where_nothing_is():
    memory = Memory({}, 0)
    assert list(find_infoblocks(memory.read, 0, 1 << 30)) == []
    assert memory.reads == 2 * 512


def test_a_scan_with_an_absurd_step_is_an_error():
    with pytest.raises(FormatError, match="multiple of 4096"):
        list(find_infoblocks(Memory({}, 0).read, 0, 1, step=0))
