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
import itertools

from drgn import Object, Program

from drgn_pmem.analysis.owners.daxfiles import DaxFile, dax_chars_of, dax_files_of, openers_of_char
from drgn_pmem.analysis.owners.rampages import is_hole, ram_pages_of
from drgn_pmem.analysis.owners.records import Owner, PageOwners
from drgn_pmem.errors import UsageError
from drgn_pmem.kernel.badblocks import SECTOR
from drgn_pmem.kernel.daxchar import DaxChar
from drgn_pmem.kernel.daxentry import DaxEntry
from drgn_pmem.kernel.daxfs import device_number, has_reflinks, host_of_mapping
from drgn_pmem.kernel.dm import sectors_above
from drgn_pmem.kernel.memory import address_of, cached
from drgn_pmem.kernel.namespace import Namespace, for_each_namespace
from drgn_pmem.kernel.page import page_layout, pages_pgmap, read_page
from drgn_pmem.kernel.pagestate import PageState
from drgn_pmem.kernel.paths import paths_of_inode
from drgn_pmem.kernel.ramuse import ram_use_of
from drgn_pmem.kernel.rmap import Mapping, Proof, mappings_of_page
from drgn_pmem.kernel.tasks import openers_of, tasks_of
from drgn_pmem.partial import Cause, Partial, Problem, Problems, State

__all__ = ("Owner", "PageOwners", "describe_mapping", "namespaces_of", "owners_of", "shared_of")

_FS_DAX = "MEMORY_DEVICE_FS_DAX"


