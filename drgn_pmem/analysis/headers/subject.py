# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Whose kernel a dump is of
-------------------------

A dump may hold the kernel that crashed, a guest that was still running, or the capture kernel that
was to save another one's dump. An answer from a capture kernel's memory would be about the
wrong kernel.

Sources: ``elfcorehdr_addr`` in kernel/crash_dump.c (set in a capture kernel only, by its command
line, device tree or fadump), ``panic_cpu`` in kernel/panic.c.
"""

from collections.abc import Callable
import enum

from drgn import FaultError, Object, Program, ProgramFlags

from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel.debuginfo import find_variable, has_variable
from drgn_pmem.partial import NotSaved, Partial, Problems
from drgn_pmem.record import Record

__all__ = ("DumpSubject", "Subject", "has_panicked", "subject_by_kernel", "subject_of")

_ELFCORE_ADDR_MAX = (1 << 64) - 1
"""``elfcorehdr_addr`` of a kernel that captures nothing: ``ELFCORE_ADDR_MAX`` of
include/linux/crash_dump.h."""

_ELFCORE_ADDR_ERR = (1 << 64) - 2
"""``ELFCORE_ADDR_ERR``: of a capture kernel that has read the header already (fs/proc/vmcore.c), or
found that it cannot be used."""

_PANIC_CPU_INVALID = -1


class Subject(enum.Enum):
    """Whose kernel a dump is of."""

    LIVE = "live kernel"
    """No dump: the running kernel."""
    CRASHED = "crashed kernel"
    """The kernel that crashed, saved by its capture kernel or dumped by a hypervisor."""
    RUNNING_GUEST = "running guest"
    """A guest that a hypervisor dumped before any panic."""
    CAPTURE_KERNEL = "capture kernel"
    """A kernel that was started to save the dump of the one before it."""

    @property
    def sentence(self) -> str:
        """For the first lines about a dump."""
        return _SENTENCES[self]


_SENTENCES = {
    Subject.LIVE: "the running kernel",
    Subject.CRASHED: "the kernel that crashed",
    Subject.RUNNING_GUEST: "a guest that was running: no CPU had panicked",
    Subject.CAPTURE_KERNEL: "the capture kernel, not the kernel that crashed",
}


class DumpSubject(Record):
    """Whose kernel a dump is of, and the evidence."""

    subject: Subject | None
    """None if the evidence cannot be read."""
    evidence: tuple[str, ...]
    """One sentence each."""


def subject_of(prog: Program) -> Partial[DumpSubject]:
    """
    Whose kernel the dump of a program is of.

    :raises DumpFileError: if the program has no dump file
    """
    from drgn_pmem.dumpfile import DumpFormat, dump_of  # on use: the first prompt needs no numpy

    dump = dump_of(prog)
    return _subject(prog, dump.contained is DumpFormat.LIVE, dump.hypervisor)


def subject_by_kernel(prog: Program, panicked: bool = False) -> Partial[DumpSubject]:
    """
    The same, by the kernel's variables alone: who wrote the file is not read. A guest that was
    running is then a kernel none of whose CPUs had panicked.

    :param panicked: Whether a panic is known otherwise, by its message.
    """
    live = bool(prog.flags & ProgramFlags.IS_LIVE)
    return _subject(prog, live, None, _Unguarded(panicked).read)


def _subject(
    prog: Program, live: bool, hypervisor: bool | None, read: "_Read | None" = None
) -> Partial[DumpSubject]:
    problems = Problems()
    evidence: list[str] = []
    subject = None
    if live:
        subject = Subject.LIVE
        evidence.append("the memory is that of a running machine")
    else:
        with problems.trying("whose kernel this is"):
            subject = _of_kernel(prog, hypervisor, evidence, read or _read)
    return problems.partial(DumpSubject(subject=subject, evidence=tuple(evidence)))


def _of_kernel(
    prog: Program, hypervisor: bool | None, evidence: list[str], read: "_Read"
) -> Subject:
    try:
        header = read(prog, "elfcorehdr_addr")
    except MissingDebugInfo as error:
        if error.module is not None:
            raise
        # built without CONFIG_CRASH_DUMP
        header = _ELFCORE_ADDR_MAX
    header %= 1 << 64
    if header == _ELFCORE_ADDR_ERR:
        evidence.append(
            "elfcorehdr_addr is ELFCORE_ADDR_ERR: booted with another kernel's elfcorehdr, which "
            "it has read or refused"
        )
        return Subject.CAPTURE_KERNEL
    if header != _ELFCORE_ADDR_MAX:
        evidence.append(f"elfcorehdr_addr is {header:#x}: booted with another kernel's elfcorehdr")
        return Subject.CAPTURE_KERNEL
    evidence.append("elfcorehdr_addr is not set: it captures no other kernel")
    if hypervisor is False:
        return Subject.CRASHED
    if hypervisor:
        evidence.append("a hypervisor wrote the dump")
    cpu = read(prog, "panic_cpu")
    if cpu == _PANIC_CPU_INVALID:
        evidence.append("panic_cpu is not set: no CPU had panicked")
        return Subject.RUNNING_GUEST
    evidence.append(f"panic_cpu is {cpu}")
    return Subject.CRASHED


def has_panicked(prog: Program) -> bool:
    """
    Whether a CPU had panicked.

    :raises MissingDebugInfo: without debug info of vmlinux
    :raises NotSaved: if the dump does not hold it
    """
    return _read(prog, "panic_cpu") != _PANIC_CPU_INVALID


_Read = Callable[[Program, str], int]


def _read(prog: Program, name: str) -> int:
    return _value(find_variable(prog, name, "vmlinux"), name)


def _value(variable: Object, name: str) -> int:
    try:
        return int((variable.counter if name == "panic_cpu" else variable).value_())
    except FaultError as error:
        raise NotSaved(f"{name}: {error}") from None


class _Unguarded:
    """Reads without the guard, which needs numpy, for which the first prompt does not wait: memory
    that was left out reads as zeroes, so that a zero is not known."""

    def __init__(self, panicked: bool) -> None:
        self._panicked = panicked

    def read(self, prog: Program, name: str) -> int:
        if not has_variable(prog, name):
            return _read(prog, name)  # says what is missing
        value = _value(prog[name], name)
        if not value and not (name == "panic_cpu" and self._panicked):
            raise NotSaved(f"{name}: zero, or not saved")
        return value
