# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Where the struct pages are
--------------------------

For each namespace, its struct page array by every source there is: the devm_memmap_vmcore list, the
altmap, the info block in RAM and on the media, the "Device Backed Vmemmap" resource, and the page
tables, which are authoritative; and how much of the array the dump holds.
"""

from collections.abc import Generator, Iterator
from typing import Any

from drgn import FaultError, Program

from drgn_pmem.analysis.inventory.daxonly import dax_without_namespace
from drgn_pmem.analysis.inventory.listing import read_inventory
from drgn_pmem.analysis.inventory.machine import read_machine
from drgn_pmem.analysis.inventory.names import find_namespace
from drgn_pmem.analysis.inventory.parts import PADDING, stretches_of_namespace
from drgn_pmem.analysis.memmap.place import StructPages, read_struct_pages
from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.errors import FormatError, NotFound
from drgn_pmem.formats.infoblock import InfoBlock, parse_infoblock
from drgn_pmem.kernel.dax import DaxDevice
from drgn_pmem.kernel.devm_memmap import MemmapEntry, for_each_memmap_entry, judge_memmap_entries
from drgn_pmem.kernel.iomem import DEVICE_BACKED_VMEMMAP, Resource, for_each_iomem
from drgn_pmem.kernel.namespace import Namespace, pgmap_of
from drgn_pmem.kernel.page import pages_pgmap
from drgn_pmem.kernel.pgmap import Pgmap
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.ranges import RangeSet, short_size
from drgn_pmem.record import Record

__all__ = ("Memmap", "MemmapAnswer", "read_memmap_sources", "read_memmaps", "read_memmaps_in_steps")

_INFOBLOCK_OFFSET = 0x1000
_INFOBLOCK_SIZE = 0x1000


class Memmap(Record):
    """The struct pages of one namespace, by every source."""

    namespace: Namespace
    list_entry: MemmapEntry | None
    pgmap: Pgmap | None
    infoblock_ram: InfoBlock | None
    infoblock_media: InfoBlock | None
    media_state: State
    """What the dump holds of the info block on the media."""
    iomem: Resource | None
    """The "Device Backed Vmemmap" resource."""
    struct_pages: StructPages | None
    notes: tuple[str, ...]
    """Differences between the sources, and what is unusual."""
    page_shift: int
    parts: tuple[tuple[str, int, State | None], ...]
    """(kind of stretch, bytes, what the dump holds of it) from front to end, for a drawing."""
    agree: bool | None
    """Whether all sources agree; None if one could not be read and the others agree."""

    @property
    def place(self) -> str | None:
        """Where the struct pages are; None if the namespace has none."""
        return self.struct_pages.place if self.struct_pages else None

    def namespace_json(self) -> dict[str, Any]:
        """ndctl's keys of the namespace, ours under ``dump``."""
        return self.namespace.to_json() | {
            "dump": {
                "address": hex(self.namespace.object.value_()) if self.namespace.object else None,
                "resource": f"{self.namespace.resource:#x}",
                "raw_size": self.namespace.raw_size,
                "data_offset": self.namespace.data_offset,
                "memmap": self.place,
                "struct_pages": self.struct_pages.to_json() if self.struct_pages else None,
            }
        }

    def to_json(self) -> dict[str, Any]:
        altmap = self.pgmap.altmap if self.pgmap else None
        return {
            "namespace": self.namespace.dev,
            "mode": self.namespace.mode,
            "map": self.namespace.map,
            "size": self.namespace.size,
            "resource": f"{self.namespace.resource:#x}",
            "list": self.list_entry.to_json() if self.list_entry else None,
            "altmap": altmap.to_json() if altmap else None,
            "infoblock_ram": self.infoblock_ram.to_json() if self.infoblock_ram else None,
            "infoblock_media": self.infoblock_media.to_json() if self.infoblock_media else None,
            "infoblock_media_state": self.media_state.value,
            "iomem": self.iomem.to_json() if self.iomem else None,
            "struct_pages": self.struct_pages.to_json() if self.struct_pages else None,
            "agree": self.agree,
            "notes": list(self.notes),
        }


