# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Crash headers compared
----------------------

Which memory should have been in the dump, and is it: the elfcorehdr *found* in memory, *rebuilt*
from the state of the crashed kernel, and *implied* by the dump's own program headers.
"""

from collections.abc import Sequence
import dataclasses
from dataclasses import dataclass
from typing import Any

from drgn import FaultError, Program

from drgn_pmem.analysis.headers.differences import ADDED_AFTER_LOAD, ExplainedDifference, explain
from drgn_pmem.analysis.headers.hotplug import CrashHotplug, crash_hotplug
from drgn_pmem.analysis.headers.memory import CrashMemory
from drgn_pmem.analysis.headers.rebuild import rebuild_elfcorehdr
from drgn_pmem.dumpfile import DumpFile, DumpFormat, State, dump_of
from drgn_pmem.errors import DumpFileError, FormatError, MissingDebugInfo, NotFound, PmemError
from drgn_pmem.formats.clayout import ByteOrder
from drgn_pmem.formats.elfcompare import memory_covered
from drgn_pmem.formats.elfcorehdr import (
    PF_RWX,
    PT_LOAD,
    CrashHeader,
    ProgramHeader,
    build_elfcorehdr,
    imply_elfcorehdr,
    parse_elfcorehdr,
)
from drgn_pmem.kernel.fadump import fw_dump
from drgn_pmem.kernel.iomem import for_each_persistent_memory
from drgn_pmem.kernel.kexec import (
    CrashImage,
    NamedRange,
    crash_image,
    crash_reservations,
    elfcorehdr_segment,
    read_physical,
)

__all__ = (
    "CrashHeaders",
    "crash_headers",
    "find_elfcorehdr",
    "implied_elfcorehdr",
    "note_contents",
)

_MAX_HEADER = 1 << 24
"""Bytes of an elfcorehdr: 300,000 program headers are more than any machine has."""

_MAX_NOTE = 1 << 20
"""Bytes of a note buffer: a vmcoreinfo note of 64 KiB pages is the largest."""

_ONLY_WHOLE = "memory of the crash kernel: a dump by QEMU or libvirt has it, /proc/vmcore never"

_EHDR, _PHDR, _NOTE_HEAD = 64, 56, 12


@dataclass(frozen=True)
class CrashHeaders:
    """The crash header of a dump, from every source that there is."""

    image: CrashImage | None
    hotplug: CrashHotplug | None
    reservations: tuple[NamedRange, ...]
    found: CrashHeader | None
    rebuilt: CrashHeader | None
    implied: CrashHeader | None
    why: dict[str, str]
    """For ``found``, ``rebuilt`` and ``implied``: where it is from, or why it is not there."""
    identical: bool | None
    """Whether the found header is the rebuilt one, byte for byte; None if either is missing."""
    identical_but_for_differences: bool | None
    """Whether it is without the memory that came after the load."""
    differences: tuple[ExplainedDifference, ...]
    notes: tuple[str, ...] = ()

    @property
    def loader(self) -> str | None:
        """``kexec_load`` or ``kexec_file_load``; None if no crash kernel is loaded."""
        return None if self.image is None else self.image.loader

    def to_json(self) -> dict[str, Any]:
        return {
            "loader": self.loader,
            "image": None if self.image is None else self.image.to_json(),
            "reservations": [item.to_json() for item in self.reservations],
            "hotplug": None if self.hotplug is None else self.hotplug.to_json(),
            "found": None if self.found is None else self.found.to_json(),
            "rebuilt": None if self.rebuilt is None else self.rebuilt.to_json(),
            "implied": None if self.implied is None else self.implied.to_json(),
            "why": self.why,
            "identical": self.identical,
            "identical_but_for_differences": self.identical_but_for_differences,
            "differences": [difference.to_json() for difference in self.differences],
            "notes": list(self.notes),
        }


def find_elfcorehdr(prog: Program, image: CrashImage) -> CrashHeader:
    """
    The elfcorehdr as it lies in the memory that is reserved for the crash kernel: only dumps of the
    whole memory (QEMU, libvirt, live) hold it.

    :raises NotFound: if it is not in the dump
    :raises FormatError: if what is there is no crash header
    """
    segment = elfcorehdr_segment(prog, image)
    if segment is None:
        raise NotFound(
            "no segment of the crash image begins with an ELF core header: the memory reserved "
            f"for the crash kernel is overwritten, or not in this dump ({_ONLY_WHOLE})"
        )
    size = min(segment.size, _MAX_HEADER)
    try:
        raw = read_physical(prog, segment.physical, size)
    except NotFound as error:
        raise NotFound(f"{error} ({_ONLY_WHOLE})") from None
    return parse_elfcorehdr(raw, "found")


def implied_elfcorehdr(prog: Program) -> CrashHeader:
    """
    What the dump itself says that the elfcorehdr was.

    :raises NotFound: for a live kernel
    :raises DumpFileError: if the program has no dump file
    """
    dump = dump_of(prog)
    if dump.contained is DumpFormat.LIVE:
        raise NotFound("a live kernel has no dump")
    if dump.contained is DumpFormat.KDUMP:
        return _of_bitmap(dump)
    start = dump.read(0, _EHDR)
    parsed = parse_elfcorehdr(dump.read(0, _headers_end(start)), "implied")
    return imply_elfcorehdr(parsed, join=_was_split(parsed))


def _headers_end(start: bytes) -> int:
    """Bytes of a dump up to the end of its program headers (and of the section header that counts
    them, if they are too many for e_phnum)."""
    if len(start) < _EHDR:
        raise FormatError("the ELF header of the dump is cut short")
    order = "big" if start[5] == 2 else "little"

    def number(offset: int, size: int) -> int:
        return int.from_bytes(start[offset : offset + size], order)  # type: ignore[arg-type]

    count = number(56, 2)
    end = number(32, 8) + count * _PHDR
    if count == 0xFFFF and number(40, 8):
        end = _MAX_HEADER
    return min(max(end, _EHDR), _MAX_HEADER)


def _was_split(header: CrashHeader) -> bool:
    """Whether makedumpfile rewrote the program headers: it cuts them where it leaves pages out."""
    return any(phdr.file_size < phdr.memory_size for phdr in header.loads)


def _of_bitmap(dump: DumpFile) -> CrashHeader:
    """The compressed format has no program headers, only which pages existed."""
    machine = 62
    for number, name in ((62, "EM_X86_64"), (21, "EM_PPC64"), (183, "EM_AARCH64")):
        if dump.machine == name:
            machine = number
    phdrs: list[ProgramHeader] = []
    for item in dump.coverage.extent():
        if item.state is State.ABSENT:
            continue
        if phdrs and phdrs[-1].end == item.start:
            length = phdrs[-1].memory_size + item.end - item.start
            phdrs[-1] = _page_range(phdrs[-1].physical, length)
        else:
            phdrs.append(_page_range(item.start, item.end - item.start))
    order: ByteOrder = "big" if dump.byteorder == "big" else "little"
    return CrashHeader("implied", tuple(phdrs), machine, order)


def _page_range(start: int, size: int) -> ProgramHeader:
    return ProgramHeader(PT_LOAD, PF_RWX, start, 0, start, size, size, what="pages")


def note_contents(prog: Program, header: CrashHeader) -> dict[int, bytes]:
    """
    What lies where the header's notes are, as far as the dump holds it, without the unused rest of
    each buffer.

    :return: Physical address of the note -> its bytes.
    """
    contents = {}
    for phdr in header.notes:
        try:
            data = read_physical(prog, phdr.physical, min(phdr.memory_size, _MAX_NOTE))
        except NotFound:
            continue
        # CPUs that have not crashed have no notes yet
        if end := _notes_end(data, header.byteorder):
            contents[phdr.physical] = data[:end]
    return contents


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


def crash_headers(prog: Program) -> CrashHeaders:
    """
    Find, rebuild and imply the crash header of a dump, and explain what differs.

    :raises PmemError: if there is none of the three
    """
    why: dict[str, str] = {}
    notes: list[str] = []
    image = _attempt(why, "image", lambda: crash_image(prog))
    reservations = tuple(_attempt({}, "reservations", lambda: crash_reservations(prog)) or ())
    found = rebuilt = None
    memory: CrashMemory | None = None
    if image is not None:
        found = _attempt(why, "found", lambda: find_elfcorehdr(prog, image))
    elif "image" not in why:
        why["found"] = "no crash kernel is loaded"
    pair = _attempt(why, "rebuilt", lambda: _rebuild(prog, image))
    if pair is not None:
        rebuilt, memory = pair
    implied = _attempt(why, "implied", lambda: implied_elfcorehdr(prog))
    unread = why.pop("image", None)
    if unread is not None:
        why["found"] = unread
    if found is None and rebuilt is None and implied is None:
        raise NotFound(f"no crash header: {why['rebuilt']}")
    _say_sources(why, image, found, rebuilt, implied)
    hotplug = None
    if unread is None:
        hotplug = _attempt({}, "hotplug", lambda: crash_hotplug(prog, image))
    else:
        notes.append(f"how the crash kernel was loaded is not known: {unread}")
    by_other_means = implied is not None and _holds(prog, reservations)
    if by_other_means:
        notes.append(
            "the dump holds the memory reserved for the crash kernel, so it was not made from an "
            "elfcorehdr: what it implies is not compared"
        )
    notes += _pmem_left_out(prog, image, rebuilt)
    differences = explain(
        prog,
        found=found,
        rebuilt=rebuilt,
        implied=None if by_other_means else implied,
        memory=memory,
        reservations=reservations,
        hotplug=hotplug,
    )
    identical = but_for = None
    if found is not None and rebuilt is not None:
        identical = _same_bytes(found, rebuilt)
        but_for = _same_bytes(found, _as_loaded(rebuilt, differences))
    return CrashHeaders(
        image,
        hotplug,
        reservations,
        found,
        rebuilt,
        implied,
        {key: why[key] for key in ("found", "rebuilt", "implied")},
        identical,
        but_for,
        tuple(differences),
        tuple(notes),
    )


def _rebuild(prog: Program, image: CrashImage | None) -> tuple[CrashHeader, CrashMemory]:
    try:
        conf = fw_dump(prog)
    except PmemError:
        return rebuild_elfcorehdr(prog, image)
    if image is None and (conf.registered or conf.active):
        raise NotFound("a firmware-assisted dump has an elfcorehdr of its own: see fadump")
    return rebuild_elfcorehdr(prog, image)


def _attempt(why: dict[str, str], what: str, make: Any) -> Any:
    try:
        return make()
    except (NotFound, MissingDebugInfo, FormatError, DumpFileError, PmemError, FaultError) as error:
        why[what] = str(error)
        return None


def _say_sources(
    why: dict[str, str],
    image: CrashImage | None,
    found: CrashHeader | None,
    rebuilt: CrashHeader | None,
    implied: CrashHeader | None,
) -> None:
    if found is not None:
        why["found"] = "in the memory reserved for the crash kernel"
    if rebuilt is not None:
        tools = image is not None and not image.file_mode
        writer = "kexec-tools" if tools else "the kernel"
        why["rebuilt"] = f"as {writer} would write it from the state at the time of the dump"
    if implied is not None:
        bitmap = any(phdr.what == "pages" for phdr in implied.phdrs)
        why["implied"] = "by the dump's page bitmap" if bitmap else "by the dump's program headers"


def _holds(prog: Program, reservations: tuple[NamedRange, ...]) -> bool:
    """A kernel leaves the crash kernel's memory out of its elfcorehdr: a dump that has all of it
    was made by a hypervisor, or live."""
    main = [item for item in reservations if item.name == "crashk_res"]
    if not main:
        return False
    try:
        coverage = dump_of(prog).coverage
    except DumpFileError:
        return False
    return coverage.count(main[0].start, main[0].end).get(State.ABSENT, 0) == 0


def _pmem_left_out(
    prog: Program, image: CrashImage | None, rebuilt: CrashHeader | None
) -> list[str]:
    """Persistent memory that no header of this loader has."""
    if rebuilt is None:
        return []
    try:
        pmem = list(for_each_persistent_memory(prog))
    except PmemError:
        return []
    end = missing = 0
    for region in pmem:
        if region.start >= end:  # else a namespace in it, which is marked as well
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
    """The rebuilt header without the memory that came after the load."""
    added = {
        (item.difference.start, item.difference.end)
        for item in differences
        if item.between == ("found", "rebuilt") and item.cause in ADDED_AFTER_LOAD
    }
    phdrs = tuple(phdr for phdr in rebuilt.phdrs if (phdr.physical, phdr.end) not in added)
    header = dataclasses.replace(rebuilt, phdrs=phdrs)
    return dataclasses.replace(header, raw=build_elfcorehdr(header))


def _same_bytes(found: CrashHeader, rebuilt: CrashHeader) -> bool:
    """A segment is larger than the header in it, and its rest is what was there before."""
    if found.raw is None or rebuilt.raw is None:
        return False
    return found.raw[: len(rebuilt.raw)] == rebuilt.raw
