# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Where the struct pages are
--------------------------

For each namespace, its struct page array by every source there is: the devm_memmap_vmcore list, the
altmap, the info block in RAM and on the media, the "Device Backed Vmemmap" resource, and the page
tables, which are the truth of it; and how much of the array the dump holds.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from drgn import FaultError, Program

from drgn_pmem.analysis.inventory.listing import read_inventory
from drgn_pmem.analysis.inventory.names import find_namespace
from drgn_pmem.analysis.inventory.parts import PADDING, stretches_of_namespace
from drgn_pmem.analysis.memmap.place import StructPages, address_text, read_struct_pages
from drgn_pmem.dumpfile import State, coverage_of
from drgn_pmem.errors import FormatError, NotFound
from drgn_pmem.formats.infoblock import InfoBlock, parse_infoblock
from drgn_pmem.kernel.dax import DaxDevice
from drgn_pmem.kernel.devm_memmap import MemmapEntry, for_each_memmap_entry, judge_memmap_entries
from drgn_pmem.kernel.iomem import (
    DEVICE_BACKED_VMEMMAP,
    PERSISTENT_MEMORY,
    Resource,
    for_each_iomem,
)
from drgn_pmem.kernel.namespace import Namespace, pgmap_of
from drgn_pmem.kernel.pgmap import Pgmap, for_each_pgmap
from drgn_pmem.kernel.walk import collect
from drgn_pmem.partial import Problems
from drgn_pmem.ranges import Range

__all__ = ("Memmap", "MemmapAnswer", "read_memmaps", "read_memmaps_in_steps")

_INFOBLOCK_OFFSET = 0x1000
_INFOBLOCK_SIZE = 0x1000


