# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Address spaces and shared pages
-------------------------------

Whether several files share a page (reflink), and a short text for the address space that a struct
page names.
"""

import itertools

from drgn import Object, Program

from drgn_pmem.analysis.owners.daxfiles import dax_chars_of, dax_files_of
from drgn_pmem.analysis.owners.extents import extents_of_page
from drgn_pmem.kernel.daxfs import host_of_mapping
from drgn_pmem.kernel.memory import address_of
from drgn_pmem.kernel.namespace import namespace_of_pfn
from drgn_pmem.kernel.pagestate import PageState
from drgn_pmem.kernel.pgmap import FS_DAX
from drgn_pmem.partial import Partial, Problems

__all__ = ("describe_mapping", "shared_of")


def shared_of(prog: Program, page: PageState) -> Partial[bool | None]:
    """
    Whether a page belongs to several files (reflink): DAX entries of several files name it, extents
    of several files in memory have it, or its struct page counts several. A struct page that counts
    one may belong to more files: the kernel counts those that were read through a mapping since
    they share it.

    :return: None if that is not known, and for pages of RAM.
    """
    problems = Problems()
    if page.type is None:
        return problems.partial(None)
    if page.trusted and (page.shared or page.type != FS_DAX):
        return problems.partial(page.shared)
    lacking = Problems()  # matter only if no other source has two files
    if lacking.take(_has_extents_of_several(prog, page)):
        return problems.partial(True)
    partial = dax_files_of(prog).map(
        lambda files: list(itertools.islice(files.owners(page.pfn), 2))
    )
    more = "there may be more owners"
    if problems.find(partial.map(lambda owners: owners if len(owners) > 1 else None), more):
        return problems.partial(True)
    files = problems.take(partial, more)
    is_counted = page.trusted and page.shared is not None
    problems.extend(lacking, more)
    if lacking:
        return problems.partial(None)
    return problems.partial(False if partial.complete and (files or is_counted) else None)


def _has_extents_of_several(prog: Program, page: PageState) -> Partial[bool]:
    problems = Problems()
    namespace = problems.take(namespace_of_pfn(prog, page.pfn), "namespace of the page")
    extents = problems.take(extents_of_page(prog, namespace, page.physical))
    return problems.partial(sum(not extent.cow for extent, _ in extents) > 1)


def describe_mapping(prog: Program, mapping: "Object | int") -> Partial[str]:
    """
    Short text for an address space: ``"/mnt/a/alpha (ino 14)"``, ``"/dev/dax0.1"``.

    :param mapping: ``struct address_space *``, or its address.
    """
    problems = Problems()
    mapping = address_of(mapping)
    searched = Problems()
    file = searched.find(dax_files_of(prog).map(lambda files: files.by_mapping(mapping)))
    if file is not None:
        return problems.partial(file.text(problems))
    every = dax_chars_of(prog)
    char = searched.find(
        every.map(
            lambda chars: next((char for char in chars if char.inode.mapping == mapping), None)
        )
    )
    if char is not None:
        problems.take(every, "device nodes")  # its path may be cut short
        return problems.partial(char.paths[0])
    problems.extend(searched)
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
