# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Registers of the panic
----------------------

The registers that the task that panicked had where the kernel failed: those in the exception's
``struct pt_regs`` on its stack, by drgn's unwinder, or those of its PRSTATUS note. Where panic()
was called without an exception, registers show nothing of the fault, and there are none here.
"""

import re

from drgn import Object, Program, StackFrame

from drgn_pmem.analysis.findings.backtraces import crashed_task, unwind
from drgn_pmem.dumpfile.faults import guard_reads
from drgn_pmem.kernel.debuginfo import need_kernel_debug_info
from drgn_pmem.kernel.mmu import is_kernel_address
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.record import Record, Show, shown

__all__ = ("Register", "panic_registers")

_MAX_FRAMES = 256

_STOPS = re.compile(
    r"^_*(panic|vpanic|crash_|machine_kexec|machine_crash|kexec_|nmi_panic|ppc_panic|fadump)"
)
"""Functions whose registers are those of the way into the dump, not of a fault."""

_FLAGS = re.compile(r"^(rflags|eflags|cs|ss|ds|es|fs|gs|fs_base|gs_base|pstate|msr|cr|xer)$")


class Register(Record):
    """A register at a fault."""

    name: str
    value: int = shown(Show.ADDRESS)
    function: str | None
    """That was interrupted."""


def _of_frame(frame: StackFrame) -> list[Register]:
    return [
        Register(name=name, value=int(value), function=frame.name or None)
        for name, value in frame.registers().items()
        if not _FLAGS.match(name)
    ]


def _at_fault(prog: Program, frames: list[StackFrame]) -> list[Register]:
    """The registers of the innermost frame of the kernel that an exception interrupted."""
    if not frames:
        return []
    # oops_end() of arch/x86 and its likes put the registers of the fault into the note itself.
    if not any(_STOPS.match(frame.name or "") for frame in frames):
        return _of_frame(frames[0])
    for frame in frames[1:]:
        if frame.interrupted:
            # Of user space, it was interrupted by a system call or interrupt.
            return _of_frame(frame) if is_kernel_address(prog, frame.pc) else []
    return []


def panic_registers(prog: Program) -> Partial[tuple[Register, ...]]:
    """
    The registers where the kernel failed, if an exception led to the panic.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    need_kernel_debug_info(prog, "the registers")
    guard_reads(prog)
    problems = Problems()
    task: Object | None = problems.take(crashed_task(prog))
    found: list[Register] = []
    if task is not None:
        with problems.trying("registers of the panic"):
            trace = unwind(prog, task)
            found = _at_fault(prog, list(trace or ())[:_MAX_FRAMES])
    return problems.partial(tuple(found))
