# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Crash notes
-----------

What the elfcorehdr of every architecture points to: per-CPU notes, the vmcoreinfo note, the kernel
image; in a capture kernel, the memory that it was to save. Sources: kernel/crash_core.c and
kernel/vmcore_info.c (before 6.9 both in kernel/crash_core.c), include/linux/vmcore_info.h,
fs/proc/vmcore.c.
"""

from drgn import FaultError, Program, sizeof
from drgn.helpers.linux.cpumask import for_each_possible_cpu, for_each_present_cpu
from drgn.helpers.linux.percpu import per_cpu_ptr

from drgn_pmem.errors import MissingDebugInfo, NotFound
from drgn_pmem.kernel.debuginfo import find_type, find_variable, has_type
from drgn_pmem.kernel.kexec import NamedRange
from drgn_pmem.kernel.kmod import symbol_address
from drgn_pmem.kernel.memory import Layout, list_nodes, memory_of
from drgn_pmem.kernel.physical import physical_of
from drgn_pmem.partial import NotSaved, Partial, Problems
from drgn_pmem.ranges import Range, RangeSet
from drgn_pmem.record import Record, Show, shown

__all__ = (
    "CrashNote",
    "KernelText",
    "crash_notes",
    "crashed_memory",
    "kernel_text",
    "vmcoreinfo_note",
)

_NOTE_HEAD = 12

_VMCOREINFO_NAME = 12
"""``"VMCOREINFO\\0"``, padded to four."""


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


def crashed_memory(prog: Program) -> Partial[RangeSet]:
    """
    Of a capture kernel: the physical memory from which its /proc/vmcore reads that of the kernel
    that crashed; of a firmware-assisted dump, boot memory where the firmware moved it. Empty if
    /proc/vmcore has none.
    """
    problems = Problems()
    found: list[Range] = []
    with problems.trying("vmcore_list"):
        memory = memory_of(prog)
        # "struct vmcore" up to Linux 6.12 at least.
        renamed = has_type(prog, "struct vmcore_range")
        entry = Layout(
            memory,
            "struct vmcore_range" if renamed else "struct vmcore",
            start="paddr",
            size="size",
        )
        link = entry.offset("list")
        head = find_variable(prog, "vmcore_list", "vmlinux").address_
        assert head is not None
        for node in problems.collect(list_nodes(memory, head, "vmcore_list")):
            with problems.trying(f"vmcore_list entry {node:#x}"):
                values = entry.read(node - link)
                found.append(Range(values["start"], values["start"] + values["size"]))
    return problems.partial(RangeSet(found))
