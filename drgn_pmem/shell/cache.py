# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The cache of unpacked files
---------------------------

Its folders are the user's own, never symbolic links, not writable by others. Next to each file
is a record of its inode, size and time: a file that was changed or replaced no longer counts.
"""

import json
import os
from pathlib import Path
import stat

from drgn_pmem.errors import DumpFileError
from drgn_pmem.output.files import write_file
from drgn_pmem.output.text import escape

__all__ = ("is_complete", "own_folder", "record_complete")

_MAX_RECORD = 4096


def own_folder(top: Path, *names: str) -> None:
    """
    Make a folder of the cache and those above it, for the user alone.

    :param top: The cache's own folder; its parent may belong to anyone.
    :raises DumpFileError: if one of them is a link or someone else's
    :raises OSError: if one cannot be made
    """
    top.parent.mkdir(parents=True, exist_ok=True)
    folder = top
    for name in ("", *names):
        folder = folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise DumpFileError(
                f"{escape(str(folder))} is not your own folder (a link, or another user's): remove "
                "it, or set XDG_CACHE_HOME"
            )
        if found.st_mode & 0o077:
            folder.chmod(0o700)


def _record(path: Path) -> Path:
    return path.parent / f".{path.name}.json"


def _facts(path: Path) -> dict[str, int] | None:
    """None if it is no plain file of the user's."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        return None
    return {"inode": found.st_ino, "mtime": found.st_mtime_ns, "size": found.st_size}


def record_complete(path: Path) -> None:
    """Note that a file is complete as it is now."""
    write_file(_record(path), json.dumps(_facts(path)), mode=0o600)


def is_complete(path: Path, size: int) -> bool:
    """
    Whether a file is the one that was unpacked. One without a record (of an older version of this
    package) gets one, if its size is right.

    :raises DumpFileError: if it is a link, no plain file, or another user's
    """
    if path.is_symlink() or (path.exists() and _facts(path) is None):
        raise DumpFileError(f"{escape(str(path))} is not a plain file of yours: remove it")
    try:
        facts = _facts(path)
        if facts is None or facts["size"] != size:
            return False
        record = _record(path)
        if not os.path.lexists(record):
            record_complete(path)
            return True
        number = os.open(record, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(number, "rb") as file:
            return bool(json.loads(file.read(_MAX_RECORD)) == facts)
    except (OSError, ValueError):
        # not a problem: it is unpacked again
        return False
