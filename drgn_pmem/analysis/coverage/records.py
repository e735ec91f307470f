# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Records of coverage
-------------------

What a dump holds of a namespace, as :mod:`drgn_pmem.analysis.coverage.namespaces` finds it out. The
cases are those of "[RFC PATCH v2 0/3] pmem memmap dump support":

==============================  =====================  ======================
what was dumped                 struct pages in RAM    struct pages on pmem
==============================  =====================  ======================
user data of the pmem too       A                      B
struct pages only               C                      D
==============================  =====================  ======================

No case: the dump has neither, or the namespace has no struct pages.
"""

from collections.abc import Iterator
from typing import Any

from drgn_pmem.analysis.inventory.parts import PADDING, Stretch
from drgn_pmem.analysis.memmap.intact import MemmapCheck
from drgn_pmem.analysis.memmap.place import StructPages
from drgn_pmem.dumpfile import Coverage, State
from drgn_pmem.ranges import percent, short_size
from drgn_pmem.record import Record, Show, shown

__all__ = ("CoverageAnswer", "NamespaceCoverage")


class NamespaceCoverage(Record):
    """What the dump holds of one namespace."""

    namespace: str | None
    """None for one that is known from its info block only."""
    mode: str | None
    map: str | None
    start: int = shown(Show.ADDRESS)
    """Physical."""
    end: int | None = shown(Show.ADDRESS)
    """Exclusive; None if that is not known."""
    stretches: tuple[Stretch, ...]
    infoblock: dict[State, int]
    metadata: dict[State, int]
    """Info block included."""
    userdata: dict[State, int]
    unknown: dict[State, int]
    """Metadata and user data of which the boundary is not known."""
    struct_pages: dict[State, int]
    """Struct pages that read as zero count as excluded."""
    pages: StructPages | None
    check: MemmapCheck | None
    intact: bool = False
    """Whether all struct pages that were saved could be checked, and are the crashed kernel's."""
    kmem: int | None = 0
    """bytes of it that the kernel used as RAM (dax/kmem); None if that is not known"""
    notes: tuple[str, ...] = ()
    advice: str = ""
    coverage: Coverage | None = shown(Show.HIDDEN, default=None)

    def parts(self) -> Iterator[tuple[str, int, State | None]]:
        """(kind of stretch, bytes, state) from front to end, for a drawing."""
        for item in self.stretches:
            if item.kind == PADDING or self.coverage is None:
                yield PADDING, item.end - item.start, None
                continue
            for part in self.coverage.ranges(item.start, item.end):
                yield item.kind, part.size, part.state

    @property
    def is_persistent(self) -> bool:
        """Whether it is a namespace; else a DAX device without one, of memory that is not
        persistent."""
        return self.namespace is None or self.namespace.startswith("namespace")

    @property
    def placed(self) -> bool:
        """Whether it is known where all its struct pages are."""
        return self.pages is not None and not self.pages.unknown and self.kmem == 0

    @property
    def location(self) -> str | None:
        """Where the struct pages are by the page tables, whatever the namespace was made with:
        ``"mem"``, ``"pmem"``, ``"pmem + mem"``; None if there are none, or that is not known."""
        if self.pages is None or not self.placed:
            return None
        places = [
            n for n, size in (("pmem", self.pages.on_pmem), ("mem", self.pages.in_ram)) if size
        ]
        return " + ".join(places) or None

    @property
    def has_memmap(self) -> bool:
        """Whether it has struct pages at all."""
        return bool(self.struct_pages) or self.location is not None

    @property
    def memmap_saved(self) -> int:
        """bytes"""
        return self.struct_pages.get(State.SAVED, 0)

    @property
    def memmap_size(self) -> int:
        """bytes"""
        return sum(self.struct_pages.values())

    @property
    def destroyed(self) -> bool:
        """Whether the struct pages were initialised again after the crash."""
        return self.check is not None and self.check.destroyed

    @property
    def scope(self) -> str | None:
        """What was dumped: ``"pmem"`` (user data too), ``"metadata"`` or ``"nothing"``; None if
        unknown."""
        if self.userdata.get(State.SAVED):
            return "pmem"
        if self.pages is not None and self.pages.unknown:
            return None
        if self.unknown.get(State.SAVED) or not self.memmap_known:
            return None
        # Struct pages in RAM are in every dump: of those on pmem and in RAM, more than these.
        mixed = self.pages is not None and self.pages.on_pmem and not self.kmem
        always = self.pages.in_ram if mixed and self.pages is not None else 0
        return "metadata" if self.memmap_saved > always else "nothing"

    @property
    def memmap_known(self) -> bool:
        """Whether it is known which struct pages it has, or that it has none."""
        none = self.map is None and self.mode in ("raw", "sector")
        return self.pages is not None or bool(self.kmem) or none

    @property
    def case(self) -> str | None:
        """Case of the RFC."""
        if self.location is None or self.scope in (None, "nothing"):
            return None
        on_pmem = self.pages is not None and self.pages.on_pmem > 0
        if self.scope == "pmem":
            return "B" if on_pmem else "A"
        return "D" if on_pmem else "C"

    @property
    def verdict(self) -> str:
        """One sentence."""
        return _verdict(self)

    def to_json(self) -> dict[str, Any]:
        def sizes(states: dict[State, int]) -> dict[str, int]:
            return {state.value: size for state, size in states.items()}

        return {
            "namespace": self.namespace,
            "mode": self.mode,
            "map": self.map,
            "start": f"{self.start:#x}",
            "end": None if self.end is None else f"{self.end:#x}",
            "case": self.case,
            "location": self.location,
            "scope": self.scope,
            "infoblock": sizes(self.infoblock),
            "metadata": sizes(self.metadata),
            "userdata": sizes(self.userdata),
            "unknown": sizes(self.unknown),
            "struct_pages": sizes(self.struct_pages),
            "memmap": self.pages.to_json() if self.pages else None,
            "check": self.check.to_json() if self.check else None,
            "kmem": self.kmem,
            "verdict": self.verdict,
            "advice": self.advice,
            "notes": list(self.notes),
        }


