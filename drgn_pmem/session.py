# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Opening a dump
--------------

A dump with the debug info that belongs to it, for scripts, the shell and the command line alike. A
path that cannot be opened is an error: nothing here falls back to the running kernel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
import logging
import os
from pathlib import Path
import re

import drgn

from drgn_pmem.errors import DumpFileError, UsageError
from drgn_pmem.formats.elfcore import is_whole_elf
from drgn_pmem.symbols import check_readable, check_symbols, load_debug_info, vmcoreinfo_value

__all__ = (
    "Target",
    "debug_files",
    "find_architecture",
    "open",
    "open_core",
    "open_corrected",
    "open_other",
    "open_with_debug_info",
    "open_with_files",
    "read_vmcoreinfo_file",
)

_MAX_VMCOREINFO = 1 << 20
_KERNEL_OFFSET = re.compile(rb"^KERNELOFFSET=.*\n?", re.MULTILINE)

_logger = logging.getLogger("drgn_pmem")


@dataclass(frozen=True)
class Target:
    """An open program, and notes about how it was opened."""

    prog: drgn.Program
    name: str
    """The dump's path, ``the running kernel``, or the address of the QEMU guest."""
    notes: list[str] = field(default_factory=list)
    """What is unusual about the dump file, a line each."""
    missing: str = ""
    """One line about debug info that was not found and how to load it; empty if none is missing."""
    missing_kernel: bool = False
    """True if the kernel's own debug info is missing, not only some module's."""

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "notes": self.notes,
            "missing": self.missing or None,
            "missing_kernel": self.missing_kernel,
        }


def open(
    path: "str | os.PathLike[str] | Sequence[str]",
    symbols: "Sequence[str | os.PathLike[str]]" = (),
    *,
    debug_directories: "Sequence[str | os.PathLike[str]]" = (),
    kernel_directories: "Sequence[str | os.PathLike[str]]" = (),
    vmcoreinfo: "str | os.PathLike[str] | None" = None,
    architecture: "str | None" = None,
    crashed: bool = False,
) -> drgn.Program:
    """
    Open a crash dump with its debug info, as ``drgn-pmem -c PATH -s SYMBOLS`` does.

    >>> prog = drgn_pmem.open("vmcore", ["vmlinux"])
    >>> for namespace in drgn_pmem.for_each_namespace(prog):
    ...     print(namespace.dev, namespace.mode, namespace.size)

    :param path: Path of the dump, of each file of a split one, or ``FILE@ADDRESS`` of each raw
        image of memory (``"ram@0"``).
    :param symbols: vmlinux and files of modules; without, debug info is searched as drgn does.
    :param debug_directories: Searched before the standard ones, as with ``--debug-directory``.
    :param kernel_directories: The same for the kernel and its modules, as ``--kernel-directory``.
    :param vmcoreinfo: File with vmcoreinfo text to use instead of the dump's.
    :param architecture: Name in :class:`drgn.Architecture`, if the file does not say.
    :param crashed: Whether to open the crashed kernel in a dump of its capture kernel, as
        ``--crashed``.
    :return: The program; also drgn's default one from now on.
    :raises PmemError: if the file is no dump, or debug info is of another build
    """
    target = open_with_debug_info(
        path,
        symbols,
        debug_directories=debug_directories,
        kernel_directories=kernel_directories,
        vmcoreinfo=vmcoreinfo,
        architecture=architecture,
        crashed=crashed,
    )
    prog = target.prog
    for note in (*target.notes, target.missing):
        if note:
            _logger.warning("%s", note)
    drgn.set_default_prog(prog)
    return prog


def open_with_debug_info(
    path: "str | os.PathLike[str] | Sequence[str]",
    symbols: "Sequence[str | os.PathLike[str]]" = (),
    *,
    debug_directories: "Sequence[str | os.PathLike[str]]" = (),
    kernel_directories: "Sequence[str | os.PathLike[str]]" = (),
    vmcoreinfo: "str | os.PathLike[str] | None" = None,
    architecture: "str | None" = None,
    crashed: bool = False,
) -> Target:
    """
    As :func:`open`: the program with the notes about how it was opened, which are not logged.

    :raises PmemError: if the file is no dump, or debug info is of another build
    """
    files = _paths(symbols)
    for file in files:
        check_readable(file)
    names = _paths([path] if isinstance(path, (str, os.PathLike)) else path)

    def with_debug_info(text: bytes | None) -> Target:
        prog, notes = open_core(names, text, find_architecture(architecture), crashed=crashed)
        options = prog.debug_info_options
        options.directories = (*_paths(debug_directories), *options.directories)
        options.kernel_directories = (*_paths(kernel_directories), *options.kernel_directories)
        check_symbols(prog, files)
        missing, _ = load_debug_info(prog, files, default={"default": True, "main": True})
        return Target(prog, " ".join(names), notes, missing)

    return open_corrected(
        with_debug_info,
        None if vmcoreinfo is None else read_vmcoreinfo_file(os.fspath(vmcoreinfo), "vmcoreinfo"),
    )


