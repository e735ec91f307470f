# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
struct page and folio
---------------------

One page of persistent memory (or of RAM), decoded for every kernel generation by its members.
Coverage comes first: nothing is said of a struct page whose bytes are not in the dump, and nothing
of one that the kernel never initialised. Sources: include/linux/mm_types.h, mm/memremap.c,
mm/mm_init.c (``__init_zone_device_page()``), fs/dax.c.
"""

from dataclasses import dataclass, fields
from typing import Any

from drgn import Object, Program
from drgn.helpers.linux.mm import decode_page_flags_value

from drgn_pmem.dumpfile import State
from drgn_pmem.errors import MissingDebugInfo, PmemError
from drgn_pmem.kernel.page_address import PageAddress, parse_page, resolve_page
from drgn_pmem.kernel.page_layout import DaxGeneration, PageLayout, page_layout
from drgn_pmem.kernel.pagetable import read_saved, translate
from drgn_pmem.kernel.pgmap import Pgmap, for_each_pgmap
from drgn_pmem.kernel.walk import collect
from drgn_pmem.partial import NotSaved, WalkError

__all__ = (
    "DaxGeneration",
    "PageAddress",
    "PageLayout",
    "PageState",
    "idle_refcount",
    "page_layout",
    "pages_pgmap",
    "parse_page",
    "read_page",
    "resolve_page",
)

_MAX_ORDER = 30
"""Order of a compound page above which it is not sound (1 TiB of 4K pages is 28)."""

_NO_PGMAPS = (
    "as stored: without debug info (-s VMLINUX) no one can tell whether the kernel ever "
    "initialised this struct page"
)

_ZEROES = (
    "the struct page reads as zeroes, which no initialised one of a device does: "
    "makedumpfile left it out"
)
_OVERWRITTEN = (
    "written after the crash: it points to no page map of this kernel (a capture kernel that binds "
    "the namespace makes its struct pages anew)"
)

_FS_DAX = "MEMORY_DEVICE_FS_DAX"

_TAIL_FLAGS = ("PG_reserved", "PG_hwpoison")

_DAX_SHARED = 1
"""``PAGE_MAPPING_DAX_COW`` (6.0), ``PAGE_MAPPING_DAX_SHARED`` (6.3): mapping of a shared extent."""


@dataclass(frozen=True)
class PageState:
    """
    What the dump tells of one page. A field is None where the dump, the debug info or this kernel
    does not tell it; everything that a compound page keeps in its head is taken from there.
    """

    pfn: int
    physical: int
    """bytes"""
    page: int
    """Virtual address of the struct page."""
    page_physical: int | None
    """Where the struct page itself is; None if it is not mapped."""
    state: State
    """Whether the bytes of the struct page (and of its head's) are in the dump."""
    reason: str | None = None
    """Why nothing is known of the page; None if the fields below stand."""
    initialised: bool = True
    """False for the struct pages of the altmap itself: mapped, but never written by the kernel."""
    flags: int | None = None
    flag_names: tuple[str, ...] = ()
    refcount: int | None = None
    mapcount: int | None = None
    """Page table entries that map the folio; None where the kernel does not keep it for pmem."""
    pins: int | None = None
    """References beyond idle and mappings: who holds the page. FOLL_PIN counts 1024 each on small
    pages."""
    mapping: int | None = None
    """``mapping`` as it is stored in the head: 1 for a shared extent, 0 for none."""
    index: int | None = None
    """Of this page, in pages: the head's plus the distance to it. None if the page is shared."""
    shared: bool | None = None
    """Belongs to a shared (reflinked) extent; owners are then found through i_pages only."""
    share: int | None = None
    """How many mappings share it."""
    head_pfn: int | None = None
    order: int | None = None
    """Of the compound page; 0 if it is none."""
    aliased: bool = False
    """The memory of the struct page is that of its neighbours too (optimised vmemmap of device
    DAX): it tells nothing of this page alone."""
    hwpoison: bool | None = None
    pgmap: int | None = None
    """Address of the ``struct dev_pagemap`` that the struct page points to."""
    pgmap_known: bool | None = None
    """Whether ``pgmap_array`` has it. False says that the struct page was overwritten after the
    crash, as by a capture kernel that binds the namespace: then nothing it says is of use. None if
    not all page maps could be read."""
    type: str | None = None
    """``enum memory_type`` of the page map that covers the PFN."""
    zone: str | None = None
    nid: int | None = None

    @property
    def pinned(self) -> bool | None:
        """Someone holds the page beyond idle and its mappings."""
        return None if self.pins is None else self.pins > 0

    @property
    def mapping_address(self) -> int | None:
        """``struct address_space *`` of the owner, if the page has a single one."""
        if not self.mapping or self.shared or self.mapping & 3 or not self.mapping >> 63:
            return None
        return self.mapping

    def to_json(self) -> dict[str, Any]:
        record = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("physical", "page", "page_physical", "flags", "mapping", "pgmap"):
            if record[name] is not None:
                record[name] = f"{record[name]:#x}"
        record["state"] = self.state.value
        record["flag_names"] = list(self.flag_names)
        record["pinned"] = self.pinned
        return record


def pages_pgmap(prog: Program) -> tuple[list[Pgmap], list[str]]:
    """
    Every page map, and why there may be more; kept in ``prog.cache``.

    :return: Page maps by PFN; messages, none if all could be read.
    """
    cached = prog.cache.get("drgn_pmem.pgmaps")
    if cached is None:
        cached = collect(for_each_pgmap(prog))
        prog.cache["drgn_pmem.pgmaps"] = cached
    return cached


def idle_refcount(prog: Program, type: str = _FS_DAX) -> int:
    """
    ``_refcount`` of a page that nobody uses.

    :param type: ``enum memory_type`` of its page map; device DAX stays at 1 on every kernel.
    :raises MissingDebugInfo: if only vmcoreinfo is there and does not tell
    """
    generation = page_layout(prog).generation
    if type != _FS_DAX:
        return 1
    if generation is None:
        raise MissingDebugInfo(
            "the idle reference count of fsdax pages is not known without debug info (-s VMLINUX)"
        )
    return 0 if generation is DaxGeneration.FOLIO else 1


def read_page(prog: Program, pfn: int) -> PageState:
    """
    Decode the struct page of a PFN. Never guesses: if its bytes are not in the dump, the record
    says so in ``state`` and ``reason`` and nothing else.

    :param pfn: PFN
    :raises MissingDebugInfo: if the layout of struct page is not known at all
    """
    return _Reader(prog).read(pfn)


class _Reader:
    def __init__(self, prog: Program) -> None:
        self._prog = prog
        self._layout = page_layout(prog)
        self._pgmaps: list[Pgmap] | None = None
        self._all_pgmaps = False
        try:
            self._pgmaps, problems = pages_pgmap(prog)
            self._all_pgmaps = not problems
        except PmemError:
            pass

    def read(self, pfn: int) -> PageState:
        layout = self._layout
        pgmap = next((g for g in self._pgmaps or () if g.has_pfn(pfn)), None)
        address = layout.address(pfn)
        known: dict[str, Any] = {
            "pfn": pfn,
            "physical": pfn << layout.page_shift,
            "page": address,
            "page_physical": self._physical(address),
            "type": pgmap.type if pgmap else None,
        }
        if pgmap is not None and pfn < pgmap.first_pfn:
            reason = "reserved for the memmap: the kernel never initialised this struct page"
            state = self._state(address)
            return PageState(**known, state=state, reason=reason, initialised=False)
        try:
            page = self._bytes(address)
        except NotSaved as error:
            return PageState(
                **known, state=error.state or State.UNKNOWN, reason=self._reason(error)
            )
        return self._decode(known, page, pgmap)

    def _physical(self, address: int) -> int | None:
        try:
            return translate(self._prog, address)
        except WalkError:
            return None  # why is the reason that the struct page itself cannot be read

    def _bytes(self, address: int) -> bytes:
        if not 0 <= address <= (1 << 64) - self._layout.size:
            raise NotSaved("no struct page: the PFN is out of range", state=State.UNMAPPED)
        return read_saved(self._prog, address, self._layout.size)

    def _state(self, address: int) -> State:
        try:
            self._bytes(address)
        except NotSaved as error:
            return error.state or State.UNKNOWN
        return State.SAVED

    @staticmethod
    def _reason(error: NotSaved) -> str:
        if error.state is State.UNMAPPED:
            return "no struct page: the vmemmap is not mapped there"
        return f"the struct page is not in the dump: {error}"

    def _word(self, data: bytes, offset: int, size: int = 8, signed: bool = False) -> int:
        order = "little" if self._layout.little_endian else "big"
        return int.from_bytes(data[offset : offset + size], order, signed=signed)  # type: ignore[arg-type]

    def _head(self, pfn: int, page: bytes) -> int | None:
        """PFN of the head of a tail page, the page itself if it is none, None if it is unsound."""
        word = self._word(page, self._layout.word)
        if not word & 1:
            return pfn
        if self._layout.head_is_mask:
            head = self._layout.pfn(self._layout.address(pfn) & word)
        else:
            head = self._layout.pfn(word - 1)
        if head is None or not 0 <= pfn - head < 1 << _MAX_ORDER:
            return None
        return head

    def _decode(self, known: dict[str, Any], page: bytes, pgmap: Pgmap | None) -> PageState:
        untold = pgmap is None and not self._all_pgmaps  # no one tells what page it is
        if not any(page) and (pgmap is not None or untold):
            return PageState(**known, state=State.EXCLUDED, reason=_ZEROES)
        layout, pfn = self._layout, known["pfn"]
        head_pfn = self._head(pfn, page)
        flags = self._word(page, layout.flags)
        aliased = self._aliased(known["page"], known["page_physical"], pgmap)
        own = known | {
            "flags": flags,
            "flag_names": self._flag_names(flags, tail=head_pfn != pfn),
            "aliased": aliased,
            # A poisoned tail of shared memory would poison all that share it.
            "hwpoison": None
            if layout.hwpoison_bit is None or aliased or (untold and head_pfn != pfn)
            else bool(flags & layout.hwpoison_bit),
            **self._zone(flags),
        }
        if head_pfn is None:
            reason = "a tail page whose head is nowhere near it: overwritten or corrupt"
            return PageState(**own, state=State.SAVED, reason=reason)
        try:
            head = page if head_pfn == pfn else self._bytes(layout.address(head_pfn))
        except NotSaved as error:
            reason = (
                f"the head of the compound page (PFN {head_pfn:#x}) is not in the dump: {error}"
            )
            return PageState(
                **own, state=error.state or State.UNKNOWN, reason=reason, head_pfn=head_pfn
            )
        if pgmap is not None and self._all_pgmaps:
            word = self._word(head, layout.word)
            if not self._is_known(word):
                return PageState(
                    **own,
                    state=State.SAVED,
                    reason=_OVERWRITTEN,
                    head_pfn=head_pfn,
                    pgmap=word,
                    pgmap_known=False,
                )
        return PageState(
            **own,
            state=State.SAVED,
            reason=_NO_PGMAPS if self._pgmaps is None else None,
            head_pfn=head_pfn,
            **self._of_head(pfn, head_pfn, head, pgmap),
        )

    def _is_known(self, address: int) -> bool:
        return any(pgmap.address == address for pgmap in self._pgmaps or ())

    def _of_head(self, pfn: int, head_pfn: int, head: bytes, pgmap: Pgmap | None) -> dict[str, Any]:
        """What a compound page keeps in its head."""
        layout = self._layout
        order = self._order(head_pfn, head)
        mapping = self._word(head, layout.mapping)
        index = self._word(head, layout.index)
        refcount = self._word(head, layout.refcount, 4, signed=True)
        word = self._word(head, layout.word)
        answer: dict[str, Any] = {"order": order, "refcount": refcount, "mapping": mapping}
        if pgmap is None:
            # Without a mapping the word may be how many share a DAX page.
            if mapping > _DAX_SHARED:
                answer["index"] = index + (pfn - head_pfn)
            return answer
        answer["pgmap"] = word
        answer["pgmap_known"] = True if self._is_known(word) else None
        shared = self._is_shared(mapping, index) if pgmap.type == _FS_DAX else False
        answer["shared"] = shared
        if shared:
            answer["share"] = index
        elif mapping > 3:
            answer["index"] = index + (pfn - head_pfn)
        if layout.generation is DaxGeneration.FOLIO:
            answer["mapcount"] = self._mapcount(head_pfn, head, order)
        if layout.generation is not None:
            idle = idle_refcount(self._prog, pgmap.type)
            mapped = answer.get("mapcount", 0)
            # A reference count that was never taken is no pin: the struct page is not sound.
            answer["pins"] = None if mapped is None else max(0, refcount - idle - mapped)
        return answer

    def _is_shared(self, mapping: int, index: int) -> bool | None:
        # A count of zero: 6.1 leaves the mark on a page whose last sharer has gone.
        if mapping == _DAX_SHARED:
            return 0 < index < 1 << 63
        if mapping == 0 and self._layout.generation is not DaxGeneration.MAPPING:
            return bool(index) if self._layout.generation is DaxGeneration.FOLIO else None
        return False

    def _order(self, head_pfn: int, head: bytes) -> int | None:
        """Order of the compound page, 0 if the page is none, None if no one can tell."""
        layout = self._layout
        if layout.head_bit is None:
            return None
        if not self._word(head, layout.flags) & layout.head_bit:
            return 0
        if layout.order is None:
            return None
        try:
            order = read_saved(self._prog, layout.address(head_pfn) + layout.order, 1)[0]
        except NotSaved:
            return None
        return order if 0 < order <= _MAX_ORDER else None

    def _mapcount(self, head_pfn: int, head: bytes, order: int | None) -> int | None:
        """``folio_mapcount()``"""
        layout = self._layout
        if order is None:
            return None
        if order == 0:
            # Values below -1 are page types: never mapped.
            return max(0, self._word(head, layout.mapcount, 4, signed=True) + 1)
        if layout.large_mapcount is None:
            return None
        try:
            data = read_saved(self._prog, layout.address(head_pfn) + layout.large_mapcount, 4)
        except NotSaved:
            return None
        return max(0, self._word(data, 0, 4, signed=True) + 1)

    def _aliased(self, address: int, physical: int | None, pgmap: Pgmap | None) -> bool:
        """Whether the struct page's memory is mapped for its neighbours too."""
        if pgmap is None or pgmap.vmemmap_shift == 0 or pgmap.altmap is not None:
            return False
        if physical is None:
            return False
        step = 1 << self._layout.page_shift
        return physical in (
            self._physical(neighbour) for neighbour in (address - step, address + step)
        )

    def _flag_names(self, flags: int, tail: bool) -> tuple[str, ...]:
        try:
            text = decode_page_flags_value(Object(self._prog, "unsigned long", flags))
        except LookupError:
            return ()
        names = (name for name in text.split("|") if name.startswith("PG_"))
        # In the first tails the other bits are the order and flags of the folio.
        return tuple(name for name in names if not tail or name in _TAIL_FLAGS)

    def _zone(self, flags: int) -> dict[str, Any]:
        """Zone and node, from the top of flags (include/linux/page-flags-layout.h)."""
        try:
            nodes = _log2_of_array(self._prog["node_data"])
            zones = {e.value: e.name for e in self._prog.type("enum zone_type").enumerators or ()}
        except LookupError:
            return {}
        count = max((value for value, name in zones.items() if name == "__MAX_NR_ZONES"), default=0)
        bits = max(count - 1, 0).bit_length()
        zone = (flags >> (64 - nodes - bits)) & ((1 << bits) - 1)
        return {"zone": zones.get(zone), "nid": flags >> (64 - nodes)}


def _log2_of_array(array: Object) -> int:
    try:
        return (len(array) - 1).bit_length()
    except TypeError:
        return 0
