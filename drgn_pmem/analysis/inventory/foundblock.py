# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Records of info blocks
----------------------

What :mod:`drgn_pmem.analysis.inventory.infoblocks` finds.
"""

from typing import Any

from drgn_pmem.analysis.inventory.blockcheck import data_of
from drgn_pmem.analysis.inventory.labels import FoundLabels
from drgn_pmem.dumpfile import State
from drgn_pmem.formats.btt import BttArena, BttChain
from drgn_pmem.formats.infoblock import InfoBlock
from drgn_pmem.formats.refusal import Refusal
from drgn_pmem.record import Record, Show, shown

__all__ = ("FoundBlock", "FoundBlocks", "InfoBlocksAnswer")


class FoundBlock(Record):
    """One info block, or the place of one that the dump does not hold."""

    start: int = shown(Show.ADDRESS)
    """Physical address at which its namespace begins."""
    address: int = shown(Show.ADDRESS)
    """Physical address of the block."""
    block: InfoBlock | BttArena | None
    """None if its bytes are not in the dump, or are no info block. Its checksum may be wrong: see
    :attr:`refused`."""
    state: State
    namespace: str | None
    """Namespace that begins there by the kernel or iomem."""
    page_size: int | None
    """bytes, of the crashed kernel; None if the dump does not say."""
    chain: BttChain | None = None
    """All arenas of a BTT."""
    parent_known: bool = shown(json=False, default=False)
    """Whether the namespace is known well enough to check the block against it."""
    refused: tuple[Refusal, ...] = ()
    """Checks of the kernel that it fails, in the kernel's order."""
    notes: tuple[str, ...] = ()

    @property
    def valid(self) -> bool | None:
        """Whether the kernel accepts it; None where there is no block, and where the uuid of the
        namespace is not known, which it must name."""
        if self.refused:
            return False
        return True if self.block is not None and self.parent_known else None

    def is_called(self, name: str) -> bool:
        """Whether it is the block of a namespace of that device name or uuid."""
        return name == self.namespace or (
            self.block is not None and name.lower() == self.block.uuid
        )

    @property
    def kind(self) -> str | None:
        """The mode that it claims: ``"fsdax"``, ``"devdax"``, ``"btt"``; ``"none"`` where there is
        no block, None where its bytes were not saved."""
        if self.block is None:
            return "none" if self.state is State.SAVED else None
        if isinstance(self.block, BttArena):
            return "btt"
        return "fsdax" if self.block.signature == "NVDIMM_PFN_INFO" else "devdax"

    @property
    def data(self) -> tuple[int, int] | None:
        """Physical range of the user data, end exclusive; None for a BTT (its arenas say where),
        for a block that the kernel refuses, and for a block before version 1.4, which does not name
        its page size, of a kernel whose page size is not known."""
        if not isinstance(self.block, InfoBlock) or self.refused:
            return None
        return data_of(self.block, self.start, self.page_size)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "namespace": self.namespace,
            "start": f"{self.start:#x}",
            "address": f"{self.address:#x}",
            "state": self.state.value,
            "infoblock": self.block.to_json() if self.block else None,
            "valid": self.valid,
            "refused": [refusal.to_json() for refusal in self.refused],
            "btt": self.chain.to_json() if self.chain else None,
            "notes": list(self.notes),
        }


class FoundBlocks(Record):
    """Info blocks, and where they were looked for."""

    blocks: list[FoundBlock]
    """By address."""
    searched: str
    """Where, in words."""


class InfoBlocksAnswer(FoundBlocks):
    """The same, with the labels."""

    labels: list[FoundLabels]
