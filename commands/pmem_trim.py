# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-trim``: a dump that can be handed on, without the user data of persistent memory."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from drgn_pmem.errors import PmemError, UsageError
from drgn_pmem.partial import Partial, Problems
from drgn_pmem.record import Record, Show
from drgn_pmem.spec import Answer, Argument, Field, command

if TYPE_CHECKING:
    from drgn import Program

    from drgn_pmem.analysis.trim.plan import TrimPlan

__all__ = ("Trimmed", "trim")

_FIELDS = (
    Field("WHAT", lambda p: p.what, "kind of memory"),
    Field("KEPT", lambda p: p.kept, "bytes that are kept", right=True, show=Show.SIZE),
    Field("DROPPED", lambda p: p.dropped, "bytes that are dropped", right=True, show=Show.SIZE),
)

_RAM = (
    "RAM is not filtered: copies of user data can be in it (page cache, "
    "anonymous memory, buffers of programs and of block devices)"
)


_ZERO_EXCLUDED = (
    "crash opens it with --zero_excluded: of an ELF dump crash reads pages that were left out as "
    "zeroes, of a kdump-compressed one it refuses to read them"
)
_READS_AS_ZERO = (
    "crash, and drgn without drgn-pmem, read what was left out of this ELF core as zeroes; of a "
    "kdump-compressed dump (--format kdump) they refuse to read it"
)


class Trimmed(Record):
    """A dump that was written."""

    input: str
    output: str
    format: str
    compression: str
    size: int
    """bytes of the file"""
    kept: dict[str, int]
    """bytes of memory by what they are"""
    dropped: dict[str, int]
    sha256: str
    verified: tuple[str, ...]
    """Command lines whose answers were compared."""


def trim(
    prog: Program,
    path: str | os.PathLike[str],
    plan: TrimPlan,
    *,
    format: str = "kdump",
    compression: str | None = None,
    verify: bool = True,
) -> Partial[Trimmed]:
    """
    Write a dump that can be handed on. The file appears when it is complete and verified.

    :param path: A file that does not exist.
    :param plan: What of the dump is kept, by :func:`~drgn_pmem.analysis.trim.plan.plan_trim` for
        the same format.
    :param format: ``"kdump"`` or ``"elf"``.
    :param compression: ``"zlib"`` (the default), ``"zstd"``, ``"lzo"`` or ``"none"``; of a
        kdump-compressed dump.
    :param verify: Whether the file is opened anew, its memory compared with the plan, and, if
        metadata is kept, asked what the dump is asked.
    :raises UsageError: if there is such a file, or it cannot be written, or a compression is given
        for an ELF core
    :raises DumpFileError: if the written dump does not answer the same
    :raises KeyboardInterrupt: after Ctrl-C, also while the answers are compared: there is no file
    """
    from drgn_pmem.analysis.trim.plan import lost_memory
    from drgn_pmem.analysis.trim.write import check_memory, estimate, sha256_of, write_trimmed
    from drgn_pmem.commands.verify import answers_kept
    from drgn_pmem.dumpfile import DumpFormat, dump_of
    from drgn_pmem.output.files import replacing
    from drgn_pmem.output.progress import progress

    name = os.fspath(path)
    _refuse_no_name(name)
    compression = _compression(format, compression)
    problems = Problems()
    dump = dump_of(prog)
    problems.extend(lost_memory(dump))
    verified: list[str] = []
    try:
        if os.path.lexists(name):
            raise FileExistsError
        _check_space(name, estimate(prog, plan, format, compression))
        with replacing(name, mode=0o600, overwrite=False) as file:
            number = file.fileno()
            with progress(f"writing {os.path.basename(name)}", plan.keep.total) as report:
                file_written = problems.take(
                    write_trimmed(prog, plan, number, format, compression, report)
                )
            if verify:
                check_memory(prog, plan, f"/proc/self/fd/{number}", file_written.damaged)
                if plan.metadata:
                    verified = answers_kept(
                        prog,
                        number,
                        _folder(name),
                        len(file_written.damaged),
                        same_format=dump.contained
                        is (DumpFormat.ELF if format == "elf" else DumpFormat.KDUMP),
                    )
            with progress("checksum", file_written.size) as report:
                sha256 = sha256_of(number, report)
    except PmemError:
        raise
    except FileExistsError:
        raise UsageError(f"pmem-trim: {name} exists; give the name of a new file") from None
    except OSError as error:
        raise PmemError(f"pmem-trim: {name}: {error.strerror or error}") from error
    return problems.partial(
        Trimmed(
            input=dump.path,
            output=name,
            format=format,
            compression=compression,
            size=file_written.size,
            kept=plan.kept,
            dropped=plan.dropped,
            sha256=sha256,
            verified=tuple(verified),
        )
    )


def _refuse_no_name(name: str) -> None:
    """
    :raises UsageError: for what names no file: a dump is read again while it is written
    """
    if not name:
        raise UsageError("pmem-trim: -o '': give the name of a new file")
    if name == "-":
        raise UsageError(
            "pmem-trim: -o -: give the name of a new file; a dump cannot be written to standard "
            "output, because it is read again to verify it (a file of that name: -o ./-)"
        )


def _compression(format: str, wanted: str | None) -> str:
    """
    The compression of the new dump.

    :raises UsageError: if one is wanted of an ELF core, which has none
    """
    if format == "kdump":
        return "zlib" if wanted is None else wanted
    if wanted not in (None, "none"):
        raise UsageError(
            f"pmem-trim: --compress {wanted}: an ELF core is not compressed; leave out --compress "
            "or use --format kdump"
        )
    return "none"


