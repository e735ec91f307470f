# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Errors
------

Every error that a user can cause or a dump can contain is a :class:`PmemError`; its message is one
line that names what is wrong and what to do about it. Nothing else may reach a user as a traceback.
"""

__all__ = (
    "DumpFileError",
    "FormatError",
    "MissingDebugInfo",
    "NotFound",
    "NotInKernel",
    "PmemError",
    "UsageError",
    "numpy_error",
)


class PmemError(Exception):
    """Base of all errors of drgn-pmem. ``str(error)`` is what the user reads: one line."""


class FormatError(PmemError, ValueError):
    """Bytes that are not what their format demands (a bad magic, checksum, size or offset)."""


class DumpFileError(PmemError, OSError):
    """A dump file that cannot be opened or read: missing, empty, of another format, truncated."""


class MissingDebugInfo(PmemError, LookupError):
    """
    A type, member or variable that the loaded debug info does not have; names the module that does.

    :param module: The kernel module that lacks it, ``"vmlinux"`` for the kernel itself.
    """

    def __init__(self, message: str, module: str | None = None) -> None:
        super().__init__(message)
        self.module = module


class NotInKernel(MissingDebugInfo):
    """The crashed kernel did not have it, built in or loaded: no debug info has it, and there was
    none of what it manages."""


class NotFound(PmemError, LookupError):
    """The subject of a question is not in the dump: no such namespace, no pmem, no fadump."""


class UsageError(PmemError, ValueError):
    """An argument that cannot be understood."""


def numpy_error(error: BaseException) -> PmemError | None:
    """
    One line for a failed import of numpy: its builds need features that an old processor lacks.

    Every command reads memory through the coverage of the dump, which is kept in arrays (a dump has
    up to millions of ranges and a bit for each page), so none answers without numpy.

    :return: None if *error* is another one.
    """
    import os
    import traceback

    from drgn_pmem.ahead import failures

    def is_of_numpy(error: BaseException) -> bool:
        where = traceback.extract_tb(error.__traceback__)
        if not isinstance(error, (ImportError, RuntimeError)) or not where:
            return False
        return os.path.basename(os.path.dirname(where[-1].filename)) in ("numpy", "_core", "core")

    if not is_of_numpy(error):
        return None
    # The first one says why; numpy's C code refuses to be loaded again.
    error = next(filter(is_of_numpy, failures), error)
    text = " ".join(str(error).split()).rstrip(".")
    return PmemError(
        "numpy does not run on this machine, and every command needs it to know what the dump"
        f" holds ({text}): install one that does (older ones run on processors without x86-64-v2:"
        " pip install 'numpy<2.3'), or give the virtual machine a newer processor (QEMU: -cpu max)"
    )
