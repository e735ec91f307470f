# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The target
----------

Opens what the command line names, once, with the debug info that belongs to it. A path that cannot
be opened is an error: nothing here falls back to the running kernel.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
import logging
import os
from pathlib import Path
import re
import struct
from typing import IO

import drgn

from drgn_pmem.errors import DumpFileError, MissingDebugInfo, PmemError, UsageError
from drgn_pmem.output.text import escape
from drgn_pmem.shell.log import logger
from drgn_pmem.shell.options import apply_debug_info_options, parse

__all__ = ("Target", "build_id_of_file", "open_target")

# include/uapi/linux/elf.h; the size of Elf64_Phdr, and the count that means "look elsewhere".
_ET_REL = 1
_ET_CORE = 4
_SHT_NOTE = 7
_NT_GNU_BUILD_ID = 3
_PHDR_SIZE = 56
_PN_XNUM = 0xFFFF

_MAX_VMCOREINFO = 1 << 20
_MAX_NOTES = 1 << 20


@dataclass(frozen=True)
class Target:
    """A program to ask, and what the user must know about how it was opened."""

    prog: drgn.Program
    name: str
    """The dump's path, ``the running kernel``, or the address of the QEMU guest."""
    notes: list[str] = field(default_factory=list)
    """Lines to tell the user: what was odd about the dump file."""
    missing: str = ""
    """One line about debug info that was not found and how to load it; empty if all is there."""
    missing_kernel: bool = False
    """True if the kernel's own debug info is missing, not only some module's."""

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "notes": self.notes,
            "missing": self.missing or None,
            "missing_kernel": self.missing_kernel,
        }


def open_target(options: argparse.Namespace, meanwhile: Callable[[], None] | None = None) -> Target:
    """
    Open the dump or live kernel that the options name and load debug info.

    :param meanwhile: Called just before debug info is loaded, which drgn does without the
        interpreter for the most part: what a thread imports from there on costs least.
    :raises PmemError: one line: what is wrong with the file, or with the debug info given
    """
    vmcoreinfo = None
    if options.vmcoreinfo is not None:
        vmcoreinfo = _read(options.vmcoreinfo, _MAX_VMCOREINFO, "--vmcoreinfo")
    architecture = options.architecture.upper() if options.architecture else None
    if architecture is not None and architecture not in drgn.Architecture.__members__:
        raise UsageError(f"drgn knows no architecture {escape(architecture)!r}")
    for path in (*options.symbols, *options.extra_symbols):
        _check_readable(path)
    notes: list[str] = []
    if options.core is not None:
        prog, notes = _open_core(options.core, vmcoreinfo, architecture)
        name = options.core
    else:
        prog, name = _open_live(options, vmcoreinfo, architecture)
    unknown = apply_debug_info_options(prog, options)
    if unknown:
        raise UsageError(
            "no way to find debug info is named " + " or ".join(repr(word) for word in unknown)
        )
    check_symbols(prog, options.symbols)
    if meanwhile is not None:
        meanwhile()
    missing, missing_kernel = load_debug_info(
        prog,
        options.symbols,
        options.extra_symbols,
        {"default": True, "main": True}
        if options.default_symbols is None
        else options.default_symbols,
    )
    return Target(prog, name, notes, missing, missing_kernel)


def open_path(
    path: "str | os.PathLike[str]",
    symbols: "Sequence[str | os.PathLike[str]]",
    *,
    debug_directories: "Sequence[str | os.PathLike[str]]",
    kernel_directories: "Sequence[str | os.PathLike[str]]",
    vmcoreinfo: "str | os.PathLike[str] | None",
    architecture: str | None,
) -> drgn.Program:
    """For :func:`drgn_pmem.open`."""
    options = parse(["-c", os.fspath(path), *(f"-s{os.fspath(file)}" for file in symbols)])
    options.debug_directories = [os.fspath(directory) for directory in debug_directories]
    options.kernel_directories = [os.fspath(directory) for directory in kernel_directories]
    options.vmcoreinfo = None if vmcoreinfo is None else os.fspath(vmcoreinfo)
    options.architecture = architecture
    target = open_target(options)
    for note in (*target.notes, target.missing):
        if note:
            logger.warning("%s", note)
    drgn.set_default_prog(target.prog)
    return target.prog


def _open_core(
    path: str, vmcoreinfo: bytes | None, architecture: str | None
) -> tuple[drgn.Program, list[str]]:
    _check_readable(path)
    if vmcoreinfo is None and architecture is None and _is_whole_elf(path):
        prog = _open_plainly(path)
        if prog is not None:
            return prog, []
    from drgn_pmem.dumpfile.program import open_program

    return open_program(
        path,
        vmcoreinfo=vmcoreinfo,
        architecture=None if architecture is None else drgn.Architecture[architecture],
    )


