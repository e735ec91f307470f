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
packed file. A format with ``"base": ["raw", "OTHER:elf"]`` is a delta against formats that stand
before it, of its own sample or another; ``"vmlinux"`` is the sample's debug info.
:mod:`drgn_pmem.shell.unpack` unpacks them.

A file that is not packed (no ``.xz``, no ``sha256``) is read where it is. Instead of ``vmlinux``,
an entry may say where debug info is to be searched, as on a user's machine: ``debug_directories``
and ``kernel_directories``, which stand for drgn's options of these names. DRGN_PMEM_SAMPLES names
further folders with an ``index.json`` of their own (separated as in PATH), such as
``make test-distro`` leaves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
import os
from pathlib import Path
from typing import Any

import drgn_pmem
from drgn_pmem.errors import FormatError, NotFound
from drgn_pmem.output.text import escape
from drgn_pmem.shell.sampleindex import DIGEST, NAME, check, path_below, read_index
from drgn_pmem.shell.unpack import MAX_SIZE, File

__all__ = ("File", "Sample", "find_sample", "load_index", "samples_directory")

_INDEX_VERSION = 1
_MAX_SAID = 200
_MAX_BASES = 16


@dataclass(frozen=True)
class Sample:
    """A dump in all its formats, and the truth about it."""

    name: str
    description: str
    release: str
    architecture: str
    loader: str
    formats: Mapping[str, File]
    vmlinux: File | None = None
    """None if debug info is to be searched in the directories."""
    modules: tuple[File, ...] = ()
    truth: Path = field(default_factory=Path)
    debug_directories: tuple[Path, ...] = ()
    kernel_directories: tuple[Path, ...] = ()

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
                f"sample {self.name} has no format '{escape(name)}'; it has "
                + ", ".join(self.formats)
            ) from None

    def debug_info(self) -> list[Path]:
        """vmlinux and the modules' debug info, unpacked; empty if they are to be searched."""
        return [file.unpack() for file in (self.vmlinux, *self.modules) if file is not None]


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
    :param directory: None for vmcores/ and the folders that DRGN_PMEM_SAMPLES names.
    :return: The samples by name, and the name of the default one.
    :raises NotFound: if there are none
    :raises FormatError: if index.json is not what it must be
    """
    samples, default = _read_index(directory or samples_directory())
    if directory is None:
        for folder in filter(None, os.environ.get("DRGN_PMEM_SAMPLES", "").split(os.pathsep)):
            samples |= _read_index(Path(folder))[0]
    return samples, default


def _read_index(directory: Path) -> tuple[dict[str, Sample], str]:
    path = directory / "index.json"
    shown = escape(str(path))
    try:
        index = read_index(path)
        if index["version"] != _INDEX_VERSION:
            raise FormatError(f"{shown}: version {index['version']!r}, not {_INDEX_VERSION}")
        samples: dict[str, Sample] = {}
        for name, entry in index["samples"].items():
            samples[name] = _sample(directory, name, entry, samples)
        default = index["default"]
        if default not in samples:
            raise FormatError(f"{shown}: no default sample")
    except FormatError:
        raise
    except OSError as error:
        raise NotFound(f"{shown}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        said = f"{type(error).__name__}: {error}"[:_MAX_SAID]
        raise FormatError(f"{shown} cannot be understood: {escape(said)}") from error
    return samples, default


def _sample(
    directory: Path, name: str, entry: Mapping[str, Any], before: Mapping[str, Sample]
) -> Sample:
    """
    :param before: The samples that stand before it, whose formats may be its bases.
    """
    formats: dict[str, File] = {}
    check(NAME.fullmatch(name), f"name of a sample: {name[:40]!r}")

    def base(reference: str) -> File:
        if reference == "vmlinux":
            return file(entry["vmlinux"])
        sample, _, format = reference.rpartition(":")
        return (before[sample].formats if sample else formats)[format]

    def file(description: Mapping[str, Any]) -> File:
        path = path_below(directory, description["file"])
        size, digest = description["size"], description.get("sha256", "")
        packed = path.suffix == ".xz"
        check(type(size) is int and size > 0, f"size of {path.name}: {size!r}")
        check(not packed or size <= MAX_SIZE, f"{path.name} is larger than {MAX_SIZE} bytes")
        check(DIGEST.fullmatch(digest) or (not packed and digest == ""), f"sha256 of {path.name}")
        bases = tuple(base(reference) for reference in description.get("base", ()))
        depth = 1 + max((item.depth for item in bases), default=-1)
        check(max(depth, len(bases)) <= _MAX_BASES, f"{path.name} has too many bases")
        return File(path=path, size=size, sha256=digest, sample=name, bases=bases, depth=depth)

    for format, description in entry["formats"].items():
        check(NAME.fullmatch(format), f"name of a format: {format[:40]!r}")
        formats[format] = file(description)
    check(formats, f"{name} has no format")

    def text(key: str, default: str = "") -> str:
        value = entry.get(key, default)
        check(isinstance(value, str), f"{key} of {name}")
        return str(value)

    def directories(key: str) -> tuple[Path, ...]:
        return tuple(path_below(directory, path) for path in entry.get(key, ()))

    return Sample(
        name=name,
        description=text("description"),
        release=text("release"),
        architecture=text("architecture", "x86_64"),
        loader=text("loader"),
        formats=formats,
        vmlinux=file(entry["vmlinux"]) if "vmlinux" in entry else None,
        modules=tuple(file(value) for value in entry.get("modules", ())),
        truth=path_below(directory, entry.get("truth", f"{name}/truth")),
        debug_directories=directories("debug_directories"),
        kernel_directories=directories("kernel_directories"),
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
            f"no sample '{escape(name or default)}'; there are {', '.join(samples)}"
        ) from None
