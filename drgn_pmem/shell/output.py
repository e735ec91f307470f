# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where answers go: the terminal, a pager when they are taller than it, the session's log."""

from collections.abc import Callable, Iterator
import contextlib
import io
import os
import sys
import threading
from typing import TextIO

from drgn_pmem.shell import log
from drgn_pmem.shell.journal import Journal
from drgn_pmem.shell.pager import Pager
from drgn_pmem.shell.style import paint, paint_json

__all__ = ("Output", "terminal_of")


class Output:
    """
    Output of a session.

    :param interactive: Someone is at the terminal: long answers are paged.
    :param pager: None for no pager.
    """

    def __init__(self, interactive: bool = False, pager: Pager | None = None) -> None:
        self.interactive = interactive
        self.pager = pager
        self.journal: Journal | None = None
        self._begun: tuple[TextIO, TextIO] | None = None

    def begin(self, text: str) -> None:
        """An input is about to run."""
        self._begun = sys.stdout, sys.stderr
        if self.journal is not None:
            self.journal.begin(text)
            sys.stdout = _Tee(sys.stdout, self._record)
            sys.stderr = _Tee(sys.stderr, self._record)

    def end(self) -> None:
        """The input has run."""
        if self._begun is not None:
            sys.stdout, sys.stderr = self._begun
            self._begun = None
        if self.journal is not None:
            self.journal.end()

    @contextlib.contextmanager
    def paged(self, json: bool = False) -> Iterator[None]:
        """
        The output of the block goes to the terminal, through the pager if it is taller; output
        into a pipe or a file is not paged.
        """
        stream = sys.stdout
        if not self.interactive or self.is_redirected():
            yield
            return
        errors = sys.stderr
        answer, notes = _Capture(stream), _Capture(errors)
        sys.stdout, sys.stderr = answer, notes
        try:
            yield
        finally:
            # Also if the command was stopped: keep what it printed. Notes go below the answer, not
            # into the pager.
            sys.stdout, sys.stderr = stream, errors
            self.show(answer.getvalue(), json)
            _write(errors, notes.getvalue())

    def is_redirected(self) -> bool:
        """Whether the input writes to a file or into a pipe."""
        return not _same_file(sys.stdout, self._terminal())

    def show(self, text: str, json: bool = False) -> None:
        """Show a text, through the pager if it is taller than the terminal."""
        if not text:
            return
        self._record(text)
        stream = self._terminal()
        if json and log.colours(stream):
            text = paint_json(text)
        if self.pager is not None and self.interactive and _is_taller(text, stream):
            stream.flush()
            if self.pager.page(text):
                return
        _write(stream, text)

    def stop_journal(self) -> None:
        """End the session's log, if there is one."""
        if self.journal is not None:
            self.journal.close()
            self.journal = None

    def paint(self, kind: str, text: str) -> str:
        """Colour a text for standard error, if it takes colours."""
        return paint(kind, text) if log.colours(sys.stderr) else text

    def _terminal(self) -> TextIO:
        return self._begun[0] if self._begun is not None else sys.stdout

    def _record(self, text: str) -> None:
        if self.journal is not None:
            self.journal.write(text)

    @contextlib.contextmanager
    def recorded_programs(self) -> Iterator[None]:
        """
        A block whose programs write to the terminal themselves: a log gets their output, too. They
        see a pipe then, so full-screen programs are not for this.
        """
        if self.journal is None:
            yield
            return
        stream = self._terminal()
        stream.flush()
        try:
            number = stream.fileno()
            kept = os.dup(number)
        except (OSError, ValueError):
            yield
            return
        reading, writing = os.pipe()
        copier = threading.Thread(target=_copy, args=(reading, kept, self._record))
        copier.start()
        os.dup2(writing, number)
        os.close(writing)
        try:
            yield
        finally:
            stream.flush()
            os.dup2(kept, number)
            copier.join()
            os.close(kept)


def _copy(reading: int, terminal: int, record: Callable[[str], None]) -> None:
    with open(reading, "rb", buffering=0) as pipe:
        while data := pipe.read(1 << 16):
            with contextlib.suppress(OSError):
                os.write(terminal, data)
            record(data.decode("utf-8", "backslashreplace"))


def terminal_of(stream: TextIO) -> TextIO:
    """The stream that the streams of this module write to: for what draws on the terminal."""
    while isinstance(stream, (_Tee, _Capture)):
        stream = stream.stream
    return stream


class _Tee(io.TextIOBase, TextIO):
    """Writes to a stream and passes a copy to a function; otherwise behaves as the stream."""

    def __init__(self, stream: TextIO, listener: Callable[[str], None]) -> None:
        self.stream = stream
        self._listener = listener

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    def write(self, text: str) -> int:
        self._listener(text)
        return self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        return self.stream.isatty()


class _Capture(io.StringIO):
    """Keeps what is written; its descriptor is the terminal's, so that the width of tables is."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        return self.stream.isatty()


def _same_file(one: TextIO, other: TextIO) -> bool:
    try:
        return one.fileno() == other.fileno()
    except (AttributeError, OSError, ValueError):
        return one is other


def _is_taller(text: str, stream: TextIO) -> bool:
    try:
        size = os.get_terminal_size(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    if not size.lines:
        return False
    lines = 0
    for line in text.splitlines():
        lines += max(1, -(-len(line) // max(1, size.columns)))
        if lines >= size.lines:
            return True
    return False


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