def _open_plainly(path: str) -> drgn.Program | None:
    """
    Open what drgn itself opens well: the usual dump. That needs none of what
    :func:`~drgn_pmem.dumpfile.program.open_program` does, nor the import of numpy.
    """
    prog = drgn.Program()
    try:
        prog.set_core_dump(path)
        prog["VMCOREINFO"]
    except Exception:
        # drgn has no class for errors of libelf; whatever it is, open_program says what helps.
        return None
    return prog if prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL else None


def _is_whole_elf(path: str) -> bool:
    """Whether a file is a 64-bit ELF core with all that its program headers promise."""
    with open(path, "rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:5] != b"\x7fELF\x02" or header[5] not in (1, 2):
            return False
        order = "<" if header[5] == 1 else ">"
        (type_,) = struct.unpack_from(f"{order}H", header, 16)
        (offset,) = struct.unpack_from(f"{order}Q", header, 32)
        size, count = struct.unpack_from(f"{order}HH", header, 54)
        if type_ != _ET_CORE or size != _PHDR_SIZE or not 0 < count < _PN_XNUM:
            return False
        file.seek(offset)
        table = file.read(size * count)
        length = os.fstat(file.fileno()).st_size
    if len(table) < size * count:
        return False
    for start in range(0, len(table), size):
        file_offset, file_size = struct.unpack_from(f"{order}Q16xQ", table, start + 8)
        if file_offset + file_size > length:
            return False
    return True


def _open_live(
    options: argparse.Namespace, vmcoreinfo: bytes | None, architecture: str | None
) -> tuple[drgn.Program, str]:
    platform = drgn.Platform(drgn.Architecture[architecture]) if architecture else None
    prog = drgn.Program(platform=platform, vmcoreinfo=vmcoreinfo)
    what = "the running kernel" if options.kernel else f"QEMU at {options.qemu}"
    try:
        if options.kernel:
            prog.set_kernel()
        else:
            prog.set_qemu_qmp(options.qemu)
    except PermissionError as error:
        raise DumpFileError(f"{what} cannot be read: {error.strerror}; run this as root") from error
    except OSError as error:
        raise DumpFileError(f"{what} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DumpFileError(f"{what} cannot be read: {error}") from error
    return prog, what


def _check_readable(path: str) -> None:
    shown = escape(path)
    try:
        if os.path.isdir(path):
            raise DumpFileError(f"{shown} is a directory; name the file in it")
        with open(path, "rb") as file:
            first = file.read(1)
    except DumpFileError:
        raise
    except OSError as error:
        raise DumpFileError(f"{shown}: {error.strerror}") from error
    if not first:
        raise DumpFileError(f"{shown} is empty: nothing was saved in it")


def _read(path: str, limit: int, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise DumpFileError(f"{escape(path)}: {error.strerror}") from error
    if len(data) > limit:
        raise UsageError(f"{what}: {escape(path)} is longer than {limit} bytes: not vmcoreinfo")
    return data


def vmcoreinfo_value(prog: drgn.Program, key: str) -> str | None:
    """A ``KEY=value`` line of the dump's vmcoreinfo, None if it has none. Read without
    :mod:`drgn_pmem.dumpfile`, whose numpy the first prompt would wait for."""
    try:
        text = prog["VMCOREINFO"].string_()
    except (LookupError, drgn.FaultError):
        return None
    found = re.search(rb"^" + re.escape(key.encode()) + rb"=(.*)$", text, re.MULTILINE)
    return escape(found.group(1)) if found else None


def _describe_kernel(prog: drgn.Program) -> str:
    release, build_id = vmcoreinfo_value(prog, "OSRELEASE"), vmcoreinfo_value(prog, "BUILD-ID")
    return f"Linux {release or 'of unknown release'}" + (
        f" (build ID {build_id})" if build_id else ""
    )


def check_symbols(prog: drgn.Program, paths: Sequence[str]) -> None:
    """
    Check that files of debug info can be those of a dump. drgn ignores a vmlinux of another build
    with a warning; every answer would then fail for a reason that is no longer on the screen.

    :raises PmemError: saying what is wrong with a file
    """
    for path in paths:
        _check_readable(path)
    wanted = vmcoreinfo_value(prog, "BUILD-ID")
    if wanted is None:
        return
    for path in paths:
        build_id, is_module = build_id_of_file(path)
        if build_id is not None and build_id != wanted and not is_module:
            raise MissingDebugInfo(
                f"{escape(path)} is of another build (build ID {build_id}) than the kernel that "
                f"crashed, {_describe_kernel(prog)}"
            )


def build_id_of_file(path: "str | Path") -> tuple[str | None, bool]:
    """
    :return: The build ID in an ELF file's notes (None if it has none), and whether the file is a
        relocatable one, as kernel modules are.
    :raises DumpFileError: if it is not an ELF file
    """
    # pyelftools would do; but this is on the way to the first prompt, and the import alone takes
    # longer than the reading.
    try:
        with open(path, "rb") as file:
            ident = file.read(20)
            if ident[:4] != b"\x7fELF" or ident[4] not in (1, 2) or ident[5] not in (1, 2):
                raise DumpFileError(f"{escape(str(path))} is not an ELF file with debug info")
            order = "<" if ident[5] == 1 else ">"
            (type_,) = struct.unpack_from(f"{order}H", ident, 16)
            for note in _note_sections(file, order, ident[4] == 2):
                build_id = _build_id(note, order)
                if build_id is not None:
                    return build_id, type_ == _ET_REL
            return None, type_ == _ET_REL
    except (struct.error, IndexError, OverflowError) as error:
        raise DumpFileError(f"{escape(str(path))} is a damaged ELF file") from error


def _note_sections(file: IO[bytes], order: str, is_64_bit: bool) -> Iterator[bytes]:
    """Contents of the SHT_NOTE sections (include/uapi/linux/elf.h: Elf64_Ehdr, Elf64_Shdr)."""
    word, table_at, entry_at = ("Q", 40, 58) if is_64_bit else ("I", 32, 46)
    file.seek(0)
    header = file.read(64)
    (table,) = struct.unpack_from(f"{order}{word}", header, table_at)
    size, count = struct.unpack_from(f"{order}HH", header, entry_at)
    for number in range(count):
        file.seek(table + number * size)
        entry = file.read(size)
        (type_,) = struct.unpack_from(f"{order}I", entry, 4)
        offset, length = struct.unpack_from(f"{order}{word}{word}", entry, 24 if is_64_bit else 16)
        if type_ == _SHT_NOTE and length <= _MAX_NOTES:
            file.seek(offset)
            yield file.read(length)


def _build_id(notes: bytes, order: str) -> str | None:
    position = 0
    while position + 12 <= len(notes):
        name_size, size, type_ = struct.unpack_from(f"{order}III", notes, position)
        name = position + 12
        contents = name + (name_size + 3 & ~3)
        if type_ == _NT_GNU_BUILD_ID and notes[name : name + name_size] == b"GNU\0":
            return notes[contents : contents + size].hex()
        position = contents + (size + 3 & ~3)
    return None


def load_debug_info(
    prog: drgn.Program,
    paths: Sequence[str] = (),
    extra_paths: Sequence[str] = (),
    default: "dict[str, bool] | None" = None,
) -> tuple[str, bool]:
    """
    Load debug info as drgn's command line does.

    :return: One line about what was not found (empty if nothing), and whether that includes the
        kernel's own.
    """
    # drgn logs every module that it misses, one line each; what is returned says it once.
    drgn_logger = logging.getLogger("drgn")
    level = drgn_logger.level
    if drgn_logger.getEffectiveLevel() > logging.INFO:
        drgn_logger.setLevel(logging.ERROR)
    try:
        prog.load_debug_info([str(path) for path in paths], **(default or {}))
    except drgn.MissingDebugInfoError as error:
        logger.info("%s", error)
    except (OSError, ValueError) as error:
        raise PmemError(f"debug info cannot be loaded: {error}") from error
    finally:
        drgn_logger.setLevel(level)
    for path in extra_paths:
        path = os.path.abspath(path)
        prog.extra_module(path, create=True).try_file(path)
    from drgn_pmem.kernel.kmod import how_to_get_kernel, how_to_get_modules

    if _lacks_kernel(prog):
        return f"no debug info of {_describe_kernel(prog)}: {how_to_get_kernel(prog)}", True
    modules = modules_without_debug_info(prog)
    if modules:
        how = how_to_get_modules(prog)
        return f"no debug info of the kernel modules {', '.join(modules)}: {how}", False
    return "", False


def modules_without_debug_info(prog: drgn.Program) -> list[str]:
    """Names of the modules that some command's full answer needs and whose debug info is not
    loaded."""
    from drgn_pmem.commands import load_commands
    from drgn_pmem.kernel.kmod import lacking_modules

    return lacking_modules(prog, {module for spec in load_commands() for module in spec.modules})


def _lacks_kernel(prog: drgn.Program) -> bool:
    try:
        module = prog.main_module()
    except LookupError:
        return True
    return bool(module.wants_debug_file())
