# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""pmem-diff on pairs of dumps: of one crash, of two boots, of two machines, of one changed byte."""

from collections.abc import Iterator
from pathlib import Path
import shutil
import subprocess
import sys
from typing import Any

from drgn import Object, Program, container_of
from drgn.helpers.linux.mm import virt_to_phys
import pytest

from drgn_pmem.analysis.changes.compare import diff_dumps
from drgn_pmem.dumpfile import dump_of
from drgn_pmem.dumpfile.program import open_program
from drgn_pmem.errors import UsageError
from drgn_pmem.spec import SPECS, parse_arguments

from ..samples import CUT_SHORT, Case, run_answer, run_json, run_text, samples

pytestmark = pytest.mark.holds("pmem-diff")


def case(name: str, format: str) -> Case:
    return Case(samples()[name], format)


default = case("6.1-fileload", "raw")
small = case("6.1-fileload", "elf")


def diff(a: Case, b: Case, options: str = "") -> Any:
    return run_json(a.prog, f"pmem-diff {b.dump} {options}")


def relations(answer: Any) -> dict[str, bool | None]:
    return {one["what"]: one["same"] for one in answer["same"]}


def known(answer: Any) -> list[dict[str, Any]]:
    """What is said to differ."""
    return [change for change in answer["changes"] if change["what"] != "unknown"]


def uuids(of: Case) -> set[str]:
    """uuids of namespaces by ndctl."""
    return {
        namespace["uuid"]
        for bus in of.truth_json("ndctl.json")
        for region in bus["regions"]
        for namespace in region.get("namespaces", [])
        if "uuid" in namespace
    }


@pytest.fixture(scope="module")
def rebooted() -> Any:
    """From 6.1-fileload to 6.1-load: the lab made the namespaces anew, and saved no pmem."""
    return diff(default, case("6.1-load", "elf"))


def test_two_files_of_one_crash_differ_in_what_they_hold() -> None:
    compressed = case("6.1-fileload", "zlib")
    answer = diff(default, compressed)
    assert relations(answer) == dict.fromkeys(("machine", "build", "boot", "crash"), True)
    found = known(answer)
    assert found
    assert found == answer["changes"]
    assert {change["kind"] for change in found} == {"coverage"}
    coverage = {item["namespace"]: item for item in compressed.json("pmem-coverage")}
    for change in found:
        assert change["field"] == "user data"
        states = coverage[change["subject"]]["userdata"]
        assert change["after"] == ", ".join(
            f"{state} {states[state]}" for state in ("saved", "excluded") if states.get(state)
        )


def test_two_boots(rebooted: Any) -> None:
    before, after = (uuids(case(name, "elf")) for name in ("6.1-fileload", "6.1-load"))
    assert not before & after
    # No uuid and no id of a DIMM is in both: nothing shows whether it is one machine.
    assert relations(rebooted) == {"machine": None, "build": True, "boot": False, "crash": False}
    changed = [c for c in known(rebooted) if c["field"] == "uuid"]
    assert {c["before"] for c in changed} >= before
    assert {c["after"] for c in changed} >= after


def test_what_the_second_dump_does_not_hold_was_not_removed(rebooted: Any) -> None:
    """Neither the struct pages on pmem nor the info blocks are in it."""
    assert {c["what"] for c in known(rebooted)} == {"changed"}
    pages = [c for c in rebooted["changes"] if c["kind"] in ("bad page", "pinned page")]
    assert pages
    assert {c["what"] for c in pages} == {"unknown"}
    assert all(c["why"].startswith("B: ") for c in pages)
    assert {c["field"] for c in pages} >= {"HWPoison", "pins"}
    compared = {item["kind"]: item for item in rebooted["compared"]}
    assert compared["bad page"]["why_b"]
    assert compared["DIMM"] == {
        "kind": "DIMM", "a": 7, "b": 7, "why_a": None, "why_b": None,
        "added": 0, "removed": 0, "changed": 0, "unknown": 0,
    }  # fmt: skip


@pytest.mark.parametrize("way", ["to", "from"])
def test_a_file_cut_short_lost_nothing_but_what_it_held(way: str) -> None:
    cut = case("6.1-fileload", f"elf{CUT_SHORT}")
    pair = (default, cut) if way == "to" else (cut, default)
    assert {c["kind"] for c in known(diff(*pair))} <= {"coverage"}


