# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Debug info of a dump
--------------------

Loads the debug info that belongs to a dump, and names what is missing.
"""

from collections.abc import Collection, Sequence
import logging
import os
from pathlib import Path
import re
import stat

import drgn

from drgn_pmem.errors import DumpFileError, MissingDebugInfo, PmemError

__all__ = (
    "MODULES",
    "check_readable",
    "check_symbols",
    "load_debug_info",
    "vmcoreinfo_value",
)

MODULES = ("cxl_core", "dax", "dm_mod", "ext4", "libnvdimm", "nd_pmem", "nfit", "papr_scm", "xfs")
"""Kernel modules whose debug info the full answers of all commands need, unless built in."""

_logger = logging.getLogger("drgn_pmem")


def check_readable(path: str) -> None:
    """:raises DumpFileError: if a file is none, is empty or cannot be read"""
    try:
        if not path:
            raise DumpFileError("'' names no file")
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise DumpFileError(f"{path} is a directory; name the file in it")
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            # Opening a named pipe would wait for a writer, for ever if none comes.
            raise DumpFileError(f"{path}: not a regular file; save what it gives to a file first")
        with Path(path).open("rb") as file:
            first = file.read(1)
    except DumpFileError:
        raise
    except OSError as error:
        raise DumpFileError(f"{path}: {error.strerror}") from error
    if not first:
        raise DumpFileError(f"{path} is empty: nothing was saved in it")


def vmcoreinfo_value(prog: drgn.Program, key: str) -> str | None:
    """A ``KEY=value`` line of the dump's vmcoreinfo, None if it has none; not escaped. Read without
    :mod:`drgn_pmem.dumpfile`, whose numpy the first prompt would wait for."""
    try:
        text = prog["VMCOREINFO"].string_()
    except (LookupError, drgn.FaultError):
        return None  # no vmcoreinfo, or not saved: the value is not known
    found = re.search(rb"^" + re.escape(key.encode()) + rb"=(.*)$", text, re.MULTILINE)
    return found.group(1).decode("utf-8", "backslashreplace") if found else None


def _describe_kernel(prog: drgn.Program) -> str:
    release, build_id = vmcoreinfo_value(prog, "OSRELEASE"), vmcoreinfo_value(prog, "BUILD-ID")
    return f"Linux {release or 'of unknown release'}" + (
        f" (build ID {build_id})" if build_id else ""
    )


def check_symbols(prog: drgn.Program, paths: Sequence[str]) -> None:
    """
    Check that files of debug info can be those of a dump. drgn ignores a vmlinux of another build
    with a warning; every answer would then fail without that warning.

    :raises PmemError: saying what is wrong with a file
    """
    from drgn_pmem.formats.build_id import build_id_of_file

    for path in paths:
        check_readable(path)
    wanted = vmcoreinfo_value(prog, "BUILD-ID")
    if wanted is None:
        return
    for path in paths:
        build_id, is_module = build_id_of_file(path)
        if build_id is not None and build_id != wanted and not is_module:
            raise MissingDebugInfo(
                f"{path} is of another build (build ID {build_id}) than the kernel that "
                f"crashed, {_describe_kernel(prog)}"
            )


def load_debug_info(
    prog: drgn.Program,
    paths: Sequence[str] = (),
    extra_paths: Sequence[str] = (),
    default: "dict[str, bool] | None" = None,
    *,
    modules: Collection[str] = MODULES,
) -> tuple[str, bool]:
    """
    Load debug info as drgn's command line does.

    :param default: Further arguments of :meth:`drgn.Program.load_debug_info`.
    :param modules: Kernel modules whose debug info is wanted, unless they are built in.
    :return: One line about what was not found (empty if nothing), and whether that includes the
        kernel's own.
    """
    # drgn logs every module that it misses, one line each; the returned line names them all.
    drgn_logger = logging.getLogger("drgn")
    level = drgn_logger.level
    if drgn_logger.getEffectiveLevel() > logging.INFO:
        drgn_logger.setLevel(logging.ERROR)
    try:
        prog.load_debug_info([str(path) for path in paths], **(default or {}))
    except drgn.MissingDebugInfoError as error:
        _logger.info("%s", error)
    except (OSError, ValueError) as error:
        raise PmemError(f"debug info cannot be loaded: {error}") from error
    finally:
        drgn_logger.setLevel(level)
    for path in extra_paths:
        path = os.path.abspath(path)
        prog.extra_module(path, create=True).try_file(path)
    from drgn_pmem.kernel.kmod import how_to_get_kernel, how_to_get_modules, lacking_modules

    if _lacks_kernel(prog):
        return f"no debug info of {_describe_kernel(prog)}: {how_to_get_kernel(prog)}", True
    lacking = lacking_modules(prog, modules)
    if lacking:
        how = how_to_get_modules(prog)
        return f"no debug info of the kernel modules {', '.join(lacking)}: {how}", False
    return "", False


def _lacks_kernel(prog: drgn.Program) -> bool:
    try:
        module = prog.main_module()
    except LookupError:
        return True
    return bool(module.wants_debug_file())
