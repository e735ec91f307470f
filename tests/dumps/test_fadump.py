# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Firmware-assisted dumps of real guests, against what the guests' kernels printed."""

from collections.abc import Callable
import dataclasses
import itertools
import random
import re
import struct
import time
from typing import Any

from drgn import FaultError, Program
import pytest

import drgn_pmem
from drgn_pmem.analysis.fadump import elf, notes
from drgn_pmem.analysis.fadump.examine import Fadump, read_fadump, scan_for_headers
from drgn_pmem.analysis.fadump.header import FadumpSource
from drgn_pmem.analysis.fadump.notes import crashing_registers
from drgn_pmem.errors import PmemError
from drgn_pmem.kernel.fadump import fadump_layout, fw_dump
from drgn_pmem.kernel.physical import read_physical
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem
from drgn_pmem.ranges import short_size

from ..samples import Case, open_crash, program, run_json, run_text, samples

pytestmark = pytest.mark.holds("fadump", "elfcorehdr")

FADUMP = [
    Case(sample, format)
    for sample in samples().values()
    if sample.loader == "fadump"
    for format in sample.formats
]
SAVED = [case for case in FADUMP if case.format == "raw"]
REGISTERED = [case for case in FADUMP if case.format == "qemu-elf"]

_CACHE: dict[str, Fadump] = {}


def examined(case: Case) -> Fadump:
    """What fadump says of a case, computed once."""
    key = str(case)
    if key not in _CACHE:
        _CACHE[key] = read_fadump(case.prog).value
    return _CACHE[key]


@pytest.fixture(params=FADUMP, ids=str)
def fadump(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=SAVED, ids=str)
def saved(request: pytest.FixtureRequest) -> Case:
    """/proc/vmcore of the capture kernel: the reserve area is left out."""
    return request.param


@pytest.fixture(params=REGISTERED, ids=str)
def registered(request: pytest.FixtureRequest) -> Case:
    """QEMU's dump before the crash: the header is in it."""
    return request.param


def firmware_regions(case: Case) -> dict[str, list[int]]:
    """Numbers of /sys/kernel/debug/powerpc/fadump_region, by the word at the line's start."""
    kernel = "capture" if case.format == "qemu-capture" else "first"
    lines = case.truth(f"{kernel}/fadump_region").splitlines()
    return {
        line.split(":")[0].strip(): [int(n, 16) for n in re.findall(r"0x([0-9a-f]+)", line)]
        for line in lines
        if ":" in line
    }


def test_state_is_what_sysfs_said(fadump: Case) -> None:
    kernel = "capture" if fadump.format == "qemu-capture" else "first"
    truth = dict(
        line.rsplit("/", 1)[1].split(": ", 1)
        for line in fadump.truth(f"{kernel}/fadump.sysfs").splitlines()
    )
    conf = examined(fadump).conf
    assert conf is not None
    assert conf.enabled == (truth["enabled"] == "1")
    assert conf.registered == (truth["registered"] == "1")
    assert conf.reserve_size == int(truth["mem_reserved"])
    assert conf.active == (kernel == "capture")


def test_reserve_area_is_what_the_log_said(fadump: Case) -> None:
    match = re.search(r"Reserved \d+MB of memory at 0x([0-9a-f]+)", fadump.truth("first/dmesg"))
    assert match is not None
    conf = examined(fadump).conf
    assert conf is not None
    assert conf.reserve_start == int(match[1], 16)
    parts = examined(fadump).area
    assert parts[0].start == conf.reserve_start
    assert parts[-1].end == conf.reserve_end
    assert all(one.end == other.start for one, other in itertools.pairwise(parts))


def test_what_the_dump_does_not_have_is_what_the_kernel_had_reserved_for_it(saved: Case) -> None:
    """By sysfs of the crashed kernel."""
    match = re.search(r"mem_reserved: (\d+)", saved.truth("first/fadump.sysfs"))
    assert match is not None
    _, notes = run_text(saved.prog, "pmem-segments")
    assert (
        f"{short_size(int(match[1]))} of RAM is not in the dump: firmware-assisted dump had"
        in notes
    )
    assert "the crashed kernel says firmware-assisted dump" in notes
    assert "RAM 0x" not in notes


