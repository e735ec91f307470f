# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The command line ``drgn-pmem``: one command, a script, lines from standard input, or the shell. The
exit status follows one rule: 0 every answer is complete, 1 one is not or something failed, 2 wrong
usage, 130 stopped by Ctrl-C; the statuses of drgn's own commands and of scripts are passed on.
"""

import argparse
from collections.abc import Sequence
import contextlib
import gc
import os
import signal
import sys

from drgn_pmem.errors import PmemError, UsageError, numpy_error
from drgn_pmem.output.text import escape
from drgn_pmem.shell import log
from drgn_pmem.shell.failures import did_you_mean, explain
from drgn_pmem.shell.options import help_text, parse, parse_more
from drgn_pmem.spec import SPECS, parse_arguments

__all__ = ("main",)

_SIGPIPE = 128 + 13
_SIGINT = 128 + 2


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script. :return: Exit status."""
    _open_missing_streams()
    _leave_on_signals()
    log.set_up("warning")
    # numpy's linear algebra, which nothing here uses, would start a thread for each CPU.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        status = _main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except UsageError as error:
        return _fail(explain(error), 2)
    except PmemError as error:
        return _fail(explain(error), 1)
    except BrokenPipeError:
        # The reader closed the pipe (| head). Nothing more can be written, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _SIGPIPE
    except KeyboardInterrupt:
        return _SIGINT
    except OSError as error:
        return _fail(explain(error), 1)
    except (ImportError, RuntimeError) as error:
        if numpy_error(error) is None:
            raise
        return _fail(explain(error), 1)


def _open_missing_streams() -> None:
    """Standard streams that were closed (``>&-``) are /dev/null, so that no other file becomes
    one."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                os.fstat(number)
                continue
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
            mode = "r" if number == 0 else "w"
            stream = open(number, mode, closefd=False)  # noqa: SIM115 (open to the end)
            setattr(sys, name, stream)


def _leave_on_signals() -> None:
    """SIGTERM and SIGHUP leave as Ctrl-C does: files that are not whole yet are removed."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, leave)


def _fail(message: str, status: int) -> int:
    from drgn_pmem.output.terminal import paragraph

    sys.stdout.flush()
    print(paragraph(f"drgn-pmem: {message}", sys.stderr), file=sys.stderr)
    return status


def _main(argv: Sequence[str]) -> int:
    options = parse(argv)
    log.set_level(options.log_level)
    if options.version:
        return _print_version()
    if options.help:
        print(help_text())
        return 0
    if options.completion:
        from drgn_pmem.commands import load_commands
        from drgn_pmem.shell.completionscripts import completion_script

        load_commands()

        print(completion_script(options.completion))
        return 0
    if options.list_samples:
        return _list_samples()
    _load_commands(options)
    if options.sample:
        options = _take_sample(options)
    elif _compares_two(options):
        _take_first_dump(options)
    if options.words and _needs_no_target(options):
        return _help(options.words)
    if options.words and options.words[0] == "fleet":
        return _fleet(options)
    _check_words(options)
    if options.log_level != "none":
        _show_progress()
    if options.sample:
        _use_sample(options)
    if not (options.core or options.kernel or options.qemu):
        raise UsageError("no dump: give -c VMCORE, --sample, -k or --qemu (see drgn-pmem --help)")
    return _work(options)


def _load_commands(options: argparse.Namespace) -> None:
    """The named command, or all of them; the shell loads them while drgn works."""
    from drgn_pmem.commands import command_names, load_command, load_commands

    name = options.words[0].lstrip("%") if options.words else ""
    if name in command_names():
        load_command(name)
    elif options.words or options.exec is not None or not sys.stdin.isatty():
        load_commands()


