# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
A trimmed dump has no user data of persistent memory, and answers what the dump answers.

A secret is written into every page of user data that a dump holds, by what the machine recorded of
its namespaces; it must be nowhere in the trimmed dump, compressed or not. ``make test`` takes two
dumps, ``make test-trim`` every sample in every format to every format.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import itertools
import json
import os
from pathlib import Path
import re
import secrets
import shutil
import struct
import sys

import drgn
import pytest

import drgn_pmem
from drgn_pmem.analysis.trim import plan as plan_module, write
from drgn_pmem.analysis.trim.metadata import known_metadata
from drgn_pmem.analysis.trim.plan import plan_trim
from drgn_pmem.commands import pmem_trim, verify
from drgn_pmem.dumpfile import DumpFormat, State, dump_of, open_dump
from drgn_pmem.dumpfile.records import DumpFile
from drgn_pmem.dumpfile.writing.contents import Runs
from drgn_pmem.errors import DumpFileError, MissingDebugInfo, PmemError, UsageError
from drgn_pmem.kernel.namespace import Namespace
from drgn_pmem.partial import Incomplete, Partial, Problems
from drgn_pmem.ranges import Range, RangeSet
from drgn_pmem.spec import SPECS, Answer

from ..samples import (
    CASES,
    CUT_SHORT,
    Case,
    open_crash,
    pmem_samples,
    recorded_pmem,
    run_answer,
    run_json,
    samples,
    without_debug_info,
)

EVERYTHING = bool(os.environ.get("DRGN_PMEM_TRIM"))
"""Set by ``make test-trim``."""

TO = ("zlib", "zstd", "lzo", "none", "elf")
PAGE = 4096


def case_of(name: str) -> Case:
    return next(case for case in CASES if str(case) == name)


default = case_of("6.1-fileload:elf")

PRODUCT = [
    (case, to)
    for case in ([Case(s, f) for s in samples().values() for f in s.formats] + [CASES[-1]])
    for to in TO
    if EVERYTHING
] or [(default, "zlib"), (case_of("6.1-fileload:zlib"), "elf")]

SECRET = [
    (case, to)
    for case in (c for c in CASES if "elf" in c.format or c.format == "raw")
    for to in TO
    if EVERYTHING and CUT_SHORT not in case.format
] or [(default, "elf"), (case_of("6.1-hotadd:elf"), "zstd")]


def options(to: str) -> str:
    return "--format elf" if to == "elf" else f"--compress {to}"


def user_data(case: Case) -> RangeSet:
    """What is user data by the info blocks that were read in the guest, and by its iomem: not even
    the first page of a namespace, which is left from what was there before, is metadata."""
    iomem = case.truth("iomem")
    pmem, ram = (
        RangeSet(
            Range(int(start, 16), int(end, 16) + 1)
            for start, end in re.findall(rf"(\w+)-(\w+) : {name}", iomem)
        )
        for name in ("Persistent Memory", "System RAM")
    )
    # POWER's iomem names none
    pmem = pmem or RangeSet(Range(start, end) for start, end in recorded_pmem(case))
    metadata = []
    for text, name in re.findall(r"(\w+)-\w+ : (namespace\d+\.\d+)", iomem):
        start = int(text, 16)
        for block in json.loads(case.truth(f"infoblock.{name}.json") or "[]"):
            if block["signature"] != "BTT_ARENA_INFO":
                metadata.append(Range(start + PAGE, start + block["dataoff"]))
                continue
            base = start + PAGE
            metadata.append(Range(base, base + block["dataoff"]))
            metadata.append(Range(base + block["mapoff"], base + block["info2off"] + PAGE))
    return pmem.subtract(RangeSet(metadata)).subtract(ram)


def planted(case: Case, path: Path) -> tuple[bytes, RangeSet]:
    """Write a secret into every page of user data of a copy of an ELF dump."""
    secret = secrets.token_bytes(16)
    shutil.copyfile(case.dump, path)
    dump = open_dump(path)
    saved = [r for r in dump.coverage.extent() if r.state is State.SAVED]
    user = user_data(case).intersect(RangeSet(saved))
    with path.open("r+b") as file:
        for segment in dump.segments:
            assert segment.physical is not None
            for part in user.overlap(segment.physical, segment.physical + segment.file_size):
                for address in range(part.start, part.end, PAGE):
                    file.seek(segment.file_offset + address - segment.physical)
                    file.write(secret)
    return secret, user


