# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Architectures
-------------

All processor architectures, with the names and numbers that ELF, ``uname -m``, drgn and our answers
use for them.
"""

from drgn_pmem.record import Record

__all__ = ("AARCH64", "ARCHITECTURES", "PPC64", "X86_64", "Architecture", "find_architecture")


class Architecture(Record):
    """A processor architecture, of either byte order."""

    name: str
    """As answers have it: ``"x86_64"``."""
    e_machine: int
    drgn: str | None
    """Name of the :class:`drgn.Architecture`; None if drgn does not have it."""
    others: tuple[str, ...] = ()
    """Other names: of ``uname -m``, and of ``e_machine`` (``"EM_X86_64"``)."""
    prstatus_size: int | None = None
    """``sizeof(struct elf_prstatus)``, bytes, if no other architecture has the same
    (arch/*/include/asm/elf.h)."""


X86_64 = Architecture(name="x86_64", e_machine=62, drgn="X86_64", others=("EM_X86_64",))
PPC64 = Architecture(
    name="ppc64", e_machine=21, drgn="PPC64", others=("ppc64le", "EM_PPC64"), prstatus_size=504
)
AARCH64 = Architecture(
    name="aarch64", e_machine=183, drgn="AARCH64", others=("EM_AARCH64",), prstatus_size=392
)

ARCHITECTURES = (
    X86_64,
    PPC64,
    AARCH64,
    Architecture(name="s390x", e_machine=22, drgn="S390X", others=("EM_S390",)),
    Architecture(
        name="riscv64", e_machine=243, drgn="RISCV64", others=("EM_RISCV",), prstatus_size=376
    ),
    Architecture(name="loongarch64", e_machine=258, drgn=None, others=("EM_LOONGARCH",)),
    Architecture(name="i386", e_machine=3, drgn="I386", others=("i686", "EM_386")),
    Architecture(name="arm", e_machine=40, drgn="ARM", others=("armv7l", "EM_ARM")),
)


def find_architecture(name: str | int | None) -> Architecture | None:
    """
    An architecture by any of its names, or by its ``e_machine``; None if it is not in the table.
    """
    if name is None:
        return None
    for item in ARCHITECTURES:
        if name in (item.name, item.e_machine, item.drgn, *item.others):
            return item
    return None
