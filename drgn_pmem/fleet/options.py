# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Arguments of ``drgn-pmem fleet``
--------------------------------

Declared as those of a command are: help, completion and the man page come from them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
import os
import re

from drgn_pmem.arguments import Argument, Parser
from drgn_pmem.errors import UsageError

__all__ = ("ARGUMENTS", "DESCRIPTION", "EXAMPLES", "LONG", "FleetOptions", "parse_fleet", "size_of")

DESCRIPTION = "pmem-report of many dumps, on all cores or on a Dask cluster, with one index"

LONG = (
    "Makes the report of each dump (HTML and JSON) in a process of its own, with a limit of time\n"
    "and of memory: a dump that hangs or exhausts its process stops no other. FOLDER gets\n"
    "index.html (the dumps, worst first), findings.jsonl, fleet.sqlite and the reports. With\n"
    "--resume, a dump that was done before is not done again if its size, modification time,\n"
    "SHA-256 of the first and the last MiB and the version of drgn-pmem are the same. Ctrl-C\n"
    "keeps what is done.\n"
    "Needs Dask: pip install 'drgn-pmem[fleet]'."
)

_SECONDS = 3600
_MEMORY = "4G"

ARGUMENTS = (
    Argument("dumps", kind="file", nargs="*", metavar="DUMP",
             help="a dump, or a folder that is searched for dumps, by their content; not "
             "needed with --resume: those of the run before"),
    Argument("-o", "--output", kind="file", metavar="FOLDER",
             help="write reports and index to this folder, made if it does not exist"),
    Argument("-j", "--jobs", type=int, metavar="N",
             help="read N dumps at a time (default: one for each core)"),
    Argument("--scheduler", metavar="ADDRESS",
             help="use the workers of a running Dask scheduler (tcp://HOST:PORT), which see dumps, "
             "debug info and FOLDER by the same paths"),
    Argument("--debug-directory", kind="file", metavar="PATH", action="append", default=[],
             help="search here for debug info of kernels and modules, whatever the files are "
             "called: it is found by build ID; may be given more than once"),
    Argument("--timeout", type=float, metavar="SECONDS", default=_SECONDS,
             help=f"end the reader of a dump after this time (default: {_SECONDS})"),
    Argument("--memory-limit", metavar="SIZE", default=_MEMORY,
             help=f"memory that the reader of a dump may take, as 512M or 8G (default: "
             f"{_MEMORY})"),
    Argument("--resume", action="store_true",
             help="go on in a folder that has results: only what is new, changed or has no result"),
    Argument("-q", "--quiet", action="store_true", help="print no line for each dump, no progress"),
    Argument("-h", "--help", action="store_true", help="show this help"),
)  # fmt: skip

EXAMPLES = (
    ("drgn-pmem fleet /var/crash -o fleet", "all dumps below /var/crash, on all cores"),
    (
        "drgn-pmem fleet /var/crash -o fleet --debug-directory /srv/vmlinux --resume",
        "only the dumps that came since",
    ),
    (
        "drgn-pmem fleet /srv/crash -o /srv/fleet --scheduler tcp://head:8786",
        "on the workers of a cluster",
    ),
)

_ADDRESS = re.compile(r"(?:(?:tcp|tls|ucx|wss?)://)?[^/\s]+:\d{1,5}")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_LEAST = 64 << 20
_MOST = 1 << 47
"""bytes: what the addresses of a process reach"""


@dataclass(frozen=True)
class FleetOptions:
    """What the command line says."""

    dumps: tuple[str, ...]
    """Dumps and folders."""
    output: str
    jobs: int | None
    scheduler: str | None
    debug_directories: tuple[str, ...]
    timeout: float
    """seconds"""
    memory_limit: int
    """bytes"""
    resume: bool
    quiet: bool


def parse_fleet(words: Sequence[str]) -> FleetOptions | None:
    """
    Parse the words after ``fleet``; None if the user asked for help, which is printed.

    :raises UsageError: with one line that says what is wrong
    """
    parser = _parser()
    if "-h" in words or "--help" in words:
        print(parser.format_help().rstrip())
        return None
    args = parser.parse_intermixed_args(list(words))
    if not args.output:
        raise UsageError("drgn-pmem fleet: where to? give the folder of the reports with -o FOLDER")
    if not args.dumps and not args.resume:
        raise UsageError("drgn-pmem fleet: no dump: give dumps, or folders with dumps")
    if args.jobs is not None and args.jobs < 1:
        raise UsageError(f"drgn-pmem fleet: -j takes a number of dumps, not {args.jobs}")
    if args.scheduler is not None and not _ADDRESS.fullmatch(args.scheduler):
        raise UsageError(
            f"drgn-pmem fleet: --scheduler takes tcp://HOST:PORT, not {args.scheduler!r}"
        )
    if not 0 < args.timeout < 1e9:
        raise UsageError(f"drgn-pmem fleet: --timeout takes seconds, not {args.timeout:g}")
    return FleetOptions(
        dumps=tuple(map(os.path.abspath, args.dumps)),
        output=os.path.abspath(args.output),
        jobs=args.jobs,
        scheduler=args.scheduler,
        debug_directories=tuple(map(os.path.abspath, args.debug_directory)),
        timeout=args.timeout,
        memory_limit=size_of(args.memory_limit),
        resume=args.resume,
        quiet=args.quiet,
    )


def size_of(text: str) -> int:
    """
    Bytes of a size with a unit.

    :raises UsageError: if it is none, or too small for any dump
    """
    match = re.fullmatch(r"(\d{1,9})([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"--memory-limit takes a size such as 512M or 8G, not {text!r}")
    size = int(match[1]) * _UNITS[match[2].upper()]
    if size > _MOST:
        raise UsageError(f"--memory-limit: {text} is more than a process can have")
    if size < _LEAST:
        raise UsageError(f"--memory-limit: {text} is too little to open any dump")
    return size


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="drgn-pmem fleet",
        usage="drgn-pmem fleet DUMP|FOLDER... -o FOLDER [OPTIONS]",
        description=LONG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
        epilog="examples:\n" + "\n".join(f"  {line}\n      {what}" for line, what in EXAMPLES),
    )
    for argument in ARGUMENTS:
        parser.add_argument(
            *argument.names, help=argument.help.replace("%", "%%"), **argument.options
        )
    return parser
