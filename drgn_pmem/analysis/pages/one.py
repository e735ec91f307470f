# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
One page
--------

A page with its place: the namespace it belongs to, the offset in it, and the owner that its struct
page names.
"""

from dataclasses import dataclass
from typing import Any

from drgn import Program

from drgn_pmem.analysis.owners.search import describe_mapping
from drgn_pmem.kernel.namespace import namespace_of_pfn
from drgn_pmem.kernel.page import PageState, read_page
from drgn_pmem.partial import Partial, Problems

__all__ = ("OnePage", "one_page")


@dataclass(frozen=True)
class OnePage:
    """A page and its place."""

    state: PageState
    namespace: str | None
    offset: int | None
    """Bytes into the data of the namespace; None for its own metadata."""
    owner: str | None
    """What the struct page's mapping is. A hint for device DAX, whose pages keep it after unmap."""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            **self.state.to_json(),
            "namespace": self.namespace,
            "offset": self.offset,
            "owner": self.owner,
        }


def one_page(prog: Program, pfn: int) -> Partial[OnePage]:
    """
    Decode a page and find its place.

    :param pfn: PFN
    :raises MissingDebugInfo: if the layout of struct page is not known at all
    """
    state = read_page(prog, pfn)
    problems = Problems()
    namespace = problems.take(namespace_of_pfn(prog, pfn), f"namespace of PFN {pfn:#x}")
    offset = None
    notes = []
    if namespace is not None and namespace.data_offset is not None:
        start = namespace.resource + namespace.data_offset
        offset = state.physical - start if state.physical >= start else None
    mapping = state.mapping_address if state.type is not None else None
    if state.shared:
        notes.append(f"PFN {pfn:#x} belongs to a shared extent: pmem-rmap {pfn:#x} finds its files")
    if state.refcount is None and state.initialised:
        notes.append(f"PFN {pfn:#x}: pmem-rmap {pfn:#x} finds owners without the struct page")
    owner = None
    if mapping is not None:
        owner = problems.take(describe_mapping(prog, mapping), "owner")
    page = OnePage(
        state,
        namespace.dev if namespace else None,
        offset,
        owner,
        tuple(notes),
    )
    return problems.partial(page)
