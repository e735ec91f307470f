# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Opening a dump
--------------

:func:`open_dump` identifies the format by its first bytes. :func:`dump_of` and :func:`coverage_of`
give the dump that a :class:`drgn.Program` was opened from, once per program.
"""

import os
import re
from typing import Literal

import drgn

from drgn_pmem.dumpfile.coverage import Coverage
from drgn_pmem.dumpfile.elf import open_elf
from drgn_pmem.dumpfile.kdump import MAGICS as KDUMP_MAGICS, open_kdump
from drgn_pmem.dumpfile.live import is_local, kcore_dump, live_dump
from drgn_pmem.dumpfile.records import ERASED, DumpFile, DumpFormat
from drgn_pmem.dumpfile.source import FileSource
from drgn_pmem.errors import DumpFileError

__all__ = (
    "coverage_of",
    "dump_of",
    "has_dump",
    "is_erased",
    "open_dump",
    "other_format",
    "set_coverage",
    "set_dump",
    "starts_as_dump",
)

_DUMP_KEY = "drgn_pmem.dumpfile.dump"
_COVERAGE_KEY = "drgn_pmem.dumpfile.coverage"

_KCORE = re.compile(r"/proc/(kcore|\d+/root/proc/kcore)")

_ET_CORE = 4
_FLATTENED = b"makedumpfile\0\0\0\0"

_CRASH = "crash opens it, drgn does not"
_VMWARE = (
    "a VMware suspend or snapshot state; make an ELF core of it and its .vmem file with:"
    " vmss2core -N6 FILE.vmss FILE.vmem"
)
_LKCD = f"an LKCD dump; {_CRASH}"
_WINDOWS = "a dump of Windows, not of Linux; WinDbg opens it"

_OTHER_FORMATS = (
    (b"\x1f\x8b", "compressed with gzip; decompress it first (gunzip)"),
    (b"\xfd7zXZ\0", "compressed with xz; decompress it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; decompress it first (unzstd)"),
    (b"BZh", "compressed with bzip2; decompress it first (bunzip2)"),
    (b"\x04\x22\x4d\x18", "compressed with lz4; decompress it first (unlz4)"),
    (b"\x89LZO\0", "compressed with lzop; decompress it first (lzop -d)"),
    (b"PK\x03\x04", "a zip archive; unpack it first (unzip)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first (7z x)"),
    (
        b"LibvirtQemudSave",
        "a libvirt save file (virsh save); make a dump with: virsh dump --memory-only",
    ),
    (
        b"LibvirtQemudPart",
        "a libvirt save file that was not finished (virsh save); make a dump with:"
        " virsh dump --memory-only",
    ),
    (b"QFI\xfb", "a qcow2 disk image, not a dump"),
    (b"QEVM", "a QEMU migration stream; make a dump with: virsh dump --memory-only"),
    # crash's lkcd_dump_v1.h, of little- and big-endian machines
    (b"\xed\x23\x8f\x61\x73\x01\x19\xa8", _LKCD),
    (b"\xa8\x19\x01\x73\x61\x8f\x23\xed", _LKCD),
    # s390-tools' zgetdump, include/zt_common.h and zdump's dfi_s390.c
    (
        b"\xa8\x19\x01\x73\x61\x8f\x23\xfd",
        "an s390 stand-alone dump; convert it with: zgetdump -f elf FILE > NEWFILE",
    ),
    # makedumpfile's sadump_mod.h: "sadu", "mp"
    (
        b"sadump\0\0",
        "a Fujitsu sadump; convert it with: makedumpfile -c -d 1 -x VMLINUX FILE NEWFILE",
    ),
    # open-vm-tools' vmss2core; the number is little-endian
    (b"\xd0\xbe\xd2\xbe", _VMWARE),
    (b"\xd1\xba\xd1\xba", _VMWARE),
    (b"\xd2\xbe\xd2\xbe", _VMWARE),
    (b"\xd3\xbe\xd3\xbe", _VMWARE),
    (b"PAGEDUMP", _WINDOWS),
    (b"PAGEDU64", _WINDOWS),
    (
        b"EMiL",
        "a LiME image; take it anew with format=padded, then: drgn-pmem -c FILE@0, or convert each"
        " range to a raw file: drgn-pmem -c FILE@ADDRESS ...",
    ),
)


def open_dump(path: str | os.PathLike[str]) -> DumpFile:
    """
    Open a dump file of any known format.

    :param path: Path of the file.
    :raises DumpFileError: if it is missing, empty, a directory, of another format, or so damaged
        that nothing can be read.
    """
    if _KCORE.fullmatch(os.fspath(path)):
        return kcore_dump(os.fspath(path))
    source = FileSource(path)
    magic = source.read(0, 16)
    if magic.startswith(b"\x7fELF"):
        return open_elf(source)
    if magic.startswith(KDUMP_MAGICS):
        return open_kdump(source)
    if magic.startswith(_FLATTENED):
        return _open_flattened(source)
    other = other_format(magic)
    if other is not None:
        raise DumpFileError(f"{source.path}: {other}")
    raise DumpFileError(
        f"{source.path}: not a dump: neither an ELF core nor kdump-compressed nor flattened"
        f" (starts with {magic[:8].hex(' ')})"
    )


def starts_as_dump(start: bytes) -> bool:
    """
    Whether a file that starts so is an ELF core, kdump-compressed or flattened.

    :param start: The first 20 bytes.
    """
    if start.startswith(b"\x7fELF"):
        order: Literal["big", "little"] = "big" if start[5:6] == b"\2" else "little"
        return int.from_bytes(start[16:18], order) == _ET_CORE
    return start.startswith((*KDUMP_MAGICS, _FLATTENED))


def other_format(start: bytes) -> str | None:
    """What a file that starts so is, and what would make a dump of it; None if that is not
    known."""
    return next((what for magic, what in _OTHER_FORMATS if start.startswith(magic)), None)


def _open_flattened(outer: FileSource) -> DumpFile:
    from drgn_pmem.dumpfile.flattened import FlattenedSource

    source = FlattenedSource(outer)
    magic = source.read(0, 16)
    if magic.startswith(b"\x7fELF"):
        return open_elf(source, DumpFormat.FLATTENED)
    if magic.startswith(KDUMP_MAGICS):
        return open_kdump(source, DumpFormat.FLATTENED)
    if not source.complete and not any(magic):
        raise DumpFileError(
            f"{source.path}: a flattened file that was cut short before its headers, which"
            " makedumpfile writes last: which memory it holds is not known"
        )
    raise DumpFileError(
        f"{source.path}: a flattened file, but what it holds is not a dump"
        f" (starts with {magic[:8].hex(' ')})"
    )


def dump_of(prog: drgn.Program) -> DumpFile:
    """
    The dump that a program was opened from.

    :param prog: Program of a crash dump or a live kernel.
    :raises DumpFileError: if it has neither, or the file cannot be read any more.
    """
    dump = prog.cache.get(_DUMP_KEY)
    if dump is None:
        if prog.flags & drgn.ProgramFlags.IS_LIVE:
            dump = kcore_dump() if is_local(prog) else live_dump()
        elif prog.core_dump_path is not None:
            dump = open_dump(prog.core_dump_path)
        else:
            raise DumpFileError("this program has no dump file and is not live; open a dump first")
        prog.cache[_DUMP_KEY] = dump
    return dump


def has_dump(prog: drgn.Program) -> bool:
    """Whether :func:`dump_of` knows the dump: not for a program whose memory was added segment by
    segment."""
    return (
        _DUMP_KEY in prog.cache
        or prog.core_dump_path is not None
        or bool(prog.flags & drgn.ProgramFlags.IS_LIVE)
    )


def is_erased(prog: drgn.Program, data: bytes) -> bool:
    """Whether bytes of memory are what is left where makedumpfile erased data."""
    return data.startswith(ERASED) and has_dump(prog) and dump_of(prog).is_erased(data)


def set_dump(prog: drgn.Program, dump: DumpFile) -> None:
    """Set the dump that a program reads, where drgn does not know it: its memory was added segment
    by segment."""
    prog.cache[_DUMP_KEY] = dump
    prog.cache.pop(_COVERAGE_KEY, None)


def coverage_of(prog: drgn.Program) -> Coverage:
    """
    Coverage of a program's physical memory.

    :param prog: Program of a crash dump or a live kernel, or one that :func:`set_coverage` was
        called for.
    :raises DumpFileError: if none of these.
    """
    coverage = prog.cache.get(_COVERAGE_KEY)
    if coverage is None:
        coverage = dump_of(prog).coverage
        prog.cache[_COVERAGE_KEY] = coverage
    return coverage


def set_coverage(prog: drgn.Program, coverage: Coverage) -> None:
    """Set the coverage of a program whose memory comes from elsewhere: a test, a custom opener."""
    prog.cache[_COVERAGE_KEY] = coverage