@dataclass(frozen=True)
class Memmap:
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
    """Differences between the sources, and what could not be read."""
    page_shift: int
    parts: tuple[tuple[str, int, State | None], ...]
    """(kind of stretch, bytes, what the dump holds of it) from front to end, for a drawing."""
    agree: bool
    """Whether all sources that there are say the same."""

    @property
    def lacks(self) -> list[str]:
        """Sources that the dump does not hold."""
        if self.namespace.map is None or self.media_state is State.SAVED:
            return []
        return [f"its info block on the media is {self.media_state.value} in the dump"]

    @property
    def place(self) -> str | None:
        """Where the struct pages lie; None if the namespace has none."""
        return self.struct_pages.place if self.struct_pages else None

    @property
    def dumped(self) -> str | None:
        """How much of the struct pages the dump holds, in words; None if there are none."""
        pages = self.struct_pages
        if pages is None:
            return None
        if pages.saved == pages.size:
            return "all"
        others = "/".join(s.value for s in pages.states if s is not State.SAVED)
        return f"{100 * pages.saved // pages.size}%, rest {others}" if pages.saved else others

    @property
    def list_text(self) -> str | None:
        """PFNs of the list entry, and what is wrong with it."""
        entry = self.list_entry
        if entry is None:
            return None
        state = "" if entry.state == "live" else f" ({entry.state})"
        return f"{entry.start_pfn:#x}-{entry.end_pfn:#x}{state}"

    @property
    def altmap_text(self) -> str | None:
        """PFNs that the altmap sets aside for info block and struct pages."""
        altmap = self.pgmap.altmap if self.pgmap else None
        if altmap is None:
            return None
        return f"{altmap.base_pfn:#x}-{altmap.base_pfn + altmap.offset:#x}"

    @property
    def iomem_text(self) -> str | None:
        """PFNs of the "Device Backed Vmemmap" resource."""
        if self.iomem is None:
            return None
        return (
            f"{self.iomem.start >> self.page_shift:#x}-{(self.iomem.end + 1) >> self.page_shift:#x}"
        )

    def infoblock_text(self, block: InfoBlock | None) -> str | None:
        """PFNs before the data, by an info block."""
        if block is None:
            return None
        start = self.namespace.resource + block.start_pad
        return f"{start >> self.page_shift:#x}-{(start + block.dataoff) >> self.page_shift:#x}"

    @property
    def media_text(self) -> str | None:
        """PFNs before the data by the info block on the media, or why it cannot be read."""
        if self.namespace.map is None:
            return None
        return self.infoblock_text(self.infoblock_media) or (
            "damaged" if self.media_state is State.SAVED else self.media_state.value
        )

    def physical_text(self, which: str) -> str | None:
        """Physical address of the first or last struct page."""
        return address_text(getattr(self.struct_pages, which)) if self.struct_pages else None

    def namespace_json(self) -> dict[str, Any]:
        """ndctl's keys of the namespace, ours under ``dump``."""
        return self.namespace.to_json() | {
            "dump": {
                "address": address_text(self.namespace.object and self.namespace.object.value_()),
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


@dataclass(frozen=True)
class MemmapAnswer:
    """All namespaces, and what of the list belongs to none of them."""

    memmaps: list[Memmap]
    strays: list[MemmapEntry]
    """List entries that are not live."""
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> list[dict[str, Any]]:
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
            [m for m in self.memmaps if m.namespace.dev == dev],
            [e for e in self.strays if e.namespace == dev],
            self.problems,
        )


def read_memmaps(prog: Program) -> MemmapAnswer:
    """
    The struct pages of every enabled namespace.

    :raises NotFound: if the machine had no persistent memory
    """
    steps = read_memmaps_in_steps(prog)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def read_memmaps_in_steps(prog: Program) -> Generator[None, None, MemmapAnswer]:
    """The same for who has other things to do between: yields after each part of the work."""
    found = read_inventory(prog)
    yield
    lacking = Problems()
    inventory = lacking.take(found)
    problems = list(map(str, lacking))
    try:
        entries, stopped = collect(for_each_memmap_entry(prog))
    except NotFound:
        entries, stopped = [], []
    problems.extend(stopped)
    shift = prog["PAGE_SHIFT"].value_()
    entries = judge_memmap_entries(entries, found.map(lambda all_: all_.namespaces), shift)
    resources, stopped = collect(for_each_iomem(prog))
    problems.extend(stopped)
    pgmaps, stopped = collect(for_each_pgmap(prog))
    problems.extend(stopped)
    # Either may be missing: regions without debug info of libnvdimm, and iomem does not name the
    # persistent memory of every provider.
    pmem = [region.range for region in inventory.regions] + [
        r.range for r in resources if r.desc in PERSISTENT_MEMORY
    ]
    memmaps = []
    for namespace in inventory.namespaces:
        if namespace.enabled:
            yield
            memmaps.append(_Reader(prog, namespace, entries, pgmaps, resources, pmem).read())
    return MemmapAnswer(memmaps, [e for e in entries if e.state != "live"], problems)


class _Reader:
    """Reads one namespace's memmap from all sources and compares them."""

    def __init__(
        self,
        prog: Program,
        namespace: Namespace,
        entries: list[MemmapEntry],
        pgmaps: list[Pgmap],
        resources: list[Resource],
        pmem: list[Range],
    ) -> None:
        self.prog = prog
        self.namespace = namespace
        self.shift = prog["PAGE_SHIFT"].value_()
        self.pmem = pmem
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
        self.notes: list[str] = []
        self.differences: list[str] = []

    def read(self) -> Memmap:
        ram = self._infoblock_ram()
        state, media = self._infoblock_media()
        pages = None
        if self.pgmap is not None:
            pages = read_struct_pages(self.prog, self.pgmap, self.pmem)
            self._compare_pages(pages)
        elif any(d.mode == "system-ram" for d in self._dax_devices()):
            self.notes.append("in system-ram mode: its pages are hot-added RAM, not ZONE_DEVICE")
        elif self.namespace.map is not None:
            self.notes.append("its page map is not in pgmap_array")
        if ram is not None and media is not None:
            self._compare_infoblocks(ram, media)
        if ram is not None:
            self._compare_altmap(ram)
        self._compare_list()
        return Memmap(
            self.namespace,
            self.entry,
            self.pgmap,
            ram,
            media,
            state,
            self.iomem,
            pages,
            (*self.differences, *self.notes),
            self.shift,
            tuple(self._parts()),
            not self.differences,
        )

    def _parts(self) -> Iterator[tuple[str, int, State | None]]:
        coverage = coverage_of(self.prog)
        for stretch in stretches_of_namespace(self.prog, self.namespace, []):
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
            self.notes.append(f"info block in RAM: {error}")
            return None

    def _infoblock_media(self) -> tuple[State, InfoBlock | None]:
        address = self.namespace.resource + _INFOBLOCK_OFFSET
        coverage = coverage_of(self.prog)
        state = coverage.state(address)
        if self.namespace.map is None or not coverage.saved(address, _INFOBLOCK_SIZE):
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
                f"info block says mode {ram.mode}, the page map has "
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
        if self.entry is not None and self.entry.state != "live":
            self.differences.append(f"list entry is {self.entry.state}: {self.entry.reason}")
        elif self.entry is not None and metadata is not None:
            listed = (self.entry.start_pfn, self.entry.end_pfn)
            if listed != metadata:
                self.differences.append(
                    f"list says PFN {listed[0]:#x}-{listed[1]:#x}, "
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
            self.notes.append(f"{pages.unmapped} bytes of struct pages are mapped nowhere")
        if pages.unknown:
            self.notes.append(
                f"where {pages.unknown} bytes of struct pages are is not known: {pages.why_unknown}"
            )
        if pages.pmem_range is not None:
            first, end = pages.pmem_range.start, pages.pmem_range.end
            inside = metadata is not None and (
                metadata[0] << self.shift <= first and end <= metadata[1] << self.shift
            )
            if not inside:
                self.differences.append(
                    f"struct pages lie at physical {first:#x}-{end:#x}, outside the metadata range"
                )
        if self.namespace.map == "dev" and pages.in_ram:
            share = "all" if not pages.on_pmem else f"{pages.in_ram} bytes"
            # x86 takes the struct pages of less than a 128 MiB section from RAM
            # (vmemmap_populate()).
            self.notes.append(f"map=dev, but {share} of its struct pages lie in RAM")
