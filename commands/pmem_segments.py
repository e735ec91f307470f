# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-segments``: what each PT_LOAD covers, and contradictions."""

import argparse

from drgn import Program

from drgn_pmem.output.table import Field
from drgn_pmem.partial import Problems
from drgn_pmem.record import Show
from drgn_pmem.spec import Answer, Argument, command


def _range(start: int | None, size: int) -> str | None:
    return None if start is None else f"{start:#x}-{start + size:#x}"


@command(
    name="pmem-segments",
    description="show the dump's PT_LOAD segments and what each covers",
    long_description=(
        "Show each PT_LOAD of the dump: addresses, bytes in the file, the PF_DEV flag, what iomem\n"
        "and the namespaces have there, and contradictions: pmem without PF_DEV, PF_DEV\n"
        "without pmem, the crash kernel's own memory, RAM that is not in the dump. The order of\n"
        "the headers shows whether kexec_file_load or kexec-tools wrote them. A kdump-compressed\n"
        "dump has no headers: the ranges of its page bitmap are listed instead. Without debug\n"
        "info, only what is in the file."
    ),
    arguments=(Argument("-u", "--human", action="store_true", help="human-readable sizes"),),
    fields=(
        Field("INDEX", lambda s: s.index, "number of the program header", right=True),
        Field("PHYSICAL", lambda s: _range(s.physical, s.memory_size), "physical addresses",
              keep=3),
        Field("VIRTUAL", lambda s: _range(s.virtual, s.memory_size),
              "kernel virtual addresses", shown=False),
        Field("SIZE", lambda s: s.memory_size, "bytes of memory", right=True, show=Show.SIZE,
              keep=1),
        Field("IN_FILE", lambda s: s.file_size,
              "bytes in the file (kdump-compressed: of the pages saved, uncompressed)",
              right=True, show=Show.SIZE),
        Field("OFFSET", lambda s: s.file_offset, "file offset", right=True, shown=False),
        Field("FLAGS", lambda s: None if s.flags is None else f"{s.flags:#x}",
              "p_flags, raw; PF_DEV is 0x10", right=True),
        Field("PMEM", lambda s: s.pmem,
              "whether it has PF_DEV; kdump-compressed: by iomem and the regions"),
        Field("IOMEM", lambda s: s.iomem_names, "outermost iomem resources at these addresses",
              wrap=True),
        Field("NAMESPACES", lambda s: s.namespaces, "namespaces at these addresses", keep=2,
              wrap=True),
        Field("NOTES", lambda s: "; ".join(s.notes) or None, "contradictions", keep=2, wrap=True),
        Field("TYPE", lambda s: s.type, "PT_LOAD, or bitmap", shown=False),
    ),
    examples=(
        ("pmem-segments", "all segments"),
        ("pmem-segments -u -o +virtual", "human-readable sizes, virtual addresses added"),
        ("pmem-segments --json", "with every resource in each"),
    ),
    code=(
        "from drgn_pmem import read_segments\n\n"
        "found = read_segments(prog)\n"
        "answer = found.value\n"
        "print(answer.loader.text, *answer.notes, sep=\"\\n\")\n"
        "for segment in answer.segments:\n"
        "    print(segment.index, segment.physical, segment.memory_size, segment.pmem,\n"
        "          segment.iomem_names, segment.namespaces, *segment.notes)\n"
        "for problem in found.problems:\n    print(problem)\n"
    ),
    modules={"libnvdimm": "namespaces in system-ram mode, regions that iomem does not have"},
)  # fmt: skip
def pmem_segments(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.coverage.segments import read_segments

    problems = Problems()
    answer = problems.take(read_segments(prog))
    return Answer(
        answer.segments,
        [answer.loader.text, *answer.notes],
        problems=problems,
    )
