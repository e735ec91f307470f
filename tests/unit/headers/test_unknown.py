# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Crash headers where a part of the crashed kernel cannot be read: nothing is made up from it."""

from types import SimpleNamespace
from typing import Any

from drgn import Program
import pytest

from drgn_pmem.analysis.headers import compare, differences, memory, rebuild
from drgn_pmem.analysis.headers.differences import DifferenceCause, explain
from drgn_pmem.analysis.headers.memory import crash_memory
from drgn_pmem.analysis.headers.rebuild import _counted
from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.formats.architecture import AARCH64, X86_64
from drgn_pmem.formats.elfcorehdr import CrashHeader, HeaderSource, ProgramHeader, Role
from drgn_pmem.kernel import kexec, memblock
from drgn_pmem.kernel.crash_core import CrashNote
from drgn_pmem.kernel.iomem import IORESOURCE_BUSY, IORESOURCE_SYSTEM_RAM, Resource
from drgn_pmem.kernel.kexec import (
    BackupRegion,
    CrashImage,
    KexecSegment,
    LoadedBy,
    NamedRange,
    elfcorehdr_segment,
)
from drgn_pmem.partial import Cause, Incomplete, NotSaved, Partial, Problem, State
from drgn_pmem.ranges import Range, RangeSet

MIB = 1 << 20
RAM = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY
LOST = Problem(cause=Cause.NOT_SAVED, why="the dump left this memory out", what="iomem_resource")


def resource(name: str, start: int, end: int, depth: int = 0) -> Resource:
    """One line of /proc/iomem; *end* is exclusive here."""
    nothing: Any = None
    return Resource(
        name=name,
        start=start,
        end=end - 1,
        flags=RAM,
        desc="IORES_DESC_NONE",
        depth=depth,
        object=nothing,
    )


def header(source: HeaderSource, *spans: tuple[int, int]) -> CrashHeader:
    return CrashHeader(
        source=source,
        phdrs=tuple(
            ProgramHeader(
                type=1,
                flags=7,
                physical=start,
                virtual=0xFFFF888000000000 + start,
                offset=start,
                file_size=end - start,
                memory_size=end - start,
                role=Role.MEMORY,
            )
            for start, end in spans
        ),
        machine=62,
    )


def causes(
    monkeypatch: pytest.MonkeyPatch,
    iomem: Partial[list[Resource]],
    reservations: Partial[list[NamedRange]],
    pmem: Partial[RangeSet] = Partial(RangeSet()),  # noqa: B008
    **headers: CrashHeader,
) -> list[DifferenceCause]:
    monkeypatch.setattr(differences, "for_each_iomem", lambda prog: iomem)
    machine = pmem.map(lambda ranges: SimpleNamespace(pmem=ranges))
    monkeypatch.setattr(differences, "read_machine", lambda prog: machine)
    given: dict[str, Any] = {"found": None, "rebuilt": None, "implied": None, **headers}
    answer = explain(Program(), **given, memory=None, reservations=reservations, hotplug=None)
    assert answer.complete == (iomem.complete and reservations.complete)
    return [item.cause for item in answer.value]


@pytest.mark.parametrize(
    ("pmem", "cause"),
    [
        (Partial(RangeSet([Range(16 * MIB, 32 * MIB)])), DifferenceCause.PMEM_THERE),
        (Partial(RangeSet()), DifferenceCause.REMOVED),
        (Partial(RangeSet(), (LOST,)), DifferenceCause.NOT_KNOWN),
    ],
)
def test_persistent_memory_that_iomem_does_not_mark_was_not_removed(
    monkeypatch: pytest.MonkeyPatch, pmem: Partial[RangeSet], cause: DifferenceCause
) -> None:
    """That of virtio-pmem and papr has no descriptor; regions and page maps have it."""
    iomem = Partial([resource("System RAM", MIB, 8 * MIB)])
    found = header(HeaderSource.FOUND, (MIB, 8 * MIB), (16 * MIB, 32 * MIB))
    rebuilt = header(HeaderSource.REBUILT, (MIB, 8 * MIB))
    assert causes(monkeypatch, iomem, Partial([]), pmem, found=found, rebuilt=rebuilt) == [cause]


@pytest.mark.parametrize("complete", [True, False])
def test_memory_is_removed_only_if_the_memory_map_is_complete(
    monkeypatch: pytest.MonkeyPatch, complete: bool
) -> None:
    """A memory map that could not be read made all of the header "removed after load"."""
    iomem = Partial([resource("System RAM", MIB, 8 * MIB)], () if complete else (LOST,))
    found = header(HeaderSource.FOUND, (MIB, 8 * MIB), (16 * MIB, 32 * MIB))
    rebuilt = header(HeaderSource.REBUILT, (MIB, 8 * MIB))
    assert causes(monkeypatch, iomem, Partial([]), found=found, rebuilt=rebuilt) == [
        DifferenceCause.REMOVED if complete else DifferenceCause.NOT_KNOWN
    ]


def test_reservations_that_cannot_be_read_explain_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    iomem = Partial([resource("System RAM", MIB, 64 * MIB)])
    found = header(HeaderSource.FOUND, (MIB, 64 * MIB))
    rebuilt = header(HeaderSource.REBUILT, (MIB, 32 * MIB))
    reservations: Partial[list[NamedRange]] = Partial([], (LOST,))
    assert causes(monkeypatch, iomem, reservations, found=found, rebuilt=rebuilt) == [
        DifferenceCause.NOT_KNOWN
    ]


