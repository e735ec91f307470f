# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
kexec
-----

The crash kernel as it was loaded, and everything of the crashed kernel that an elfcorehdr is built
from: reservations, per-CPU notes, the vmcoreinfo note, the kernel's own place.

Sources: ``struct kimage`` in include/linux/kexec.h, kernel/kexec_core.c, kernel/crash_core.c
(before 6.9 kernel/kexec_file.c), arch/x86/kernel/crash.c. ``elf_headers`` is of no help: every
architecture frees it after the load; what is left is ``elf_load_addr`` and the segments.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from drgn import FaultError, Object, Program, sizeof
from drgn.helpers.linux.cpumask import for_each_possible_cpu, for_each_present_cpu
from drgn.helpers.linux.percpu import per_cpu_ptr

from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.errors import DumpFileError, MissingDebugInfo, NotFound
from drgn_pmem.kernel.debuginfo import find_type, find_variable, has_member
from drgn_pmem.kernel.pagetable import kernel_coverage, translate
from drgn_pmem.partial import NotSaved, WalkError

__all__ = (
    "PPC64_DIRECT_MAP",
    "CrashImage",
    "CrashNote",
    "KernelText",
    "KexecSegment",
    "NamedRange",
    "crash_image",
    "crash_notes",
    "crash_reservations",
    "elfcorehdr_segment",
    "kernel_text",
    "read_physical",
    "vmcoreinfo_note",
)

PPC64_DIRECT_MAP = 0xC000000000000000
"""``PAGE_OFFSET`` of 64-bit POWER, whichever MMU is in use."""

_ELF_MAGIC = b"\x7fELF"
_ET_CORE = 4

_NOTE_HEAD = 12
_VMCOREINFO_NAME = 12
"""``"VMCOREINFO\\0"``, padded to four."""


@dataclass(frozen=True)
class NamedRange:
    """A physical range with a name."""

    name: str
    start: int
    """First byte."""
    end: int
    """End, exclusive."""

    @property
    def size(self) -> int:
        """bytes"""
        return self.end - self.start

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "start": f"{self.start:#x}", "size": self.size}


@dataclass(frozen=True)
class KexecSegment:
    """One ``struct kexec_segment`` of the crash image."""

    index: int
    physical: int
    """Where it is loaded."""
    size: int
    """``memsz``, bytes"""
    content_size: int
    """``bufsz``: bytes that were copied, the rest is zero."""

    def to_json(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "physical": f"{self.physical:#x}",
            "size": self.size,
            "content_size": self.content_size,
        }


@dataclass(frozen=True)
class CrashImage:
    """``kexec_crash_image``: the crash kernel as it was loaded."""

    file_mode: bool
    """Loaded by kexec_file_load: the kernel wrote the elfcorehdr; else kexec-tools did."""
    start: int
    """Entry point, physical."""
    segments: tuple[KexecSegment, ...]
    elf_load_addr: int | None
    """Physical address of the elfcorehdr (kexec_file_load only)."""
    hotplug_support: bool | None
    """May the kernel update the elfcorehdr; None: it has no crash hotplug."""
    hotplug_member: str | None
    """What this kernel calls that bit: ``hotplug_support`` or ``update_elfcorehdr``."""
    elfcorehdr_index: int | None
    """Segment of the elfcorehdr; -1 if the kernel has not looked for it yet."""
    elfcorehdr_updated: bool | None
    """Whether a hotplug event has replaced the elfcorehdr since the load."""
    backup_start: int | None
    """ppc64: where the first 64 KiB of memory are saved."""
    object: Object = field(repr=False, compare=False)
    """``struct kimage *``"""

    @property
    def loader(self) -> str:
        """The system call that loaded it."""
        return "kexec_file_load" if self.file_mode else "kexec_load"

    def to_json(self) -> dict[str, Any]:
        return {
            "loader": self.loader,
            "start": f"{self.start:#x}",
            "segments": [segment.to_json() for segment in self.segments],
            "elf_load_addr": None if self.elf_load_addr is None else f"{self.elf_load_addr:#x}",
            "hotplug_support": self.hotplug_support,
            "elfcorehdr_index": self.elfcorehdr_index,
            "elfcorehdr_updated": self.elfcorehdr_updated,
        }


@dataclass(frozen=True)
class CrashNote:
    """Where the registers of a CPU are saved when it crashes."""

    cpu: int
    physical: int | None
    """None if the address could not be translated."""
    size: int
    """``sizeof(note_buf_t)``, bytes"""
    present: bool
    """In ``cpu_present_mask`` when the dump was taken."""
    reason: str | None = None
    """Why the address could not be translated."""

    def to_json(self) -> dict[str, Any]:
        return {
            "cpu": self.cpu,
            "physical": None if self.physical is None else f"{self.physical:#x}",
            "size": self.size,
            "present": self.present,
        }


