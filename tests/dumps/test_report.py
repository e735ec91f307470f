# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
pmem-report says what each command says, which other tests hold against what was recorded; of the
crash itself, and of namespaces, it says what the machine recorded.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
import importlib.metadata
import json
import os
from pathlib import Path
import re
import stat
from typing import Any

import pytest

from drgn_pmem.analysis.findings.crash import read_crash
from drgn_pmem.commands import load_commands, report
from drgn_pmem.dumpfile import Vmcoreinfo
from drgn_pmem.errors import PmemError, UsageError
from drgn_pmem.output import progress
from drgn_pmem.output.notes import merged
from drgn_pmem.spec import SPECS

from ..samples import Case, run_answer, run_json, run_text, without_debug_info
from .test_every_command import ALL, OF_A_CUT_FILE

EACH = [case for case in ALL if case.format == next(iter(case.sample.formats))]
"""A dump of every crash."""

default = EACH[0]

NEEDS_A_SUBJECT = {"pmem-diff", "pmem-page", "pmem-rmap", "pmem-file", "pmem-trim"}
"""Commands that answer about a page, a file or another dump that the user names, or write one."""


def sections(case: Case) -> Iterator[tuple[str, dict[str, object]]]:
    for section in case.json("pmem-report")["sections"]:
        yield section["command"], section


def without_time(report: Any) -> Any:
    """A report without when it was made."""
    assert re.fullmatch(r"[\d-]+ [\d:]+ UTC", report["report"].pop("made"))
    return report


@pytest.mark.holds("pmem-report")
@pytest.mark.parametrize("case", [*ALL, *OF_A_CUT_FILE], ids=str)
def test_a_section_is_what_its_command_answers(case: Case) -> None:
    seen = set()
    for line, section in sections(case):
        seen.add(line.split()[0])
        if section["answer"] is None:
            assert section["state"] in ("impossible", "not there")
            with pytest.raises(PmemError, match=f"^{re.escape(str(section['error']))}$"):
                run_answer(case.prog, line)
            continue
        answer, out, _ = run_answer(case.prog, f"{line} --json")
        assert answer is not None
        assert section["answer"] == json.loads(out)
        assert section["notes"] == answer.notes
        assert section["lacks"] == answer.all_lacks()
        assert section["state"] == ("complete" if answer.whole else "degraded")
    load_commands()
    assert seen == set(SPECS) - NEEDS_A_SUBJECT - {"pmem-report"}


@pytest.mark.parametrize("case", EACH, ids=str)
def test_the_crash_is_the_one_that_was_recorded(case: Case) -> None:
    crash = case.json("pmem-report")["crash"]
    recorded = "\n".join(
        path.read_text("utf-8", "replace")
        for name in ("dmesg", "first/dmesg", "console")
        if (path := case.sample.truth / name).exists()
    )
    assert f"Linux version {crash['release']} " in recorded
    # a guest without a crash kernel was never crashed
    assert (crash["panic"] is None) == (case.sample.loader == "none")
    # Before v5.1, sysrq wrote to address 0 to crash.
    assert crash["panic"] in (
        None,
        "Kernel panic - not syncing: sysrq triggered crash",
        "BUG: unable to handle kernel NULL pointer dereference at 0000000000000000",
    )
    assert crash["size"] == case.dump.stat().st_size


@pytest.mark.parametrize("case", EACH, ids=str)
def test_the_log_lines_that_matter_are_those_that_were_recorded(case: Case) -> None:
    """Every memory failure and warning of the machine's own dmesg, and the panic at the end."""
    log = case.json("pmem-report")["log"]
    assert (log["state"], log["lacks"]) == ("complete", [])
    shown = [line["text"] for line in log["lines"]]
    path = case.sample.truth / "dmesg"
    recorded = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
    texts = [re.sub(r"^\[ *\d+\.\d+\](\[ *[TC]\d+\])? ?", "", line) for line in recorded]
    wanted = [text for text in texts if re.match(r"Memory failure: 0x|Injecting|WARNING: ", text)]
    assert set(wanted) <= set(shown)
    crashed = any("ernel panic - not syncing" in text or "BUG: " in text for text in shown)
    assert crashed == (case.sample.loader != "none")


