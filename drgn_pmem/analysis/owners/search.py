# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Owners
------

Page to file to process. Two sources name the file of a page: its struct page (mapping and index)
and the DAX entries of every DAX file (:mod:`drgn_pmem.analysis.owners.daxfiles`). Both are read
where they were saved, and where they differ the answer says so. Device DAX has no entries: there
the second source is the range of the device.
"""

from collections.abc import Iterator

from drgn import Object, Program

from drgn_pmem.analysis.inventory.daxonly import dax_without_namespace
from drgn_pmem.analysis.inventory.pgmapnames import pgmap_name, whose_device_memory
from drgn_pmem.analysis.owners.daxfiles import (
    DaxFile,
    DaxFiles,
    dax_chars_of,
    dax_files_of,
    identity_of_char,
)
from drgn_pmem.analysis.owners.explain import explain
from drgn_pmem.analysis.owners.extents import extents_of_page, sector_on
from drgn_pmem.analysis.owners.rampages import is_hole, ram_pages_of
from drgn_pmem.analysis.owners.records import Owner, PageOwners
from drgn_pmem.analysis.owners.shared import describe_mapping, shared_of
from drgn_pmem.kernel.daxchar import DaxChar
from drgn_pmem.kernel.daxentry import DaxEntry
from drgn_pmem.kernel.daxfs import device_number
from drgn_pmem.kernel.memory import cached
from drgn_pmem.kernel.namespace import Namespace, for_each_namespace
from drgn_pmem.kernel.page import pages_pgmap, read_page
from drgn_pmem.kernel.page_layout import pfn_of
from drgn_pmem.kernel.paths import paths_of_inode
from drgn_pmem.kernel.pgmap import FS_DAX, is_dax_type, is_driver_type
from drgn_pmem.kernel.ramuse import anonymous_users, ram_use_of, words_of_users
from drgn_pmem.kernel.rmap import Mapping, Proof, mappings_of_page
from drgn_pmem.kernel.tasks import openers_of, tasks_of
from drgn_pmem.partial import Cause, Partial, Problem, Problems

__all__ = ("Owner", "PageOwners", "namespaces_of", "owners_of")


def namespaces_of(prog: Program) -> Partial[list[Namespace]]:
    """The namespaces of a program, and DAX devices without one, read once."""

    def read() -> Partial[list[Namespace]]:
        problems = Problems()
        namespaces = problems.take(for_each_namespace(prog))
        others = problems.take(dax_without_namespace(prog))
        return problems.partial([*namespaces, *others])

    namespaces: Partial[list[Namespace]] = cached(prog, "namespaces", read)
    return namespaces


class _Question:
    """One page's owners, being found."""

    def __init__(self, prog: Program, pfn: int) -> None:
        self.prog = prog
        self.pfn = pfn
        self.problems = Problems()
        self.page = self.problems.take(read_page(prog, pfn))
        self.page_shift = int(prog["PAGE_SHIFT"])
        self.notes: list[str] = []
        self.disagreements: list[str] = []
        self.namespace = self._namespace()

    def answer(self) -> Partial[PageOwners]:
        namespace = self.namespace
        owners: tuple[Owner, ...] = ()
        shared: bool | None = False
        if not self._is_of_driver:  # neither files nor DAX devices have that
            owners = tuple(self._owners())
            shared = self.problems.take(shared_of(self.prog, self.page))
            self.notes += explain(self.prog, self.page, namespace, owners, self.problems)
        name = device = None
        if namespace is not None:
            name, device = namespace.dev, namespace.blockdev or namespace.chardev
        elif self._is_pmem:
            name = self.problems.take(pgmap_name(self.prog, self.pfn))
        if self.page.type is not None and not is_dax_type(self.page.type):
            self.notes.append(whose_device_memory(name, str(self.page.type)))
            users = self.problems.take(anonymous_users(self.prog, self.page))
            if users:
                self.notes.append(f"anonymous memory of {words_of_users(users)}")
        record = PageOwners(
            pfn=self.pfn,
            physical=self.pfn << self.page_shift,
            namespace=name,
            device=device,
            page=self.page,
            shared=shared,
            owners=owners,
            unowned=None if not owners and self.problems else not owners,
            notes=tuple(dict.fromkeys((*self.notes, *map(str, self.problems)))),
            disagreements=tuple(self.disagreements),
            page_shift=self.page_shift,
        )
        return self.problems.partial(record)

    def _namespace(self) -> Namespace | None:
        physical = self.pfn << self.page_shift
        partial = namespaces_of(self.prog)
        # One that is found is certain; problems of others matter only where none is, or not all of
        # it is known.
        at = partial.map(lambda found: next((n for n in found if physical in n.range), None))
        what = "namespace of the page"
        found = self.problems.find(at, what)
        if found is None or found.data_offset is None or not (found.blockdev or found.chardev):
            self.problems.take(partial, what)
        return found

    def _disagree(self, sentence: str) -> None:
        """Note that the struct page and the other source name different owners."""
        self.notes.append(sentence)
        self.disagreements.append(sentence)

    @property
    def _is_pmem(self) -> bool:
        """Whether a page map covers the page."""
        return self.page.type is not None

    @property
    def _is_of_driver(self) -> bool:
        """Whether it is known to be device memory that is not of DAX."""
        return self.page.type is not None and is_driver_type(self.page.type)

    def _owners(self) -> Iterator[Owner]:
        claim = self._claim()
        if self._is_pmem and self.page.type != FS_DAX:
            char = self._char()
            if char is not None:
                yield self._of_char(char, claim)
                return
        files = self.problems.take(dax_files_of(self.prog), "there may be more owners")
        known: set[tuple[int, int]] = set()
        entries = sorted(files.owners(self.pfn), key=lambda o: (o[0].device, o[0].inode.ino, o[2]))
        named = False
        for file, entry, index in entries:
            known.add((file.inode.mapping, index))
            by_page = claim in ((file.inode.mapping, index), (file.inode.mapping, None))
            named |= by_page
            yield self._of_file(
                file, entry, index, ("page", "i_pages") if by_page else ("i_pages",)
            )
        if claim is not None and not named:
            for owner in self._of_claim(*claim, bool(entries)):
                known.add((claim[0], owner.offset >> self.page_shift))
                yield owner
        if self._is_pmem:
            yield from self._of_extents(files, known)
        if claim is None and not entries and not self._is_pmem:
            copies = list(self._ram_page())
            yield from copies
            if not copies:
                yield from self._of_ram()

    def _of_extents(self, files: DaxFiles, known: set[tuple[int, int]]) -> Iterator[Owner]:
        """
        Files whose extents have the page, although no DAX entry of theirs names it.

        :param known: (mapping, index) of the owners that were found.
        """
        partial = extents_of_page(self.prog, self.namespace, self.pfn << self.page_shift)
        for extent, offset in self.problems.take(partial, "there may be more owners"):
            inode, index = extent.inode, offset >> self.page_shift
            file = files.by_mapping(inode.mapping)
            if file is None:  # a file of the file system without DAX
                file = DaxFile.without_entries(self.prog, inode)
            if extent.cow:
                self.notes.append(
                    f"reserved for a copy on write of {file.text(self.problems)} at offset "
                    f"{offset:#x}, not part of it yet"
                )
            elif (inode.mapping, index) not in known:
                yield self._of_file(file, None, index, ("extents",))

    def _char(self) -> DaxChar | None:
        """The DAX character device that the page belongs to."""
        chars = self.problems.take(dax_chars_of(self.prog), "device DAX")
        return next((c for c in chars if c.index_of(self.pfn) is not None), None)

    def _claim(self) -> "tuple[int, int | None] | None":
        """(mapping, index) that the struct page names; the index is None where this kernel does not
        keep it."""
        page = self.page
        if not page.trusted or not self._is_pmem:
            return None
        if page.mapping_address is None:
            return None
        return page.mapping_address, page.index

    def _of_file(
        self, file: DaxFile, entry: DaxEntry | None, index: int, sources: tuple[str, ...]
    ) -> Owner:
        take, what = self.problems.take, file.text(self.problems)
        mapped = mappings_of_page(self.prog, file.inode.mapping, index, self.pfn)
        return Owner(
            **file.identity(self.problems, what),
            offset=index << self.page_shift,
            sector=self._sector(file),
            entry=entry,
            sources=sources,
            mappings=take(mapped, what),
        )

    def _sector(self, file: DaxFile) -> int | None:
        """Sector of the page on the file system's device, through dm-linear if it is on that."""
        namespace, super_ = self.namespace, file.inode.super
        if namespace is None or namespace.blockdev is None or super_ is None:
            return None
        if namespace.data_offset is None or len(super_.disks) != 1:
            return None
        disk = super_.disks[0]
        if super_.disk != disk:
            return None  # a realtime or log device: the file system's sectors are of another disk
        what = f"sector on {disk}"
        partial = sector_on(self.prog, namespace, self.pfn << self.page_shift, disk)
        sector = self.problems.find(partial, what)
        if sector is not None:
            return sector - super_.start_sector
        if partial.complete:
            why = f"no linear target of device mapper has its place on {namespace.blockdev}"
            self.problems.add(Problem(cause=Cause.UNSUPPORTED, why=why), what)
        return None

    def _of_char(self, char: DaxChar, claim: "tuple[int, int | None] | None") -> Owner:
        index = char.index_of(self.pfn)
        assert index is not None
        sources = ["range"]
        mapping = char.inode.mapping
        take = self.problems.take
        if claim is not None and not self.page.aliased:
            if claim in ((mapping, index), (mapping, None)):
                sources.insert(0, "page")
            else:
                page = "" if claim[1] is None else f" page {claim[1]:#x}"
                self._disagree(
                    f"the struct page names {take(describe_mapping(self.prog, claim[0]))}{page},"
                    f" the device's range {char.name} page {index:#x}"
                )
        mapped = mappings_of_page(self.prog, mapping, index, self.pfn)
        return Owner(
            **identity_of_char(self.prog, char, self.problems),
            offset=index << self.page_shift,
            sector=None,
            entry=None,
            sources=tuple(sources),
            mappings=take(mapped, char.name),
        )

    def _of_claim(self, mapping: int, index: int | None, others: bool) -> Iterator[Owner]:
        """What the struct page alone claims."""
        partial = dax_files_of(self.prog)
        file = self.problems.take(partial, "there may be more owners").by_mapping(mapping)
        if file is None:
            what = self.problems.take(describe_mapping(self.prog, mapping))
            known = "which belongs to no DAX file" if partial.complete else "whose file is unknown"
            self.notes.append(
                f"the struct page names the address space {mapping:#x} ({what}), {known}"
            )
            return
        what = file.text(self.problems)
        if index is None:
            self.problems.take(file.entries, what)
            self.notes.append(
                f"the struct page names {what} and no offset in it (this kernel does not keep it),"
                " and its i_pages do not have this page"
            )
            return
        entry = self.problems.take(file.entries, what).find(index)
        if entry is not None or file.entries.complete:
            there = None if entry is None else entry.pfn_at(index)
            says = "no DAX entry" if there is None else f"PFN {there:#x}"
            self._disagree(
                f"the two sources disagree: the struct page names {what} offset"
                f" {index << self.page_shift:#x}, whose i_pages has {says} there"
                + ("; other DAX entries name this page" if others else "")
            )
        yield self._of_file(file, None, index, ("page",))

    def _ram_page(self) -> Iterator[Owner]:
        """DAX mappings whose page tables map this page of RAM in place of the file's page: private
        copies, and the zero page of holes."""
        take = self.problems.take
        places = take(ram_pages_of(self.prog), "RAM pages mapped in place of DAX pages")
        for file, vma, address in places.get(self.pfn, ()):
            page = vma.pgoff + ((address - vma.start) >> self.page_shift)
            entry = take(file.entries).find(page)
            hole = is_hole(file, vma, page, self.problems)
            users = take(tasks_of(self.prog)).by_mm.get(vma.mm, ())
            yield Owner(
                **file.identity(self.problems),
                offset=page << self.page_shift,
                sector=None,
                entry=entry if hole else None,
                sources=("i_pages", "pte") if hole and entry is not None else ("pte",),
                mappings=tuple(
                    Mapping(task=t, address=address, proof=Proof.PTE, pfn=self.pfn, vma=vma)
                    for t in users
                ),
                private_copy=None if hole is None else not hole,
                hole=hole,
            )

    def _of_ram(self) -> Iterator[Owner]:
        """Owner of a page of RAM: persistent memory that is used as RAM has no other."""
        if not pages_pgmap(self.prog).complete:
            return
        ram = self.problems.take(ram_use_of(self.prog, self.page))
        if ram.use is None:
            return
        note = f"its struct page says: {ram.use.value}"
        if ram.users:
            note += f", of {words_of_users(ram.users)}"
        if ram.blocks_offline:
            note += "; it keeps its memory block from going offline"
        self.notes.append(note)
        if ram.inode is None or ram.offset is None:
            return
        take = self.problems.take
        names = take(paths_of_inode(self.prog, ram.inode))
        index = ram.offset >> self.page_shift
        mapped = take(mappings_of_page(self.prog, ram.inode.mapping, index, self.pfn))
        openers = take(openers_of(self.prog)).get(ram.inode.address, ())
        super_ = ram.inode.object.i_sb
        yield Owner(
            inode=ram.inode.ino,
            device=super_.s_id.string_().decode("utf-8", "backslashreplace"),
            dev=device_number(super_.s_dev.value_()),
            path=names.path,
            paths=names.paths,
            deleted=names.deleted,
            offset=ram.offset,
            sector=None,
            entry=None,
            sources=("page",),
            mappings=mapped,
            open_by=openers,
        )


def owners_of(prog: Program, page: "Object | int") -> Partial[PageOwners]:
    """
    Files that a page belongs to and processes that map it.

    :param page: PFN, or ``struct page *``.
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    return _Question(prog, pfn_of(prog, page)).answer()
