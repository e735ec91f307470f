# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Page tables of processes map what drgn finds in them."""

from drgn import FaultError, Object, Program
from drgn.helpers.linux.mm import follow_phys
import pytest

from drgn_pmem.analysis.owners.daxfiles import dax_files_of
from drgn_pmem.kernel.rmap import mapped_pfn, vmas_of_mapping

from ..samples import CASES, Case

CHOSEN = ("6.1-fileload:elf", "7.2-fileload:raw", "ppc64le-6.12:raw", "arm64-6.12:elf")


@pytest.fixture(params=[case for case in CASES if str(case) in CHOSEN], ids=str)
def chosen(request: pytest.FixtureRequest) -> Case:
    case: Case = request.param
    return case


def pfn_by_drgn(prog: Program, mm: int, address: int) -> int | None:
    try:
        physical = follow_phys(Object(prog, "struct mm_struct *", mm), address).value_()
    except FaultError:
        return None
    return int(physical) >> int(prog["PAGE_SHIFT"])


def test_processes_map_what_drgn_finds(chosen: Case) -> None:
    prog = chosen.prog
    looked = 0
    for file in dax_files_of(prog).value.files:
        for vma in vmas_of_mapping(prog, file.inode.mapping).value:
            for address in range(vma.start, min(vma.end, vma.start + 0x40000), 0x10000):
                answer = mapped_pfn(prog, vma.mm, address)
                assert answer.complete
                assert answer.value == pfn_by_drgn(prog, vma.mm, address)
                looked += answer.value is not None
    assert looked
