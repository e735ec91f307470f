# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is measured: a dump, and the largest namespace whose struct pages are in it."""

from dataclasses import dataclass
from pathlib import Path

from drgn import Program

import drgn_pmem
from drgn_pmem.analysis.pages.blocks import Block, for_each_block
from drgn_pmem.kernel.page import page_layout
from drgn_pmem.kernel.pgmap import for_each_pgmap

__all__ = ("Subject", "open_subject")


@dataclass
class Subject:
    """A dump and a range of PFNs in it."""

    path: Path
    vmlinux: Path | None
    prog: Program
    start_pfn: int
    end_pfn: int
    blocks: list[Block]
    """Where the struct pages are in physical memory."""
    crash_vmlinux: Path | None = None

    @property
    def pages(self) -> int:
        return sum(block.count for block in self.blocks)

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """(physical address, bytes) of the struct pages, in pieces of a few MiB."""
        return [piece for block in self.blocks for piece in block.pieces]


def open_subject(path: Path, vmlinux: Path | None) -> Subject:
    """
    Open a dump and find the namespace with the most struct pages in it.

    :raises SystemExit: if it has none
    """
    prog = drgn_pmem.open(path, [str(vmlinux)] if vmlinux else [])
    layout = page_layout(prog)
    best: list[Block] = []
    for pgmap in for_each_pgmap(prog):
        parts = for_each_block(prog, layout, pgmap.first_pfn, pgmap.end_pfn)
        blocks = [part for part in parts if isinstance(part, Block)]
        if sum(b.count for b in blocks) > sum(b.count for b in best):
            best = blocks
    if not best:
        raise SystemExit(f"{path}: the struct pages of persistent memory are not in this dump")
    end = best[-1].pfn + best[-1].count
    return Subject(path, vmlinux, prog, best[0].pfn, end, best)
