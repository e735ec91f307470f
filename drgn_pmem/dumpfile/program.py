# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Opening a program on a dump
---------------------------

:func:`open_program` opens what drgn opens, and kinds of dumps that drgn alone does not: those
without a VMCOREINFO note, or with one that does not fit the memory, whose text is found in the
crashed machine's memory; QEMU's kdump-compressed ones, whose header does not name the machine; and
ELF dumps with one segment at physical address 0, which drgn takes for one without physical
addresses. Flattened files that were cut short, which libkdumpfile refuses, and raw images of memory
are read in place.
"""

from collections.abc import Iterator, Sequence
import contextlib
from dataclasses import replace
import os

import drgn

from drgn_pmem.dumpfile.faults import (
    NO_IDENTITY,
    PAGE_TABLE_READER,
    add_memory,
    guard_reads,
)
from drgn_pmem.dumpfile.fit import guess_architecture
from drgn_pmem.dumpfile.opener import open_dump, set_dump
from drgn_pmem.dumpfile.records import DumpFile, DumpFormat
from drgn_pmem.dumpfile.remarks import remarks_on
from drgn_pmem.dumpfile.text import located_text, note_that_fits, text_that_fits
from drgn_pmem.dumpfile.vmcoreinfo import Vmcoreinfo
from drgn_pmem.errors import DumpFileError
from drgn_pmem.formats.architecture import ARCHITECTURES, find_architecture

__all__ = ("open_crashed_program", "open_image_program", "open_program")

_READER_KNOB = "DRGN_PREFER_PGTABLE_READER"
_PPC64_DIRECT_MAP = 0xC000000000000000
"""``PAGE_OFFSET`` of 64-bit POWER."""

_NO_MACHINE = "the header does not name the machine; give it with --architecture"
_DRGN_ERRORS = (OSError, ValueError, LookupError, OverflowError, drgn.BadDataError)


def open_program(
    path: str | os.PathLike[str],
    *,
    vmcoreinfo: bytes | None = None,
    architecture: drgn.Architecture | None = None,
) -> tuple[drgn.Program, list[str]]:
    """
    Open a dump with drgn. Loads no debug info; never opens the running kernel instead.

    :param path: Path of the dump.
    :param vmcoreinfo: Text to use instead of the dump's own.
    :param architecture: Architecture, where the dump does not say or says it wrong.
    :return: The program, and notes about anything unusual.
    :raises DumpFileError: if the dump cannot be opened; the message says what would help.
    """
    return _open(open_dump(path), vmcoreinfo, architecture)


def open_crashed_program(
    dump: DumpFile, *, vmcoreinfo: bytes | None = None
) -> tuple[drgn.Program, list[str]]:
    """
    Open a program on the crashed kernel in a dump of its capture kernel.

    :param dump: The opened dump, of all memory of the machine.
    :param vmcoreinfo: Text to use instead of the crashed kernel's own.
    :raises DumpFileError: if no crashed kernel is in it
    """
    from drgn_pmem.dumpfile.crashed import open_crashed, write_headers

    crashed, headers, lines = open_crashed(dump)
    if vmcoreinfo is None:
        vmcoreinfo = note_that_fits(crashed, lines)
    descriptor = write_headers(headers, crashed.size)
    try:
        path = f"/proc/self/fd/{descriptor}"
        prog = _set_core_dump(replace(crashed, path=path), vmcoreinfo, None)
    finally:
        os.close(descriptor)
    set_dump(prog, crashed)
    add_memory(prog, crashed)
    if prog.platform is not None and prog.platform.arch is drgn.Architecture.PPC64:
        _map_directly(prog, crashed)
    return prog, lines


def open_image_program(
    images: Sequence[tuple[str, int]],
    *,
    vmcoreinfo: bytes | None = None,
    architecture: drgn.Architecture | None = None,
) -> tuple[drgn.Program, list[str]]:
    """
    The same for raw images of memory.

    :param images: Path and physical address (bytes) of each.
    :raises UsageError: if they overlap
    """
    from drgn_pmem.dumpfile.rawimage import open_images

    return _open(open_images(images), vmcoreinfo, architecture)


def open_split_program(
    paths: Sequence[str],
    *,
    vmcoreinfo: bytes | None = None,
    architecture: drgn.Architecture | None = None,
) -> tuple[drgn.Program, list[str]]:
    """
    The same for the files of a split dump.

    :raises UsageError: if they are none
    """
    from drgn_pmem.dumpfile.split import open_split

    return _open(open_split(paths), vmcoreinfo, architecture)


def _open(
    dump: DumpFile, vmcoreinfo: bytes | None, architecture: drgn.Architecture | None
) -> tuple[drgn.Program, list[str]]:
    lines: list[str] = []
    if dump.format is DumpFormat.LIVE:
        return _set_core_dump(dump, vmcoreinfo, _platform(architecture)), lines
    if not dump.physical_addresses:
        raise DumpFileError(f"{dump.path}: the core of a process, not of a kernel; use drgn -c")
    if vmcoreinfo is not None:
        vmcoreinfo = text_that_fits(dump, vmcoreinfo, "the vmcoreinfo that was given", lines)
    elif not dump.vmcoreinfo:
        vmcoreinfo = located_text(dump, lines)
    elif dump.in_place:
        vmcoreinfo = note_that_fits(dump, lines)
    else:
        prog = _open_with_own_note(dump, architecture, lines)
        lines.extend(remarks_on(dump))
        return prog, lines
    prog = _open_with(dump, vmcoreinfo, architecture, lines)
    lines.extend(remarks_on(dump))
    return prog, lines


def _open_with_own_note(
    dump: DumpFile, architecture: drgn.Architecture | None, lines: list[str]
) -> drgn.Program:
    """By the dump's own note, if that fits the memory. Whether it does is looked at after drgn has
    opened the file: reading takes what we keep of the dump's pages, and for a moment libkdumpfile
    takes far more than that for its own."""
    own: list[str] = []
    try:
        prog = _open_with(dump, None, architecture, own)
    except DumpFileError:
        text = note_that_fits(dump, lines)
        if text is None:
            raise
    else:
        text = note_that_fits(dump, lines)
        if text is None:
            lines += own
            return prog
    return _open_with(dump, text, architecture, lines)


def _open_with(
    dump: DumpFile,
    vmcoreinfo: bytes | None,
    architecture: drgn.Architecture | None,
    lines: list[str],
) -> drgn.Program:
    if architecture is None and dump.contained is DumpFormat.KDUMP:
        architecture = _missing_architecture(dump, vmcoreinfo, lines)
    open_it = _open_in_place if dump.in_place else _open_file
    return open_it(dump, vmcoreinfo, architecture, lines)


def _open_file(
    dump: DumpFile,
    vmcoreinfo: bytes | None,
    architecture: drgn.Architecture | None,
    lines: list[str],
) -> drgn.Program:
    platform = _platform(architecture, dump)
    try:
        prog = _set_core_dump(dump, vmcoreinfo, platform)
        kernel = bool(prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL)
    except DumpFileError:
        if vmcoreinfo is not None or dump.vmcoreinfo is None:
            raise
        kernel = False
    if not kernel and vmcoreinfo is None:
        # drgn does not find a note whose padding is missing at the end of its segment: it takes the
        # dump for the core of a process, or refuses it.
        prog = _set_core_dump(dump, dump.vmcoreinfo, platform)
    if dump.contained is DumpFormat.ELF and dump.vmcoreinfo is None:
        _add_physical_memory(prog, dump, lines)
    set_dump(prog, dump)
    if dump.hypervisor:
        prog.cache[NO_IDENTITY] = True
    if dump.lost_pages or dump.hypervisor:
        # Now, not at the first command: drgn's own reads would end the process, or be of physical
        # memory, too.
        lines.extend(map(str, guard_reads(prog).problems))
    return prog


def _open_in_place(
    dump: DumpFile,
    vmcoreinfo: bytes | None,
    architecture: drgn.Architecture | None,
    lines: list[str],
) -> drgn.Program:
    """A raw image, the files of a split dump, or a flattened file that libkdumpfile refuses or may
    crash on: drgn gets the memory, not the file."""
    text = vmcoreinfo or dump.vmcoreinfo or b""
    name = _architecture_name(dump, text) if architecture is None else architecture.name
    if name is None:
        raise DumpFileError(f"{dump.path}: {_NO_MACHINE}")
    prog = drgn.Program(_platform(drgn.Architecture[name], dump))
    try:
        prog.set_linux_kernel_custom(text, False)
    except _DRGN_ERRORS as error:
        raise DumpFileError(f"{dump.path}: drgn cannot use its VMCOREINFO: {error}") from error
    set_dump(prog, dump)
    prog.cache[PAGE_TABLE_READER] = True
    add_memory(prog, dump)
    if drgn.Architecture[name] is drgn.Architecture.PPC64:
        _map_directly(prog, dump)
    if dump.joined:
        what = "a split dump, read in place, has"
    elif dump.format is DumpFormat.IMAGE:
        what = "raw memory has"
    elif dump.source_complete:
        what = "a flattened file with section headers, read in place, has"
    else:
        what = "a flattened file that was cut short, read in place, has"
    lines.append(
        f"{dump.path}: {what} no registers of the CPUs for drgn: running tasks have no stack traces"
    )
    return prog


def _map_directly(prog: drgn.Program, dump: DumpFile) -> None:
    """Map all memory where 64-bit POWER has it. The hash MMU has no page tables that drgn can walk,
    and kernels before 6.8 do not say in vmcoreinfo which MMU is in use."""

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        return prog.read(address - _PPC64_DIRECT_MAP, count, True)

    for item in dump.coverage.extent():
        prog.add_memory_segment(_PPC64_DIRECT_MAP + item.start, item.size, read)


def _set_core_dump(
    dump: DumpFile, vmcoreinfo: bytes | None, platform: drgn.Platform | None
) -> drgn.Program:
    ends = dump.kdump is not None and dump.kdump.beyond_the_end(dump.size)
    if ends:
        raise DumpFileError(
            f"{dump.path}: the file ends before its {ends}; no memory can be read from it"
        )
    try:
        prog = drgn.Program(platform, vmcoreinfo=vmcoreinfo)
        # libkdumpfile crashes after the end of the file (faults.py): let it translate nothing.
        with _environment(_READER_KNOB, "1" if dump.kdump and dump.lost_pages else None):
            prog.set_core_dump(dump.path)
            prog.cache[PAGE_TABLE_READER] = os.environ.get(_READER_KNOB, "0") not in ("", "0")
    except Exception as error:
        # drgn raises Exception itself for what it has no class for, libkdumpfile's errors among it.
        if type(error) is not Exception and not isinstance(error, _DRGN_ERRORS):
            raise
        reason = " ".join(str(error).split())
        raise DumpFileError(f"{dump.path}: drgn cannot open it: {reason}{_advice(dump)}") from error
    return prog


@contextlib.contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Set an environment variable for a moment; ``None`` leaves it as it is."""
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        if value is not None:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before