@dataclass(frozen=True)
class KernelText:
    """The kernel image in memory, ``_text`` to ``_end``."""

    virtual: int
    physical: int
    size: int
    """bytes"""


def crash_image(prog: Program) -> CrashImage | None:
    """
    The loaded crash kernel, None if there is none.

    :raises MissingDebugInfo: without debug info of vmlinux, or if this kernel has no kexec
    :raises WalkError: if the image cannot be read
    """
    find_type(prog, "struct kimage", "vmlinux")
    try:
        image = find_variable(prog, "kexec_crash_image", "vmlinux").read_()
        if not image:
            return None
        _require_saved(prog, image.value_(), image.type_.type.size or 1, "kexec_crash_image")
        return _image(image)
    except FaultError as error:
        raise WalkError(f"kexec_crash_image: {error}") from None


def _image(image: Object) -> CrashImage:
    segments = tuple(_segments(image))
    member = next(
        # 6.6 had update_elfcorehdr; "crash: add a new kexec flag for hotplug support" (6.10)
        # renamed it
        (name for name in ("hotplug_support", "update_elfcorehdr") if has_member(image, name)),
        None,
    )
    hotplug: bool | None = None
    if member is not None:
        hotplug = bool(image.member_(member))
    file_mode = has_member(image, "file_mode") and bool(image.file_mode)
    if member == "update_elfcorehdr" and file_mode:
        # 6.6's crash_check_update_elfcorehdr() takes kexec_file_load as permission.
        hotplug = True
    backup = None
    if has_member(image, "arch") and has_member(image.arch, "backup_start"):
        backup = image.arch.backup_start.value_()
    return CrashImage(
        file_mode=file_mode,
        start=image.start.value_(),
        segments=segments,
        elf_load_addr=_elf_load_addr(image) if file_mode else None,
        hotplug_support=hotplug,
        hotplug_member=member,
        elfcorehdr_index=_optional(image, "elfcorehdr_index"),
        elfcorehdr_updated=_optional_bool(image, "elfcorehdr_updated"),
        backup_start=backup,
        object=image,
    )


def _segments(image: Object) -> Iterator[KexecSegment]:
    slots = image.segment.type_.length or 0
    count = image.nr_segments.value_()
    if count > slots:
        raise WalkError(f"kexec_crash_image: {count} segments, it has room for {slots}")
    for index in range(count):
        segment = image.segment[index]
        yield KexecSegment(
            index, segment.mem.value_(), segment.memsz.value_(), segment.bufsz.value_()
        )


def _elf_load_addr(image: Object) -> int | None:
    # It moved out of kimage_arch to struct kimage when it became generic (5.15).
    if has_member(image, "elf_load_addr"):
        return int(image.elf_load_addr)
    if has_member(image, "arch") and has_member(image.arch, "elf_load_addr"):
        return int(image.arch.elf_load_addr)
    return None


def _optional(image: Object, member: str) -> int | None:
    return int(image.member_(member)) if has_member(image, member) else None


def _optional_bool(image: Object, member: str) -> bool | None:
    return bool(image.member_(member)) if has_member(image, member) else None


def _require_saved(prog: Program, virtual: int, size: int, what: str) -> None:
    """Refuse to decode what the dump left out: drgn reads that as zeroes."""
    try:
        parts = kernel_coverage(prog, virtual, size)
    except DumpFileError:
        return  # memory that was given to drgn segment by segment: none of it is zero-filled
    for start, _, state in parts:
        if state is not State.SAVED:
            message = f"{what}: {start:#x} is {state.value}"
            raise NotSaved(message, address=start, state=state)


def read_physical(prog: Program, physical: int, size: int) -> bytes:
    """
    Bytes of physical memory, only if the dump holds all of them.

    :raises NotFound: saying what of the range is missing and why
    """
    if size <= 0 or physical < 0 or physical + size > 1 << 64:
        raise NotFound(f"physical {physical:#x}, {size} bytes: no such memory")
    try:
        for part in coverage_of(prog).ranges(physical, physical + size):
            if part.state is not State.SAVED:
                raise NotFound(f"physical {part.start:#x} is {part.state.value} in this dump")
    except DumpFileError:
        pass
    try:
        return prog.read(physical, size, physical=True)
    except (FaultError, ValueError, OverflowError) as error:
        raise NotFound(f"physical {physical:#x}: {error}") from None