def test_another_machine() -> None:
    answer, out, notes = run_answer(default.prog, f"pmem-diff {case('arm64-6.12', 'raw').dump}")
    assert answer is not None
    assert answer.status == 1
    assert "note: the dumps are not of one machine: x86_64 and aarch64" in notes
    # Its debug info was not found: nothing of it was removed.
    assert "--symbols" in notes
    assert not [c for c in answer.records if c.what.value == "removed" and c.kind.value == "DIMM"]
    assert "7  0 or more" in out
    assert "1970" not in out  # it has no clock: its CRASHTIME is 53


def test_a_dump_without_debug_info_gained_and_lost_nothing() -> None:
    """Its namespaces are known by their info blocks, without names, the disabled one, too."""
    without = open_program(small.dump)[0]
    for pair in ((small.prog, without), (without, small.prog)):
        answer = diff_dumps(*pair).value
        assert not answer.differs
        (coverage,) = (c for c in answer.compared if c.kind.value == "coverage")
        assert min(coverage.a, coverage.b) > 5


def test_debug_info_of_another_build() -> None:
    other = case("7.2-fileload", "raw")
    files = " ".join(f"--symbols {file}" for file in other.sample.debug_info())
    answer = diff(default, other, files)
    assert relations(answer)["build"] is False
    (dimms,) = (item for item in answer["compared"] if item["kind"] == "DIMM")
    assert (dimms["a"], dimms["b"]) == (7, 7)
    entries = [c for c in known(answer) if c["kind"] == "list entry"]
    assert [(c["subject"], c["before"]) for c in entries] == [("all", "6")]
    assert entries[0]["after"].startswith("this kernel keeps no devm_memmap_vmcore list")


@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The dump, with a letter of one namespace's given name changed."""
    path = tmp_path_factory.mktemp("renamed") / "vmcore"
    shutil.copyfile(small.dump, path)
    with path.open("r+b") as file:
        file.seek(_offset(small.prog, "lab-small"))
        file.write(b"L")
    yield path
    path.unlink()


def _offset(prog: Program, name: str) -> int:
    """Where the given name of a namespace is in the file."""
    (namespace,) = [n for n in small.json("pmem-list -N") if n.get("name") == name]
    address = int(namespace["dump"]["address"], 16)
    common = Object(prog, "struct nd_namespace_common *", value=address)
    pmem = container_of(common, "struct nd_namespace_pmem", "nsio.common")
    physical = virt_to_phys(prog, pmem.alt_name).value_()
    for segment in dump_of(prog).segments:
        offset = physical - segment.physical
        if segment.type == "PT_LOAD" and 0 <= offset < segment.file_size:
            return int(segment.file_offset + offset)
    raise AssertionError(f"{physical:#x} is not in the file")


def test_one_changed_byte_is_one_difference(renamed: Path) -> None:
    answer = run_json(small.prog, f"pmem-diff {renamed}")
    assert [
        (c["kind"], c["what"], c["subject"], c["field"], c["before"], c["after"])
        for c in answer["changes"]
    ] == [("namespace", "changed", "namespace1.0", "given name", "lab-small", "Lab-small")]
    text, notes = run_text(small.prog, f"pmem-diff {renamed} -H -o subject,field,before,after")
    assert text == "namespace1.0\tgiven name\tlab-small\tLab-small\n"
    assert notes == ""


def command_line(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "drgn_pmem", "-q", *map(str, words)],
        capture_output=True, text=True, timeout=120, input="",
    )  # fmt: skip


def test_exit_status_as_of_diff(renamed: Path) -> None:
    vmlinux = default.sample.debug_info()[0]
    same = command_line("-s", vmlinux, "pmem-diff", small.dump, small.dump)
    assert (same.returncode, same.stderr) == (0, "note: no difference was found\n")
    other = command_line("-c", small.dump, "-s", vmlinux, "-e", f"pmem-diff {renamed} -H")
    assert (other.returncode, other.stderr) == (1, "")
    lacking = command_line("-s", vmlinux, "pmem-diff", small.dump, "/nonexistent")
    assert lacking.returncode == 1
    assert lacking.stderr == "drgn-pmem: pmem-diff: /nonexistent: No such file or directory\n"
    for words in (["pmem-diff"], ["pmem-diff", small.dump], ["-c", small.dump, "pmem-diff"]):
        wrong = command_line(*words)
        assert wrong.returncode == 2
        assert len(wrong.stderr.splitlines()) == 1


def test_help_needs_no_dump() -> None:
    done = command_line("pmem-diff", "-h")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: pmem-diff")


def test_two_dumps_are_needed() -> None:
    with pytest.raises(UsageError, match="required: DUMP"):
        parse_arguments(SPECS["pmem-diff"], [])