def debug_files(prog: drgn.Program) -> list[str]:
    """Paths of the files of debug info that a program has loaded."""
    return sorted(
        {
            file
            for module in prog.modules()
            for file in (module.debug_file_path, module.loaded_file_path)
            if file is not None and os.path.exists(file)
        }
    )


def open_with_files(path: str, files: Sequence[str]) -> drgn.Program:
    """
    Open another dump of the same crash.

    :param path: Path of the dump.
    :param files: What :func:`debug_files` gives.
    :raises DumpFileError: if it cannot be opened
    """
    prog, _ = open_core(path)
    load_debug_info(prog, files)
    return prog


def open_other(
    prog: drgn.Program, path: "str | Sequence[str]", symbols: Sequence[str] = ()
) -> Target:
    """
    Open another dump beside a program: with the debug info that the program has loaded if it is of
    the same build, else with what is found in the same directories.

    :param path: Path of the dump, or of each file of a split one or each raw image.
    :param symbols: Files to use instead: vmlinux and modules.
    :raises PmemError: if it cannot be opened, or debug info is of another build
    """
    names = [path] if isinstance(path, str) else list(path)
    for file in symbols:
        check_readable(file)

    def with_debug_info(text: bytes | None) -> Target:
        other, notes = open_core(names, text)
        for option in ("directories", "debug_link_directories", "kernel_directories"):
            value = getattr(prog.debug_info_options, option)
            setattr(other.debug_info_options, option, value)
        check_symbols(other, symbols)
        build = vmcoreinfo_value(other, "BUILD-ID")
        same = build is not None and build == vmcoreinfo_value(prog, "BUILD-ID")
        files = symbols or (debug_files(prog) if same else ())
        default = None if files else {"default": True, "main": True}
        missing, missing_kernel = load_debug_info(other, files, default=default)
        return Target(other, " ".join(names), notes, missing, missing_kernel)

    return open_corrected(with_debug_info, None)


def open_corrected(open_with: Callable[[bytes | None], Target], text: bytes | None) -> Target:
    """
    Open a target, and once more where its KERNELOFFSET turns out to be wrong by the debug info.

    :param open_with: Opens it with a text of vmcoreinfo, or with its own if None.
    :param text: The text to open it with first.
    """
    target = open_with(text)
    from drgn_pmem.dumpfile.fit import symbol_shift

    if not symbol_shift(target.prog):
        return target
    from drgn_pmem.kernel.root import corrected_kernel_offset, refuse_unfit

    wrong = vmcoreinfo_value(target.prog, "KERNELOFFSET")
    offset = corrected_kernel_offset(target.prog)
    if offset is None:
        reason = refuse_unfit(target.prog)
        target.notes.append(f"{target.name}: {reason}; what needs address translation fails")
        return target
    old = target.prog["VMCOREINFO"].string_()
    target = open_with(_KERNEL_OFFSET.sub(b"", old) + b"KERNELOFFSET=%x\n" % offset)
    target.notes.append(
        f"{target.name}: KERNELOFFSET of vmcoreinfo ({wrong}) does not fit this memory; using "
        f"{offset:x}, by the addresses of its symbols"
    )
    return target


def _paths(paths: "Sequence[str | os.PathLike[str]]") -> list[str]:
    return [os.fspath(path) for path in paths]


