# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is wrong with an answer of a dump without a page, by command."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import re
from typing import Any

from .compare import Rules, contradictions
from .screen import overstated

__all__ = ("Outcome", "Paths", "diagnosis", "joined_rows", "verdict")

Paths = Mapping[str, frozenset[str]]

_PLACES = {"in_ram", "on_pmem", "saved", "unmapped"}
_CHECK = {"total", "looked_at", "zero", "heads", "foreign", "used", "entries", "entries_idle"}
_COUNTS = {
    "pmem-pages": {"pages", "size"},
    "pmem-coverage": _PLACES | _CHECK,
    "pmem-memmap": _PLACES,
    "pmem-namespaces": _PLACES,
}
_CUTS = {"pmem-pages": {"ranges"}}
_MAPPED = 8
"""How often one page of struct pages is mapped: once for each page of tails of a 2 MiB folio
(mm/hugetlb_vmemmap.c, vmemmap_populate_compound_pages())."""
_OF_MEMMAP = {"pmem-coverage", "pmem-memmap", "pmem-namespaces"}
"""Commands that count the bytes of struct pages at each place where they are mapped."""
_USAGE_RISES = {"excluded": 1, "memory_hole": 1, "overlap": 1}
"""The program headers still have a page that is absent: it counts as one that two of them have."""
_STRUCT_PAGE = 64
"""bytes: the kernels of all samples have struct pages of this size."""


@dataclass(frozen=True)
class Outcome:
    """How a question was answered."""

    json: Any = None
    notes: tuple[str, ...] = ()
    whole: bool = False
    error: str | None = None
    """A :class:`~drgn_pmem.errors.PmemError`, in words."""
    denies: bool = False
    """Whether the error says that there is no such thing, or that the question was wrong."""
    fault: str | None = None
    """What must never happen: a traceback, no answer in time."""
    screen: tuple[tuple[str, str], ...] = ()
    """Labels and text of the first screen of pmem-diagnose."""


def verdict(
    command: str, page: int, full: Outcome, part: Outcome, paths: Paths | None = None
) -> list[str]:
    """
    What is wrong with an answer of a dump without a page; nothing if it keeps the law.

    :param page: Size of the page (bytes).
    :param paths: Path of a file -> all of its paths.
    """
    if part.fault is not None:
        return [part.fault]
    if part.error is not None:
        if full.denies or not part.denies:
            return []
        return [f"says that there is none: {part.error}"]
    if full.error is not None:
        if part.whole or (full.denies and part.json):
            return [f"answers what the full dump does not: {full.error}"]
        return []
    if command == "pmem-report":
        return _sections(page, full, part, paths)
    if command == "pmem-diagnose":
        return [
            *diagnosis(full.json, part.json, part.whole, paths),
            *overstated(dict(full.screen), dict(part.screen), part.whole),
        ]
    if command == "pmem-diff":
        return _differences(part)
    if command == "pmem-trim":
        return _kept(page, full, part)
    expected, shown = full.json, part.json
    if command == "pmem-segments" and not part.whole:
        expected = joined_rows(full.json, part.json)
    if command == "pmem-infoblocks" and not part.whole:
        # Where the DIMMs are not known, copies of labels in RAM are shown, stale ones, too.
        shown = [row for row in shown if not _of_no_dimm(row)]
    if command == "pmem-files" and not part.whole:
        # Those that may have pages, too, are listed: pmem-files --all has them of the whole dump.
        shown = [row for row in shown if row in expected or not _may_be_empty(row)]
    if command == "pmem-pins" and not part.whole:
        shown = [_with_functions(row, expected) for row in shown]
    found = contradictions(expected, shown, part.whole, _rules(command, page, paths))
    return [f"SILENT {line}" for line in found] if part.whole else found


def _of_no_dimm(row: dict[str, Any]) -> bool:
    return row["kind"] == "labels" and row["dimm"] is None


def _may_be_empty(row: dict[str, Any]) -> bool:
    return row["pages"] is None and not row["mapped_by"] and not row["device"].startswith("dax")


