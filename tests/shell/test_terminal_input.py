# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is typed and pasted at the prompt of a terminal, key by key."""

import csv
import io
import re
import time

import pexpect
import pytest

from .terminal import TIMEOUT, Start, Terminal


def pasted(text: str) -> str:
    """As a terminal sends what is pasted."""
    return f"\x1b[200~{text}\x1b[201~"


def rows(text: str) -> list[str]:
    """Lines of an answer, without its notes and the echo of what was typed."""
    unwanted = (">>> ", "... ", "note: ")
    return [line for line in text.splitlines() if line and not any(u in line for u in unwanted)]


def screen_of(shell: Terminal, keys: str, pattern: str) -> str:
    """Type keys until a pattern shows below the line, and clear the line."""
    for _ in range(TIMEOUT // 4):
        shell.type(keys)
        try:
            before = shell.see(pattern, timeout=4)
        except pexpect.TIMEOUT:
            shell.type("\x15")  # what is completed is learned while the shell is idle
            time.sleep(2)
            continue
        shell.type("\x07\x15")
        return before
    raise AssertionError(f"{pattern!r} does not come after {keys!r}")


def test_what_is_pasted_is_what_is_typed(start: Start, drgn_pmem, dump) -> None:
    """Several commands, and a block with a command after it: as on standard input."""
    text = (
        "pmem-namespaces -H -o namespace --limit 1\n"
        "for number in range(3):\n"
        "    print('number', number)\n"
        "\n"
        "pmem-namespaces -H -o mode --limit 1\n"
        "print('a', 'b', sep='=')\n"
    )
    arguments = ("-q", "-c", dump[0], "-s", dump[1], "--main-symbols")
    wanted = drgn_pmem(*arguments, input=text)
    assert wanted.returncode == 0
    shell = start()
    shell.type(pasted(text) + "\r")
    out = shell.see("a=b\r\n") + "a=b"
    assert rows(out)[-6:] == wanted.stdout.splitlines()
    assert wanted.stdout.splitlines() == [
        "namespace0.0", "number 0", "number 1", "number 2", "sector", "a=b"
    ]  # fmt: skip
    # After a failure the rest is not run, and that is said.
    shell.type(pasted("pmem-rmap nonsense\nprint('not', 'run')\n") + "\r")
    shell.see("not run: 1 input")
    shell.leave()


def test_help_before_and_after_a_word(start: Start) -> None:
    shell = start(size=(40, 80), DRGN_PMEM_PAGER="cat")
    after = shell.run("pmem-usage?").partition("usage: pmem-usage")[2]
    before = shell.run("?pmem-usage").partition("usage: pmem-usage")[2]
    assert "--limit N" in after
    assert rows(before) == rows(after)
    # What is longer than the terminal is wide is broken between words.
    assert "device,\n  name, uuid" in shell.run("pmem-list -o +nope").replace("\r", "")
    shell.type("%crash\r")
    shell.see("exit, quit or Ctrl-D comes back here")
    shell.see("%crash> ")
    shell.type("quit\r")
    assert "alive" in shell.run("print('ali' + 've')")
    shell.leave()


def test_what_is_completed(start: Start) -> None:
    shell = start()
    shell.see_on_screen("namespaces, .*struct pages saved")  # the shell was idle for a while
    # Fields: those that are not shown yet.
    menu = screen_of(shell, "pmem-namespaces -o +\t", "raw_size")
    assert "uuid" in menu
    assert "layout" not in menu
    screen_of(shell, "pmem-pages --where refc\t", "refcount")
    # Python.
    screen_of(shell, 'prog["init_uts\t', "init_uts_ns")
    screen_of(shell, 'cast("struct dax_dev\t', "struct dax_device")
    # DEVICE:SECTOR, and poisoned pages before all others.
    screen_of(shell, "pmem-page pmem2\t", "pmem2:")
    screen_of(shell, "pmem-page pmem2:\t", "pmem2:45064")
    screen_of(shell, "pmem-page 0x\t", "poisoned")
    shell.leave()


def test_tables_at_the_prompt(start: Start) -> None:
    shell = start(size=(40, 80), DRGN_PMEM_PAGER="cat")
    out = shell.run("pmem-namespaces --csv -o namespace,mode")
    table = list(csv.reader(io.StringIO("\n".join(line.strip() for line in rows(out)))))
    assert ["namespace", "mode"] in table
    assert ["namespace1.1", "devdax"] in table
    held = rows(shell.run("pmem-pins -H -o pfn,refcount --where 'refcount > 1'"))
    counts = [int(line.split()[1]) for line in held if re.match(r"0x\w+\s+\d+$", line)]
    assert counts
    assert min(counts) > 1
    # Which columns fit, and which are left out: 80 columns.
    out = shell.run("pmem-namespaces")
    assert max(map(len, rows(out))) <= 80
    assert "too wide for the terminal: -o +" in out
    for how, shown in (("on", True), ("off", False), ("auto", False)):
        shell.run(f"\\x {how}")
        out = shell.run("pmem-namespaces namespace1.0 -o namespace,mode")
        assert bool(re.search(r"NAMESPACE +\S? *namespace1.0", out)) is shown, how
    # One page by its number and by its address; a number alone is explained.
    by_number = rows(shell.run("pmem-page pfn:0x1295f5 -H -o pfn,offset"))
    assert rows(shell.run("pmem-page phys:0x1295f5000 -H -o pfn,offset"))[-1] == by_number[-1]
    # -o is fields everywhere.
    assert re.search("FILE_SIZE|PHYSICAL", shell.run("elfcorehdr -o physical"))
    shell.leave()


@pytest.mark.parametrize("width", [80, 200])
def test_no_line_is_wider_than_the_terminal(start: Start, width: int) -> None:
    shell = start(size=(40, width), DRGN_PMEM_PAGER="cat")
    for line in ("pmem-namespaces", "pmem-poison", "pmem-diagnose"):
        assert max(map(len, rows(shell.run(line)))) <= width, line
    shell.leave()
