# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Crash headers of real dumps, against what the machines' own /proc/iomem and /sys said."""

from collections.abc import Iterator
import dataclasses
from pathlib import Path
import random
import re
import subprocess
import time
from typing import Any

import pytest

import drgn_pmem
from drgn_pmem.analysis.headers.compare import CrashHeaders, read_crash_headers
from drgn_pmem.analysis.headers.differences import DifferenceCause, explain
from drgn_pmem.dumpfile import State
from drgn_pmem.errors import PmemError
from drgn_pmem.formats.elfcorehdr import build_elfcorehdr, parse_elfcorehdr
from drgn_pmem.formats.elfprepare import elfcorehdr_size
from drgn_pmem.partial import Partial
from drgn_pmem.ranges import short_size

from ..samples import OF_KEXEC, Case, recorded_pmem, run_json, run_text

pytestmark = pytest.mark.holds("elfcorehdr")

_CACHE: dict[str, CrashHeaders] = {}


def headers(case: Case) -> CrashHeaders:
    """The crash headers of a case, computed once."""
    key = str(case)
    if key not in _CACHE:
        _CACHE[key] = read_crash_headers(case.prog).value
    return _CACHE[key]


def ram(text: str) -> list[tuple[int, int]]:
    """System RAM lines of /proc/iomem, ends exclusive."""
    found = re.findall(r"^ *([0-9a-f]+)-([0-9a-f]+) : System RAM", text, re.MULTILINE)
    return [(int(start, 16), int(end, 16) + 1) for start, end in found]


def added_ram(case: Case) -> list[tuple[int, int]]:
    """RAM that came after the crash kernel was loaded, by the machine's own records."""
    if not (case.sample.truth / "iomem.loaded").exists():
        return []
    before = ram(case.truth("iomem.loaded"))
    return [span for span in ram(case.truth("iomem")) if span not in before]


def sysfs(case: Case, name: str) -> dict[str, str]:
    lines = case.truth(f"sysfs.{name}").splitlines()
    return dict(line.rstrip("|").split("=", 1) for line in lines if "=" in line)


def updates(case: Case) -> bool:
    """Whether the kernel kept the header up to date: user space was told so."""
    return sysfs(case, "kernel").get("/sys/devices/system/memory/crash_hotplug") == "1"


def is_qemu(case: Case) -> bool:
    return case.format.startswith("qemu")


