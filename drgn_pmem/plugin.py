# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The drgn plugin: registers the commands with drgn's prompt (``%pmem-list``).

drgn imports this at every start, so it imports nothing: a command's file is loaded
when the command is used.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from drgn.commands import DEFAULT_COMMAND_NAMESPACE

from drgn_pmem.commands import command_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drgn import Program
    from drgn.commands import ParsedCommand

    from drgn_pmem.spec import Spec

__all__ = ("DrgnCommand",)


class DrgnCommand:
    """A command of ours as one of drgn's own (the ``drgn.commands.Command`` protocol)."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def _spec(self) -> Spec:
        from drgn_pmem.commands import load_command

        return load_command(self._name)

    def description(self) -> str:
        return self._spec.description

    def format_usage(self) -> str:
        return self._spec.parser().format_usage().removeprefix("usage: ").rstrip()

    def format_help(self, *, indent: str = "") -> str:
        text = self._spec.parser().format_help()
        return "\n".join(f"{indent}{line}".rstrip() for line in text.splitlines())

    def enabled(self, prog: Program) -> bool:
        # Always: a command whose subject is missing says so; it is never "command not found".
        return True

    def parse(self, source: str) -> ParsedCommand[Sequence[str]]:
        from drgn.commands import parse_shell_command

        return parse_shell_command(source)

    def run(self, prog: Program, name: str, words: Sequence[str], **kwargs: Any) -> Any:
        from drgn.commands import CommandArgumentError

        from drgn_pmem.errors import PmemError, UsageError, numpy_error
        from drgn_pmem.output.text import escape
        from drgn_pmem.spec import run

        try:
            answer = run(self._spec, prog, words, redirected=_is_redirected())
        except UsageError as error:
            raise CommandArgumentError(escape(str(error))) from error
        except PmemError as error:
            # drgn prints it unescaped, and it may contain text from the dump.
            error.args = (escape(str(error)),)
            raise
        except (ImportError, RuntimeError) as error:
            line = numpy_error(error)
            if line is None:
                raise
            raise line from None
        return None if answer is None else answer.records


def _is_redirected() -> bool:
    """Whether drgn writes the command's output to a file or into a pipe: it replaces
    ``sys.stdout``."""
    try:
        return sys.__stdout__ is not None and sys.stdout.fileno() != sys.__stdout__.fileno()
    except (AttributeError, OSError, ValueError):
        # not a problem: a notebook's or a script's own stream
        return False


# Registering twice is harmless: the name maps to the same command.
for _name in command_names():
    DEFAULT_COMMAND_NAMESPACE.register(_name, DrgnCommand(_name))
