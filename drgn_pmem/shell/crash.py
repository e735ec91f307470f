# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""drgn's own prompt for crash's commands (``%crash>``)."""

import contextlib

import drgn

__all__ = ("add_quit",)


def add_quit(prog: drgn.Program) -> None:
    """Let ``quit`` leave the prompt ``%crash>``, as ``exit`` and ``q`` do."""
    # Of a drgn that has no such namespace, or names it otherwise, the prompt stays as it is.
    with contextlib.suppress(ImportError, LookupError):
        from drgn.commands._crash.common import CRASH_COMMAND_NAMESPACE as commands

        commands.register("quit", commands.lookup(prog, "exit"))
