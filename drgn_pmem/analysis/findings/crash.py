# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The crash itself
----------------

Which kernel died of what and when, and the file that it left.
"""

import contextlib
from dataclasses import asdict, dataclass
import os
import re
from typing import Any

from drgn import FaultError, Program
from drgn.helpers.linux.panic import panic_message

from drgn_pmem.errors import DumpFileError
from drgn_pmem.kernel.kmod import has_kernel_debug_info

__all__ = ("Crash", "panic_of", "read_crash")


@dataclass(frozen=True)
class Crash:
    """What crashed. Text out of the dump is as it is there: escape it before it is shown."""

    file: str | None
    """None if the program has no dump file."""
    size: int | None
    """bytes; None of a live kernel"""
    format: str | None
    """In words."""
    release: str | None
    """``uname -r``"""
    architecture: str | None
    panic: str | None
    """The panic's message; None if there was none, or it cannot be read."""
    time: int | None
    """``CRASHTIME`` of vmcoreinfo, seconds since 1970; a dump by a hypervisor has none."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_crash(prog: Program) -> Crash:
    """What can be told; never raises for what the dump lacks."""
    # Imported here: the shell's first prompt shows the panic, and waits for no numpy.
    from drgn_pmem.dumpfile import dump_of, vmcoreinfo_of
    from drgn_pmem.dumpfile.faults import guard_reads

    guard_reads(prog)
    file = size = format = None
    with contextlib.suppress(DumpFileError):
        dump = dump_of(prog)
        file, format = dump.path, dump.description
        with contextlib.suppress(OSError):
            size = os.stat(file).st_size
    values = vmcoreinfo_of(prog).values
    time = values.get("CRASHTIME", "")
    return Crash(
        file,
        size,
        format,
        values.get("OSRELEASE"),
        prog.platform.arch.name.lower() if prog.platform else None,
        panic_of(prog),
        int(time) if re.fullmatch(r"[0-9]{1,20}", time) else None,
    )


def panic_of(prog: Program) -> str | None:
    """The message of the panic, from the kernel log."""
    if not has_kernel_debug_info(prog):
        return None
    try:
        message = panic_message(prog)
    except (FaultError, LookupError, ValueError):
        return None
    return message.decode("utf-8", "backslashreplace") if message else None
