# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Pages of memory that is used as RAM
-----------------------------------

What the pages of each memory block of a system-ram device (kmem) are used for, whose they are, and
which of them keep the block from going offline: those that the kernel cannot move
(``has_unmovable_pages()`` of mm/page_isolation.c, ``scan_movable_pages()`` of mm/memory_hotplug.c),
and those that something holds beyond mappings and the page cache
(``folio_expected_ref_count()`` of include/linux/mm.h).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from drgn import Program
import numpy as np

from drgn_pmem.analysis.inventory.names import find_namespace
from drgn_pmem.analysis.pages.filter import Filter
from drgn_pmem.analysis.pages.groups import PageGroup, PageRange
from drgn_pmem.analysis.pages.ramowners import RamOwners
from drgn_pmem.analysis.pages.ramwords import NOT_KNOWN, USES, RamWords, read_ram_words
from drgn_pmem.analysis.pages.stream import never_written
from drgn_pmem.dumpfile import Coverage, State
from drgn_pmem.kernel.dax import DaxDevice, for_each_dax_device
from drgn_pmem.kernel.freelists import cpu_free_pages, lru_batches, zones_of
from drgn_pmem.kernel.memoryblocks import MemoryBlock, memory_blocks_of
from drgn_pmem.kernel.namespace import for_each_namespace
from drgn_pmem.kernel.page_layout import page_layout
from drgn_pmem.kernel.pageflags import flag_names
from drgn_pmem.kernel.pageuse import RamUse
from drgn_pmem.partial import Cause, Partial, Problem, Problems

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

__all__ = ("RamScan", "ram_devices")

_STATES = {Coverage.code(state): state for state in State}
_MOVES, _STAYS, _UNKNOWN = 0, 1, 2
_BLOCKS = {_MOVES: False, _STAYS: True, _UNKNOWN: None}
_NO_USE = NOT_KNOWN


def ram_devices(prog: Program, name: str | None = None) -> Partial[list[tuple[str, DaxDevice]]]:
    """
    Devices that are used as RAM, by the name of their namespace; without one by their own.

    :param name: Only of this namespace.
    :raises NotFound: if there is no such namespace
    """
    if name is not None:
        namespace = find_namespace(prog, name)
        devices = namespace.daxregion.devices if namespace.daxregion else ()
        if not namespace.is_persistent:  # its region may have others
            devices = tuple(d for d in devices if d.chardev == namespace.chardev)
        return Partial([(namespace.dev, d) for d in devices if d.mode == "system-ram"])
    problems = Problems()
    devices = tuple(d for d in problems.take(for_each_dax_device(prog)) if d.mode == "system-ram")
    namespaces = problems.take(for_each_namespace(prog)) if devices else []
    found = []
    for device in devices:
        names = [n.dev for n in namespaces if device.ranges and device.ranges[0].start in n.range]
        found.append((names[0] if names else device.chardev, device))
    return problems.partial(found)


