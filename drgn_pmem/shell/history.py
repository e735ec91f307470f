# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""History of what was typed, kept between sessions."""

from collections.abc import Iterable
import os
from pathlib import Path

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from drgn_pmem.output.files import write_file
from drgn_pmem.shell.folders import state_directory
from drgn_pmem.shell.log import logger

__all__ = ("open_history",)

_MAX_BYTES = 1 << 20
"""A longer file is cut to its newer half at the start of a session."""


class _History(FileHistory):
    """Leaves out what begins with a space, as shells do, and what was just typed."""

    def load_history_strings(self) -> Iterable[str]:
        try:
            yield from super().load_history_strings()
        except (OSError, UnicodeDecodeError) as error:
            logger.warning("history cannot be read: %s", error)

    def append_string(self, string: str) -> None:
        last = self._loaded_strings[0] if self._loaded_strings else None
        if string.strip() and not string.startswith(" ") and string != last:
            super().append_string(string)

    def store_string(self, string: str) -> None:
        try:
            super().store_string(string)
        except OSError as error:
            logger.debug("history cannot be written: %s", error)


def open_history(path: Path | None = None) -> History:
    """The user's history; one that ends with the session if it cannot be kept."""
    path = path or state_directory() / "history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The input may contain data of the crashed machine: private.
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
        _cut(path)
    except OSError as error:
        logger.warning("history is not kept: %s: %s", path, error.strerror)
        return InMemoryHistory()
    return _History(str(path))


def _cut(path: Path) -> None:
    if path.stat().st_size <= _MAX_BYTES:
        return
    newer = path.read_bytes()[-_MAX_BYTES // 2 :]
    # Entries begin with an empty line and a comment with the time.
    start = newer.find(b"\n\n# ")
    write_file(path, newer[start + 1 :] if start >= 0 else b"", mode=0o600)
