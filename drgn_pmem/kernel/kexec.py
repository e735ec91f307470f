# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
kexec
-----

The loaded crash kernel, and everything in the crashed kernel that an elfcorehdr is built from:
reservations, per-CPU notes, the vmcoreinfo note, the place of the kernel image.

Sources: ``struct kimage`` in include/linux/kexec.h, kernel/kexec_core.c, kernel/crash_core.c
(before 6.9 kernel/kexec_file.c), arch/x86/kernel/crash.c. ``elf_headers`` is not read: every
architecture frees it after the load; what is left is ``elf_load_addr`` and the segments.
"""

from collections.abc import Iterator
import enum
from typing import Any

from drgn import FaultError, Object, Program, sizeof
from drgn.helpers.linux.cpumask import for_each_possible_cpu, for_each_present_cpu
from drgn.helpers.linux.percpu import per_cpu_ptr

from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.errors import MissingDebugInfo, NotFound
from drgn_pmem.kernel.debuginfo import (
    find_type,
    find_variable,
    has_member,
    has_variable,
    member,
    optional_member,
)
from drgn_pmem.kernel.kmod import symbol_address
from drgn_pmem.kernel.memory import memory_of
from drgn_pmem.kernel.pagetable import translate
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems, WalkError
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "PPC64_DIRECT_MAP",
    "BackupRegion",
    "CrashImage",
    "CrashNote",
    "KernelText",
    "KexecSegment",
    "LoadedBy",
    "NamedRange",
    "crash_image",
    "crash_notes",
    "crash_reservations",
    "elfcorehdr_segment",
    "keeps_backup_region",
    "kernel_text",
    "physical_of",
    "read_physical",
    "vmcoreinfo_note",
)

PPC64_DIRECT_MAP = 0xC000000000000000
"""``PAGE_OFFSET`` of 64-bit POWER, whichever MMU is in use."""

_PPC64_BACKUP_SIZE = 1 << 16
"""``BACKUP_SRC_SIZE``: the capture kernel needs the first 64 KiB, so they are copied away."""

_ELF_MAGIC = b"\x7fELF"
_ET_CORE = 4

_NOTE_HEAD = 12
_VMCOREINFO_NAME = 12
"""``"VMCOREINFO\\0"``, padded to four."""


class NamedRange(Record):
    """A physical range with a name."""

    name: str
    start: int = shown(Show.ADDRESS)
    """First byte."""
    end: int = shown(Show.ADDRESS, json=False)
    """End, exclusive."""

    @property
    def size(self) -> int:
        """bytes"""
        return self.end - self.start

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "size": self.size}


class KexecSegment(Record):
    """One ``struct kexec_segment`` of the crash image."""

    index: int
    physical: int = shown(Show.ADDRESS)
    """Where it is loaded."""
    size: int = shown(Show.SIZE)
    """``memsz``, bytes"""
    content_size: int = shown(Show.SIZE)
    """``bufsz``: bytes that were copied, the rest is zero."""


class BackupRegion(Record):
    """Low memory that the crash kernel needs; it is copied away before that starts."""

    start: int = shown(Show.ADDRESS)
    """Where it was."""
    size: int = shown(Show.SIZE)
    """bytes"""
    physical: int = shown(Show.ADDRESS)
    """Where it is copied to."""


class LoadedBy(enum.Enum):
    """Who wrote the crash header."""

    FILE = "kexec_file_load"
    """The kernel, in this system call."""
    TOOLS = "kexec_load"
    """kexec-tools, which handed it to this system call."""


class CrashImage(Record):
    """``kexec_crash_image``: the crash kernel as it was loaded."""

    loader: LoadedBy
    start: int = shown(Show.ADDRESS)
    """Entry point, physical."""
    segments: tuple[KexecSegment, ...]
    elf_load_addr: int | None = shown(Show.ADDRESS)
    """Physical address of the elfcorehdr (kexec_file_load only)."""
    hotplug_support: bool | None
    """Whether the kernel may update the elfcorehdr; None without crash hotplug."""
    hotplug_member: str | None = shown(json=False)
    """This kernel's name of that bit: ``hotplug_support`` or ``update_elfcorehdr``."""
    elfcorehdr_index: int | None
    """Segment of the elfcorehdr; -1 if the kernel has not looked for it yet."""
    elfcorehdr_updated: bool | None
    """Whether a hotplug event has replaced the elfcorehdr since the load."""
    backup: BackupRegion | None = None
    """ppc64, and x86_64 before 5.5 (kexec_file_load only)."""
    object: Object = shown(Show.HIDDEN)
    """``struct kimage *``"""

    @property
    def file_mode(self) -> bool:
        """Whether the kernel wrote the elfcorehdr (else kexec-tools did)."""
        return self.loader is LoadedBy.FILE