def test_boot_regions_are_those_of_the_firmware(fadump: Case) -> None:
    source, destination, size, *_ = firmware_regions(fadump)["DUMP"]
    (region,) = examined(fadump).boot_regions
    assert (region.start, region.destination, region.size) == (source, destination, size)
    cpu = firmware_regions(fadump)["CPU"]
    assert examined(fadump).area[0].what == "CPU state"
    assert (examined(fadump).area[0].start, examined(fadump).area[0].size) == (cpu[0], cpu[2])


def test_where_the_dump_has_the_firmwares_code_is_said(saved: Case) -> None:
    """SLOF's run-time services are in the reserve area, where QEMU's dump of the same machine has
    them: the firmware copies boot memory over them, and then itself over that."""
    found = examined(saved)
    assert found.overlap is not None
    (lost,) = found.overlap.lost
    assert f"{lost.start:#x}-{lost.end:#x} of the dump is firmware code" in " ".join(found.wrong)
    out, _ = run_text(saved.prog, "pmem-diagnose")
    assert "boot with another crashkernel= size" in " ".join(out.split())
    if "qemu-elf" in saved.sample.formats:
        rtas, size = found.overlap.rtas, lost.end - lost.start
        before = Case(saved.sample, "qemu-elf").prog
        code = read_physical(before, rtas.start, size)
        assert read_physical(saved.prog, lost.start, size) == code
        assert read_physical(before, lost.start, size) != code


def test_bootargs_are_at_the_parameter_area(fadump: Case) -> None:
    match = re.search(
        r"\[0x([0-9a-f]+)-.*cmdline append: '(.*)'", fadump.truth("first/fadump_region")
    )
    conf = examined(fadump).conf
    assert conf is not None
    if match is None:
        assert not conf.param_area
        return
    assert conf.param_area == int(match[1], 16)
    text = read_physical(fadump.prog, conf.param_area, 64)
    assert text.split(b"\0")[0] == match[2].encode()


def test_layout_is_that_of_the_generation(fadump: Case) -> None:
    old = fadump.sample.release.startswith("6.1.")
    assert examined(fadump).header.layout == ("FADMPINF" if old else "FADMPSIG")
    assert examined(fadump).source.value == ("reconstructed" if fadump.format == "raw" else "found")
    assert examined(fadump).verdict.compatible


def test_saved_loads_are_the_rebuilt_ones(saved: Case) -> None:
    elf = examined(saved).elf
    assert elf is not None
    assert elf.matches_dump is True
    assert [(p.physical, p.virtual, p.memory_size, p.flags) for p in elf.rebuilt.loads] == [
        (s.physical, s.virtual, s.memory_size, s.flags)
        for s in drgn_pmem.dump_of(saved.prog).segments
    ]


@pytest.mark.parametrize(
    "case", [case for case in FADUMP if case.format == "qemu-capture"], ids=str
)
def test_capture_kernel_built_the_rebuilt_elfcorehdr(case: Case) -> None:
    """And the header that it found agrees with what its dump says of it."""
    elf = examined(case).elf
    assert elf is not None
    assert elf.identical is True
    reconstructed = examined(Case(case.sample, "raw")).header
    header = examined(case).header
    assert header.fields == reconstructed.fields
    assert header.cpus == reconstructed.cpus == (0, 1)
    assert header.regs == reconstructed.regs


def test_registered_header_is_the_reconstructed_one_of_the_same_boot(registered: Case) -> None:
    """QEMU dumped the guest a moment before it crashed."""
    header = examined(registered).header
    later = examined(Case(registered.sample, "raw")).header
    assert not header.crashed
    assert later.crashed
    assert {**header.fields, "crashing_cpu": 0} == {**later.fields, "crashing_cpu": 0}
    elf = examined(registered).elf
    assert elf is not None
    if header.layout == "FADMPINF":
        assert elf.identical is True


