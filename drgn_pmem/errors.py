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
