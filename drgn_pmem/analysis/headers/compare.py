# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Crash headers compared
----------------------

Which memory should have been in the dump, and whether it is: the elfcorehdr *found* in memory,
*rebuilt* from the state of the crashed kernel, and *implied* by the dump's own program headers.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, TypeVar

from drgn import Program

from drgn_pmem.analysis.headers.differences import ADDED_AFTER_LOAD, ExplainedDifference, explain
from drgn_pmem.analysis.headers.hotplug import CrashHotplug, crash_hotplug
from drgn_pmem.analysis.headers.memory import system_ram
from drgn_pmem.analysis.headers.rebuild import (
    RebuiltHeader,
    architecture,
    kernel_adds_pmem,
    rebuild_elfcorehdr,
)
from drgn_pmem.analysis.headers.sources import find_elfcorehdr, implied_elfcorehdr
from drgn_pmem.analysis.headers.subject import DumpSubject, Subject, subject_of
from drgn_pmem.analysis.inventory.machine import read_machine
from drgn_pmem.dumpfile import DumpFile, DumpFormat, State, dump_of
from drgn_pmem.errors import NotFound, PmemError
from drgn_pmem.formats.architecture import PPC64
from drgn_pmem.formats.elfcompare import memory_covered
from drgn_pmem.formats.elfcorehdr import CrashHeader, HeaderSource, build_elfcorehdr
from drgn_pmem.kernel.fadump import fw_dump
from drgn_pmem.kernel.iomem import for_each_iomem, for_each_persistent_memory
from drgn_pmem.kernel.kexec import CrashImage, LoadedBy, NamedRange, crash_image, crash_reservations
from drgn_pmem.partial import Cause, Incomplete, NotSaved, Partial, Problem, Problems
from drgn_pmem.ranges import Range, RangeSet, short_size
from drgn_pmem.record import Record

__all__ = ("CrashHeaders", "read_crash_headers")

T = TypeVar("T")

_ONLY_WHOLE = "memory of the crash kernel: a dump by QEMU or libvirt has it, /proc/vmcore never"


class CrashHeaders(Record):
    """The crash header of a dump, from every source."""

    subject: DumpSubject
    """Whose kernel the dump is of."""
    image: CrashImage | None
    hotplug: CrashHotplug | None
    reservations: tuple[NamedRange, ...]
    found: CrashHeader | None
    rebuilt: CrashHeader | None
    implied: CrashHeader | None
    why: dict[HeaderSource, str]
    """For each of them: where it is from, or why it is missing."""
    identical: bool | None
    """Whether the found header is the rebuilt one, byte for byte; None if either is missing."""
    identical_but_for_differences: bool | None
    """Whether it lacks the memory that was added after the load."""
    differences: tuple[ExplainedDifference, ...]
    notes: tuple[str, ...] = ()

    @property
    def loader(self) -> LoadedBy | None:
        """The system call that loaded the crash kernel; None if none is loaded, or it is not
        known."""
        return None if self.image is None else self.image.loader

    def to_json(self) -> dict[str, Any]:
        loader = self.loader
        return {"loader": None if loader is None else loader.value, **super().to_json()}


