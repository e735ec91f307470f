# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The session
-----------

Runs one input after the other: commands, Python, sh lines, the shell's own commands. It does not
use prompts; the shell (:mod:`drgn_pmem.shell.loop`) and the use without one
(:mod:`drgn_pmem.shell.batch`) both drive it.
"""

import builtins
from collections.abc import Callable, Sequence
import dataclasses
import re
import sys
import textwrap
import time
import traceback
from typing import Any

import drgn
from drgn.commands import (
    DEFAULT_COMMAND_NAMESPACE,
    Command,
    CommandArgumentError,
    CommandExitStatusError,
    CommandNamespace,
    parse_shell_command,
    run_command,
)

from drgn_pmem.errors import UsageError
from drgn_pmem.output.text import escape, escape_lines, plural
from drgn_pmem.session import Target
from drgn_pmem.shell.builtin import BUILTINS
from drgn_pmem.shell.crash import add_quit
from drgn_pmem.shell.failures import Leave, did_you_mean, explain
from drgn_pmem.shell.favourites import Favourites
from drgn_pmem.shell.folders import config_directory
from drgn_pmem.shell.interrupt import Interrupts
from drgn_pmem.shell.log import logger
from drgn_pmem.shell.output import Output
from drgn_pmem.shell.python import Python, default_globals, render
from drgn_pmem.shell.words import Kind, Line, Names, read_line, split_text
from drgn_pmem.spec import SPECS, Answer, Spec, run
from drgn_pmem.symbols import check_symbols, load_debug_info

__all__ = ("Session",)

_MAX_NESTING = 10
"""Maximum depth of favourites that use favourites."""

_FULL_SCREEN = re.compile(
    r"(?:^|[|;&(]\s*)(?:\S*/)?(less|more|most|man|vi|vim|nano|emacs|top|htop)\b"
)

Builtin = Callable[["Session", str], None]


class Session:
    """
    State of a session and how its inputs are run.

    :param target: The dump or kernel.
    :param output: Where answers go.
    """

    def __init__(self, target: Target, output: Output | None = None) -> None:
        self.target = target
        self.prog = target.prog
        self.output = output or Output()
        self.python = Python(default_globals(target.prog))
        self.timing = False
        self.expanded: bool | None = None
        """``\\x``: tables field by field, always or never; None: where a record is too wide."""
        self.interrupts = Interrupts()
        self.last_error: BaseException | None = None
        """What failed last, for ``\\debug``."""
        self.failed: BaseException | None = None
        """Why the input that ran last failed, None if it did not."""
        self.listeners: list[Callable[[str, Answer], None]] = []
        """Called with the command line and each answer of a command of ours."""
        self.symbols_listeners: list[Callable[[], None]] = []
        """Called when more debug info was loaded."""
        self.incomplete = False
        """Whether some answer lacked what could not be read, or a comparison found differences."""
        self.favourites = Favourites(config_directory() / "favourites.json")
        self._nesting = 0
        self._commands = CommandNamespace()
        for spec in SPECS.values():
            self._commands.register(spec.name, _ShellCommand(self, spec))
        drgn.set_default_prog(target.prog)

    def names(self) -> Names:
        """What can begin a line now."""
        others = [name for name, _ in DEFAULT_COMMAND_NAMESPACE.enabled(self.prog)]
        return Names(SPECS, others, BUILTINS, self.python.names)

    def read(self, text: str) -> Line:
        """What an input is."""
        return read_line(text, self.names())

    def split(self, text: str) -> list[str]:
        """The inputs of a text: of pasted lines, each command and each block of Python."""
        if "\n" not in text.strip():
            return [text]
        return split_text(text, self.names(), self.python.is_complete) or [text]

    def run(self, text: str) -> bool:
        """
        Run a text: one input after the other until one fails. Failures are reported in one line,
        and the session continues.

        :return: Whether all were run; an answer that is not complete is one (see
            :attr:`incomplete`).
        :raises Leave: if the user wants to leave
        """
        inputs = self.split(text)
        for number, each in enumerate(inputs, 1):
            if not self._run_input(each):
                left = inputs[number:]
                if left and self.output.interactive:
                    self.error(f"not run: {plural(len(left), 'input')}, from {left[0]!r} on")
                return False
        return True

    def _run_input(self, text: str) -> bool:
        line = self.read(text)
        self.failed = None
        if line.kind is Kind.EMPTY:
            return True
        start = time.monotonic()
        self.output.begin(text)
        hook, sys.displayhook = sys.displayhook, self._display
        well = True
        try:
            with self.interrupts.allowed():
                self._run(line, text)
        except KeyboardInterrupt as error:
            self.last_error = self.failed = error
            if self.output.interactive:
                self.error("interrupted")
            well = False
        except Leave:
            raise
        except BrokenPipeError:
            if not self.output.interactive:
                raise
        except Exception as error:
            well = False
            self.failed = error
            self._report(line, error)
        finally:
            sys.displayhook = hook
            self.output.end()
        if self.timing:
            print(f"time: {time.monotonic() - start:.3f} s", file=sys.stderr)
        return well

    def run_nested(self, text: str) -> None:
        """
        Run an input that replaces another one.

        :raises UsageError: if inputs replace each other in a circle
        """
        if self._nesting >= _MAX_NESTING:
            raise UsageError(f"favourites that use favourites more than {_MAX_NESTING} deep")
        self._nesting += 1
        try:
            self._run(self.read(text), text)
        finally:
            self._nesting -= 1

    def load_symbols(self, paths: Sequence[str]) -> None:
        """
        Load more debug info, as ``-s`` does at the start.

        :raises PmemError: if a file is none, or of another build
        """
        check_symbols(self.prog, paths)
        missing, missing_kernel = load_debug_info(self.prog, paths)
        self.target = dataclasses.replace(
            self.target, missing=missing, missing_kernel=missing_kernel
        )
        for listener in self.symbols_listeners:
            listener()

    def error(self, message: str) -> None:
        """Report an error in one line; on a terminal, broken between words."""
        from drgn_pmem.output.terminal import paragraph

        sys.stdout.flush()
        print(self.output.paint("error", paragraph(escape(message), sys.stderr)), file=sys.stderr)

    def _run(self, line: Line, text: str) -> None:
        programs = line.kind is Kind.SYSTEM or (line.kind is not Kind.PYTHON and "|" in line.rest)
        if programs and not _FULL_SCREEN.search(line.rest):
            with self.output.recorded_programs():
                self._dispatch(line, text)
        else:
            self._dispatch(line, text)

    def _dispatch(self, line: Line, text: str) -> None:
        if line.kind is Kind.COMMAND:
            self._run_command(line)
        elif line.kind is Kind.BUILTIN:
            self._run_builtin(line)
        elif line.kind is Kind.OTHER:
            self._run_other(line)
        elif line.kind is Kind.SYSTEM:
            run_command(self.prog, f"sh {line.rest}", globals=self.python.names)
        elif line.kind is Kind.QUESTION:
            BUILTINS["help"](self, line.rest)
        else:
            self._run_python(text)

    def _run_command(self, line: Line) -> None:
        answer: Answer | None = self._commands.run(
            self.prog, f"{line.name} {line.rest}", globals=self.python.names
        )
        if answer is None:
            return
        self.incomplete |= bool(answer.status)
        builtins._ = answer.records  # type: ignore[attr-defined]
        for listener in self.listeners:
            listener(f"{line.name} {line.rest}".rstrip(), answer)

    def _run_builtin(self, line: Line) -> None:
        function = BUILTINS.get(line.name)
        if function is None:
            near = did_you_mean(line.name, [name for name in BUILTINS if name[0] == "\\"])
            raise UsageError(f"no {line.name} here{near or '; see help shell'}")
        if line.name == "help":
            # The one whose text is worth a pipe: help pmem-list | grep json
            self._commands.register("help", _ShellBuiltin(self, function))
            self._commands.run(self.prog, f"help {line.rest}", globals=self.python.names)
        else:
            function(self, line.rest)

    def _run_other(self, line: Line) -> None:
        if line.name not in self.names().others:
            near = did_you_mean(line.name, [*SPECS, *self.names().others])
            raise UsageError(f"no command {line.name!r}{near or ' (see help)'}")
        if line.name == "crash" and not line.rest:
            add_quit(self.prog)
            print("%crash> begins; exit, quit or Ctrl-D comes back here")
        result = run_command(
            self.prog, f"{line.name} {line.rest}".rstrip(), globals=self.python.names
        )
        if result is not None:
            builtins._ = result  # type: ignore[attr-defined]

    def _run_python(self, text: str) -> None:
        first = text.split(None, 1)[0]
        if first.startswith("pmem-") and "pmem" not in self.python.names:
            near = did_you_mean(first, list(SPECS))
            raise UsageError(f"no command {first!r}{near or ' (see help)'}")
        try:
            self.python.execute(textwrap.dedent(text).strip() + "\n")
        except SystemExit as error:
            code = error.code
            raise Leave(code if isinstance(code, int) else 0 if code is None else 1) from None
        except (KeyboardInterrupt, BrokenPipeError):
            raise
        except BaseException as error:
            self.last_error = error
            message = self.python.format_error(error)
            if not self.output.interactive and not self.python.is_complete(text):
                message += "a block is one input: give all its lines together (one -e)\n"
            raise _PythonError(message) from error

    def _display(self, value: Any) -> None:
        if value is not None:
            self.output.show(render(value))

    def _report(self, line: Line, error: Exception) -> None:
        errors: Sequence[Exception] = getattr(error, "exceptions", (error,))
        for each in errors:
            if isinstance(each, _PythonError):
                sys.stdout.flush()
                sys.stderr.write(escape_lines(str(each)))
                continue
            if isinstance(each, CommandExitStatusError):
                # grep found nothing, or a pager was left early: not our error. What sh
                # could not run, sh has said.
                logger.info("%s", each)
                continue
            self.last_error = each
            logger.debug("%s", line.name, exc_info=each)
            if isinstance(each, (CommandArgumentError, SyntaxError)):
                self.error(str(each))
            else:
                hint = "\\debug shows where" if self.output.interactive else ""
                name = {"!": "", "?": "help"}.get(line.name, line.name)
                self.error(explain(each, name, self.target.missing, hint))

    def traceback(self) -> str:
        """Traceback of what failed last; empty if nothing has."""
        if self.last_error is None:
            return ""
        return escape_lines("".join(traceback.format_exception(self.last_error)))


class _PythonError(Exception):
    """Wraps an error of the user's own Python; the message is its traceback."""


