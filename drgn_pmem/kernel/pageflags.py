# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Page flags
----------

Names of the bits of ``page->flags``, and the zone and node in its top bits. Sources:
include/linux/page-flags.h, include/linux/page-flags-layout.h.
"""

from typing import Any

from drgn import Object, Program

from drgn_pmem.kernel.debuginfo import find_type, has_variable
from drgn_pmem.kernel.memory import cached

__all__ = ("flag_names", "zone_of")

_ANONYMOUS = ("PG_swapcache", "PG_anon_exclusive")
"""Second names that bits have in anonymous memory."""


def flag_names(prog: Program, flags: int, *, anonymous: bool = False) -> tuple[str, ...]:
    """
    Names of the page flags in a mask: one for each bit, as the kernel prints them (``%pGp``). The
    second names that ``enum pageflags`` has for some bits mean something in pages of one kind only.

    :param anonymous: The page is one of anonymous memory, in which two bits have another meaning.
    :raises MissingDebugInfo: without debug info of the kernel
    """
    names: tuple[tuple[int, str], ...] = cached(
        prog, f"flag_names {anonymous}", lambda: _names_of_bits(prog, anonymous)
    )
    return tuple(name for bit, name in names if flags >> bit & 1)


def _names_of_bits(prog: Program, anonymous: bool) -> tuple[tuple[int, str], ...]:
    enumerators = find_type(prog, "enum pageflags", "vmlinux").enumerators or ()
    names: dict[int, str] = {}
    for item in enumerators:
        # The second names come after __NR_PAGEFLAGS.
        if item.name.startswith("PG_") and (
            item.value not in names or (anonymous and item.name in _ANONYMOUS)
        ):
            names[item.value] = item.name
    return tuple(sorted(names.items()))


def zone_of(prog: Program, flags: int) -> dict[str, Any]:
    """
    ``zone`` (name in ``enum zone_type``) and ``nid`` (number of the node) of a page.

    :raises MissingDebugInfo: without debug info of the kernel
    """
    kinds = find_type(prog, "enum zone_type", "vmlinux")
    # Without CONFIG_NUMA there is one node, and no array of them.
    numa = has_variable(prog, "node_data")
    nodes = _log2_of_array(prog["node_data"]) if numa else 0
    zones = {e.value: e.name for e in kinds.enumerators or ()}
    count = next((value for value, name in zones.items() if name == "__MAX_NR_ZONES"), 0)
    bits = max(count - 1, 0).bit_length()
    zone = (flags >> (64 - nodes - bits)) & ((1 << bits) - 1)
    return {"zone": zones.get(zone), "nid": flags >> (64 - nodes)}


def _log2_of_array(array: Object) -> int:
    try:
        return (len(array) - 1).bit_length()
    except TypeError:
        # not a problem: an array without a length has one node
        return 0