def read_crash_headers(prog: Program) -> Partial[CrashHeaders]:
    """
    Find, rebuild and imply the crash header of a dump, and explain what differs.

    :raises NotFound: if there is none of the three
    :raises Incomplete: if none of the three could be read
    """
    problems = Problems()
    why: dict[HeaderSource, str] = {}
    notes: list[str] = []
    subject = problems.take(subject_of(prog))
    if subject.subject is Subject.CAPTURE_KERNEL:
        notes.append(
            f"the dump is of a capture kernel ({subject.evidence[0]}): this answer is about that "
            "kernel, not the one that crashed (--crashed opens that one)"
        )
    unread = Problems()
    image = unread.attempt("how the crash kernel was loaded", lambda: crash_image(prog))
    problems.extend(unread)
    found = None
    if image is not None:
        loaded = image
        found = _attempt(problems, why, HeaderSource.FOUND, lambda: _find(prog, loaded))
    elif unread:
        why[HeaderSource.FOUND] = str(next(iter(unread)))
    else:
        why[HeaderSource.FOUND] = "no crash kernel is loaded"
    if unread:
        why[HeaderSource.REBUILT] = str(next(iter(unread)))
        rebuilt = None
    else:
        rebuilt = _attempt(
            problems, why, HeaderSource.REBUILT, lambda: _rebuild(prog, image, found)
        )
    implied = _attempt(problems, why, HeaderSource.IMPLIED, lambda: problems.take(_imply(prog)))
    if found is None and rebuilt is None and implied is None:
        if problems:
            # what cannot be read may have been one
            raise Incomplete(problem for problem in problems if problem.degrades)
        raise NotFound(f"no crash header: {why[HeaderSource.REBUILT]}")
    _say_sources(why, image, found, rebuilt, implied)
    hotplug = None
    if not unread:
        taken = problems.attempt("crash hotplug", lambda: crash_hotplug(prog, image))
        hotplug = None if taken is None else problems.take(taken)
    reservations = crash_reservations(prog)
    reserved = problems.take(reservations)
    not_of_a_header = _why_not_of_a_header(prog, reserved)
    if implied is not None and not_of_a_header:
        notes.append(f"{not_of_a_header}: the implied header is not compared with the others")
    header = None if rebuilt is None else rebuilt.header
    if rebuilt is not None and rebuilt.uncertain_cpus:
        notes.append(
            f"{len(rebuilt.uncertain_cpus)} possible CPUs were not present; whether the loader "
            "wrote notes of them cannot be determined (kernels since 6.6 do)"
        )
    notes += _pmem_left_out(prog, image, header, problems)
    differences = problems.take(
        explain(
            prog,
            found=found,
            rebuilt=header,
            implied=None if not_of_a_header else implied,
            memory=None if rebuilt is None else rebuilt.memory,
            reservations=reservations,
            hotplug=hotplug,
            uncertain_cpus=() if rebuilt is None else rebuilt.uncertain_cpus,
        )
    )
    identical = but_for = None
    if found is not None and header is not None:
        identical = _same_bytes(found, header)
        but_for = _same_bytes(found, _as_loaded(header, differences))
    return problems.partial(
        CrashHeaders(
            subject=subject,
            image=image,
            hotplug=hotplug,
            reservations=tuple(reserved),
            found=found,
            rebuilt=header,
            implied=implied,
            why={source: why[source] for source in HeaderSource},
            identical=identical,
            identical_but_for_differences=but_for,
            differences=tuple(differences),
            notes=tuple(notes),
        )
    )


class _NeverThere(PmemError):
    """What no dump of this kind can have: its absence does not make an answer incomplete."""


def _find(prog: Program, image: CrashImage) -> CrashHeader:
    try:
        return find_elfcorehdr(prog, image)
    except NotSaved as error:
        why = f"{error} ({_ONLY_WHOLE})"
        if error.state is State.ABSENT and not _of_all_memory(dump_of(prog)):
            raise _NeverThere(why) from None
        raise NotSaved(why, address=error.address, state=error.state) from None


def _rebuild(prog: Program, image: CrashImage | None, found: CrashHeader | None) -> RebuiltHeader:
    if image is None and _has_fadump(prog):
        raise _NeverThere("a firmware-assisted dump has its own elfcorehdr: see the fadump command")
    return rebuild_elfcorehdr(prog, image, found)


def _has_fadump(prog: Program) -> bool:
    """
    Whether a firmware-assisted dump is registered or active.

    :raises PmemError: if that cannot be read
    """
    if architecture(prog) != PPC64:
        return False
    try:
        conf = fw_dump(prog)
    except NotFound:
        # not a problem: this kernel has no firmware-assisted dump
        return False
    return conf.registered or conf.active


def _imply(prog: Program) -> Partial[CrashHeader]:
    try:
        return implied_elfcorehdr(prog)
    except NotFound as error:
        raise _NeverThere(str(error)) from None


_NAMES = {
    HeaderSource.FOUND: "crash header in memory",
    HeaderSource.REBUILT: "rebuilt crash header",
    HeaderSource.IMPLIED: "crash header implied by the dump",
}
"""For notes, which may stand among those of other commands."""


def _attempt(
    problems: Problems, why: dict[HeaderSource, str], source: HeaderSource, make: Callable[[], T]
) -> T | None:
    """A header, or None, a problem, and why it is missing."""
    missing = Problems()

    def guarded() -> T | None:
        try:
            return make()
        except _NeverThere as error:
            missing.add(Problem(cause=Cause.FORMAT, why=str(error)))
            return None

    header = missing.attempt("", guarded)
    if header is None:
        why[source] = str(next(iter(missing)))
        problems.extend(missing, _NAMES[source])
    return header


