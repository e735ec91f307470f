# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-rmap``: from a page to its files and processes."""

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from drgn import Program

from drgn_pmem.commands.common import OWNER_MODULES, words_of
from drgn_pmem.output.table import Field
from drgn_pmem.spec import Answer, Argument, command

if TYPE_CHECKING:
    from drgn_pmem.analysis.owners.records import Owner, PageOwners
    from drgn_pmem.kernel.rmap import Mapping


class Row(NamedTuple):
    """One mapping of one owner of one page; without either where there is none."""

    page: "PageOwners"
    owner: "Owner | None"
    mapping: "Mapping | None"

    @property
    def flags(self) -> list[str]:
        entry = self.owner.entry if self.owner else None
        shown = (
            ("dirty", entry and entry.dirty),
            ("locked", entry and entry.locked),
            ("huge", entry and entry.order > 0),
            ("shared", self.page.shared),
            ("copy", self.owner and self.owner.private_copy),
            ("hole", self.owner and self.owner.hole),
            ("pinned", self.page.trusted and self.page.page.pinned),
            ("poison", self.page.trusted and self.page.page.hwpoison),
        )
        return [name for name, is_set in shown if is_set]


def _rows(pages: "Sequence[PageOwners]") -> Iterator[Row]:
    for page in pages:
        if not page.owners:
            yield Row(page, None, None)
        for owner in page.owners:
            if not owner.mappings:
                yield Row(page, owner, None)
            for mapping in owner.mappings:
                yield Row(page, owner, mapping)


def _code(args: argparse.Namespace) -> str:
    words, imports = repr([word for word in args.page if word != "-"]), ""
    if "-" in args.page:
        words, imports = f"{words} + sys.stdin.read().split()", "import sys\n\n"
    return (
        f"{imports}from drgn_pmem import owners_of, parse_page\n\n"
        f"answers = [owners_of(prog, parse_page(prog, x)) for x in {words}]\n"
        "pages = [answer.value for answer in answers]  # answer.problems: what each lacks\n"
        "for page in pages:\n"
        "    print(hex(page.pfn), page.namespace, page.notes)\n"
        "    for owner in page.owners:\n"
        "        print(owner.path, owner.offset, owner.sources)\n"
        "        for mapping in owner.mappings:\n"
        "            print(mapping.task.tgid, mapping.task.comm, hex(mapping.address),\n"
        "                  mapping.proof.value)\n"
    )


@command(
    name="pmem-rmap",
    description="show the files that a page belongs to and the processes that map it",
    long_description=(
        "From a page of persistent memory to every file that has it (its struct page and the DAX\n"
        "entries of all DAX files are read and compared) and to the processes that map it, each\n"
        "proven from its page tables: pte (they map exactly this page), vma (mapped by the\n"
        "process, nothing in its page tables), cow (it has a private copy), unreadable.\n"
        "A sector in the kernel log, or in ndctl list -M for a namespace, is DEVICE:SECTOR. The\n"
        "badblocks of a region count from the start of the region, the blocks of ndctl\n"
        "inject-error from the start of the namespace, not of its data (pmem-poison -o raw_offset)."
    ),
    arguments=(
        Argument(
            "page",
            kind="page",
            nargs="+",
            metavar="PAGE",
            help="PFN, physical address (pfn:N and phys:N force either), struct page address,"
            " namespace0.0+OFFSET, pmem0+OFFSET (bytes into its data), pmem0:SECTOR or"
            " /dev/pmem0p1:SECTOR; - reads them from standard input",
        ),
    ),
    fields=(
        Field("PFN", lambda r: f"{r.page.pfn:#x}", "page frame number", right=True),
        Field("NAMESPACE", lambda r: r.page.namespace, "namespace"),
        Field("PATH", lambda r: r.owner and r.owner.name, "file", keep=2, wrap=True),
        Field("INODE", lambda r: r.owner and r.owner.inode, "inode number", right=True),
        Field("OFFSET", lambda r: f"{r.owner.offset:#x}" if r.owner else None,
              "byte offset of the page in the file", right=True, keep=2),
        Field("FLAGS", lambda r: r.flags,
              "dirty, locked, huge, shared, copy (private), hole (zero page), pinned, poison"),
        Field("SOURCES", lambda r: r.owner and r.owner.sources,
              "what names the file: page (struct page), i_pages, range (device DAX), pte"),
        Field("PID", lambda r: r.mapping and r.mapping.task and r.mapping.task.tgid,
              "process", right=True, keep=2),
        Field("COMM", lambda r: r.mapping and r.mapping.task and r.mapping.task.comm, "its name",
              keep=2),
        Field("ADDRESS", lambda r: f"{r.mapping.address:#x}" if r.mapping else None,
              "virtual address of the page there", right=True),
        Field("PROOF", lambda r: r.mapping and r.mapping.proof.value, "pte, vma, cow, unreadable",
              keep=1),
        Field("STATE", lambda r: r.page.standing, "of the struct page in the dump", keep=1,
              coloured=True),
        Field("SECTOR", lambda r: r.owner and r.owner.sector,
              "512-byte sector on the device of the file system, as fiemap counts", right=True,
              shown=False),
        Field("DEVICE", lambda r: r.owner.device if r.owner else r.page.device,
              "device of the file system, of which SECTOR is; without an owner, the namespace's",
              shown=False),
        Field("PHYSICAL", lambda r: f"{r.page.physical:#x}", "physical address", right=True,
              shown=False),
        Field("TYPE", lambda r: r.page.page.type, "enum memory_type of its page map",
              shown=False),
    ),
    examples=(
        ("pmem-rmap pmem2:45064", "who owns a bad sector of /dev/pmem2"),
        ("pmem-rmap namespace2.0+0x1601000 0x1295f5 --json", "owners of two pages, as JSON"),
    ),
    code=_code,
    modules=OWNER_MODULES,
)  # fmt: skip
def pmem_rmap(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.pages.named import named_owners
    from drgn_pmem.partial import Problems
    from drgn_pmem.spec import SPECS

    problems = Problems()
    found = problems.take(named_owners(prog, words_of(args.page)))
    return Answer(
        found.pages,
        notes=list(found.notes),
        problems=problems,
        sections=[("", list(_rows(found.pages)), SPECS["pmem-rmap"].fields)],
    )
