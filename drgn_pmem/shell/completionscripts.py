# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Completion of the command line for bash, zsh and fish, from its options and the specs."""

import argparse
from collections.abc import Iterator, Sequence
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


def _options() -> Iterator[tuple[str, str, bool, bool]]:
    """(name, help, takes a value, the value is a file) of each option before the command."""
    for action in make_parser()._actions:
        if action.help == argparse.SUPPRESS:
            continue
        takes = action.nargs != 0
        for name in action.option_strings:
            yield name, action.help or "", takes, takes and action.metavar in _FILES


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


def _arguments(command: _Command) -> Iterator[tuple[str, str, bool, bool]]:
    """The same of a command's options."""
    for argument in command.arguments:
        if argument.is_option:
            for name in argument.names:
                is_file = argument.kind == "file"
                yield name, argument.help, argument.takes_value, is_file


def _bash() -> str:
    commands = " ".join(command.name for command in _commands())
    files = "|".join(name for name, _, _, is_file in _options() if is_file)
    lines = [
        "# bash completion for drgn-pmem; written by drgn-pmem --completion bash",
        "_drgn_pmem() {",
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}",
        "    local command= words i",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        "        case ${COMP_WORDS[i]} in",
        f"            {commands.replace(' ', '|')}) command=${{COMP_WORDS[i]}}; break ;;",
        "        esac",
        "    done",
        "    case $command in",
        f'        "") words="{" ".join(name for name, *_ in _options())} {commands} help"',
        f"            case $prev in {files}) words= ;; esac ;;",
    ]
    for command in _commands():
        options = " ".join(option for option, *_ in _arguments(command))
        lines.append(f'        {command.name}) words="{options}"')
        taking = "|".join(option for option, _, _, is_file in _arguments(command) if is_file)
        if taking:
            lines.append(f"            case $prev in {taking}) words= ;; esac")
        if command.fields:
            fields = " ".join(command.fields)
            lines.append(
                f'            case $prev in -o|--fields|-s|--sort) words="{fields}" ;; esac'
            )
        lines[-1] += " ;;"
    return "\n".join(
        [
            *lines,
            "    esac",
            '    COMPREPLY=($(compgen -W "$words" -- "$cur"))',
            "}",
            "complete -o default -F _drgn_pmem drgn-pmem",
        ]
    )


def _zsh() -> str:
    lines = [
        "#compdef drgn-pmem",
        "# zsh completion for drgn-pmem; written by drgn-pmem --completion zsh",
        "_drgn_pmem() {",
        "    local command word",
        "    local -a options commands fields",
        "    commands=(",
        *(f"        {_described(each.name, each.description)}" for each in _commands()),
        "    )",
        "    for word in ${words[2,CURRENT-1]}; do",
        "        if (( ${commands[(I)$word:*]} )); then command=$word; break; fi",
        "    done",
        "    case $command in",
        '        "") options=(',
        *(f"            {_described(name, text)}" for name, text, *_ in _options()),
        "        ) ;;",
    ]
    for each in _commands():
        names = " ".join(map(shlex.quote, each.fields))
        lines += [
            f"        {each.name}) fields=({names}) options=(",
            *(f"            {_described(option, text)}" for option, text, *_ in _arguments(each)),
            "        ) ;;",
        ]
    return "\n".join(
        [
            *lines,
            "    esac",
            "    case ${words[CURRENT-1]} in",
            "        -o|--fields|-s|--sort)",
            "            if (( ${#fields} )); then compadd -a fields; return; fi ;;",
            "    esac",
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


def _described(name: str, text: str) -> str:
    """``name:text`` as zsh's _describe takes it."""
    return shlex.quote(f"{name}:{_line(text)}".replace("`", "'"))


def _fish() -> str:
    names = " ".join(command.name for command in _commands())
    none = f"not __fish_seen_subcommand_from {names}"
    lines = [
        "# fish completion for drgn-pmem; written by drgn-pmem --completion fish",
        "complete -c drgn-pmem -f",
    ]
    for name, text, takes, is_file in _options():
        lines.append(_fish_option(none, name, text, takes, is_file))
    for command in _commands():
        lines.append(
            f"complete -c drgn-pmem -n {shlex.quote(none)} -a {command.name} "
            f"-d {shlex.quote(_line(command.description))}"
        )
        seen = f"__fish_seen_subcommand_from {command.name}"
        for option, text, takes, is_file in _arguments(command):
            lines.append(_fish_option(seen, option, text, takes, is_file))
    return "\n".join(lines)


def _fish_option(when: str, name: str, text: str, takes: bool, is_file: bool) -> str:
    flag = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
    value = " -r -F" if is_file else " -x" if takes else ""
    return (
        f"complete -c drgn-pmem -n {shlex.quote(when)} {flag}{value} -d {shlex.quote(_line(text))}"
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
