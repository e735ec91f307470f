# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-file``: from a file and an offset to the page."""

import argparse

from drgn import Program

from drgn_pmem.output.table import Field
from drgn_pmem.partial import Problems
from drgn_pmem.spec import Answer, Argument, command

_FLAGS = ("dirty", "towrite", "locked", "shared", "zero", "empty", "copy")


def _code(args: argparse.Namespace) -> str:
    return (
        "from drgn_pmem import pages_of_file\n\n"
        f"pages = pages_of_file(prog, {args.path!r})\n"
        "for page in pages:\n"
        "    print(page.path, hex(page.offset), page.pfn, page.order, page.dirty, page.locked)\n"
    )


@command(
    name="pmem-file",
    description="show the pages of a DAX file: file offset to PFN",
    long_description=(
        "Show which pages a DAX file has: every DAX entry of it, or the one at a byte offset,\n"
        "then the private copies that processes have in RAM.\n"
        "Of a DAX character device, which has no entries, the pages follow from its ranges."
    ),
    arguments=(
        Argument("path", kind="path", metavar="PATH[:OFFSET]",
                 help="file as any mount shows it, or ino:NUMBER; with :OFFSET only the page at "
                 "that byte (0x or decimal)"),
    ),
    fields=(
        Field("OFFSET", lambda p: f"{p.offset:#x}", "in the file, bytes", right=True),
        Field("PFN", lambda p: None if p.pfn is None else f"{p.pfn:#x}", "page", right=True),
        Field("ORDER", lambda p: p.order, "the entry covers 2^ORDER pages", right=True),
        Field("FLAGS",
              lambda p: [name for name in _FLAGS if getattr(p, name)],
              "dirty, towrite (being written back), locked (fault in flight), shared (other files"
              " have it, too), zero, empty, copy (private, in RAM)"),
        Field("PATH", lambda p: p.path, "file"),
        Field("INODE", lambda p: p.inode, "inode number", right=True),
        Field("DEVICE", lambda p: p.device, "block or DAX device", shown=False),
    ),
    examples=(
        ("pmem-file /mnt/ext4/alpha", "all DAX entries of a file"),
        ("pmem-file /mnt/ext4/alpha:0x8000 --json", "the page at an offset, as JSON"),
    ),
    code=_code,
    modules={"dax": "pages of character devices"},
)  # fmt: skip
def pmem_file(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.owners.files import pages_of_file

    problems = Problems()
    pages = problems.take(pages_of_file(prog, args.path))
    notes = []
    if not pages and not problems:
        notes.append(f"{args.path}: the file has no DAX entry")
    return Answer(pages, notes=notes, problems=problems)