@pytest.fixture(params=OF_KEXEC, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    """What test_fadump.py does not look at."""
    return request.param


@pytest.fixture(params=[case for case in OF_KEXEC if not is_qemu(case)], ids=str)
def saved(request: pytest.FixtureRequest) -> Case:
    """Dumps that a capture kernel saved."""
    return request.param


@pytest.fixture(params=[case for case in OF_KEXEC if is_qemu(case)], ids=str)
def whole(request: pytest.FixtureRequest) -> Case:
    """Dumps of all memory, by QEMU."""
    return request.param


def test_loader_is_the_one_that_was_used(case: Case) -> None:
    loader = headers(case).loader
    assert loader is not None
    assert loader.value == case.sample.loader


def test_rebuilt_loads_are_those_of_the_dump_but_for_ram_added_later(saved: Case) -> None:
    """And each range that the dump lacks is named, with its cause."""
    result = headers(saved)
    lacking = [] if updates(saved) else added_ram(saved)
    differences = result.differences
    assert [(d.difference.start, d.difference.end) for d in differences] == lacking
    assert all(d.cause is DifferenceCause.ADDED for d in differences)
    assert result.rebuilt is not None
    assert result.implied is not None
    if saved.format == "raw":
        mine = [phdr for phdr in result.rebuilt.loads if (phdr.physical, phdr.end) not in lacking]
        assert [(p.physical, p.virtual, p.memory_size, p.flags) for p in mine] == [
            (p.physical, p.virtual, p.memory_size, p.flags) for p in result.implied.loads
        ]


def test_found_header_is_the_rebuilt_one_byte_for_byte(whole: Case) -> None:
    """kexec_file_load: every byte, but for RAM that was added after loading, which is named."""
    result = headers(whole)
    lacking = [] if updates(whole) else added_ram(whole)
    assert result.found is not None
    assert result.rebuilt is not None
    assert [(d.difference.start, d.difference.end) for d in result.differences] == lacking
    phdrs = tuple(p for p in result.rebuilt.phdrs if (p.physical, p.end) not in lacking)
    assert phdrs == result.found.phdrs
    if whole.sample.loader == "kexec_file_load":
        as_loaded = dataclasses.replace(result.rebuilt, phdrs=phdrs)
        cpus = sum(phdr.what.startswith("CPU") for phdr in phdrs)
        size = elfcorehdr_size(cpus, len(phdrs) - cpus - 2)
        assert result.found.raw is not None
        assert result.found.raw[:size] == build_elfcorehdr(as_loaded, size)
        assert result.identical is (not lacking)
    assert result.identical_but_for_differences is True


def kexec_tools_headers(case: Case) -> list[tuple[int, ...]]:
    """Program headers that kexec-tools said it wrote: type, offset, addresses, sizes."""
    lines = re.findall(r"^.*[Hh]eader: (p_type = .*)$", case.truth("kexec.log"), re.MULTILINE)
    return [tuple(int(n, 16) for n in re.findall(r"= (?:0x)?([0-9a-f]+)", line)) for line in lines]


@pytest.mark.parametrize(
    "case",
    [case for case in OF_KEXEC if is_qemu(case) and case.sample.loader == "kexec_load"],
    ids=str,
)
def test_found_header_is_what_kexec_tools_said_it_wrote(case: Case) -> None:
    """Down to the backup region of x86: the offset of the low megabyte."""
    found = headers(case).found
    assert found is not None
    assert [
        (p.type, p.offset, p.physical, p.virtual, p.file_size, p.memory_size) for p in found.phdrs
    ] == kexec_tools_headers(case)
    backup = any(p.offset != p.physical for p in found.loads)
    assert backup == (case.sample.architecture == "x86_64")


def test_memory_is_said_to_be_missing_where_it_is_missing(case: Case) -> None:
    """RAM added later is in QEMU's dump all the same, only the crash kernel would not save it."""
    added = [d for d in headers(case).differences if d.cause is DifferenceCause.ADDED]
    for item in added:
        assert item.difference.start is not None
        assert item.difference.end is not None
        there = drgn_pmem.coverage_of(case.prog).count(item.difference.start, item.difference.end)
        assert (State.ABSENT in there) == ("it is not in the dump" in item.explanation)
        assert is_qemu(case) == ("the crash kernel would save" in item.explanation)
    if added:
        out, _ = run_text(case.prog, "elfcorehdr")
        (row,) = (
            words
            for words in map(str.split, out.splitlines())
            if words[:2] == ["memory", f"{added[0].difference.start:#x}"] and words[3] == "0x7"
        )
        assert row[-3:] == (["no", "yes", "covered"] if is_qemu(case) else ["-", "yes", "no"])


def test_pmem_that_no_header_has_is_told(case: Case) -> None:
    """As many bytes as the regions had, without what is RAM by now."""
    pmem = recorded_pmem(case)
    as_ram = sum(
        end - start
        for start, end in ram(case.truth("iomem"))
        if any(low <= start < high for low, high in pmem)
    )
    # kexec-tools leaves this RAM out on arm64, as pmem.
    left_out = case.sample.architecture == "arm64" and case.sample.loader == "kexec_load"
    size = sum(end - start for start, end in pmem) - (0 if left_out else as_ram)
    told = [note for note in headers(case).notes if "persistent memory" in note]
    # The list and PF_DEV are one patch.
    patched = "devm_memmap_vmcore_head" in case.truth("kallsyms")
    patched = patched and case.sample.loader == "kexec_file_load"
    # That of a device tree has no resource of this name.
    if patched and ": Persistent Memory" in case.truth("iomem"):
        assert told == []
        return
    (note,) = told
    assert note.startswith(f"{short_size(size)} of persistent memory is not in the header")
    assert (f", {short_size(as_ram)} of it in use as RAM" in note) == left_out
    assert ("kexec-tools" in note) == (case.sample.loader == "kexec_load")
    assert ("RAM and what a resource (/proc/iomem) calls persistent memory" in note) == patched


@pytest.mark.parametrize(
    "case",
    [case for case in OF_KEXEC if is_qemu(case) and updates(case) and added_ram(case)],
    ids=str,
)
def test_header_older_than_the_last_hotplug_event_is_told(case: Case) -> None:
    """The header as it was before the RAM came, which the kernel may replace but did not."""
    result = headers(case)
    assert result.found is not None
    before = [
        phdr for phdr in result.found.phdrs if (phdr.physical, phdr.end) not in added_ram(case)
    ]
    differences = explain(
        case.prog,
        found=dataclasses.replace(result.found, phdrs=tuple(before)),
        rebuilt=result.rebuilt,
        implied=None,
        memory=None,
        reservations=Partial(list(result.reservations)),
        hotplug=result.hotplug,
    ).whole()
    assert [(d.difference.start, d.difference.end) for d in differences] == added_ram(case)
    assert {d.cause for d in differences} == {DifferenceCause.OLDER_THAN_HOTPLUG}
    assert all("older than the last hotplug event" in d.explanation for d in differences)


def test_reservation_is_the_crash_kernels_line_of_iomem(case: Case) -> None:
    (line,) = re.findall(r"^ *([0-9a-f]+)-([0-9a-f]+) : Crash kernel", case.truth("iomem"), re.M)
    (reserved,) = headers(case).reservations
    assert (reserved.name, reserved.start, reserved.end - 1) == (
        "crashk_res",
        *(int(number, 16) for number in line),
    )
    _, err = run_text(case.prog, "elfcorehdr")
    assert f"crashk_res {reserved.start:#x}-{reserved.end:#x}" in err


def test_notes_are_where_sysfs_said(case: Case) -> None:
    """/sys/devices/system/cpu/cpuN/crash_notes and /sys/kernel/vmcoreinfo."""
    rebuilt = headers(case).rebuilt
    assert rebuilt is not None
    cpus = sysfs(case, "cpu")
    *notes, vmcoreinfo = rebuilt.notes
    for cpu, note in enumerate(notes):
        assert note.physical == int(cpus[f"cpu{cpu}/crash_notes"], 16)
        assert note.memory_size == int(cpus[f"cpu{cpu}/crash_notes_size"])
    address, size = sysfs(case, "kernel")["vmcoreinfo"].split()
    assert (vmcoreinfo.physical, vmcoreinfo.memory_size) == (int(address, 16), int(size, 16))


def test_hotplug_nodes_read_as_they_did(case: Case) -> None:
    hotplug = headers(case).hotplug
    assert hotplug is not None
    truth = sysfs(case, "kernel")
    for node in hotplug.sysfs:
        name = node.path if node.path in truth else node.path.rsplit("/", 1)[1]
        assert node.exists is (truth[name] != "")
        if node.value is None and node.path.endswith("crash_elfcorehdr_size"):
            # a constant of the configuration, which these kernels do not hold
            assert not node.exists or node.why.startswith("unknown")
            continue
        assert truth[name] == ("" if node.value is None else str(node.value))
    assert hotplug.updated == (updates(case) and bool(added_ram(case)))


def test_pmem_is_marked_by_the_patched_kernel_only(case: Case) -> None:
    rebuilt = headers(case).rebuilt
    assert rebuilt is not None
    marked = {phdr.physical for phdr in rebuilt.loads if phdr.pmem}
    regions = {
        int(start, 16)
        for start in re.findall(r"^([0-9a-f]+)-.* : Persistent Memory", case.truth("iomem"), re.M)
    }
    # The list and PF_DEV are one patch.
    patched = (
        "devm_memmap_vmcore_head" in case.truth("kallsyms")
        and case.sample.loader == "kexec_file_load"
    )
    assert (marked >= regions) if patched else not marked


def test_output_is_an_elf_file_that_readelf_accepts(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "header"
    run_text(case.prog, f"elfcorehdr --write {file}")
    read = subprocess.run(["readelf", "-lnW", file], capture_output=True, text=True, check=True)
    assert read.stderr == ""
    assert "CORE (Core file)" in read.stdout
    loads = re.findall(r"LOAD +0x[0-9a-f]+ 0x([0-9a-f]+) 0x([0-9a-f]+)", read.stdout)
    rebuilt = headers(case).rebuilt
    assert rebuilt is not None
    assert [(int(v, 16), int(p, 16)) for v, p in loads] == [
        (phdr.virtual, phdr.physical) for phdr in rebuilt.loads
    ]


def test_json_has_the_contract_keys(case: Case) -> None:
    answer = run_json(case.prog, "elfcorehdr")
    assert {"loader", "hotplug", "found", "rebuilt", "implied", "differences"} <= set(answer)
    for phdr in answer["rebuilt"]["phdrs"]:
        assert set(phdr) >= {"type", "physical", "virtual", "offset", "size", "flags", "what"}


def _mutations(data: bytes, used: int, count: int) -> Iterator[bytes]:
    """Headers with one to four bytes changed, where the header is, or cut short."""
    generator = random.Random(5)
    for _ in range(count):
        mutated = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            mutated[generator.randrange(used)] = generator.choice((0, 1, 0x7F, 0xFF, 0x80))
        if generator.random() < 0.05:
            del mutated[generator.randrange(used) :]
        yield bytes(mutated)


def test_two_thousand_mutations_are_answered_or_refused(whole: Case) -> None:
    """A record or one clear error; never a traceback, never over a second."""
    result = headers(whole)
    assert result.found is not None
    assert result.found.raw is not None
    raw = result.found.raw[:4096]
    explained = refused = 0
    messages: set[str] = set()
    slowest = 0.0
    nothing: Any = None
    for number, mutated in enumerate(_mutations(raw, 64 + 56 * len(result.found.phdrs), 2_000)):
        start = time.process_time()
        try:
            found = parse_elfcorehdr(mutated)
        except PmemError as error:
            messages.add(str(error))
            refused += 1
            continue
        if number % 10 == 0:  # the memory map is read anew for each
            explain(
                whole.prog,
                found=found,
                rebuilt=result.rebuilt,
                implied=nothing,
                memory=nothing,
                reservations=Partial(list(result.reservations)),
                hotplug=result.hotplug,
            )
        explained += 1
        slowest = max(slowest, time.process_time() - start)
    assert not any("\n" in message for message in messages)
    assert explained > 200
    assert refused > 20
    assert slowest < 1


@pytest.mark.parametrize(
    "case", [case for case in OF_KEXEC if case.format in ("zlib", "lzo", "raw", "elf")], ids=str
)
def test_implied_header_is_for_the_architecture_of_the_dump(case: Case) -> None:
    """That of a kdump-compressed dump of arm64 was said to be for x86_64."""
    implied = headers(case).implied
    assert implied is not None
    names = {"x86_64": "x86_64", "arm64": "aarch64"}
    assert implied.machine_name == names[case.sample.architecture]


def test_the_same_header_has_the_same_digest(whole: Case) -> None:
    """A segment is larger than the header in it, and its rest is no part of the digest."""
    answer = run_json(whole.prog, "elfcorehdr")
    same = answer["found"]["bytes_sha256"] == answer["rebuilt"]["bytes_sha256"]
    assert same == (answer["found"]["phdrs"] == answer["rebuilt"]["phdrs"])
    if answer["identical"]:
        assert same
