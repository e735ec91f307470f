# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
An elfcorehdr rebuilt
---------------------

The crash header that the kernel, or kexec-tools, would write from the state of the crashed kernel.
A kernel without crash hotplug wrote the real one when the crash kernel was loaded; what differs has
changed since.

Sources: kernel/crash_core.c (``crash_prepare_elf64_headers()``; before 6.9 kernel/kexec_file.c) and
kexec-tools' kexec/crashdump-elf.c.
"""

from collections.abc import Callable
import dataclasses

from drgn import Program
from drgn.helpers.linux.mm import phys_to_virt

from drgn_pmem.analysis.headers.memory import CrashMemory, crash_memory, kexec_tools_memory
from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.formats.architecture import (
    AARCH64,
    PPC64,
    X86_64,
    Architecture,
    find_architecture,
)
from drgn_pmem.formats.elfcorehdr import CrashHeader, Role
from drgn_pmem.formats.elfprepare import CrashRange, crash_prepare_elf64_headers, elfcorehdr_size
from drgn_pmem.kernel.crash_core import (
    CrashNote,
    KernelText,
    crash_notes,
    kernel_text,
    vmcoreinfo_note,
)
from drgn_pmem.kernel.debuginfo import find_type, has_variable
from drgn_pmem.kernel.iomem import for_each_iomem
from drgn_pmem.kernel.kexec import PPC64_DIRECT_MAP, CrashImage
from drgn_pmem.kernel.kmod import symbol_address
from drgn_pmem.record import Record

__all__ = ("RebuiltHeader", "architecture", "kernel_adds_pmem", "linear_map", "rebuild_elfcorehdr")

_PAGE = 4096
_BACKUP_ALIGN = 1024


class RebuiltHeader(Record):
    """A rebuilt elfcorehdr, and how it was built."""

    header: CrashHeader
    memory: CrashMemory
    uncertain_cpus: tuple[CrashNote, ...] = ()
    """Possible CPUs that were not present: whether this kernel writes notes of them could not be
    determined. :attr:`header` has them if the header that was found has them."""


def architecture(prog: Program) -> Architecture | None:
    """The architecture of the crashed kernel; None if it is in no table."""
    return None if prog.platform is None else find_architecture(prog.platform.arch.name)


def linear_map(prog: Program) -> Callable[[int], int]:
    """``__va()``: physical to virtual address in the direct map."""
    if architecture(prog) == PPC64:
        start = PPC64_DIRECT_MAP
    else:
        start = phys_to_virt(prog, 0).value_()
    return lambda physical: (start + physical) % (1 << 64)


def kernel_adds_pmem(prog: Program) -> bool:
    """
    Whether this kernel has the RFC's patch that puts persistent memory into the elfcorehdr: its
    list of memmap ranges (v2), or the walk over pmem resources that both versions have.

    :raises MissingDebugInfo: without the symbol table of vmlinux
    """
    for symbol in ("devm_memmap_vmcore_head", "walk_pmem_res"):
        if symbol_address(prog, symbol) is not None:
            return True
    if symbol_address(prog, "walk_system_ram_res") is None:
        raise MissingDebugInfo(
            "whether this kernel puts persistent memory into the elfcorehdr is unknown: the "
            "symbol table of vmlinux is not loaded (-s VMLINUX)",
            "vmlinux",
        )
    return False


def rebuild_elfcorehdr(
    prog: Program, image: CrashImage | None, found: CrashHeader | None = None
) -> RebuiltHeader:
    """
    The elfcorehdr as of the crash: as the kernel writes it, or for an image that kexec_load loaded
    as kexec-tools writes it.

    :param found: The real one, if it is in the dump: evidence of which CPUs the kernel counts.
    :raises NotFound: if it is not known how this architecture builds it
    :raises Incomplete: if the memory map or the reservations cannot be read in full
    :raises NotSaved: if the place of a note or of the kernel cannot be determined
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    arch = architecture(prog)
    # On ppc64 the kernel itself rewrites what kexec-tools wrote, when memory changes.
    tools = image is not None and not image.file_mode and arch != PPC64
    if tools:
        memory = kexec_tools_memory(prog, arch)
        if arch == X86_64:
            memory = dataclasses.replace(memory, ranges=_backed_up(memory, image))
    else:
        memory = crash_memory(prog, arch, image, pmem=kernel_adds_pmem(prog))
    assert arch is not None  # both raise for an unknown one
    notes = crash_notes(prog)
    counted, uncertain = _counted(prog, notes, tools, found)
    vmcoreinfo = vmcoreinfo_note(prog)
    # ppc64's kernel is in its direct map, so memory's own PT_LOADs have it
    text = None if arch == PPC64 else kernel_text(prog)
    if text is not None and tools:
        text = _text_of_kexec_tools(prog, text, arch)
    header = crash_prepare_elf64_headers(
        machine=arch.e_machine,
        cpu_notes=[(note.physical, note.size) for note in counted],
        vmcoreinfo=(vmcoreinfo.start, vmcoreinfo.size),
        kernel_text=None if text is None else (text.physical, text.virtual, text.size),
        ranges=memory.ranges,
        virtual=linear_map(prog),
        size=None if tools else elfcorehdr_size(len(notes), len(memory.ranges)),
    )
    return RebuiltHeader(header=header, memory=memory, uncertain_cpus=tuple(uncertain))


