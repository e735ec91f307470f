# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fields and arguments shared by several commands. Not a command."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from drgn_pmem.output.table import Field

__all__ = (
    "MOUNT_MODULES",
    "NAMESPACE_MODULES",
    "OWNER_MODULES",
    "WAIT_MODULES",
    "flags_text",
    "media_fields",
    "nothing",
    "reasons",
    "words_of",
)


NAMESPACE_MODULES = {
    "libnvdimm": "names, uuids, sizes and regions of namespaces",
    "dax": "character devices",
}
"""Modules whose debug info an answer about namespaces needs, and what it lacks without."""

MOUNT_MODULES = {"dm_mod": "mounts of file systems on device-mapper disks"}
"""The same for an answer that has the mounts of namespaces."""

OWNER_MODULES = {
    "libnvdimm": "details of namespaces, sectors",
    "nd_pmem": "block devices, sectors",
    "dm_mod": "sectors of device-mapper disks",
    "dax": "pages of character devices",
    "xfs": "whether an XFS shares extents between files",
}
"""The same for an answer about the owners of pages."""

WAIT_MODULES = {
    "xfs": "who waits in XFS's layout breaks, shared extents",
    "ext4": "who waits in ext4's layout breaks",
}
"""The same for an answer about tasks that wait for pages."""


def flags_text(record: Any) -> "list[str] | str | None":
    """Flags of a page by name, as a number where the names are not known. The bits above the flags
    (zone, node) are none of them."""
    if record.flags is None:
        return None
    if record.flag_names is None:
        return f"{record.flags:#x}"
    return [name.removeprefix("PG_") for name in record.flag_names] or "none"


def words_of(words: Iterable[str]) -> Iterator[str]:
    """Arguments of the command line; ``-`` is replaced by the words of standard input."""
    import sys

    for word in words:
        if word == "-":
            for line in sys.stdin:
                yield from line.split()
        else:
            yield word


def reasons(namespaces: Iterable[Any], media: Mapping[str, Any]) -> list[str]:
    """
    Why namespaces with capacity are raw or disabled, one note each.

    :param media: :class:`~drgn_pmem.analysis.inventory.media.Media` by name of the namespace.
    """
    return [
        f"{namespace.dev}: {media[namespace.dev].why}"
        for namespace in namespaces
        if namespace.raw_size and namespace.dev in media and media[namespace.dev].why
    ]


def nothing(record: Any) -> None:
    """Value of a column whose record does not have it: :func:`media_fields` fills it."""


def media_fields(fields: Sequence[Field], media_of: Callable[[Any], Any]) -> list[Field]:
    """
    Fields with those that :class:`~drgn_pmem.analysis.inventory.media.Media` has filled in.

    :param media_of: The Media of a record, None if it is not known.
    """

    def holds(media: Any) -> str | None:
        if media.content is None:
            return "not saved" if media.has_disk else None
        label = f" ({media.content.label})" if media.content.label else ""
        # What was read and is of no kind that is known; not what could not be read.
        return "other data" if media.content.kind == "unknown" else f"{media.content.kind}{label}"

    def mounted(media: Any) -> Any:
        if media.mounts is None:
            return "not known"
        return [f"{mount.path} ({mount.type})" for mount in media.mounts]

    values = {"WHY": lambda media: media.why, "HOLDS": holds, "MOUNTED": mounted}

    def filled(value: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def of(record: Any) -> Any:
            media = media_of(record)
            return "not known" if media is None else value(media)

        return of

    return [
        replace(field, value=filled(values[field.name])) if field.name in values else field
        for field in fields
    ]
