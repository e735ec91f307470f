# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Options of the command line. Those that say where debug info comes from have drgn's own names and
meanings, so that ``drgn-pmem`` works as ``drgn`` does.
"""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

import drgn

from drgn_pmem.errors import UsageError

__all__ = ("apply_debug_info_options", "make_parser", "parse")

_ON = {
    "kmod=depmod": ("try_kmod", drgn.KmodSearchMethod.DEPMOD),
    "kmod=walk": ("try_kmod", drgn.KmodSearchMethod.WALK),
    "kmod=depmod-or-walk": ("try_kmod", drgn.KmodSearchMethod.DEPMOD_OR_WALK),
    "kmod=depmod-and-walk": ("try_kmod", drgn.KmodSearchMethod.DEPMOD_AND_WALK),
}
_OFF = {"kmod": ("try_kmod", drgn.KmodSearchMethod.NONE)}
_SWITCHES = (
    "module-name",
    "build-id",
    "debug-link",
    "procfs",
    "embedded-vdso",
    "reuse",
    "supplementary",
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see drgn-pmem --help)")


class _SymbolsBy(argparse.Action):
    """``--try-symbols-by`` and ``--no-symbols-by``: later ones win, names of finders or options."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        enable = bool(self.const)
        for value in values.split(","):
            if value in _SWITCHES:
                namespace.debug_info_options["try_" + value.replace("-", "_")] = enable
            elif value in (_ON if enable else _OFF):
                name, method = (_ON if enable else _OFF)[value]
                namespace.debug_info_options[name] = method
            elif value in _ON or value in _OFF:
                raise argparse.ArgumentError(self, f"invalid option: {value!r}")
            else:
                namespace.finders[value] = enable


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = _Parser(
        prog="drgn-pmem",
        description="Persistent memory in Linux kernel crash dumps: without COMMAND, the shell; "
        "with it, one command.",
        epilog="exit status: 0 every answer is complete; 1 an answer is incomplete, or something "
        "failed, or pmem-diff found a difference; 2 wrong usage: an unknown command, option or "
        "field, or a value that cannot be one; 130 stopped by Ctrl-C. `drgn-pmem help` lists the "
        "commands, `drgn-pmem COMMAND -h` explains one; `drgn-pmem fleet -h`: reports of many "
        "dumps.",
        usage="drgn-pmem (-c VMCORE [-s VMLINUX] | --sample [NAME] | -k | --qemu ADDRESS) "
        "[OPTIONS] [COMMAND [ARG ...]]",
        allow_abbrev=False,
        add_help=False,
    )
    target = parser.add_argument_group("what to look at").add_mutually_exclusive_group()
    target.add_argument(
        "-c",
        "--core",
        metavar="VMCORE",
        action="append",
        help="a crash dump, or each file of a split one (makedumpfile --split); or FILE@ADDRESS, a "
        "raw image of memory and the physical address of its first byte, one -c for each",
    )
    target.add_argument(
        "--sample",
        action="store_true",
        help="a sample dump: the words after it may begin with its NAME or NAME:FORMAT "
        "(see --list-samples)",
    )
    target.add_argument("-k", "--kernel", action="store_true", help="the running kernel")
    target.add_argument(
        "--qemu",
        metavar="ADDRESS",
        help="a QEMU guest over the QEMU Machine Protocol: path of a Unix socket, or host:port",
    )
    parser.add_argument_group("with -c").add_argument(
        "--crashed",
        action="store_true",
        help="the dump is of a capture kernel that hung, made from outside: open the crashed "
        "kernel in it, as its /proc/vmcore would have been",
    )
    parser.add_argument_group("with -k").add_argument(
        "--live-pmem",
        action="store_true",
        help="read persistent memory too, which /proc/kcore does not have: through /dev/mem or the "
        "block devices of namespaces, as far as the kernel allows it",
    )
    _add_symbol_options(parser)
    _add_directory_options(parser)
    advanced = parser.add_argument_group("advanced")
    names = [a.name for a in drgn.Architecture]
    advanced.add_argument(
        "--architecture",
        metavar="ARCH",
        choices=names + [name.lower() for name in names],
        help="architecture of the dump, if the file does not say",
    )
    advanced.add_argument(
        "--vmcoreinfo",
        metavar="PATH",
        help="file with the vmcoreinfo text; overrides the one in the dump",
    )
    general = parser.add_argument_group("general")
    general.add_argument(
        "-e",
        dest="exec",
        metavar="LINE",
        action="append",
        help="run a line as if typed at the shell's prompt; several -e run one after the other",
    )
    general.add_argument(
        "--no-config", action="store_true", help="the shell without the user's config file"
    )
    general.add_argument("--list-samples", action="store_true", help="list the sample dumps")
    general.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error", "critical", "none"],
        default="warning",
        help="log messages of at least this level to standard error (default: warning)",
    )
    general.add_argument(
        "-q",
        "--quiet",
        dest="log_level",
        action="store_const",
        const="none",
        help="no log messages, no progress",
    )
    general.add_argument(
        "--completion",
        metavar="SHELL",
        choices=("bash", "zsh", "fish"),
        help="print the completion script of bash, zsh or fish",
    )
    general.add_argument("-h", "--help", action="store_true", help="show this help")
    general.add_argument("--version", action="store_true", help="show the versions")
    parser.add_argument(
        "words",
        metavar="COMMAND",
        nargs=argparse.REMAINDER,
        help="a command and its arguments, or a Python script and its arguments",
    )
    return parser