def test_stack_is_that_of_the_panic(saved: Case) -> None:
    """The log: sysrq: Trigger a crash; Kernel panic - not syncing: sysrq triggered crash."""
    assert "Kernel panic - not syncing: sysrq triggered crash" in saved.truth("console")
    out, _ = run_text(saved.prog, "fadump --stack")
    names = [line.split()[1] for line in out.splitlines() if line.startswith("#")]
    wanted = ["crash_fadump", "panic", "sysrq_handle_crash", "write_sysrq_trigger", "vfs_write"]
    assert [name for name in names if name in wanted] == wanted
    assert out.startswith(f"CPU {examined(saved).header.crashing_cpu}\n")
    assert "/0x0" not in out  # the size of a symbol that has none


def test_registers_are_where_the_kernel_saves_them(fadump: Case) -> None:
    """In crash_fadump(), from wherever they come; before a crash there are none."""
    fields = run_json(fadump.prog, "fadump")["header"]["fields"]
    if not examined(fadump).header.crashed:
        assert "regs" not in fields
        return
    value = fields["regs"]["value"]
    assert value["function"].startswith("crash_fadump+0x")
    saved = examined(Case(fadump.sample, "raw"))
    (other,) = (field.value for field in saved.fields if field.name == "regs")
    assert value == other
    assert fields["regs"]["from"] == (
        "header"
        if examined(fadump).source is FadumpSource.FOUND
        else "PRSTATUS note of the crashing CPU"
    )
    out, _ = run_text(fadump.prog, "fadump")
    assert f"nip {value['nip']} {value['function']}, r1 {value['r1']}" in out


def test_elfcorehdr_in_memory_is_the_rebuilt_one_byte_for_byte(fadump: Case) -> None:
    """FADMPINF: written at registration, behind the header. FADMPSIG: by the capture kernel, in a
    buffer of its own."""
    elf = examined(fadump).elf
    assert elf is not None
    old = examined(fadump).header.layout == "FADMPINF"
    there = fadump.format == "qemu-capture" or (old and fadump.format == "qemu-elf")
    assert elf.identical is (True if there else None)
    out, _ = run_text(fadump.prog, "fadump")
    assert ("The elfcorehdr in memory is the rebuilt one, byte for byte." in out) == there


def test_stack_of_a_guest_that_has_not_crashed(registered: Case) -> None:
    with pytest.raises(PmemError, match="no CPU has crashed"):
        run_text(registered.prog, "fadump --stack")


def test_json_has_the_contract_keys(fadump: Case) -> None:
    answer = run_json(fadump.prog, "fadump")
    assert set(answer) >= {
        "state", "header", "verdict", "reserve_area", "boot_regions", "elfcorehdr",
    }  # fmt: skip
    assert set(answer["header"]) >= {"source", "layout", "fields"}
    assert all(set(field) >= {"value", "from"} for field in answer["header"]["fields"].values())
    assert "matches_dump" in answer["elfcorehdr"]


def test_text_draws_the_reserve_area(fadump: Case) -> None:
    out, _ = run_text(fadump.prog, "fadump")
    assert "| boot memory 0" in out
    assert "Verdict: the kernel accepts the header" in out
    reconstructed = examined(fadump).source is not FadumpSource.FOUND
    assert ("if it is as reconstructed here" in out) == reconstructed


def test_scan_finds_the_header_without_debug_info(registered: Case) -> None:
    """By its magic, in all memory that the dump holds."""
    prog = drgn_pmem.open(registered.dump)
    found = read_fadump(prog).value
    conf = examined(registered).conf
    assert conf is not None
    assert found.address == conf.fadumphdr_addr
    assert found.header.layout == examined(registered).header.layout
    assert found.header.crashing_cpu == examined(registered).header.crashing_cpu
    assert [address for address, _ in scan_for_headers(prog)] == [conf.fadumphdr_addr]


def poke(prog: Program, address: int, data: bytes) -> None:
    """Change physical memory."""

    def read(_: int, count: int, offset: int, physical: bool) -> bytes:
        return data[offset : offset + count]

    prog.add_memory_segment(address, len(data), read, True)


