# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The interface of the session to the shell's own commands."""

from collections.abc import Sequence
from typing import Protocol

import drgn

from drgn_pmem.session import Target
from drgn_pmem.shell.favourites import Favourites
from drgn_pmem.shell.output import Output
from drgn_pmem.shell.python import Python

__all__ = ("SessionState",)


class SessionState(Protocol):
    """A running session (:class:`drgn_pmem.shell.session.Session`)."""

    target: Target
    prog: drgn.Program
    output: Output
    python: Python
    timing: bool
    expanded: bool | None
    favourites: Favourites

    def traceback(self) -> str: ...

    def load_symbols(self, paths: Sequence[str]) -> None: ...

    def run_nested(self, text: str) -> None: ...