def _work(options: argparse.Namespace) -> int:
    """Do what the options ask with the target they name."""
    from drgn_pmem.shell import batch
    from drgn_pmem.shell.target import open_target

    interactive = options.exec is None and not options.words and sys.stdin.isatty()
    if interactive:
        # Nothing that is made before the first prompt becomes garbage.
        gc.disable()
    target = open_target(options, _needed(options, interactive))
    if interactive:
        from drgn_pmem.commands import load_commands
        from drgn_pmem.shell.loop import interact

        load_commands()

        # Imported modules stay: the garbage collector need not look at them.
        gc.freeze()
        gc.enable()
        return interact(target, use_config=not options.no_config)
    for note in target.notes:
        log.logger.warning("%s", note)
    if options.exec is not None:
        return batch.run_texts(target, options.exec, ["-e", *options.words])
    if options.words:
        word = options.words[0].lstrip("%")
        if word in SPECS:
            return batch.run_command(target, word, options.words[1:])
        if word in batch.other_commands(target.prog):
            return batch.run_other_command(target, [word, *options.words[1:]])
        if _is_script(options.words[0]):
            return batch.run_script(target, options.words)
        raise _unknown_command(options.words[0])
    return batch.run_texts(target, [sys.stdin.read()], [""], "<stdin>")


def _fleet(options: argparse.Namespace) -> int:
    """``fleet DUMP...``: many dumps, each opened by a process of its own."""
    if options.core or options.kernel or options.qemu or options.sample:
        raise UsageError("fleet takes the dumps after it: drgn-pmem fleet DUMP... -o FOLDER")
    from drgn_pmem.fleet.run import run_fleet

    if options.log_level != "none":
        _show_progress()
    quiet = ["--quiet"] if options.log_level == "none" else []
    return run_fleet([*options.words[1:], *quiet])


def _needed(options: argparse.Namespace, interactive: bool) -> list[str]:
    """Modules that answering will import."""
    from drgn_pmem.commands import command_names

    if interactive:
        commands = (f"drgn_pmem.commands.{name.replace('-', '_')}" for name in command_names())
        return ["drgn_pmem.shell.loop", *commands]
    spec = SPECS.get(options.words[0].lstrip("%")) if options.words else None
    return [] if spec is None else spec.imports


def _print_version() -> int:
    import importlib.metadata

    from drgn.cli import version_header

    try:
        version = importlib.metadata.version("drgn-pmem")
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed)"
    print(f"drgn-pmem {version}, {version_header()}")
    return 0


def _list_samples() -> int:
    from drgn_pmem.output.table import Field, table
    from drgn_pmem.shell.sample import load_index

    samples, default = load_index()
    fields = [
        Field("SAMPLE", lambda s: s.name + (" (default)" if s.name == default else "")),
        Field("KERNEL", lambda s: s.release),
        Field("ARCH", lambda s: s.architecture),
        Field("FORMATS", lambda s: list(s.formats)),
        Field("DESCRIPTION", lambda s: s.description),
    ]
    print(table(samples.values(), fields))
    return 0


def _take_sample(options: argparse.Namespace) -> argparse.Namespace:
    """Remove the sample's name, if there is one, from the words after ``--sample``."""
    from drgn_pmem.shell.sample import load_index

    samples, default = load_index()
    options.sample_name, options.sample_format = default, None
    if options.words:
        name, _, format = options.words[0].partition(":")
        if name in samples:
            rest = options.words[1:]
            options.words = []
            options = parse_more(options, rest)
            options.sample_name, options.sample_format = name, format or None
        elif options.words[0].lstrip("%") not in (*SPECS, "help") and not _is_script(
            options.words[0]
        ):
            known = [*samples, *SPECS]
            raise UsageError(
                f"no sample or command '{escape(options.words[0])}'"
                f"{did_you_mean(options.words[0], known)}; the samples are {', '.join(samples)}"
            )
    return options


