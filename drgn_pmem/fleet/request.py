# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What a task is
--------------

One dump to read: what goes from the run to a worker and on to the process that reads. Plain paths
and numbers in JSON; nothing of a dump's contents.
"""

from dataclasses import asdict, dataclass
import importlib.metadata
import json
from pathlib import Path
from typing import Any

__all__ = ("Request", "product_version")


def product_version() -> str:
    """The version of drgn-pmem, part of what a result depends on."""
    return importlib.metadata.version("drgn-pmem")


@dataclass(frozen=True)
class Request:
    """One dump to read."""

    dump: str
    """Absolute path."""
    size: int
    """bytes, as all of :class:`~drgn_pmem.fleet.find.Identity`"""
    changed: int
    sha256: str
    name: str
    """Of the files of its results."""
    folder: str
    """The folder of the run."""
    run: str
    """A random name: two runs never mix up their results."""
    version: str
    """Version of drgn-pmem."""
    debug_directories: tuple[str, ...]
    debug_info: str
    """Digest of which debug info there is in the folders given."""
    timeout: float
    """seconds"""
    memory_limit: int
    """bytes"""
    tries: int
    """How often the dump may be read before its readers' deaths are its result."""

    def dumps(self) -> str:
        """As JSON, in ASCII."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> "Request":
        value: dict[str, Any] = json.loads(text)
        value["debug_directories"] = tuple(value["debug_directories"])
        return cls(**value)

    @property
    def result(self) -> Path:
        """The result: written last, so that a dump with a result is done."""
        return self._file("results", ".json")

    @property
    def log(self) -> Path:
        """Standard error of the process that reads."""
        return self._file("results", ".log")

    @property
    def begun(self) -> Path:
        """A line for each time that the dump was begun."""
        return self._file("results", ".begun")

    @property
    def html(self) -> Path:
        return self._file("reports", ".html")

    @property
    def json(self) -> Path:
        return self._file("reports", ".json")

    @property
    def marker(self) -> Path:
        """Is there while the run goes on: removed, its tasks end. A name that no earlier run had: a
        network file system remembers for a while what is not there."""
        return Path(self.folder) / f".run-{self.run}"

    def _file(self, folder: str, suffix: str) -> Path:
        return Path(self.folder) / folder / (self.name + suffix)
