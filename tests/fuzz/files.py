# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Commands on whole files that were cut or changed: at each boundary of a structure, and at random
places.
"""

from collections.abc import Iterator, Sequence
import gc
import os
from pathlib import Path
import random
import shutil

from drgn_pmem.dumpfile.program import open_program
from drgn_pmem.errors import PmemError

from ..taken.trial import import_all
from .limits import ask, watched
from .places import boundaries

__all__ = ("ALL_LINES", "LINES", "Damaged")

LINES = ("pmem-segments", "pmem-usage --json", "pmem-coverage", "pmem-namespaces")
"""What is asked of every file; no debug info is loaded."""
ALL_LINES = (*LINES, "pmem-infoblocks")
"""The same, and the command that searches all memory: asked of every eighth file."""

_VALUES = (0, 1, -1, 1 << 63, 1 << 62, 1 << 31, 0x7FFFFFFFFFFFFFFF, 4096)


class Damaged:
    """
    A copy of a dump that is cut, or changed in place and put right again.

    :param path: The dump.
    :param folder: Where the copy is.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.original = path
        self.size = path.stat().st_size
        folder.mkdir(parents=True, exist_ok=True)
        self.copy = folder / f"{path.name}.{os.getpid()}"
        self.places = boundaries(str(path), self.size)
        shutil.copyfile(path, self.copy)
        self._asked = 0
        import_all()  # once, not in each fork
        gc.freeze()

    def close(self) -> None:
        self.copy.unlink(missing_ok=True)

    def cuts(self, chance: random.Random, count: int) -> Iterator[int]:
        """Sizes to cut the file to: each boundary, the bytes around it, and random ones."""
        sizes = {at + by for at in self.places for by in (-1, 0, 1)}
        sizes |= {chance.randrange(self.size) for _ in range(count)}
        chosen = [size for size in sizes if 0 <= size < self.size]
        chance.shuffle(chosen)
        yield from chosen

    def changes(self, chance: random.Random, count: int) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes): near boundaries, where headers are, and at random places."""
        for number in range(count):
            at = chance.choice(self.places) + chance.choice((0, 0, 0, -8, -4, 4, 8))
            if number % 4 == 3:
                at = chance.randrange(self.size)
            width = chance.choice((1, 2, 4, 8))
            value = chance.choice((*_VALUES, chance.getrandbits(64)))
            data = (value & (1 << 8 * width) - 1).to_bytes(width, chance.choice(("little", "big")))
            yield min(max(at, 0), self.size - width), data

    def cut(self, size: int, lines: Sequence[str] | None = None) -> str:
        """
        What is wrong with the answers about the first bytes of the file.

        :param lines: Commands to ask; some by default.
        """
        # A hard copy of the beginning would cost as much as the file: cut it, then add the rest.
        os.truncate(self.copy, size)
        try:
            return self._ask(lines)
        finally:
            with open(self.original, "rb") as whole, open(self.copy, "r+b") as copy:
                whole.seek(size)
                copy.seek(size)
                shutil.copyfileobj(whole, copy, 1 << 20)

    def changed(self, at: int, data: bytes, lines: Sequence[str] | None = None) -> str:
        """What is wrong with the answers about the file with other bytes in one place."""
        with open(self.copy, "r+b", buffering=0) as file:
            old = os.pread(file.fileno(), len(data), at)
            os.pwrite(file.fileno(), data, at)
            try:
                return self._ask(lines)
            finally:
                os.pwrite(file.fileno(), old, at)

    def _ask(self, lines: Sequence[str] | None) -> str:
        self._asked += 1
        asked = lines or (ALL_LINES if self._asked % 8 == 0 else LINES)

        def question() -> str:
            try:
                prog = open_program(self.copy)[0]
            except PmemError as error:
                return f"an error of several lines: {error}" if "\n" in str(error) else ""
            return "\n".join(filter(None, (ask(prog, line) for line in asked)))

        return watched(question)
