# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pager: for answers that are taller than the terminal."""

from collections.abc import Sequence
import contextlib
import os
import shlex
import shutil
import signal
import subprocess

__all__ = ("Pager", "find_pager")


class Pager:
    """:param command: The program and its options."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)

    def page(self, text: str) -> bool:
        """Show a text. :return: False if the pager could not be started."""
        environment = dict(os.environ)
        # Colours through, the text stays on the screen afterwards, and a prompt that says how to
        # leave: who types the next command writes no file and starts no program.
        environment.setdefault("LESS", r"RXPsspace\: more, q\: back to the prompt$")
        environment.setdefault("LESSSECURE", "1")
        # Ctrl-C is for the pager while it has the screen; without this it would end our wait, and
        # two programs would read the keys.
        previous = signal.signal(signal.SIGINT, _ignore)
        try:
            process = subprocess.Popen(self.command, stdin=subprocess.PIPE, env=environment)
            with contextlib.suppress(BrokenPipeError):
                process.communicate(text.encode("utf-8", "backslashreplace"))
        except OSError:
            return False
        finally:
            signal.signal(signal.SIGINT, previous)
        return True


def _ignore(number: int, frame: object) -> None:
    """A handler that does nothing; unlike SIG_IGN, a program that is started does not inherit
    it."""


def find_pager(setting: str = "auto") -> Pager | None:
    """
    :param setting: A command line, ``never``, or ``auto``: DRGN_PMEM_PAGER, PAGER, less, more.
    """
    if setting.strip().lower() in ("never", "off", "no"):
        return None
    lines = [setting] if setting.strip().lower() != "auto" else []
    lines += [os.environ.get("DRGN_PMEM_PAGER", ""), os.environ.get("PAGER", ""), "less", "more"]
    for line in lines:
        with contextlib.suppress(ValueError):
            words = shlex.split(line)
            if words and shutil.which(words[0]):
                return Pager(words)
    return None