def _folder(name: str) -> str:
    return os.path.dirname(os.path.realpath(name))


def _check_space(name: str, needed: int) -> None:
    free = shutil.disk_usage(_folder(name)).free
    if free < needed:
        raise PmemError(
            f"pmem-trim: {name}: about {needed} bytes are needed, and {free} are free there"
        )


def _code(args: argparse.Namespace) -> str:
    options = [] if args.format == "kdump" else [f"format={args.format!r}"]
    more = list(options)
    if args.drop_metadata:
        options.append("metadata=False")
    if args.keep_userdata:
        options.append(f"userdata={args.keep_userdata!r}")
    if args.keep:
        options.append(f"pages={args.keep!r}")
    lines = [
        "from drgn_pmem import plan_trim",
        "",
        f"plan = plan_trim({', '.join(['prog', *options])})",
        "for part in plan.value.parts:",
        "    print(part.what, part.kept, part.dropped)",
        "print(*plan.problems)  # why something is dropped that may be metadata",
    ]
    if args.output is not None:
        lines[0] += ", trim"
        if args.compress not in (None, "zlib"):
            more.append(f"compression={args.compress!r}")
        if args.no_verify:
            more.append("verify=False")
        lines.append(f"print(trim({', '.join(['prog', repr(args.output), 'plan.value', *more])}))")
    return "\n".join(lines)


@command(
    name="pmem-trim",
    description="write a dump that can be handed on: no user data of pmem, all metadata",
    long_description=(
        "Write a dump that can be handed on: RAM as this dump has it, and of persistent memory\n"
        "only what is known to be metadata: info blocks, struct pages, maps and logs of BTT\n"
        "arenas. User data, and what may be user data, is left out as excluded memory; crash, and\n"
        "drgn without drgn-pmem, read it as zeroes in an ELF core, and not in a kdump-compressed\n"
        "dump. The file is written under a temporary name, opened, asked what this dump is asked,\n"
        "and renamed if the answers are the same. Without -o, only shows what would be kept and\n"
        "dropped. RAM is not filtered: copies of user data may be in it."
    ),
    arguments=(
        Argument("-o", "--output", kind="file", metavar="FILE", help="the new file"),
        Argument("--format", choices=("kdump", "elf"), default="kdump",
                 help="kdump-compressed (the default), or an ELF core, which keeps PF_DEV but in "
                 "which other tools read what was left out as zeroes"),
        Argument("--compress", choices=("zstd", "zlib", "lzo", "none"),
                 help="compression of a kdump-compressed dump (default: zlib, which all tools "
                 "read)"),
        Argument("--keep-userdata", kind="namespace", metavar="NAMESPACE", action="append",
                 default=[], help="keep all of this namespace; may be given several times"),
        Argument("--drop-metadata", action="store_true",
                 help="drop the metadata of persistent memory too"),
        Argument("--keep", kind="page", metavar="PAGE", nargs="+", action="extend", default=[],
                 help="keep these pages; may be given several times"),
        Argument("--no-verify", action="store_true",
                 help="do not compare the answers of the new dump with those of this one"),
    ),
    examples=(
        ("pmem-trim", "what would be kept and dropped"),
        ("pmem-trim -o trimmed.vmcore", "write it"),
        ("pmem-trim -o trimmed.vmcore --compress zstd", "the same with zstd, for newer tools"),
    ),
    code=_code,
    modules={"libnvdimm": "which parts of persistent memory are metadata"},
)  # fmt: skip
def pmem_trim(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.trim.plan import plan_trim
    from drgn_pmem.commands.verify import stop_if_interrupted
    from drgn_pmem.dumpfile import DumpFormat, State, dump_of
    from drgn_pmem.output.terminal import layout, look_of

    compression = _compression(args.format, args.compress)
    if args.output is not None:
        _refuse_no_name(args.output)
    problems = Problems()
    plan = problems.take(
        plan_trim(
            prog,
            format=args.format,
            metadata=not args.drop_metadata,
            userdata=args.keep_userdata,
            pages=args.keep,
        )
    )
    stop_if_interrupted(problems)
    value: dict[str, Any] = {
        "input": dump_of(prog).path,
        "output": None,
        "format": args.format,
        "compression": compression,
        "size": None,
        **plan.to_json(),
        "sha256": None,
        "verified": [],
    }
    notes = []
    if args.output is not None:
        written = problems.take(
            trim(
                prog,
                args.output,
                plan,
                format=args.format,
                compression=compression,
                verify=not args.no_verify,
            )
        )
        value |= written.to_json()
        checked = "not verified"
        if written.verified:
            checked = f"opened anew, {len(written.verified)} questions answered as by this dump"
        elif not args.no_verify:
            checked = "opened anew, its memory is what was planned (answers need the metadata)"
        notes.append(f"{written.output}: {written.size} bytes, {checked}")
        notes.append(f"SHA-256 {written.sha256}")
        dump = dump_of(prog)
        if args.format == "elf":
            notes.append(_READS_AS_ZERO)
        elif dump.contained is DumpFormat.ELF and dump.coverage.has(State.EXCLUDED):
            notes.append(_ZERO_EXCLUDED)
    if plan.blank:
        notes.append(f"{plan.blank} bytes that share a page with what is kept are written as X")
    notes.append(_RAM)
    parts = list(plan.parts)
    return Answer(
        parts,
        notes=notes,
        problems=problems,
        json=value,
        text=layout(parts, _FIELDS, look_of(sys.stdout)),
    )
