# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Registers of a firmware-assisted dump
-------------------------------------

The capture kernel writes one PRSTATUS note for each CPU that was online, in the order of the CPUs'
numbers, but without a process id: drgn cannot determine which thread it belongs to. Here the notes
are assigned to CPUs, and that of the crashing CPU is verified by its stack pointer.

Source: ``fadump_regs_to_elf_notes()`` in arch/powerpc/kernel/fadump.c.
"""

from drgn import FaultError, Object, Program, StackTrace, offsetof, sizeof
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.sched import cpu_curr, task_cpu

from drgn_pmem.dumpfile import dump_of
from drgn_pmem.errors import DumpFileError, FormatError, NotFound
from drgn_pmem.kernel.debuginfo import find_type, has_type
from drgn_pmem.kernel.fadump import crashing_cpu
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems
from drgn_pmem.record import Record

__all__ = (
    "SavedRegisters",
    "crashing_registers",
    "fadump_stack",
    "register_summary",
    "saved_registers",
    "stack_of_running",
)

_NT_PRSTATUS = 1
_PR_REG = 112
"""Offset of ``pr_reg`` in ``struct elf_prstatus`` of 64-bit machines."""


class SavedRegisters(Record):
    """``struct pt_regs`` of one CPU."""

    cpu: int
    data: bytes
    """As they are in the note, filled up with zeroes to ``sizeof(struct pt_regs)``."""
    verified: bool = False
    """Whether their stack pointer is in the stack of the task that ran on that CPU. Otherwise only
    the order of the notes says that they are that CPU's."""

    def object(self, prog: Program) -> Object:
        """``struct pt_regs``"""
        return Object.from_bytes_(prog, prog.type("struct pt_regs"), self.data)


def saved_registers(prog: Program) -> list[SavedRegisters]:
    """
    The registers in the dump's PRSTATUS notes, by CPU; not verified.

    :raises NotFound: if the dump has none
    :raises MissingDebugInfo: without debug info of vmlinux
    :raises NotSaved: if the mask of CPUs that were online cannot be read
    """
    regs = find_type(prog, "struct pt_regs", "vmlinux")
    offset = _PR_REG
    if has_type(prog, "struct elf_prstatus"):
        offset = offsetof(prog.type("struct elf_prstatus"), "pr_reg")
    dump = dump_of(prog)
    notes = [note for note in dump.notes if note.name == b"CORE" and note.type == _NT_PRSTATUS]
    if not notes:
        raise NotFound("this dump has no PRSTATUS notes: no registers were saved")
    try:
        cpus = list(for_each_online_cpu(prog))
    except FaultError as error:
        raise NotSaved(f"__cpu_online_mask: {error}") from None
    return [
        SavedRegisters(
            cpu=cpu,
            data=dump.note_data(note, 1 << 16)[offset:][: sizeof(regs)].ljust(sizeof(regs), b"\0"),
        )
        for cpu, note in zip(cpus, notes, strict=False)
    ]


def crashing_registers(prog: Program) -> Partial[SavedRegisters]:
    """
    The registers of the CPU that crashed.

    The order of the notes is the firmware's: the stack pointer must lie in the stack of the task
    that ran on that CPU, or another note is looked for where it does. If there is none, the note in
    that CPU's place is returned, with a problem: it is not verified.

    :raises NotFound: if they are not in the dump
    :raises NotSaved: if it cannot be read which CPU crashed
    """
    cpu = crashing_cpu(prog)
    if cpu is None:
        raise NotFound("no CPU has crashed: this dump was taken from a running kernel")
    saved = saved_registers(prog)
    ours = [registers for registers in saved if registers.cpu == cpu]
    problems = Problems()
    what = f"registers of the crashing CPU {cpu} not verified"
    stack = problems.attempt(what, lambda: _stack_of(prog, cpu))
    if stack is not None:
        for registers in [*ours, *saved]:
            if int(registers.object(prog).gpr[1]) in stack:
                found = SavedRegisters(cpu=cpu, data=registers.data, verified=True)
                return problems.partial(found)
        why = "no stack pointer in a PRSTATUS note is in the stack of the task that ran on that CPU"
        problems.add(Problem(cause=Cause.DAMAGED, why=why, what=what))
    if ours:
        return problems.partial(ours[0])
    raise NotFound(f"the dump has registers of {len(saved)} CPUs, not of the crashing CPU {cpu}")


_MSR_PR = 1 << 14
"""The CPU was in user space (arch/powerpc/include/asm/reg.h)."""

_KERNEL = 1 << 63
"""Addresses of the kernel. A CPU that has a stack pointer of user space has just been interrupted
there: it uses no kernel stack yet."""


def stack_of_running(prog: Program, task: Object) -> StackTrace | None:
    """
    The kernel stack of a task that ran on a CPU when the machine crashed.

    :param task: ``struct task_struct *``
    :return: None if it ran in user space.
    :raises NotFound: if the dump has no registers of it, or its stack is not in the dump
    :raises NotSaved: if its ``task_struct`` cannot be read
    """
    size = sizeof(find_type(prog, "union thread_union", "vmlinux"))
    try:
        start, cpu = task.stack.value_(), int(task_cpu(task))
    except FaultError as error:
        raise NotSaved(f"task_struct {task.value_():#x}: {error}") from None
    for registers in saved_registers(prog):
        regs = registers.object(prog)
        if start <= int(regs.gpr[1]) < start + size:
            return fadump_stack(prog, regs)
        if registers.cpu == cpu and (int(regs.msr) & _MSR_PR or int(regs.gpr[1]) < _KERNEL):
            return None
    raise NotFound(f"no PRSTATUS note has a stack pointer in the stack of {task.pid.value_()}")


def register_summary(prog: Program, data: bytes) -> dict[str, str] | None:
    """
    Where a CPU was: instruction, function, caller, stack.

    :param data: ``struct pt_regs``
    :return: None if they are all zeroes
    :raises FormatError: if they are too few bytes for this machine's registers
    """
    if not any(data):
        return None
    try:
        regs = SavedRegisters(cpu=0, data=data).object(prog)
    except ValueError as error:
        raise FormatError(f"registers: {error}") from None
    nip = regs.nip.value_()
    names = {"nip": nip, "link": regs.link, "r1": regs.gpr[1], "msr": regs.msr}
    summary = {name: f"{int(value):#x}" for name, value in names.items()}
    try:
        symbol = prog.symbol(nip)
    except LookupError:  # a module without debug info, or no code at all
        return summary
    return {"function": f"{symbol.name}+{nip - symbol.address:#x}", **summary}


def _stack_of(prog: Program, cpu: int) -> range:
    """
    The stack of the task that ran on a CPU.

    :raises NotSaved: if its ``task_struct`` cannot be read
    """
    size = sizeof(find_type(prog, "union thread_union", "vmlinux"))
    try:
        start = cpu_curr(prog, cpu).stack.value_()
    except FaultError as error:
        raise NotSaved(f"task of CPU {cpu}: {error}") from None
    return range(start, start + size)


def fadump_stack(prog: Program, registers: Object | None = None) -> StackTrace:
    """
    The stack of the thread that crashed.

    :param registers: ``struct pt_regs``; by default those of the PRSTATUS note, if they are
        verified.
    :raises NotFound: if there are no registers, or the stack is not in the dump
    :raises Incomplete: if the registers are not verified
    """
    if registers is None:
        registers = crashing_registers(prog).whole().object(prog)
    try:
        return prog.stack_trace(registers)
    except (FaultError, ValueError, DumpFileError) as error:
        raise NotFound(f"the stack of the crashing thread cannot be read: {error}") from None
