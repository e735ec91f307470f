# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The shell as a user sees it: in a pseudo-terminal."""

import os
from pathlib import Path
import re
import signal
import sys
import time

import pexpect

from .terminal import TIMEOUT, Start

# Python that works for long in small steps and tells so, as scans of pages do.
LONG = (
    "from drgn_pmem.partial import Problems\n"
    "from drgn_pmem.output.progress import progress\n"
    "import time\n"
    "def steps():\n"
    "    with progress('scanning', 10**4) as report:\n"
    "        for i in range(10**4):\n"
    "            time.sleep(0.01)\n"
    "            report(i, 10**4)\n"
    "            yield i\n"
)


CAT = {"DRGN_PMEM_PAGER": "cat"}


def test_a_session(start: Start) -> None:
    shell = start()
    assert "namespace1.0" in shell.run("pmem-list")
    assert "3" in shell.run("1 + 2")
    shell.leave()


def test_the_menu_shows_commands_with_their_descriptions(start: Start) -> None:
    shell = start()
    shell.type("pmem-namesp")
    shell.see("show the namespaces, where their struct pages are")
    shell.type("\t")
    # The first Enter takes what is chosen, the second runs it.
    shell.type("\r\r")
    shell.see("NAMESPACE .*MEMMAP")
    shell.leave()


