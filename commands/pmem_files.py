# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-files``: the DAX files in memory."""

import argparse

from drgn import Program

from drgn_pmem.output.table import Field
from drgn_pmem.partial import Problems
from drgn_pmem.record import Show
from drgn_pmem.spec import Answer, Argument, command


def _code(args: argparse.Namespace) -> str:
    return (
        "from drgn_pmem import list_files\n\n"
        f"files = list_files(prog, {args.namespace!r}, all_files={args.all!r})\n"
        "for file in files:\n"
        "    print(file.path, file.inode, file.pages, file.dirty, file.shared,\n"
        "          [(task.tgid, task.comm) for task in file.mapped_by])\n"
    )


@command(
    name="pmem-files",
    description="show the DAX files in memory: pages, dirty, shared, who maps them",
    long_description=(
        "Show every DAX file that has pages mapped or was touched through a mapping (from the DAX\n"
        "entries of its i_pages, so no struct page is needed), and the DAX character devices.\n"
        "Counts are pages of PAGE_SIZE."
    ),
    arguments=(
        Argument("namespace", kind="namespace", nargs="?", help="only files with pages in it"),
        Argument("-a", "--all", action="store_true",
                 help="also DAX files without pages and mappings"),
    ),
    fields=(
        Field("DEVICE", lambda f: f.device, "block or DAX device"),
        Field("INODE", lambda f: f.inode, "inode number", right=True),
        Field("PATH", lambda f: f.name, "file, as the plain mount shows it", keep=3),
        Field("SIZE", lambda f: f.size, "bytes", right=True, show=Show.SIZE, keep=1),
        Field("PAGES", lambda f: f.pages, "pages with a DAX entry", right=True, keep=2),
        Field("HUGE", lambda f: f.huge, "of those, in PMD entries", right=True),
        Field("DIRTY", lambda f: f.dirty, "pages not flushed since written", right=True, keep=2),
        Field("LOCKED", lambda f: f.locked, "pages with a fault in flight", right=True),
        Field("SHARED", lambda f: f.shared, "pages that other files have too", right=True),
        Field("COPIES", lambda f: f.copies, "private copies in RAM (copy on write)", right=True),
        Field("MAPPED_BY", lambda f: [f"{t.tgid}/{t.comm}" for t in f.mapped_by], "processes",
              keep=2, wrap=True),
        Field("OPEN_BY",
              lambda f: list(dict.fromkeys(f"{o.task.tgid}/{o.task.comm}" for o in f.open_by)),
              "processes", shown=False),
        Field("TOWRITE", lambda f: f.towrite, "pages being written back", right=True, shown=False),
        Field("ZERO", lambda f: f.zero, "pages of holes that were read", right=True, shown=False),
        Field("NAMESPACES", lambda f: f.namespaces, "where its pages are", shown=False),
        Field("PATHS", lambda f: f.paths, "as every mount shows every link", shown=False),
    ),
    examples=(
        ("pmem-files", "all DAX files"),
        ("pmem-files namespace2.0 -s -pages -o +open_by", "of one namespace, the largest first"),
    ),
    code=_code,
    modules={
        "libnvdimm": "namespaces of files without pages in them",
        "nd_pmem": "namespaces of files without pages in them",
        "dax": "character devices",
        "xfs": "pages that files of an XFS share",
    },
)  # fmt: skip
def pmem_files(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.owners.files import list_files

    problems = Problems()
    files = problems.take(list_files(prog, args.namespace, all_files=args.all))
    notes = []
    if not files and not problems:
        where = f" in {args.namespace}" if args.namespace else ""
        notes.append(f"no DAX file{where} is in memory")
    return Answer(files, notes=notes, problems=problems)
