# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Completion of the command line for bash, zsh and fish, from its options and the specs."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
import re
import shlex

from drgn_pmem.arguments import Argument
from drgn_pmem.errors import UsageError
from drgn_pmem.fleet import options as fleet
from drgn_pmem.shell.options import make_parser
from drgn_pmem.spec import SPECS

__all__ = ("SHELLS", "completion_script")

_FILES = frozenset(("VMCORE", "PATH", "FILE"))
"""What an option's value is called if it is a file or a folder."""

_FIELD_OPTIONS = ("-o", "--fields", "-s", "--sort")
"""The options of commands with fields whose values are fields."""


@dataclass(frozen=True)
class _Option:
    """One name of an option."""

    name: str
    help: str
    takes_value: bool
    is_file: bool
    choices: tuple[str, ...]


def _options() -> Iterator[_Option]:
    """The options before the command."""
    for action in make_parser()._actions:
        if action.help == argparse.SUPPRESS:
            continue
        takes = action.nargs != 0
        choices = tuple(map(str, action.choices or ()))
        for name in action.option_strings:
            is_file = takes and action.metavar in _FILES
            yield _Option(name, action.help or "", takes, is_file, choices)


@dataclass(frozen=True)
class _Command:
    """What can come after the options: a command, or ``fleet``."""

    name: str
    description: str
    arguments: Sequence[Argument]
    fields: Sequence[str] = ()


def _commands() -> list[_Command]:
    commands = [
        _Command(
            spec.name,
            spec.description,
            spec.all_arguments(),
            [field.name.lower() for field in spec.fields],
        )
        for spec in SPECS.values()
    ]
    commands.append(_Command("fleet", fleet.DESCRIPTION, fleet.ARGUMENTS))
    return sorted(commands, key=lambda command: command.name)


def _arguments(command: _Command) -> Iterator[_Option]:
    """A command's options."""
    for argument in command.arguments:
        if argument.is_option:
            choices = tuple(map(str, argument.options.get("choices", ())))
            for name in argument.names:
                is_file = argument.kind == "file"
                yield _Option(name, argument.help, argument.takes_value, is_file, choices)


def _takes_files(command: _Command) -> bool:
    """Whether words of a command that are not options are files."""
    return any(each.kind == "file" for each in command.arguments if not each.is_option)


def _by_choices(options: Iterable[_Option]) -> dict[tuple[str, ...], list[str]]:
    """Values, and the options that take only them."""
    found: dict[tuple[str, ...], list[str]] = {}
    for option in options:
        if option.choices:
            found.setdefault(option.choices, []).append(option.name)
    return found


def _bash() -> str:
    commands = " ".join(command.name for command in _commands())
    lines = [
        "# bash completion for drgn-pmem; written by drgn-pmem --completion bash",
        "_drgn_pmem() {",
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}",
        "    local command= words fields= start= i",
        "    if [[ $cur == = ]]; then cur=  # --fields=",
        "    elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        "        case ${COMP_WORDS[i]} in",
        f"            {commands.replace(' ', '|')}) command=${{COMP_WORDS[i]}}; break ;;",
        "        esac",
        "    done",
        "    case $command in",
        f'        "") words="{" ".join(each.name for each in _options())} {commands} help"',
        *_bash_values(_options()),
        "            ;;",
    ]
    for command in _commands():
        options = " ".join(option.name for option in _arguments(command))
        lines.append(f'        {command.name}) words="{options}"')
        if command.fields:
            fields = " ".join(command.fields)
            lines.append(
                f'            case $prev in {"|".join(_FIELD_OPTIONS)}) fields="{fields}" ;; esac'
            )
        lines += [*_bash_values(_arguments(command)), "            ;;"]
    return "\n".join(
        [
            *lines,
            "    esac",
            "    if [[ -n $fields ]]; then  # after a comma, + or -",
            '        start=${cur%"${cur##*[,+-]}"} cur=${cur##*[,+-]} words=$fields',
            "    fi",
            '    COMPREPLY=($(compgen -P "$start" -W "$words" -- "$cur"))',
            "}",
            "complete -o default -F _drgn_pmem drgn-pmem",
        ]
    )


def _bash_values(options: Iterable[_Option]) -> Iterator[str]:
    """What comes after an option that takes a file (completed by bash itself) or a choice."""
    options = list(options)
    files = "|".join(option.name for option in options if option.is_file)
    cases = [f"{files}) words= ;;"] if files else []
    for choices, names in _by_choices(options).items():
        cases.append(f'{"|".join(names)}) words="{" ".join(choices)}" ;;')
    if cases:
        yield f"            case $prev in {' '.join(cases)} esac"