def test_candidates_come_while_nothing_is_typed(start: Start) -> None:
    shell = start()
    shell.see_on_screen("namespaces, .*struct pages saved")  # the toolbar knows them now
    for _ in range(TIMEOUT // 4):
        time.sleep(2)
        shell.type("pmem-namespaces name")
        try:
            shell.see("namespace1.0 .*fsdax", timeout=2)
        except pexpect.TIMEOUT:
            shell.type("\x15")  # the machine is slow: do nothing for longer
            continue
        break
    else:
        raise AssertionError("no candidates come")
    shell.type("\x15")
    shell.leave()


def test_ctrl_c_stops_a_long_scan_and_keeps_what_was_found(start: Start) -> None:
    shell = start()
    shell.type(f"\x1b[200~{LONG}\x1b[201~\r\r")
    shell.type("problems = Problems(); found = problems.until_interrupted(steps(), 'the scan')\r")
    # The bar says what is done, how fast, and how long it will take.
    shell.see(r"scanning .*/s +time left")
    time.sleep(0.5)
    shell.type("\x03")
    assert "FalseTrue" in shell.run("print(not problems, len(found) > 10, sep='')").replace(
        "\r\n", ""
    )
    shell.leave()


def test_many_ctrl_c_do_not_end_the_session(start: Start) -> None:
    shell = start()
    shell.type("import time; time.sleep(1000)\r")
    time.sleep(1)
    for _ in range(5):
        shell.child.kill(signal.SIGINT)
        time.sleep(0.05)
    shell.see("interrupted")
    for _ in range(3):
        shell.type("\x03")
        shell.child.kill(signal.SIGINT)
        time.sleep(0.05)
    assert "alive" in shell.run("print('ali' + 've')")
    shell.leave()


def test_ctrl_c_stops_what_runs_behind_a_pipe(start: Start) -> None:
    shell = start()
    shell.type("pmem-list | (cat; sleep 1000)\r")
    shell.see("namespace1.0")
    time.sleep(0.5)
    shell.type("\x03")
    assert "alive" in shell.run("print('ali' + 've')")
    shell.leave()


def test_a_failing_command_keeps_the_session(start: Start) -> None:
    shell = start()
    assert "pmem-rmap: 'nonsense'" in shell.run("pmem-rmap nonsense")
    assert "did you mean pmem-list" in shell.run("pmem-lst")
    assert "namespace1.0" in shell.run("pmem-list")
    shell.leave()


def test_long_answers_are_paged_and_short_ones_are_not(start: Start, tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text('#!/bin/sh\necho "PAGER BEGINS"; cat; echo "PAGER ENDS"\n')
    pager.chmod(0o755)
    shell = start(size=(24, 160), DRGN_PMEM_PAGER=str(pager))
    text = shell.run("pmem-list --json")
    assert "PAGER BEGINS" in text
    assert "PAGER ENDS" in text
    assert "PAGER" not in shell.run("pmem-list -n namespace1.0")
    assert "PAGER" not in shell.run("pmem-list --json | cat")
    assert "PAGER" in shell.run("list(range(2000))")
    shell.leave()


def test_ctrl_c_belongs_to_the_pager_while_it_is_open(start: Start) -> None:
    shell = start(size=(24, 100), DRGN_PMEM_PAGER="less")
    shell.type("pmem-list --json\r")
    shell.see('"mode"')  # the pager shows it
    time.sleep(0.5)
    shell.type("\x03")
    time.sleep(0.5)
    shell.type("q")
    assert "alive" in shell.run("print('ali' + 've')")
    shell.leave()


def test_a_table_wider_than_the_terminal_goes_down_instead(start: Start) -> None:
    shell = start(size=(60, 60), DRGN_PMEM_PAGER="cat")
    text = shell.run("pmem-list -n namespace1.0")
    assert re.search(r"NAMESPACE +namespace1\.0\r\nMODE +fsdax\r\n", text)
    # The terminal is made wider; the next answer uses it.
    shell.child.setwinsize(60, 200)
    time.sleep(0.5)
    text = shell.run("pmem-list -n namespace1.0")
    assert re.search(r"NAMESPACE +MODE +MAP +SIZE", text)
    shell.leave()


def test_prose_wider_than_the_terminal_is_broken_between_words(
    start: Start, drgn_pmem, dump
) -> None:
    command = "pmem-coverage namespace2.0"
    whole = drgn_pmem("-c", dump[0], "-s", dump[1], command.split()[0], command.split()[1])
    advice = next(line for line in whole.stdout.splitlines() if "next time: " in line)
    assert len(advice) > 60, "a pipe gets the line whole"
    shell = start(size=(60, 60), DRGN_PMEM_PAGER="cat")
    lines = shell.run(command).splitlines()
    first = next(number for number, line in enumerate(lines) if "next time: " in line)
    shown = lines[first:][: len(advice) // 40]
    assert all(len(line) <= 60 for line in shown)
    assert " ".join(" ".join(shown).split()).startswith(" ".join(advice.split()))
    shell.leave()


def test_a_resize_at_the_prompt_keeps_the_line(start: Start) -> None:
    shell = start()
    shell.type("print('resi' +")
    for columns in (20, 200, 80):
        shell.child.setwinsize(30, columns)
        time.sleep(0.3)
    shell.type(" 'zed')\r")
    shell.see("resized\r\n")
    shell.leave()


def colours(text: str) -> set[int]:
    """Numbers of the colours that a text sets."""
    codes = {
        int(code)
        for found in re.findall(r"\x1b\[([\d;]*)m", text)
        for code in found.split(";")
        if code
    }
    return codes & {*range(30, 38), *range(40, 48), *range(90, 98), *range(100, 108)}


def test_colours_and_none_with_no_color(start: Start) -> None:
    for environment, expected in (({}, True), ({"NO_COLOR": "1"}, False)):
        shell = start(**environment, **CAT)
        shell.type("pmem-list -n namespace1.0 --json\r")
        assert bool(colours(shell.see_raw('"uuid'))) is expected
        shell.type("pmem-rmap nonsense\r")
        assert bool(colours(shell.see_raw("names no page"))) is expected
        shell.leave()


def test_a_dumb_terminal_gets_plain_text(start: Start) -> None:
    shell = start(TERM="dumb")
    shell.type("pmem-list -n namespace1.0\r")
    assert "\x1b" not in shell.see_raw(r"namespace1\.0 .*\r\n")
    shell.leave()


def test_a_terminal_that_is_not_utf_8(start: Start) -> None:
    # PYTHONUTF8 off: what the locale says must hold.
    shell = start(LC_ALL="C", LANG="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0", **CAT)
    text = shell.run("print('\\u25cf'.encode('ascii', 'replace'), sep='')")
    assert "b'?'" in text
    text = shell.run("'\\u25cf \\u00e9'")
    assert "\\u25cf" in text
    text = shell.run("pmem-coverage")
    assert text.isascii()
    assert re.search(r"\[[IMm:#+.-]+\]", text)
    shell.leave()


def test_vi_mode_from_the_config(start: Start) -> None:
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "drgn-pmem" / "config"
    path.parent.mkdir(parents=True)
    path.write_text("[shell]\nkeys = vi\nstart = started = 'by config'\n")
    shell = start()
    shell.see_on_screen("F2 Vi")
    shell.type("print(startedx")
    time.sleep(0.2)
    shell.type("\x1b")
    time.sleep(1.2)  # Escape alone is told from a key's sequence by time
    shell.type("xA)\r")
    shell.see("by config\r\n")
    shell.leave()


def test_function_keys(start: Start) -> None:
    shell = start(**CAT)
    shell.type("pmem-list\x1bOP")  # F1
    shell.see("usage: pmem-list")
    shell.type("\x15\x1bOQ")  # F2
    shell.see_on_screen("F2 Vi")
    shell.type("\x1bOQ")
    shell.see_on_screen("F2 Emacs")
    shell.leave()


def test_history_is_there_in_the_next_session(start: Start) -> None:
    shell = start()
    shell.run("kept = 'from the first session'")
    shell.leave()
    shell = start()
    shell.type("kept")
    shell.see("from the first session")  # suggested
    shell.type("\x1b[C\r")
    shell.run("")
    assert "from the first session" in shell.run("print(kept)")
    shell.leave()


def test_exit_status(start: Start) -> None:
    shell = start()
    shell.type("raise SystemExit(3)\r")
    shell.child.expect(pexpect.EOF)
    shell.child.close()
    assert shell.child.exitstatus == 3


def test_the_unpacking_of_a_sample_shows_a_bar(sample, tmp_path: Path) -> None:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "drgn_pmem", "--sample", sample.name, "-e", "print('opened')"],
        env={**os.environ, "TERM": "xterm", "XDG_CACHE_HOME": str(tmp_path)},  # type: ignore[arg-type]
        encoding="utf-8",
        timeout=300,
        dimensions=(24, 100),
    )
    child.expect(r"unpacking .*%.*/s")
    child.expect("opened")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_notes_come_after_the_answer(start: Start) -> None:
    shell = start(**CAT)
    text = shell.run("pmem-list --limit 1")
    assert re.search(r"NAMESPACE.*\r\nnamespace[^\r]*\r\nnote: 1 of \d+ rows shown", text)
    text = shell.run("pmem-list --limit 1 | cat")
    assert "note: 1 of" in text
    shell.leave()


def test_a_command_shows_its_progress_and_its_answer(start: Start, tmp_path: Path) -> None:
    """The bar is drawn on the terminal itself, though the answer is held back for the pager."""
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "drgn-pmem" / "config"
    path.parent.mkdir(parents=True)
    start_lines = [
        "import sys",
        f"sys.path.insert(0, {str(tmp_path)!r})",
        "import slow_command",
        "slow_command.add(drgn_pmem)",
    ]
    path.write_text("[shell]\nstart =\n" + "".join(f"    {line}\n" for line in start_lines))
    (tmp_path / "slow_command.py").write_text(
        "import dataclasses, gc, time\n"
        "from drgn_pmem.partial import Problems\n"
        "from drgn_pmem.output.progress import progress\n"
        "from drgn_pmem.shell.session import Session, _ShellCommand\n"
        "from drgn_pmem.spec import SPECS, Answer\n"
        "def slow(prog, args):\n"
        "    def steps():\n"
        "        with progress('counting', 1000) as report:\n"
        "            for i in range(1000):\n"
        "                time.sleep(0.02)\n"
        "                report(i, 1000)\n"
        "                yield i\n"
        "    problems = Problems()\n"
        "    found = problems.until_interrupted(steps(), 'stopped by Ctrl-C')\n"
        "    return Answer(found, text=f'counted to {len(found)}', problems=problems)\n"
        "def add(_):\n"
        "    spec = SPECS['pmem-list']\n"
        "    session = next(o for o in gc.get_objects() if isinstance(o, Session))\n"
        "    fields = dict(name='pmem-slow', function=slow, arguments=(), fields=())\n"
        "    SPECS['pmem-slow'] = dataclasses.replace(spec, **fields)\n"
        "    session._commands.register('pmem-slow', _ShellCommand(session, SPECS['pmem-slow']))\n"
    )
    shell = start(**CAT)
    shell.type("pmem-slow\r")
    shell.see(r"counting .*/s +time left")
    shell.type("\x03")
    shell.see(r"counted to \d+\r\n")
    shell.see("note: stopped by Ctrl-C")
    assert "int" in shell.run("type(_[5])")
    shell.leave()