def namespaces_of(prog: Program) -> Partial[list[Namespace]]:
    """The namespaces of a program, read once."""
    namespaces: Partial[list[Namespace]] = cached(
        prog, "namespaces", lambda: for_each_namespace(prog)
    )
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
        self.namespace = self._namespace()

    @property
    def known(self) -> bool:
        """Whether the fields of the struct page are valid."""
        page = self.page
        return page.state is State.SAVED and page.reason is None and page.pgmap_known is not False

    def answer(self) -> Partial[PageOwners]:
        namespace = self.namespace
        owners = tuple(self._owners())
        shared = self.problems.take(shared_of(self.prog, self.page))
        self._explain(owners)
        device = None
        if namespace is not None:
            device = namespace.blockdev or namespace.chardev
        record = PageOwners(
            pfn=self.pfn,
            physical=self.pfn << self.page_shift,
            namespace=namespace.dev if namespace else None,
            device=device,
            page=self.page,
            shared=shared,
            owners=owners,
            notes=tuple(dict.fromkeys(self.notes)),
            problems=tuple(self.problems),
            page_shift=self.page_shift,
        )
        return self.problems.partial(record)

    def _namespace(self) -> Namespace | None:
        physical = self.pfn << self.page_shift
        partial = namespaces_of(self.prog)
        # One that is found is certain; problems of others matter only where none is, or not all of
        # it is known.
        found = next((n for n in partial.value if physical in n.range), None)
        if found is None or found.data_offset is None or not (found.blockdev or found.chardev):
            self.problems.take(partial, "namespace of the page")
        return found

    @property
    def _is_pmem(self) -> bool:
        """Whether a page map covers the page."""
        return self.page.type is not None

    def _owners(self) -> Iterator[Owner]:
        claim = self._claim()
        if self._is_pmem and self.page.type != _FS_DAX:
            char = self._char()
            if char is not None:
                yield self._of_char(char, claim)
                return
        files = self.problems.take(dax_files_of(self.prog), "there may be more owners")
        entries = sorted(files.owners(self.pfn), key=lambda o: (o[0].device, o[0].inode.ino, o[2]))
        named = False
        for file, entry, index in entries:
            by_page = claim in ((file.inode.mapping, index), (file.inode.mapping, None))
            named |= by_page
            yield self._of_file(
                file, entry, index, ("page", "i_pages") if by_page else ("i_pages",)
            )
        if claim is not None and not named:
            yield from self._of_claim(*claim, bool(entries))
        if claim is None and not entries and not self._is_pmem:
            copies = list(self._ram_page())
            yield from copies
            if not copies:
                yield from self._of_ram()

    def _char(self) -> DaxChar | None:
        """The DAX character device that the page belongs to."""
        chars = self.problems.take(dax_chars_of(self.prog), "device DAX")
        return next((c for c in chars if c.index_of(self.pfn) is not None), None)

    def _claim(self) -> "tuple[int, int | None] | None":
        """(mapping, index) that the struct page names; the index is None where this kernel does not
        keep it."""
        page = self.page
        if not self.known or not self._is_pmem:
            return None
        if page.mapping_address is None:
            return None
        return page.mapping_address, page.index

    def _of_file(
        self, file: DaxFile, entry: DaxEntry | None, index: int, sources: tuple[str, ...]
    ) -> Owner:
        take, what = self.problems.take, file.text(self.problems)
        names = take(file.names, what)
        mapped = mappings_of_page(self.prog, file.inode.mapping, index, self.pfn)
        return Owner(
            inode=file.inode.ino,
            device=file.device,
            dev=file.dev,
            path=names.path,
            paths=names.paths,
            deleted=names.deleted,
            offset=index << self.page_shift,
            sector=self._sector(file),
            entry=entry,
            sources=sources,
            mappings=take(mapped, what),
            open_by=take(file.open_by),
        )

    def _sector(self, file: DaxFile) -> int | None:
        """Sector of the page on the file system's device, through dm-linear if it is on that."""
        namespace, super_ = self.namespace, file.inode.super
        if namespace is None or namespace.blockdev is None or super_ is None:
            return None
        if namespace.data_offset is None or len(super_.disks) != 1:
            return None
        offset = (self.pfn << self.page_shift) - namespace.resource - namespace.data_offset
        partial = sectors_above(self.prog, namespace.blockdev, offset // SECTOR)
        disk = super_.disks[0]
        if super_.disk != disk:
            return None  # a realtime or log device: the file system's sectors are of another disk
        sector = partial.value.get(disk)
        if sector is not None:
            return sector - super_.start_sector
        what = f"sector on {disk}"
        self.problems.take(partial, what)
        if partial.complete:
            why = (
                f"its place on {namespace.blockdev} follows from no linear target of device mapper"
            )
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
                self.notes.append(
                    f"the struct page names {take(describe_mapping(self.prog, claim[0]))}{page},"
                    f" the device's range {char.name} page {index:#x}"
                )
        node = char.node
        mapped = mappings_of_page(self.prog, mapping, index, self.pfn)
        return Owner(
            inode=node.ino if node else None,
            device=char.name,
            dev=device_number(node.rdev) if node else None,
            path=char.paths[0],
            paths=char.paths,
            deleted=False,
            offset=index << self.page_shift,
            sector=None,
            entry=None,
            sources=tuple(sources),
            mappings=take(mapped, char.name),
            open_by=take(openers_of_char(self.prog, char)),
        )

    def _of_claim(self, mapping: int, index: int | None, others: bool) -> Iterator[Owner]:
        """What the struct page alone claims."""
        partial = dax_files_of(self.prog)  # its problems are taken already
        file = partial.value.by_mapping(mapping)
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
            self.notes.append(
                f"the two sources disagree: the struct page names {what} offset"
                f" {index << self.page_shift:#x}, whose i_pages has {says} there"
                + ("; other files' i_pages name this page" if others else "")
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
            names = take(file.names)
            users = take(tasks_of(self.prog)).by_mm.get(vma.mm, ())
            yield Owner(
                inode=file.inode.ino,
                device=file.device,
                dev=file.dev,
                path=names.path,
                paths=names.paths,
                deleted=names.deleted,
                offset=page << self.page_shift,
                sector=None,
                entry=entry if hole else None,
                sources=("i_pages", "pte") if hole and entry is not None else ("pte",),
                mappings=tuple(
                    Mapping(task=t, address=address, proof=Proof.PTE, pfn=self.pfn, vma=vma)
                    for t in users
                ),
                open_by=take(file.open_by),
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
            users = ", ".join(f"{u.task.tgid}/{u.task.comm} at {u.address:#x}" for u in ram.users)
            note += f", of {users}"
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

    def _why(self) -> str:
        """Why the struct page says nothing: short, the same for all pages of its kind."""
        if not self.page.initialised:
            return "reserved for the memmap, never initialised"
        if self.page.state is State.SAVED:
            return self.page.reason or "overwritten: it points to no page map of this kernel"
        return f"it is {self.page.state.value} in the dump"

    def _explain(self, owners: tuple[Owner, ...]) -> None:
        """Say what the answer rests on."""
        page = self.page
        if page.holds is not None:
            self.notes.append(
                f"it holds the {page.holds} of the namespace, not data: no file has it"
            )
            if page.refcount is not None:
                return
        if not self._is_pmem:
            self._explain_ram(owners)
            return
        if not self.known:
            why = (
                f"the struct page says nothing ({self._why()});"
                " owners come from i_pages and the page tables alone"
            )
            if page.initialised:
                cause = Cause.DAMAGED if page.state is State.SAVED else Cause.NOT_SAVED
                state = None if page.state is State.SAVED else page.state
                self.problems.add(Problem(cause=cause, why=why, state=state))
            else:
                self.notes.append(why)
        for device in dict.fromkeys(o.device for o in owners if "i_pages" in o.sources):
            if self._reflinks(device):
                self.notes.append(
                    f"{device} has reflinks: files not touched through a mapping may share this"
                    " extent"
                )
        sharers = len([o for o in owners if "i_pages" in o.sources])
        if sharers > 1:
            self.notes.append(
                f"shared extent: {sharers} files have this page;"
                " a struct page can name one of them at most"
            )
        # Only where every file with every entry was read.
        all_files = dax_files_of(self.prog).complete and (
            page.type == _FS_DAX or dax_chars_of(self.prog).complete
        )
        if not owners and page.initialised and all_files:
            self.notes.append(
                "no DAX file in memory has this page: not touched through a mapping since its file"
                " came into memory, free, or metadata of the file system"
            )

    def _reflinks(self, device: str) -> bool:
        """Whether the file system of a device may share extents between files."""
        files = self.problems.take(dax_files_of(self.prog), "there may be more owners").files
        supers = (f.inode.super for f in files if f.device == device)
        super_ = next((s for s in supers if s is not None), None)
        if super_ is None:
            return False
        found: Partial[bool | None] = cached(
            self.prog, f"reflinks {super_.address:#x}", lambda: has_reflinks(self.prog, super_)
        )
        return self.problems.take(found) is not False

    def _explain_ram(self, owners: tuple[Owner, ...]) -> None:
        pgmaps = pages_pgmap(self.prog)
        if not pgmaps.complete:
            self.problems.take(pgmaps, "whether it is persistent memory")
            return
        what = ""
        if any(o.private_copy for o in owners):
            what = ": a private copy (copy on write) of a DAX page"
        elif any(o.hole for o in owners):
            what = ": the zero page, which is mapped for holes of DAX files"
        kind = "no page of persistent memory"
        if self.namespace is not None:
            kind = f"a page of {self.namespace.dev} without a page map: System RAM (kmem) or raw"
        self.notes.append(kind + what)


def owners_of(prog: Program, page: "Object | int") -> Partial[PageOwners]:
    """
    Files that a page belongs to and processes that map it.

    :param page: PFN, or ``struct page *``.
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    return _Question(prog, _pfn(prog, page)).answer()


def _pfn(prog: Program, page: "Object | int") -> int:
    if not isinstance(page, Object):
        return page
    address = address_of(page)
    pfn = page_layout(prog).pfn(address)
    if pfn is None:
        raise UsageError(f"{address:#x} is not the address of a struct page")
    return pfn


def shared_of(prog: Program, page: PageState) -> Partial[bool | None]:
    """
    Whether a page belongs to several files (reflink): DAX entries of several files name it, or its
    struct page counts several. A struct page that counts one may belong to more files: the kernel
    counts those that were read through a mapping since they share it.

    :return: None if that is not known, and for pages of RAM.
    """
    problems = Problems()
    known = page.state is State.SAVED and page.reason is None and page.pgmap_known is not False
    if page.type is None:
        return problems.partial(None)
    if known and (page.shared or page.type != _FS_DAX):
        return problems.partial(page.shared)
    partial = dax_files_of(prog)
    files = len(list(itertools.islice(partial.value.owners(page.pfn), 2)))
    if files > 1:
        return problems.partial(True)
    problems.take(partial, "there may be more owners")
    is_counted = known and page.shared is not None
    return problems.partial(False if partial.complete and (files or is_counted) else None)


def describe_mapping(prog: Program, mapping: "Object | int") -> Partial[str]:
    """
    Short text for an address space: ``"/mnt/a/alpha (ino 14)"``, ``"/dev/dax0.1"``.

    :param mapping: ``struct address_space *``, or its address.
    """
    problems = Problems()
    mapping = address_of(mapping)
    files, chars = dax_files_of(prog), dax_chars_of(prog)
    file = files.value.by_mapping(mapping)
    if file is not None:
        return problems.partial(file.text(problems))
    char = next((char for char in chars.value if char.inode.mapping == mapping), None)
    problems.take(chars)
    if char is not None:
        return problems.partial(char.paths[0])
    problems.take(files)
    text = f"address space {mapping:#x}"
    with problems.trying(text):
        inode = host_of_mapping(prog, mapping)
        if inode is None:
            text = "no address space of an inode"
        elif not problems:
            text = f"inode {inode.ino}, no DAX file"
        else:
            text = f"inode {inode.ino}"
    return problems.partial(text)
