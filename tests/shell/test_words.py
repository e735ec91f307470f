# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a line is: a command, something for the shell, or Python."""

import codeop

import pytest

from drgn_pmem.shell.words import Kind, Names, read_line, split_text

NAMES = Names(
    commands=("pmem-list", "fadump", "elfcorehdr"),
    others=("crash", "sh", "py"),
    builtins=("help", "exit", "\\timing"),
    variables=("prog", "crash_time"),
)


@pytest.mark.parametrize(
    ("text", "kind", "name", "rest"),
    [
        ("", Kind.EMPTY, "", ""),
        ("  ", Kind.EMPTY, "", ""),
        ("pmem-list", Kind.COMMAND, "pmem-list", ""),
        ("%pmem-list -v", Kind.COMMAND, "pmem-list", "-v"),
        ("  pmem-list -v | grep x", Kind.COMMAND, "pmem-list", "-v | grep x"),
        ("pmem-list>file", Kind.COMMAND, "pmem-list", ">file"),
        ("pmem-list|cat", Kind.COMMAND, "pmem-list", "|cat"),
        ("fadump", Kind.COMMAND, "fadump", ""),
        ("fadump --json", Kind.COMMAND, "fadump", "--json"),
        ("fadump = 3", Kind.PYTHON, "", "fadump = 3"),
        ("fadump.x", Kind.PYTHON, "", "fadump.x"),
        ("fadump in (1, 2)", Kind.PYTHON, "", "fadump in (1, 2)"),
        ("crash kmem -i", Kind.OTHER, "crash", "kmem -i"),
        ("%crash", Kind.OTHER, "crash", ""),
        ("%nonsense", Kind.OTHER, "nonsense", ""),
        ("help", Kind.BUILTIN, "help", ""),
        ("help(prog)", Kind.PYTHON, "", "help(prog)"),
        ("\\timing on", Kind.BUILTIN, "\\timing", "on"),
        ("!ls -l", Kind.SYSTEM, "!", "ls -l"),
        ("pmem-list?", Kind.QUESTION, "?", "pmem-list"),
        ("?pmem-list", Kind.QUESTION, "?", "pmem-list"),
        ("? pmem-list", Kind.QUESTION, "?", "pmem-list"),
        ("?", Kind.QUESTION, "?", ""),
        ("pmem-list -v ?", Kind.QUESTION, "?", "pmem-list -v"),
        ('prog["x"]?', Kind.QUESTION, "?", 'prog["x"]'),
        ("# why?", Kind.PYTHON, "", "# why?"),
        ("prog", Kind.PYTHON, "", "prog"),
        ("pmem - list", Kind.PYTHON, "", "pmem - list"),
        ("x = 1\npmem-list", Kind.PYTHON, "", "x = 1\npmem-list"),
    ],
)
def test_what_a_line_is(text: str, kind: Kind, name: str, rest: str) -> None:
    assert read_line(text, NAMES) == (kind, name, rest)


def test_a_variable_wins_over_a_command_whose_name_is_an_identifier() -> None:
    names = NAMES._replace(variables=("fadump",))
    assert read_line("fadump", names).kind is Kind.PYTHON
    assert read_line("%fadump", names).kind is Kind.COMMAND


def is_complete(source: str) -> bool:
    try:
        return codeop.compile_command(source, "<input>", "exec") is not None
    except SyntaxError:
        return True


def test_text_is_split_as_if_it_was_typed() -> None:
    text = (
        "pmem-list\n"
        "for i in range(3):\n"
        "    print(i)\n"
        "\n"
        "print('after')\n"
        "%crash sys\n"
        'text = """\n'
        "pmem-list\n"
        '"""\n'
        "call(\n"
        "help\n"
        ")\n"
        "help\n"
    )
    assert split_text(text, NAMES, is_complete) == [
        "pmem-list",
        "for i in range(3):\n    print(i)\n\nprint('after')",
        "%crash sys",
        'text = """\npmem-list\n"""\ncall(\nhelp\n)',
        "help",
    ]