def _add_symbol_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("debug info, as in drgn")
    group.add_argument(
        "-s",
        "--symbols",
        metavar="PATH",
        action="append",
        default=[],
        help="load debug info from this file (vmlinux, a module); may be given more than once",
    )
    default = group.add_mutually_exclusive_group()
    default.add_argument(
        "--main-symbols",
        dest="default_symbols",
        action="store_const",
        const={"main": True},
        help="load debug info of the kernel itself, and of -s and --extra-symbols, only",
    )
    default.add_argument(
        "--no-default-symbols",
        dest="default_symbols",
        action="store_const",
        const={},
        help="load debug info of -s and --extra-symbols only",
    )
    group.add_argument(
        "--extra-symbols",
        metavar="PATH",
        action="append",
        default=[],
        help="load debug info from this file, whatever it belongs to; may be given more than once",
    )
    for option, enable, choices in (
        ("--try-symbols-by", True, (*_SWITCHES, *_ON)),
        ("--no-symbols-by", False, (*_SWITCHES, *_OFF)),
    ):
        group.add_argument(
            option,
            metavar="METHOD[,METHOD...]",
            action=_SymbolsBy,
            const=enable,
            dest="finders",
            help=f"{'enable' if enable else 'disable'} ways to find debug info: finders "
            f"(standard, debuginfod, plugins') or {', '.join(choices)}",
        )


def _add_directory_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where debug info is searched, as in drgn")
    for option, plural, what in (
        ("debug", "debug_directories", "for debug info"),
        ("debug-link", "debug_link_directories", "for debug info by debug link"),
        ("kernel", "kernel_directories", "for the kernel and its modules"),
    ):
        group.add_argument(
            f"--{option}-directory",
            dest=plural,
            metavar="PATH",
            action="append",
            default=[],
            help=f"search here {what}; may be given more than once",
        )
        group.add_argument(
            f"--no-default-{option}-directories",
            action="store_true",
            help=f"do not search the standard directories {what}",
        )


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """
    Options and, in ``words``, what follows them.

    :raises UsageError: with one line that says what is wrong
    """
    # --sample=NAME is --sample NAME; whether a word is a name or a command depends on the samples,
    # so the caller takes it out of the words (see cli.take_sample_name).
    split: list[str] = []
    for word in arguments:
        split += ["--sample", word[9:]] if word.startswith("--sample=") else [word]
    namespace = argparse.Namespace(finders={}, debug_info_options={})
    return make_parser().parse_args(split, namespace)


def parse_more(options: argparse.Namespace, words: Sequence[str]) -> argparse.Namespace:
    """
    Options that come after the sample's name (``--sample NAME -q COMMAND``).

    :raises UsageError: with one line that says what is wrong
    """
    return make_parser().parse_args(words, options)


def help_text() -> str:
    """What ``drgn-pmem --help`` prints."""
    return make_parser().format_help().rstrip()


def apply_debug_info_options(prog: drgn.Program, options: argparse.Namespace) -> list[str]:
    """
    Set a program's debug info finders and directories.

    :return: Names given to ``--try-symbols-by`` or ``--no-symbols-by`` that are neither finders
        nor options.
    """
    registered = prog.registered_debug_info_finders()
    enabled = prog.enabled_debug_info_finders()
    for name, enable in options.finders.items():
        if enable and name in registered and name not in enabled:
            enabled.append(name)
        elif not enable and name in enabled:
            enabled.remove(name)
    if options.finders:
        prog.set_enabled_debug_info_finders(enabled)
    for name, value in options.debug_info_options.items():
        setattr(prog.debug_info_options, name, value)
    for option, attribute in (
        ("debug", "directories"),
        ("debug_link", "debug_link_directories"),
        ("kernel", "kernel_directories"),
    ):
        given = tuple(getattr(options, f"{option}_directories"))
        keep = not getattr(options, f"no_default_{option}_directories")
        if given or not keep:
            default = getattr(prog.debug_info_options, attribute) if keep else ()
            setattr(prog.debug_info_options, attribute, given + tuple(default))
    return [name for name in options.finders if name not in registered]
