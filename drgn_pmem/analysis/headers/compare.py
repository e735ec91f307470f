# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Crash headers compared
----------------------

Which memory should have been in the dump, and is it: the elfcorehdr *found* in memory, *rebuilt*
from the state of the crashed kernel, and *implied* by the dump's own program headers.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, TypeVar

from drgn import Program

from drgn_pmem.analysis.headers.differences import ADDED_AFTER_LOAD, ExplainedDifference, explain
from drgn_pmem.analysis.headers.hotplug import CrashHotplug, crash_hotplug
from drgn_pmem.analysis.headers.rebuild import (
    RebuiltHeader,
    architecture,
    rebuild_elfcorehdr,
)
from drgn_pmem.analysis.headers.subject import DumpSubject, Subject, subject_of
from drgn_pmem.dumpfile import DumpFile, DumpFormat, State, dump_of
from drgn_pmem.errors import FormatError, NotFound, PmemError
from drgn_pmem.formats.architecture import PPC64, find_architecture
from drgn_pmem.formats.clayout import ByteOrder
from drgn_pmem.formats.elfcompare import memory_covered
from drgn_pmem.formats.elfcorehdr import (
    PF_RWX,
    PT_LOAD,
    CrashHeader,
    HeaderSource,
    ProgramHeader,
    Role,
    build_elfcorehdr,
    imply_elfcorehdr,
    parse_elfcorehdr,
)
from drgn_pmem.kernel.fadump import fw_dump
from drgn_pmem.kernel.iomem import for_each_persistent_memory
from drgn_pmem.kernel.kexec import (
    CrashImage,
    LoadedBy,
    NamedRange,
    crash_image,
    crash_reservations,
    elfcorehdr_segment,
    read_physical,
)
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems
from drgn_pmem.record import Record

__all__ = (
    "CrashHeaders",
    "crash_headers",
    "find_elfcorehdr",
    "implied_elfcorehdr",
    "note_contents",
)

T = TypeVar("T")

_MAX_HEADER = 1 << 24
"""Bytes of an elfcorehdr: 300,000 program headers are more than any machine has."""

_MAX_NOTE = 1 << 20
"""Bytes of a note buffer: a vmcoreinfo note of 64 KiB pages is the largest."""

_ONLY_WHOLE = "memory of the crash kernel: a dump by QEMU or libvirt has it, /proc/vmcore never"

_EHDR, _PHDR, _NOTE_HEAD = 64, 56, 12


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


def find_elfcorehdr(prog: Program, image: CrashImage) -> CrashHeader:
    """
    The elfcorehdr in the memory that is reserved for the crash kernel: only dumps of the
    whole memory (QEMU, libvirt, live) hold it.

    :raises NotSaved: if it is not in the dump
    :raises NotFound: if no segment of the crash image holds one: it was overwritten
    :raises FormatError: if what is there is no crash header
    """
    segment = elfcorehdr_segment(prog, image)
    if segment is None:
        raise NotFound(
            "no segment of the crash image begins with an ELF core header: the memory reserved "
            "for the crash kernel was overwritten"
        )
    raw = read_physical(prog, segment.physical, min(segment.size, _MAX_HEADER))
    return parse_elfcorehdr(raw, HeaderSource.FOUND)


def implied_elfcorehdr(prog: Program) -> Partial[CrashHeader]:
    """
    The elfcorehdr according to the dump file itself: its program headers, or its page bitmap.

    :raises NotFound: for a live kernel
    :raises DumpFileError: if the program has no dump file
    """
    dump = dump_of(prog)
    if dump.contained is DumpFormat.LIVE:
        raise NotFound("a live kernel has no dump")
    if dump.contained is DumpFormat.IMAGE:
        raise NotFound("raw memory has no program headers")
    if dump.contained is DumpFormat.KDUMP:
        return _of_bitmap(dump)
    start = dump.read(0, _EHDR)
    parsed = parse_elfcorehdr(dump.read(0, _headers_end(start)), HeaderSource.IMPLIED)
    return Partial(imply_elfcorehdr(parsed, join=_was_split(parsed)))


