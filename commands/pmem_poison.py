# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-poison``: bad memory and the files, processes or metadata on it."""

import argparse

from drgn import Program

from drgn_pmem.commands.common import OWNER_MODULES
from drgn_pmem.output.table import Field
from drgn_pmem.record import Show
from drgn_pmem.spec import Answer, Argument, command


@command(
    name="pmem-poison",
    description="show bad pages and the files, offsets, processes or metadata that they hit",
    long_description=(
        "Join every trace of bad persistent memory page by page: bad ranges of the NVDIMM buses,\n"
        "badblocks of regions, block devices and namespaces, the last poison list that the kernel\n"
        "asked of each CXL device (may be out of date), poisoned struct pages (HWPoison),\n"
        "and the lines of the kernel log: memory failures, machine checks, APEI/GHES and\n"
        "EDAC (HISTORY: in the order of the log). PROOF shows whether the page is still in the\n"
        "process's page tables (pte) or was unmapped, as the kernel does when it kills (vma)."
    ),
    arguments=(
        Argument("-v", "--verbose", action="store_true",
                 help="show how each address and offset follows, and the lines of the kernel log"),
    ),
    fields=(
        Field("PFN", lambda p: f"{p.pfn:#x}", "bad page", right=True),
        Field("PHYSICAL", lambda p: f"{p.physical:#x}", "first bad byte of it", right=True),
        Field("SOURCES", lambda p: p.sources, "sources that report it", keep=2, wrap=True),
        Field("NAMESPACE", lambda p: p.namespace and p.namespace.dev, "namespace", keep=1),
        Field("PLACE", lambda p: p.place.value, "data, info block, struct pages, raw, outside",
              keep=1),
        Field("OFFSET", lambda p: p.data_offset,
              "bytes into the namespace's data, as pmem-page NAMESPACE+OFFSET takes it", right=True,
              show=Show.ADDRESS),
        Field("RAW_OFFSET", lambda p: p.namespace_offset,
              "bytes from the start of the namespace (ndctl inject-error counts 512-byte blocks of"
              " it)", right=True, shown=False, show=Show.ADDRESS),
        Field("DEVICE", lambda p: p.namespace and (p.namespace.blockdev or p.namespace.chardev),
              "block or DAX device of the namespace", shown=False),
        Field("DIMMS", lambda p: p.dimms,
              "DIMM that it is on; several where the region is interleaved over them", shown=False),
        Field("SECTOR", lambda p: None if p.data_offset is None else p.data_offset // 512,
              "512-byte sector of its block device", right=True),
        Field("HITS", lambda p: p.hits, "file or metadata", keep=3, wrap=True),
        Field("FILE_OFFSET",
              lambda p: [f"{o.offset + p.physical % (1 << p.owners.page_shift):#x}"
                         for o in p.owners.owners],
              "bytes in each file", right=True, keep=3),
        Field("PROCESSES", lambda p: [f"{pid}/{comm}" for pid, comm, _ in p.processes],
              "processes with the page in a VMA", keep=3, wrap=True),
        Field("PROOF", lambda p: [proof for _, _, proof in p.processes], "of each process"),
        Field("STATE", lambda p: p.owners.standing, "of the struct page in the dump",
              shown=False),
        Field("HISTORY", lambda p: [event for _, event, _ in p.history],
              "events of the kernel log, in its order", shown=False),
        Field("MESSAGES", lambda p: [line.text for line in p.lines], "kernel log", shown=False),
    ),
    examples=(
        ("pmem-poison", "all bad pages"),
        ("pmem-poison -v", "with the arithmetic and the kernel log"),
        ("pmem-poison --json", "the same as JSON"),
    ),
    code=(
        "from drgn_pmem import find_poison\n\n"
        "answer = find_poison(prog)  # answer.problems: what it lacks\n"
        "pages = answer.value.pages\n"
        "for page in pages:\n"
        "    print(hex(page.pfn), page.sources, page.place.value, page.hits, page.processes)\n"
        "    for step in page.arithmetic:\n"
        "        print('   ', step)\n"
    ),
    modules=OWNER_MODULES | {"libnvdimm": "bad ranges and badblocks, names of namespaces",
                               "cxl_core": "poison lists of CXL devices"},
)  # fmt: skip
def pmem_poison(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.findings.poison import find_poison
    from drgn_pmem.partial import Problems

    problems = Problems()
    found = problems.take(find_poison(prog))
    pages, notes = found.pages, list(found.notes)
    if args.verbose:
        for page in pages:
            notes += [f"PFN {page.pfn:#x}: {step}" for step in page.arithmetic]
            notes += [f"PFN {page.pfn:#x}: log: {line.text}" for line in page.lines]
    if not pages:
        what = "bad range, badblock, poisoned page or log line"
        notes.append(
            f"no {what} was found, but not all could be looked at"
            if any(problem.degrades for problem in problems)
            else f"no bad memory was found: no {what}"
        )
    return Answer(list(pages), notes=notes, problems=problems)