class _ShellCommand(Command[Any]):
    """A command of ours as the shell runs it: its answer is returned, its text is paged."""

    def __init__(self, session: Session, spec: Spec) -> None:
        self._session = session
        self._spec = spec

    def description(self) -> str:
        return self._spec.description

    def format_usage(self) -> str:
        return self._spec.parser().format_usage()

    def format_help(self, *, indent: str = "") -> str:
        return self._spec.parser().format_help()

    def enabled(self, prog: drgn.Program) -> bool:
        return True

    def parse(self, source: str) -> Any:
        return parse_shell_command(source)

    def run(self, prog: drgn.Program, name: str, args: Any, **kwargs: Any) -> Any:
        output = self._session.output
        redirected = output.is_redirected()
        with output.paged(json=any(word.startswith("--json") for word in args)):
            return run(self._spec, prog, args, self._session.expanded, redirected=redirected)


class _ShellBuiltin(Command[Any]):
    """A builtin whose text can be piped and paged."""

    def __init__(self, session: Session, function: Builtin) -> None:
        self._session = session
        self._function = function

    def description(self) -> str:
        return ""

    def format_usage(self) -> str:
        return ""

    def format_help(self, *, indent: str = "") -> str:
        return ""

    def enabled(self, prog: drgn.Program) -> bool:
        return True

    def parse(self, source: str) -> Any:
        return parse_shell_command(source)

    def run(self, prog: drgn.Program, name: str, args: Any, **kwargs: Any) -> Any:
        with self._session.output.paged():
            self._function(self._session, " ".join(args))
