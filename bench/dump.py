# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The dump to measure on: what ``make bench-dump`` left, or the packed one of vmcores/, which is a tar
archive because that keeps holes: 65 GiB of them around 1.6 GiB of data.
"""

import lzma
import os
from pathlib import Path
import re
import shutil
import sys
import tarfile

from drgn_pmem.dumpfile import open_dump
from drgn_pmem.shell.sample import load_index

__all__ = ("ROOT", "find_dump", "find_vmlinux")

ROOT = Path(__file__).resolve().parent.parent
MADE = ROOT / "build" / "bench-dump"
PACKED = ROOT / "vmcores" / "bench-64g" / "vmcore.tar.xz"
_SPACE = 4 << 30
"""Bytes that the unpacked dump takes, and some more."""


def find_dump() -> Path:
    """
    The large dump, unpacked if need be.

    :raises SystemExit: if there is none, or no room for it
    """
    path = MADE / "vmcore"
    if path.exists():
        return path
    if not PACKED.exists():
        raise SystemExit("no dump to measure on: make bench-dump makes it (five minutes)")
    MADE.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(MADE).free < _SPACE:
        raise SystemExit(f"{MADE}: unpacking the dump takes {_SPACE >> 30} GiB of disk space")
    print(f"unpacking {PACKED.relative_to(ROOT)}", file=sys.stderr)
    partial = MADE / "vmcore.part"
    with lzma.open(PACKED) as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
        for member in archive:
            if member.name == "vmcore" and member.isfile():
                member.name = partial.name
                archive.extract(member, MADE, filter="data")
    # Only whole ones have the name: an interrupted unpack is done again.
    os.replace(partial, path)
    return path


def find_vmlinux(dump: Path) -> Path | None:
    """vmlinux beside a dump, or that of a sample with the same kernel."""
    beside = dump.with_name("vmlinux")
    if beside.exists():
        return beside
    build_id = re.search(rb"^BUILD-ID=(\w+)$", open_dump(dump).vmcoreinfo or b"", re.MULTILINE)
    for sample in load_index()[0].values():
        for path in sample.debug_info() if build_id else ():
            if bytes.fromhex(build_id[1].decode()) in path.read_bytes():
                return path
    return None