def test_the_log_is_in_the_text_and_on_the_page() -> None:
    text, _ = run_text(default.prog, "pmem-report")
    html, _ = run_text(default.prog, "pmem-report --html")
    for line in default.json("pmem-report")["log"]["lines"]:
        assert line["text"] in text
        assert line["text"] in re.sub(r"<[^>]+>", "", html).replace("&gt;", ">")


def test_without_debug_info_the_log_cannot_be_read() -> None:
    bare = run_json(without_debug_info(default), "pmem-report")
    assert bare["log"]["state"] == "impossible"
    assert "no debug info of the kernel" in bare["log"]["lacks"][0]


def test_the_report_says_what_made_it_of_which_files() -> None:
    made = default.json("pmem-report")["report"]
    assert made["report"] == f"drgn-pmem {importlib.metadata.version('drgn-pmem')}"
    text, _ = run_text(default.prog, "pmem-report")
    build_id = default.prog.main_module().build_id.hex()
    assert made["build id"] == build_id
    assert made["vmlinux"].endswith(f"/vmlinux ({build_id})")
    assert f"build id {build_id}" in text


def test_progress_names_each_section_and_is_taken_away() -> None:
    said: list[str] = []
    progress.show_with(None, said.append)
    try:
        run_json(default.prog, "pmem-report")
    finally:
        progress.show_with(None)
    steps = [text for text in said if text]
    assert steps[0] == f"1/{len(steps)} pmem-diagnose"
    assert steps[5] == f"6/{len(steps)} pmem-poison"
    assert said[-1] == ""


def test_the_map_has_a_memmap_only_where_struct_pages_are() -> None:
    from drgn_pmem.analysis.findings.memorymap import read_memory_map

    pieces = [piece for row in read_memory_map(default.prog).value for piece in row.pieces]
    drawn = sum(piece.size for piece in pieces if piece.kind == "memmap")
    memmaps = [m["struct_pages"] for m in default.json("pmem-memmap") if m.get("struct_pages")]
    on_pmem = [pages["pmem_range"]["size"] for pages in memmaps if pages["pmem_range"]]
    assert 0 < drawn == sum(on_pmem)
    # maps and logs of BTT arenas, reserved space
    assert any(piece.kind == "metadata" for piece in pieces)


def test_the_map_shows_every_region_and_every_bad_page() -> None:
    """By the regions of ndctl, and pmem-poison."""
    html, _ = run_text(default.prog, "pmem-report --html")
    (svg,) = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    for bus in default.truth_json("ndctl.all.json"):
        for region in bus["regions"]:
            assert f">{region['dev']}, {region['size'] / (1 << 20):.2f} MiB<" in svg
    for page in default.json("pmem-poison"):
        assert f">poison: PFN {page['pfn']:#x} " in svg
    text, _ = run_text(default.prog, "pmem-report")
    assert re.search(r"^region5 .*  2 bad pages, 1 pinned page$", text, re.MULTILINE)


def test_findings_come_first_and_once(tmp_path: Path) -> None:
    """pmem-diagnose prints its lines while it finds them, but not as a section of a report."""
    out, _ = run_text(default.prog, "pmem-report")
    assert out.startswith(f"DUMP    {default.dump}")
    assert len(re.findall(r"^DUMP  ", out, re.MULTILINE)) == 2  # at the top, and in its section
    out, _ = run_text(default.prog, f"pmem-report -o {tmp_path / 'report.txt'}")
    assert out == ""