def _advice(dump: DumpFile) -> str:
    if dump.format is DumpFormat.FLATTENED:
        return f" (reassemble it first: makedumpfile -R NEWFILE < {dump.path})"
    if dump.truncated:
        return " (the file is cut short)"
    return ""


def _platform(
    architecture: drgn.Architecture | None, dump: DumpFile | None = None
) -> drgn.Platform | None:
    if architecture is None:
        return None
    platform = drgn.Platform(architecture)
    if dump is None:
        return platform
    flags = platform.flags & ~drgn.PlatformFlags.IS_LITTLE_ENDIAN
    if dump.byteorder == "little":
        flags |= drgn.PlatformFlags.IS_LITTLE_ENDIAN
    return drgn.Platform(architecture, flags)


def _missing_architecture(
    dump: DumpFile, vmcoreinfo: bytes | None, lines: list[str]
) -> drgn.Architecture | None:
    """Architecture of a kdump-compressed dump that does not name it as libkdumpfile expects."""
    header = dump.kdump
    if header is None or header.utsname["sysname"]:
        return None
    name = _architecture_name(dump, vmcoreinfo)
    if name is None:
        raise DumpFileError(f"{dump.path}: {_NO_MACHINE}")
    lines.append(f"{dump.path}: no machine name in the header; taken as {name}")
    return drgn.Architecture[name]