def holds(dump: DumpFile, secret: bytes) -> list[int]:
    """Where memory has it, decompressed."""
    assert dump.memory is not None
    return [
        address + match.start()
        for address, data in dump.memory.chunks()
        for match in re.finditer(re.escape(secret), data)
    ]


@pytest.mark.holds("pmem-trim")
@pytest.mark.parametrize(("case", "to"), SECRET, ids=str)
def test_a_secret_in_every_user_page_is_nowhere_in_the_new_dump(
    case: Case, to: str, tmp_path: Path
) -> None:
    path, new = tmp_path / "planted", tmp_path / "new"
    secret, user = planted(case, path)
    if EVERYTHING and not user:
        pytest.skip("the dump has no user data: its pmem was not dumped")
    prog = open_crash(case.sample, path)
    assert len(holds(dump_of(prog), secret)) == user.total // PAGE > 0
    answer, _, _ = run_answer(prog, f"pmem-trim -o {new} --no-verify {options(to)}")
    assert answer is not None
    dump = open_dump(new)
    assert holds(dump, secret) == []
    assert secret not in new.read_bytes()
    for part in user:
        # Of a page that has metadata, too, the user data is zeroes.
        start, end = -(-part.start // case.page) * case.page, part.end // case.page * case.page
        assert start >= end or set(dump.coverage.count(start, end)) == {State.EXCLUDED}


@pytest.mark.holds("pmem-trim")
@pytest.mark.parametrize(("case", "to"), PRODUCT, ids=str)
def test_every_answer_is_kept(case: Case, to: str, tmp_path: Path) -> None:
    """The command compares them itself; a file that drgn alone opens is what it leaves."""
    new = tmp_path / "new"
    plan = plan_trim(case.prog, format="elf" if to == "elf" else "kdump").value
    _, out, notes = run_answer(case.prog, f"pmem-trim -o {new} {options(to)} --json")
    said = json.loads(out)
    assert ("read what was left out of this ELF core as zeroes" in notes) == (to == "elf")
    assert said["output"] == str(new)
    assert said["size"] == new.stat().st_size
    assert said["kept"] == plan.kept
    assert said["dropped"] == plan.dropped
    asked = {line.split()[0] for line in said["verified"]}
    of_pmem = set() if case.sample in pmem_samples() else {"pmem-file", "pmem-page", "pmem-rmap"}
    assert asked == set(SPECS) - {"pmem-diff", "pmem-report", "pmem-trim"} - of_pmem
    assert list(tmp_path.iterdir()) == [new]
    assert new.stat().st_mode & 0o777 == 0o600
    dump, before = open_dump(new), dump_of(case.prog)
    assert dump.contained is (DumpFormat.ELF if to == "elf" else DumpFormat.KDUMP)
    assert not dump.truncated
    assert [r.to_json() for r in dump.coverage.covered()] == [
        r.to_json() for r in before.coverage.covered()
    ] or dump.contained is not before.contained
    prog = drgn.Program()
    prog.set_core_dump(new)
    assert prog["VMCOREINFO"].string_() == case.prog["VMCOREINFO"].string_()
    # What the note says of drgn without this plugin. (A dump without pmem loses at most what a
    # bitmap, which has whole pages, cannot say.)
    lost = next((p.start for p in dump.coverage.extent() if p.state is State.EXCLUDED), None)
    assert lost is not None or plan.dropped.keys() <= {"pages of which the dump has only a part"}
    if lost is None:
        return
    if to == "elf":
        assert prog.read(lost, 16, physical=True) == bytes(16)
    else:
        with pytest.raises(drgn.FaultError):
            prog.read(lost, 16, physical=True)


@pytest.mark.skipif(not EVERYTHING, reason="takes long: make test-trim")
@pytest.mark.parametrize("to", TO)
def test_raw_images_of_memory_become_a_dump(to: str, tmp_path: Path) -> None:
    case = case_of("6.1-hotadd:qemu-elf")
    memory = dump_of(case.prog).memory
    assert memory is not None
    saved = Runs.in_state(dump_of(case.prog).coverage, State.SAVED)
    words = []
    for run in saved:
        path = tmp_path / f"{run.start:x}"
        words.append(f"{path}@{run.start:#x}")
        with path.open("wb") as file:
            for start in range(run.start, run.end, 1 << 20):
                data = memory.read(start, min(1 << 20, run.end - start))
                if any(data):
                    file.seek(start - run.start)
                    file.write(data)
            file.truncate(run.size)
    debug = next(path for m in case.prog.modules() if (path := m.debug_file_path))
    said = run_json(
        drgn_pmem.open(words, [debug]), f"pmem-trim -o {tmp_path / 'new'} {options(to)}"
    )
    assert len(said["verified"]) >= 17


def test_the_answers_that_are_compared_are_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_QUESTIONS", ("pmem-diagnose",))
    monkeypatch.setattr(verify, "_SUBJECTS", False)
    _, plan, _ = run_answer(default.prog, "pmem-trim")
    _, written, notes = run_answer(default.prog, f"pmem-trim -o {tmp_path / 'new'}")
    assert written == plan
    assert "1 questions answered" in notes
    assert "crash opens it with --zero_excluded" in notes


def without_struct_pages(
    prog: drgn.Program, namespaces: list[Namespace]
) -> Partial[list[tuple[str, RangeSet]]]:
    return known_metadata(prog, namespaces).map(
        lambda found: [(name, ranges) for name, ranges in found if "struct" not in name]
    )


def test_a_dump_that_answers_otherwise_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one without the struct pages would."""
    monkeypatch.setattr(plan_module, "known_metadata", without_struct_pages)
    monkeypatch.setattr(plan_module, "may_be_zero", lambda layout: [])
    monkeypatch.setattr(verify, "_QUESTIONS", ("pmem-memmap", "pmem-pages"))
    with pytest.raises(DumpFileError, match=r"does not answer as this one.*pmem-memmap"):
        run_answer(default.prog, f"pmem-trim -o {tmp_path / 'new'}")
    assert list(tmp_path.iterdir()) == []


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


def test_the_written_dump_is_asked_by_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The debug info of both and what commands keep of them would be too much memory. It imports
    nothing from the current directory."""
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    python = program(tmp_path / "python", f'echo x >> started\nexec {sys.executable} "$@"')
    monkeypatch.setattr(sys, "executable", python)
    monkeypatch.setattr(verify, "_QUESTIONS", ("pmem-segments",))
    monkeypatch.setattr(verify, "_SUBJECTS", False)
    _, _, notes = run_answer(default.prog, f"pmem-trim -o {tmp_path / 'new'} --compress none")
    assert "1 questions answered as by this dump" in notes
    assert (tmp_path / "started").read_text() == "x\n"


def test_a_process_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", "cat >/dev/null; exit 3"))
    with pytest.raises(DumpFileError, match="ended with status 3, so the dump was removed"):
        run_answer(default.prog, f"pmem-trim -o {tmp_path / 'new'} --compress none")
    assert not (tmp_path / "new").exists()


def test_ctrl_c_ends_the_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"cat >/dev/null; echo $$ | tee {tmp_path / 'pid'}; exec sleep 60"
    monkeypatch.setattr(sys, "executable", program(tmp_path / "python", text))

    def report(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with (tmp_path / "file").open("wb") as file, pytest.raises(KeyboardInterrupt):
        verify._ask_written(file.fileno(), file.fileno(), {}, report, 1)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_memory_that_was_not_planned_is_found(tmp_path: Path) -> None:
    prog = default.prog
    plan, more = plan_trim(prog).value, plan_trim(prog, userdata=["namespace2.0"]).value
    paths = []
    for number, each in enumerate((plan, more)):
        paths.append(str(tmp_path / str(number)))
        pmem_trim.trim(prog, paths[-1], each, verify=False)
        write.check_memory(prog, each, paths[-1])
    with pytest.raises(DumpFileError, match="were to be dropped"):
        write.check_memory(prog, plan, paths[1])
    with pytest.raises(DumpFileError, match="were to be kept"):
        write.check_memory(prog, more, paths[0])


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "there"
    path.write_text("before")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for name in (path, link):
        with pytest.raises(UsageError, match="exists"):
            run_answer(default.prog, f"pmem-trim -o {name}")
    assert path.read_text() == "before"
    assert link.is_symlink()


def test_a_full_disk_is_one_line_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pmem_trim.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 4096)
    )
    with pytest.raises(PmemError, match=r"about \d+ bytes are needed, and 4096 are free"):
        run_answer(default.prog, f"pmem-trim -o {tmp_path / 'new'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_ends_it_early_leaves_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(done: int, total: int) -> None:
        raise error

    monkeypatch.setattr("drgn_pmem.output.progress._ignore", report)
    with pytest.raises((KeyboardInterrupt, PmemError)):
        run_answer(default.prog, f"pmem-trim -o {tmp_path / 'new'}")
    assert list(tmp_path.iterdir()) == []


def ctrl_c_in_a_command(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], object]) -> None:
    """What is compared is the answer of one command that the user stopped."""
    run_answer(default.prog, "pmem-list")  # its module declares the command
    monkeypatch.setattr(verify, "_QUESTIONS", ("pmem-list",))
    monkeypatch.setattr(verify, "_SUBJECTS", False)
    stopped = dataclasses.replace(SPECS["pmem-list"], function=lambda prog, args: answer())
    monkeypatch.setitem(SPECS, "pmem-list", stopped)