def reopened(case: Case) -> Program:
    """A program of its own: what a test pokes into it is its own."""
    return open_crash(case.sample, case.dump)


def _set(offset: int, code: str, value: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        struct.pack_into(code, data, offset, value)

    return change


def _swap(data: bytearray) -> None:
    data[:8] = data[:8][::-1]


OLD, NEW = b"FADMPINF", b"FADMPSIG"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set(0, "<Q", int.from_bytes(OLD, "big")), "old magic"),
        (_swap, "endianness"),
        (_set(0, "<Q", 0x1234), "corrupted"),
        (_set(0x20, "<I", 400), "pt_regs size"),
        (_set(0x20, "<I", 0xFFFFFFFF), "pt_regs size"),
        (_set(0x24, "<I", 256), "cpu_mask size"),
    ],
)
def test_damage_gets_the_verdict_of_the_new_kernel(change: Any, reason: str) -> None:
    (case,) = [c for c in REGISTERED if c.sample.release.startswith("6.12")]
    prog = reopened(case)
    address = fw_dump(prog).fadumphdr_addr
    data = bytearray(read_physical(prog, address, fadump_layout(prog).size))
    change(data)
    poke(prog, address, bytes(data))
    found = read_fadump(prog).value
    assert not found.verdict.compatible
    assert found.verdict.reason.value == reason
    assert run_json(prog, "fadump")["verdict"] == found.verdict.words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set(0x08, "<I", 2), "version 2 is not 1"),
        (_set(0x0C, "<I", 31), "crashing_cpu 31 is not in the CPU mask"),
        (_set(0x10, "<Q", 0), "vmcoreinfo_raddr is 0"),
        (_set(0x18, "<Q", 1 << 40), "vmcoreinfo_size 1099511627776 cannot be right"),
    ],
)
def test_damage_that_the_kernel_takes_is_named(change: Any, words: str) -> None:
    (case,) = [c for c in REGISTERED if c.sample.release.startswith("6.12")]
    prog = reopened(case)
    address = fw_dump(prog).fadumphdr_addr
    data = bytearray(read_physical(prog, address, fadump_layout(prog).size))
    change(data)
    poke(prog, address, bytes(data))
    found = read_fadump(prog).value
    assert found.verdict.compatible
    assert any(problem.startswith(words) for problem in found.wrong)


@pytest.mark.parametrize(
    ("change", "compatible", "reason"),
    [
        (_set(0, "<Q", int.from_bytes(NEW, "big")), False, "new magic"),
        (_swap, False, "endianness"),
        (_set(0, "<Q", 0), False, "corrupted"),
    ],
)
def test_damage_gets_the_verdict_of_the_old_kernel(
    change: Any, compatible: bool, reason: str
) -> None:
    (case,) = [c for c in REGISTERED if c.sample.release.startswith("6.1.")]
    prog = reopened(case)
    address = fw_dump(prog).fadumphdr_addr
    data = bytearray(read_physical(prog, address, fadump_layout(prog).size))
    change(data)
    poke(prog, address, bytes(data))
    found = read_fadump(prog).value
    assert (found.verdict.compatible, found.verdict.reason.value) == (compatible, reason)


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        ("boot_memory_size", 1 << 30, "boot_memory_size says"),
        ("boot_mem_dest_addr", 0x10000, "boot memory is copied to 0x10000"),
        ("reserve_dump_area_start", 0x1000_0000, "overlaps the reserve area"),
        ("reserve_dump_area_size", 1 << 40, "has a hole"),
    ],
)
def test_damage_of_the_kernels_own_record_is_named(member: str, value: int, words: str) -> None:
    (case,) = [c for c in REGISTERED if c.sample.release.startswith("6.12")]
    prog = reopened(case)
    place = prog["fw_dump"].member_(member).address_
    assert place is not None

    def read(_: int, count: int, offset: int, physical: bool) -> bytes:
        return struct.pack("<Q", value)[offset : offset + count]

    prog.add_memory_segment(place, 8, read, False)
    assert any(words in problem for problem in read_fadump(prog).value.wrong)


