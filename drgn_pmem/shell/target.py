# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the command line names, opened with the debug info that belongs to it: a dump as
:mod:`drgn_pmem.session` opens it, or a live kernel if asked for."""

import argparse
from collections.abc import Sequence

import drgn

from drgn_pmem.ahead import importing
from drgn_pmem.errors import DumpFileError, UsageError
from drgn_pmem.session import (
    Target,
    find_architecture,
    open_core,
    open_corrected,
    read_vmcoreinfo_file,
)
from drgn_pmem.shell.options import apply_debug_info_options
from drgn_pmem.symbols import check_readable, check_symbols, load_debug_info

__all__ = ("open_target",)


def open_target(options: argparse.Namespace, ahead: Sequence[str] = ()) -> Target:
    """
    Open the dump or live kernel that the options name and load debug info.

    :param ahead: Modules to import meanwhile.
    :raises PmemError: one line: what is wrong with the file, or with the debug info given
    """
    vmcoreinfo = None
    if options.vmcoreinfo is not None:
        vmcoreinfo = read_vmcoreinfo_file(options.vmcoreinfo, "--vmcoreinfo")
    architecture = find_architecture(options.architecture)
    # A name that is mistyped is an error at once. FILE@ADDRESS is looked at later.
    dumps = [path for path in options.core or () if "@" not in path]
    for path in (*options.symbols, *options.extra_symbols, *dumps):
        check_readable(path)

    def open_with(text: bytes | None) -> Target:
        return _open_with(options, text, architecture)

    with importing(ahead):
        return open_corrected(open_with, vmcoreinfo)


def _open_with(
    options: argparse.Namespace,
    vmcoreinfo: bytes | None,
    architecture: drgn.Architecture | None,
) -> Target:
    notes: list[str] = []
    if options.core is not None:
        if options.live_pmem:
            raise UsageError("--live-pmem goes with -k: a dump has no devices to read")
        crashed = options.crashed
        prog, notes = open_core(options.core, vmcoreinfo, architecture, crashed=crashed)
        name = " ".join(options.core)
    elif options.crashed:
        raise UsageError("--crashed goes with -c: it opens a dump of a capture kernel")
    else:
        prog, name, notes = _open_live(options, vmcoreinfo, architecture)
    unknown = apply_debug_info_options(prog, options)
    if unknown:
        raise UsageError(
            "no debug info finder is named " + " or ".join(repr(word) for word in unknown)
        )
    check_symbols(prog, options.symbols)
    missing, missing_kernel = load_debug_info(
        prog,
        options.symbols,
        options.extra_symbols,
        {"default": True, "main": True}
        if options.default_symbols is None
        else options.default_symbols,
    )
    return Target(prog, name, notes, missing, missing_kernel)


def _open_live(
    options: argparse.Namespace, vmcoreinfo: bytes | None, architecture: drgn.Architecture | None
) -> tuple[drgn.Program, str, list[str]]:
    platform = drgn.Platform(architecture) if architecture is not None else None
    prog = drgn.Program(platform=platform, vmcoreinfo=vmcoreinfo)
    what = "the running kernel" if options.kernel else f"QEMU at {options.qemu}"
    if options.live_pmem and not options.kernel:
        raise UsageError("--live-pmem goes with -k: QEMU reads all memory of its guest")
    try:
        if options.kernel:
            prog.set_kernel()
            return prog, what, _prepare_kernel(prog, options)
        return prog, what, _open_guest(prog, options)
    except PermissionError as error:
        raise DumpFileError(f"{what} cannot be read: {error.strerror}; run this as root") from error
    except DumpFileError:
        raise
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise DumpFileError(f"{what} cannot be read: {place}{error.strerror or error}") from error
    except ValueError as error:
        raise DumpFileError(f"{what} cannot be read: {error}") from error


def _prepare_kernel(prog: drgn.Program, options: argparse.Namespace) -> list[str]:
    if not options.live_pmem:
        return []
    from drgn_pmem.dumpfile.livepmem import add_live_pmem

    return add_live_pmem(prog)


def _open_guest(prog: drgn.Program, options: argparse.Namespace) -> list[str]:
    from drgn_pmem.dumpfile import set_dump
    from drgn_pmem.dumpfile.live import memory_of_guest, qemu_dump

    # Before drgn connects: QEMU's monitor serves one at a time.
    memory = memory_of_guest(options.qemu)
    prog.set_qemu_qmp(options.qemu)
    set_dump(prog, qemu_dump(options.qemu, memory))
    return []
