# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Records of owners
-----------------

What :func:`drgn_pmem.analysis.owners.search.owners_of` answers: a page, its files, their processes.
"""

from typing import Any

from drgn_pmem.dumpfile import State
from drgn_pmem.kernel.daxentry import DaxEntry
from drgn_pmem.kernel.pagestate import PageState
from drgn_pmem.kernel.rmap import Mapping, Proof
from drgn_pmem.kernel.tasks import OpenFile
from drgn_pmem.record import Record, Show, shown

__all__ = ("NamedFile", "Owner", "PageOwners")


class NamedFile(Record):
    """A DAX file or a DAX character device, and its names."""

    inode: int | None
    """Inode number; of the device node for device DAX."""
    device: str
    """Block device of the file system (``"pmem0"``), or the DAX device (``"dax0.1"``)."""
    dev: str | None
    """``st_dev``: ``"259:0"``."""
    path: str | None
    paths: tuple[str, ...]
    """As every mount shows every link of it."""
    deleted: bool | None
    """It has no name any more; None if the dentries that show it could not be read."""

    @property
    def name(self) -> str | None:
        """A path of it: :attr:`path`, or one that is certain although another may come first."""
        return self.path or (self.paths[0] if self.paths else None)


class Owner(NamedFile):
    """A file that a page belongs to, and who maps the page through it."""

    offset: int
    """Of the page in the file, bytes."""
    sector: int | None
    """512-byte sector of the page on the device of the file system, as fiemap counts; None for
    device DAX and pages of RAM."""
    entry: DaxEntry | None
    """Its DAX entry; None for device DAX, which has none, and if only the struct page names it."""
    sources: tuple[str, ...]
    """``"page"``: the struct page names it; ``"i_pages"``: a DAX entry does; ``"range"``: the page
    is in the range of the DAX device; ``"pte"``: only page tables do (a private copy in RAM);
    ``"extents"``: an extent of the file has it, and no DAX entry (XFS: not touched through a
    mapping since the file came into memory)."""
    private_copy: bool | None = False
    """The page is a process's private copy (copy on write) of the file's page, in RAM. None, as
    below: it is one of the two, and the DAX entries that show which could not be read."""
    hole: bool | None = False
    """The page is the zero page, mapped where the file has a hole."""
    open_by: tuple[OpenFile, ...] = ()
    """Who has it open."""
    mappings: tuple[Mapping, ...]


class PageOwners(Record):
    """Everything that is known of who owns a page."""

    pfn: int
    physical: int = shown(Show.ADDRESS)
    namespace: str | None
    device: str | None
    page: PageState
    shared: bool | None
    """Belongs to several files (reflink): as the struct page marks it, or as i_pages or extents
    prove it."""
    owners: tuple[Owner, ...]
    unowned: bool | None
    """Whether no DAX file or device that is in memory has the page; None if that is not known."""
    notes: tuple[str, ...]
    """What the answer rests on, and what it lacks: the problems of the answer in words."""
    disagreements: tuple[str, ...] = ()
    """Where the struct page names another file, device or offset than the DAX entries or the
    device's range do; among the notes, too."""
    page_shift: int
    query: str | None = None
    """What the user typed."""

    @property
    def trusted(self) -> bool:
        """Whether the struct page is valid: in the dump, initialised, not overwritten."""
        return self.page.trusted

    @property
    def standing(self) -> str:
        """State of the struct page in the dump; ``"overwritten"`` if its bytes are those of a later
        kernel."""
        page = self.page
        overwritten = page.state is State.SAVED and page.reason is None and not self.trusted
        return "overwritten" if overwritten else page.state.value

    @property
    def processes(self) -> list[tuple[int, str]]:
        """(pid, comm) of those whose page tables are proven to map the page."""
        found = {
            m.task.tgid: m.task.comm
            for owner in self.owners
            for m in owner.mappings
            if m.task is not None and m.proof is Proof.PTE
        }
        return sorted(found.items())

    def to_json(self) -> dict[str, Any]:
        page, trusted = self.page, self.trusted
        reason = page.reason
        if reason is None and not trusted:
            reason = "the struct page was overwritten: it points to no page map of this kernel"
        return {
            "pfn": self.pfn,
            "physical": f"{self.physical:#x}",
            "page": None if page.page is None else f"{page.page:#x}",
            "namespace": self.namespace,
            "device": self.device,
            "type": page.type,
            "state": page.state.value,
            "reason": reason,
            "hwpoison": page.hwpoison if trusted else None,
            "refcount": page.refcount if trusted else None,
            "pinned": page.pinned if trusted else None,
            "shared": self.shared,
            "owners": [o.to_json() for o in self.owners],
            "notes": list(self.notes),
            "query": self.query,
        }
