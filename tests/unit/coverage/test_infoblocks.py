# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Info blocks found in synthetic dumps, with nothing but the file."""

from pathlib import Path
from typing import Any

from drgn import Program
import pytest

from drgn_pmem.analysis.inventory import infoblocks
from drgn_pmem.analysis.inventory.foundblock import FoundBlock
from drgn_pmem.analysis.inventory.infoblocks import find_blocks
from drgn_pmem.dumpfile import PF_DEV, State
from drgn_pmem.dumpfile.program import open_program
from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.formats.infoblock import InfoBlock
from drgn_pmem.formats.label import EfiLabel
from drgn_pmem.partial import Cause
from tests.builders import build_infoblock, build_label_area

from ...samples import run_json, run_text
from ..dumpfile.writers import VMCOREINFO, Elf, Load, note

MIB = 1 << 20
BASE = 4 << 30
UUID = "0a57c7e2-5b37-4bd1-8a1f-6c3d0c2b9b11"
NIL = "00000000-0000-0000-0000-000000000000"


def block(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "signature": "NVDIMM_PFN_INFO",
        "uuid": UUID,
        "parent_uuid": NIL,
        "flags": 0,
        "version_major": 1,
        "version_minor": 4,
        "dataoff": 2 * MIB,
        "npfns": 512,
        "mode": 2,
        "align": 2 * MIB,
        "page_size": 4096,
        "page_struct_size": 64,
    }
    return build_infoblock(InfoBlock(**(values | changes)))


def opened(path: Path, *loads: Load) -> Program:
    file = Elf([*loads], note(b"VMCOREINFO", 0, VMCOREINFO)).write(path / "vmcore")
    return open_program(file)[0]


def pmem(size: int, blocks: dict[int, bytes], flags: int = 7 | PF_DEV) -> Load:
    """Memory with info blocks of namespaces that begin at these offsets."""
    data = bytearray(size)
    for offset, content in blocks.items():
        data[offset + 0x1000 : offset + 0x2000] = content
    return Load(BASE, size, bytes(data), flags=flags)


def shown(prog: Program) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = run_json(prog, "pmem-infoblocks")
    return answer


@pytest.mark.parametrize("flags", [7 | PF_DEV, 7], ids=["PF_DEV", "nothing-tells"])
def test_blocks_are_found_with_nothing_but_the_file(tmp_path: Path, flags: int) -> None:
    load = pmem(16 * MIB, {0: block(), 8 * MIB: block(signature="NVDIMM_DAX_INFO")}, flags)
    prog = opened(tmp_path, Load(MIB, MIB, bytes(MIB)), load)
    found = shown(prog)
    assert [(b["kind"], b["start"]) for b in found] == [
        ("fsdax", hex(BASE)),
        ("devdax", hex(BASE + 8 * MIB)),
    ]
    assert found[0]["infoblock"]["uuid"] == UUID
    _, notes = run_text(prog, "pmem-infoblocks")
    assert ("known from PF_DEV" in notes) == (flags != 7)
    assert ("all saved memory at every 2 MiB" in notes) == (flags == 7)


def test_a_damaged_block_is_shown_with_what_is_wrong(tmp_path: Path) -> None:
    damaged = bytearray(block())
    damaged[3000] ^= 1
    prog = opened(tmp_path, pmem(4 * MIB, {0: bytes(damaged)}))
    (found,) = shown(prog)
    assert (found["kind"], found["valid"]) == ("fsdax", False)
    assert [refusal["check"] for refusal in found["refused"]] == ["checksum"]
    assert found["notes"] == ["the kernel refuses it: the checksum is wrong"]
    with pytest.raises(MissingDebugInfo):  # and nothing follows from it
        run_text(prog, "pmem-coverage")


def test_a_block_in_the_data_of_another_is_said_to_be_content(tmp_path: Path) -> None:
    load = pmem(16 * MIB, {0: block(npfns=3584), 4 * MIB: block()})
    outer, inner = shown(opened(tmp_path, load))
    assert outer["notes"] == []
    (text,) = inner["notes"]
    assert "the content of a file" in text


def test_a_block_that_was_left_out_is_not_made_up(tmp_path: Path) -> None:
    load = pmem(4 * MIB, {0: block()})
    load.data, load.file_size = load.data[:0x1000], None
    assert shown(opened(tmp_path, load)) == []


