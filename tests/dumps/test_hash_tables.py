# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Page tables of processes on POWER with the hash MMU: the pages of a program's text are those that
the page cache has of its file.
"""

from drgn import Object, Program
from drgn.helpers.linux.mm import for_each_vma, page_to_pfn
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.xarray import xa_load
import pytest

from drgn_pmem.kernel.root import ppc64_is_radix, walk_process

from ..samples import program, samples

VM_WRITE, VM_EXEC = 2, 4
LINEAR = 0xC000000000000000
POWER = [s.name for s in samples().values() if s.architecture == "ppc64le"]


@pytest.fixture(params=POWER)
def prog(request: pytest.FixtureRequest) -> Program:
    found = program(request.param, "raw")
    if ppc64_is_radix(found) == ("hash" in request.param):
        pytest.fail("the sample's name says which MMU it has")
    return found


def test_text_of_processes_is_mapped_where_the_page_cache_has_it(prog: Program) -> None:
    shift = prog["PAGE_SHIFT"].value_()
    compared = 0
    for task in for_each_task(prog):
        if not task.mm:
            continue
        for vma in for_each_vma(task.mm):
            flags = vma.vm_flags.value_()
            if not vma.vm_file or not flags & VM_EXEC or flags & VM_WRITE:
                continue
            start, end = vma.vm_start.value_(), vma.vm_end.value_()
            cache = vma.vm_file.f_mapping.i_pages.address_of_()
            for extent in walk_process(prog, task.mm.pgd.value_() - LINEAR, start, end):
                if extent.physical is None:
                    continue
                for offset in range(0, extent.size, 1 << shift):
                    index = (extent.virtual + offset - start >> shift) + vma.vm_pgoff.value_()
                    folio = Object(prog, "struct page *", xa_load(cache, index).value_())
                    pfn = extent.physical + offset >> shift
                    head = page_to_pfn(folio).value_()
                    assert pfn - head in range(64), f"{task.comm} {extent.virtual + offset:#x}"
                    compared += 1
    assert compared > 5
