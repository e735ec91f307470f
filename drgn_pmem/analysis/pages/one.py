# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
One page
--------

A page with the namespace it belongs to, the offset in it, and the owner that its struct page names.
"""

from typing import Any

from drgn import Object, Program

from drgn_pmem.analysis.inventory.pgmapnames import pgmap_name, whose_device_memory
from drgn_pmem.analysis.owners.shared import describe_mapping, shared_of
from drgn_pmem.analysis.pages.bad import bad_sources
from drgn_pmem.dumpfile import State
from drgn_pmem.kernel.namespace import namespace_of_pfn
from drgn_pmem.kernel.page import pages_pgmap, read_page
from drgn_pmem.kernel.page_layout import USE_NOT_SHOWN, page_layout, pfn_of
from drgn_pmem.kernel.pagestate import PageState
from drgn_pmem.kernel.paths import paths_of_inode
from drgn_pmem.kernel.pgmap import DEVICE_DAX, is_dax_type, use_of_device_memory
from drgn_pmem.kernel.ramuse import RamPage, anonymous_users, ram_use_of, words_of_users
from drgn_pmem.partial import Cause, Partial, Problem, Problems
from drgn_pmem.record import Record, Show, shown

__all__ = ("PmemPage", "read_pmem_page")


class PmemPage(Record):
    """A page and where it is."""

    state: PageState
    namespace: str | None
    """Or what else its page map belongs to; None if it is in none, or that is unknown."""
    offset: int | None
    """Bytes into the data of the namespace; None for its own metadata."""
    owner: str | None
    """What the struct page's mapping is. A hint for device DAX, whose pages keep it after unmap."""
    ram: RamPage | None = None
    """What a page of RAM is used for; None for persistent memory, and if that is not known."""
    query: str | None = None
    """What the user typed."""
    shows_use: bool = shown(Show.HIDDEN, default=True)
    """Whether a page without an owner is not in use."""
    shared: bool | None = None
    """Belongs to several files (reflink), by its struct page or by their DAX entries."""
    poison: tuple[str, ...] | None = None
    """Sources that report it as bad: ``"pmem1 badblocks"``, ``"HWPoison"``, ``"kernel log"``; empty
    if none does, None if that is not known."""
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """What the page is doing: ``"idle"``, ``"file"``, ``"shared"``, ``"pinned"``,
        ``"poisoned"``, ``"aliased"`` or several of them, ``"memmap"``, ``"uninitialised"``,
        ``"overwritten"``, ``"unknown"``; of device memory that is not of DAX ``"anonymous"``,
        ``"free"``, ``"device memory"``; of RAM ``"page cache"``, ``"anonymous"``, ``"slab"``,
        ``"page table"``, ``"reserved"``, ``"free"``; the state of a struct page that is not in the
        dump."""
        state = self.state
        if not state.initialised:
            return "uninitialised"
        if state.pgmap_known is False:
            return "overwritten"
        if state.holds is not None and state.refcount is not None:
            return f"poisoned,{state.holds}" if state.hwpoison else state.holds
        if state.refcount is None:
            return "unknown" if state.state is State.SAVED else state.state.value
        if state.type is not None and not is_dax_type(state.type):
            use = use_of_device_memory(state.type, state.mapping or 0, state.refcount)
            return f"poisoned,{use}" if state.hwpoison else use
        words = (
            ("poisoned", state.hwpoison),
            (self.ram.use.value if self.ram and self.ram.use else "", self.ram is not None),
            ("pinned", state.pinned),
            ("shared", self.shared),
            ("aliased", state.aliased),
            ("file", state.mapping_address is not None and state.type is not None),
        )
        found = ",".join(word for word, is_so in words if is_so and word)
        # Idle: no count and no owner contradicts it, and all of them are known.
        known = state.pinned is not None and self.shows_use
        return found or ("idle" if known else "unknown")

    def to_json(self) -> dict[str, Any]:
        return {
            **self.state.to_json(),
            "shared": self.shared,
            "namespace": self.namespace,
            "offset": self.offset,
            "owner": self.owner,
            "use": self.ram.use.value if self.ram and self.ram.use else None,
            "blocks_offline": self.ram.blocks_offline if self.ram else None,
            "poison": None if self.poison is None else list(self.poison),
            "query": self.query,
        }


def read_pmem_page(
    prog: Program, page: "Object | int", query: str | None = None
) -> Partial[PmemPage]:
    """
    Decode a page and find its namespace and offset.

    :param page: PFN, or ``struct page *``.
    :param query: What the user typed for it, to keep with the answer.
    :raises MissingDebugInfo: if the layout of struct page is not known at all
    """
    problems = Problems()
    pfn = pfn_of(prog, page)
    state = problems.take(read_page(prog, pfn))
    namespace = problems.take(namespace_of_pfn(prog, pfn), f"namespace of PFN {pfn:#x}")
    offset = None
    notes = []
    if namespace is not None and namespace.data_offset is not None:
        start = namespace.resource + namespace.data_offset
        offset = state.physical - start if state.physical >= start else None
    mapping = state.mapping_address if state.type is not None else None
    shared = problems.take(shared_of(prog, state))
    if shared:
        notes.append(f"PFN {pfn:#x} belongs to a shared extent: pmem-rmap {pfn:#x} finds its files")
    if state.refcount is None and state.initialised and state.holds is None:
        notes.append(f"PFN {pfn:#x}: pmem-rmap {pfn:#x} finds owners without the struct page")
    ram = None
    owner = problems.take(describe_mapping(prog, mapping)) if mapping is not None else None
    if state.type is None and pages_pgmap(prog).complete:
        ram = problems.take(ram_use_of(prog, state))
        owner = _owner_of_ram(prog, ram, problems)
    name = namespace.dev if namespace is not None else problems.take(pgmap_name(prog, pfn))
    if state.type is not None and not is_dax_type(state.type):
        notes.append(f"PFN {pfn:#x}: {whose_device_memory(name, state.type)}")
        owner = words_of_users(problems.take(anonymous_users(prog, state))) or owner
    shows_use = state.type not in DEVICE_DAX or state.page is None or page_layout(prog).keeps_index
    if not shows_use and state.refcount is not None:
        problems.add(Problem(cause=Cause.FORMAT, what=f"PFN {pfn:#x}", why=USE_NOT_SHOWN))
    poison = problems.take(bad_sources(prog, state, ram is not None))
    if poison:
        bad = ", ".join(poison)
        notes.append(f"PFN {pfn:#x} is bad ({bad}): pmem-poison shows what it hits")
    record = PmemPage(
        state=state,
        namespace=name,
        offset=offset,
        owner=owner,
        ram=ram,
        shows_use=shows_use,
        shared=shared,
        query=query,
        poison=poison,
        notes=tuple(notes),
    )
    return problems.partial(record)


def _owner_of_ram(prog: Program, ram: RamPage, problems: Problems) -> str | None:
    """``"/usr/bin/x (ino 12)"`` of page cache, ``"12/comm at 0x7f00"`` of anonymous memory."""
    if ram.users:
        return words_of_users(ram.users)
    if ram.inode is None:
        return None
    names = problems.take(paths_of_inode(prog, ram.inode))
    return f"{names.name} (ino {ram.inode.ino})" if names.name else f"inode {ram.inode.ino}"
