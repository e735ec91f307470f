# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What an answer about owners rests on
------------------------------------

Notes on the owners of a page: why its struct page cannot be used, whether other files may share
it, and why no file has it.
"""

from drgn import Program

from drgn_pmem.analysis.inventory.machine import read_machine
from drgn_pmem.analysis.owners.daxfiles import dax_chars_of, dax_files_of
from drgn_pmem.analysis.owners.records import Owner
from drgn_pmem.kernel.daxfs import DaxSuper, has_reflinks
from drgn_pmem.kernel.memory import cached
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.kernel.page import pages_pgmap
from drgn_pmem.kernel.pagestate import PageState
from drgn_pmem.kernel.pgmap import FS_DAX
from drgn_pmem.kernel.xfsextents import xfs_extents_of
from drgn_pmem.partial import Cause, Partial, Problem, Problems, State

__all__ = ("explain",)


def _why(page: PageState) -> str:
    """Why the struct page cannot be used: short, the same for all pages of its kind."""
    if not page.initialised:
        return "reserved for the memmap, never initialised"
    if page.state is State.SAVED:
        if page.pgmap_known is False or page.reason is None:
            return "overwritten after the crash"
        return page.reason
    if page.state is State.UNKNOWN and page.reason is not None:
        return page.reason
    return f"{page.state.value} in the dump"


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
        return notes + _of_ram(prog, page, namespace, owners, problems)
    if not page.trusted:
        why = (
            f"the struct page cannot be used ({_why(page)}):"
            " owners come from i_pages and the page tables only"
        )
        if page.initialised:
            cause = Cause.DAMAGED if page.state is State.SAVED else Cause.NOT_SAVED
            state = None if page.state is State.SAVED else page.state
            problems.add(Problem(cause=cause, why=why, state=state))
        else:
            notes.append(why)
    of_files = [owner for owner in owners if {"i_pages", "extents"} & set(owner.sources)]
    for device in dict.fromkeys(owner.device for owner in of_files):
        if _reflinks(prog, device, problems):
            known = _has_extents(prog, device, problems)
            others = "that were not in memory" if known else "not touched through a mapping"
            notes.append(f"{device} has reflinks: files {others} may share this extent")
    if len(of_files) > 1:
        notes.append(
            f"shared extent: {len(of_files)} files have this page;"
            " a struct page can name one of them at most"
        )
    # Only where every file with every entry was read.
    all_files = dax_files_of(prog).complete and (page.type == FS_DAX or dax_chars_of(prog).complete)
    if not owners and page.holds is None and page.initialised and all_files:
        notes.append(
            "no DAX file in memory has this page: not touched through a mapping since its file"
            " came into memory, free, or metadata of the file system"
        )
    return notes


def _super_of(prog: Program, device: str, problems: Problems) -> DaxSuper | None:
    files = problems.take(dax_files_of(prog), "there may be more owners").files
    supers = (f.inode.super for f in files if f.device == device)
    return next((s for s in supers if s is not None), None)


def _reflinks(prog: Program, device: str, problems: Problems) -> bool:
    """Whether the file system of a device may share extents between files."""
    super_ = _super_of(prog, device, problems)
    if super_ is None:
        return False
    found: Partial[bool | None] = cached(
        prog, f"reflinks {super_.address:#x}", lambda: has_reflinks(prog, super_)
    )
    return problems.take(found) is not False


def _has_extents(prog: Program, device: str, problems: Problems) -> bool:
    """Whether the extents of all files in memory are known, and were looked at."""
    super_ = _super_of(prog, device, problems)
    if super_ is None or super_.disks != (super_.disk,):
        return False
    extents = xfs_extents_of(prog, super_)
    return problems.take(extents) is not None and extents.complete


def _of_ram(
    prog: Program,
    page: PageState,
    namespace: Namespace | None,
    owners: tuple[Owner, ...],
    problems: Problems,
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
        mode = _mode_without_page_map(prog, page, namespace, problems)
        kind = f"a page of {namespace.dev} without a page map: {mode}"
    return [kind + what]


def _mode_without_page_map(
    prog: Program, page: PageState, namespace: Namespace, problems: Problems
) -> str:
    machine = read_machine(prog)
    own = Problems()
    if page.physical in own.take(machine).system_ram:
        return "used as RAM, System RAM (kmem)"
    if machine.complete and namespace.mode is not None:
        return f"{namespace.mode} mode"
    problems.extend(own, "whether it is used as RAM")
    return "System RAM (kmem) or raw"
