# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Log messages on standard error, as drgn prints its own."""

import logging
import sys
from typing import TYPE_CHECKING, TextIO

from drgn_pmem.output.terminal import colours
from drgn_pmem.output.text import escape

__all__ = ("colours", "logger", "set_level", "set_up")

logger = logging.getLogger("drgn_pmem")

_COLOURS = {
    logging.DEBUG: "36",
    logging.INFO: "32",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "31;1",
}


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        if colours(sys.stderr):
            level = f"\033[{_COLOURS.get(record.levelno, '0')}m{level}:\033[0m"
        else:
            level += ":"
        name = "" if record.name in ("drgn", "drgn_pmem") else f"{record.name}: "
        # Messages name files and modules of the dump: each line is made safe, the lines stay.
        lines = super().format(record).splitlines() or [""]
        return f"{level} {name}" + "\n".join(escape(line) for line in lines)


if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:
    _StreamHandler = logging.StreamHandler  # no generic class before Python 3.11


class _Handler(_StreamHandler):
    """Writes to the ``sys.stderr`` of the moment, which the shell may have redirected."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def set_up(level: str) -> None:
    """Print log messages from a level on. Doing it twice changes the level only."""
    root = logging.getLogger()
    if not any(isinstance(handler, _Handler) for handler in root.handlers):
        handler = _Handler()
        handler.setFormatter(_Formatter())
        root.addHandler(handler)
    set_level(level)


def set_level(level: str) -> None:
    """``debug``, ``info``, ``warning``, ``error``, ``critical`` or ``none``."""
    number = logging.CRITICAL + 1 if level == "none" else getattr(logging, level.upper())
    for name in ("drgn", "drgn_pmem"):
        logging.getLogger(name).setLevel(number)
