# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A shell in a pseudo-terminal, for tests."""

from collections.abc import Callable
import re

import pexpect

__all__ = ("TIMEOUT", "Start", "Terminal")

TIMEOUT = 120
"""Seconds to wait for what must come: for machines that do much else."""

_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][A-Z0-9]|[=>78])")

_WHERE = r"\x1b\[6n"
"""The shell asks the terminal where the cursor is; a terminal answers."""


class Terminal:
    """A shell in a pseudo-terminal."""

    def __init__(self, child: "pexpect.spawn[str]") -> None:
        self.child = child

    def type(self, text: str) -> None:
        self.child.send(text)

    def see(self, pattern: "str | type[pexpect.EOF]", timeout: float = TIMEOUT) -> str:
        """Wait for a pattern; what came before it, without escape sequences."""
        before = ""
        while self.child.expect([_WHERE, pattern], timeout=timeout) == 0:
            before += self.child.before or ""
            self.child.send("\x1b[1;1R")
        return _SEQUENCE.sub("", before + (self.child.before or ""))

    def see_on_screen(self, pattern: str) -> None:
        """
        Wait until the prompt shows a pattern. It draws what changes only; Ctrl-L makes it draw all.
        """
        for _ in range(TIMEOUT):
            self.type("\x0c")
            try:
                self.see(pattern, timeout=1)
            except pexpect.TIMEOUT:
                continue
            return
        raise AssertionError(f"{pattern!r} does not come")

    def see_raw(self, pattern: str) -> str:
        """The same with the escape sequences."""
        self.child.expect(pattern, timeout=TIMEOUT)
        return self.child.before or ""

    def run(self, line: str) -> str:
        """Type a line; what comes before its end is told."""
        self.type(f"{line}\r")
        self.type("print('en' + 'd')\r")
        return self.see(r"end\r\n")

    def leave(self, status: int = 0) -> None:
        self.type("\x04")
        self.see(pexpect.EOF)
        self.child.close()
        assert self.child.exitstatus == status


Start = Callable[..., Terminal]
