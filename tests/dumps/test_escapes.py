# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Names that a crashed kernel holds are untrusted text: with a terminal escape and a bidirectional
override in every one, none leaves raw, whatever prints it.
"""

from collections.abc import Iterator
from pathlib import Path
import re

from drgn import Program
from drgn.helpers.linux.pid import for_each_task
import pytest

import drgn_pmem
from drgn_pmem.commands import load_commands
from drgn_pmem.dumpfile import DumpFile, State, dump_of
from drgn_pmem.errors import PmemError
from drgn_pmem.plugin import DrgnCommand
from drgn_pmem.session import Target
from drgn_pmem.shell.failures import explain
from drgn_pmem.shell.sample import find_sample
from drgn_pmem.shell.session import Session
from drgn_pmem.shell.summary import Summary

from ..samples import open_crash, run_text

OVERRIDE = "\u202e".encode()
MARKER = b"\x1b]" + OVERRIDE
RAW = re.compile("[\x1b\x07\x9b\u202e]")
SHOWN = re.compile(r"\\x1b|\\u202e|\\u001b")

LINES = [spec.name for spec in load_commands() if not any(
    not a.is_option and a.options.get("nargs") != "?" for a in spec.arguments)]  # fmt: skip
LINES += ["pmem-list -BDRNX -vv", "pmem-coverage -H -o namespace,advice", "pmem-files -o +open_by"]


def names_in(prog: Program) -> set[bytes]:
    """Names of devices, files and processes of the machine."""
    names: set[str | None] = set()
    for namespace in drgn_pmem.for_each_namespace(prog):
        names |= {namespace.dev, namespace.name, namespace.blockdev, namespace.chardev}
    names |= {bus.provider for bus in drgn_pmem.for_each_bus(prog)}
    for file in drgn_pmem.list_files(prog).value:
        names |= set((file.path or "").split("/"))
        names |= {task.comm for task in file.mapped_by}
    return {name.encode() for name in names if name and len(name) > 3}


def spoiled(name: bytes) -> bytes:
    """A name with an override after it where the allocation has room for one; else one of the same
    length with the marker in it, or the beginning of that."""
    if -(len(name) + 1) % 8 >= len(OVERRIDE):
        return name + OVERRIDE + b"\0"
    return name[:1] + (MARKER + name)[: len(name) - 1]


def places(dump: DumpFile, prog: Program) -> Iterator[tuple[int, int, bytes]]:
    """Physical address, what to add for the virtual one, and bytes of what is saved of RAM."""
    for segment in dump.segments:
        if segment.virtual:
            end = segment.physical + segment.file_size
            for part in dump.coverage.ranges(segment.physical, end):
                if part.state is State.SAVED:
                    data = prog.read(part.start, part.size, physical=True)
                    yield part.start, segment.virtual - segment.physical, data


def replace(prog: Program, address: int, data: bytes, physical: bool) -> None:
    def read(_: int, count: int, offset: int, physical: bool) -> bytes:
        return data[offset : offset + count]

    prog.add_memory_segment(address, len(data), read, physical)


def spoil(prog: Program) -> int:
    """Put the marker into every name, wherever memory has one; how often."""
    found = 0
    names = names_in(prog)
    for start, shift, data in list(places(dump_of(prog), prog)):
        for name in names:
            bad = spoiled(name)
            at = data.find(name + b"\0")
            while at >= 0:
                # The end of a longer word is none of them.
                if not 0x20 < data[at - 1] < 0x7F or data[at - 1] == ord("/"):
                    for address, physical in ((start, True), (start + shift, False)):
                        replace(prog, address + at, bad, physical)
                    found += 1
                at = data.find(name + b"\0", at + 1)
    prog.cache.clear()
    return found


def comms(prog: Program) -> list[str]:
    return [task.comm.string_().decode(errors="replace") for task in for_each_task(prog)]


@pytest.fixture(scope="module")
def prog() -> Program:
    sample = find_sample()
    prog = open_crash(sample, sample.dump("elf"))
    assert spoil(prog) > 10
    return prog


def test_names_are_spoiled(prog: Program) -> None:
    assert any(RAW.search(n.dev) for n in drgn_pmem.for_each_namespace(prog))
    assert any(RAW.search(comm) for comm in comms(prog))


@pytest.mark.parametrize("line", LINES)
def test_no_command_prints_it_raw(line: str, prog: Program) -> None:
    seen = ""
    for option in ("", " --json", " -H") if "-H" not in line else ("",):
        try:
            out, notes = run_text(prog, line + option)
        except PmemError as error:
            out, notes = explain(error), ""
        seen += out + notes
        assert not RAW.search(out + notes)
    if line in ("pmem-list", "pmem-namespaces", "pmem-coverage", "pmem-memmap", "pmem-report"):
        assert SHOWN.search(seen)


@pytest.mark.parametrize("name", ["report.html", "report", "report.json"])
def test_no_report_has_it_raw(name: str, prog: Program, tmp_path: Path) -> None:
    run_text(prog, f"pmem-report -o {tmp_path / name}")
    text = (tmp_path / name).read_text()
    assert not RAW.search(text)
    assert SHOWN.search(text)


def test_the_shell_prints_it_never(
    prog: Program, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = Target(prog, "vmcore\x1b]", notes=["a note\u202e"], missing="no debug info of \x1b]")
    session = Session(target)
    log = tmp_path / "log.md"
    session.run(f"\\log {log}")
    for line in (
        "pmem-list",
        "_",
        "find_namespace(prog, 'none')",
        "pmem-page none+0",
        "pmem-list -n none",
        "list(for_each_namespace(prog))",
        "\\debug",
    ):
        session.run(line)
    session.run("\\log")
    summary = Summary(target)
    for step in summary.steps():
        for _ in step.work():
            pass
    print(*summary.banner(), sep="\n")
    out, err = capfd.readouterr()
    assert SHOWN.search(out)
    assert SHOWN.search(err)
    assert not RAW.search(out + err + log.read_text())


def test_errors_at_drgns_prompt_have_it_escaped(prog: Program) -> None:
    with pytest.raises(PmemError) as error:
        DrgnCommand("pmem-list").run(prog, "pmem-list", ["-n", "none"])
    assert SHOWN.search(str(error.value))
    assert not RAW.search(str(error.value))


def test_names_in_advice_are_quoted_for_a_shell(prog: Program) -> None:
    out, _ = run_text(prog, "pmem-coverage -H -o namespace,advice")
    spoiled = [line for line in out.splitlines() if " -e " in line and SHOWN.search(line)]
    assert all(re.search(r" -e '[^']*\\", line) for line in spoiled)