class CrashNote(Record):
    """Where the registers of a CPU are saved when it crashes."""

    cpu: int
    physical: int = shown(Show.ADDRESS)
    size: int = shown(Show.SIZE)
    """``sizeof(note_buf_t)``, bytes"""
    present: bool
    """In ``cpu_present_mask`` when the dump was taken."""


class KernelText(Record):
    """The kernel image in memory, ``_text`` to ``_end``."""

    virtual: int = shown(Show.ADDRESS)
    physical: int = shown(Show.ADDRESS)
    size: int = shown(Show.SIZE)
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
        memory_of(prog).read(image.value_(), sizeof(image.type_.type))
        return _image(image)
    except FaultError as error:
        raise WalkError(f"kexec_crash_image: {error}") from None


def _image(image: Object) -> CrashImage:
    segments = tuple(_segments(image))
    hotplug_member = next(
        # 6.6 had update_elfcorehdr; "crash: add a new kexec flag for hotplug support" (6.10)
        # renamed it
        (name for name in ("hotplug_support", "update_elfcorehdr") if has_member(image, name)),
        None,
    )
    hotplug: bool | None = None
    if hotplug_member is not None:
        hotplug = bool(member(image, hotplug_member))
    file_mode = bool(member(image, "file_mode"))
    if hotplug_member == "update_elfcorehdr" and file_mode:
        # 6.6's crash_check_update_elfcorehdr() takes kexec_file_load as permission.
        hotplug = True
    # Since Linux kernel commit 247262756121 ("crash: add generic infrastructure for crash hotplug
    # support") (in v6.6).
    index = optional_member(image, "elfcorehdr_index")
    updated = optional_member(image, "elfcorehdr_updated")
    return CrashImage(
        loader=LoadedBy.FILE if file_mode else LoadedBy.TOOLS,
        start=image.start.value_(),
        segments=segments,
        elf_load_addr=_elf_load_addr(image) if file_mode else None,
        hotplug_support=hotplug,
        hotplug_member=hotplug_member,
        elfcorehdr_index=None if index is None else int(index),
        elfcorehdr_updated=None if updated is None else bool(updated),
        backup=_backup(image) if file_mode else None,
        object=image,
    )


def _segments(image: Object) -> Iterator[KexecSegment]:
    slots = image.segment.type_.length or 0
    count = image.nr_segments.value_()
    if count > slots:
        raise WalkError(f"kexec_crash_image: implausible {count} segments, the maximum is {slots}")
    for index in range(count):
        segment = image.segment[index]
        yield KexecSegment(
            index=index,
            physical=segment.mem.value_(),
            size=segment.memsz.value_(),
            content_size=segment.bufsz.value_(),
        )


def _backup(image: Object) -> BackupRegion | None:
    """Where a kernel that writes the elfcorehdr copies low memory to."""
    if not has_member(image, "arch"):
        return None
    arch = image.arch
    if has_member(arch, "backup_start"):  # ppc64
        destination = arch.backup_start.value_()
        return BackupRegion(start=0, size=_PPC64_BACKUP_SIZE, physical=destination)
    # Until "x86/kdump: remove the backup region handling" (5.5, 7c321eb2b843).
    if has_member(arch, "backup_src_start"):
        return BackupRegion(
            start=arch.backup_src_start.value_(),
            size=arch.backup_src_sz.value_(),
            physical=arch.backup_load_addr.value_(),
        )
    return None


