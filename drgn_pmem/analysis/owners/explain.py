# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What an answer about owners rests on
------------------------------------

Notes on the owners of a page: why its struct page says nothing, whether other files may share it,
and why no file has it.
"""

from drgn import Program

from drgn_pmem.analysis.owners.daxfiles import dax_chars_of, dax_files_of
from drgn_pmem.analysis.owners.records import Owner
from drgn_pmem.kernel.daxfs import has_reflinks
from drgn_pmem.kernel.memory import cached
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.kernel.page import pages_pgmap
from drgn_pmem.kernel.pagestate import PageState
from drgn_pmem.kernel.pgmap import FS_DAX
from drgn_pmem.partial import Cause, Partial, Problem, Problems, State

__all__ = ("explain",)


def _why(page: PageState) -> str:
    """Why the struct page says nothing: short, the same for all pages of its kind."""
    if not page.initialised:
        return "reserved for the memmap, never initialised"
    if page.state is State.SAVED:
        return page.reason or "overwritten: it points to no page map of this kernel"
    return f"it is {page.state.value} in the dump"


def explain(
    prog: Program,
    page: PageState,
    namespace: Namespace | None,
    owners: tuple[Owner, ...],
    problems: Problems,
) -> list[str]:
    """
    Notes on what the answer about a page rests on.

    :param namespace: That of the page.
    :param owners: Those that were found.
    """
    notes: list[str] = []
    if page.holds is not None:
        notes.append(f"it holds the {page.holds} of the namespace, not data: no file has it")
        if page.refcount is not None:
            return notes
    if page.type is None:
        return notes + _of_ram(prog, namespace, owners, problems)
    if not page.trusted:
        why = (
            f"the struct page says nothing ({_why(page)});"
            " owners come from i_pages and the page tables alone"
        )
        if page.initialised:
            cause = Cause.DAMAGED if page.state is State.SAVED else Cause.NOT_SAVED
            state = None if page.state is State.SAVED else page.state
            problems.add(Problem(cause=cause, why=why, state=state))
        else:
            notes.append(why)
    by_entries = [owner for owner in owners if "i_pages" in owner.sources]
    for device in dict.fromkeys(owner.device for owner in by_entries):
        if _reflinks(prog, device, problems):
            notes.append(
                f"{device} has reflinks: files not touched through a mapping may share this extent"
            )
    if len(by_entries) > 1:
        notes.append(
            f"shared extent: {len(by_entries)} files have this page;"
            " a struct page can name one of them at most"
        )
    # Only where every file with every entry was read.
    all_files = dax_files_of(prog).complete and (page.type == FS_DAX or dax_chars_of(prog).complete)
    if not owners and page.initialised and all_files:
        notes.append(
            "no DAX file in memory has this page: not touched through a mapping since its file"
            " came into memory, free, or metadata of the file system"
        )
    return notes


def _reflinks(prog: Program, device: str, problems: Problems) -> bool:
    """Whether the file system of a device may share extents between files."""
    files = problems.take(dax_files_of(prog), "there may be more owners").files
    supers = (f.inode.super for f in files if f.device == device)
    super_ = next((s for s in supers if s is not None), None)
    if super_ is None:
        return False
    found: Partial[bool | None] = cached(
        prog, f"reflinks {super_.address:#x}", lambda: has_reflinks(prog, super_)
    )
    return problems.take(found) is not False


def _of_ram(
    prog: Program, namespace: Namespace | None, owners: tuple[Owner, ...], problems: Problems
) -> list[str]:
    """What a page is that no page map covers."""
    pgmaps = pages_pgmap(prog)
    if not pgmaps.complete:
        problems.take(pgmaps, "whether it is persistent memory")
        return []
    what = ""
    if any(owner.private_copy for owner in owners):
        what = ": a private copy (copy on write) of a DAX page"
    elif any(owner.hole for owner in owners):
        what = ": the zero page, which is mapped for holes of DAX files"
    kind = "no page of persistent memory"
    if namespace is not None:
        kind = f"a page of {namespace.dev} without a page map: System RAM (kmem) or raw"
    return [kind + what]
