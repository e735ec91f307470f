# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Files
-----

Writes a user's file completely or not at all, and leaves no other file. An existing file is
replaced atomically and keeps its mode; a symbolic link to one stays. What is not a plain file, such
as /dev/stdout or a named pipe, is written to and never replaced; a named pipe needs a reader.
"""

from collections.abc import Iterator
import contextlib
import errno
import os
import stat
from typing import IO

__all__ = ("append_to", "replacing", "write_file")

_TRIES = 100


def write_file(path: str | os.PathLike[str], data: bytes | str, *, mode: int | None = None) -> None:
    """
    Write a file at once.

    :param data: Bytes, or text that becomes UTF-8.
    :param mode: Of the file, whatever its mode was; without, that of the file that was there, or
        what the umask leaves of 0666.
    :raises OSError: if it cannot be written; what was there is as before
    """
    with replacing(path, mode=mode) as file:
        file.write(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str], *, mode: int | None = None, overwrite: bool = True
) -> Iterator[IO[bytes]]:
    """
    A file that takes the place of another when the block ends without an error. Until then it can
    be read, too, as ``/proc/self/fd/N``.

    :param mode: As for :func:`write_file`.
    :param overwrite: Whether there may be a file; without, one that appears meanwhile is kept, too.
    :raises FileExistsError: if there is one and must not be
    :raises OSError: ``EBUSY`` if it is a file that this process has open, such as the dump
    :raises OSError: if it cannot be written; what was there is as before
    """
    if _is_in_use(path):
        why = "it is the dump or debug info that is open"
        raise OSError(errno.EBUSY, why, os.fspath(path))
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))
    try:
        before = os.stat(path).st_mode
    except FileNotFoundError:
        before = None
    if before is not None and not stat.S_ISREG(before):
        with _open_special(path, before) as file:
            yield file
        return
    target = os.path.realpath(path)
    number, temporary = _create_beside(target, 0o666 if mode is None and before is None else 0o600)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            wanted = mode if mode is not None else before
            if wanted is not None:
                os.fchmod(number, stat.S_IMODE(wanted))
            os.fsync(number)
            if overwrite:
                os.replace(temporary, target)
            else:
                _move_to_new(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(os.path.dirname(target))


def _open_special(path: str | os.PathLike[str], mode: int) -> IO[bytes]:
    """What is there and is no regular file."""
    if stat.S_ISSOCK(mode):
        raise OSError(errno.ENXIO, "it is a socket: give a file or a pipe", os.fspath(path))
    try:
        # O_NONBLOCK: opening a named pipe would wait for a reader, for ever if none comes.
        number = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO or not stat.S_ISFIFO(mode):
            raise
        why = "it is a named pipe that no process reads: start the reader first"
        raise OSError(errno.ENXIO, why, os.fspath(path)) from None
    os.set_blocking(number, True)
    return os.fdopen(number, "wb")


def _is_in_use(path: str | os.PathLike[str]) -> bool:
    """Whether this process reads from a file, so that replacing it would destroy its input."""
    try:
        info = os.stat(path)
    except OSError:
        return False  # not a problem: what is not there is not read
    if not stat.S_ISREG(info.st_mode):
        return False
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(number) > 2 and os.path.samestat(info, os.stat(f"/proc/self/fd/{number}")):
                return True
    target = os.fsencode(os.path.realpath(path))
    with open("/proc/self/maps", "rb") as maps:
        return any(line.rstrip(b"\n").partition(b"/")[2] == target[1:] for line in maps)


def _move_to_new(temporary: str, target: str) -> None:
    """Rename a file to a name that must be free."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        os.replace(temporary, target)
        return
    os.unlink(temporary)


def _create_beside(target: str, mode: int) -> tuple[int, str]:
    """A new file in the folder of another: never one that is there, never through a link."""
    folder, name = os.path.split(target)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for _ in range(_TRIES):
        temporary = os.path.join(folder, f".{name[:200]}.{os.urandom(4).hex()}.part")
        with contextlib.suppress(FileExistsError):
            return os.open(temporary, flags, mode), temporary
    raise FileExistsError(f"{folder}: no free name for a temporary file")


def _sync_folder(folder: str) -> None:
    """Write a folder: only then does a rename in it last. Not every file system can."""
    with contextlib.suppress(OSError):
        number = os.open(folder or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def append_to(path: str | os.PathLike[str]) -> IO[str]:
    """
    A plain file to add text to. A new one is its owner's only: it may have data of a crashed
    machine.

    :raises OSError: if it is not a plain file, or cannot be written
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        number = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno != errno.ENXIO:  # of a socket, and of a named pipe without a reader
            raise
        raise OSError(errno.EINVAL, "not a plain file", os.fspath(path)) from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "not a plain file", os.fspath(path))
    return open(number, "a", encoding="utf-8", errors="backslashreplace")