class MemmapAnswer(Record):
    """All namespaces, and what of the list belongs to none of them."""

    memmaps: tuple[Memmap, ...]
    strays: tuple[MemmapEntry, ...]
    """List entries that are not live."""

    def to_json(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """A record a namespace, then one for each list entry that is not live."""
        return [m.to_json() for m in self.memmaps] + [
            {
                "namespace": entry.namespace,
                "list": entry.to_json(),
                "agree": None,
                "notes": [entry.reason] if entry.reason else [],
            }
            for entry in self.strays
        ]

    def only(self, prog: Program, name: str | None) -> "MemmapAnswer":
        """
        The part of one namespace; everything for None.

        :raises NotFound: naming the namespaces that there are
        """
        if name is None:
            return self
        dev = find_namespace(prog, name).dev
        return MemmapAnswer(
            memmaps=tuple(m for m in self.memmaps if m.namespace.dev == dev),
            strays=tuple(e for e in self.strays if e.namespace == dev),
        )


def read_memmaps(prog: Program) -> Partial[MemmapAnswer]:
    """
    The struct pages of every enabled namespace.

    :return: What could be read. An info block on the media that was not saved is no problem here:
        ``media_state`` says it.
    :raises NotFound: if the machine had no persistent memory
    """
    steps = read_memmaps_in_steps(prog)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def read_memmap_sources(prog: Program, name: str | None = None) -> Partial[MemmapAnswer]:
    """
    Every source of where struct pages are, of all namespaces or of one: :func:`read_memmaps` where
    a source that was not saved is a problem of the answer.

    :raises NotFound: if the machine had no persistent memory, or no such namespace
    """
    problems = Problems()
    answer = problems.take(read_memmaps(prog)).only(prog, name)
    for memmap in answer.memmaps:
        namespace = memmap.namespace
        needed = namespace.map is not None and namespace.is_persistent
        # Without a claim, the region maps the pages: no info block is needed.
        if needed and not namespace.has_no_claim and memmap.media_state is not State.SAVED:
            state = memmap.media_state
            why = f"info block on the media is {state.value} in the dump"
            what = namespace.dev
            problems.add(Problem(cause=Cause.NOT_SAVED, what=what, why=why, state=state))
    return problems.partial(answer)


def read_memmaps_in_steps(prog: Program) -> Generator[None, None, Partial[MemmapAnswer]]:
    """:func:`read_memmaps` for a caller that does other work in between: yields after each part."""
    problems = Problems()
    found = read_inventory(prog)
    yield
    inventory = problems.take(found)
    entries, all_entries = [], True
    try:
        listed = for_each_memmap_entry(prog)
        entries, all_entries = problems.take(listed), listed.complete
    except NotFound:
        # not a problem: no released kernel has the list
        pass
    shift = prog["PAGE_SHIFT"].value_()
    entries = judge_memmap_entries(entries, found.map(lambda all_: all_.namespaces), shift)
    resources = problems.take(for_each_iomem(prog))
    pgmaps = problems.take(pages_pgmap(prog))
    pmem = problems.take(read_machine(prog)).pmem
    memmaps = []
    others = problems.take(dax_without_namespace(prog))
    for namespace in (*inventory.namespaces, *others):
        # Whether it is enabled may be unknown: then it is read as if it were.
        if not namespace.idle and namespace.raw_size > 0:
            yield
            with problems.trying(namespace.dev, namespace.dev):
                reader = _Reader(prog, namespace, entries, pgmaps, resources, pmem)
                reader.is_unread = reader.entry is None and not all_entries
                memmaps.append(problems.take(reader.read(), namespace.dev, namespace.dev))
    shown = {memmap.namespace.dev for memmap in memmaps}
    strays = tuple(
        e for e in entries if e.state not in ("live", "unknown") or e.namespace not in shown
    )
    return problems.partial(MemmapAnswer(memmaps=tuple(memmaps), strays=strays))


class _Reader:
    """Reads one namespace's memmap from all sources and compares them."""

    def __init__(
        self,
        prog: Program,
        namespace: Namespace,
        entries: list[MemmapEntry],
        pgmaps: list[Pgmap],
        resources: list[Resource],
        pmem: RangeSet,
    ) -> None:
        self.prog = prog
        self.namespace = namespace
        self.shift = prog["PAGE_SHIFT"].value_()
        # The range of the namespace is persistent memory, whatever the other sources say.
        self.pmem = pmem.union([namespace.range]) if namespace.is_persistent else pmem
        self.entry = next((e for e in entries if e.namespace == namespace.dev), None)
        self.pgmap = pgmap_of(namespace, pgmaps)
        self.iomem = next(
            (
                r
                for r in resources
                if r.name == DEVICE_BACKED_VMEMMAP and r.start in namespace.range
            ),
            None,
        )
        self.problems = Problems()
        self.is_unread = False
        """Whether the entry or the page map of the namespace may be one that was not read."""
        self.notes: list[str] = []
        self.differences: list[str] = []

    def read(self) -> Partial[Memmap]:
        ram = self._infoblock_ram()
        state, media = self._infoblock_media()
        pages = None
        if self.pgmap is not None:
            with self.problems.trying("struct pages"):
                pages = self.problems.take(read_struct_pages(self.prog, self.pgmap, self.pmem))
                self._compare_pages(pages)
        elif any(d.mode == "system-ram" for d in self._dax_devices()):
            self.notes.append("in system-ram mode: its pages are hot-added RAM, not ZONE_DEVICE")
        elif self.namespace.map is not None:
            if pages_pgmap(self.prog).complete:
                self.notes.append("its page map is not in pgmap_array")
            else:
                self.is_unread = True
        if ram is not None and media is not None:
            self._compare_infoblocks(ram, media)
        if ram is not None:
            self._compare_altmap(ram)
        self._compare_list()
        parts = tuple(self._parts())
        memmap = Memmap(
            namespace=self.namespace,
            list_entry=self.entry,
            pgmap=self.pgmap,
            infoblock_ram=ram,
            infoblock_media=media,
            media_state=state,
            iomem=self.iomem,
            struct_pages=pages,
            notes=(*self.differences, *self.notes),
            page_shift=self.shift,
            parts=parts,
            agree=False if self.differences else None if self.problems or self.is_unread else True,
        )
        return self.problems.partial(memmap)

    def _parts(self) -> Iterator[tuple[str, int, State | None]]:
        coverage = coverage_of(self.prog)
        for stretch in stretches_of_namespace(self.prog, self.namespace, self.problems):
            if stretch.kind == PADDING:
                yield PADDING, stretch.end - stretch.start, None
                continue
            for part in coverage.ranges(stretch.start, stretch.end):
                yield stretch.kind, part.size, part.state

    def _dax_devices(self) -> tuple[DaxDevice, ...]:
        region = self.namespace.daxregion
        return region.devices if region else ()

    def _infoblock_ram(self) -> InfoBlock | None:
        """The kernel's copy (``nd_pfn->pfn_sb``). It fills in what older versions lack, so the
        checksum of the media need not fit it."""
        if self.namespace.map is None or self.namespace.claim_object is None:
            return None
        try:
            address = self.namespace.claim_object.pfn_sb.value_()
            if not address:
                return None
            return parse_infoblock(self.prog.read(address, _INFOBLOCK_SIZE), verify=False)
        except (FaultError, FormatError) as error:
            self.problems.add(error, "info block in RAM")
            return None

    def _infoblock_media(self) -> tuple[State, InfoBlock | None]:
        address = self.namespace.resource + _INFOBLOCK_OFFSET
        coverage = coverage_of(self.prog)
        state = coverage.state(address)
        raw = self.namespace.has_no_claim
        if raw or self.namespace.map is None or not coverage.saved(address, _INFOBLOCK_SIZE):
            return state, None
        try:
            return state, parse_infoblock(self.prog.read(address, _INFOBLOCK_SIZE, True))
        except (FaultError, FormatError) as error:
            self.differences.append(f"info block on the media: {error}")
            return state, None

    def _metadata(self) -> tuple[int, int] | None:
        """PFNs [first, end) of info block and struct pages, by the altmap."""
        altmap = self.pgmap.altmap if self.pgmap else None
        return (altmap.base_pfn, altmap.base_pfn + altmap.offset) if altmap else None

    def _compare_infoblocks(self, ram: InfoBlock, media: InfoBlock) -> None:
        for name in ("signature", "uuid", "parent_uuid", "dataoff", "npfns", "mode", "start_pad"):
            ours, theirs = getattr(ram, name), getattr(media, name)
            if ours != theirs:
                self.differences.append(
                    f"info block: {name} is {ours} in RAM and {theirs} on the media"
                )

    def _compare_altmap(self, ram: InfoBlock) -> None:
        metadata = self._metadata()
        if (ram.mode == 2) != (metadata is not None) and self.pgmap is not None:
            self.differences.append(
                f"info block has mode {ram.mode}, the page map has "
                f"{'an' if metadata else 'no'} altmap"
            )
        elif metadata is not None:
            data = (self.namespace.resource + ram.start_pad + ram.dataoff) >> self.shift
            if data != metadata[1]:
                self.differences.append(
                    f"data starts at PFN {data:#x} by the info block, "
                    f"{metadata[1]:#x} by the altmap"
                )

    def _compare_list(self) -> None:
        metadata = self._metadata()
        if self.entry is not None and self.entry.state == "unknown":
            self.problems.add(
                Problem(
                    cause=Cause.NOT_SAVED,
                    why=f"list entry: {self.entry.reason or 'its owner is unknown'}",
                )
            )
        elif self.entry is not None and self.entry.state != "live":
            self.differences.append(f"list entry is {self.entry.state}: {self.entry.reason}")
        elif self.entry is not None and metadata is not None:
            listed = (self.entry.start_pfn, self.entry.end_pfn)
            if listed != metadata:
                self.differences.append(
                    f"list entry has PFN {listed[0]:#x}-{listed[1]:#x}, "
                    f"the altmap {metadata[0]:#x}-{metadata[1]:#x}"
                )
        if self.iomem is not None and metadata is not None:
            found = (self.iomem.start >> self.shift, (self.iomem.end + 1) >> self.shift)
            if found != metadata:
                self.differences.append(
                    f'"{DEVICE_BACKED_VMEMMAP}" is PFN {found[0]:#x}-{found[1]:#x}, '
                    f"the altmap {metadata[0]:#x}-{metadata[1]:#x}"
                )

    def _compare_pages(self, pages: StructPages) -> None:
        metadata = self._metadata()
        if pages.unmapped:
            self.notes.append(f"{pages.unmapped} bytes of struct pages are not mapped")
        if pages.pmem_range is not None:
            first, end = pages.pmem_range.start, pages.pmem_range.end
            inside = metadata is not None and (
                metadata[0] << self.shift <= first and end <= metadata[1] << self.shift
            )
            if not inside:
                self.differences.append(
                    f"struct pages are at physical {first:#x}-{end:#x}, outside the metadata range"
                )
        if self.namespace.map == "dev" and pages.in_ram:
            share = short_size(pages.in_ram) if pages.on_pmem else "all"
            # x86 takes the struct pages of less than a 128 MiB section from RAM
            # (vmemmap_populate()).
            self.notes.append(f"map=dev, but {share} of its struct pages are in RAM")
