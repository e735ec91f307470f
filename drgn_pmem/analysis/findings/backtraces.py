# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Backtraces of the crash
-----------------------

The stacks of the task that panicked and of what each CPU ran, by drgn's unwinder. The shell's
``%crash bt`` shows those of other tasks.
"""

import contextlib

from drgn import Architecture, FaultError, Object, Program, StackFrame, StackTrace
from drgn.helpers.linux.cpumask import for_each_present_cpu
from drgn.helpers.linux.sched import cpu_curr, task_cpu

from drgn_pmem.analysis.fadump.notes import stack_of_running
from drgn_pmem.analysis.headers.subject import has_panicked
from drgn_pmem.dumpfile.faults import guard_reads
from drgn_pmem.errors import NotFound
from drgn_pmem.kernel.debuginfo import need_kernel_debug_info
from drgn_pmem.kernel.mmu import is_kernel_address
from drgn_pmem.partial import Cause, Partial, Problem, Problems, WalkError
from drgn_pmem.record import Record, Show, shown

__all__ = ("Backtrace", "Frame", "crashed_task", "read_backtraces", "read_panic_stack", "unwind")

_MAX_FRAMES = 256
_MAX_CPUS = 1 << 13


class Frame(Record):
    """One function of a stack."""

    function: str | None
    """None if no symbol covers :attr:`pc`."""
    pc: int | None = shown(Show.ADDRESS)
    source: str | None
    """``"fs/dax.c:1234"``, where the debug info has it."""
    inlined: bool

    @property
    def text(self) -> str:
        """``"dax_fault (fs/dax.c:1234)"``"""
        name = self.function or ("unknown" if self.pc is None else f"{self.pc:#x}")
        inlined = ", inlined" if self.inlined else ""
        return f"{name} ({self.source}{inlined})" if self.source else f"{name}"


class Backtrace(Record):
    """The kernel stack of a task."""

    cpu: int | None
    """That it ran on; None if that is not known."""
    pid: int
    comm: str
    """As in the dump: not escaped."""
    crashed: bool
    """Whether it is the task that panicked."""
    frames: tuple[Frame, ...]
    """Innermost first; none also if it could not be unwound."""
    in_user_space: bool = False
    """The task ran in user space when the machine crashed, so it has no kernel stack."""
    object: Object = shown(Show.HIDDEN)
    """``struct task_struct *``"""


def _frames(
    prog: Program, task: Object, what: str, problems: Problems
) -> tuple[tuple[Frame, ...], bool]:
    """Frames, and whether the task ran in user space."""
    with problems.trying(what):
        trace = unwind(prog, task)
        return ((), True) if trace is None else (_of_trace(prog, trace, what, problems), False)
    return (), False


def unwind(prog: Program, task: Object) -> StackTrace | None:
    """
    The kernel stack of a task.

    :param task: ``struct task_struct *``
    :return: None if the task ran in user space when the machine crashed, and the dump says so.
    :raises WalkError: if drgn cannot unwind it
    """
    try:
        return prog.stack_trace(task)
    except (FaultError, ValueError, LookupError) as error:
        of_power = prog.platform is not None and prog.platform.arch == Architecture.PPC64
        if of_power and isinstance(error, LookupError):
            # drgn finds no registers in the notes of a firmware-assisted dump.
            # not a problem: it is no such dump, and the error below is raised
            with contextlib.suppress(NotFound):
                return stack_of_running(prog, task)
        raise WalkError(f"drgn cannot unwind it: {error}") from None


def _of_trace(prog: Program, trace: StackTrace, what: str, problems: Problems) -> tuple[Frame, ...]:
    found: list[Frame] = []
    for frame in list(trace)[:_MAX_FRAMES]:
        pc = source = None
        try:
            pc = frame.pc
            file, line, _ = frame.source()
            source = f"{file}:{line}"
        except LookupError:
            pass  # not a problem: assembly has no lines
        if pc is None or not is_kernel_address(prog, pc):
            if _is_user_mode(frame):
                break  # the kernel was entered from here: the stack is whole
            after = found[-1].function if found else None
            why = f"the unwinder lost it after {after or 'its first frame'}"
            problems.add(Problem(cause=Cause.UNSUPPORTED, why=why), what)
            break
        # drgn's name of a frame without a symbol is its address.
        name = None if frame.name == f"{pc:#x}" else frame.name
        found.append(Frame(function=name or None, pc=pc, source=source, inlined=frame.is_inline))
    if len(trace) > _MAX_FRAMES:
        why = f"only the first {_MAX_FRAMES} of {len(trace)} frames"
        problems.add(Problem(cause=Cause.LIMIT, why=why), what)
    return tuple(found)


def _is_user_mode(frame: StackFrame) -> bool:
    """Whether a frame is of user space, by its registers; only those of x86 say so."""
    return frame.registers().get("cs", 0) & 3 == 3


def crashed_task(prog: Program) -> Partial[Object | None]:
    """``struct task_struct *`` of the task that panicked, if there was a panic."""
    problems = Problems()
    task: Object | None = None
    with problems.trying("the task that panicked"):
        try:
            found = prog.crashed_thread().object
        except (ValueError, LookupError) as error:
            if has_panicked(prog):
                why = f"drgn cannot tell: {error}"
                problems.add(Problem(cause=Cause.UNSUPPORTED, why=why), "the task that panicked")
        else:
            # drgn gives the structure or a pointer to it, by version.
            task = found if found.address_ is None else found.address_of_()
    return problems.partial(task)


def read_panic_stack(prog: Program) -> Partial[Backtrace | None]:
    """
    The stack of the task that panicked; None if there was no panic.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    need_kernel_debug_info(prog, "the stack of the panic")
    guard_reads(prog)
    problems = Problems()
    task = problems.take(crashed_task(prog))
    found = None
    if task is not None:
        with problems.trying(f"task_struct {task.value_():#x}"):
            found = _read(prog, task, task_cpu(task), True, problems)
    return problems.partial(found)


def _read(
    prog: Program, task: Object, cpu: int | None, crashed: bool, problems: Problems
) -> Backtrace:
    pid = task.pid.value_()
    frames, in_user_space = _frames(prog, task, f"stack of {pid}", problems)
    return Backtrace(
        cpu=cpu,
        pid=pid,
        comm=task.comm.string_().decode("utf-8", "backslashreplace"),
        crashed=crashed,
        frames=frames,
        in_user_space=in_user_space,
        object=task,
    )


def read_backtraces(prog: Program) -> Partial[tuple[Backtrace, ...]]:
    """
    The stacks of the task that panicked and of what each CPU ran, that of the panic first. A panic
    takes the other CPUs offline on some architectures, so these are all that are present.

    :raises MissingDebugInfo: without debug info of vmlinux
    """
    need_kernel_debug_info(prog, "the stacks")
    guard_reads(prog)
    problems = Problems()
    crashed = problems.take(crashed_task(prog))
    tasks: dict[int, tuple[int | None, Object]] = {}
    if crashed is not None:
        tasks[crashed.value_()] = (None, crashed)
    cpus = problems.collect(for_each_present_cpu(prog), "the CPUs")[:_MAX_CPUS]
    for cpu in cpus:
        with problems.trying(f"what CPU {cpu} ran"):
            task = cpu_curr(prog, cpu)
            tasks[task.value_()] = (cpu, task)
    found = []
    for address, (ran_on, task) in tasks.items():
        with problems.trying(f"task_struct {address:#x}"):
            by_panic = crashed is not None and address == crashed.value_()
            found.append(_read(prog, task, ran_on, by_panic, problems))
    return problems.partial(tuple(found))
