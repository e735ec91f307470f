# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-pins``: pinned pages, their holders, and the tasks that wait for them."""

import argparse

from drgn import Program

from drgn_pmem.commands.common import OWNER_MODULES, WAIT_MODULES
from drgn_pmem.output.table import Field
from drgn_pmem.spec import Answer, Argument, command


@command(
    name="pmem-pins",
    description="show pages with extra references (pinned), who holds them and who waits for them",
    long_description=(
        "Show the pages of DAX files and devices with more references than mappings explain,\n"
        "their holders, certain (pipes filled by vmsplice, io_uring's registered buffers, direct\n"
        "I/O on the stacks, memory failures before Linux 4.19) or possible (with ?: RDMA, vfio),\n"
        "and the tasks that wait for them in a DAX layout break (truncate, hole punch, unmount)."
    ),
    arguments=(
        Argument("-w", "--waited", action="store_true", help="only pages that a task waits for"),
    ),
    fields=(
        Field("PFN", lambda p: f"{p.pfn:#x}", "page", right=True),
        Field("NAMESPACE", lambda p: p.owners.namespace, "namespace"),
        Field("REFCOUNT", lambda p: p.count("refcount"), "as it is stored", right=True),
        Field("MAPCOUNT", lambda p: p.count("mapcount"),
              "mappings, where the kernel counts them", right=True),
        Field("PINS", lambda p: p.count("pins"),
              "extra references: beyond mappings and idle ones (FOLL_PIN counts 1024)",
              right=True, keep=1),
        Field("FILES", lambda p: [o.name or f"inode {o.inode}" for o in p.owners.owners],
              "file or device of the page", keep=2, wrap=True),
        Field("OFFSET", lambda p: [f"{o.offset:#x}" for o in p.owners.owners],
              "in each file, bytes", right=True),
        Field("HELD_BY",
              lambda p: [f"{h.process} {h.kind.value}{'' if h.certain else '?'}".strip()
                         for h in p.holders],
              "process and how", keep=2, wrap=True),
        Field("WAITED_BY", lambda p: [f"{w.task.pid}/{w.task.comm}" for w in p.waiters],
              "tasks in a layout break", keep=1, wrap=True),
        Field("WAITS_IN", lambda p: [w.place for w in p.waiters], "their function"),
        Field("EVIDENCE", lambda p: [h.evidence for h in p.holders], "of each holder",
              shown=False),
        Field("STATE", lambda p: p.owners.standing, "of the struct page in the dump",
              shown=False),
    ),
    examples=(
        ("pmem-pins", "all held pages"),
        ("pmem-pins -w -o +evidence", "pages that a task waits for, and evidence of holders"),
    ),
    code=lambda args: (
        "from drgn_pmem import find_pins\n\n"
        "answer = find_pins(prog)  # answer.problems: what it lacks\n"
        "pages = [p for p in answer.value.pages"
        f"{' if p.waiters' if args.waited else ''}]\n"
        "for page in pages:\n"
        "    print(hex(page.pfn), page.owners.page.pins, [o.path for o in page.owners.owners])\n"
        "    for holder in page.holders:\n"
        "        print('    held by', holder.process, holder.kind.value, holder.evidence)\n"
        "    for waiter in page.waiters:\n"
        "        print('    waited for by', waiter.task.pid, waiter.place)\n"
    ),
    modules=OWNER_MODULES | WAIT_MODULES,
)  # fmt: skip
def pmem_pins(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.findings.pins import find_pins
    from drgn_pmem.partial import Problems

    problems = Problems()
    found = problems.take(find_pins(prog))
    pages = [p for p in found.pages if p.waiters or not args.waited]
    notes = list(found.notes)
    if not pages:
        notes.append("no pinned page of a DAX file or device was found")
    return Answer(pages, notes=notes, problems=problems)