class RamScan:
    """
    Scans the memory blocks of a device.

    :param name: What the device's memory is called: its namespace, or the device.
    :param problems: Get what could not be read.
    """

    def __init__(
        self, prog: Program, name: str, device: DaxDevice, chosen: Filter, problems: Problems
    ) -> None:
        self._prog = prog
        self._name = name
        self._chosen = chosen
        self._problems = problems
        self._layout = page_layout(prog)
        self._owners = RamOwners(prog, problems)
        self.blocks = problems.attempt(
            f"memory blocks of {device.chardev}", lambda: memory_blocks_of(prog, device.ranges)
        ) or []  # fmt: skip

    def scan(self, groups: list[PageGroup], ranges: list[PageRange] | None, keep: int) -> None:
        """
        Add the groups of every block, and its ranges.

        :param ranges: None if they are not asked for.
        :param keep: How many ranges at most.
        """
        for block in self.blocks:
            self.scan_block(block, groups, ranges, keep)

    def scan_block(
        self, block: MemoryBlock, groups: list[PageGroup], ranges: list[PageRange] | None, keep: int
    ) -> None:
        """Add the groups of a block, and its ranges, as :meth:`scan`."""
        if not block.online:
            groups += self._offline(block)
            return
        words = self._read(block)
        poisoned, blocks, chosen = self._judge(words)
        groups += self._groups(block, words, poisoned, blocks, chosen)
        if ranges is None:
            return
        for item in self._ranges(block, words, poisoned, blocks, chosen):
            if len(ranges) >= keep:
                why = f"more runs of pages were not kept (limit {keep})"
                self._problems.add(Problem(cause=Cause.LIMIT, what=self._name, why=why))
                return
            ranges.append(item)

    def _pfns(self, block: MemoryBlock) -> tuple[int, int]:
        shift = self._layout.page_shift
        return block.range.start >> shift, block.range.end >> shift

    def _read(self, block: MemoryBlock) -> RamWords:
        start, end = self._pfns(block)
        free: dict[int, int] = {}
        for zone in zones_of(self._prog, start, end):
            free |= self._problems.take(cpu_free_pages(self._prog, zone))
        partial = read_ram_words(self._prog, start, end, free, lru_batches(self._prog))
        words = self._problems.take(partial, block.name)
        words.use[: block.memmap_pages] = USES.index(RamUse.MEMMAP)
        words.use[: block.memmap_pages][~words.saved[: block.memmap_pages]] = NOT_KNOWN
        self._owners.check(words)
        missing = int(np.count_nonzero(~words.saved))
        if missing:
            why = f"{missing} of {len(words.use)} struct pages are not in the dump"
            self._problems.add(Problem(cause=Cause.NOT_SAVED, what=block.name, why=why))
        unknown = int(np.count_nonzero(words.saved & (words.use == _NO_USE)))
        if unknown:
            first = words.pfn + int(np.flatnonzero(words.saved & (words.use == _NO_USE))[0])
            why = f"what {unknown} pages are used for is not known: pmem-page pfn:{first:#x}"
            self._problems.add(Problem(cause=Cause.UNSUPPORTED, what=block.name, why=why))
        uncounted = int(np.count_nonzero(words.extra == NOT_KNOWN))
        if uncounted:
            why = f"whether {uncounted} pages have extra references is not known"
            self._problems.add(Problem(cause=Cause.UNSUPPORTED, what=block.name, why=why))
        return words

    def _judge(self, words: RamWords) -> "tuple[Any, Any, Mask]":
        """Whether each page is poisoned, keeps the block from going offline (a code), and is asked
        for."""
        chosen = self._chosen
        stays = [use for use in USES if use.cannot_move]
        blocks = np.full(len(words.use), _MOVES, np.int8)
        blocks[words.is_use(*stays) | (words.extra > 0)] = _STAYS
        blocks[(words.use == _NO_USE) | (words.extra == NOT_KNOWN)] = _UNKNOWN
        flags = words.words["flags"]
        poisoned = flags & np.uint64(self._layout.hwpoison_bit or 0) != 0
        # The kernel offlines memory with poisoned pages.
        blocks[poisoned & words.saved] = _MOVES
        mask = np.ones(len(words.use), bool)
        if chosen.is_set:
            mask &= words.saved
        if chosen.flags:
            mask &= flags & np.uint64(chosen.flags) == chosen.flags
        if chosen.hwpoison:
            mask &= poisoned
        if chosen.busy:
            mask &= blocks == _STAYS
        if chosen.shared:
            mask[:] = False  # of files that share extents: only DAX has that
        if chosen.refcount is not None:
            low, high = chosen.refcount
            refcount = words.words["refcount"]
            mask &= (refcount >= low) & (refcount <= high)
        if chosen.owner is not None:
            mask &= self._owners.matching(words, chosen.owner)
        return poisoned, blocks, mask

    def _status(self, state: int, use: int, poisoned: bool) -> str:
        if _STATES[state] is not State.SAVED:
            return _STATES[state].value
        if poisoned:
            return "poisoned"
        return "unknown" if use == _NO_USE else USES[use].value

    def _offline(self, block: MemoryBlock) -> Iterator[PageGroup]:
        if self._chosen.is_set:
            return
        for part in never_written(self._prog, *self._pfns(block)):
            count = int(part["count"].sum())
            yield self._group(block, "offline", _STATES[int(part["state"][0])], count)

    def _group(
        self, block: MemoryBlock, status: str, state: State, pages: int, **more: Any
    ) -> PageGroup:
        return PageGroup(
            namespace=self._name,
            status=status,
            state=state,
            pages=pages,
            size=pages << self._layout.page_shift,
            **{"ranges": 1, **more},
            memory_block=block.name,
            zone=block.zone,
        )

    def _groups(
        self, block: MemoryBlock, words: RamWords, poisoned: Any, blocks: Any, chosen: "Mask"
    ) -> list[PageGroup]:
        key = self._key(words, poisoned, blocks)
        # A run of pages of one group is one range, whatever their flags are.
        new = np.ones(len(key), bool)
        new[1:] = (key[1:] != key[:-1]) | ~chosen[:-1]
        found = []
        for value in np.unique(key[chosen]).tolist():
            here = chosen & (key == value)
            at = int(np.flatnonzero(here)[0])
            status = self._status(int(words.state[at]), int(words.use[at]), bool(poisoned[at]))
            found.append(
                self._group(
                    block,
                    status,
                    _STATES[int(words.state[at])],
                    int(np.count_nonzero(here)),
                    ranges=int(np.count_nonzero(here & new)),
                    hwpoison=bool(poisoned[at]) if words.saved[at] else None,
                    owner=self._owners.summary(words, here),
                    blocks_offline=_BLOCKS[int(blocks[at])],
                )
            )
        return sorted(found, key=lambda group: -group.pages)

    def _key(self, words: RamWords, poisoned: Any, blocks: Any) -> Any:
        key = words.state.astype(np.int64) << 24 | (words.use.astype(np.int64) + 1) << 16
        return key | poisoned.astype(np.int64) << 8 | blocks

    def _ranges(
        self, block: MemoryBlock, words: RamWords, poisoned: Any, blocks: Any, chosen: "Mask"
    ) -> Iterator[PageRange]:
        key = self._key(words, poisoned, blocks)
        rows, cached = words.words, words.is_use(RamUse.PAGE_CACHE)
        owned = cached | words.is_use(RamUse.ANONYMOUS)
        new = np.ones(len(key), bool)
        new[1:] = (key[1:] != key[:-1]) | ~chosen[:-1]
        for name in ("flags", "refcount", "type", "mapping"):
            # Words of pages that are not in use say nothing.
            new[1:] |= (rows[name][1:] != rows[name][:-1]) & (rows["refcount"][1:] > 0)
        new[1:] |= words.extra[1:] != words.extra[:-1]
        new[1:] |= owned[1:] & ~words.tail[1:] & (rows["index"][1:] != rows["index"][:-1] + 1)
        starts = np.flatnonzero(new)
        ends = np.append(starts[1:], len(key))
        for at, end in zip(starts.tolist(), ends.tolist(), strict=True):
            if not chosen[at]:
                continue
            use = int(words.use[at])
            known = words.saved[at] and use != _NO_USE and not USES[use].is_free
            row = rows[at]
            flags = int(row["flags"])
            extra = int(words.extra[at])
            group = self._group(
                block,
                self._status(int(words.state[at]), use, bool(poisoned[at])),
                _STATES[int(words.state[at])],
                end - at,
                hwpoison=bool(poisoned[at]) if words.saved[at] else None,
                flags=flags if known else None,
                flag_names=self._flag_names(flags, USES[use]) if known else None,
                refcount=int(row["refcount"]) if words.saved[at] else None,
                mapping=int(row["mapping"]) if owned[at] else None,
                owner=self._owners.name(int(row["mapping"])) if owned[at] else None,
                blocks_offline=_BLOCKS[int(blocks[at])],
                extra=extra if owned[at] and extra != NOT_KNOWN else None,
            )
            yield PageRange(
                pfn=words.pfn + at,
                group=group,
                physical=words.pfn + at << self._layout.page_shift,
                index=int(row["index"]) if cached[at] and not words.tail[at] else None,
            )

    def _flag_names(self, flags: int, use: RamUse) -> tuple[str, ...] | None:
        anonymous = use is RamUse.ANONYMOUS
        return self._problems.attempt(
            "names of flags", lambda: flag_names(self._prog, flags, anonymous=anonymous)
        )
