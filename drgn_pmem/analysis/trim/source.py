# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Headers and notes of a trimmed dump
-----------------------------------

They are taken from the input; what it lacks comes from the kernel's memory: VMCOREINFO if the file
has none or a wrong one, ``init_uts_ns``, addresses of the direct map.
"""

from collections.abc import Iterator
import struct

from drgn import Program

from drgn_pmem.analysis.headers.rebuild import architecture
from drgn_pmem.analysis.trim.headers import segments_of
from drgn_pmem.analysis.trim.plan import TrimPlan
from drgn_pmem.dumpfile import DumpFormat, dump_of, vmcoreinfo_of
from drgn_pmem.dumpfile.records import (
    EXCLUDED_VMEMMAP,
    HYPERVISOR_NOTES,
    DumpFile,
    PhysicalMemory,
)
from drgn_pmem.dumpfile.writing.contents import Contents, NoteData, Runs
from drgn_pmem.errors import DumpFileError
from drgn_pmem.formats.architecture import PPC64, Architecture
from drgn_pmem.partial import Problems

__all__ = ("contents_of",)

_NAMES = ("sysname", "nodename", "release", "version", "machine", "domainname")
_NT_PRSTATUS = 1
_NT_HYPERVISOR = 0x504D
"""A type that no other note has; crash looks only at the type."""
_ELFV2 = 2
"""``e_flags`` of little-endian 64-bit POWER."""
_INCOMPLETE = 1
"""``DUMP_ELF_INCOMPLETE``, see :mod:`drgn_pmem.dumpfile.elf`."""
_MAX_NOTE = 1 << 27
_ERASED = b"erase user data of persistent memory in pages with metadata: pmem-trim\n"


def contents_of(
    prog: Program, plan: TrimPlan, problems: Problems, format: str = "kdump"
) -> Contents:
    """
    The contents of the dump that a plan describes.

    :param format: ``"elf"`` for program headers, too.
    :param problems: What could not be read is added here.
    :raises DumpFileError: if the architecture has no name in ELF
    """
    dump = dump_of(prog)
    machine = architecture(prog)
    if machine is None or dump.memory_builder is None:
        raise DumpFileError(f"{dump.path}: a dump of this architecture cannot be written")
    info = vmcoreinfo_of(prog)
    header = dump.kdump
    notes = list(_notes(prog, dump, plan))
    builder = dump.memory_builder
    coverage = dump.coverage
    covered = Runs.of(coverage.covered())

    def reader() -> PhysicalMemory:
        return builder(coverage)

    return Contents(
        bits=dump.bits,
        byteorder=dump.byteorder,
        e_machine=machine.e_machine,
        e_flags=_e_flags(dump, machine),
        page_size=header.block_size if header else info.page_size or 4096,
        utsname=_utsname(prog, dump, machine, problems),
        timestamp=header.timestamp if header else _crash_time(info.values.get("CRASHTIME")),
        cpus=header.cpus
        if header
        else sum(note.name == b"CORE" and note.type == _NT_PRSTATUS for note in notes),
        phys_base=header.phys_base if header else info.numbers.get("phys_base", 0),
        dump_level=(header.dump_level or 0) if header else 0,
        status=header.status & EXCLUDED_VMEMMAP if header else 0,
        notes=notes,
        segments=segments_of(prog, dump, plan.filling, problems) if format == "elf" else (),
        covered=covered,
        kept=plan.keep,
        blank=plan.blank_ranges,
        reader=reader,
    )


def _notes(prog: Program, dump: DumpFile, plan: TrimPlan) -> Iterator[NoteData]:
    """The notes of the file, with the VMCOREINFO that drgn was opened with."""
    text = prog["VMCOREINFO"].string_()
    known = False
    for note in dump.notes:
        data = dump.note_data(note, _MAX_NOTE)
        if len(data) < note.size:
            continue  # the file ends within it, which is reported when it is opened
        if note.name == b"ERASEINFO":
            continue
        if note.name == b"VMCOREINFO":
            data = data if data.rstrip(b"\0") == text else text
            known = True
        yield NoteData(note.name, note.type, data)
    if not known:
        yield NoteData(b"VMCOREINFO", 0, text)
    if dump.hypervisor and not any(note.name in HYPERVISOR_NOTES for note in dump.notes):
        # Only the program headers showed it.
        yield NoteData(HYPERVISOR_NOTES[-1], _NT_HYPERVISOR, b"of a hypervisor\n")
    erased = "".join(f"{line}\n" for line in dump.erased).encode()
    if plan.blank_ranges:
        erased += _ERASED
    if erased:
        yield NoteData(b"ERASEINFO", 0, erased)


def _e_flags(dump: DumpFile, machine: Architecture) -> int:
    if dump.contained is DumpFormat.ELF:
        order = "<" if dump.byteorder == "little" else ">"
        raw = dump.read(0x30 if dump.bits == 64 else 0x24, 4)
        (flags,) = struct.unpack(f"{order}I", raw)
        # What the writer could not finish is excluded in the new dump.
        return int(flags) if machine == PPC64 else int(flags) & ~_INCOMPLETE
    return _ELFV2 if machine == PPC64 and dump.byteorder == "little" else 0


def _crash_time(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else 0


def _utsname(
    prog: Program, dump: DumpFile, machine: Architecture, problems: Problems
) -> dict[str, bytes]:
    names: dict[str, bytes] = {}
    with problems.trying("name of the kernel (init_uts_ns)"):
        uts = prog["init_uts_ns"].name
        names = {name: uts.member_(name).string_() for name in _NAMES}
    if not names and dump.kdump is not None:
        names = {name: text.encode() for name, text in dump.kdump.utsname.items()}
    if not names.get("machine"):
        release = vmcoreinfo_of(prog).osrelease or ""
        names = {
            "sysname": b"Linux",
            "release": release.encode(),
            "machine": (machine.others[0] if machine == PPC64 else machine.name).encode(),
        }
    return {name: names.get(name, b"") for name in _NAMES}
