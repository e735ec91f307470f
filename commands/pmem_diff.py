# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""``pmem-diff``: what changed between two dumps."""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from drgn_pmem.commands.common import OWNER_MODULES, WAIT_MODULES
from drgn_pmem.output.table import Field
from drgn_pmem.output.text import cell, plural
from drgn_pmem.partial import Problems
from drgn_pmem.record import Show
from drgn_pmem.spec import SPECS, Answer, Argument, command

if TYPE_CHECKING:
    from drgn import Program


def _value(change: Any, value: Any) -> Any:
    """Numbers only where they are bytes: the column rounds them."""
    if value is None and change.what.value == "unknown":
        return "unknown"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: None}[value]
    if isinstance(value, int) and not change.is_size:
        return str(value)
    return value


def _values(change: Any) -> str:
    """Before and after, in one column: both fit a terminal of 80 columns."""
    texts = [cell(_value(change, value)) for value in (change.before, change.after)]
    return " -> ".join(texts)


def _shown(field: Field, verbose: bool, data: bool) -> Field:
    """A field as it is shown by default in a text, or with ``-H`` and ``--csv``."""
    shown = {"WHY": verbose, "VALUES": not data, "BEFORE": data, "AFTER": data}
    return replace(field, shown=shown.get(field.name, field.shown))


_SIDE = (
    Field("DUMP", lambda side: side[0], "A: the dump that is open; B: the other one"),
    Field("FILE", lambda side: side[1].file, "its path", keep=1, wrap=True),
    Field("KERNEL", lambda side: side[1].release, "uname -r", keep=2),
    Field("HOST", lambda side: side[1].host, "name of the machine"),
    Field("BOOTED", lambda side: _time(side[1].booted), "by the kernel's clock, UTC"),
    Field("MADE", lambda side: _time(side[1].made), "when its memory was saved, UTC", keep=1),
    Field("FORMAT", lambda side: side[1].format, "of the file", wrap=True),
)

_SAME = (
    Field("SAME", lambda relation: relation.what, "machine, build, boot, crash", keep=2),
    Field("ANSWER", lambda relation: {True: "yes", False: "no", None: "unknown"}[relation.same],
          "whether both dumps are of it", keep=2),
    Field("EVIDENCE", lambda relation: relation.evidence, "what shows it", keep=1, wrap=True),
)  # fmt: skip

_COMPARED = (
    Field("KIND", lambda item: item.kind.value, "what was compared", keep=2),
    Field("A", lambda item: _count(item.a, item.why_a), "how many A has", right=True, keep=1),
    Field("B", lambda item: _count(item.b, item.why_b), "how many B has", right=True, keep=1),
    Field("ADDED", lambda item: item.added, "only in B", right=True, keep=2),
    Field("REMOVED", lambda item: item.removed, "only in A", right=True, keep=2),
    Field("CHANGED", lambda item: item.changed, "in both, with other values", right=True, keep=2),
    Field("UNKNOWN", lambda item: item.unknown, "one dump does not hold it", right=True, keep=2),
)


def _count(number: int, why: str | None) -> str:
    return f"{number}{' or more' if why else ''}"


def _time(seconds: int | None) -> str | None:
    if seconds is None or seconds >= 1 << 40:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


