# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The crash itself
----------------

Which kernel crashed, why and when, and its dump file.
"""

import os
import re

from drgn import Program
from drgn.helpers.linux.panic import panic_message

from drgn_pmem.analysis.headers.subject import Subject, subject_by_kernel, subject_of
from drgn_pmem.errors import DumpFileError, MissingDebugInfo
from drgn_pmem.kernel.kmod import has_kernel_debug_info, how_to_get_kernel
from drgn_pmem.partial import Cause, Partial, Problem, Problems, WalkError
from drgn_pmem.record import Record, Show, shown

__all__ = ("Crash", "panic_of", "read_crash")


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
            # A live target has no file.
            size = None if dump.contained is DumpFormat.LIVE else os.stat(file).st_size
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
        architecture=prog.platform.arch.name.lower() if prog.platform else None,
        panic=problems.take(panic_of(prog)),
        time=int(time) if re.fullmatch(r"[0-9]{1,20}", time) else None,
    )
    return problems.partial(crash)


def panic_of(prog: Program) -> Partial[str | None]:
    """The message of the panic, from the kernel log; None if there was none."""
    problems = Problems()
    text: str | None = None
    with problems.trying("panic message"):
        if not has_kernel_debug_info(prog):
            raise MissingDebugInfo(
                f"no debug info of the kernel: {how_to_get_kernel(prog)}", "vmlinux"
            )
        try:
            message = panic_message(prog)
        except ValueError as error:
            raise WalkError(f"the kernel log cannot be read: {error}") from None
        text = message.decode("utf-8", "backslashreplace") if message else None
    return problems.partial(text)