def _counted(
    prog: Program, notes: list[CrashNote], tools: bool, found: CrashHeader | None
) -> tuple[list[CrashNote], list[CrashNote]]:
    """
    The CPUs that get a PT_NOTE, and those of which that cannot be determined.

    "crash: change crash_prepare_elf64_headers() to for_each_possible_cpu()" (6.6) came with crash
    hotplug; ``kexec_file_dbg_print`` (6.8) identifies a later kernel that is built without that.
    Nothing in the debug info distinguishes 6.6 and 6.7 without it from older ones: then the header
    that was found decides, unless it has notes of all possible CPUs: an older kernel writes these
    too if all CPUs were present when the crash kernel was loaded.
    """
    present = [note for note in notes if note.present]
    if tools or len(present) == len(notes):
        return present, []
    kimage = find_type(prog, "struct kimage", "vmlinux")
    if kimage.has_member("elfcorehdr_index") or has_variable(prog, "kexec_file_dbg_print"):
        return notes, []
    absent = [note for note in notes if not note.present]
    if found is None:
        return present, absent
    places = {phdr.physical for phdr in found.notes if phdr.role is Role.CPU_NOTES}
    if all(note.physical in places for note in absent):
        return notes, absent
    return present, []


def _text_of_kexec_tools(prog: Program, text: KernelText, arch: Architecture) -> KernelText:
    """kexec-tools takes the kernel's place from "Kernel code" in iomem; its size on aarch64 up to
    the end of "Kernel data", on x86_64 from ``/proc/kcore``, in whole pages."""
    names = {resource.name: resource for resource in reversed(for_each_iomem(prog).whole())}
    code, data = names.get("Kernel code"), names.get("Kernel data")
    physical = text.physical if code is None else code.start
    size = -(-text.size // _PAGE) * _PAGE
    if arch == AARCH64 and data is not None:
        size = data.end + 1 - physical
    return KernelText(virtual=text.virtual, physical=physical, size=size)


def _backed_up(memory: CrashMemory, image: CrashImage | None) -> tuple[CrashRange, ...]:
    """
    The first range below 640 KiB is the backup region: the purgatory copies it into a segment of
    the crash image, which is known by its size alone.
    """
    ranges = list(memory.ranges)
    for index, item in enumerate(ranges):
        if item.end - 1 > 0xA0000:
            continue
        size = item.end - item.start
        # some versions of kexec-tools pass the padding to the kernel too
        sizes = (size, (size + _BACKUP_ALIGN) & ~(_BACKUP_ALIGN - 1))
        for segment in image.segments if image is not None else ():
            if segment.content_size in sizes:
                ranges[index] = dataclasses.replace(item, offset=segment.physical)
        break
    return tuple(ranges)
