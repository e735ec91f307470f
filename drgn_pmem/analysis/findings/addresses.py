# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Kernel addresses of persistent memory
-------------------------------------

What a kernel virtual address (of a register, of a line of the log) has to do with persistent
memory: it is that of a struct page (vmemmap), or what is mapped there is persistent memory (direct
map, ioremap of a namespace); then which namespace, file and offset.

After a memory error the kernel takes the page out of the direct map (``set_mce_nospec()`` in
arch/x86): the address of such a page is known although the page tables map nothing there.
"""

import enum

from drgn import Program
from drgn.helpers.linux.mm import virt_to_phys

from drgn_pmem.analysis.findings.words import few
from drgn_pmem.analysis.owners.search import namespaces_of, owners_of
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.kernel.page_layout import page_layout
from drgn_pmem.kernel.pagetable import translate
from drgn_pmem.kernel.pgmap import for_each_pmem_pgmap
from drgn_pmem.partial import NotSaved, Partial, Problems, State
from drgn_pmem.record import Record, Show, shown

__all__ = ("PmemAddress", "Window", "named_page", "pmem_address")


class Window(enum.Enum):
    """Which part of the kernel's address space an address is in."""

    VMEMMAP = "struct page"
    DIRECT_MAP = "direct map"
    MAPPED = "ioremap"
    """Another mapping of the memory: ``memremap()`` of a namespace, ``vmap()``."""


class PmemAddress(Record):
    """A kernel address that has to do with persistent memory."""

    address: int = shown(Show.ADDRESS)
    window: Window
    pfn: int = shown(Show.ADDRESS)
    """The page, or the one that the struct page describes."""
    page: str
    """The page in words: its files, its namespace."""

    @property
    def words(self) -> str:
        """``"the struct page of /mnt/a offset 0x0 (PFN 0x1000 of namespace0.0)"``"""
        if self.window is Window.VMEMMAP:
            return f"the struct page of {self.page}"
        if self.window is Window.MAPPED:
            return f"{self.page}, mapped by ioremap or the like"
        return self.page


def pmem_address(prog: Program, address: int) -> Partial[PmemAddress | None]:
    """
    What an address has to do with persistent memory.

    :param address: Kernel virtual address.
    :return: None if it has nothing to do with it; with a problem if that is not known.
    """
    problems = Problems()
    found: tuple[Window, int] | None = None
    with problems.trying(f"{address:#x}"):
        found = _find(prog, address, problems)
    if found is None:
        return problems.partial(None)
    window, pfn = found
    page = problems.take(named_page(prog, pfn))
    return problems.partial(PmemAddress(address=address, window=window, pfn=pfn, page=page))


def _find(prog: Program, address: int, problems: Problems) -> tuple[Window, int] | None:
    """The window and the PFN; None if it is no persistent memory."""
    layout = page_layout(prog)
    if address >= layout.vmemmap:
        pfn = (address - layout.vmemmap) // layout.size
        if _is_pmem(prog, pfn, problems):
            return Window.VMEMMAP, pfn
    direct = int(virt_to_phys(prog, address)) & (1 << 64) - 1
    # What lies in the direct map by arithmetic does not need the page tables: a bad page is not
    # mapped there any more.
    if _is_pmem(prog, direct >> layout.page_shift, problems):
        return Window.DIRECT_MAP, direct >> layout.page_shift
    try:
        physical = translate(prog, address)
    except NotSaved as error:
        if error.state is not State.UNMAPPED:
            problems.add(error)
        return None
    pfn = physical >> layout.page_shift
    return (Window.MAPPED, pfn) if _is_pmem(prog, pfn, problems) else None


def _namespace(prog: Program, pfn: int, problems: Problems) -> Namespace | None:
    physical = pfn << page_layout(prog).page_shift
    found = namespaces_of(prog).map(
        lambda known: next((n for n in known if physical in n.range), None)
    )
    return problems.find(found, "namespaces")


def _is_pmem(prog: Program, pfn: int, problems: Problems) -> bool:
    """Whether a page is of a page map, or of a namespace without one (raw and sector mode)."""
    found = for_each_pmem_pgmap(prog).map(
        lambda known: next((pgmap for pgmap in known if pgmap.has_pfn(pfn)), None)
    )
    if problems.find(found, "page maps") is not None:
        return True
    return _namespace(prog, pfn, problems) is not None


def named_page(prog: Program, pfn: int) -> Partial[str]:
    """
    A page in words: ``"/mnt/a offset 0x0 (PFN 0x1000 of namespace0.0)"``, ``"the metadata of
    namespace0.0 at offset 0x1000 (PFN 0x1001)"``.
    """
    problems = Problems()
    owners = problems.take(owners_of(prog, pfn))
    files = few(f"{owner.name or owner.inode} offset {owner.offset:#x}" for owner in owners.owners)
    where = f"PFN {pfn:#x} of {owners.namespace or 'pmem'}"
    if files:
        return problems.partial(f"{files} ({where})")
    namespace = _namespace(prog, pfn, problems)
    if namespace is not None and namespace.enabled is False:
        # Neither struct pages nor a direct map any more: what leads there is stale.
        return problems.partial(f"{where} (disabled)")
    if namespace is not None and namespace.data_offset:
        offset = (pfn << page_layout(prog).page_shift) - namespace.resource
        if offset < namespace.data_offset:
            what = f"the metadata of {namespace.dev} at offset {offset:#x} (PFN {pfn:#x})"
            return problems.partial(what)
    return problems.partial(where)
