# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Sample dumps
------------

``vmcores/`` holds real dumps, packed, with what was true on the machine that crashed.
``vmcores/index.json`` describes them::

    {"version": 1, "default": NAME, "samples": {NAME: {
        "description": "...", "release": "6.1.0", "architecture": "x86_64", "loader": "...",
        "formats": {"raw": {"file": "NAME/vmcore.xz", "size": BYTES, "sha256": "..."}, ...},
        "vmlinux": {"file": "NAME/vmlinux.xz", "size": BYTES, "sha256": "..."},
        "modules": [{"file": ..., "size": ..., "sha256": ...}],
        "truth": "NAME/truth"}}}

``file`` is relative to ``vmcores/``, ``size`` is that of the unpacked file, ``sha256`` is of the
file as it lies there. A file is unpacked once, into the user's cache: sparse, under a temporary
name, checked, and only then renamed, so that an interrupted unpack never counts.
"""

from collections.abc import Iterator, Mapping
import contextlib
from dataclasses import dataclass, field
import fcntl
import hashlib
import json
import lzma
import os
from pathlib import Path
import tempfile
from typing import IO, Any

import drgn_pmem
from drgn_pmem.errors import DumpFileError, FormatError, NotFound
from drgn_pmem.output.progress import progress
from drgn_pmem.output.text import escape
from drgn_pmem.shell.folders import cache_directory

__all__ = ("File", "Sample", "find_sample", "load_index", "samples_directory")

_INDEX_VERSION = 1
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
    """Of the packed file."""
    sample: str

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
        target = cache_directory() / self.sample / self.sha256[:12] / self.path.stem
        if _is_complete(target, self.size):
            return target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(target.parent):
                if not _is_complete(target, self.size):  # another process may have just done it
                    _remove_leftovers(target)
                    _unpack(self, target)
        except OSError as error:
            if isinstance(error, DumpFileError):
                raise
            raise DumpFileError(
                f"sample {self.sample} cannot be unpacked into {target.parent}: {error.strerror}"
            ) from error
        return target


@dataclass(frozen=True)
class Sample:
    """A dump of vmcores/ in all its formats, and the truth about it."""

    name: str
    description: str
    release: str
    architecture: str
    loader: str
    formats: Mapping[str, File]
    vmlinux: File
    modules: tuple[File, ...] = ()
    truth: Path = field(default_factory=Path)

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "description": self.description,
            "release": self.release,
            "architecture": self.architecture,
            "loader": self.loader,
            "formats": list(self.formats),
        }

    def dump(self, format: str | None = None) -> Path:
        """
        The dump, unpacked.

        :param format: One of :attr:`formats`; None for the first of them.
        :raises NotFound: if there is no such format
        """
        name = format or next(iter(self.formats))
        try:
            return self.formats[name].unpack()
        except KeyError:
            raise NotFound(
                f"sample {self.name} has no format {escape(name)!r}; it has "
                + ", ".join(self.formats)
            ) from None

    def debug_info(self) -> list[Path]:
        """vmlinux and the modules' debug info, unpacked."""
        return [file.unpack() for file in (self.vmlinux, *self.modules)]


def samples_directory() -> Path:
    """
    ``vmcores/`` of the source tree, or what DRGN_PMEM_VMCORES names.

    :raises NotFound: if it is not there, with where to get it
    """
    given = os.environ.get("DRGN_PMEM_VMCORES")
    if given:
        path = Path(given)
        if not (path / "index.json").is_file():
            raise NotFound(f"DRGN_PMEM_VMCORES={escape(given)} has no index.json")
        return path
    path = Path(drgn_pmem.__file__).resolve().parent.parent / "vmcores"
    if not (path / "index.json").is_file():
        raise NotFound(
            "the sample dumps do not come with the installed package: they are in vmcores/ of "
            "drgn-pmem's source tree; point DRGN_PMEM_VMCORES there"
        )
    return path


def load_index(directory: Path | None = None) -> tuple[dict[str, Sample], str]:
    """
    :return: The samples by name, and the name of the default one.
    :raises NotFound: if there are none
    :raises FormatError: if index.json is not what it must be
    """
    directory = directory or samples_directory()
    path = directory / "index.json"
    try:
        index = json.loads(path.read_text())
        if index["version"] != _INDEX_VERSION:
            raise FormatError(f"{path}: version {index['version']}, not {_INDEX_VERSION}")
        samples = {
            name: _sample(directory, name, entry) for name, entry in index["samples"].items()
        }
        default = index["default"]
        if default not in samples:
            raise FormatError(f"{path}: no default sample")
    except FormatError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path} cannot be understood: {error!r}") from error
    return samples, default


def _sample(directory: Path, name: str, entry: Mapping[str, Any]) -> Sample:
    def file(description: Mapping[str, Any]) -> File:
        return File(
            path=directory / description["file"],
            size=int(description["size"]),
            sha256=str(description["sha256"]),
            sample=name,
        )

    return Sample(
        name=name,
        description=entry.get("description", ""),
        release=entry["release"],
        architecture=entry.get("architecture", "x86_64"),
        loader=entry.get("loader", ""),
        formats={format: file(value) for format, value in entry["formats"].items()},
        vmlinux=file(entry["vmlinux"]),
        modules=tuple(file(value) for value in entry.get("modules", ())),
        truth=directory / entry.get("truth", f"{name}/truth"),
    )


def find_sample(name: str | None = None) -> Sample:
    """
    :param name: None for the default one.
    :raises NotFound: if there is no such sample, with the names of those there are
    """
    samples, default = load_index()
    try:
        return samples[name or default]
    except KeyError:
        raise NotFound(
            f"no sample {escape(name or default)!r}; there are {', '.join(samples)}"
        ) from None


def _is_complete(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One process unpacks, the others wait for it. A file system that cannot lock costs double
    work, nothing else: each process has its own temporary name."""
    with open(directory / ".lock", "a") as lock:
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


def _unpack(file: File, target: Path) -> None:
    handle, temporary = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.name}.", suffix=".part"
    )
    try:
        with os.fdopen(handle, "wb") as out:
            with contextlib.suppress(OSError):
                fcntl.flock(out, fcntl.LOCK_EX)
            with open(file.path, "rb") as packed:
                _copy(file, packed, out)
            out.flush()
            os.fsync(out.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    # The rename itself lasts only when its folder is written.
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _copy(file: File, packed: IO[bytes], out: IO[bytes]) -> None:
    """
    Unpack, leaving holes for zeroes, checking the digest of what goes in and the size of what comes
    out (xz checks the contents by its own CRC64).
    """
    digest = hashlib.sha256()
    unpacker = lzma.LZMADecompressor()
    position = 0
    damaged = f"{file.path} is damaged; get vmcores/ anew"
    with progress(f"unpacking {file.sample} {file.path.stem}", file.size) as report:
        try:
            while not unpacker.eof:
                data = b""
                if unpacker.needs_input:
                    data = packed.read(_PACKED_BLOCK)
                    if not data:
                        raise DumpFileError(damaged)
                    digest.update(data)
                block = unpacker.decompress(data, _BLOCK)
                position = _write_sparse(out, block, position)
                if position > file.size:
                    raise DumpFileError(damaged)
                report(position, file.size)
        except lzma.LZMAError as error:
            raise DumpFileError(damaged) from error
        for data in iter(lambda: packed.read(_PACKED_BLOCK), b""):
            digest.update(data)
    if position != file.size or digest.hexdigest() != file.sha256:
        raise DumpFileError(damaged)
    out.truncate(position)


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