def _use_sample(options: argparse.Namespace) -> None:
    """Make the options name the sample's files, unpacked."""
    from drgn_pmem.shell.sample import find_sample

    sample = find_sample(options.sample_name)
    options.core = [str(sample.dump(options.sample_format))]
    options.debug_directories += map(str, sample.debug_directories)
    options.kernel_directories += map(str, sample.kernel_directories)
    if sample.vmlinux is not None and not options.symbols and options.default_symbols is None:
        options.symbols = [str(path) for path in sample.debug_info()]
        # All files are next to the dump: do not search this machine.
        options.default_symbols = {"main": True}


def _is_script(word: str) -> bool:
    return word.endswith(".py") or os.path.isfile(word)


def _unknown_command(word: str) -> UsageError:
    near = did_you_mean(word.lstrip("%"), [*SPECS, "fleet"])
    return UsageError(f"no command '{escape(word)}'{near or ' (see drgn-pmem help)'}")


def _compares_two(options: argparse.Namespace) -> bool:
    """``pmem-diff A B``: the dumps are the command's arguments."""
    target = options.core or options.kernel or options.qemu
    named = bool(options.words) and options.words[0].lstrip("%") == "pmem-diff"
    helps = any(word in ("-h", "--help") for word in options.words)
    return named and not target and not helps and options.exec is None


def _take_first_dump(options: argparse.Namespace) -> None:
    """Open the first dump that ``pmem-diff`` names, as with ``-c``."""
    args = parse_arguments(SPECS["pmem-diff"], options.words[1:])
    if args is None or len(args.dump) != 2:
        raise UsageError("pmem-diff: give two dumps, or -c A and then B")
    options.core = args.dump[:1]
    options.words.remove(args.dump[0])


def _needs_no_target(options: argparse.Namespace) -> bool:
    words = options.words
    return words[0] == "help" or (
        words[0] in SPECS and any(word in ("-h", "--help") for word in words[1:])
    )


def _help(words: Sequence[str]) -> int:
    """``help``, ``help COMMAND``, ``COMMAND -h``: these need no dump."""
    if words[0] in SPECS:
        parse_arguments(SPECS[words[0]], words[1:])
        return 0
    from drgn_pmem.fleet.options import DESCRIPTION, parse_fleet

    for name in words[1:]:
        if name == "fleet":
            parse_fleet(["-h"])
            continue
        spec = SPECS.get(name)
        if spec is None:
            raise UsageError(f"no command '{escape(name)}'{did_you_mean(name, list(SPECS))}")
        parse_arguments(spec, ["-h"])
    if not words[1:]:
        described = {name: spec.description for name, spec in SPECS.items()}
        described["fleet"] = f"{DESCRIPTION} (takes the dumps itself, without -c)"
        width = max(map(len, described))
        for name, text in sorted(described.items()):
            print(f"{name:<{width}}  {text}")
    return 0


def _check_words(options: argparse.Namespace) -> None:
    """
    Check the words before the dump is opened, which takes time.
    """
    if not options.words or options.exec is not None:
        return
    word = options.words[0]
    name = word.lstrip("%")
    if name in SPECS:
        if not any(w in ("-h", "--help") for w in options.words[1:]):
            parse_arguments(SPECS[name], options.words[1:])
    elif _is_script(word):
        _check_script(word)
        if _is_elf_or_dump(word):
            raise UsageError(f"{escape(word)} is not a script (did you mean -c {escape(word)}?)")
    elif did_you_mean(name, [*SPECS, "fleet"]):
        # drgn's and other plugins' commands are known only when a target is set; a word that is
        # nearly one of ours is not one of those.
        raise _unknown_command(word)


def _check_script(path: str) -> None:
    try:
        with open(path, "rb"):
            return
    except OSError as error:
        raise UsageError(f"script {escape(path)}: {error.strerror}") from error


def _is_elf_or_dump(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(8).startswith((b"\x7fELF", b"KDUMP", b"DISKDUMP", b"makedump"))


def _show_progress() -> None:
    from drgn_pmem.output.progress import show_with
    from drgn_pmem.shell.progress import show, stage

    show_with(show, stage)