def _zsh() -> str:
    lines = [
        "#compdef drgn-pmem",
        "# zsh completion for drgn-pmem; written by drgn-pmem --completion zsh",
        "_drgn_pmem() {",
        "    local command word",
        "    local -a options commands fields values",
        "    commands=(",
        *(f"        {_described(each.name, each.description)}" for each in _commands()),
        "    )",
        "    for word in ${words[2,CURRENT-1]}; do",
        "        if (( ${commands[(I)$word:*]} )); then command=$word; break; fi",
        "    done",
        "    case $command in",
        '        "") options=(',
        *(f"            {_described(option.name, option.help)}" for option in _options()),
        "        )",
        *_zsh_values(_options()),
        "        ;;",
    ]
    for each in _commands():
        names = " ".join(map(shlex.quote, each.fields))
        lines += [
            f"        {each.name}) fields=({names}) options=(",
            *(f"            {_described(option.name, option.help)}" for option in _arguments(each)),
            "        )",
            *_zsh_values(_arguments(each)),
            "        ;;",
        ]
    return "\n".join(
        [
            *lines,
            "    esac",
            "    case ${words[CURRENT-1]} in",
            f"        {'|'.join(_FIELD_OPTIONS)})",
            "            if (( ${#fields} )); then",
            "                compset -P '*[,+-]'  # after a comma, + or -",
            "                compadd -a fields; return",
            "            fi ;;",
            "    esac",
            "    if (( ${#values} )); then compadd -a values; return; fi",
            "    if [[ ${words[CURRENT]} == -* ]]; then",
            "        _describe option options",
            "    elif [[ -z $command && ${words[CURRENT-1]} != -* ]]; then",
            "        _describe command commands",
            "    else",
            "        _files",
            "    fi",
            "}",
            'if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _drgn_pmem "$@"; '
            "else compdef _drgn_pmem drgn-pmem; fi",
        ]
    )


def _zsh_values(options: Iterable[_Option]) -> Iterator[str]:
    """What comes after an option that takes one of a few values."""
    for choices, names in _by_choices(options).items():
        yield (
            f"            case ${{words[CURRENT-1]}} in {'|'.join(names)}) "
            f"values=({' '.join(choices)}) ;; esac"
        )


def _described(name: str, text: str) -> str:
    """``name:text`` as zsh's _describe takes it."""
    return shlex.quote(f"{name}:{_line(text)}".replace("`", "'"))


def _fish() -> str:
    names = " ".join(command.name for command in _commands())
    none = "__drgn_pmem_no_command"
    lines = [
        "# fish completion for drgn-pmem; written by drgn-pmem --completion fish",
        f"function {none}",
        f"    not __fish_seen_subcommand_from {names}",
        "end",
        "function __drgn_pmem_fields  # after a comma, + or -",
        "    set -l word (string replace -r -- '^--[a-z]+=' '' (commandline -ct))",
        "    string join \\n -- (string match -r -- '^(?:.*[,+-])?' $word)$argv\\tfield",
        "end",
        "complete -c drgn-pmem -f",
        "# a script and its arguments",
        f"complete -c drgn-pmem -n '{none}; and string length -q -- (commandline -ct)' -F",
        *(_fish_option(none, option) for option in _options()),
        f"complete -c drgn-pmem -n {none} -a help -d 'list the commands, or explain one'",
    ]
    for command in _commands():
        lines.append(
            f"complete -c drgn-pmem -n {none} -a {command.name} "
            f"-d {shlex.quote(_line(command.description))}"
        )
        seen = f"__fish_seen_subcommand_from {command.name}"
        if _takes_files(command):
            lines.append(f"complete -c drgn-pmem -n {shlex.quote(seen)} -F")
        for option in _arguments(command):
            lines.append(_fish_option(seen, option, command.fields))
    return "\n".join(lines)


def _fish_option(when: str, option: _Option, fields: Sequence[str] = ()) -> str:
    name = option.name
    flag = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
    if option.is_file:
        value = " -r -F"
    elif option.choices:
        value = f" -x -a {shlex.quote(' '.join(option.choices))}"
    elif fields and name in _FIELD_OPTIONS:
        value = f" -x -a '(__drgn_pmem_fields {' '.join(fields)})'"
    else:
        value = " -x" if option.takes_value else ""
    return (
        f"complete -c drgn-pmem -n {shlex.quote(when)} {flag}{value} "
        f"-d {shlex.quote(_line(option.help))}"
    )


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}


def completion_script(shell: str) -> str:
    """
    The completion of a shell; the commands must be loaded.

    :raises UsageError: if there is none
    """
    if shell not in SHELLS:
        raise UsageError(f"completion is for {', '.join(SHELLS)}, not {shell!r}")
    return SHELLS[shell]()
