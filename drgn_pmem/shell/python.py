# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Python at the prompt: compiled a statement at a time, shown by drgn's rules."""

import ast
import builtins
import codeop
import dataclasses
import io
import linecache
import pprint
import shutil
import sys
import traceback
from types import CodeType
from typing import Any

import drgn
import drgn.cli

import drgn_pmem
from drgn_pmem.output.records import Records

__all__ = ("Python", "default_globals", "render")

_OURS = frozenset(name for name in drgn_pmem.__all__ if not hasattr(builtins, name))
"""Our names that the prompt knows without an import; ``open`` stays Python's own there."""


def default_globals(prog: drgn.Program) -> dict[str, Any]:
    """drgn's globals and drgn_pmem; :class:`Python` adds the names of the latter on first use."""
    names = drgn.cli.default_globals(prog)
    names["drgn_pmem"] = drgn_pmem
    return names


def render(value: Any) -> str:
    """
    The text that drgn's prompt shows for a value, and records a field a line; sets ``_`` as it
    does.
    """
    if _are_records(value) and not isinstance(value, Records):
        builtins._ = value  # type: ignore[attr-defined]
        return pprint.pformat(value, width=max(40, shutil.get_terminal_size().columns)) + "\n"
    show = getattr(drgn.cli, "_displayhook", sys.__displayhook__)
    stdout, sys.stdout = sys.stdout, io.StringIO()
    try:
        show(value)
        return sys.stdout.getvalue()
    finally:
        sys.stdout = stdout


def _are_records(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and _are_records(value[0])
    return dataclasses.is_dataclass(value) and hasattr(value, "to_json")


class Python:
    """
    Runs what is typed.

    :param names: Its global variables.
    """

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self._compiler = codeop.CommandCompiler()
        self._count = 0

    def is_complete(self, source: str) -> bool:
        """
        Whether a text can be run as it is; text that is never valid is complete, too: running
        it reports the error.
        """
        try:
            return self._compiler(source, "<input>", "single") is not None
        except (SyntaxError, ValueError, OverflowError):
            try:
                # More than one statement, pasted.
                return codeop.compile_command(source, "<input>", "exec") is not None
            except (SyntaxError, ValueError, OverflowError):
                return True

    def execute(self, source: str) -> None:
        """
        Run statements; values of expressions go to ``sys.displayhook``.

        :raises Exception: what the statements raise; :exc:`SyntaxError`
        """
        self._count += 1
        name = f"<input {self._count}>"
        # With its lines here, a traceback shows them.
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        flags = self._compiler.compiler.flags
        tree = compile(source, name, "exec", flags | ast.PyCF_ONLY_AST, True)
        code = compile(ast.Interactive(tree.body), name, "single", flags, True)
        self._compiler.compiler.flags |= code.co_flags & _FUTURE
        self._add_ours(code)
        exec(code, self.names)

    def add_all(self) -> None:
        """Import all of our names now: for completion, when there is time."""
        for name in _OURS:
            if name not in self.names:
                self.names[name] = getattr(drgn_pmem, name)

    def _add_ours(self, code: CodeType) -> None:
        """Import those of our names that code uses: the first prompt does not wait for them."""
        for name in code.co_names:
            if name in _OURS and name not in self.names:
                self.names[name] = getattr(drgn_pmem, name)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._add_ours(constant)

    @staticmethod
    def format_error(error: BaseException) -> str:
        """The traceback of what :meth:`execute` raised, without this module's own frames."""
        if isinstance(error, SyntaxError):
            return "".join(traceback.format_exception_only(type(error), error))
        frames = error.__traceback__
        while frames is not None and not frames.tb_frame.f_code.co_filename.startswith("<input"):
            frames = frames.tb_next
        return "".join(
            traceback.format_exception(type(error), error, frames or error.__traceback__)
        )


def _future_flags() -> int:
    import __future__

    flags = 0
    for name in __future__.all_feature_names:
        flags |= getattr(__future__, name).compiler_flag
    return flags


_FUTURE = _future_flags()
