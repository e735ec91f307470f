# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The folder of a fleet
---------------------

::

    index.html, findings.jsonl, fleet.sqlite    written when a run ends, each as a whole
    reports/NAME.html, reports/NAME.json        pmem-report of each dump
    results/NAME.json                           what came of each dump; there is one: it is done
    debug-info/                                 links to debug info by build ID
    .fleet.json                                 which dumps were asked for
    .lock                                       held by the run that writes
    .run-NAME                                   there while that run goes on; its tasks look at it
"""

from collections.abc import Iterator, Sequence
import contextlib
import fcntl
import json
import os
from pathlib import Path
import shutil
import socket

from drgn_pmem.errors import DumpFileError, PmemError, UsageError
from drgn_pmem.fleet.result import Result, load_result
from drgn_pmem.output.files import write_file

__all__ = ("Folder", "open_folder")


class Folder:
    """The folder of a fleet, which this process alone writes to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = os.urandom(8).hex()

    @property
    def debug_info(self) -> Path:
        return self.path / "debug-info"

    def results(self) -> Iterator[Result]:
        """Every result that is there, in the order of the names."""
        for path in sorted((self.path / "results").glob("*.json")):
            result = load_result(path)
            if result is not None and result.name == path.stem:
                yield result

    def asked(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Dumps and folders of debug info that the run before was given."""
        try:
            value = json.loads((self.path / ".fleet.json").read_text())
            return tuple(map(str, value["dumps"])), tuple(map(str, value["debug_directories"]))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UsageError(
                f"{self.path}: --resume: no earlier run is there; give the dumps"
            ) from error

    def begin(self, dumps: Sequence[str], debug_directories: Sequence[str]) -> None:
        """Note what is asked for, and that a run goes on."""
        value = {"dumps": list(dumps), "debug_directories": list(debug_directories)}
        write_file(self.path / ".fleet.json", json.dumps(value) + "\n")
        for old in self.path.glob(".run-*"):
            old.unlink(missing_ok=True)
        write_file(self.path / f".run-{self.run}", "")

    def end(self) -> None:
        """Tasks of this run that have not ended end now."""
        (self.path / f".run-{self.run}").unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what tasks left that were ended."""
        for pattern in ("results/*.log", "results/*.begun", "results/.*.part", "reports/.*.part"):
            for path in self.path.glob(pattern):
                with contextlib.suppress(OSError):
                    path.unlink()


@contextlib.contextmanager
def open_folder(path: str, *, resume: bool) -> Iterator[Folder]:
    """
    Make a folder, or take that of an earlier run; no other run can have it meanwhile.

    :param resume: Whether it may have results.
    :raises PmemError: if it has and must not, is not a fleet's, or another run writes to it
    """
    folder = Path(path)
    made = not folder.exists()
    try:
        ours = (folder / ".lock").exists()
        if folder.exists() and not ours and any(folder.iterdir()):
            raise UsageError(f"{path} is not empty and not the folder of a fleet; give another one")
        folder.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        number = os.open(folder / ".lock", flags, 0o600)
    except OSError as error:
        raise DumpFileError(f"{path}: {error.strerror}") from error
    try:
        _lock(number, path)
        if (folder / ".fleet.json").exists() and not resume:
            raise UsageError(
                f"{path} has the results of an earlier run: give --resume to go on there, or "
                "another folder"
            )
        for name in ("reports", "results"):
            (folder / name).mkdir(exist_ok=True)
        yield Folder(folder)
    except BaseException as error:
        begun = (folder / ".fleet.json").exists() and not isinstance(error, PmemError)
        if made and not begun and not any((folder / "results").glob("*.json")):
            _remove(folder)
        raise
    finally:
        os.close(number)


def _remove(folder: Path) -> None:
    """Remove a folder that was made for a run that came to nothing."""
    for name in ("reports", "results", "debug-info"):
        shutil.rmtree(folder / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # it stays, if there is anything else in it
        for name in ("index.html", "findings.jsonl", "fleet.sqlite", ".fleet.json", ".lock"):
            (folder / name).unlink(missing_ok=True)
        for marker in folder.glob(".run-*"):
            marker.unlink()
        folder.rmdir()


def _lock(number: int, path: str) -> None:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = os.pread(number, 200, 0).decode("ascii", "backslashreplace").strip()
        raise PmemError(f"{path}: another run writes there ({who})") from None
    os.ftruncate(number, 0)
    os.pwrite(number, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
