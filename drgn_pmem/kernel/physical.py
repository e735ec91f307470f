# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Physical addresses
------------------

Physical address of a kernel virtual address, and bytes of physical memory that the dump holds.
"""

from drgn import FaultError, Program

from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.errors import NotFound
from drgn_pmem.kernel.pagetable import translate
from drgn_pmem.partial import NotSaved

__all__ = ("physical_of", "read_physical")


def physical_of(prog: Program, virtual: int, what: str) -> int:
    """
    Physical address of a kernel virtual address, by the kernel's page tables.

    :param what: What is there, for the message.
    :raises NotSaved: if nothing is mapped there or that cannot be determined; the message says
        which
    """
    try:
        return translate(prog, virtual)
    except NotSaved as error:
        raise NotSaved(f"{what}: {error}", address=virtual, state=error.state) from None


def read_physical(prog: Program, physical: int, size: int) -> bytes:
    """
    Bytes of physical memory, only if the dump holds all of them.

    :raises NotSaved: with the state of the first byte that the dump does not hold
    :raises NotFound: if there can be no such memory
    """
    if size <= 0 or physical < 0 or physical + size > 1 << 64:
        raise NotFound(f"physical {physical:#x}, {size} bytes: no such memory")
    for part in coverage_of(prog).ranges(physical, physical + size):
        if part.state is not State.SAVED:
            raise NotSaved(
                f"physical {part.start:#x} is {part.state.value} in this dump",
                address=part.start,
                state=part.state,
            )
    try:
        return prog.read(physical, size, physical=True)
    except (FaultError, ValueError, OverflowError) as error:
        raise NotSaved(f"physical {physical:#x}: {error}", address=physical) from None
