# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The session's log in Markdown: every input and its answer, for a bug report."""

from datetime import datetime
from pathlib import Path
import re

from drgn_pmem.output.files import append_to
from drgn_pmem.output.text import escape

__all__ = ("Journal",)

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Journal:
    """
    A log that is being written; it is complete after every input.

    :param path: File to add to.
    :param title: What the session looks at.
    :raises OSError: if the file cannot be written
    """

    def __init__(self, path: Path, title: str) -> None:
        self.path = path
        self._file = append_to(path)
        self._parts: list[str] | None = None
        self._input = ""
        self._file.write(f"# {escape(title)}\n\n{datetime.now():%Y-%m-%d %H:%M}\n")
        self._file.flush()

    def begin(self, text: str) -> None:
        """An input is about to run."""
        self._input = text.strip("\n")
        self._parts = []

    def write(self, text: str) -> None:
        """Part of its answer."""
        if self._parts is not None:
            self._parts.append(text)

    def end(self) -> None:
        """The input has run: write it and its answer."""
        if self._parts is None:
            return
        answer = _ESCAPE_SEQUENCE.sub("", "".join(self._parts)).rstrip()
        # A fence that is longer than any in the text.
        fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", self._input + answer)), default=0))
        prompt = "\n".join(
            (">>> " if not number else "... ") + line
            for number, line in enumerate(self._input.splitlines())
        )
        self._file.write(f"\n{fence}\n{prompt}\n{answer}{chr(10) if answer else ''}{fence}\n")
        self._file.flush()
        self._parts = None

    def close(self) -> None:
        """No more inputs."""
        self._file.close()
