# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Command specs
-------------

A command is declared once: a :class:`Spec` and a thin function. The drgn registration, the shell's
completion, ``-h`` and the command reference in docs/ all come from that declaration::

    @command(
        name="pmem-example",
        description="what the command answers, in one line",
        arguments=(Argument("namespace", kind="namespace", nargs="?", help="only this namespace"),),
        fields=(Field("NAMESPACE", lambda record: record.dev), ...),
        examples=(("pmem-example namespace0.0", "one namespace"),),
        code="from drgn_pmem.kernel.example import for_each_example\\n...",
    )
    def pmem_example(prog: Program, args: argparse.Namespace) -> Answer:
        from drgn_pmem.kernel.example import for_each_example  # on use: drgn's start stays fast

        return Answer(list(for_each_example(prog)))

The function computes nothing and prints nothing: it calls walkers and returns an :class:`Answer`;
this module renders it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
import sys
from typing import TYPE_CHECKING, Any

from drgn_pmem.answer import Answer
from drgn_pmem.arguments import COMMON, LIST, Argument, Parser, entries, join_descending
from drgn_pmem.errors import MissingDebugInfo, PmemError, UsageError
from drgn_pmem.output.notes import merged, of_dashes, with_notes
from drgn_pmem.output.records import Records, Table
from drgn_pmem.output.stream import streaming
from drgn_pmem.output.table import Field
from drgn_pmem.output.terminal import laid_out, look_of, paragraph
from drgn_pmem.output.text import escape, escape_lines
from drgn_pmem.partial import Cause, Problem, is_of_dump

if TYPE_CHECKING:
    from drgn import Program

__all__ = (
    "SPECS",
    "Answer",
    "Argument",
    "Field",
    "Spec",
    "ask",
    "command",
    "json_value",
    "parse_arguments",
    "render",
    "run",
    "tables",
)


Function = Callable[["Program", argparse.Namespace], Answer]


