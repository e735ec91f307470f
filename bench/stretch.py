# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
``python -m bench.stretch SIZE [FOLDER]``: a dump of a machine with more persistent memory than any
guest of ours can have, made of a real one's: ``make bench-dump SIZE=6T``. Leaves
FOLDER/vmcore.SIZE.

It is made of FOLDER/vmcore.lzo, the large guest's (4-level page tables, one namespace whose struct
pages are mapped by 2 MiB). Its structures stay as they are; of the namespace's page map, its
resources and its region the size is changed wherever the kernel's memory has it. The struct pages
of what was added are those of the real namespace's data over and over, compressed as they are, in
memory of their own, mapped by page tables of their own. A quarter of SIZE is RAM, of which a
filtered dump holds pieces of some pages each: real RAM pages again. Data of the pmem that was added
is not saved, as makedumpfile leaves out user data. Info blocks and labels keep the old size.
"""

from dataclasses import dataclass
import os
from pathlib import Path
import struct
import sys
from typing import BinaryIO

from drgn import Program
import numpy as np
import numpy.typing as npt

from bench.dump import find_dump
from bench.formats import make_formats
import drgn_pmem
from drgn_pmem.dumpfile import DumpFile, dump_of
from drgn_pmem.dumpfile.compressed import CompressedPages
from drgn_pmem.dumpfile.vmcoreinfo import vmcoreinfo_of
from drgn_pmem.kernel.page_layout import page_layout
from drgn_pmem.kernel.pagetable import translate
from drgn_pmem.kernel.pgmap import Pgmap, for_each_pgmap

PAGE = 4096
HUGE = 2 << 20
GIB, TIB = 1 << 30, 1 << 40
DESCRIPTOR = np.dtype([("offset", "<u8"), ("size", "<u4"), ("flags", "<u4"), ("page_flags", "<u8")])
_PRESENT_HUGE = 0x80000000000001E3  # present, writable, accessed, dirty, huge, global, no execute
_TABLE = 0x63  # present, writable, accessed, dirty
_RUN, _GAP = 8, 400
"""Mean pages of a piece of RAM that is dumped, and between two."""
_BATCH = 1 << 20

Table = npt.NDArray[np.void]


def parse_size(text: str) -> int:
    """``"6T"``, ``"512G"``"""
    return int(text[:-1]) << {"G": 30, "T": 40}[text[-1]]


@dataclass
class _Plan:
    """Where everything is in the stretched machine."""

    pgmap: Pgmap
    size: int
    """of the persistent memory (bytes)"""
    ram: int
    """Physical address of the RAM that is added."""
    ram_size: int
    memmap: int
    """Physical address of the struct pages that are added."""
    memmap_size: int

    @property
    def start(self) -> int:
        return self.pgmap.ranges[0].start

    @property
    def old(self) -> int:
        return self.pgmap.ranges[0].size


class _Pages:
    """Pages of the source, some of them changed."""

    def __init__(self, prog: Program) -> None:
        self.prog = prog
        self.changed: dict[int, bytearray] = {}

    def page(self, address: int) -> bytearray:
        if address not in self.changed:
            self.changed[address] = bytearray(self.prog.read(address, PAGE, True))
        return self.changed[address]

    def word(self, address: int) -> int:
        base = address - address % PAGE
        return int.from_bytes(self.page(base)[address - base :][:8], "little")

    def put(self, address: int, value: int) -> None:
        base = address - address % PAGE
        struct.pack_into("<Q", self.page(base), address - base, value)


def _plan(prog: Program, size: int) -> _Plan:
    pgmap = max(for_each_pgmap(prog).whole(), key=lambda item: item.ranges[0].size)
    ram = -(-(pgmap.ranges[0].start + size + GIB) // TIB) * TIB
    added = (size - pgmap.ranges[0].size) // PAGE * page_layout(prog).size
    return _Plan(pgmap, size, ram, max(size // 4, added + 2 * GIB), ram + GIB, added)


def _map(pages: _Pages, plan: _Plan) -> None:
    """Page tables of the struct pages that are added; new tables are at the start of the RAM."""
    prog = pages.prog
    layout = page_layout(prog)
    first = layout.address((plan.start + plan.old) // PAGE)
    assert first % HUGE == 0
    assert plan.memmap_size % HUGE == 0
    # init_top_pgt is in the kernel's image, which is mapped as vmcoreinfo says.
    symbol = vmcoreinfo_of(prog).symbols["swapper_pg_dir"]
    top = symbol - 0xFFFFFFFF80000000 + vmcoreinfo_of(prog).numbers["phys_base"]
    mask = 0x000FFFFFFFFFF000
    upper = pages.word(top + 8 * (first >> 39 & 511)) & mask
    free = plan.ram
    for virtual in range(first, first + plan.memmap_size, HUGE):
        assert virtual >> 39 == first >> 39, "the struct pages need a second upper table"
        entry = upper + 8 * (virtual >> 30 & 511)
        if not pages.word(entry) & 1:
            pages.put(entry, free | _TABLE)
            pages.changed[free] = bytearray(PAGE)
            free += PAGE
        middle = pages.word(entry) & mask
        physical = plan.memmap + virtual - first
        pages.put(middle + 8 * (virtual >> 21 & 511), physical | _PRESENT_HUGE)


def _resize(pages: _Pages, plan: _Plan, ram: list[tuple[int, int]]) -> int:
    """Change the size of the namespace wherever the kernel's memory has it; how often it does."""
    last, size = plan.start + plan.old - 1, plan.old
    words = {
        last: plan.start + plan.size - 1,
        size: plan.size,
        last // PAGE: (plan.start + plan.size) // PAGE - 1,
    }
    found = 0
    for start, length in ram:
        for at in range(start, start + length, 16 << 20):
            data = pages.prog.read(at, min(16 << 20, start + length - at), True)
            values = np.frombuffer(data, "<u8")
            for old, new in words.items():
                for place in np.flatnonzero(values == np.uint64(old)).tolist():
                    # The page number alone may be anything: only that of the page map's altmap.
                    address = at + 8 * place
                    if old == last // PAGE and not _near(pages.prog, plan, address):
                        continue
                    pages.put(address, new)
                    found += 1
    return found


