# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The crash itself
----------------

Which kernel crashed, why and when, and its dump file.
"""

import os
import re

from drgn import Architecture, PlatformFlags, Program
from drgn.helpers.linux.panic import panic_message
from drgn.helpers.linux.timekeeping import uptime

from drgn_pmem.analysis.headers.subject import Subject, subject_by_kernel, subject_of
from drgn_pmem.errors import DumpFileError, MissingDebugInfo
from drgn_pmem.kernel.kernellog import check_log
from drgn_pmem.kernel.kmod import has_kernel_debug_info, how_to_get_kernel
from drgn_pmem.partial import Cause, Partial, Problem, Problems, WalkError
from drgn_pmem.record import Record, Show, shown

__all__ = ("Crash", "architecture_of", "panic_of", "read_crash", "taint_words")


class Crash(Record):
    """What crashed. Text from the dump is unchanged: escape it before it is shown."""

    file: str | None
    """None if the program has no dump file."""
    size: int | None = shown(Show.SIZE)
    """bytes; None of a live kernel"""
    format: str | None
    """In words."""
    subject: Subject | None
    """Whose kernel it is; None if that cannot be read."""
    release: str | None
    """``uname -r``"""
    architecture: str | None
    panic: str | None
    """The panic's message; None if there was none, or it cannot be read."""
    time: int | None
    """``CRASHTIME`` of vmcoreinfo, seconds since 1970; a dump by a hypervisor has none."""
    uptime: float | None
    """seconds since boot, as of the last tick; None if it cannot be read"""
    taints: str | None
    """Letters of the taint flags that are set, empty if there are none: ``"MW"``. None if they
    cannot be read."""


def read_crash(prog: Program) -> Partial[Crash]:
    """Which kernel crashed, why and when, and its dump file."""
    # Imported here: the shell's first prompt shows the panic, and waits for no numpy.
    from drgn_pmem.dumpfile import DumpFormat, dump_of, vmcoreinfo_of
    from drgn_pmem.dumpfile.faults import guard_reads

    guard_reads(prog)
    problems = Problems()
    file = size = format = None
    try:
        dump = dump_of(prog)
    except DumpFileError:
        # not a problem: a live kernel, or memory without a file
        pass
    else:
        file, format = dump.path, dump.description
        try:
            if dump.size_of_files is not None:
                size = dump.size_of_files
            elif dump.contained is not DumpFormat.LIVE:
                size = os.stat(file).st_size
        except OSError as error:
            why = f"{file}: {error.strerror}"
            problems.add(Problem(cause=Cause.NOT_SAVED, why=why), "size of the dump")
    values = vmcoreinfo_of(prog).values
    time = values.get("CRASHTIME", "")
    crash = Crash(
        file=file,
        size=size,
        format=format,
        release=values.get("OSRELEASE"),
        subject=problems.take(
            subject_by_kernel(prog) if format is None else subject_of(prog)
        ).subject,
        architecture=architecture_of(prog),
        panic=problems.take(panic_of(prog)),
        time=int(time) if re.fullmatch(r"[0-9]{1,20}", time) else None,
        uptime=problems.attempt("uptime", lambda: _uptime(prog)),
        taints=problems.attempt("taint flags", lambda: _taints(prog)),
    )
    return problems.partial(crash)


def architecture_of(prog: Program) -> str | None:
    """As ``uname -m`` names it: ``"x86_64"``, ``"ppc64le"``; None if it is not known."""
    platform = prog.platform
    if platform is None:
        return None
    little = bool(platform.flags & PlatformFlags.IS_LITTLE_ENDIAN)
    return platform.arch.name.lower() + (
        "le" if platform.arch == Architecture.PPC64 and little else ""
    )


def _need_kernel(prog: Program) -> None:
    if not has_kernel_debug_info(prog):
        raise MissingDebugInfo(f"no debug info of the kernel: {how_to_get_kernel(prog)}", "vmlinux")


def _uptime(prog: Program) -> float:
    _need_kernel(prog)
    return float(uptime(prog))


def _taints(prog: Program) -> str:
    _need_kernel(prog)
    mask = prog["tainted_mask"].value_()
    # What is printed for a flag that is not set is not the same in all kernels.
    flags = enumerate(prog["taint_flags"])
    return "".join(chr(flag.c_true.value_()) for bit, flag in flags if mask >> bit & 1)


# kernel/panic.c and Documentation/admin-guide/tainted-kernels.rst
_TAINTS = {
    "P": "proprietary module",
    "F": "module loaded by force",
    "S": "CPU out of specification",
    "R": "module unloaded by force",
    "M": "machine check",
    "B": "bad page",
    "U": "on request of a user",
    "D": "oops before",
    "A": "ACPI table overridden",
    "W": "warning",
    "C": "staging driver",
    "I": "firmware bug",
    "O": "out-of-tree module",
    "E": "unsigned module",
    "L": "soft lockup",
    "K": "live patch",
    "X": "distribution",
    "T": "randomized structures",
    "N": "test",
    "t": "technology preview",  # RHEL
    "J": "firmware control debug interface",
}


def taint_words(taints: str) -> str:
    """``"machine check, warning (MW)"``"""
    words = [_TAINTS.get(letter, f"flag {letter}") for letter in taints]
    return f"{', '.join(words)} ({taints})"


def panic_of(prog: Program) -> Partial[str | None]:
    """The message of the panic, from the kernel log; None if there was none."""
    problems = Problems()
    text: str | None = None
    with problems.trying("panic message"):
        _need_kernel(prog)
        check_log(prog)
        try:
            message = panic_message(prog)
        except ValueError as error:
            raise WalkError(f"the kernel log cannot be read: {error}") from None
        text = message.decode("utf-8", "backslashreplace") if message else None
    return problems.partial(text)
