# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Bytes of a dump file
--------------------

:class:`FileSource` reads a file by offset; a flattened dump offers the same methods for the file
that it would be after reassembly, so that the readers of ELF and kdump-compressed dumps need not
distinguish them. Nothing is mapped: a file that another process cuts short gives short reads, not a
signal.
"""

import errno
import os
import stat
from typing import Protocol
import weakref

import numpy as np

from drgn_pmem.dumpfile.coverage import U64
from drgn_pmem.errors import DumpFileError

__all__ = ("ByteSource", "FileSource")


class ByteSource(Protocol):
    """Random access to the bytes of a dump."""

    path: str
    """What to call the file in messages."""
    size: int
    """Bytes up to the last one that is there."""
    complete: bool
    """Whether the file is as long as its container says (always true of a plain file)."""
    in_order: bool
    """Whether what was cut off is the end of what was written (not of several files)."""

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset`` on; short (or empty) only at the end of the file."""
        ...

    def room(self, offsets: U64) -> U64:
        """For each offset, how many bytes from there on are in the file without a gap."""
        ...

    def next_data(self, offset: int) -> int:
        """First offset at or after this one that may hold other bytes than zero; ``size`` if none
        does."""
        ...


class FileSource:
    """
    A plain file.

    :param path: Path of the file.
    :raises DumpFileError: if it is missing, not a file, empty or cannot be read.
    """

    complete = True
    in_order = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise DumpFileError(f"{self.path}: {_reason(error)}") from error
        except ValueError as error:  # a NUL in the path
            raise DumpFileError(f"{self.path!r}: not a path: {error}") from error
        self._finalizer = weakref.finalize(self, os.close, self._fd)
        status = os.fstat(self._fd)
        if stat.S_ISDIR(status.st_mode):
            raise DumpFileError(
                f"{self.path}: is a directory; give the dump file in it (often called vmcore)"
            )
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise DumpFileError(f"{self.path}: not a regular file; save the dump to a file first")
        self.size = status.st_size
        if stat.S_ISBLK(status.st_mode):
            self.size = os.lseek(self._fd, 0, os.SEEK_END)
        if self.size == 0 and not self.path.startswith("/proc/"):
            raise DumpFileError(
                f"{self.path}: the file is empty; the dump was not written (look for a full disk)"
            )

    def read(self, offset: int, size: int) -> bytes:
        """
        :param offset: Where to start (bytes).
        :param size: How much to read (bytes).
        :raises DumpFileError: on an input/output error.
        """
        if offset < 0 or size <= 0 or offset >= 1 << 63:
            return b""
        size = min(size, max(self.size - offset, 0))
        parts: list[bytes] = []
        while size > 0:
            try:
                part = os.pread(self._fd, size, offset)
            except OSError as error:
                raise DumpFileError(
                    f"{self.path}: cannot read at offset {offset}: {_reason(error)}"
                ) from error
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def room(self, offsets: U64) -> U64:
        """Bytes from each offset to the end of the file."""
        end = np.uint64(self.size)
        return end - np.minimum(offsets, end)

    def next_data(self, offset: int) -> int:
        """Skip a hole of a sparse file."""
        if offset >= self.size:
            return self.size
        try:
            return min(os.lseek(self._fd, offset, os.SEEK_DATA), self.size)
        except OSError as error:
            # ENXIO: nothing but a hole follows. Anything else: the file system does not support it.
            return self.size if error.errno == errno.ENXIO else offset

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        self._finalizer()


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "no such file"
    if error.errno == errno.EACCES:
        return "permission denied (dumps are readable by root only; try sudo)"
    return os.strerror(error.errno) if error.errno else str(error)
