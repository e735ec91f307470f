# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Owners
------

Page to file to process. Two sources name the file of a page: its struct page (mapping and index)
and the DAX entries of every DAX file (:mod:`drgn_pmem.analysis.owners.daxfiles`); both are asked
where the dump has them, and where they differ the answer says so. Device DAX has no entries; there
the second source is the device's own ranges.
"""

from collections.abc import Iterator

from drgn import Program

from drgn_pmem.analysis.owners.daxfiles import DaxFile, DaxFiles, dax_files_of
from drgn_pmem.analysis.owners.records import Owner, PageOwners
from drgn_pmem.dumpfile.coverage import State
from drgn_pmem.kernel.badblocks import SECTOR
from drgn_pmem.kernel.daxchar import DaxChar
from drgn_pmem.kernel.daxentry import DaxEntry
from drgn_pmem.kernel.daxfs import device_number, host_of_mapping
from drgn_pmem.kernel.dm import dm_pieces, sectors_above
from drgn_pmem.kernel.memory import cached
from drgn_pmem.kernel.namespace import Namespace, for_each_namespace
from drgn_pmem.kernel.page import pages_pgmap, read_page
from drgn_pmem.kernel.rmap import (
    Mapping,
    Proof,
    Vma,
    mapped_pfn,
    mappings_of_page,
    vmas_of_mapping,
)
from drgn_pmem.kernel.tasks import tasks_of
from drgn_pmem.kernel.walk import collect
from drgn_pmem.partial import NotSaved, WalkError

__all__ = ("Owner", "PageOwners", "describe_mapping", "owners_of")

_MAX_RAM_PAGES = 1 << 20
"""Pages of DAX mappings that are looked at for a page of RAM."""


class _StandIns:
    """Pages of RAM that DAX mappings have in their page tables, found once per program."""

    def __init__(self, prog: Program) -> None:
        self.places: dict[int, list[tuple[DaxFile, Vma, int]]] = {}
        self.complete = True
        pgmaps = collect(pages_pgmap(prog))[0]
        shift = int(prog["PAGE_SHIFT"])
        left = _MAX_RAM_PAGES
        for file in dax_files_of(prog).files:
            for vma in vmas_of_mapping(prog, file.inode.mapping).vmas:
                left -= max(vma.end - vma.start, 0) >> shift
                if left < 0:
                    self.complete = False
                    return
                for address in range(vma.start, vma.end, 1 << shift):
                    try:
                        pfn = mapped_pfn(prog, vma.mm, address)
                    except NotSaved:
                        self.complete = False
                        break
                    if pfn is not None and not any(g.has_pfn(pfn) for g in pgmaps):
                        self.places.setdefault(pfn, []).append((file, vma, address))


class _Question:
    """One page's owners, being found."""

    def __init__(self, prog: Program, pfn: int) -> None:
        self.prog = prog
        self.pfn = pfn
        self.files: DaxFiles = dax_files_of(prog)
        self.page = read_page(prog, pfn).value  # its state says what is not known
        self.page_shift = int(prog["PAGE_SHIFT"])
        self.notes: list[str] = []
        self.lacks: list[str] = []

    @property
    def known(self) -> bool:
        """Whether the fields of the struct page stand."""
        page = self.page
        return page.state is State.SAVED and page.reason is None and page.pgmap_known is not False

    def answer(self) -> PageOwners:
        namespace = self._namespace()
        owners = list(self._owners())
        self._explain(owners)
        device = None
        if namespace is not None:
            device = namespace.blockdev or namespace.chardev
        return PageOwners(
            self.pfn,
            self.pfn << self.page_shift,
            namespace.dev if namespace else None,
            device,
            self.page,
            self._shared(owners),
            tuple(owners),
            tuple(dict.fromkeys(self.notes)),
            tuple(dict.fromkeys(self.lacks)),
            self.files.complete,
            self.page_shift,
        )

    def _shared(self, owners: list[Owner]) -> bool | None:
        if not self._is_pmem():
            return None
        files = [o for o in owners if "i_pages" in o.sources]
        if len(files) > 1:
            return True
        if self.known and self.page.shared is not None:
            return self.page.shared
        return False if files and self.files.complete else None

    def _namespace(self) -> Namespace | None:
        namespaces, problems = cached(
            self.prog, "namespaces", lambda: collect(for_each_namespace(self.prog))
        )
        physical = self.pfn << self.page_shift
        found = next((n for n in namespaces if physical in n.range), None)
        if found is None and problems and self._is_pmem():
            self.lacks.append(f"namespace unknown: {problems[0]}")
        return found

    def _owners(self) -> Iterator[Owner]:
        claim = self._claim()
        char = self.files.char_of(self.pfn)
        if char is not None:
            yield self._of_char(char, claim)
            return
        entries = sorted(
            self.files.owners(self.pfn), key=lambda o: (o[0].device, o[0].inode.ino, o[2])
        )
        named = False
        for file, entry, index in entries:
            by_page = claim is not None and claim == (file.inode.mapping, index)
            named |= by_page
            yield self._of_file(
                file, entry, index, ("page", "i_pages") if by_page else ("i_pages",)
            )
        if claim is not None and not named:
            yield from self._of_claim(*claim, bool(entries))
        if claim is None and not entries and not self._is_pmem():
            yield from self._stand_ins()

    def _is_pmem(self) -> bool:
        return self.page.type is not None

    def _claim(self) -> "tuple[int, int] | None":
        """(mapping, index) that the struct page names."""
        page = self.page
        if not self.known or not self._is_pmem():
            return None
        if page.mapping_address is None or page.index is None:
            return None
        return page.mapping_address, page.index

    def _of_file(
        self, file: DaxFile, entry: DaxEntry | None, index: int, sources: tuple[str, ...]
    ) -> Owner:
        mapping = file.inode.mapping
        self.lacks += [f"{file.text()}: {p}" for p in file.names.problems]
        self.lacks += [f"{file.text()}: {p}" for p in vmas_of_mapping(self.prog, mapping).problems]
        return Owner(
            file.inode.ino,
            file.device,
            file.dev,
            file.path,
            file.names.paths,
            file.names.deleted,
            index << self.page_shift,
            self._sector(file),
            entry,
            sources,
            tuple(mappings_of_page(self.prog, mapping, index, self.pfn)),
            tuple(file.open_by) if file.names.deleted else (),
        )

    def _sector(self, file: DaxFile) -> int | None:
        """Sector of the page on the file system's device, through dm-linear if it lies on that."""
        namespace, super_ = self._namespace(), file.inode.super
        if namespace is None or namespace.blockdev is None or super_ is None:
            return None
        if namespace.data_offset is None or len(super_.disks) != 1:
            return None
        offset = (self.pfn << self.page_shift) - namespace.resource - namespace.data_offset
        on = sectors_above(self.prog, namespace.blockdev, offset // SECTOR)
        sector = on.get(super_.disks[0])
        if sector is None:
            problems = dm_pieces(self.prog)[1]
            self.lacks.append(
                f"sector on {super_.disks[0]} not known: its table on {namespace.blockdev}"
                f" {f'cannot be read: {problems[0]}' if problems else 'is not linear'}"
            )
            return None
        return sector - super_.start_sector

    def _of_char(self, char: DaxChar, claim: "tuple[int, int] | None") -> Owner:
        index = char.index_of(self.pfn)
        assert index is not None
        sources = ["range"]
        mapping = char.inode.mapping
        if claim is not None and not self.page.aliased:
            if claim == (mapping, index):
                sources.insert(0, "page")
            else:
                self.notes.append(
                    f"the struct page names {describe_mapping(self.prog, claim[0])} page"
                    f" {claim[1]:#x}, the device's range {char.name} page {index:#x}"
                )
        self.lacks += vmas_of_mapping(self.prog, mapping).problems
        node = char.node
        return Owner(
            node.ino if node else None,
            char.name,
            device_number(node.rdev) if node else None,
            char.paths[0],
            char.paths,
            False,
            index << self.page_shift,
            None,
            None,
            tuple(sources),
            tuple(mappings_of_page(self.prog, mapping, index, self.pfn)),
        )

    def _of_claim(self, mapping: int, index: int, others: bool) -> Iterator[Owner]:
        """What the struct page alone claims."""
        file = self.files.by_mapping(mapping)
        if file is None:
            self.notes.append(
                f"the struct page names the address space {mapping:#x}"
                f" ({describe_mapping(self.prog, mapping)}), which is no DAX file's that was found"
            )
            return
        entry = file.entries.find(index)
        if entry is None and file.entries.problems:
            self.lacks.append(
                f"only the struct page names {file.text()}: its DAX entries cannot be read in full"
            )
            yield self._of_file(file, None, index, ("page",))
            return
        says = "no DAX entry" if entry is None else f"PFN {entry.pfn_at(index) or 0:#x}"
        self.notes.append(
            f"the roads disagree: the struct page names {file.text()} offset"
            f" {index << self.page_shift:#x}, whose i_pages has {says} there"
            + ("; other files' i_pages name this page" if others else "")
        )
        yield self._of_file(file, None, index, ("page",))

    def _stand_ins(self) -> Iterator[Owner]:
        """DAX mappings whose page tables map this page of RAM instead of the file's page: private
        copies, and the zero page of holes."""
        index: _StandIns = cached(self.prog, "stand_ins", lambda: _StandIns(self.prog))
        if not index.complete:
            self.lacks.append("not all DAX mappings were looked at for this page of RAM")
        for file, vma, address in index.places.get(self.pfn, ()):
            page = vma.pgoff + ((address - vma.start) >> self.page_shift)
            entry = file.entries.find(page)
            hole = entry is not None and entry.zero
            users = tasks_of(self.prog).by_mm.get(vma.mm, ())
            yield Owner(
                file.inode.ino,
                file.device,
                file.dev,
                file.path,
                file.names.paths,
                file.names.deleted,
                page << self.page_shift,
                None,
                entry if hole else None,
                ("i_pages", "pte") if hole else ("pte",),
                tuple(Mapping(t, address, Proof.PTE, self.pfn, vma) for t in users),
                private_copy=not hole,
                hole=hole,
            )

    def _why(self) -> str:
        """Why the struct page tells nothing: short, the same for all pages of its kind."""
        if not self.page.initialised:
            return "reserved for the memmap, never initialised"
        if self.page.state is State.SAVED:
            return self.page.reason or "overwritten: it points to no page map of this kernel"
        return f"it is {self.page.state.value} in the dump"

    def _explain(self, owners: list[Owner]) -> None:
        """Say what the answer rests on."""
        page, files = self.page, self.files
        if not self._is_pmem():
            what = ""
            if any(o.private_copy for o in owners):
                what = ": a private copy (copy on write) of a DAX page"
            elif owners:
                what = ": the zero page, which stands for holes of DAX files"
            namespace = self._namespace()
            kind = "no page of persistent memory"
            if namespace is not None:
                kind = f"a page of {namespace.dev} without a page map: System RAM (kmem) or raw"
            self.notes.append(kind + what)
            return
        if not self.known:
            self.notes.append(
                f"the struct page tells nothing ({self._why()});"
                " owners come from i_pages and the page tables alone"
            )
        sharers = len([o for o in owners if "i_pages" in o.sources])
        if sharers > 1:
            self.notes.append(
                f"shared extent: {sharers} files have this page;"
                " a struct page can name one of them at most"
            )
        if files.problems:
            self.lacks.append(
                f"there may be more owners: {files.problems[0]}"
                + (f" (and {len(files.problems) - 1} more)" if len(files.problems) > 1 else "")
            )
        if files.char_problem and page.type != "MEMORY_DEVICE_FS_DAX":
            self.lacks.append(f"device DAX could not be read: {files.char_problem}")
        if tasks_of(self.prog).problems:
            self.lacks.append(f"there may be more processes: {tasks_of(self.prog).problems[0]}")
        if not owners and page.initialised:
            self.notes.append(
                "no DAX file in memory has this page: not touched through a mapping since its file"
                " came into memory, free, or metadata of the file system"
            )


def owners_of(prog: Program, pfn: int) -> PageOwners:
    """
    Files that a page belongs to and processes that map it.

    :param pfn: PFN
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    return _Question(prog, pfn).answer()


def describe_mapping(prog: Program, mapping: int) -> str:
    """
    Short text for an address space: ``"/mnt/a/alpha (ino 14)"``, ``"/dev/dax0.1"``. Never raises
    for what the dump lacks.

    :param mapping: Address of a ``struct address_space``.
    """
    files = dax_files_of(prog)
    file = files.by_mapping(mapping)
    if file is not None:
        return file.text()
    char = files.char_by_mapping(mapping)
    if char is not None:
        return char.paths[0]
    try:
        return f"inode {host_of_mapping(prog, mapping).ino}, no DAX file"
    except WalkError:
        return "no address space of an inode"