def not_saved(prog: Program, address: int, size: int) -> None:
    """Have memory read as what a dump does not hold."""

    def fault(at: int, count: int, offset: int, physical: bool) -> bytes:
        raise FaultError("taken away", at)

    prog.add_memory_segment(address, size, fault, True)


def test_header_of_another_kernel_is_not_reconstructed_from_the_capture_kernel() -> None:
    """Its crashing_cpu is -1: the registers were said to be "zero until a crash"."""
    (case, *_) = [case for case in FADUMP if case.format == "qemu-capture"]
    prog = reopened(case)
    not_saved(prog, fw_dump(prog).fadumphdr_addr, fadump_layout(prog).size)
    with pytest.raises(NotSaved, match="the dump is of the capture kernel"):
        read_fadump(prog)


def test_damaged_header_of_another_kernel_leaves_its_fields_unknown() -> None:
    (case, *_) = [case for case in FADUMP if case.format == "qemu-capture"]
    prog = reopened(case)
    poke(prog, fw_dump(prog).fadumphdr_addr, b"damaged!" * (fadump_layout(prog).size // 8))
    partial = read_fadump(prog)
    assert not partial.complete
    found = partial.value
    known = {field.name for field in found.fields if field.value is not None}
    assert known <= {"version", "pt_regs_sz", "cpu_mask_sz"}
    assert found.elf is None
    assert any("elfcorehdr" in str(problem) for problem in partial.problems)


@pytest.mark.parametrize("case", REGISTERED, ids=str)
def test_reconstructed_header_has_the_fields_of_the_one_in_memory(case: Case) -> None:
    prog = reopened(case)
    not_saved(prog, fw_dump(prog).fadumphdr_addr, fadump_layout(prog).size)
    partial = read_fadump(prog)
    assert not partial.complete
    assert partial.value.source is FadumpSource.RECONSTRUCTED
    mine = {field.name: field.value for field in partial.value.fields}
    assert mine == {field.name: field.value for field in examined(case).fields}


def test_absurd_region_count_is_one_clear_error() -> None:
    (case,) = [c for c in REGISTERED if c.sample.release.startswith("6.12")]
    prog = reopened(case)
    place = prog["fw_dump"].boot_mem_regs_cnt.address_
    assert place is not None
    prog.add_memory_segment(place, 8, lambda a, n, o, p: (b"\xff" * 8)[o : o + n], False)
    with pytest.raises(PmemError, match="more boot regions than fit"):
        read_fadump(prog)


def test_two_thousand_mutations_are_answered_or_refused(registered: Case) -> None:
    """A record or one clear error; never a traceback, never over a second."""
    prog = reopened(registered)
    address, size = fw_dump(prog).fadumphdr_addr, fadump_layout(prog).size
    original = read_physical(prog, address, size)
    current = bytearray(original)

    def read(_: int, count: int, offset: int, physical: bool) -> bytes:
        return bytes(current[offset : offset + count])

    prog.add_memory_segment(address, size, read, True)
    generator = random.Random(7)
    slowest, answered = 0.0, 0
    messages: set[str] = set()
    for _ in range(2_000):
        current[:] = original
        for _ in range(generator.randint(1, 4)):
            # the registers are opaque: change what is decoded
            current[generator.randrange(0x28)] = generator.randrange(256)
        start = time.process_time()
        try:
            read_fadump(prog).value.to_json()
            answered += 1
        except PmemError as error:
            messages.add(str(error))
        slowest = max(slowest, time.process_time() - start)
    assert answered > 1800
    assert not any("\n" in message for message in messages)
    assert slowest < 1


def test_other_architectures_are_told_so() -> None:
    name = next(n for n, s in samples().items() if s.architecture == "x86_64")
    prog = program(name, next(iter(samples()[name].formats)))
    with pytest.raises(PmemError, match="POWER only"):
        run_text(prog, "fadump")


def test_elfcorehdr_points_to_fadump(saved: Case) -> None:
    """The crash header of a firmware-assisted dump is not one of kexec."""
    answer = run_json(saved.prog, "elfcorehdr")
    assert answer["loader"] is None
    assert answer["rebuilt"] is None
    assert "see the fadump command" in answer["why"]["rebuilt"]
    assert answer["differences"] == []
    assert [phdr["type"] for phdr in answer["implied"]["phdrs"]] == [
        "PT_NOTE",
        *("PT_LOAD" for _ in drgn_pmem.dump_of(saved.prog).segments),
    ]


def test_found_fields_stand_beside_what_they_should_be() -> None:
    """The table showed the reconstructed 384 under a verdict on the found 400."""
    (case,) = [c for c in REGISTERED if c.sample.release.startswith("6.12")]
    prog = reopened(case)
    address = fw_dump(prog).fadumphdr_addr
    data = bytearray(read_physical(prog, address, fadump_layout(prog).size))
    struct.pack_into("<I", data, 0x20, 400)
    poke(prog, address, bytes(data))
    fields = run_json(prog, "fadump")["header"]["fields"]
    assert fields["pt_regs_sz"] == {
        "value": 400, "from": "header", "expected": 384, "differs": True,
    }  # fmt: skip
    assert [name for name, field in fields.items() if field["differs"]] == ["pt_regs_sz"]
    out, _ = run_text(prog, "fadump")
    (line,) = (line for line in out.splitlines() if line.startswith("pt_regs_sz"))
    assert line.split() == ["pt_regs_sz", "400", "header", "384", "yes"]


def test_undamaged_fields_are_what_they_should_be(registered: Case) -> None:
    fields = run_json(registered.prog, "fadump")["header"]["fields"]
    assert not any(field["differs"] for field in fields.values())
    assert sum(field["differs"] is False for field in fields.values()) >= 3


def test_identical_headers_have_the_same_digest(fadump: Case) -> None:
    """identical: true stood beside two digests."""
    elf = run_json(fadump.prog, "fadump")["elfcorehdr"]
    if elf["identical"]:
        assert elf["found"]["bytes_sha256"] == elf["bytes_sha256"]


def test_registers_that_no_stack_pointer_proves_are_not_verified(
    saved: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note in the crashing CPU's place was presented as its registers."""
    assert crashing_registers(saved.prog).whole().verified
    monkeypatch.setattr(notes, "_stack_of", lambda prog, cpu: range(0x1000, 0x2000))
    found = crashing_registers(saved.prog)
    assert not found.value.verified
    assert not found.complete
    answer = run_json(saved.prog, "fadump")
    assert answer["header"]["fields"]["regs"]["from"].endswith("not verified")
    with pytest.raises(PmemError, match="not verified"):
        notes.fadump_stack(saved.prog)


def test_a_task_that_cannot_be_read_verifies_nothing(
    saved: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(prog: Program, cpu: int) -> range:
        raise NotSaved(f"task of CPU {cpu}: the dump left this memory out")

    monkeypatch.setattr(notes, "_stack_of", lost)
    found = crashing_registers(saved.prog)
    assert not found.value.verified
    assert "left this memory out" in str(found.problems[0])


def test_notes_buffer_that_cannot_be_translated_is_not_physical_0(
    registered: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(prog: Program, virtual: int, what: str) -> int:
        raise NotSaved(f"{what}: {virtual:#x}: the page table is excluded")

    conf = dataclasses.replace(fw_dump(registered.prog), cpu_notes_buf_vaddr=0xC000000001000000)
    monkeypatch.setattr(elf, "physical_of", lost)
    with pytest.raises(NotSaved, match=r"cpu_notes_buf_vaddr.*excluded"):
        elf.fadump_elf(registered.prog, conf, examined(registered).header)


def test_memblock_that_cannot_be_read_leaves_the_elfcorehdr_unknown(
    registered: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem(cause=Cause.NOT_SAVED, why="left out", what="memblock.memory")
    monkeypatch.setattr(elf, "for_each_mem_range", lambda prog: Partial([], (problem,)))
    answer = read_fadump(registered.prog)
    assert answer.value.elf is None
    assert not answer.complete