@command(
    name="pmem-diff",
    description="show what changed between two dumps of one machine",
    long_description=(
        "Compare two dumps, A and B: DIMMs and their flags, regions, namespaces, entries of the\n"
        "devm_memmap_vmcore list, what the dumps hold of each namespace (coverage), bad pages,\n"
        "pinned pages, DAX files. First whether the dumps are of one machine, build, boot and\n"
        "crash. Objects are matched by what stays the same: the uuid of a namespace, the id of a\n"
        "DIMM, the address of a region or page, device and inode of a file; else by place. What\n"
        "only one dump shows is added or removed only if the other shows all of its kind;\n"
        "otherwise it is unknown, and -v shows the reason. Files are those with pages or\n"
        "mappings: one without may still be on the disk. Bad pages are those that the kernel\n"
        "reported: one that is not reported after a reboot may still be bad.\n"
        "Exit status as diff(1)'s: 0 no difference, 1 differences or an incomplete answer (the\n"
        'notes say which; "complete" in --json=full), 2 wrong usage.'
    ),
    arguments=(
        Argument("dump", kind="file", nargs="+", metavar="DUMP",
                 help="B (its files, of a split dump or raw images); without -c, A and B"),
        Argument("--symbols", kind="file", action="append", default=[], metavar="FILE",
                 help="vmlinux or module of B, where it is of another build than A"),
        Argument("-v", "--verbose", action="store_true", help="also what is unknown, and why"),
    ),
    fields=(
        Field("CHANGE", lambda c: c.what.value, "added, removed, changed, unknown", keep=4),
        Field("KIND", lambda c: c.kind.value, "what changed", keep=3),
        Field("SUBJECT", lambda c: c.subject, "name in the dumps", keep=4, wrap=True),
        Field("FIELD", lambda c: c.field, "of the subject; - for all of it", keep=4),
        Field("VALUES", _values, "in A -> in B, sizes in bytes; - if there is none", keep=4,
              wrap=True),
        Field("BEFORE", lambda c: _value(c, c.before), "value in A (shown with -H and --csv)",
              shown=False, keep=4, wrap=True, show=Show.SIZE),
        Field("AFTER", lambda c: _value(c, c.after), "in B (the same)", shown=False, keep=4,
              wrap=True, show=Show.SIZE),
        Field("WHY", lambda c: c.why, "why it is unknown", shown=False, wrap=True, keep=1),
    ),
    examples=(
        ("pmem-diff next.vmcore", "from this dump (A) to another one of the machine (B)"),
        ("pmem-diff next.vmcore -v", "also what cannot be compared, and why"),
        ("pmem-diff next.vmcore --where 'change = changed'", "without what only one dump has"),
        ("pmem-diff next.vmcore --json", "as JSON"),
    ),
    code=lambda args: (
        "from drgn_pmem import diff_dumps, open_other\n\n"
        f"other = open_other(prog, {args.dump!r}, {args.symbols!r}).prog\n"
        "answer = diff_dumps(prog, other)  # answer.problems: what the dumps lack\n"
        "for relation in answer.value.same:\n"
        "    print(relation.what, relation.same, relation.evidence)\n"
        "for change in answer.value.changes:\n"
        "    print(change.kind.value, change.what.value, change.subject, change.field,\n"
        "          change.before, change.after, change.why)\n"
    ),
    modules=OWNER_MODULES | WAIT_MODULES
    | {"libnvdimm": "DIMMs, regions, namespaces, bad ranges and badblocks",
       "nfit": "flags of DIMMs",
       "papr_scm": "flags of DIMMs (POWER)"},
)  # fmt: skip
def pmem_diff(prog: Program, args: argparse.Namespace) -> Answer:
    from drgn_pmem.analysis.changes.compare import What, diff_dumps
    from drgn_pmem.output.progress import stage
    from drgn_pmem.session import open_other

    target = open_other(prog, args.dump, args.symbols)
    problems = Problems()
    try:
        found = problems.take(diff_dumps(prog, target.prog, stage))
    finally:
        stage("")
    plain = not (args.no_header or args.csv)
    plain &= (args.fields or "+").startswith("+") and args.sort is None and args.where is None
    changes = list(found.changes)
    data = args.no_header or args.csv
    fields = [_shown(item, args.verbose, data) for item in SPECS["pmem-diff"].fields]
    notes = [f"B: {note}" for note in target.notes]
    if target.missing:
        notes.append(f"B: {target.missing} (of B: --symbols)")
    hidden = 0
    shown = changes
    if plain and not args.verbose:
        shown = [change for change in changes if change.what is not What.UNKNOWN]
        hidden = len(changes) - len(shown)
    if hidden:
        notes.append(
            f"{plural(hidden, 'value')} cannot be compared: pmem-diff -v shows which, and why"
        )
    if not found.differs:
        notes.append("no difference was found" + (" in what both dumps hold" if problems else ""))
    notes += [
        f"the dumps are not of one {relation.what}: {relation.evidence}"
        for relation in found.same
        if relation.same is False and relation.what in ("machine", "build")
    ]
    sections: list[Any] = [("", shown, fields)]
    if plain:
        sections = [
            ("", [("A", found.a), ("B", found.b)], _SIDE),
            ("", list(found.same), _SAME),
            ("", list(found.compared), _COMPARED),
            *sections,
        ]
    return Answer(
        changes,
        notes=notes,
        problems=problems,
        sections=sections,
        json=found.to_json(),
        differs=found.differs,
    )