def crash_reservations(prog: Program) -> list[NamedRange]:
    """
    Memory that is set aside for the crash kernel, in the order in which it is cut out of the
    elfcorehdr: ``crashk_res``, ``crashk_low_res`` and (since 6.17) the CMA ranges.
    """
    found = []
    for name in ("crashk_res", "crashk_low_res"):
        try:
            resource = prog[name]
        except LookupError:
            continue
        if resource.end:
            found.append(NamedRange(name, resource.start.value_(), resource.end.value_() + 1))
    try:
        ranges, count = prog["crashk_cma_ranges"], prog["crashk_cma_cnt"].value_()
    except LookupError:
        return found
    for index in range(min(count, ranges.type_.length or 0)):
        cma = ranges[index]
        name = f"crashk_cma_ranges[{index}]"
        found.append(NamedRange(name, cma.start.value_(), cma.end.value_() + 1))
    return found


def crash_notes(prog: Program) -> list[CrashNote]:
    """
    Per-CPU note buffers of all possible CPUs, by CPU number.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    notes = find_variable(prog, "crash_notes", "vmlinux")
    size = sizeof(find_type(prog, "note_buf_t", "vmlinux"))
    present = set(for_each_present_cpu(prog))
    return [
        _crash_note(prog, notes, cpu, size, cpu in present) for cpu in for_each_possible_cpu(prog)
    ]


def _crash_note(prog: Program, notes: Object, cpu: int, size: int, present: bool) -> CrashNote:
    try:
        physical = translate(prog, per_cpu_ptr(notes, cpu).value_())
    except (FaultError, WalkError) as error:
        return CrashNote(cpu, None, size, present, str(error))
    return CrashNote(cpu, physical, size, present)


def vmcoreinfo_note(prog: Program) -> NamedRange:
    """
    The vmcoreinfo note. Its size is fixed by PAGE_SIZE (``VMCOREINFO_NOTE_SIZE`` in
    include/linux/vmcore_info.h), however little of it is used.

    :raises NotFound: if the kernel has not set it up
    :raises NotSaved: if the pointer to it cannot be read or translated
    """
    variable = find_variable(prog, "vmcoreinfo_note", "vmlinux")
    try:
        note = variable.value_()
    except FaultError as error:
        raise NotSaved(f"vmcoreinfo_note: {error}", address=variable.address_) from None
    if not note:
        raise NotFound("vmcoreinfo_note: the kernel has not set it up")
    physical = translate(prog, note)
    size = 2 * _NOTE_HEAD + _VMCOREINFO_NAME + int(prog["PAGE_SIZE"])
    return NamedRange("vmcoreinfo", physical, physical + size)


def kernel_text(prog: Program) -> KernelText:
    """
    Where the kernel image is.

    :raises MissingDebugInfo: without the symbol table of vmlinux
    :raises NotSaved: if its address cannot be translated
    """
    start, end = _address(prog, "_text"), _kernel_end(prog)
    if start is None or end is None or end <= start:
        raise MissingDebugInfo(
            "_text and _end are not known: no debug info of the kernel is loaded (-s VMLINUX)"
        )
    return KernelText(start, translate(prog, start), end - start)


def _address(prog: Program, name: str) -> int | None:
    try:
        return prog.symbol(name).address
    except LookupError:
        return None


def _kernel_end(prog: Program) -> int | None:
    """
    ``_end`` is past the last byte of the kernel (on arm64 far past: the page tables of early boot
    lie between, in no section), so drgn counts it to no module and leaves it where it was linked
    (KASLR): relocate it as the kernel's module is.
    """
    end = _address(prog, "_end")
    if end is None:
        return None
    try:
        module = prog.main_module()
        found, bias = module.address_range, module.debug_file_bias or 0
    except LookupError:
        return end
    if found is None or found[0] <= end <= found[1]:
        return end
    return (end + bias) % (1 << 64)


def elfcorehdr_segment(
    prog: Program, image: CrashImage, *, search: bool = True
) -> KexecSegment | None:
    """
    The segment of the crash image that holds the elfcorehdr.

    kexec_file_load leaves its address in the image; after kexec_load the kernel itself knows it
    only once a hotplug event made it look, so the segments are searched for an ELF core header,
    which needs a dump that holds the crash kernel's reservation.

    :param search: Read the segments if nothing else tells.
    """
    if image.elf_load_addr:
        for segment in image.segments:
            if segment.physical == image.elf_load_addr:
                return segment
        return None
    if image.elfcorehdr_index is not None and 0 <= image.elfcorehdr_index < len(image.segments):
        return image.segments[image.elfcorehdr_index]
    if search:
        for segment in image.segments:
            if _is_core_header(prog, segment):
                return segment
    return None


def _is_core_header(prog: Program, segment: KexecSegment) -> bool:
    try:
        start = read_physical(prog, segment.physical, 20)
    except NotFound:
        return False
    # The kernel image itself may be an ELF file too: the type tells.
    return start[:4] == _ELF_MAGIC and _ET_CORE in (
        int.from_bytes(start[16:18], "little"),
        int.from_bytes(start[16:18], "big"),
    )