@pytest.mark.parametrize("lost", ["for_each_iomem", "crash_reservations"])
def test_no_header_is_rebuilt_from_a_part(monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    """A rebuilt header that lacks what could not be read would be compared as if it was whole."""
    monkeypatch.setattr(memory, "keeps_backup_region", lambda prog: False)
    for name in ("for_each_iomem", "crash_reservations"):
        problems = (LOST,) if name == lost else ()
        monkeypatch.setattr(memory, name, lambda prog, problems=problems: Partial([], problems))
    with pytest.raises(Incomplete, match="left this memory out"):
        crash_memory(Program(), X86_64, None, pmem=False)


def test_memblock_that_cannot_be_read_rebuilds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "for_each_mem_range", lambda prog: Partial([], (LOST,)))
    monkeypatch.setattr(memory, "crash_reservations", lambda prog: Partial([]))
    with pytest.raises(Incomplete):
        crash_memory(Program(), AARCH64, None, pmem=False)


def test_without_symbols_no_kernel_is_said_to_have_freed_memblock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Said "this kernel gave memblock away after boot"."""
    variable = SimpleNamespace(address_=0xC000000001000000)
    monkeypatch.setattr(memblock, "find_variable", lambda prog, name, module: variable)
    with pytest.raises(MissingDebugInfo, match="symbol table of vmlinux is not loaded"):
        memblock.for_each_mem_range(Program())


def image(loader: LoadedBy, backup: BackupRegion | None = None) -> CrashImage:
    nothing: Any = None
    return CrashImage(
        loader=loader,
        start=0,
        segments=(KexecSegment(index=0, physical=48 * MIB, size=4096, content_size=4096),),
        elf_load_addr=None,
        hotplug_support=None,
        hotplug_member=None,
        elfcorehdr_index=None,
        elfcorehdr_updated=None,
        backup=backup,
        object=nothing,
    )


def test_a_segment_that_cannot_be_read_may_be_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for one that holds no header before."""

    def read(prog: Program, physical: int, size: int) -> bytes:
        raise NotSaved(f"physical {physical:#x} is excluded", state=State.EXCLUDED)

    monkeypatch.setattr(kexec, "read_physical", read)
    with pytest.raises(NotSaved, match="0x3000000 is excluded"):
        elfcorehdr_segment(Program(), image(LoadedBy.TOOLS))


def notes(*present: bool) -> list[CrashNote]:
    return [
        CrashNote(cpu=cpu, physical=0x1000 * (cpu + 1), size=368, present=there)
        for cpu, there in enumerate(present)
    ]


def with_notes(*places: int) -> CrashHeader:
    phdrs = tuple(
        ProgramHeader(
            type=4,
            flags=0,
            physical=place,
            offset=place,
            file_size=368,
            memory_size=368,
            role=Role.CPU_NOTES,
            number=number,
        )
        for number, place in enumerate(places)
    )
    return CrashHeader(source=HeaderSource.FOUND, phdrs=phdrs, machine=183)


def test_possible_cpus_are_no_cpus_that_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """arm64 between 6.6 and 6.8: the kernel writes notes of all possible CPUs and has no mark of
    it; they were "removed after load"."""
    kimage = SimpleNamespace(has_member=lambda name: False)
    monkeypatch.setattr(rebuild, "find_type", lambda prog, name, module: kimage)
    cpus = notes(True, True, False, False)
    found = with_notes(0x1000, 0x2000, 0x3000, 0x4000)
    counted, uncertain = _counted(Program(), cpus, False, found)
    assert counted == cpus
    assert uncertain == cpus[2:]
    # one of the two is not there: an older kernel, and a CPU that did go away
    counted, uncertain = _counted(Program(), cpus, False, with_notes(0x1000, 0x2000, 0x3000))
    assert (counted, uncertain) == (cpus[:2], [])
    # no header to see: present CPUs, and that this is not certain
    assert _counted(Program(), cpus, False, None) == (cpus[:2], cpus[2:])


def test_kexec_file_load_before_5_5_keeps_low_memory_in_a_backup_region(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As seen on 5.4: 0x1000-0x9fc00 is in the header, and read from where it was copied to."""
    iomem = [
        resource("System RAM", 0x1000, 0x9FC00),
        resource("System RAM", MIB, 64 * MIB),
    ]
    reserved = [NamedRange(name="crashk_res", start=16 * MIB, end=32 * MIB)]
    monkeypatch.setattr(memory, "for_each_iomem", lambda prog: Partial(iomem))
    monkeypatch.setattr(memory, "crash_reservations", lambda prog: Partial(reserved))
    monkeypatch.setattr(memory, "keeps_backup_region", lambda prog: True)
    backup = BackupRegion(start=0x1000, size=0x9EC00, physical=24 * MIB)
    ranges = crash_memory(Program(), X86_64, image(LoadedBy.FILE, backup), pmem=False).ranges
    assert [(item.start, item.end, item.offset) for item in ranges] == [
        (0x1000, 0x9FC00, 24 * MIB),
        (MIB, 16 * MIB, None),
        (32 * MIB, 64 * MIB, None),
    ]


@pytest.mark.parametrize("hypervisor", [True, False])
def test_a_hypervisors_dump_without_crash_kernel_is_not_made_from_a_header(
    monkeypatch: pytest.MonkeyPatch, hypervisor: bool
) -> None:
    """QEMU wrote its headers: no "removed after load", no "only the loader" of them."""
    coverage = SimpleNamespace(count=lambda start, end: {State.ABSENT: end - start})
    dump = SimpleNamespace(hypervisor=hypervisor, coverage=coverage)
    monkeypatch.setattr(compare, "dump_of", lambda prog: dump)
    why = compare._why_not_of_a_header(Program(), [])
    assert (why is not None) == hypervisor