def _architecture_name(dump: DumpFile, vmcoreinfo: bytes | None) -> str | None:
    if vmcoreinfo or dump.vmcoreinfo:
        name = guess_architecture(Vmcoreinfo.parse(vmcoreinfo or dump.vmcoreinfo or b""))
        if name is not None:
            return name
    found = find_architecture(dump.machine)
    if found is not None:
        return found.drgn
    # NT_PRSTATUS of a CPU
    sizes = {note.size for note in dump.notes if note.name == b"CORE" and note.type == 1}
    return next((item.drgn for item in ARCHITECTURES if item.prstatus_size in sizes), None)


def _add_physical_memory(prog: drgn.Program, dump: DumpFile, lines: list[str]) -> None:
    """
    Give drgn the physical memory of a dump whose only ``p_paddr`` is 0.

    Without a VMCOREINFO note of the file's own, drgn uses physical addresses only if one of them is
    not 0. POWER's linear mapping is given in any case: these headers do not have it, and drgn does
    not translate it with the hash MMU.
    """
    if prog.platform is not None and prog.platform.arch is drgn.Architecture.PPC64:
        _map_directly(prog, dump)
    if any(segment.physical for segment in dump.segments):
        return
    memory = dump.memory
    if memory is None:
        return

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        try:
            return memory.read(address, count)
        except DumpFileError as error:
            raise drgn.FaultError("memory not saved in core dump", address) from error

    for item in dump.coverage.extent():
        prog.add_memory_segment(item.start, item.size, read, physical=True)
    lines.append(
        f"{dump.path}: the only segment begins at physical address 0, which drgn ignores;"
        " drgn-pmem gave the memory to it"
    )
