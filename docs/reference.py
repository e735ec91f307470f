# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes docs/commands.md from the commands' specs: ``make docs``."""

from pathlib import Path
import re

from drgn_pmem.commands import load_commands
from drgn_pmem.spec import Argument, Spec


def main() -> None:
    """Write the reference beside this file."""
    (Path(__file__).parent / "commands.md").write_text(reference())


def reference() -> str:
    """The command reference, Markdown."""
    specs = load_commands()
    parts = [
        "# Commands",
        "Written by `make docs` from the specs in commands/. At drgn's prompt a command has a `%` "
        "before it; in `drgn-pmem` it may.",
        "\n".join(f"- [{spec.name}](#{spec.name}): {spec.description}" for spec in specs),
        "Every command takes `--json`, `--drgn` (print the Python that gives the same answer) and "
        "`-h`. Every list takes `-o FIELDS`, `-s FIELD`, `-H` (no header, tabs) and `--limit N`.",
    ]
    return "\n\n".join([*parts, *(_section(spec) for spec in specs)]) + "\n"


def _section(spec: Spec) -> str:
    parts = [f"## {spec.name}", _text(spec.long_description or spec.description)]
    if spec.arguments:
        rows = [f"| `{_usage(a)}` | {_cell(a.help)} |" for a in spec.arguments]
        parts.append("\n".join(["| argument | meaning |", "|---|---|", *rows]))
    if spec.fields:
        # of a command whose -o is a file, -F chooses the fields
        chosen = "-F" if any("-F" in argument.names for argument in spec.arguments) else "-o"
        rows = [
            f"| {f.name} | {_cell(f.help)}{'' if f.shown else f' (with {chosen})'} |"
            for f in spec.fields
        ]
        parts.append("\n".join(["| field | meaning |", "|---|---|", *rows]))
    if spec.examples:
        lines = [f"{line:<50} # {what}" for line, what in spec.examples]
        parts.append("\n".join(["```", *lines, "```"]))
    if spec.modules:
        rows = [f"| {name} | {_cell(what)} |" for name, what in spec.modules.items()]
        head = "| debug info of (unless built in) | unknown without it |"
        parts.append("\n".join([head, "|---|---|", *rows]))
    return "\n\n".join(parts)


def _usage(argument: Argument) -> str:
    names = ", ".join(argument.names)
    if argument.is_option and argument.takes_value:
        return f"{names} {argument.options.get('metavar') or 'VALUE'}"
    return names


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _text(text: str) -> str:
    # Lines of a long description are broken for terminals; a table or list in it stays as it is.
    return re.sub(r"(?<=[^\n ])\n(?=[^\n ])", " ", text)


if __name__ == "__main__":
    main()
