# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Unpacking
---------

A file of a sample is unpacked once, into the user's cache: sparse, under a temporary name, checked,
and only then renamed, so that an interrupted unpack never counts. One that is a delta
(:mod:`drgn_pmem.shell.delta`) has its bases unpacked first.

The digest is checked when a file is unpacked; after that the file counts as long as it is the one
that was written, by inode and time (:mod:`drgn_pmem.shell.cache`).
"""

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass
import fcntl
import hashlib
import io
import lzma
import os
from pathlib import Path
from typing import IO

from drgn_pmem.errors import DumpFileError, FormatError
from drgn_pmem.output.files import replacing
from drgn_pmem.output.progress import progress
from drgn_pmem.output.text import escape
from drgn_pmem.shell.cache import is_complete, own_folder, record_complete
from drgn_pmem.shell.delta import read_delta
from drgn_pmem.shell.folders import cache_directory

__all__ = ("MAX_SIZE", "File")

MAX_SIZE = 64 << 30
"""Bytes of an unpacked file at most."""

_PACKED_BLOCK = 1 << 18
_BLOCK = 1 << 20
_HOLE = 1 << 16
"""Zeroes are left out of the unpacked file in pieces of this many bytes."""


@dataclass(frozen=True)
class File:
    """One packed file of a sample."""

    path: Path
    """In vmcores/."""
    size: int
    """Bytes when unpacked."""
    sha256: str
    """Of the packed file; empty if it is not packed."""
    sample: str
    bases: "tuple[File, ...]" = ()
    """What it is a delta against; nothing if it stands alone."""
    depth: int = 0
    """How many deltas are made one after the other before it."""

    def to_json(self) -> dict[str, object]:
        return {"path": str(self.path), "size": self.size, "sha256": self.sha256}

    def unpack(self) -> Path:
        """
        The unpacked file in the user's cache; unpacks it if it is not there.

        :raises DumpFileError: if there is no room, or the packed file is damaged
        """
        if self.path.suffix != ".xz":
            return self.path
        # The digest in the name: a sample that was made anew is another file.
        folder = cache_directory() / self.sample / self.sha256[:12]
        target = folder / self.path.stem
        try:
            own_folder(cache_directory(), self.sample, self.sha256[:12])
            if is_complete(target, self.size):
                return target
            bases = [base.unpack() for base in self.bases]
            with _locked(folder):
                if not is_complete(target, self.size):  # another process may have just done it
                    _remove_leftovers(target)
                    _need_space(folder, self.size)
                    _unpack(self, bases, target)
                    record_complete(target)
        except OSError as error:
            if isinstance(error, DumpFileError):
                raise
            raise DumpFileError(
                f"sample {self.sample} cannot be unpacked into {escape(str(folder))}: "
                f"{error.strerror}"
            ) from error
        return target


def _need_space(folder: Path, size: int) -> None:
    """
    :raises DumpFileError: if a file of that size may not fit
    """
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if size > free:
        raise DumpFileError(
            f"{escape(str(folder))} has {free} bytes free, the unpacked file may need {size}: make "
            "room, or set XDG_CACHE_HOME"
        )


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One process unpacks, the others wait for it. A file system that cannot lock costs double
    work, nothing else: each process has its own temporary name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(directory / ".lock", flags, 0o600), "w") as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_leftovers(target: Path) -> None:
    for path in target.parent.glob(f".{target.name}.*.part"):
        with contextlib.suppress(OSError):
            # A file that can be locked belongs to no living process (see _unpack).
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _unpack(file: File, bases: list[Path], target: Path) -> None:
    with replacing(target, mode=0o600) as out:
        with contextlib.suppress(OSError):
            fcntl.flock(out, fcntl.LOCK_EX)
        _copy(file, bases, out)


def _copy(file: File, bases: list[Path], out: IO[bytes]) -> None:
    """
    Unpack, leaving holes for zeroes, checking the digest of what goes in and the size of what comes
    out (xz checks the contents by its own CRC64, a delta by the SHA-256 in it).
    """
    damaged = f"{file.path} is damaged; get vmcores/ anew"
    wrong: FormatError | None = None
    position = 0
    with contextlib.ExitStack() as stack:
        packed = _Packed(stack.enter_context(open(file.path, "rb")))
        pieces: Iterator[bytes] = iter(packed.block, b"")
        if bases:
            opened = [stack.enter_context(open(base, "rb")) for base in bases]
            pieces = read_delta(packed, opened, file.size)
        label = f"unpacking {file.sample} {file.path.stem}"
        report = stack.enter_context(progress(label, file.size))
        try:
            for piece in pieces:
                position = _write_sparse(out, piece, position)
                if position > file.size:
                    raise DumpFileError(damaged)
                report(position, file.size)
        except (lzma.LZMAError, EOFError) as error:
            raise DumpFileError(damaged) from error
        except FormatError as error:
            wrong = error
        if packed.hexdigest() != file.sha256:
            raise DumpFileError(damaged)
    if wrong:
        raise DumpFileError(f"{file.path} cannot be unpacked: {wrong}") from wrong
    if position != file.size:
        raise DumpFileError(damaged)
    out.truncate(position)


class _Packed:
    """What an .xz file holds, read once, and the digest of the file itself."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._unpacker = lzma.LZMADecompressor()
        self._block = io.BytesIO()

    def block(self) -> bytes:
        """
        The next bytes, at most :data:`_BLOCK`; none at the end.

        :raises EOFError: if the packed file ends too early
        """
        block = b""
        while not block and not self._unpacker.eof:
            data = self._read_packed() if self._unpacker.needs_input else b""
            if not data and self._unpacker.needs_input:
                raise EOFError
            block = self._unpacker.decompress(data, _BLOCK)
        return block

    def read(self, size: int, /) -> bytes:
        """As a file's."""
        data = self._block.read(size)
        while len(data) < size and (block := self.block()):
            self._block = io.BytesIO(block)
            data += self._block.read(size - len(data))
        return data

    def hexdigest(self) -> str:
        """SHA-256 of the packed file, to its end."""
        while self._read_packed():
            pass
        return self._digest.hexdigest()

    def _read_packed(self) -> bytes:
        data = self._file.read(_PACKED_BLOCK)
        self._digest.update(data)
        return data


def _write_sparse(out: IO[bytes], block: bytes, position: int) -> int:
    """Write a block, but seek over its zeroes. :return: The position after it, in bytes."""
    zeroes = bytes(_HOLE)
    for start in range(0, len(block), _HOLE):
        piece = block[start : start + _HOLE]
        if piece == zeroes[: len(piece)]:
            out.seek(len(piece), os.SEEK_CUR)
        else:
            out.write(piece)
    return position + len(block)