class Page(HTMLParser):
    """A page's text and its elements; every tag must be closed by its own."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


@pytest.mark.parametrize("case", EACH, ids=str)
def test_the_page_stands_alone_and_has_every_recorded_namespace(case: Case) -> None:
    page = parsed(run_text(case.prog, "pmem-report --html")[0])
    assert not {"script", "link", "img", "iframe"}.intersection(page.tags)
    links = [value for name, value in page.attributes if name in ("href", "src")]
    anchors = {f"#{value}" for name, value in page.attributes if name == "id"}
    assert links
    assert set(links) <= anchors
    named = {f"#{line.split()[0]}" for line, _ in sections(case)}
    # The lines of the kernel log are of no command.
    assert page.tags.count("section") == len(named | {"#kernel"} & anchors)
    assert named <= set(links)
    if not (case.sample.truth / "ndctl.json").exists():
        assert "Persistent Memory" not in case.truth("first/iomem")
        return
    for bus in case.truth_json("ndctl.json"):
        for region in bus["regions"]:
            for namespace in region.get("namespaces", []):
                assert namespace["dev"] in page.texts
                assert namespace.get("uuid", namespace["dev"]) in page.texts


@pytest.mark.parametrize("case", EACH, ids=str)
def test_text_has_every_section_and_all_its_notes(case: Case) -> None:
    text, _ = run_text(case.prog, "pmem-report")
    for line, section in sections(case):
        heading = f"{line}: {SPECS[line.split()[0]].description}"
        assert f"\n{heading}\n{'-' * len(heading)}\n" in text
        # Notes of one kind are one line of text, as in the command's own answer.
        for note in merged([*section["notes"], *section["lacks"]]):  # type: ignore[misc]
            assert f"\nnote: {note}\n" in f"{text}\n"


def test_rows_are_limited_in_text_and_html_and_not_in_json() -> None:
    short, _ = run_text(default.prog, "pmem-report --limit 1")
    (pages,) = re.findall(r"\npmem-files: .*?\n\npmem-pages", short, re.DOTALL)
    assert pages.count("/mnt/") == 1
    assert re.search(r"note: 1 of \d+ rows shown \(--limit\)", pages)
    html, _ = run_text(default.prog, "pmem-report --html --limit 1")
    assert "rows shown (--limit)" in html
    again = without_time(run_json(default.prog, "pmem-report --limit 1"))
    assert again == without_time(default.json("pmem-report"))


@pytest.mark.parametrize(
    ("name", "option", "begin"),
    [
        ("report.txt", "", "DUMP    "),
        ("report", "", "DUMP    "),
        ("report.HTML", "", "<!DOCTYPE html>"),
        ("report", "--html", "<!DOCTYPE html>"),
        ("report.json", "", "{"),
        ("report", "--json", "{"),
    ],
)
def test_a_file_has_the_format_of_its_name(
    name: str, option: str, begin: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    out, notes = run_text(default.prog, f"pmem-report -o {path} {option}")
    assert out.strip() == (
        json.dumps({"output": str(path)}, indent=2) if option == "--json" else ""
    )
    assert f"the report is in {path}" in notes
    assert path.read_text().startswith(begin)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    if begin == "{":
        again = without_time(json.loads(path.read_text()))
        assert again == without_time(default.json("pmem-report"))


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "nowhere" / "report", tmp_path / "folder"):
        with pytest.raises(PmemError, match=re.escape(str(path))) as error:
            run_text(default.prog, f"pmem-report -o {path}")
        assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_what_is_no_plain_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link.json"
    link.symlink_to(pipe)
    with ThreadPoolExecutor() as pool:
        for path in (pipe, link):
            reader = pool.submit(pipe.read_text)
            run_text(default.prog, f"pmem-report --json -o {path}")
            again = without_time(json.loads(reader.result(60)))
            assert again == without_time(default.json("pmem-report"))
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("before")
    link.symlink_to(file)
    run_text(default.prog, f"pmem-report -o {link}")
    assert link.is_symlink()
    assert file.read_text().startswith("DUMP    ")


def test_a_crash_time_that_is_none_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("9" * 5000, "-1", "1e9", "\u0661"):
        info = Vmcoreinfo(values={"CRASHTIME": text})
        monkeypatch.setitem(default.prog.cache, "drgn_pmem.vmcoreinfo", info)
        assert read_crash(default.prog).value.time is None


def test_html_and_json_at_once_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="not both"):
        run_text(default.prog, "pmem-report --html --json")


def test_ctrl_c_ends_it_and_keeps_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = default.json("pmem-report")["sections"]
    ask = report.ask

    def interrupted(spec, prog, args):
        if spec.name == "pmem-pins":
            raise KeyboardInterrupt
        return ask(spec, prog, args)

    monkeypatch.setattr(report, "ask", interrupted)
    answer, out, notes = run_answer(default.prog, "pmem-report --json")
    assert answer is not None
    assert not answer.whole
    part = json.loads(out)["sections"]
    at = [s["command"] for s in whole].index("pmem-pins")
    assert part[:at] == whole[:at]
    assert [s["state"] for s in part[at:]] == ["interrupted"] * (len(whole) - at)
    assert all(s["answer"] is None and s["error"] for s in part[at:])
    assert "pmem-pins, pmem-files" in notes
    assert "interrupted" in notes