class CoverageAnswer(Record):
    """All namespaces."""

    namespaces: tuple[NamespaceCoverage, ...]
    notes: tuple[str, ...] = ()


def _verdict(item: NamespaceCoverage) -> str:
    if item.destroyed and item.check is not None:
        return (
            "its struct pages were initialised again after the crash, by the capture kernel: "
            f"{item.check.evidence}; they hold nothing of the crashed kernel"
        )
    data = _share(item)
    if item.kmem:
        return f"{short_size(item.kmem)} of it was used as RAM (System RAM (kmem)); {data}"
    if item.location is None:
        if set(item.struct_pages) == {State.UNMAPPED}:
            return f"nothing maps its struct pages; {data}"
        if item.has_memmap or item.map is not None or item.mode in ("fsdax", "devdax"):
            return f"the location of its struct pages is unknown; {data}"
        if item.mode is None:
            return f"its mode is unknown; {data}"
        return f"no struct pages ({item.mode} mode); {data}"
    where = {"mem": "in RAM", "pmem": "on the pmem"}.get(item.location, "on the pmem and in RAM")
    if not item.struct_pages:
        return f"its struct pages are {where}; more needs debug info"
    if item.memmap_saved == item.memmap_size:
        if not item.intact:
            return f"all its struct pages, {where}, were saved; not all could be checked"
        return f"all its struct pages, {where}, were saved and are intact"
    if item.memmap_saved:
        return (
            f"{percent(item.memmap_saved, item.memmap_size)} of its struct pages, {where}, were "
            f"saved; the rest is {_others(item.struct_pages)}"
        )
    return (
        f"its struct pages are {where} and none were saved ({_others(item.struct_pages)}): page "
        "state is unknown, owners come from i_pages only"
    )


def _others(states: dict[State, int]) -> str:
    return " or ".join(state.value for state in states if state is not State.SAVED)


def _share(item: NamespaceCoverage) -> str:
    """How much of the user data was saved."""
    states = item.userdata
    total = sum(states.values())
    if not total and item.unknown and State.SAVED not in item.unknown:
        return f"no data is in the dump ({_others(item.unknown)})"
    if not total:
        return "the location of its data is unknown"
    saved = states.get(State.SAVED, 0)
    if saved == total:
        return "all data is in the dump"
    if not saved:
        return f"no data is in the dump ({_others(states)})"
    return f"{percent(saved, total)} of the data was saved, the rest is {_others(states)}"
