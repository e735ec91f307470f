# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The shell: a prompt, and the session that runs what is typed."""

from collections.abc import Callable

from prompt_toolkit import PromptSession

from drgn_pmem.shell.failures import Leave
from drgn_pmem.shell.output import Output
from drgn_pmem.shell.pager import find_pager
from drgn_pmem.shell.session import Session
from drgn_pmem.shell.target import Target

__all__ = ("interact",)


def interact(target: Target, use_config: bool = True) -> int:
    """
    Run the shell until the user leaves.

    :param use_config: Read the user's config file, and make it if there is none.
    :return: Exit status.
    """
    session = Session(target, Output(True, find_pager("auto")))
    prompt: PromptSession[str] = PromptSession(">>> ")
    with session.interrupts.installed():
        return _loop(session, prompt.prompt)


def _loop(session: Session, read: Callable[[], str]) -> int:
    while True:
        try:
            text = read()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return 0
        try:
            session.run(text)
        except Leave as leave:
            return int(leave.args[0])
