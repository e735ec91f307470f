# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Checks of index.json
--------------------

An index may come from anyone (DRGN_PMEM_SAMPLES). Its names become names of files in the cache, so
each is checked to be a valid name; its paths stay below the folder that it is in.
"""

import json
from pathlib import Path, PurePosixPath
import re
from typing import Any, NoReturn

__all__ = ("DIGEST", "NAME", "check", "path_below", "read_index")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
"""Of a sample or a format: no separator of paths, no leading dot."""

DIGEST = re.compile(r"[0-9a-f]{64}")
"""SHA-256, in hexadecimal."""

_MAX_INDEX = 4 << 20
_MAX_PATH = 1024


def check(holds: object, what: str) -> None:
    """
    :raises ValueError: naming what is wrong, if it does not hold
    """
    if not holds:
        raise ValueError(f"implausible: {what}")


def read_index(path: Path) -> Any:
    """
    The JSON of an index, without the numbers that only Python's JSON has.

    :raises OSError: if the file cannot be read
    :raises ValueError: if it is no JSON, or too large
    """
    with open(path, "rb") as file:
        data = file.read(_MAX_INDEX + 1)
    check(len(data) <= _MAX_INDEX, f"it is larger than {_MAX_INDEX} bytes")
    return json.loads(data.decode("utf-8"), parse_constant=_no_number)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def path_below(directory: Path, name: object) -> Path:
    """
    A path in the folder of the index.

    :raises ValueError: if it is none, or leads out of the folder
    """
    if not isinstance(name, str):
        raise ValueError(f"a path is a string, not {type(name).__name__}")
    parts = PurePosixPath(name).parts
    check(
        parts and len(name) <= _MAX_PATH and name[0] != "/" and ".." not in parts,
        f"{name[:40]!r} is not a path in the folder of the index",
    )
    check(name.isprintable(), f"path {name[:40]!r}")
    return directory / name
