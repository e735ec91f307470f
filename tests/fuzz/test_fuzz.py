# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The fuzzers see what is wrong, and put back what they change."""

from collections.abc import Callable
import os
from pathlib import Path
import random
import signal

import pytest

from .. import synthetic
from ..unit.dumpfile.test_hostile import FILES
from . import kernel
from .files import Damaged
from .limits import raw_characters, watched
from .places import boundaries
from .targets import TARGETS


def _killed() -> str:
    os.kill(os.getpid(), signal.SIGBUS)
    return ""


def _writes() -> str:
    Path("outside").touch()
    return ""


def _fills() -> str:
    Path("outside").write_bytes(b"x")
    return ""


def _raises() -> str:
    raise ValueError("a mistake")


def _large() -> str:
    return "" if bytearray(b"x") * (600 << 20) else "no"


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (lambda: "", ""),
        (lambda: "wrong", "wrong"),
        (_killed, "SIGBUS"),
        (_writes, "wrote"),
        (_fills, "SIGXFSZ"),
        (_raises, "ValueError: a mistake"),
        (_large, "MiB of memory"),
    ],
)
def test_what_a_question_may_not_do_is_seen(question: Callable[[], str], said: str) -> None:
    found = watched(question)
    assert said in found
    assert bool(found) == bool(said)


def test_raw_characters_are_what_is_no_text() -> None:
    assert raw_characters("a\tb\nc \u00e9 \u2588") == set()
    assert raw_characters("\x1b\x9b\u202e\x07\r") == {"\x1b", "\x9b", "\u202e", "\x07", "\r"}


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_takes_its_seeds(name: str) -> None:
    seeds = list(TARGETS[name].seeds())
    assert seeds
    for seed in seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", ["elf64", "kdump", "flat", "flatelf"])
def test_boundaries_are_those_of_the_headers(tmp_path: Path, name: str) -> None:
    path = tmp_path / "dump"
    path.write_bytes(FILES[name])
    found = boundaries(str(path), len(FILES[name]))
    assert {"elf64": 64, "kdump": 4096, "flat": 4096, "flatelf": 4096}[name] in found
    assert found == sorted(set(found))
    assert found[0] == 0
    assert found[-1] < len(FILES[name])


def test_a_file_is_put_right_after_each_case(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(FILES["elf64"])
    damaged = Damaged(path, tmp_path / "copies")
    chance = random.Random(1)
    for size in list(damaged.cuts(chance, 1))[:2]:
        assert damaged.cut(size) == ""
        assert damaged.copy.read_bytes() == FILES["elf64"]
    for at, data in damaged.changes(chance, 2):
        assert damaged.changed(at, data) == ""
        assert damaged.copy.read_bytes() == FILES["elf64"]
    damaged.close()
    assert not damaged.copy.exists()


def test_changed_memory_is_read_and_the_rest_is_not_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prog = synthetic.kernel("", {0x1000: b"x" * 16})
    data = b"abcdefgh"
    prog.add_memory_segment(0x1000, 8, lambda a, n, o, p: data[o : o + n], True)
    monkeypatch.setattr(kernel, "virtual_aliases", lambda *_: [(0x1002, 0x1002, 2)])
    kernel.overlay(prog, kernel.Change(0x1002, b"12"))
    assert prog.read(0x1000, 8, True) == b"ab12efgh"
    assert prog.read(0x1000, 8) == b"xx12xxxx"
