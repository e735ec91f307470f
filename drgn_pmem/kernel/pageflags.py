# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Page flags
----------

Names of the bits of ``page->flags``. Source: include/linux/page-flags.h.
"""

from drgn import Program

from drgn_pmem.kernel.debuginfo import find_type
from drgn_pmem.kernel.memory import cached

__all__ = ("flag_names",)

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
