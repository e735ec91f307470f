# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that were never dumped: memory and vmcoreinfo as a test wants them; and dumps with a few
bytes changed."""

from collections.abc import Mapping

from drgn import Architecture, Platform, Program

from drgn_pmem.dumpfile import Coverage, State, set_coverage

__all__ = ("kernel", "poke", "poke_physical", "words")


def words(*values: int) -> bytes:
    """Little-endian 64-bit words."""
    return b"".join(value.to_bytes(8, "little") for value in values)


def kernel(vmcoreinfo: str, memory: Mapping[int, bytes]) -> Program:
    """
    A Linux kernel without debug info.

    :param vmcoreinfo: Lines of its vmcoreinfo, beyond those that drgn itself needs.
    :param memory: Virtual address -> bytes.
    """
    prog = Program(Platform(Architecture.X86_64))
    base = (
        "OSRELEASE=6.1.0\nPAGESIZE=4096\nKERNELOFFSET=0\nSYMBOL(swapper_pg_dir)=ffffffff81000000\n"
    )
    text = base + vmcoreinfo
    prog.set_linux_kernel_custom(text.encode(), is_live=False)
    for address, data in memory.items():
        poke(prog, address, data)
    set_coverage(prog, Coverage.everywhere(State.SAVED))
    return prog


def poke(prog: Program, address: int, data: bytes) -> None:
    """Change what a program reads at a virtual address."""

    def read(_: int, count: int, offset: int, physical: bool) -> bytes:
        return data[offset : offset + count]

    prog.add_memory_segment(address, len(data), read, False)


def poke_physical(prog: Program, address: int, data: bytes) -> None:
    """Change what a program reads at a physical address, the direct map of it not included."""

    def read(_: int, count: int, offset: int, physical: bool) -> bytes:
        return data[offset : offset + count]

    prog.add_memory_segment(address, len(data), read, True)
