# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Favourites: lines saved under a name, with parameters."""

import json
from pathlib import Path
import re
import shlex

from drgn_pmem.errors import FormatError, NotFound, UsageError
from drgn_pmem.output.files import write_file

__all__ = ("Favourites",)

_NAME = re.compile(r"[\w.-]{1,64}")
_PARAMETER = re.compile(r"\$([1-9]|\*)")


class Favourites:
    """:param path: File that keeps them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> dict[str, str]:
        """
        Lines by name.

        :raises FormatError: if the file is not what this class writes
        """
        try:
            value = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise FormatError(f"favourites cannot be read from {self._path}: {error}") from error
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise FormatError(f"{self._path} does not contain favourites (name: line)")
        return dict(sorted(value.items()))

    def save(self, name: str, line: str) -> None:
        """
        Keep a line.

        :raises UsageError: if the name cannot be one, or the line is empty
        """
        if not _NAME.fullmatch(name) or not line:
            raise UsageError("\\fs takes a NAME (letters, digits, -, _ and .) and a line")
        self._write({**self.all(), name: line})

    def delete(self, name: str) -> None:
        """:raises NotFound: if there is none of this name"""
        favourites = self.all()
        if name not in favourites:
            raise self._unknown(name, favourites)
        del favourites[name]
        self._write(favourites)

    def expand(self, name: str, arguments: str) -> str:
        """
        The line of a favourite with ``$1`` ... ``$9`` and ``$*`` replaced.

        :raises NotFound: if there is none of this name
        :raises UsageError: if a parameter is missing or too many are given
        """
        favourites = self.all()
        if name not in favourites:
            raise self._unknown(name, favourites)
        line = favourites[name]
        try:
            words = shlex.split(arguments)
        except ValueError as error:
            raise UsageError(f"\\f {name}: {error}") from error
        used = _PARAMETER.findall(line)
        wanted = max((int(p) for p in used if p != "*"), default=0)
        if len(words) < wanted or (len(words) > wanted and "*" not in used):
            raise UsageError(f"\\f {name} takes {wanted} words, not {len(words)}: {line}")
        return _PARAMETER.sub(
            lambda match: (
                shlex.join(words) if match[1] == "*" else shlex.quote(words[int(match[1]) - 1])
            ),
            line,
        )

    def _unknown(self, name: str, favourites: dict[str, str]) -> NotFound:
        known = (
            f"; there are {', '.join(favourites)}" if favourites else "; \\fs NAME LINE saves one"
        )
        return NotFound(f"no favourite {name!r}{known}")

    def _write(self, favourites: dict[str, str]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Two shells may save at the same time: a reader never sees half a file.
        write_file(self._path, json.dumps(favourites, indent=2) + "\n", mode=0o600)
