# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is on the media of a namespace, on samples with bytes changed: info blocks that the kernel
refuses, labels of which one copy is bad."""

from dataclasses import replace
from typing import Any

from drgn import Program, cast
import pytest

from drgn_pmem.analysis.coverage.namespaces import read_namespace_coverage
from drgn_pmem.analysis.inventory import media
from drgn_pmem.analysis.inventory.media import _why, lost_memory, read_media
from drgn_pmem.formats.btt import parse_btt
from drgn_pmem.kernel.namespace import for_each_namespace
from drgn_pmem.kernel.nvdimm import for_each_dimm
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem

from ..samples import open_crash, run_json, run_text, samples
from ..synthetic import poke_physical

BLOCK = 0x128001000
"""Info block of namespace2.0."""
RAW = 0x153001000
"""Where that of the raw namespace0.1 would be."""
BTT = 0x150001000
"""Arena of namespace0.0."""


@pytest.fixture
def prog() -> Program:
    sample = samples()["6.1-fileload"]
    return open_crash(sample, sample.dump("elf"))


def block_at(prog: Program, address: int) -> dict[str, Any]:
    (found,) = (
        item
        for item in run_json(prog, "pmem-infoblocks")
        if item["kind"] != "labels" and item["address"] == f"{address:#x}"
    )
    return found


def checks(found: dict[str, Any]) -> list[str]:
    return [refusal["check"] for refusal in found["refused"]]


def test_a_damaged_block_in_a_raw_namespace_is_there_and_refused(prog: Program) -> None:
    data = bytearray(prog.read(BLOCK, 4096, True))
    data[0x800] ^= 1
    poke_physical(prog, RAW, bytes(data))
    found = block_at(prog, RAW)
    assert (found["namespace"], found["kind"], found["valid"]) == ("namespace0.1", "fsdax", False)
    assert checks(found)[:2] == ["checksum", "parent_uuid"]
    assert "the checksum is wrong" in found["notes"][0]
    out, _ = run_text(prog, "pmem-infoblocks")
    assert "no info block" not in out


def test_a_block_of_another_namespace_is_refused(prog: Program) -> None:
    poke_physical(prog, RAW, prog.read(BLOCK, 4096, True))
    found = block_at(prog, RAW)
    assert (found["kind"], found["valid"]) == ("fsdax", False)
    assert found["infoblock"]["checksum_ok"] is True
    assert checks(found)[0] == "parent_uuid"
    assert "leaves namespace0.1 raw" in found["notes"][0]
    assert "after the end of the namespace (0x155000000)" in found["notes"][1]


def test_every_block_that_the_kernel_used_is_valid(prog: Program) -> None:
    found = [item for item in run_json(prog, "pmem-infoblocks") if item["kind"] != "labels"]
    assert {item["valid"] for item in found if item["infoblock"]} == {True}
    assert sum(item["valid"] is True for item in found) == 10


def test_a_damaged_arena_names_its_copy(prog: Program) -> None:
    data = bytearray(prog.read(BTT, 4096, True))
    copy = BTT + parse_btt(bytes(data)).info2off
    data[0x800] ^= 1
    poke_physical(prog, BTT, bytes(data))
    found = block_at(prog, BTT)
    assert (found["kind"], found["valid"], checks(found)) == ("btt", False, ["checksum"])
    assert any(f"its copy at {copy:#x} is intact" in note for note in found["notes"])
    # The block is damaged, not missing, and what follows from it is not known.
    answer = read_namespace_coverage(prog, "namespace0.0")
    problem = next(p for p in answer.problems if "BTT" in p.why)
    assert "are damaged" in problem.why
    assert "not in the dump" not in problem.why


def test_a_bad_copy_of_the_label_index_is_named(prog: Program) -> None:
    device = next(d for d in for_each_dimm(prog).value if d.dev == "nmem0")
    ndd = cast("struct nvdimm_drvdata *", device.object.dev.driver_data)
    address, current = ndd.data.value_(), ndd.ns_current.value_()
    size = prog.read_u64(address + 0x20)
    other = address + (1 - current) * size
    data = bytearray(prog.read(other, 64))
    data[0x18] ^= 1  # myoff
    prog.add_memory_segment(other, 64, lambda a, n, o, p: bytes(data[o : o + n]), False)
    out, _ = run_text(prog, "pmem-infoblocks")
    (row,) = (line for line in out.splitlines() if line.startswith("index"))
    assert "nmem0" in row
    assert f"copy {current} is in force" in row


def test_the_kernels_own_facts_of_a_claim(prog: Program) -> None:
    found = {n.dev: n for n in for_each_namespace(prog).value}
    classes = {"fsdax": "pfn", "devdax": "dax", "sector": "btt"}
    for namespace in found.values():
        if namespace.claim is not None and namespace.mode is not None:
            assert namespace.claim_class in ("none", classes[namespace.mode])
        assert namespace.force_raw is False
    raw = found["namespace0.1"]
    assert raw.label_uuid == raw.uuid
    claimed = found["namespace2.0"]
    assert claimed.label_uuid == claimed.raw_uuid


def test_first_bytes_are_of_the_file_system_that_is_mounted(prog: Program) -> None:
    found = read_media(prog)
    assert found.complete
    seen = set()
    for item in found.value.values():
        for mount in item.mounts or ():
            if item.content is not None:
                assert item.content.kind == mount.type
            seen.add((mount.path, mount.type))
    assert {("/mnt/ext4", "ext4"), ("/mnt/bind", "ext4"), ("/mnt/xfs", "xfs")} <= seen


def test_what_is_mounted_from_a_dm_disk_is_mounted_from_the_namespaces_below(prog: Program) -> None:
    found = {dev: item.mounts for dev, item in read_media(prog).value.items()}
    of_dm = {dev for dev, mounts in found.items() if any(m.path == "/mnt/dm" for m in mounts or ())}
    assert of_dm == {"namespace6.1"}
    assert [m.type for m in found["namespace6.1"] or ()] == ["ext4"]


def test_first_bytes_that_were_not_saved_are_not_known(prog: Program) -> None:
    found = read_media(prog).value["namespace6.1"]
    assert (found.content, found.has_disk) == (None, True)
    out, _ = run_text(prog, "pmem-namespaces namespace6.1 -H -o holds")
    assert out.strip() == "not saved"


def why(prog: Program, dev: str) -> str | None:
    return read_media(prog).value[dev].why


def test_why_a_namespace_is_raw(prog: Program) -> None:
    assert why(prog, "namespace0.1") == "raw: no info block: its place holds other data"
    data = bytearray(prog.read(BLOCK, 4096, True))
    data[0x800] ^= 1
    poke_physical(prog, RAW, bytes(data))
    del prog.cache["drgn_pmem.info_blocks.True"]  # the memory of a dump does not change
    sentence = "raw: the kernel refuses its fsdax info block: the checksum is wrong"
    assert why(prog, "namespace0.1") == sentence
    (listed,) = run_json(prog, "pmem-list -n namespace0.1")
    assert listed["dump"]["why"] == sentence
    (shown,) = run_json(prog, "pmem-namespaces namespace0.1")
    assert shown["dump"]["why"] == sentence


def test_a_namespace_that_was_told_to_be_raw(prog: Program) -> None:
    raw = next(n for n in for_each_namespace(prog).value if n.dev == "namespace0.1")
    sentence = _why(replace(raw, force_raw=True), None, [], True)
    assert sentence is not None
    assert "force_raw is set" in sentence


def test_why_a_namespace_is_disabled_is_in_the_log(
    prog: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert why(prog, "namespace0.2") == (
        "disabled: no driver is bound; the kernel log names no failure"
    )
    said = "nd_pmem namespace0.2: could not reserve region [mem 0x155000000-0x157ffffff]"
    other = "nd_pmem namespace0.21: could not reserve region [mem 0x0-0x1]"
    monkeypatch.setattr(media, "read_log", lambda _: f"[ 1.0] {said}\n[ 2.0] {other}\n".encode())
    assert why(prog, "namespace0.2") == f"disabled: [ 1.0] {said}"

    def lost(_: Program) -> bytes:
        raise NotSaved("no log")

    monkeypatch.setattr(media, "read_log", lost)
    assert why(prog, "namespace0.2") == (
        "disabled: no driver is bound; the kernel log was not saved, so the reason is not known"
    )
    assert not read_media(prog).complete


def test_spare_namespaces_are_no_failure(prog: Program) -> None:
    assert why(prog, "namespace0.3") == "disabled: no capacity: the spare device of its region"
    assert why(prog, "namespace2.0") is None


def test_memory_that_is_online_after_its_namespace_was_destroyed(
    prog: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespaces = for_each_namespace(prog).value
    assert lost_memory(prog).value == []  # dax4.0 has its namespace
    others = [n for n in namespaces if n.dev != "namespace4.0"]
    monkeypatch.setattr(media, "for_each_namespace", lambda _: Partial(others))
    (sentence,) = lost_memory(prog).value
    assert sentence.startswith("0x160000000-0x168000000 is still online")
    assert "System RAM (kmem)" in sentence
    monkeypatch.setattr(
        media,
        "for_each_namespace",
        lambda _: Partial(others, (Problem(cause=Cause.NOT_SAVED, why="namespace4.0"),)),
    )
    assert lost_memory(prog).value == []
    monkeypatch.setattr(media, "for_each_namespace", lambda _: Partial(others))
    _, notes = run_text(prog, "pmem-list -i")
    assert "until the machine reboots" in notes
