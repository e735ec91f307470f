# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
An elfcorehdr rebuilt
---------------------

The crash header that the kernel, or kexec-tools, would write from the state that the crashed kernel
was in. A kernel without crash hotplug wrote the real one when the crash kernel was loaded; what
differs has changed since.

Sources: kernel/crash_core.c (``crash_prepare_elf64_headers()``; before 6.9 kernel/kexec_file.c) and
kexec-tools' kexec/crashdump-elf.c.
"""

from collections.abc import Callable
import dataclasses

from drgn import Program
from drgn.helpers.linux.mm import phys_to_virt

from drgn_pmem.analysis.headers.memory import CrashMemory, crash_memory, kexec_tools_memory
from drgn_pmem.errors import NotFound
from drgn_pmem.formats.elfcorehdr import MACHINES, CrashHeader
from drgn_pmem.formats.elfprepare import (
    CrashRange,
    crash_prepare_elf64_headers,
    elfcorehdr_size,
)
from drgn_pmem.kernel.iomem import for_each_iomem
from drgn_pmem.kernel.kexec import (
    PPC64_DIRECT_MAP,
    CrashImage,
    CrashNote,
    KernelText,
    crash_notes,
    kernel_text,
    vmcoreinfo_note,
)

__all__ = ("architecture", "kernel_adds_pmem", "linear_map", "rebuild_elfcorehdr")

_ARCHITECTURES = {"X86_64": "x86_64", "PPC64": "ppc64", "AARCH64": "aarch64"}

_PAGE = 4096
_BACKUP_ALIGN = 1024


def architecture(prog: Program) -> str:
    """``"x86_64"``, ``"ppc64"``, ``"aarch64"``, or drgn's name of another one."""
    name = prog.platform.arch.name if prog.platform is not None else "UNKNOWN"
    return _ARCHITECTURES.get(name, name)


def linear_map(prog: Program) -> Callable[[int], int]:
    """``__va()``: physical to virtual address in the direct map."""
    if architecture(prog) == "ppc64":
        start = PPC64_DIRECT_MAP
    else:
        start = phys_to_virt(prog, 0).value_()
    return lambda physical: (start + physical) % (1 << 64)


def kernel_adds_pmem(prog: Program) -> bool:
    """
    Whether this kernel has the RFC's patch that puts persistent memory into the elfcorehdr: its
    list of memmap ranges (v2), or the walk over pmem resources that both versions have.
    """
    for symbol in ("devm_memmap_vmcore_head", "walk_pmem_res"):
        try:
            prog.symbol(symbol)
        except LookupError:
            continue
        return True
    return False


def rebuild_elfcorehdr(prog: Program, image: CrashImage | None) -> tuple[CrashHeader, CrashMemory]:
    """
    The elfcorehdr as of the crash: as the kernel writes it, or for an image that kexec_load loaded
    as kexec-tools writes it.

    :raises NotFound: if the architecture's way is not known, or what it needs is not in the dump
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    arch = architecture(prog)
    machine = next((number for number, name in MACHINES.items() if name == arch), None)
    if machine is None:
        raise NotFound(f"how {arch} builds its elfcorehdr is not known here")
    # On ppc64 the kernel itself rewrites what kexec-tools wrote, when memory changes.
    tools = image is not None and not image.file_mode and arch != "ppc64"
    if tools:
        memory = kexec_tools_memory(prog, arch)
        memory = dataclasses.replace(memory, ranges=_backed_up(memory, image))
    else:
        memory = crash_memory(prog, arch, image, pmem=kernel_adds_pmem(prog))
    notes = crash_notes(prog)
    counted = _counted(prog, notes, tools)
    vmcoreinfo = vmcoreinfo_note(prog)
    # ppc64's kernel lies in its direct map, so memory's own PT_LOADs have it
    text = None if arch == "ppc64" else kernel_text(prog)
    if text is not None and tools:
        text = _text_of_kexec_tools(prog, text)
    header = crash_prepare_elf64_headers(
        machine=machine,
        cpu_notes=[(_address(note), note.size) for note in counted],
        vmcoreinfo=(vmcoreinfo.start, vmcoreinfo.size),
        kernel_text=None if text is None else (text.physical, text.virtual, text.size),
        ranges=memory.ranges,
        virtual=linear_map(prog),
        size=None if tools else elfcorehdr_size(len(notes), len(memory.ranges)),
    )
    return header, memory


def _address(note: CrashNote) -> int:
    if note.physical is None:
        raise NotFound(
            f"crash_notes of CPU {note.cpu}: its address cannot be translated: {note.reason}"
        )
    return note.physical


def _counted(prog: Program, notes: list[CrashNote], tools: bool) -> list[CrashNote]:
    """
    The CPUs that get a PT_NOTE.

    "crash: change crash_prepare_elf64_headers() to for_each_possible_cpu()" (6.6) came with crash
    hotplug; ``kexec_file_dbg_print`` (6.8) tells a later kernel that is built without that.
    """
    if not tools and (
        prog.type("struct kimage").has_member("elfcorehdr_index") or "kexec_file_dbg_print" in prog
    ):
        return notes
    return [note for note in notes if note.present]


def _text_of_kexec_tools(prog: Program, text: KernelText) -> KernelText:
    """kexec-tools takes the kernel's place from "Kernel code" in iomem, its size from
    ``/proc/kcore``, in whole pages."""
    physical = text.physical
    for resource in for_each_iomem(prog):
        if resource.name == "Kernel code":
            physical = resource.start
            break
    return KernelText(text.virtual, physical, -(-text.size // _PAGE) * _PAGE)


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
        # some versions of kexec-tools hand the kernel the padding too
        sizes = (size, (size + _BACKUP_ALIGN) & ~(_BACKUP_ALIGN - 1))
        for segment in image.segments if image is not None else ():
            if segment.content_size in sizes:
                ranges[index] = dataclasses.replace(item, offset=segment.physical)
        break
    return tuple(ranges)
