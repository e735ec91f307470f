# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What several commands show in the same way. No command of its own."""

from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ("NAMESPACE_MODULES", "OWNER_MODULES", "flags_text", "words_of")


NAMESPACE_MODULES = {
    "libnvdimm": "names, uuids, sizes and regions of namespaces",
    "dax": "character devices",
}
"""Modules whose debug info an answer about namespaces needs, and what it lacks without."""

OWNER_MODULES = {
    "libnvdimm": "namespaces beyond their name, sectors",
    "nd_pmem": "block devices, sectors",
    "dm_mod": "sectors of device-mapper disks",
    "dax": "pages of character devices",
}
"""The same for an answer about the owners of pages."""


def flags_text(record: Any) -> "list[str] | str | None":
    """Flags of a page by name, as a number where the names are not known."""
    if record.flags is None:
        return None
    if record.flag_names:
        return [name.removeprefix("PG_") for name in record.flag_names]
    return f"{record.flags:#x}"


def words_of(words: Iterable[str]) -> Iterator[str]:
    """What a user gave on the command line; ``-`` stands for the words of standard input."""
    import sys

    for word in words:
        if word == "-":
            for line in sys.stdin:
                yield from line.split()
        else:
            yield word
