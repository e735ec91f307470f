# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Dumps in folders
----------------

Finds dumps by how their files begin, whatever they are called, and says how a file is known again.
Only the first bytes are looked at here; everything else of a dump is read by its own process.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import fnmatch
import hashlib
import os
import re
import stat
from typing import Any

from drgn_pmem.dumpfile.opener import other_format, starts_as_dump
from drgn_pmem.errors import DumpFileError

__all__ = ("Found", "Identity", "find_dumps", "identity_of", "name_of")

_NAMES = ("vmcore*", "dump.*", "*.vmcore", "*.kdump")
"""What dumps are usually called: a file with such a name that is none is named."""
_END = 1 << 20
"""Bytes at the beginning and at the end of a file by which it is known again."""
_START = 20


@dataclass(frozen=True)
class Identity:
    """How a file is known again."""

    size: int
    """bytes"""
    changed: int
    """Time of the last change, nanoseconds since 1970."""
    sha256: str
    """Of the first and the last MiB."""

    def to_json(self) -> dict[str, Any]:
        return {"size": self.size, "changed": self.changed, "sha256": self.sha256}


@dataclass(frozen=True)
class Found:
    """What a search found."""

    dumps: tuple[str, ...]
    """Absolute paths, in the order of the search, each file once."""
    skipped: tuple[tuple[str, str], ...]
    """(path, why) of folders that cannot be read, and of files that are called as dumps are and
    are none that can be opened."""


def find_dumps(names: Sequence[str], *, leave_out: str) -> Found:
    """
    :param names: Dumps, which are taken as they are, and folders, which are searched.
    :param leave_out: A folder that is not searched: that of the results.
    :raises DumpFileError: if one of the names is nothing that is there, a pipe or a socket
    """
    dumps: list[str] = []
    skipped: list[tuple[str, str]] = []
    seen: set[tuple[int, int]] = set()
    for name in names:
        try:
            mode = os.stat(name).st_mode
        except OSError as error:
            raise DumpFileError(f"{name}: {error.strerror}") from error
        is_folder = stat.S_ISDIR(mode)
        if not is_folder and not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise DumpFileError(f"{name}: not a regular file; save the dump to a file first")
        for path in _files(name, leave_out, skipped) if is_folder else [name]:
            try:
                status = os.stat(path)
                if is_folder and not _is_dump(path, status, skipped):
                    continue
            except OSError as error:
                skipped.append((path, error.strerror or str(error)))
                continue
            key = status.st_dev, status.st_ino
            if key not in seen:
                seen.add(key)
                dumps.append(path)
    return Found(tuple(dumps), tuple(skipped))


def _files(folder: str, leave_out: str, skipped: list[tuple[str, str]]) -> Iterator[str]:
    def failed(error: OSError) -> None:
        skipped.append((os.fspath(error.filename), error.strerror or str(error)))

    for parent, folders, files in os.walk(folder, onerror=failed):
        folders[:] = sorted(f for f in folders if os.path.join(parent, f) != leave_out)
        yield from (os.path.join(parent, file) for file in sorted(files))


def _is_dump(path: str, status: os.stat_result, skipped: list[tuple[str, str]]) -> bool:
    if not stat.S_ISREG(status.st_mode):
        return False
    start = _read(path, 0, _START)
    if starts_as_dump(start):
        return True
    if any(fnmatch.fnmatch(os.path.basename(path), pattern) for pattern in _NAMES):
        why = "empty: nothing was saved in it" if not status.st_size else other_format(start)
        if why is not None:
            skipped.append((path, why))
    return False


def _read(path: str, offset: int, size: int) -> bytes:
    # O_NONBLOCK: a named pipe that took the file's place does not stop the search.
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.pread(number, size, offset)
    finally:
        os.close(number)


def identity_of(path: str) -> Identity:
    """
    :raises OSError: if it cannot be read
    """
    status = os.stat(path)
    digest = hashlib.sha256(_read(path, 0, _END))
    digest.update(_read(path, max(status.st_size - _END, 0), _END))
    return Identity(status.st_size, status.st_mtime_ns, digest.hexdigest())


def name_of(path: str) -> str:
    """
    A name for the files of a dump: the end of its path, readable, and what makes it the only one.

    :param path: Absolute path of the dump.
    """
    words = "-".join(path.split(os.sep)[-2:])
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", words)[-60:].lstrip(".-")
    return f"{plain or 'dump'}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:10]}"
