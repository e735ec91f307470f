# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``fadump``: the crash info header of a firmware-assisted dump."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import sys
from typing import TYPE_CHECKING, Any

from drgn_pmem.partial import Problems
from drgn_pmem.record import Show
from drgn_pmem.spec import Answer, Argument, Field, command

if TYPE_CHECKING:
    from drgn import Program

    from drgn_pmem.analysis.fadump.examine import Fadump
    from drgn_pmem.analysis.fadump.header import FadumpField
    from drgn_pmem.formats.elfcorehdr import ProgramHeader

_Section = tuple[str, Sequence[Any], Sequence[Field]]
"""Title, records, fields."""

_FIELDS = (
    Field("FIELD", lambda item: item.name, "field of the crash info header"),
    Field("VALUE", lambda item: _value(item, item.value), "its value", keep=2, wrap=True),
    Field("FROM", lambda item: item.source, "where the value was taken from", wrap=True),
    Field(
        "EXPECTED",
        lambda item: None if item.differs is None else _value(item, item.expected),
        "for a header found in memory: what the value should be, by the state of the kernel",
    ),
    Field("DIFFERS", lambda item: item.differs, "whether the value is wrong", keep=3),
)

_REGION_FIELDS = (
    Field("BOOT MEMORY", lambda region: f"{region.start:#x}", "what the firmware copies"),
    Field("SIZE", lambda region: region.size, "bytes", right=True, show=Show.SIZE),
    Field("DESTINATION", lambda region: f"{region.destination:#x}", "where to"),
)

_PHDR_FIELDS = (
    Field("ELFCOREHDR", lambda phdr: phdr.what, "what the program header is for"),
    Field(
        "PHYSICAL", lambda phdr: _known(phdr, f"{phdr.physical:#x}"), "physical address", right=True
    ),
    Field("SIZE", lambda phdr: _known(phdr, phdr.memory_size), "bytes", right=True, show=Show.SIZE),
    Field(
        "OFFSET", lambda phdr: _known(phdr, f"{phdr.offset:#x}"), "where its bytes are", right=True
    ),
)


def _known(phdr: ProgramHeader, value: object) -> object:
    """The place of the CPU notes is not known before the capture kernel allocates it."""
    from drgn_pmem.formats.elfcorehdr import Role

    return None if phdr.role is Role.CPU_NOTES and not phdr.memory_size else value


def _value(field: FadumpField, value: object) -> object:
    if isinstance(value, int) and field.is_address:
        return f"{value:#x}"
    if value is None and field.name == "crashing_cpu":
        return "none yet"
    if isinstance(value, dict):  # registers
        return f"nip {value['nip']} {value.get('function', '')}, r1 {value['r1']}"
    return value


@command(
    name="fadump",
    description="firmware-assisted dump: its header, the kernel's verdict, the reserve area",
    long_description=(
        "Why a firmware-assisted dump (POWER) failed, or would have: the crash info header, found\n"
        "in memory (each field next to its expected value) or reconstructed where the dump leaves\n"
        "it out, with the source of each field; the verdict of the kernel's own check; the boot\n"
        "memory and where it is copied; the reserve area; the elfcorehdr, rebuilt and compared\n"
        "with the dump's PT_LOADs."
    ),
    arguments=(
        Argument(
            "--stack",
            action="store_true",
            help="show the stack of the thread that crashed, from the registers that were saved",
        ),
    ),
    fields=_FIELDS,
    examples=(
        ("fadump", "the header, the verdict, a drawing of the reserve area"),
        ("fadump --stack", "the stack of the thread that crashed"),
    ),
    code=lambda args: (
        (
            "from drgn_pmem import read_crashed_stack\n\n"
            "cpu, frames = read_crashed_stack(prog)\n"
            "print('CPU', cpu, *frames, sep='\\n')"
        )
        if args.stack
        else (
            "from drgn_pmem import read_fadump\n\n"
            "answer = read_fadump(prog)\n"
            "fadump = answer.value\n"
            "print(fadump.state, fadump.verdict)\n"
            "for field in fadump.fields:\n    print(field)\n"
            "for problem in answer.problems:\n    print(problem)"
        )
    ),
)
def fadump(prog: Program, args: argparse.Namespace) -> Answer:
    if args.stack:
        return _stack(prog)
    from drgn_pmem.analysis.fadump.examine import read_fadump

    problems = Problems()
    found = problems.take(read_fadump(prog))
    sections: list[_Section] = [
        (f"Crash info header {found.header.layout}, {found.source.value}:", found.fields, _FIELDS),
        ("", found.boot_regions, _REGION_FIELDS),
    ]
    if found.elf is not None:
        sections.append(("", found.elf.rebuilt.phdrs, _PHDR_FIELDS))
    return Answer(
        [found],
        problems=problems,
        json={**found.to_json(), "notes": [str(problem) for problem in problems]},
        sections=tuple(sections),
        text=None if args.fields or args.no_header or args.csv else _text(args, found, sections),
    )


def _text(args: argparse.Namespace, found: Fadump, sections: list[_Section]) -> str:
    from drgn_pmem.analysis.fadump.area import draw_reserve_area
    from drgn_pmem.analysis.fadump.header import FadumpSource
    from drgn_pmem.output.terminal import layout, look_of, paragraph
    from drgn_pmem.spec import rounded

    look = look_of(sys.stdout, rounded=rounded(args))
    verdict = found.verdict.words
    if found.source is not FadumpSource.FOUND:
        verdict += ", if it is as reconstructed here"
    blocks = [f"State: {found.state}\nVerdict: {verdict}"]
    for title, records, fields in sections:
        if records:
            blocks.append((f"{title}\n" if title else "") + layout(records, fields, look))
    if found.area:
        blocks.append(f"Reserve area:\n{draw_reserve_area(list(found.area))}")
    if found.elf is not None and found.elf.matches_dump is not None:
        match = "are" if found.elf.matches_dump else "are NOT"
        blocks.append(f"The dump's PT_LOADs {match} those of the rebuilt elfcorehdr.")
    if found.elf is not None and found.elf.identical is not None:
        same = "is" if found.elf.identical else "is NOT"
        blocks.append(f"The elfcorehdr in memory {same} the rebuilt one, byte for byte.")
    if found.wrong:
        wrong = (paragraph(f"  {line}") for line in found.wrong)
        blocks.append("Problems:\n" + "\n".join(wrong))
    return "\n\n".join(blocks)


def _stack(prog: Program) -> Answer:
    from drgn_pmem.analysis.fadump.stack import read_crashed_stack

    problems = Problems()
    cpu, frames = problems.take(read_crashed_stack(prog))
    return Answer(
        frames,
        problems=problems,
        text="\n".join((f"CPU {cpu}", *frames)),
        json={"cpu": cpu, "frames": frames},
    )
