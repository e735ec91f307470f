# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The index, findings.jsonl and fleet.sqlite say what the results say, whatever is in them."""

from collections.abc import Iterable, Sequence
from html.parser import HTMLParser
import json
from pathlib import Path
import re
import sqlite3
from typing import Any

import pytest

from drgn_pmem.fleet.index import index_page, summary_line
from drgn_pmem.fleet.result import Result, State
from drgn_pmem.fleet.row import groups_of, row_of, worst_first
from drgn_pmem.fleet.store import open_store

ROOT = Path(__file__).parents[2]
EVIL = "</td><script>alert('x')</script>\x1b[31m\u202e'); DROP TABLE dumps; --\udcff"


def finding(severity: str, rule: str, text: str = "is wrong") -> dict[str, Any]:
    return {
        "id": rule, "severity": severity, "heading": "poison", "subject": "/mnt/a", "finding": text,
        "evidence": ["PFN 0x1"], "more": "pmem-rmap pfn:0x1", "do": None, "complete": True,
        "why": None,
    }  # fmt: skip


def result(name: str, *findings: dict[str, Any], **changed: Any) -> Result:
    value: dict[str, Any] = {
        "dump": f"/crash/{name}/vmcore", "name": name, "state": "done", "error": None,
        "complete": True, "size": 1 << 30, "changed": 1, "sha256": "00", "version": "1",
        "run": "r", "debug_info": "", "missing": "", "timeout": 60.0, "memory_limit": 1 << 30,
        "tries": 1, "before": "", "seconds": 2.0, "findings": list(findings),
        "crash": {"release": "6.1.0", "panic": "Kernel panic", "time": 1_700_000_000,
                  "architecture": "x86_64", "subject": "crashed kernel", "format": "ELF"},
        "answers": [{"command": "pmem-poison", "state": "complete", "error": None, "lacks": []}],
        "namespaces": [{"dev": "namespace0.0", "mode": "fsdax", "map": "dev", "size": 1 << 64,
                        "dump": {"resource": "0x100000000"},
                        "coverage": {"case": "C", "verdict": "none saved", "advice": "do",
                                     "metadata": {"saved": 4096}, "userdata": {}}}],
        "poison": [{"pfn": 1, "physical": "0x1000", "namespace": "namespace0.0",
                    "device": "pmem0", "place": "data", "state": "saved", "hwpoison": True,
                    "sources": ["pmem0 badblocks"], "processes": [{"pid": 7, "comm": "cat"}],
                    "owners": [{"path": "/mnt/a", "offset": 0}, {"path": "/mnt/b", "offset": 1}]}],
    }  # fmt: skip
    return Result(value | changed)


FLEET = [
    result("clean"),
    result("warned", finding("warning", "held")),
    result("worst", finding("critical", "poison-in-file"), finding("info", "wear")),
    result("same", finding("critical", "poison-in-file"), finding("info", "other")),
    result("unsure", finding("info", "pins", "cannot be decided"), complete=False),
    result("hung", state="timed out", error="not done after 9 s", crash=None, complete=False,
           answers=[], namespaces=[], poison=[]),
]  # fmt: skip


def rows(results: Sequence[Result] = FLEET) -> list[Any]:
    return [row_of(item) for item in results]


def test_the_worst_come_first() -> None:
    assert [row.name for row in worst_first(rows())] == [
        "same", "worst", "warned", "unsure", "clean",
    ]  # fmt: skip


def test_what_could_not_be_decided_is_no_finding() -> None:
    (row,) = rows([FLEET[4]])
    assert row.counts == (0, 0, 0)
    assert row.undecided == 1


def test_dumps_with_the_same_critical_findings_and_warnings_are_a_group() -> None:
    ((found, same),) = groups_of(rows())
    assert found == (("critical", "poison-in-file"),)
    assert {row.name for row in same} == {"worst", "same"}


def test_a_dump_without_a_report_is_not_one_without_findings() -> None:
    line = summary_line(rows())
    assert line == (
        "6 dumps: 2 with critical findings, 1 with warnings, 2 with neither (1 of them "
        "incomplete), 1 without a report"
    )
    page = index_page(rows(), [])
    assert "not done after 9 s" in page
    assert "reports/hung.html" not in page


def test_a_result_that_is_out_of_date_is_marked(tmp_path: Path) -> None:
    old = [row_of(FLEET[0], "the dump changed since"), row_of(FLEET[5], "the dump is gone")]
    assert summary_line(old).endswith(", 1 without a report, 2 of them out of date")
    page = index_page(old, [])
    assert ">complete; out of date: the dump changed since<" in page
    assert "not done after 9 s; the dump is gone" in page
    with open_store(tmp_path) as store:
        store.add(FLEET[0], old[0])
        store.add(FLEET[2], row_of(FLEET[2]))
    database = sqlite3.connect(tmp_path / "fleet.sqlite")
    shown = dict(database.execute("SELECT name, stale FROM dumps").fetchall())
    assert shown == {"clean": "the dump changed since", "worst": None}


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