def _with_functions(row: dict[str, Any], full: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A pinned page whose waiters are named by the function that the full answer has: each of
    several on a stack shows that it waits, and a module's may have no name."""
    named = {
        (page["pfn"], waiter["pid"]): waiter["function"]
        for page in full
        for waiter in page["waiters"]
        if (waiter["function"] or "").endswith(_LAYOUT_BREAKS)
    }
    waiters = [
        {**waiter, "function": named.get((row["pfn"], waiter["pid"]), waiter["function"])}
        if (waiter["function"] or "").endswith(_LAYOUT_BREAKS)
        else waiter
        for waiter in row["waiters"]
    ]
    return {**row, "waiters": waiters}


_LAYOUT_BREAKS = ("_break_layout", "_break_layouts")


def joined_rows(full: list[Any], part: list[Any]) -> list[Any]:
    """
    Rows of pmem-segments as an answer has them that does not know what was persistent memory: it
    does not cut the bitmap there, and a row that says so (``"pmem": null``) lies over several.
    """
    rows = list(full)
    for row in part:
        if row["type"] != "bitmap" or row["pmem"] is not None:
            continue
        start = int(row["physical"], 16)
        end = start + row["memory_size"]
        inside = [r for r in rows if start <= int(r["physical"], 16) < end]
        if len(inside) < 2 or sum(r["memory_size"] for r in inside) != row["memory_size"]:
            continue
        states: dict[str, int] = {}
        for old in inside:
            for state, size in old["states"].items():
                states[state] = states.get(state, 0) + size
        first = rows.index(inside[0])
        whole = {
            **inside[0],
            "memory_size": row["memory_size"],
            "file_size": sum(r["file_size"] for r in inside),
            "states": states,
        }
        for name in ("iomem", "namespaces"):
            found = [item for r in inside for item in r[name]]
            whole[name] = [item for n, item in enumerate(found) if item not in found[:n]]
        rows[first : first + len(inside)] = [whole]
    return [{**row, "index": number} for number, row in enumerate(rows)] if rows != full else full


def _rules(command: str, page: int, paths: Paths | None) -> Rules:
    mapped = _MAPPED if command in _OF_MEMMAP else 1
    falls = {
        "pmem-coverage": {
            "saved": mapped * page,
            **dict.fromkeys(_CHECK, mapped * page // _STRUCT_PAGE),
        },
        "pmem-memmap": {"saved": mapped * page},
        "pmem-namespaces": {"saved": mapped * page},
        "pmem-segments": {"file_size": page},
        # The last page of memory is where the total ends.
        "pmem-usage": {"original": 1, "remaining": 1, "total": 1},
    }
    return Rules(
        page,
        frozenset(_COUNTS.get(command, ())),
        frozenset(_CUTS.get(command, ())),
        falls.get(command, {}),
        _USAGE_RISES if command == "pmem-usage" else {},
        mapped,
        frozenset({"folio_pages"} if command == "pmem-pages" else ()),
        paths or {},
    )


_OF_THE_DUMP = frozenset(
    {"debug-info-missing", "memmap-not-saved", "memmap-overwritten", "ram-missing"}
)
"""Rules about what the dump holds and what was loaded: their findings follow the page, or the
module. (What is left of struct pages may be too little to show that they were overwritten.)"""

_NAMELESS = re.compile(r"inode \d+|namespace\d+\.\d+|pmem|dm-\d+|a file of \S+")
"""Subjects that stand for a file or disk whose name could not be read."""


def diagnosis(
    full: list[Any], part: list[Any], whole: bool, paths: Paths | None = None
) -> list[str]:
    """
    A diagnosis with a page less: a rule says the same, or that it could not read everything; it
    finds nothing new but what the missing page itself is, and of bad pages that their file is
    not known.
    """
    found = []
    old, new = (_by_rule(rows) for rows in (full, part))
    lacking = {row["id"] for row in part if not row["complete"]}
    for rule in sorted(old.keys() | new.keys()):
        before, after = old.get(rule, {}), new.get(rule, {})
        if before == after or rule in _OF_THE_DUMP:
            continue
        if whole or rule not in lacking:
            found.append(f"SILENT {rule}: {before} became {after}")
        elif rule != "poison-in-data":
            same = {path for name in before for path in (paths or {}).get(name, ())}
            new_names = after.keys() - before.keys() - same
            fresh = [name for name in new_names if not _NAMELESS.fullmatch(name)]
            found += [f"{rule}: {name} is new" for name in fresh]
    if whole and lacking:
        found.append(f"SILENT {sorted(lacking)} lack something, and the answer is whole")
    return found


def _by_rule(rows: list[Any]) -> dict[str, dict[str, list[str]]]:
    """Rule -> subject -> what was found of it; what could not be decided is left out."""
    rules: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row["finding"] != "cannot be decided":
            subjects = rules.setdefault(row["id"], {})
            subjects.setdefault(row["subject"], []).append(row["finding"])
    return rules


def _differences(part: Outcome) -> list[str]:
    """
    A dump without a page beside the whole one: what the dump holds differs, nothing else is known
    to; and it is not another machine, build, boot or crash.
    """
    found = [
        f"{change['what']}: {change['kind']} {change['subject']} {change['field']}"
        for change in part.json["changes"]
        if change["what"] != "unknown" and change["kind"] != "coverage"
    ]
    found += [f"not one {one['what']}" for one in part.json["same"] if one["same"] is False]
    return [f"SILENT {line}" for line in found] if part.whole else found


def _sections(page: int, full: Outcome, part: Outcome, paths: Paths | None) -> list[str]:
    """A report is complete section by section."""
    found = contradictions(full.json["crash"], part.json["crash"], part.whole, Rules(page))
    sections = {section["command"]: section for section in part.json["sections"]}
    for section in full.json["sections"]:
        if section["command"] not in sections:
            found += [f"{section['command']} is missing"] if part.whole else []
            continue
        command = section["command"].split()[0]
        old, new = map(_of_section, (section, sections.pop(section["command"])))
        found += [f"{command}: {line}" for line in verdict(command, page, old, new, paths)]
        if part.whole and not new.whole and old.whole:
            found.append(f"{command}: not complete, and the report is")
    found += [f"{command} is new" for command in sections]
    return found


def _kept(page: int, full: Outcome, part: Outcome) -> list[str]:
    """Never is more kept of a dump that holds less; a complete answer has all but the page."""
    kept, dropped = (
        [sum(outcome.json[key].values()) for outcome in (full, part)] for key in ("kept", "dropped")
    )
    found = [f"kept: {kept[0]} bytes became {kept[1]}"] if kept[1] > kept[0] else []
    lost = sum(kept[::2]) + dropped[0] - kept[1] - dropped[1]
    if not 0 <= lost <= page:
        found.append(f"{lost} bytes are neither kept nor dropped")
    return found


def _of_section(section: dict[str, Any]) -> Outcome:
    return Outcome(
        section["answer"],
        whole=section["state"] == "complete",
        error=section["error"],
        denies=section["state"] == "not there",
    )