def _headers_end(start: bytes) -> int:
    """Bytes of a dump up to the end of its program headers (and of the section header that counts
    them, if they are too many for e_phnum)."""
    if len(start) < _EHDR:
        raise FormatError("the ELF header of the dump is truncated")
    order: ByteOrder = "big" if start[5] == 2 else "little"

    def number(offset: int, size: int) -> int:
        return int.from_bytes(start[offset : offset + size], order)

    count = number(56, 2)
    end = number(32, 8) + count * _PHDR
    if count == 0xFFFF and number(40, 8):
        end = _MAX_HEADER
    return min(max(end, _EHDR), _MAX_HEADER)


def _was_split(header: CrashHeader) -> bool:
    """Whether makedumpfile rewrote the program headers: it cuts them where it leaves pages out."""
    return any(phdr.file_size < phdr.memory_size for phdr in header.loads)


def _of_bitmap(dump: DumpFile) -> Partial[CrashHeader]:
    """The compressed format has no program headers, only which pages existed."""
    problems = Problems()
    found = find_architecture(dump.machine)
    if found is None:
        why = f"unknown machine {dump.machine!r} in the dump's header"
        problems.add(Problem(cause=Cause.UNSUPPORTED, why=why, what="implied header"))
    phdrs: list[ProgramHeader] = []
    for item in dump.coverage.extent():
        if item.state is State.ABSENT:
            continue
        if phdrs and phdrs[-1].end == item.start:
            length = phdrs[-1].memory_size + item.end - item.start
            phdrs[-1] = _page_range(phdrs[-1].physical, length)
        else:
            phdrs.append(_page_range(item.start, item.end - item.start))
    header = CrashHeader(
        source=HeaderSource.IMPLIED,
        phdrs=tuple(phdrs),
        machine=None if found is None else found.e_machine,
        byteorder="big" if dump.byteorder == "big" else "little",
    )
    return problems.partial(header)


def _page_range(start: int, size: int) -> ProgramHeader:
    return ProgramHeader(
        type=PT_LOAD,
        flags=PF_RWX,
        offset=start,
        physical=start,
        file_size=size,
        memory_size=size,
        role=Role.PAGES,
    )


def note_contents(prog: Program, header: CrashHeader) -> Partial[dict[int, bytes]]:
    """
    The notes that the header points to, as far as the dump holds them, without the unused rest of
    each buffer.

    :return: Physical address of the note -> its bytes. CPUs that have not crashed have no notes.
    """
    problems = Problems()
    contents = {}
    for phdr in header.notes:
        with problems.trying(phdr.what):
            data = read_physical(prog, phdr.physical, min(phdr.memory_size, _MAX_NOTE))
            if end := _notes_end(data, header.byteorder):
                contents[phdr.physical] = data[:end]
    return problems.partial(contents)


def _notes_end(data: bytes, byteorder: ByteOrder) -> int:
    """A note without a name ends a buffer, as ``/proc/vmcore`` reads it."""
    end = 0
    while end + _NOTE_HEAD <= len(data):
        name, description = (
            int.from_bytes(data[end + at : end + at + 4], byteorder) for at in (0, 4)
        )
        size = _NOTE_HEAD + -(-name // 4) * 4 + -(-description // 4) * 4
        if not name or end + size > len(data):
            break
        end += size
    return end


def crash_headers(prog: Program) -> Partial[CrashHeaders]:
    """
    Find, rebuild and imply the crash header of a dump, and explain what differs.

    :raises NotFound: if there is none of the three
    """
    problems = Problems()
    why: dict[HeaderSource, str] = {}
    notes: list[str] = []
    subject = problems.take(subject_of(prog))
    if subject.subject is Subject.CAPTURE_KERNEL:
        notes.append(
            f"the dump is of a capture kernel ({subject.evidence[0]}): this answer is about that "
            "kernel, not the one that crashed"
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
        notes.append(f"{not_of_a_header}: what it implies is not compared")
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
        problems.extend(missing, source.value)
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
        return "the hypervisor wrote the dump's program headers, not from an elfcorehdr"
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
    end = missing = 0
    for region in problems.take(for_each_persistent_memory(prog), "persistent memory"):
        if region.start >= end:  # else a namespace in it, which is marked too
            end = region.end + 1
            missing += region.size - memory_covered(rebuilt, region.start, end)
    if not missing:
        return []
    tools = image is not None and not image.file_mode
    return [
        f"{missing} bytes of persistent memory are not in the header: "
        f"{'kexec-tools puts' if tools else 'this kernel puts'} only RAM into it"
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
