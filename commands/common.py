# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What several commands show in the same way. No command of its own."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drgn_pmem.dumpfile import State

__all__ = ("NAMESPACE_MODULES", "OWNER_MODULES", "bar_of")


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


def bar_of(parts: "Iterable[tuple[str, int, State | None]]", width: int) -> str | None:
    """
    A namespace as one line.

    :param parts: (kind of stretch, bytes, state) from front to end.
    :param width: Characters.
    """
    from drgn_pmem.analysis.inventory.parts import INFOBLOCK, METADATA, USERDATA
    from drgn_pmem.output import bars

    kinds = {INFOBLOCK: bars.INFOBLOCK, METADATA: bars.MEMMAP, USERDATA: bars.DATA}
    drawn = [bars.Part(kinds.get(kind, bars.FREE), size, state) for kind, size, state in parts]
    return bars.bar(drawn, width, bars.use_ascii()) or None