def test_labels_are_found_by_their_signature(tmp_path: Path) -> None:
    label = EfiLabel(
        uuid=UUID,
        name=b"\x1b[31mred",
        flags=0,
        nlabel=1,
        position=0,
        isetcookie=5,
        lbasize=512,
        dpa=0,
        rawsize=MIB,
        slot=3,
    )
    area = build_label_area([label], 128 << 10, 128)
    ram = bytes(3 * 4096) + area + bytes(4096)
    prog = opened(tmp_path, Load(MIB, len(ram), ram))
    (found,) = shown(prog)
    assert found["kind"] == "labels"
    assert found["address"] == hex(MIB + 3 * 4096)
    assert [slot["uuid"] for slot in found["labels"]["slots"]] == [UUID]
    out, _ = run_text(prog, "pmem-infoblocks")
    assert "red" in out
    assert "\x1b" not in out


def test_coverage_by_info_blocks_alone(tmp_path: Path) -> None:
    """Metadata and user data by state; where its struct pages are no one guesses."""
    load = pmem(8 * MIB, {0: block(npfns=1536)})
    load.data = load.data[: 3 * MIB]
    (item,) = run_json(opened(tmp_path, load), "pmem-coverage")
    assert item["metadata"] == {"saved": 2 * MIB}
    assert item["userdata"] == {"saved": MIB, "excluded": 5 * MIB}
    assert item["infoblock"] == {"saved": 4096}
    assert item["location"] is None
    assert item["case"] is None
    assert "unknown" in item["verdict"]


def test_coverage_with_nothing_to_go_by_says_what_to_load(tmp_path: Path) -> None:
    prog = opened(tmp_path, Load(MIB, MIB, bytes(MIB)))
    with pytest.raises(MissingDebugInfo, match="debug info"):
        run_text(prog, "pmem-coverage")


def test_pages_of_pmem_that_no_one_knows_are_not_zero(tmp_path: Path) -> None:
    prog = opened(tmp_path, Load(MIB, MIB, bytes(MIB)))
    usage = run_json(prog, "pmem-usage")
    assert usage["original"] == 256
    assert usage["pmem_metadata"] is None
    assert usage["pmem_userdata"] is None
    out, _ = run_text(prog, "pmem-usage -H -o line,pages")
    assert "pmem userdata pages\t-" in out


def test_a_page_that_ram_ends_in_is_counted_as_makedumpfile_does(tmp_path: Path) -> None:
    """As of the first 640 KiB in the headers of 4.18 to 5.4, which end at 0x9fc00."""
    low, end = 0x1000, 0x9FC00
    prog = opened(tmp_path, Load(low, end - low, bytes(end - low)))
    usage = run_json(prog, "pmem-usage")
    assert (usage["original"], usage["partial_pages"], usage["overlap"]) == (159, 1, 0)
    _, err = run_text(prog, "pmem-usage")
    assert "only the beginning is RAM" in err
    assert f"Original pages 0x{158:016x}" in err
    whole = run_json(opened(tmp_path, Load(MIB, MIB, bytes(MIB))), "pmem-usage")
    assert whole["partial_pages"] == 0


@pytest.mark.parametrize(
    ("minor", "kernel", "own", "unit"),
    [
        (2, 4096, 0, 4096),
        (2, 65536, 0, 65536),  # arm64 and ppc64; the block does not say
        (4, 65536, 4096, 4096),  # made by a kernel with small pages
        (4, None, 65536, 65536),
        (2, None, 0, None),
    ],
)
def test_data_ends_by_the_page_size_of_the_block_or_of_the_kernel(
    minor: int, kernel: int | None, own: int, unit: int | None
) -> None:
    block = InfoBlock(
        signature="NVDIMM_PFN_INFO",
        uuid="",
        parent_uuid="",
        flags=0,
        version_major=1,
        version_minor=minor,
        dataoff=0x200000,
        npfns=16,
        mode=2,
        page_size=own,
    )
    found = FoundBlock(
        start=0x100000000,
        address=0x100001000,
        block=block,
        state=State.SAVED,
        namespace=None,
        page_size=kernel,
    )
    wanted = None if unit is None else (0x100200000, 0x100200000 + 16 * unit)
    assert found.data == wanted


def test_a_search_that_stops_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infoblocks, "_MAX_CANDIDATES", 4)
    prog = opened(tmp_path, pmem(16 * MIB, {0: block(), 12 * MIB: block()}, 7), Load(1, 1, b"x"))
    found = find_blocks(prog)
    assert [b.start for b in found.value.blocks] == [BASE]
    (limit,) = [p for p in found.problems if p.cause is Cause.LIMIT]
    assert "not searched for info blocks" in limit.why
