# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
struct page and folio
---------------------

One page of persistent memory (or of RAM), decoded for every kernel generation by its members.
Coverage comes first: nothing is read from a struct page whose bytes are not in the dump, nor from
one that the kernel never initialised. Sources: include/linux/mm_types.h, mm/memremap.c,
mm/mm_init.c (``__init_zone_device_page()``), fs/dax.c.
"""

from typing import Any

from drgn import Object, Program

from drgn_pmem.dumpfile import State
from drgn_pmem.errors import MissingDebugInfo
from drgn_pmem.kernel.page_layout import DaxGeneration, PageLayout, page_layout, pfn_of
from drgn_pmem.kernel.pageflags import flag_names, zone_of
from drgn_pmem.kernel.pagestate import PageState
from drgn_pmem.kernel.pagetable import read_saved, translate
from drgn_pmem.kernel.pageuse import ANON, KSM
from drgn_pmem.kernel.pgmap import FS_DAX, Pgmap, for_each_pgmap, is_dax_type, is_driver_type
from drgn_pmem.partial import Cause, NotSaved, Partial, Problem, Problems, WalkError

__all__ = (
    "DaxGeneration",
    "PageLayout",
    "idle_refcount",
    "page_layout",
    "pages_pgmap",
    "read_page",
)

_MAX_ORDER = 30
"""Order of a compound page above which it is implausible (1 TiB of 4K pages is 28)."""

_ZEROES = (
    "the struct page reads as zeroes, which an initialised one of a device never does: "
    "makedumpfile left it out"
)
_OVERWRITTEN = (
    "overwritten after the crash: it points to no page map of the crashed kernel (a capture kernel "
    "that binds the namespace initialises its struct pages again)"
)
_NOT_CHECKED = (
    "not all page maps of the kernel could be read, and it points to none of those that could: "
    "whether it was overwritten after the crash is not known"
)
_TORN = "a tail page with an implausible head: overwritten or corrupt"
_NEVER = "reserved for the info block: the kernel never initialised this struct page"

_TAIL_FLAGS = ("PG_reserved", "PG_hwpoison")

_DAX_SHARED = 1
"""``PAGE_MAPPING_DAX_COW`` (6.0), ``PAGE_MAPPING_DAX_SHARED`` (6.3): mapping of a shared extent."""


def pages_pgmap(prog: Program) -> Partial[list[Pgmap]]:
    """Every page map by PFN; kept in ``prog.cache``."""
    cached = prog.cache.get("drgn_pmem.pgmaps")
    if cached is None:
        cached = prog.cache["drgn_pmem.pgmaps"] = for_each_pgmap(prog)
    return cached


def idle_refcount(prog: Program, type: str = FS_DAX) -> int | None:
    """
    ``_refcount`` of an idle page; None for device memory that is not of DAX.

    :param type: ``enum memory_type`` of its page map; device DAX stays at 1 on every kernel.
    :raises MissingDebugInfo: if there is only vmcoreinfo, which does not have it
    """
    generation = page_layout(prog).generation
    if not is_dax_type(type):
        return None
    if type != FS_DAX:
        return 1
    if generation is None:
        raise MissingDebugInfo(
            "the idle reference count of fsdax pages needs debug info (-s VMLINUX)",
            "vmlinux",
        )
    return 0 if generation is DaxGeneration.FOLIO else 1


def read_page(prog: Program, page: "Object | int") -> Partial[PageState]:
    """
    Decode the struct page of a PFN. Never guesses: if its bytes are not in the dump, ``state``
    and ``reason`` of the record say so, and so does a problem.

    :param page: PFN, or ``struct page *``.
    :raises MissingDebugInfo: if the layout of struct page is not known at all
    """
    pfn = pfn_of(prog, page)
    try:
        reader = _Reader(prog, pfn)
    except NotSaved as error:
        return _without_layout(prog, pfn, error)
    return reader.read()


def _without_layout(prog: Program, pfn: int, error: NotSaved) -> Partial[PageState]:
    """A page whose struct page has no known place."""
    problems = Problems()
    problems.add(error, f"struct page of PFN {pfn:#x}")
    pgmaps = problems.take(pages_pgmap(prog))
    page = PageState(
        pfn=pfn,
        physical=pfn << int(prog["PAGE_SHIFT"]),
        page=None,
        page_physical=None,
        state=State.UNKNOWN,
        reason=str(error),
        type=next((pgmap.type for pgmap in pgmaps if pgmap.has_pfn(pfn)), None),
    )
    return problems.partial(page)


class _Reader:
    """Reads one struct page."""

    def __init__(self, prog: Program, pfn: int) -> None:
        self._prog = prog
        self._pfn = pfn
        self._layout = page_layout(prog)
        self._problems = Problems()
        pgmaps = pages_pgmap(prog)
        self._all_pgmaps = pgmaps.complete
        self._lost_pgmaps = any(
            p.degrades and p.cause is not Cause.NO_DEBUG_INFO for p in pgmaps.problems
        )
        """Whether a page map may be missing that the dump should have."""
        self._pgmaps = self._problems.take(pgmaps)
        self._pgmap = next((g for g in self._pgmaps if g.has_pfn(pfn)), None)
        self._own = False
        """Whether it is one of the altmap's own pages."""

    def read(self) -> Partial[PageState]:
        return self._problems.partial(self._read())

    def _read(self) -> PageState:
        address = self._layout.address(self._pfn)
        known: dict[str, Any] = {
            "pfn": self._pfn,
            "physical": self._pfn << self._layout.page_shift,
            "page": address,
            "page_physical": self._physical(address),
            "type": self._pgmap.type if self._pgmap else None,
        }
        if self._pgmap is not None and self._pfn < self._pgmap.memmap_pfn:
            state = State.SAVED
            try:
                self._bytes(address)
            except NotSaved as error:
                state = error.state or State.UNKNOWN
            return PageState(
                **known, state=state, reason=_NEVER, initialised=False, holds="info block"
            )
        self._own = self._pgmap is not None and self._pfn < self._pgmap.first_pfn
        if self._own:
            known["holds"] = "memmap"
        try:
            page = self._bytes(address)
        except NotSaved as error:
            return self._not_saved(error, known)
        return self._decode(known, page)

    def _not_saved(self, error: NotSaved, known: dict[str, Any]) -> PageState:
        state = error.state or State.UNKNOWN
        if state is State.UNMAPPED:
            # The page tables were read: the kernel had none, and nothing is missing.
            return PageState(
                **known, state=state, reason="no struct page: the vmemmap is not mapped there"
            )
        self._unknown(f"not in the dump: {error}", Cause.NOT_SAVED, state)
        return PageState(
            **known, state=state, reason=f"the struct page is not in the dump: {error}"
        )

    def _unknown(self, why: str, cause: Cause, state: State | None = None) -> None:
        what = f"struct page of PFN {self._pfn:#x}"
        self._problems.add(Problem(cause=cause, why=why, what=what, state=state))

    def _physical(self, address: int) -> int | None:
        if not 0 <= address < 1 << 64:
            return None
        try:
            return translate(self._prog, address)
        except WalkError:
            # not a problem: it is the reason that the struct page itself cannot be read
            return None

    def _bytes(self, address: int) -> bytes:
        if not 0 <= address <= (1 << 64) - self._layout.size:
            raise NotSaved("no struct page: the PFN is out of range", state=State.UNMAPPED)
        return read_saved(self._prog, address, self._layout.size)

    def _word(self, data: bytes, offset: int, size: int = 8, signed: bool = False) -> int:
        order = "little" if self._layout.little_endian else "big"
        return int.from_bytes(data[offset : offset + size], order, signed=signed)  # type: ignore[arg-type]

    def _head(self, page: bytes) -> int | None:
        """PFN of the head of a tail page, the page itself if it is none, None if it is
        implausible."""
        word = self._word(page, self._layout.word)
        if not word & 1:
            return self._pfn
        if self._layout.head_is_mask:
            head = self._layout.pfn(self._layout.address(self._pfn) & word)
        else:
            head = self._layout.pfn(word - 1)
        if head is None or not 0 <= self._pfn - head < 1 << _MAX_ORDER:
            return None
        return head

    def _decode(self, known: dict[str, Any], page: bytes) -> PageState:
        pgmap = self._pgmap
        maybe_dax = pgmap is None and not self._all_pgmaps
        if not any(page) and (pgmap is not None or maybe_dax):
            self._unknown(_ZEROES, Cause.NOT_SAVED, State.EXCLUDED)
            return PageState(**known, state=State.EXCLUDED, reason=_ZEROES)
        layout, pfn = self._layout, self._pfn
        head_pfn = self._head(page)
        flags = self._word(page, layout.flags)
        aliased = self._aliased(known["page"], known["page_physical"])
        own = known | {
            "flags": flags,
            "flag_names": self._flag_names(flags, tail=head_pfn != pfn),
            "aliased": aliased,
            # A poisoned tail of shared memory would poison all that share it.
            "hwpoison": None
            if layout.hwpoison_bit is None or aliased is not False or maybe_dax
            else bool(flags & layout.hwpoison_bit),
            **(self._problems.attempt("zone and node", lambda: zone_of(self._prog, flags)) or {}),
        }
        if head_pfn is None:
            self._unknown(_TORN, Cause.DAMAGED)
            return PageState(**own, state=State.SAVED, reason=_TORN)
        try:
            head = page if head_pfn == pfn else self._bytes(layout.address(head_pfn))
        except NotSaved as error:
            reason = (
                f"the head of the compound page (PFN {head_pfn:#x}) is not in the dump: {error}"
            )
            state = error.state or State.UNKNOWN
            self._unknown(reason, Cause.NOT_SAVED, state)
            return PageState(**own, state=state, reason=reason, head_pfn=head_pfn)
        word = self._word(head, layout.word)
        if not self._own and not self._is_known(word):
            if pgmap is not None and self._all_pgmaps:
                self._unknown(_OVERWRITTEN, Cause.DAMAGED)
                return PageState(
                    **own,
                    state=State.SAVED,
                    reason=_OVERWRITTEN,
                    head_pfn=head_pfn,
                    pgmap=word,
                    pgmap_known=False,
                )
            if self._lost_pgmaps:
                self._unknown(_NOT_CHECKED, Cause.NOT_SAVED)
                return PageState(**own, state=State.SAVED, reason=_NOT_CHECKED, head_pfn=head_pfn)
        of_head = self._of_head(head_pfn, head)
        # In DAX, the mapping of a shared page looks like that of an anonymous one.
        may_be = pgmap is None or is_driver_type(pgmap.type)
        if may_be and of_head["mapping"] & 3 in (ANON, KSM):
            own["flag_names"] = self._flag_names(flags, tail=head_pfn != pfn, anonymous=True)
        return PageState(**own, state=State.SAVED, head_pfn=head_pfn, **of_head)

    def _is_known(self, address: int) -> bool:
        return any(pgmap.address == address for pgmap in self._pgmaps)

    def _of_head(self, head_pfn: int, head: bytes) -> dict[str, Any]:
        """What a compound page keeps in its head."""
        layout, pgmap = self._layout, self._pgmap
        order = self._order(head_pfn, head)
        mapping = self._word(head, layout.mapping)
        index = self._word(head, layout.index)
        refcount = self._word(head, layout.refcount, 4, signed=True)
        word = self._word(head, layout.word)
        answer: dict[str, Any] = {"order": order, "refcount": refcount, "mapping": mapping}
        if self._own:
            # A reserved page: its first word is a list head, not a page map.
            return answer
        if pgmap is None:
            # Without a mapping the word may be how many share a DAX page. Where page maps are not
            # known, the page may be of DAX that sets no index, and leaves it 0.
            if mapping > _DAX_SHARED and (index or layout.keeps_index or self._all_pgmaps):
                answer["index"] = index + (self._pfn - head_pfn)
            return answer
        answer["pgmap"] = word
        answer["pgmap_known"] = True if self._is_known(word) else None
        shared = self._is_shared(mapping, index) if pgmap.type == FS_DAX else False
        answer["shared"] = shared
        if shared:
            answer["share"] = index
        elif mapping > 3 and layout.keeps_index:
            answer["index"] = index + (self._pfn - head_pfn)
        mapped: int | None = 0
        if layout.generation is DaxGeneration.FOLIO:
            answer["mapcount"] = mapped = self._mapcount(head_pfn, head, order)
        idle = self._problems.attempt("pins", lambda: idle_refcount(self._prog, pgmap.type))
        if layout.generation is not None and idle is not None and mapped is not None:
            # An impossible reference count is not a pin: the struct page is damaged.
            answer["pins"] = max(0, refcount - idle - mapped)
        return answer

    def _is_shared(self, mapping: int, index: int) -> bool | None:
        # A count of zero: 6.1 leaves the mark on a page after its last sharer is gone.
        if mapping == _DAX_SHARED:
            return 0 < index < 1 << 63
        if mapping == 0 and self._layout.generation is not DaxGeneration.MAPPING:
            return bool(index) if self._layout.generation is DaxGeneration.FOLIO else None
        return False

    def _of_first_tail(self, head_pfn: int, offset: int, size: int, what: str) -> bytes | None:
        """Bytes of the folio after its head."""
        return self._problems.attempt(
            f"struct page of PFN {self._pfn:#x}: {what} of the folio at PFN {head_pfn:#x}",
            lambda: read_saved(self._prog, self._layout.address(head_pfn) + offset, size),
        )

    def _order(self, head_pfn: int, head: bytes) -> int | None:
        """Order of the compound page, 0 if the page is none, None if that is not known."""
        layout = self._layout
        if layout.head_bit is None:
            return None
        if not self._word(head, layout.flags) & layout.head_bit:
            return 0
        if layout.order is None:
            return None
        data = self._of_first_tail(head_pfn, layout.order, 1, "order")
        if data is None:
            return None
        if not 0 < data[0] <= _MAX_ORDER:
            self._unknown(f"implausible order {data[0]}", Cause.DAMAGED)
            return None
        return data[0]

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
        data = self._of_first_tail(head_pfn, layout.large_mapcount, 4, "mapcount")
        return None if data is None else max(0, self._word(data, 0, 4, signed=True) + 1)

    def _aliased(self, address: int, physical: int | None) -> bool | None:
        """Whether the struct page's memory is mapped for its neighbours too."""
        pgmap = self._pgmap
        if pgmap is None and self._lost_pgmaps:
            self._unknown("whether its neighbours share its memory is unknown", Cause.NOT_SAVED)
            return None
        if pgmap is None or pgmap.vmemmap_shift == 0 or pgmap.altmap is not None:
            return False
        step = 1 << self._layout.page_shift
        unknown = physical is None
        for neighbour in (address - step, address + step):
            if not 0 <= neighbour < 1 << 64:
                continue
            try:
                if translate(self._prog, neighbour) == physical and physical is not None:
                    return True
            except NotSaved as error:
                unknown |= error.state is not State.UNMAPPED
        if unknown:
            self._unknown("whether its neighbours share its memory is unknown", Cause.NOT_SAVED)
        return None if unknown else False

    def _flag_names(
        self, flags: int, tail: bool, anonymous: bool = False
    ) -> tuple[str, ...] | None:
        names = self._problems.attempt(
            "names of flags", lambda: flag_names(self._prog, flags, anonymous=anonymous)
        )
        if names is None:
            return None
        # In the first tails the other bits are the order and flags of the folio.
        return tuple(name for name in names if not tail or name in _TAIL_FLAGS)