def stopped_answer() -> Answer:
    problems = Problems()
    problems.until_interrupted((_raise(KeyboardInterrupt()) for _ in "1"), "1 of 3 was read")
    return Answer([], problems=problems)


def stopped_error() -> Answer:
    _raise(Incomplete(stopped_answer().problems))
    raise AssertionError


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("stopped", [stopped_answer, stopped_error])
def test_ctrl_c_that_a_command_answers_with_ends_it(
    stopped: Callable[[], Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a difference nor, where both dumps answer so, the same answer."""
    ctrl_c_in_a_command(monkeypatch, stopped)
    with pytest.raises(KeyboardInterrupt):
        run_answer(default.prog, f"pmem-trim -o {tmp_path / 'new'} --compress none")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_ctrl_c_ended_is_not_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = tuple(stopped_answer().problems)
    monkeypatch.setattr(
        plan_module,
        "known_metadata",
        lambda *args: Partial(known_metadata(*args).value, problems),
    )
    with pytest.raises(KeyboardInterrupt):
        run_answer(default.prog, f"pmem-trim -o {tmp_path / 'new'} --no-verify")
    assert list(tmp_path.iterdir()) == []


def test_what_a_truncated_dump_lost_is_named(tmp_path: Path) -> None:
    case = CASES[-1]
    lost = dump_of(case.prog).coverage.count()[State.TRUNCATED]
    line = f"pmem-trim -o {tmp_path / 'new'} --no-verify --compress none"
    answer, _, notes = run_answer(case.prog, line)
    assert answer is not None
    assert not answer.whole
    assert f"truncated: {lost} bytes" in notes
    assert State.TRUNCATED not in open_dump(tmp_path / "new").coverage.count()
    assert not any(p.state is State.TRUNCATED for p in plan_trim(default.prog).problems)


def with_damaged_pages(case: Case, path: Path, count: int) -> None:
    """A copy of a zlib dump in which some compressed pages are no streams of zlib."""
    data = bytearray(case.dump.read_bytes())
    header = open_dump(case.dump).kdump
    assert header is not None
    first = (1 + header.sub_header_blocks + header.bitmap_blocks) * header.block_size
    for number in itertools.count(2000):
        offset, size, flags, _ = struct.unpack_from("<QIIQ", data, first + 24 * number)
        if flags == 1 and size > 200:
            data[offset : offset + 2] = b"\xff\xff"
            count -= 1
        if not count:
            break
    path.write_bytes(data)


def test_damaged_pages_are_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of("6.1-fileload:zlib")
    with_damaged_pages(case, tmp_path / "damaged", 3)
    prog = open_crash(case.sample, tmp_path / "damaged")
    monkeypatch.setattr(verify, "_QUESTIONS", ("pmem-segments",))
    monkeypatch.setattr(verify, "_SUBJECTS", False)
    line = f"pmem-trim -o {tmp_path / 'new'} --compress none"
    answer, _, notes = run_answer(prog, line)
    assert answer is not None
    assert not answer.whole
    assert "3 damaged pages, which cannot be decompressed, are left out" in notes
    assert "1 questions answered as by this dump" in notes
    # What is said of a task whose descriptors are in them is the same: the page cannot be read.
    monkeypatch.setattr(verify, "_QUESTIONS", ("pmem-poison",))
    (tmp_path / "new").unlink()
    _, _, notes = run_answer(prog, line)
    assert "1 questions answered as by this dump" in notes
    # Other differences are none of theirs.
    (tmp_path / "new").unlink()
    monkeypatch.setattr(verify, "_QUESTIONS", ("pmem-pages",))
    monkeypatch.setattr(plan_module, "known_metadata", without_struct_pages)
    with pytest.raises(DumpFileError, match="3 damaged pages are left out of it; the written dump"):
        run_answer(prog, line)
    assert not (tmp_path / "new").exists()


def held_pages(count: int) -> list[str]:
    """Pages of user data that the dump has."""
    saved = RangeSet(
        Range(r.start, r.end)
        for r in dump_of(default.prog).coverage.ranges(0x128000000 + 6291456)
        if r.state is State.SAVED
    )
    found = (at for r in saved for at in range(r.start, r.end, PAGE))
    return [f"phys:{at:#x}" for at in itertools.islice(found, count)]


def test_keep_may_be_given_several_times() -> None:
    one, two, three = held_pages(3)
    said = run_json(default.prog, f"pmem-trim --keep {one} --keep {two} {three}")
    assert said["kept"]["pages that were asked for"] == 3 * PAGE


def test_a_page_to_keep_that_the_dump_lacks_is_named() -> None:
    there = held_pages(1)[0]
    lacks = next(
        r.start for r in dump_of(default.prog).coverage.ranges(1 << 32) if r.state is State.EXCLUDED
    )
    answer, _, notes = run_answer(default.prog, f"pmem-trim --keep {there} phys:{lacks:#x}")
    assert answer is not None
    assert not answer.whole
    assert f"page phys:{lacks:#x}: it is not in the dump (excluded), so it is not kept" in notes
    assert f"page {there}" not in notes


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--format elf --compress zstd", "an ELF core is not compressed"),
        ("--format elf --compress zlib", "an ELF core is not compressed"),
        ("-o -", "-o -: give the name of a new file"),
        ("-o ''", "-o '': give the name of a new file"),
    ],
)
def test_wrong_usage_is_one_line(words: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        run_answer(default.prog, f"pmem-trim {words}")
    assert "\n" not in str(caught.value)


def test_what_is_asked_for_is_kept(tmp_path: Path) -> None:
    def kept(words: str) -> dict[str, int]:
        return run_json(default.prog, f"pmem-trim {words}")["kept"]

    plain = kept("")
    whole = kept("--keep-userdata namespace2.0")
    saved = default.json("pmem-coverage namespace2.0")[0]["userdata"]["saved"]
    assert sum(whole.values()) - sum(plain.values()) == saved
    held = next(
        r.start
        for r in dump_of(default.prog).coverage.ranges(0x128000000 + 6291456)
        if r.state is State.SAVED
    )
    one = kept(f"--keep {held:#x}")
    assert one["pages that were asked for"] == PAGE
    assert sum(one.values()) - sum(plain.values()) == PAGE
    assert {name for name in kept("--drop-metadata") if not name.startswith("RAM")} == set()


def test_without_metadata_memory_alone_is_compared(tmp_path: Path) -> None:
    answer, _, notes = run_answer(
        default.prog, f"pmem-trim -o {tmp_path / 'new'} --drop-metadata --compress none"
    )
    assert answer is not None
    assert answer.json["verified"] == []
    assert "its memory is what was planned" in notes
    pmem = open_dump(tmp_path / "new").coverage.count(0x100000000, 0x158000000)
    assert State.SAVED not in pmem


def test_without_debug_info_it_says_what_is_missing() -> None:
    with pytest.raises(MissingDebugInfo, match="what is RAM"):
        run_answer(without_debug_info(default), "pmem-trim")


def test_what_is_not_known_to_be_metadata_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a namespace of which the mode is not known, and of a BTT whose map cannot be read."""
    plan = plan_trim(default.prog).value
    monkeypatch.setattr(
        "drgn_pmem.analysis.trim.metadata.physical_reader",
        lambda prog, problems: lambda address, size: None,
    )
    without = plan_trim(default.prog)
    assert "BTT maps and logs" in plan.kept
    assert "BTT maps and logs" not in without.value.kept
    assert any("BTT" in problem.what for problem in without.problems)
    lost = sum(plan.kept.values()) - sum(without.value.kept.values())
    assert 0 < lost <= plan.kept["BTT maps and logs"]


def test_the_code_of_it_writes_the_same_file(tmp_path: Path) -> None:
    words = "--no-verify --compress lzo --keep-userdata namespace2.0"
    said = run_json(default.prog, f"pmem-trim -o {tmp_path / 'one'} {words}")
    _, code, _ = run_answer(default.prog, f"pmem-trim -o {tmp_path / 'two'} {words} --drgn")
    exec(compile(code, "--drgn", "exec"), {"prog": default.prog})
    two = (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").read_bytes() == two
    assert hashlib.sha256(two).hexdigest() == said["sha256"]


def test_the_copies_in_ram_are_named(tmp_path: Path) -> None:
    _, _, notes = run_answer(default.prog, "pmem-trim")
    assert "copies of user data can be in it" in notes