def _say_sources(
    why: dict[HeaderSource, str],
    image: CrashImage | None,
    found: CrashHeader | None,
    rebuilt: RebuiltHeader | None,
    implied: CrashHeader | None,
) -> None:
    if found is not None:
        why[HeaderSource.FOUND] = "in the memory reserved for the crash kernel"
    if rebuilt is not None:
        tools = image is not None and not image.file_mode
        writer = "kexec-tools" if tools else "the kernel"
        why[HeaderSource.REBUILT] = (
            f"as {writer} would write it from the state at the time of the dump"
        )
    if implied is not None:
        where = "page bitmap" if implied.of_bitmap else "program headers"
        why[HeaderSource.IMPLIED] = f"by the dump's {where}"


def _of_all_memory(dump: DumpFile) -> bool:
    """Whether a dump was taken from outside the crashed kernel, of all its memory."""
    return dump.hypervisor or dump.contained is DumpFormat.LIVE


def _why_not_of_a_header(prog: Program, reservations: Sequence[NamedRange]) -> str | None:
    """
    Why a dump was not made from an elfcorehdr; None if it was. A kernel leaves the crash kernel's
    memory out of its elfcorehdr: a dump that has all of it was made by a hypervisor, or live.

    :raises DumpFileError: if the program has no dump file
    """
    dump = dump_of(prog)
    if dump.hypervisor:
        return "the hypervisor wrote the dump's program headers itself"
    main = [item for item in reservations if item.name == "crashk_res"]
    if main and not dump.coverage.count(main[0].start, main[0].end).get(State.ABSENT, 0):
        return (
            "the dump holds the memory reserved for the crash kernel, so it was not made from an "
            "elfcorehdr"
        )
    return None


def _pmem_left_out(
    prog: Program, image: CrashImage | None, rebuilt: CrashHeader | None, problems: Problems
) -> list[str]:
    """Persistent memory that no header of this loader has."""
    if rebuilt is None:
        return []
    marked = problems.take(for_each_persistent_memory(prog), "persistent memory")
    # What iomem does not mark (virtio-pmem, papr) is known from the regions and page maps.
    machine = read_machine(prog)
    least = "" if machine.complete else "at least "
    regions = problems.take(machine, "persistent memory").pmem
    pmem = RangeSet([*(item.range for item in marked), *regions])
    missing = sum(r.size - memory_covered(rebuilt, r.start, r.end) for r in pmem)
    if not missing:
        return []
    # RAM of dax devices, which kexec-tools leaves out on aarch64.
    ram = RangeSet(
        Range(item.start, item.end)
        for item in system_ram(problems.take(for_each_iomem(prog), "memory map"))
    ).intersect(pmem)
    used = sum(r.size - memory_covered(rebuilt, r.start, r.end) for r in ram)
    who, what = "this kernel", "RAM"
    if image is not None and not image.file_mode:
        who = "kexec-tools"
    elif kernel_adds_pmem(prog):
        what = "RAM and what a resource (/proc/iomem) calls persistent memory"
    if used:
        what = "RAM that is no device"
    return [
        f"{least}{short_size(missing)} of persistent memory is not in the header"
        f"{f', {short_size(used)} of it in use as RAM' if used else ''}: "
        f"{who} puts only {what} into it"
    ]


def _as_loaded(rebuilt: CrashHeader, differences: Sequence[ExplainedDifference]) -> CrashHeader:
    """The rebuilt header without the memory that was added after the load."""
    added = {
        (item.difference.start, item.difference.end)
        for item in differences
        if item.between == (HeaderSource.FOUND, HeaderSource.REBUILT)
        and item.cause in ADDED_AFTER_LOAD
    }
    phdrs = tuple(phdr for phdr in rebuilt.phdrs if (phdr.physical, phdr.end) not in added)
    header = dataclasses.replace(rebuilt, phdrs=phdrs)
    return dataclasses.replace(header, raw=build_elfcorehdr(header))


def _same_bytes(found: CrashHeader, rebuilt: CrashHeader) -> bool | None:
    """A segment is larger than its header; the rest is old contents."""
    if found.raw is None or rebuilt.raw is None:
        return None
    return found.raw[: len(rebuilt.raw)] == rebuilt.raw