def keeps_backup_region(prog: Program) -> bool:
    """
    Whether kexec_file_load of this x86_64 kernel puts the first MiB of memory into the elfcorehdr,
    with a backup region for it. Kernels since 5.5 ("x86/kdump: always reserve the low 1M when the
    crashkernel option is specified", 6f599d84231f) leave it out.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    kimage = find_type(prog, "struct kimage", "vmlinux")
    return has_member(kimage, "arch") and has_member(kimage.member("arch").type, "backup_src_start")


def _elf_load_addr(image: Object) -> int:
    # Since Linux kernel commit 179350f00e06 ("x86: Use ELF fields defined in 'struct kimage'") (in
    # v5.13, arm64 and powerpc in the same version) in struct kimage; before, in struct
    # kimage_arch, under a name of the architecture's own.
    names = ("elf_load_addr", "arch.elf_load_addr", "arch.elf_headers_mem", "arch.elfcorehdr_addr")
    return int(member(image, *names))


def physical_of(prog: Program, virtual: int, what: str) -> int:
    """
    Physical address of a kernel virtual address, by the kernel's page tables.

    :param what: What is there, for the message.
    :raises NotSaved: if nothing is mapped there or that cannot be determined; the message says
        which
    """
    try:
        return translate(prog, virtual)
    except NotSaved as error:
        raise NotSaved(f"{what}: {error}", address=virtual, state=error.state) from None


def read_physical(prog: Program, physical: int, size: int) -> bytes:
    """
    Bytes of physical memory, only if the dump holds all of them.

    :raises NotSaved: with the state of the first byte that the dump does not hold
    :raises NotFound: if there can be no such memory
    """
    if size <= 0 or physical < 0 or physical + size > 1 << 64:
        raise NotFound(f"physical {physical:#x}, {size} bytes: no such memory")
    for part in coverage_of(prog).ranges(physical, physical + size):
        if part.state is not State.SAVED:
            raise NotSaved(
                f"physical {part.start:#x} is {part.state.value} in this dump",
                address=part.start,
                state=part.state,
            )
    try:
        return prog.read(physical, size, physical=True)
    except (FaultError, ValueError, OverflowError) as error:
        raise NotSaved(f"physical {physical:#x}: {error}", address=physical) from None


def crash_reservations(prog: Program) -> Partial[list[NamedRange]]:
    """
    Memory reserved for the crash kernel, in the order in which it is cut out of the
    elfcorehdr: ``crashk_res``, ``crashk_low_res`` and (since 6.17) the CMA ranges.
    """
    problems = Problems()
    found: list[NamedRange] = []
    what = "memory reserved for the crash kernel"
    try:
        find_variable(prog, "crashk_res", "vmlinux")
    except MissingDebugInfo as error:
        # A kernel without kexec reserves nothing; without debug info that cannot be determined.
        if error.module is not None:
            problems.add(error, what)
        return problems.partial(found)
    for name in ("crashk_res", "crashk_low_res"):
        with problems.trying(what):
            if has_variable(prog, name) and (resource := prog[name].read_()).end:
                found.append(_named(name, resource))
    with problems.trying(what):
        # Without CONFIG_CMA the array is there, and its count is the constant 0.
        if has_variable(prog, "crashk_cma_cnt"):
            found += _cma_ranges(prog, problems)
    return problems.partial(found)


def _cma_ranges(prog: Program, problems: Problems) -> Iterator[NamedRange]:
    ranges = find_variable(prog, "crashk_cma_ranges", "vmlinux")
    count = find_variable(prog, "crashk_cma_cnt", "vmlinux").value_()
    room = ranges.type_.length or 0
    if not 0 <= count <= room:
        why = f"implausible crashk_cma_cnt {count}: the maximum is {room}"
        problems.add(Problem(cause=Cause.DAMAGED, why=why))
    for index in range(min(count, room)):
        yield _named(f"crashk_cma_ranges[{index}]", ranges[index].read_())


def _named(name: str, resource: Object) -> NamedRange:
    return NamedRange(name=name, start=resource.start.value_(), end=resource.end.value_() + 1)


def crash_notes(prog: Program) -> list[CrashNote]:
    """
    Per-CPU note buffers of all possible CPUs, by CPU number.

    :raises MissingDebugInfo: without debug info of vmlinux
    :raises WalkError: if the place of one of them cannot be determined
    """
    notes = find_variable(prog, "crash_notes", "vmlinux")
    size = sizeof(find_type(prog, "note_buf_t", "vmlinux"))
    try:
        present = set(for_each_present_cpu(prog))
        places = [(cpu, per_cpu_ptr(notes, cpu).value_()) for cpu in for_each_possible_cpu(prog)]
    except FaultError as error:
        raise NotSaved(f"crash_notes: {error}") from None
    return [
        CrashNote(
            cpu=cpu,
            physical=physical_of(prog, place, f"crash_notes of CPU {cpu}"),
            size=size,
            present=cpu in present,
        )
        for cpu, place in places
    ]


def vmcoreinfo_note(prog: Program) -> NamedRange:
    """
    The vmcoreinfo note. Its size is fixed by PAGE_SIZE (``VMCOREINFO_NOTE_SIZE`` in
    include/linux/vmcore_info.h), whatever part of it is used.

    :raises NotFound: if the kernel has not set it up
    :raises NotSaved: if its place cannot be determined
    """
    note = find_variable(prog, "vmcoreinfo_note", "vmlinux")
    try:
        place = note.value_()
    except FaultError as error:
        raise NotSaved(f"vmcoreinfo_note: {error}") from None
    if not place:
        raise NotFound("vmcoreinfo_note: the kernel has not set it up")
    physical = physical_of(prog, place, "vmcoreinfo_note")
    size = 2 * _NOTE_HEAD + _VMCOREINFO_NAME + int(find_variable(prog, "PAGE_SIZE", "vmlinux"))
    return NamedRange(name="vmcoreinfo", start=physical, end=physical + size)


def kernel_text(prog: Program) -> KernelText:
    """
    Where the kernel image is.

    :raises MissingDebugInfo: without the symbol table of vmlinux
    :raises NotSaved: if its place cannot be determined
    """
    start, end = symbol_address(prog, "_text"), _kernel_end(prog)
    if start is None or end is None or end <= start:
        raise MissingDebugInfo(
            "_text and _end are unknown: no debug info of the kernel is loaded (-s VMLINUX)",
            "vmlinux",
        )
    return KernelText(virtual=start, physical=physical_of(prog, start, "_text"), size=end - start)


def _kernel_end(prog: Program) -> int | None:
    """
    ``_end`` is past the last byte of the kernel (on arm64 far past: the page tables of early boot
    are between, in no section), so drgn assigns it to no module and does not relocate it (KASLR):
    relocate it as the kernel's module is.
    """
    end = symbol_address(prog, "_end")
    if end is None:
        return None
    try:
        module = prog.main_module()
    except LookupError:  # a program without modules: nothing was relocated
        return end
    found, bias = module.address_range, module.debug_file_bias or 0
    if found is None or found[0] <= end <= found[1]:
        return end
    return (end + bias) % (1 << 64)


def elfcorehdr_segment(prog: Program, image: CrashImage) -> KexecSegment | None:
    """
    The segment of the crash image that holds the elfcorehdr; None if none does.

    kexec_file_load leaves its address in the image; after kexec_load the kernel itself finds it
    only at the first hotplug event, so the segments are searched for an ELF core header,
    which needs a dump that holds the crash kernel's reservation.

    :raises NotSaved: if a segment that may hold it cannot be read
    """
    if image.elf_load_addr:
        for segment in image.segments:
            if segment.physical == image.elf_load_addr:
                return segment
        return None
    if image.elfcorehdr_index is not None and 0 <= image.elfcorehdr_index < len(image.segments):
        return image.segments[image.elfcorehdr_index]
    unread: NotSaved | None = None
    for segment in image.segments:
        try:
            if _is_core_header(prog, segment):
                return segment
        except NotSaved as error:
            unread = unread or error
    if unread is not None:
        raise unread
    return None


def _is_core_header(prog: Program, segment: KexecSegment) -> bool:
    if segment.size < 20:
        return False
    start = read_physical(prog, segment.physical, 20)
    # The kernel image may be an ELF file too: the type distinguishes them.
    return start[:4] == _ELF_MAGIC and _ET_CORE in (
        int.from_bytes(start[16:18], "little"),
        int.from_bytes(start[16:18], "big"),
    )