def open_core(
    path: str | Sequence[str],
    vmcoreinfo: bytes | None = None,
    architecture: "drgn.Architecture | None" = None,
    *,
    crashed: bool = False,
) -> tuple[drgn.Program, list[str]]:
    """
    Open a dump without debug info.

    :param path: Path of the dump, of each file of a split one, or ``FILE@ADDRESS`` of each raw
        image of memory.
    :param vmcoreinfo: Text to use instead of the dump's own.
    :param crashed: Whether to open the crashed kernel in a dump of its capture kernel.
    :return: The program, and what is unusual about the file, a line each.
    :raises DumpFileError: saying what is wrong with the file and what would help
    """
    paths = [path] if isinstance(path, str) else list(path)
    images = any("@" in name and not os.path.exists(name) for name in paths)
    if len(paths) == 1 and not images:
        check_readable(paths[0])
        plainly = vmcoreinfo is None and architecture is None and not crashed
        if plainly and is_whole_elf(paths[0]):
            plain = _open_plainly(paths[0])
            if plain is not None and _fits(plain):
                return plain, []
    from drgn_pmem.dumpfile.program import open_program
    from drgn_pmem.kernel.root import refuse_unfit

    if crashed:
        prog, lines = _open_crashed(paths, images, vmcoreinfo)
    elif images:
        prog, lines = _open_images(paths, vmcoreinfo, architecture)
    elif len(paths) > 1:
        prog, lines = _open_split(paths, vmcoreinfo, architecture)
    else:
        prog, lines = open_program(paths[0], vmcoreinfo=vmcoreinfo, architecture=architecture)
    reason = refuse_unfit(prog)
    if reason is not None:
        lines.append(f"{' '.join(paths)}: {reason}; what needs address translation fails")
    return prog, lines


def _fits(prog: drgn.Program) -> bool:
    """Whether the kernel is where the dump's vmcoreinfo says."""
    from drgn_pmem.dumpfile.fit import Fit, fit_of
    from drgn_pmem.dumpfile.vmcoreinfo import vmcoreinfo_of

    def read(address: int, size: int) -> bytes:
        try:
            return prog.read(address, size, True)
        except drgn.FaultError as error:
            raise DumpFileError(str(error)) from error

    return fit_of(vmcoreinfo_of(prog), read) is Fit.YES


def _open_crashed(
    paths: Sequence[str], images: bool, vmcoreinfo: bytes | None
) -> tuple[drgn.Program, list[str]]:
    from drgn_pmem.dumpfile import open_dump
    from drgn_pmem.dumpfile.program import open_crashed_program
    from drgn_pmem.dumpfile.rawimage import open_images

    if len(paths) > 1 and not images:
        raise UsageError("a split dump has no capture kernel in it")
    dump = open_images(_split_images(paths)) if images else open_dump(paths[0])
    return open_crashed_program(dump, vmcoreinfo=vmcoreinfo)


def _open_images(
    names: Sequence[str], vmcoreinfo: bytes | None, architecture: "drgn.Architecture | None"
) -> tuple[drgn.Program, list[str]]:
    from drgn_pmem.dumpfile.program import open_image_program

    images = _split_images(names)
    return open_image_program(images, vmcoreinfo=vmcoreinfo, architecture=architecture)


def _open_split(
    paths: Sequence[str], vmcoreinfo: bytes | None, architecture: "drgn.Architecture | None"
) -> tuple[drgn.Program, list[str]]:
    from drgn_pmem.dumpfile.program import open_split_program

    for path in paths:
        check_readable(path)
    return open_split_program(paths, vmcoreinfo=vmcoreinfo, architecture=architecture)


def _split_images(names: Sequence[str]) -> list[tuple[str, int]]:
    from drgn_pmem.dumpfile.rawimage import split_image

    images = []
    for name in names:
        image = split_image(name)
        if image is None:
            raise UsageError(
                f"{name}: one dump is one file; raw images of memory are FILE@ADDRESS, with the"
                " physical address of the first byte (FILE@0, FILE@0x100000000)"
            )
        check_readable(image[0])
        images.append(image)
    return images


def _open_plainly(path: str) -> drgn.Program | None:
    """
    Open a usual dump with drgn alone. That needs neither
    :func:`~drgn_pmem.dumpfile.program.open_program` nor the import of numpy.
    """
    prog = drgn.Program()
    try:
        prog.set_core_dump(path)
        prog["VMCOREINFO"]
    except Exception:
        # drgn has no class for errors of libelf; open_program reports the error.
        return None
    return prog if prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL else None


def read_vmcoreinfo_file(path: str, what: str) -> bytes:
    """
    Text of a vmcoreinfo file.

    :param what: The option that names it, for the message.
    :raises PmemError: if it cannot be read, or is too long to be vmcoreinfo
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_VMCOREINFO + 1)
    except OSError as error:
        raise DumpFileError(f"{path}: {error.strerror}") from error
    if len(data) > _MAX_VMCOREINFO:
        raise UsageError(f"{what}: {path} is longer than {_MAX_VMCOREINFO} bytes: not vmcoreinfo")
    return data


def find_architecture(name: str | None) -> drgn.Architecture | None:
    """:raises UsageError: if drgn knows no such architecture"""
    if not name:
        return None
    try:
        return drgn.Architecture[name.upper()]
    except KeyError:
        raise UsageError(f"unknown architecture {name!r}") from None
