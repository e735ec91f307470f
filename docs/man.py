# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Writes the man pages into build/man from the options and the commands' specs: ``make docs``.
``drgn-pmem(1)``, ``drgn-pmem-fleet(1)``, and one page for each command.
"""

import argparse
from collections.abc import Iterable
import importlib.metadata
import os
from pathlib import Path
import textwrap
import time

from drgn_pmem.arguments import Argument
from drgn_pmem.commands import load_commands
from drgn_pmem.fleet import options as fleet
from drgn_pmem.shell.help import DESCRIPTIONS
from drgn_pmem.shell.options import make_parser
from drgn_pmem.spec import Spec

FOLDER = Path(__file__).parents[1] / "build" / "man"

_WIDTH = 78

STATUS = (
    ("0", "Every answer is complete."),
    ("1", "An answer is incomplete, or something failed."),
    ("2", "Wrong usage: an unknown command, option or field, or a value that cannot be one."),
    ("130", "Stopped by Ctrl-C."),
)

FLEET_STATUS = (
    ("0", "Every dump has a report, and every report is complete."),
    ("1", "A dump has no report, a report is incomplete, or the run failed."),
    ("2", "Wrong usage."),
    ("130", "Stopped by Ctrl-C."),
)


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / f"{name}.1").write_text(text)


def pages() -> dict[str, str]:
    """Text of each page by name."""
    specs = load_commands()
    return {
        "drgn-pmem": _main_page(specs),
        "drgn-pmem-fleet": _fleet_page(),
        **{spec.name: _page(spec) for spec in specs},
    }


def _head(name: str, what: str) -> list[str]:
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = time.strftime("%Y-%m-%d", time.gmtime(seconds))
    version = importlib.metadata.version("drgn-pmem")
    return [
        f'.TH "{name.upper()}" "1" "{date}" "drgn-pmem {version}" "drgn-pmem"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(what)}",
    ]


def _main_page(specs: list[Spec]) -> str:
    parser = make_parser()
    lines = _head("drgn-pmem", "persistent memory in Linux kernel crash dumps")
    lines += [".SH SYNOPSIS", _text(" ".join((parser.usage or "").split()))]
    lines += [".SH DESCRIPTION", _text(parser.description or "")]
    lines += [".SH OPTIONS"]
    for action in parser._actions:
        if action.option_strings and action.help != argparse.SUPPRESS:
            value = f" {_value(action.metavar, action.choices)}" if action.nargs != 0 else ""
            help_text = (action.help or "").replace("%%", "%")
            lines += _tagged(f"{', '.join(action.option_strings)}{value}", help_text)
    lines += [".SH COMMANDS"]
    for spec in sorted(specs, key=lambda spec: spec.name):
        lines += _tagged(spec.name, spec.description)
    lines += _tagged("fleet", fleet.DESCRIPTION)
    lines += [".SH SHELL", "Without a command, the shell. Its own commands are:"]
    for name, what in DESCRIPTIONS.items():
        lines += _tagged(name, what)
    lines += [".SH EXIT STATUS"]
    for status, what in STATUS:
        lines += _tagged(status, what)
    names = [spec.name for spec in sorted(specs, key=lambda spec: spec.name)]
    return _finish([*lines, ".SH SEE ALSO", *_see_also(["drgn-pmem-fleet", *names, "drgn"])])


def _fleet_page() -> str:
    lines = [*_head("drgn-pmem-fleet", fleet.DESCRIPTION), ".SH SYNOPSIS", ".B drgn-pmem"]
    lines += [_text("fleet DUMP ... -o FOLDER [OPTIONS]")]
    lines += [".SH DESCRIPTION", *_paragraphs(fleet.LONG), ".SH OPTIONS"]
    for argument in fleet.ARGUMENTS:
        name = "DUMP" if not argument.is_option else _names(argument)
        lines += _tagged(name, argument.help)
    lines += [".SH EXAMPLES"]
    for line, what in fleet.EXAMPLES:
        lines += _tagged(line, what)
    lines += [".SH EXIT STATUS"]
    for status, what in FLEET_STATUS:
        lines += _tagged(status, what)
    return _finish([*lines, ".SH SEE ALSO", *_see_also(["drgn-pmem", "pmem-report"])])


def _page(spec: Spec) -> str:
    lines = [*_head(spec.name, spec.description), ".SH SYNOPSIS", ".B drgn-pmem"]
    lines.append(_text(f"-c VMCORE [-s VMLINUX] {_usage(spec)}"))
    lines += [".SH DESCRIPTION", *_paragraphs(spec.long_description or spec.description)]
    lines += [".SH OPTIONS"]
    for argument in spec.all_arguments():
        lines += _tagged(_names(argument), argument.help)
    if spec.fields:
        lines += [".SH FIELDS"]
        for field in spec.fields:
            lines += _tagged(field.name, field.help + ("" if field.shown else " (with -o)"))
    if spec.modules:
        lines.append(".SH DEBUG INFO")
        lines.append("What is unknown without the debug info of a module (unless it is built in):")
        for name, what in spec.modules.items():
            lines += _tagged(name, what)
    if spec.examples:
        lines += [".SH EXAMPLES"]
        for line, what in spec.examples:
            lines += _tagged(line, what)
    lines += [".SH EXIT STATUS"]
    for status, what in STATUS:
        lines += _tagged(status, what)
    return _finish([*lines, ".SH SEE ALSO", *_see_also(["drgn-pmem"])])


def _usage(spec: Spec) -> str:
    words = [spec.name, "[OPTIONS]"]
    for argument in spec.arguments:
        if not argument.is_option:
            name = _names(argument)
            forms = {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} ..."}
            words.append(forms.get(argument.options.get("nargs"), name))
    return " ".join(words)


def _names(argument: Argument) -> str:
    if not argument.is_option:
        return str(argument.options.get("metavar") or argument.names[0].upper())
    value = ""
    if argument.takes_value:
        value = f" {_value(argument.options.get('metavar'), argument.options.get('choices'))}"
    return ", ".join(argument.names) + value


def _value(metavar: object, choices: Iterable[object] | None) -> str:
    """What an option's value is called, as argparse shows it."""
    if metavar is None and choices is not None:
        return f"{{{','.join(map(str, choices))}}}"
    return str(metavar or "VALUE")


def _tagged(tag: str, text: str) -> list[str]:
    return [".TP", f".B {_text(tag)}", _text(text) or "\\&"]


def _see_also(names: list[str]) -> list[str]:
    last = len(names) - 1
    return [f".BR {_text(name)} (1){',' if i < last else ''}" for i, name in enumerate(names)]


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for block in text.split("\n\n"):
        rows = block.split("\n")
        table = any(row.startswith("  ") for row in rows)
        lines += [".nf"] if table else [".PP"] if lines else []
        lines += [_text(row) for row in rows]
        lines += [".fi"] if table else []
    return lines


def _text(text: str) -> str:
    """Text in which roff sees no commands."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _finish(lines: list[str]) -> str:
    """The page, lines of text broken where roff's style asks for it; a blank at a line's beginning
    is that of a table."""
    done: list[str] = []
    for line in lines:
        if line.startswith((".", " ")) or len(line) <= _WIDTH:
            done.append(line.rstrip())
            continue
        parts = textwrap.wrap(line, _WIDTH, break_long_words=False, break_on_hyphens=False)
        done += [parts[0], *(f"\\&{p}" if p[0] in ".'" else p for p in parts[1:])]
    return "\n".join(done) + "\n"


if __name__ == "__main__":
    main()
