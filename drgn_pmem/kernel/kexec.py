# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
kexec
-----

The loaded crash kernel and the memory reserved for it; what else an elfcorehdr points to is in
:mod:`drgn_pmem.kernel.crash_core`.

Sources: ``struct kimage`` in include/linux/kexec.h, kernel/kexec_core.c, kernel/crash_core.c
(before 6.9 kernel/kexec_file.c), arch/x86/kernel/crash.c. ``elf_headers`` is not read: every
architecture frees it after the load; what is left is ``elf_load_addr`` and the segments.
"""

from collections.abc import Iterator
import enum
from typing import Any

from drgn import FaultError, Object, Program, sizeof

from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel.debuginfo import (
    find_type,
    find_variable,
    has_member,
    has_variable,
    member,
    optional_member,
)
from drgn_pmem.kernel.memory import memory_of
from drgn_pmem.kernel.physical import read_physical
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems, WalkError
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "PPC64_DIRECT_MAP",
    "BackupRegion",
    "CrashImage",
    "KexecSegment",
    "LoadedBy",
    "NamedRange",
    "crash_image",
    "crash_reservations",
    "elfcorehdr_segment",
    "keeps_backup_region",
)

PPC64_DIRECT_MAP = 0xC000000000000000
"""``PAGE_OFFSET`` of 64-bit POWER, whichever MMU is in use."""

_PPC64_BACKUP_SIZE = 1 << 16
"""``BACKUP_SRC_SIZE``: the capture kernel needs the first 64 KiB, so they are copied away."""

_ELF_MAGIC = b"\x7fELF"
_ET_CORE = 4


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
