# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``elfcorehdr``: the crash header found, rebuilt and implied, compared."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from drgn_pmem.partial import Problems
from drgn_pmem.record import Show
from drgn_pmem.spec import Answer, Argument, Field, command

if TYPE_CHECKING:
    from drgn import Program

    from drgn_pmem.analysis.headers.compare import CrashHeaders
    from drgn_pmem.formats.elfcorehdr import CrashHeader, ProgramHeader

_HEADERS = ("found", "rebuilt", "implied")

_FIELDS = (
    Field("WHAT", lambda row: row["what"], "what the program header is for"),
    Field("PHYSICAL", lambda row: row["physical"], "physical address", right=True),
    Field("SIZE", lambda row: row["size"], "bytes of memory", right=True, show=Show.SIZE),
    Field("FLAGS", lambda row: row["flags"], "p_flags, raw; 0x10 is PF_DEV", right=True),
    Field(
        "FOUND",
        lambda row: row["found"],
        "whether it is in the header found in memory: yes or no; covered, partly: its memory is in "
        "other program headers, all or part of it; merged: with other notes",
    ),
    Field("REBUILT", lambda row: row["rebuilt"], "whether it is in the rebuilt header"),
    Field(
        "IMPLIED",
        lambda row: row["implied"],
        "whether it is in the dump's own headers; /proc/vmcore merges the notes",
    ),
    Field("VIRTUAL", lambda row: row["virtual"], "kernel virtual address", right=True, shown=False),
    Field("OFFSET", lambda row: row["offset"], "where the bytes are read", right=True, shown=False),
)

_DIFFERENCE_FIELDS = (
    Field("CAUSE", lambda item: item.cause.value, "cause, in a word"),
    Field(
        "BETWEEN",
        lambda item: "/".join(source.value for source in item.between),
        "which two headers differ",
    ),
    Field("DIFFERENCE", lambda item: item.difference.words, "what one of them has", wrap=True),
    Field("EXPLANATION", lambda item: item.explanation, "why", keep=1, wrap=True),
)


@command(
    name="elfcorehdr",
    description="the crash header: found in memory, rebuilt, implied by the dump; compared",
    long_description=(
        "Which memory should have been in the dump, and whether it is. The crash header is\n"
        "looked for in the memory reserved for the crash kernel, rebuilt from the state of the\n"
        "crashed kernel, and derived from the dump's own program headers; what differs is\n"
        "explained: memory or CPUs added after the crash kernel was loaded, persistent memory\n"
        "that was not marked, exclusions that failed."
    ),
    arguments=(
        Argument(
            "--write",
            kind="file",
            metavar="FILE",
            help="write the rebuilt header to FILE, as an ELF file that readelf accepts",
        ),
    ),
    fields=_FIELDS,
    examples=(
        ("elfcorehdr", "the three headers side by side, differences explained"),
        ("elfcorehdr --json", "the same, for scripts"),
        ("elfcorehdr --write /tmp/elfcorehdr", "write the rebuilt header, for readelf -lW"),
    ),
    code=(
        "from drgn_pmem import read_crash_headers\n\n"
        "answer = read_crash_headers(prog)\n"
        "headers = answer.value\n"
        "for header in (headers.found, headers.rebuilt, headers.implied):\n"
        "    for phdr in header.phdrs if header is not None else ():\n"
        "        print(header.source.value, phdr)\n"
        "for difference in headers.differences:\n    print(difference)\n"
        "for problem in answer.problems:\n    print(problem)"
    ),
    modules={"libnvdimm": "persistent memory that is in no header"},
)
def elfcorehdr(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.headers.compare import read_crash_headers

    problems = Problems()
    headers = problems.take(read_crash_headers(prog))
    notes = _notes(headers)
    if args.write is not None:
        notes.append(_write(prog, headers, args.write, problems))
    return Answer(
        [headers],
        notes=notes,
        problems=problems,
        json=headers.to_json(),
        sections=(
            ("", _rows(headers), _FIELDS),
            ("Differences:", headers.differences, _DIFFERENCE_FIELDS),
        ),
    )


def _notes(headers: CrashHeaders) -> list[str]:
    notes = list(headers.notes)
    if headers.loader is not None:
        notes.append(f"the crash kernel was loaded by {headers.loader.value}")
    elif headers.hotplug is not None:
        notes.append("no crash kernel is loaded")
    if headers.reservations:
        reserved = (f"{item.name} {item.start:#x}-{item.end:#x}" for item in headers.reservations)
        notes.append(f"reserved for the crash kernel: {', '.join(reserved)}")
    if headers.hotplug is not None and headers.image is not None:
        notes.append(f"hotplug: {headers.hotplug.words}")
        notes += [
            f"{item.path} would read {item.value} ({item.why})"
            for item in headers.hotplug.sysfs
            if item.value is not None
        ]
    if headers.identical is not None:
        notes.append(f"the header in memory {_same(headers)}")
    return notes


def _same(headers: CrashHeaders) -> str:
    if headers.identical:
        return "equals the rebuilt one byte for byte"
    if headers.identical_but_for_differences:
        return "equals the rebuilt one byte for byte, except for the differences above"
    return "does not equal the rebuilt one byte for byte"


def _rows(headers: CrashHeaders) -> list[dict[str, Any]]:
    """One row for each program header that any of the three has."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name in _HEADERS:
        header: CrashHeader | None = getattr(headers, name)
        for phdr in header.phdrs if header is not None else ():
            row = rows.setdefault(
                _key(phdr),
                {
                    "what": phdr.what,
                    "physical": f"{phdr.physical:#x}",
                    "virtual": f"{phdr.virtual:#x}",
                    "offset": f"{phdr.offset:#x}",
                    "size": phdr.memory_size,
                    "flags": f"{phdr.flags:#x}",
                    **{other: _elsewhere(getattr(headers, other), phdr) for other in _HEADERS},
                },
            )
            row[name] = "yes"
    return list(rows.values())


def _key(phdr: ProgramHeader) -> tuple[Any, ...]:
    return (phdr.type, phdr.physical, phdr.memory_size, phdr.flags)


def _elsewhere(header: CrashHeader | None, phdr: ProgramHeader) -> str | None:
    """How a header covers a program header that is not its own."""
    from drgn_pmem.formats.elfcompare import memory_covered
    from drgn_pmem.formats.elfcorehdr import PT_LOAD, HeaderSource, Role

    if header is None:
        return None
    if phdr.type != PT_LOAD:
        implied = header.source is HeaderSource.IMPLIED
        if implied and header.notes:
            return "merged"
        if header.of_bitmap:
            return None  # a page bitmap has no program headers, of notes neither
        return None if phdr.role is Role.NOTES else "no"
    covered = memory_covered(header, phdr.physical, phdr.end)
    if not covered:
        return "no"
    return "covered" if covered == phdr.memory_size else "partly"


def _write(prog: Program, headers: CrashHeaders, path: str, problems: Problems) -> str:
    from drgn_pmem.analysis.headers.sources import note_contents
    from drgn_pmem.errors import NotFound, PmemError
    from drgn_pmem.formats.elfcorehdr import HeaderSource, to_elf_file
    from drgn_pmem.output.files import write_file

    header = headers.rebuilt
    if header is None:
        why = headers.why[HeaderSource.REBUILT]
        raise NotFound(f"no rebuilt header to write: {why}")
    contents = problems.take(note_contents(prog, header), path)
    try:
        write_file(path, to_elf_file(header, contents))
    except OSError as error:
        raise PmemError(f"elfcorehdr: {path}: {error.strerror}") from error
    return f"the rebuilt header is in {path}"