@dataclass(frozen=True)
class Spec:
    """Declaration of a command."""

    name: str
    description: str
    function: Function
    arguments: tuple[Argument, ...] = ()
    fields: tuple[Field, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()
    """(command line, what it shows); every one can be run on the sample."""
    code: str | Callable[[argparse.Namespace], str] = ""
    """Python that gives the same answer through drgn and drgn_pmem, for ``--drgn``."""
    long_description: str = ""
    modules: Mapping[str, str] = field(default_factory=dict)
    """Kernel modules whose debug info a full answer needs, unless they are built in -> what the
    answer lacks without it."""

    def all_arguments(self) -> tuple[Argument, ...]:
        """Own arguments, then those that every command has."""
        common = COMMON if not self.fields else LIST + COMMON
        taken = {name for argument in self.arguments for name in argument.names}
        return self.arguments + tuple(a for a in common if not taken.intersection(a.names))

    def parser(self) -> argparse.ArgumentParser:
        """The parser of its arguments, made when it is needed."""
        parser = Parser(
            prog=self.name,
            description=self.long_description or self.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
            allow_abbrev=False,
            epilog=self._epilog(),
        )
        for argument in self.all_arguments():
            parser.add_argument(
                *argument.names, help=argument.help.replace("%", "%%"), **argument.options
            )
        return parser

    def _epilog(self) -> str:
        parts = []
        if self.fields:
            rows = [
                (f.name.lower(), f"{f.help}{'' if f.shown else ' (with -o)'}") for f in self.fields
            ]
            parts.append(f"fields:\n{entries(rows)}")
        if self.modules:
            parts.append(
                "debug info of modules (unless built in), and what is unknown without it:\n"
                + entries(list(self.modules.items()))
            )
        if self.examples:
            parts.append(
                "examples:\n" + "\n".join(f"  {line}\n      {what}" for line, what in self.examples)
            )
        return "\n\n".join(parts)

    @property
    def imports(self) -> list[str]:
        """Modules that asking, its function and the output import on use."""
        # Of the names in a function's code, those of modules that it imports have dots.
        own = [name for name in self.function.__code__.co_names if "." in name]
        return [*_ASKING, *own, *_OUTPUT]

    def drgn_code(self, args: argparse.Namespace) -> str:
        """What ``--drgn`` prints."""
        return (self.code(args) if callable(self.code) else self.code).strip()


_FULL = "--json=full"

_ASKING = ("drgn_pmem.dumpfile.opener", "drgn_pmem.dumpfile.faults", "drgn_pmem.kernel.root")
_OUTPUT = ("drgn_pmem.output.json", "drgn_pmem.output.table", "tabulate")

SPECS: dict[str, Spec] = {}
"""Every command by name, in the order of their modules."""


def command(**declaration: Any) -> Callable[[Function], Function]:
    """Decorator that declares a command: takes the fields of :class:`Spec` but ``function``."""

    def decorate(function: Function) -> Function:
        spec = Spec(function=function, **declaration)
        SPECS[spec.name] = spec
        return function

    return decorate


def parse_arguments(spec: Spec, words: Sequence[str]) -> argparse.Namespace | None:
    """
    Parse the words after the command's name; None if the user asked for help, which is printed.

    :raises UsageError: with one line that says what is wrong
    """
    parser = spec.parser()
    if "-h" in words or "--help" in words:
        print(parser.format_help().rstrip())
        return None
    # Not an optional value of argparse: that would take the word after --json for it.
    full = _FULL in words
    args = parser.parse_args(
        join_descending(["--json" if word == _FULL else word for word in words])
    )
    if full:
        args.json = "full"
    if getattr(args, "limit", None) is not None and args.limit < 0:
        raise UsageError(f"{spec.name}: --limit takes a number of rows, not {args.limit}")
    return args


def run(
    spec: Spec,
    prog: Program,
    words: Sequence[str],
    expanded: bool | None = None,
    *,
    redirected: bool = False,
) -> Answer | None:
    """
    Run a command and print its answer to ``sys.stdout``, its notes to ``sys.stderr``.

    :param expanded: See :class:`~drgn_pmem.output.terminal.Look`.
    :param redirected: ``sys.stdout`` is a file or a pipe of the user's: notes are printed there
        after a text (not after JSON, CSV or ``-H``), too.
    :return: The answer; None if only help or code was printed.
    :raises PmemError: one line for the user
    """
    args = parse_arguments(spec, words)
    if args is None:
        return None
    if args.drgn:
        print(spec.drgn_code(args))
        return None
    answer = ask(spec, prog, args, stream=not args.json)
    print_answer(spec, args, answer, expanded, redirected)
    return answer


def ask(spec: Spec, prog: Program, args: argparse.Namespace, *, stream: bool = False) -> Answer:
    """
    The answer of a command; nothing is printed.

    :param stream: But what a command prints while it makes its answer.
    :raises PmemError: one line for the user
    """
    import drgn

    from drgn_pmem.dumpfile.faults import guard_reads
    from drgn_pmem.kernel.root import refuse_unfit

    guarded = guard_reads(prog)
    refuse_unfit(prog)
    try:
        with streaming(stream):
            answer = spec.function(prog, args)
    except MissingDebugInfo as error:
        if error.module not in spec.modules:
            raise
        raise MissingDebugInfo(f"{spec.name}: {_lacks(spec, prog)}", error.module) from error
    except PmemError:
        raise
    except drgn.FaultError as error:
        raise PmemError(f"{spec.name}: the dump does not hold what this needs: {error}") from error
    except drgn.ObjectNotFoundError as error:
        raise PmemError(f"{spec.name}: {error} in the debug info given (-s)") from error
    except (AttributeError, LookupError) as error:
        if isinstance(error, PmemError) or not is_of_dump(error):
            raise
        raise PmemError(f"{spec.name}: this kernel's {error}") from error
    except NotImplementedError as error:
        raise PmemError(f"{spec.name}: drgn cannot do what this needs: {error}") from error
    if getattr(args, "where", None) is not None:
        _filter(spec, args, answer)
    answer.problems = (*guarded.problems, *answer.problems)
    _name_lacking_modules(spec, prog, answer)
    answer.records = Records(answer.records, _sections(spec, answer))
    return answer


def _sections(spec: Spec, answer: Answer) -> Sequence[Table]:
    """The tables of an answer."""
    if answer.sections:
        return answer.sections
    fields = answer.fields or spec.fields
    return (("", answer.records, fields),) if fields else ()


def _filter(spec: Spec, args: argparse.Namespace, answer: Answer) -> None:
    """Keep the records for which ``--where`` holds, in tables, JSON and what is returned."""
    from drgn_pmem.output.where import parse_where, select

    sections = _sections(spec, answer)
    found = select(parse_where(args.where), sections)
    answer.notes = [*answer.notes, *found.notes]
    answer.text = None
    if answer.sections:
        answer.sections = found.tables
    shown = {id(record) for _, records, _ in sections for record in records}
    if not all(id(record) in shown for record in answer.records):
        if args.json:
            raise UsageError(f"{spec.name}: --where filters rows of tables; its JSON has no such")
        return  # its rows are parts of its records
    kept = {id(record) for _, records, _ in found.tables for record in records}
    if isinstance(answer.json, list) and len(answer.json) == len(answer.records):
        pairs = zip(answer.records, answer.json, strict=True)
        answer.json = [value for record, value in pairs if id(record) in kept]
    else:
        answer.json = None
    answer.records = [record for record in answer.records if id(record) in kept]


def _lacks(spec: Spec, prog: Program, found: Iterable[str] = ()) -> str:
    """One line about debug info of modules that an answer lacks, also of those that only its
    problems name; empty if it lacks none."""
    from drgn_pmem.kernel.kmod import how_to_get_modules, lacking_modules

    names = lacking_modules(prog, {*spec.modules, *found})
    if not names:
        return ""
    what = "; ".join(dict.fromkeys(spec.modules[name] for name in names if name in spec.modules))
    return (
        f"no debug info of the kernel module{'s' if len(names) > 1 else ''} {', '.join(names)}"
        f"{': unknown are ' if what else ''}{what} ({how_to_get_modules(prog)})"
    )


def _name_lacking_modules(spec: Spec, prog: Program, answer: Answer) -> None:
    """End an answer with one line about missing debug info of modules, in place of the problem that
    each walk has for a module that the command declares."""
    found = {problem.module for problem in answer.problems if problem.module is not None}
    line = _lacks(spec, prog, found) if found or spec.modules else ""
    if line:
        answer.problems = (
            *(problem for problem in answer.problems if problem.module not in spec.modules),
            Problem(cause=Cause.NO_DEBUG_INFO, why=line),
        )


def print_answer(
    spec: Spec,
    args: argparse.Namespace,
    answer: Answer,
    expanded: bool | None = None,
    redirected: bool = False,
) -> None:
    """Render an answer as the options ask: JSON, tables or text."""
    text, notes = render(spec, args, answer, expanded)
    if answer.streamed:
        text = ""
    data = args.json or getattr(args, "no_header", False) or getattr(args, "csv", False)
    if redirected and not data:
        text, notes = with_notes(text, notes, sys.stdout, answer.whole)
    if text:
        # one write: a reader such as head may leave between two
        sys.stdout.write(text + "\n")
    for note in notes:
        # flush first: notes belong after the answer also where both go to one pipe
        sys.stdout.flush()
        # one write: another program of the pipeline may write between two
        sys.stderr.write(paragraph(f"note: {note}", sys.stderr) + "\n")


def render(
    spec: Spec, args: argparse.Namespace, answer: Answer, expanded: bool | None = None
) -> tuple[str, list[str]]:
    """
    Text of an answer and its notes, safe on a terminal.

    :param expanded: See :class:`~drgn_pmem.output.terminal.Look`.
    :raises UsageError: if ``-o`` or ``-s`` name no field
    """
    from drgn_pmem.output import json, table

    if args.json:
        value = json_value(args, answer)
        if args.json == "full":
            return json.dumps(
                json.envelope(spec.name, value, answer.notes, answer.problems, answer.whole)
            ), []
        return json.dumps(value), [*map(escape, answer.all_notes())]
    if answer.text is not None:
        return escape_lines(answer.text), [*map(escape, merged(answer.all_notes()))]
    look = look_of(sys.stdout, rounded=rounded(args), expanded=expanded)
    sections, notes = tables(spec, args, answer)
    blocks = []
    for title, rows, chosen in sections:
        if not chosen:
            continue
        if args.csv:
            blocks.append(table.csv_text(rows, chosen, header=not args.no_header))
        elif args.no_header:
            blocks.append(table.scripted(rows, chosen))
        elif rows:
            block, missing = laid_out(rows, chosen, look)
            blocks.append((f"{escape(title)}\n" if title else "") + block)
            look = replace(look, left_out=look.left_out | missing)
    if answer.footer is not None and not (args.csv or args.no_header or args.fields):
        shown = [record for _, rows, _ in sections for record in rows]
        blocks.append(escape_lines(answer.footer(shown, look)) if shown else "")
    text = ("\n" if args.no_header else "\n\n").join(block for block in blocks if block)
    if not answer.whole and not args.csv:
        notes = [*of_dashes(text), *notes]
    return text, [*map(escape, merged(notes))]


def rounded(args: argparse.Namespace) -> bool | None:
    """Whether sizes are rounded, as ``--bytes`` and ``-u`` ask; None for what fits the output."""
    if getattr(args, "bytes", False):
        return False
    return True if getattr(args, "human", False) else None


def json_value(args: argparse.Namespace, answer: Answer) -> Any:
    """The JSON of an answer, as the options ask."""
    from drgn_pmem.output import json

    value = answer.json
    if value is None:
        value = [json.to_json(record) for record in answer.records]
    if isinstance(value, list) and len(value) == len(answer.records):
        value = value[: getattr(args, "limit", None)]
    return json.humanize(value) if getattr(args, "human", False) else value


def tables(
    spec: Spec, args: argparse.Namespace, answer: Answer
) -> tuple[list[tuple[str, Sequence[Any], list[Field]]], list[str]]:
    """
    (title, records, fields) of each table of an answer, chosen, sorted and limited as the options
    ask; and the answer's notes.

    :raises UsageError: if ``-o`` or ``-s`` name no field
    """
    from drgn_pmem.output import table

    notes = answer.all_notes()
    limit = getattr(args, "limit", None)
    sections = _sections(spec, answer)
    known = [f for _, _, fields in sections for f in fields]
    done = []
    for title, records, fields in sections:
        rows: Sequence[Any] = table.sort(records, fields, args.sort, known=known)
        if limit is not None and len(rows) > limit:
            notes.append(f"{limit} of {len(rows)} rows shown (--limit)")
            rows = rows[:limit]
        done.append((title, rows, table.choose(fields, args.fields, known=known)))
    return done, notes