def _near(prog: Program, plan: _Plan, address: int) -> bool:
    return 0 <= address - translate(prog, plan.pgmap.address) < 256


def stretch(source: Path, vmlinux: Path, target: Path, size: int) -> None:
    """Write the dump of the larger machine."""
    prog = drgn_pmem.open(source, [str(vmlinux)])
    dump = dump_of(prog)
    header = dump.kdump
    assert header is not None
    compressed: CompressedPages = dump.memory.pages  # type: ignore[union-attr,attr-defined]
    plan = _plan(prog, size)
    held = [
        (item.start, item.size) for item in dump.coverage.extent() if item.state.value == "saved"
    ]
    ram = [(start, length) for start, length in held if start < plan.start]
    pages = _Pages(prog)
    _map(pages, plan)
    print(f"the size of the namespace was changed in {_resize(pages, plan, ram)} places")
    blocks = 1 + header.sub_header_blocks
    max_mapnr = -(-(plan.ram + plan.ram_size) // PAGE)
    bitmap = -(-max_mapnr // (8 * PAGE)) * PAGE
    numbers = np.concatenate([compressed.numbers(*item) for item in held])
    offset, length, flags = compressed.descriptors(numbers)
    at = np.concatenate([np.arange(s // PAGE, (s + n) // PAGE) for s, n in held])
    table = np.zeros(len(at), DESCRIPTOR)
    table["offset"], table["size"], table["flags"] = offset, length, flags
    pieces = _ram_pieces(plan)
    counts = len(at) + sum(plan.ram <= base < plan.ram + GIB for base in pages.changed)
    counts += plan.memmap_size // PAGE + int((pieces[:, 1] - pieces[:, 0]).sum())
    with open(target, "wb") as out:
        head = bytearray(dump.read(0, blocks * PAGE))
        struct.pack_into("<II", head, 436, 2 * bitmap // PAGE, max_mapnr & 0xFFFFFFFF)
        struct.pack_into("<QQQ", head, PAGE + 80, 0, max_mapnr, max_mapnr)
        out.write(head)
        exists = [*((s // PAGE, (s + n) // PAGE) for s, n in held)]
        exists += [(plan.start // PAGE, (plan.start + plan.size) // PAGE)]
        exists += [(plan.ram // PAGE, (plan.ram + plan.ram_size) // PAGE)]
        own = sorted(base // PAGE for base in pages.changed if base >= plan.ram)
        dumped = [*((s // PAGE, (s + n) // PAGE) for s, n in held)]
        dumped += [(own[0], own[-1] + 1)] if own else []
        dumped += [(plan.memmap // PAGE, (plan.memmap + plan.memmap_size) // PAGE)]
        for number, runs in enumerate((exists, [*dumped, *map(tuple, pieces.tolist())])):
            _write_bits(out, blocks * PAGE + number * bitmap, runs)
        descriptors = blocks * PAGE + 2 * bitmap
        data = descriptors + counts * DESCRIPTOR.itemsize
        _write_pages(out, dump, compressed, plan, pages, (at, table), pieces, descriptors, data)
    print(
        f"{plan.size / TIB:.2f} TiB of pmem, {plan.ram_size / TIB:.2f} TiB of RAM,"
        f" {counts} pages dumped, {target.stat().st_size >> 20} MiB"
    )


def _ram_pieces(plan: _Plan) -> npt.NDArray[np.int64]:
    """First and last (exclusive) page frame of the pieces of RAM that are dumped."""
    start = (plan.memmap + plan.memmap_size) // PAGE + 1000
    end = (plan.ram + plan.ram_size) // PAGE
    random = np.random.default_rng(17)
    count = int((end - start) / (_RUN + _GAP))
    steps = np.stack(
        (random.geometric(1 / _GAP, count), random.geometric(1 / _RUN, count)), axis=1
    ).astype(np.int64)
    edges = start + np.cumsum(steps.reshape(-1)).reshape(-1, 2)
    return edges[edges[:, 1] < end]


def _write_bits(out: BinaryIO, start: int, runs: list[tuple[int, int]]) -> None:
    """Set the bits of page frames, and leave holes where there are none."""
    piece = 1 << 20  # bytes of a bitmap
    edges = np.array(sorted(runs), np.int64)
    for first in range(0, int(edges[-1, 1]), 8 * piece):
        inside = edges[(edges[:, 0] < first + 8 * piece) & (edges[:, 1] > first)] - first
        if not len(inside):
            continue
        change = np.zeros(8 * piece + 1, np.int32)
        inside = np.clip(inside, 0, 8 * piece)
        np.add.at(change, inside[:, 0], 1)
        np.add.at(change, inside[:, 1], -1)
        bits = np.cumsum(change[:-1]) > 0
        out.seek(start + first // 8)
        out.write(np.packbits(bits, bitorder="little").tobytes())


def _write_pages(
    out: BinaryIO, dump: DumpFile, compressed: CompressedPages, plan: _Plan,
    pages: _Pages, known: tuple[npt.NDArray[np.int64], Table],
    pieces: npt.NDArray[np.int64], descriptors: int, data: int,
) -> None:  # fmt: skip
    at, table = known
    low = int(table["offset"].min())
    shift = data - low
    out.seek(data)
    for place in range(low, dump.size, 16 << 20):
        out.write(dump.read(place, 16 << 20))
    table["offset"] += np.uint64(shift)
    for base, content in sorted(pages.changed.items()):
        if base < plan.ram:
            row = int(np.searchsorted(at, base // PAGE))
            table[row] = (out.tell(), PAGE, 0, 0)
            out.write(content)
    out.seek(descriptors)
    out.write(table.tobytes())
    place, end = out.tell(), out.seek(0, os.SEEK_END)
    new = np.zeros(sum(base >= plan.ram for base in pages.changed), DESCRIPTOR)
    for number, base in enumerate(sorted(b for b in pages.changed if b >= plan.ram)):
        new[number] = (end, PAGE, 0, 0)
        end += out.write(pages.changed[base])
    out.seek(place)
    place += out.write(new.tobytes())
    # The struct pages of the real namespace's data, over and over, each with data of its own.
    altmap = plan.pgmap.first_pfn - plan.start // PAGE
    first = int(np.searchsorted(at, (plan.start + 2 * PAGE * 256) // PAGE)) + altmap * 64 // PAGE
    real = table[first : first + (plan.old // PAGE - altmap) * 64 // PAGE].copy()
    span = int((real["offset"] + real["size"]).max() - real["offset"].min())
    blob = dump.read(int(real["offset"].min()) - shift, span)
    real["offset"] -= real["offset"].min()
    left = plan.memmap_size // PAGE
    while left:
        rows = real[:left].copy()
        rows["offset"] += np.uint64(end)
        out.seek(end)
        end += out.write(blob)
        out.seek(place)
        place += out.write(rows.tobytes())
        left -= len(rows)
    # RAM: pages of the real one, in any order.
    some = table[: int(np.searchsorted(at, plan.start // PAGE))]
    random = np.random.default_rng(18)
    out.seek(place)
    for start in range(0, int((pieces[:, 1] - pieces[:, 0]).sum()), _BATCH):
        count = min(_BATCH, int((pieces[:, 1] - pieces[:, 0]).sum()) - start)
        place += out.write(some[random.integers(0, len(some), count)].tobytes())
    assert place == data, (place, data)


def main() -> None:
    size = sys.argv[1]
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else find_dump().parent
    source = make_formats(folder, ("lzo",))["lzo"]
    part = folder / f"vmcore.{size}.part"
    stretch(source, folder / "vmlinux", part, parse_size(size))
    os.replace(part, folder / f"vmcore.{size}")


if __name__ == "__main__":
    main()