def test_every_report_has_a_link_and_nothing_comes_from_elsewhere() -> None:
    page = Tags(index_page(rows(), [("made", "today")]))
    assert {f"reports/{name}.html" for name in ("clean", "worst", "same")} <= set(page.links)
    assert all(link.startswith(("reports/", "#")) for link in page.links)
    assert "script" not in page.tags
    assert not {"onclick", "onload", "onerror"} & page.attributes


def hostile() -> Result:
    crash = dict.fromkeys(("release", "panic", "architecture", "subject", "format"), EVIL)
    item = dict.fromkeys(finding("critical", "x"), EVIL) | {"severity": "critical"}
    return result("evil", item, dump=f"/crash/{EVIL}", crash=crash | {"time": 1 << 70})


def test_names_in_a_dump_stay_text_in_html() -> None:
    page = index_page(
        rows([hostile(), result("lost", state="timed out", error=EVIL)]), [(EVIL, EVIL)]
    )
    assert "script" not in Tags(page).tags
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", page)
    page.encode()


def stored(folder: Path, results: Iterable[Result]) -> sqlite3.Connection:
    with open_store(folder) as store:
        for item in results:
            store.add(item, row_of(item))
    return sqlite3.connect(folder / "fleet.sqlite")


def test_and_in_sql(tmp_path: Path) -> None:
    database = stored(tmp_path, [hostile(), *FLEET])
    assert database.execute("SELECT count(*) FROM dumps").fetchone() == (7,)
    release, time = database.execute("SELECT release, time FROM dumps WHERE name='evil'").fetchone()
    assert "DROP TABLE" in release
    assert release.isprintable()
    assert time == hex(1 << 70)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_tables_have_what_the_results_have(tmp_path: Path) -> None:
    database = stored(tmp_path, FLEET)
    ask = database.execute
    assert ask("SELECT severity, id FROM findings WHERE dump='worst'").fetchall() == [
        ("critical", "poison-in-file"), ("info", "wear"),
    ]  # fmt: skip
    assert ask("SELECT path, offset, processes FROM poison WHERE dump='worst'").fetchall() == [
        ("/mnt/a", 0, '["7/cat"]'), ("/mnt/b", 1, '["7/cat"]'),
    ]  # fmt: skip
    size, case = ask("SELECT size, \"case\" FROM namespaces WHERE dump='worst'").fetchone()
    assert (size, case) == (hex(1 << 64), "C")
    assert ask("SELECT state, error, html FROM dumps WHERE name='hung'").fetchone() == (
        "timed out", "not done after 9 s", None,
    )  # fmt: skip


def test_findings_are_a_line_each(tmp_path: Path) -> None:
    stored(tmp_path, [hostile(), *FLEET])
    lines = (tmp_path / "findings.jsonl").read_bytes().splitlines()
    values = [json.loads(line) for line in lines]
    assert len(values) == 1 + 6 + 1
    assert all(line.isascii() for line in lines)
    (lost,) = [value for value in values if value["id"] == "no-report"]
    assert lost["dump"] == "/crash/hung/vmcore"
    assert lost["why"] == "timed out: not done after 9 s"
    assert not lost["complete"]


def test_what_was_there_stays_if_the_new_cannot_be_written(tmp_path: Path) -> None:
    stored(tmp_path, FLEET)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ZeroDivisionError):
        stored(tmp_path, (FLEET[1 // 0] for _ in FLEET))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def queries() -> list[str]:
    text = (ROOT / "docs" / "fleet.md").read_text()
    return re.findall(r"```sql\n(.*?)```", text, re.DOTALL)


def test_the_example_queries_of_the_document_answer(tmp_path: Path) -> None:
    database = stored(tmp_path, FLEET)
    assert len(queries()) == 5
    for query in queries():
        assert database.execute(query).fetchall(), query


def test_the_document_has_every_table_and_column(tmp_path: Path) -> None:
    database = stored(tmp_path, [])
    text = (ROOT / "docs" / "fleet.md").read_text()
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'"):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{table}` |")]
        columns = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        assert set(re.findall(r"`([a-z0-9_]+)`", line)) - {table} >= columns - {"dump"}


def test_every_state_is_explained() -> None:
    text = (ROOT / "docs" / "fleet.md").read_text()
    for state in State:
        assert f'"{state.value}"' in text
