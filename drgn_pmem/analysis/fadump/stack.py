# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The stack of the thread that crashed
------------------------------------

By the registers in the crash info header of fadump, or in the PRSTATUS note.
"""

import re

from drgn import Object, Program

from drgn_pmem.analysis.fadump.header import parse_header, read_header
from drgn_pmem.analysis.fadump.notes import crashing_registers, fadump_stack
from drgn_pmem.errors import FormatError, NotFound
from drgn_pmem.formats.fadump import FadumpHeader
from drgn_pmem.kernel.debuginfo import find_type
from drgn_pmem.kernel.fadump import fadump_layout, fw_dump
from drgn_pmem.partial import NotSaved, Partial, Problems

__all__ = ("parsed_registers", "read_crashed_stack")


def parsed_registers(prog: Program, header: FadumpHeader) -> Object | None:
    """``struct pt_regs`` of a header, None if nothing has crashed yet."""
    if not header.crashed or not any(header.regs):
        return None
    return Object.from_bytes_(prog, find_type(prog, "struct pt_regs", "vmlinux"), header.regs)


def read_crashed_stack(prog: Program) -> Partial[tuple[int, list[str]]]:
    """
    The stack of the thread that crashed, from the header if the dump holds it, else from the
    PRSTATUS note.

    :return: Logical CPU; one line for each frame.
    :raises NotFound: if nothing has crashed, or no registers were saved
    """
    conf, layout = fw_dump(prog), fadump_layout(prog)
    if conf.active:
        raise NotFound(
            "this dump was taken from the capture kernel; the crashed thread's stack is in memory "
            "that the firmware moved: open the crashed kernel with --crashed, or the /proc/vmcore "
            "that was saved"
        )
    problems = Problems()
    try:
        header = parse_header(read_header(prog, conf, layout), layout)
    except (NotSaved, FormatError):
        saved = problems.take(crashing_registers(prog))
        regs, cpu = saved.object(prog), saved.cpu
    else:
        found = parsed_registers(prog, header)
        if found is None:
            raise NotFound("no CPU has crashed: this dump was taken from a running kernel")
        regs, cpu = found, header.crashing_cpu
    # drgn shows the size of a symbol without one as 0x0.
    text = re.sub(r"/0x0\b", "", str(fadump_stack(prog, regs)))
    frames = text.splitlines()
    return problems.partial((cpu, frames))
