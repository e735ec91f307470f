# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Debug info by build ID
----------------------

Looks through folders for ELF files once, for all dumps, and links each by its build ID where drgn
looks for it (``.build-id/xx/yyyy.debug``, as in /usr/lib/debug): the reader of a dump opens
exactly the files that its kernel and modules need, whatever they are called.
"""

from collections.abc import Sequence
import contextlib
import hashlib
import os
from pathlib import Path
import re
import stat

from drgn_pmem.errors import DumpFileError
from drgn_pmem.formats.build_id import build_id_of_file
from drgn_pmem.output.progress import progress

__all__ = ("find_debug_info", "link_debug_info")

_ET_CORE = b"\x04\x00", b"\x00\x04"
_BUILD_ID = re.compile(r"[0-9a-f]{6,128}")


def find_debug_info(folders: Sequence[str]) -> dict[str, str]:
    """
    :param folders: Absolute paths; symbolic links to folders are not followed.
    :return: Path of the file of each build ID. Of several the largest: that with debug info.
    :raises DumpFileError: if one of the folders is none
    """
    found: dict[str, tuple[int, str]] = {}
    with progress("debug info") as report:
        seen = 0
        for folder in folders:
            if not os.path.isdir(folder):
                raise DumpFileError(f"--debug-directory {folder}: no such folder")
            for parent, _, files in os.walk(folder):
                for name in files:
                    path = os.path.join(parent, name)
                    seen += 1
                    report(seen, 0)
                    size, build_id = _build_id(path)
                    if build_id and size > found.get(build_id, (0, ""))[0]:
                        found[build_id] = size, path
    return {build_id: path for build_id, (_, path) in found.items()}


def _build_id(path: str) -> tuple[int, str | None]:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return 0, None
        with open(path, "rb") as file:
            start = file.read(20)
        if start[:4] != b"\x7fELF" or start[16:18] in _ET_CORE:
            return 0, None
        build_id, _ = build_id_of_file(path)
    except (OSError, DumpFileError):
        return 0, None  # not a file with debug info that could be opened
    if build_id is None or not _BUILD_ID.fullmatch(build_id):
        return 0, None
    return status.st_size, build_id


def link_debug_info(files: dict[str, str], folder: Path) -> str:
    """
    Make links to files below a folder, in place of those that were there.

    :param files: What :func:`find_debug_info` found.
    :param folder: Becomes a debug directory.
    :return: A digest of which build IDs there are.
    """
    wanted = {f"{build_id[:2]}/{build_id[2:]}.debug": path for build_id, path in files.items()}
    links = folder / ".build-id"
    for link in links.glob("*/*.debug"):
        if wanted.get(f"{link.parent.name}/{link.name}") != os.readlink(link):
            link.unlink()
    for name, path in wanted.items():
        (links / name).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.symlink(path, links / name)
    folder.mkdir(parents=True, exist_ok=True)
    return hashlib.sha256("\n".join(sorted(files)).encode()).hexdigest()
