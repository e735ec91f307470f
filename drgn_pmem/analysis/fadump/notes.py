# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Registers of a firmware-assisted dump
-------------------------------------

The capture kernel writes one PRSTATUS note for each CPU that was online, in the order of the CPUs'
numbers, but with no process id in it: drgn cannot tell which thread it belongs to. Here it is told.

Source: ``fadump_regs_to_elf_notes()`` in arch/powerpc/kernel/fadump.c.
"""

from dataclasses import dataclass

from drgn import FaultError, Object, Program, StackTrace, offsetof, sizeof
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.sched import cpu_curr

from drgn_pmem.dumpfile import dump_of
from drgn_pmem.errors import DumpFileError, MissingDebugInfo, NotFound
from drgn_pmem.kernel.fadump import crashing_cpu

__all__ = (
    "SavedRegisters",
    "crashing_registers",
    "fadump_stack",
    "register_summary",
    "saved_registers",
)

_NT_PRSTATUS = 1
_PR_REG = 112
"""Offset of ``pr_reg`` in ``struct elf_prstatus`` of 64-bit machines."""


@dataclass(frozen=True)
class SavedRegisters:
    """``struct pt_regs`` of one CPU."""

    cpu: int
    data: bytes
    """As they are in the note, filled up with zeroes to ``sizeof(struct pt_regs)``."""

    def object(self, prog: Program) -> Object:
        """``struct pt_regs``"""
        return Object.from_bytes_(prog, prog.type("struct pt_regs"), self.data)


def saved_registers(prog: Program) -> list[SavedRegisters]:
    """
    The registers in the dump's PRSTATUS notes, by CPU.

    :raises NotFound: if the dump has none
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    try:
        regs = prog.type("struct pt_regs")
    except LookupError:
        raise MissingDebugInfo(
            "struct pt_regs is not known: no debug info of the kernel is loaded (-s VMLINUX)"
        ) from None
    try:
        offset = offsetof(prog.type("struct elf_prstatus"), "pr_reg")
    except LookupError:
        offset = _PR_REG
    dump = dump_of(prog)
    notes = [note for note in dump.notes if note.name == b"CORE" and note.type == _NT_PRSTATUS]
    if not notes:
        raise NotFound("this dump has no PRSTATUS notes: no registers were saved")
    cpus = list(for_each_online_cpu(prog))
    saved = []
    for cpu, note in zip(cpus, notes, strict=False):
        data = dump.note_data(note, 1 << 16)[offset:]
        saved.append(SavedRegisters(cpu, data[: sizeof(regs)].ljust(sizeof(regs), b"\0")))
    return saved


def crashing_registers(prog: Program) -> SavedRegisters:
    """
    The registers of the CPU that crashed.

    The order of the notes is the firmware's: the stack pointer must lie in the stack of the task
    that ran on that CPU, or another note is looked for where it does.

    :raises NotFound: if they are not in the dump
    """
    cpu = crashing_cpu(prog)
    if cpu is None:
        raise NotFound("no CPU has crashed: this dump was taken from a running kernel")
    saved = saved_registers(prog)
    ours = [registers for registers in saved if registers.cpu == cpu]
    for registers in [*ours, *saved]:
        if _on_stack_of(prog, cpu, registers):
            return SavedRegisters(cpu, registers.data)
    if ours:
        return ours[0]
    raise NotFound(f"the dump has registers of {len(saved)} CPUs, not of the crashing CPU {cpu}")


def register_summary(prog: Program, data: bytes) -> dict[str, str] | None:
    """
    Where a CPU was: instruction, function, caller, stack.

    :param data: ``struct pt_regs``
    :return: None if they are not this machine's registers, or all zeroes
    """
    try:
        regs = SavedRegisters(0, data).object(prog)
        nip = regs.nip.value_()
        names = {"nip": nip, "link": regs.link, "r1": regs.gpr[1], "msr": regs.msr}
    except (LookupError, AttributeError, ValueError):
        return None
    if not any(data):
        return None
    summary = {name: f"{int(value):#x}" for name, value in names.items()}
    try:
        symbol = prog.symbol(nip)
    except LookupError:
        return summary
    return {"function": f"{symbol.name}+{nip - symbol.address:#x}", **summary}


def _on_stack_of(prog: Program, cpu: int, registers: SavedRegisters) -> bool:
    try:
        stack = cpu_curr(prog, cpu).stack.value_()
        pointer = int(registers.object(prog).gpr[1])
    except (FaultError, LookupError, AttributeError):
        return False
    return stack <= pointer < stack + int(_thread_size(prog))


def _thread_size(prog: Program) -> int:
    try:
        return sizeof(prog["init_stack"])
    except (LookupError, TypeError):
        return 16 << 10


def fadump_stack(prog: Program, registers: Object | None = None) -> StackTrace:
    """
    The stack of the thread that crashed.

    :param registers: ``struct pt_regs``; by default those of the PRSTATUS note.
    :raises NotFound: if there are no registers, or the stack is not in the dump
    """
    if registers is None:
        registers = crashing_registers(prog).object(prog)
    try:
        return prog.stack_trace(registers)
    except (FaultError, ValueError, DumpFileError) as error:
        raise NotFound(f"the stack of the crashing thread cannot be read: {error}") from None
