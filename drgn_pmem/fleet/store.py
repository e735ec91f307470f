# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
findings.jsonl and fleet.sqlite
-------------------------------

Everything found in all dumps, for questions of one's own (docs/fleet.md has the tables and example
queries). Text of a dump is escaped as for a terminal, and bound as a parameter, never part of a
statement.
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import json
import os
from pathlib import Path
import shlex
import shutil
import sqlite3
import tempfile
from typing import IO, Any

from drgn_pmem.fleet.result import Result
from drgn_pmem.fleet.row import UNDECIDED, Row
from drgn_pmem.output.files import replacing
from drgn_pmem.output.text import escape

__all__ = ("Store", "open_store")

_SCHEMA = """
CREATE TABLE dumps (
    name TEXT PRIMARY KEY, path TEXT, state TEXT, error TEXT, complete INTEGER,
    release TEXT, architecture TEXT, panic TEXT, time INTEGER, subject TEXT, format TEXT,
    critical INTEGER, warning INTEGER, info INTEGER, undecided INTEGER,
    build_id TEXT, vmlinux TEXT, missing TEXT, size INTEGER, changed INTEGER, sha256 TEXT,
    version TEXT, tries INTEGER, seconds REAL, stale TEXT, html TEXT, json TEXT);
CREATE TABLE findings (
    dump TEXT REFERENCES dumps(name), id TEXT, severity TEXT, heading TEXT, subject TEXT,
    finding TEXT, evidence TEXT, more TEXT, "do" TEXT, complete INTEGER, why TEXT);
CREATE TABLE namespaces (
    dump TEXT REFERENCES dumps(name), dev TEXT, mode TEXT, map TEXT, size INTEGER, uuid TEXT,
    label TEXT, blockdev TEXT, resource TEXT, state TEXT, "case" TEXT, verdict TEXT, advice TEXT,
    metadata TEXT, userdata TEXT);
CREATE TABLE poison (
    dump TEXT REFERENCES dumps(name), pfn INTEGER, physical TEXT, namespace TEXT, device TEXT,
    place TEXT, state TEXT, hwpoison INTEGER, path TEXT, offset INTEGER, processes TEXT,
    sources TEXT);
CREATE TABLE answers (
    dump TEXT REFERENCES dumps(name), command TEXT, state TEXT, error TEXT, lacks TEXT);
CREATE INDEX findings_dump ON findings(dump);
CREATE INDEX namespaces_dump ON namespaces(dump);
CREATE INDEX poison_dump ON poison(dump);
CREATE INDEX answers_dump ON answers(dump);
"""

_FINDING = (
    *("id", "severity", "heading", "subject", "finding", "evidence", "more", "do"),
    *("complete", "why"),
)
_ANSWER = ("command", "state", "error", "lacks")
_SIGNED = 1 << 63


class Store:
    """Takes one result after the other."""

    def __init__(self, lines: IO[bytes], database: sqlite3.Connection) -> None:
        self._lines = lines
        self._database = database

    def add(self, result: Result, row: Row) -> None:
        """Add all that is known of a dump."""
        for line in _lines(result, row):
            self._lines.write(json.dumps(line).encode() + b"\n")
        value = result.value
        crash = value.get("crash") or {}
        self._insert(
            "dumps",
            name=row.name,
            path=row.dump,
            state=row.state.value,
            error=row.error,
            complete=row.complete,
            **{key: crash.get(key) for key in ("release", "architecture", "panic", "time")},
            **{key: crash.get(key) for key in ("subject", "format")},
            critical=row.counts[0],
            warning=row.counts[1],
            info=row.counts[2],
            undecided=row.undecided,
            **{key: value.get(key) for key in ("build_id", "vmlinux", "missing", "size")},
            **{key: value.get(key) for key in ("changed", "sha256", "version", "tries", "seconds")},
            stale=row.stale or None,
            html=f"reports/{row.name}.html" if row.has_report else None,
            json=f"reports/{row.name}.json" if row.has_report else None,
        )
        for item in result.findings:
            self._insert("findings", dump=row.name, **{key: item.get(key) for key in _FINDING})
        for item in value.get("namespaces", ()):
            self._insert("namespaces", dump=row.name, **_namespace(item))
        for item in value.get("poison", ()):
            for place in _places(item):
                self._insert("poison", dump=row.name, **place)
        for item in value.get("answers", ()):
            self._insert("answers", dump=row.name, **{key: item.get(key) for key in _ANSWER})

    def _insert(self, table: str, **values: Any) -> None:
        """The table and the columns are names in this module; what is from a dump is bound."""
        columns = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join("?" * len(values))
        self._database.execute(
            f"INSERT INTO {table} ({columns}) VALUES ({marks})",
            [_bound(value) for value in values.values()],
        )


@contextlib.contextmanager
def open_store(folder: Path) -> Iterator[Store]:
    """
    Both files, which appear whole at the end of the block.

    :raises OSError: if they cannot be written
    """
    with tempfile.TemporaryDirectory(prefix="drgn-pmem-fleet-") as scratch:
        path = os.path.join(scratch, "fleet.sqlite")
        database = sqlite3.connect(path, isolation_level=None)
        try:
            database.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_SCHEMA}")
            database.execute("BEGIN")
            with replacing(folder / "findings.jsonl") as lines:
                yield Store(lines, database)
            database.execute("COMMIT")
        finally:
            database.close()
        with open(path, "rb") as made, replacing(folder / "fleet.sqlite") as file:
            shutil.copyfileobj(made, file)


def _lines(result: Result, row: Row) -> Iterator[dict[str, Any]]:
    about = {
        "dump": row.dump,
        "name": row.name,
        "release": row.release,
        "time": row.time,
    }
    for item in result.findings:
        yield {**about, **item}
    if not row.has_report:
        # As a rule that could not be decided: a dump without a report is not one without findings.
        yield {
            **about,
            "id": "no-report",
            "severity": "info",
            "heading": "dump",
            "subject": "the dump",
            "finding": UNDECIDED,
            "evidence": [],
            "more": f"drgn-pmem -c {shlex.quote(row.dump)} pmem-report",
            "do": None,
            "complete": False,
            "why": f"{row.state.value}: {row.error}",
        }


def _bound(value: Any) -> Any:
    """A value that SQLite takes: escaped text, a number of 64 bits, JSON of what has parts."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    if isinstance(value, int) and not -_SIGNED <= value < _SIGNED:
        return hex(value)  # decimal digits would become an inexact number
    return value


def _namespace(item: Mapping[str, Any]) -> dict[str, Any]:
    dump = item.get("dump") or {}
    coverage = item.get("coverage") or {}
    return {
        "dev": item.get("dev"),
        "mode": item.get("mode"),
        "map": item.get("map"),
        "size": item.get("size"),
        "uuid": item.get("uuid"),
        "label": item.get("name"),
        "blockdev": item.get("blockdev"),
        "resource": dump.get("resource"),
        "state": item.get("state"),
        **{key: coverage.get(key) for key in ("case", "verdict", "advice", "metadata", "userdata")},
    }


def _places(item: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """One row for each file that a bad page belongs to; one without a file if there is none."""
    about = {
        key: item.get(key)
        for key in ("pfn", "physical", "namespace", "device", "place", "state", "hwpoison")
    }
    about["processes"] = [f"{p['pid']}/{p['comm']}" for p in item.get("processes") or ()]
    about["sources"] = item.get("sources")
    owners: list[dict[str, Any]] = item.get("owners") or [{}]
    for owner in owners:
        yield {**about, "path": owner.get("path"), "offset": owner.get("offset")}
