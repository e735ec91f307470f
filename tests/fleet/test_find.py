# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dumps are found by their content, whatever they are called."""

import os
from pathlib import Path
import socket

import pytest

from drgn_pmem.errors import DumpFileError
from drgn_pmem.fleet.find import find_dumps, identity_of, name_of
from tests.unit.dumpfile.writers import Elf, Kdump, Load, flatten


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Dumps of all formats, and what a crash folder has besides."""
    kdump = Kdump({1}, {1}, 8).bytes()
    files = {
        "2026-11-26/vmcore": Elf([Load(0, 4096)]).bytes(),
        "2026-11-26/vmcore-dmesg.txt": b"Kernel panic",
        "2026-11-27/oddly.named": kdump,
        "big-endian": Elf([Load(0, 4096)], order=">", machine="ppc64").bytes(),
        "flat/core": flatten(kdump),
        "vmlinux": Elf([Load(0, 4096)], kind=2).bytes(),
        "module.ko": Elf([Load(0, 4096)], kind=1).bytes(),
        "old/vmcore.gz": b"\x1f\x8b\x08" + bytes(20),
        "old/vmcore-incomplete": b"",
        "old/dump.1": b"text that is called like a dump",
        "out/vmcore": kdump,
    }
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "vmcore.fifo")
    os.symlink(tmp_path / "2026-11-26/vmcore", tmp_path / "latest")
    os.symlink(tmp_path, tmp_path / "old/loop")
    return tmp_path


def test_by_content_each_once_and_not_in_the_results(folder: Path) -> None:
    found = find_dumps([str(folder)], leave_out=str(folder / "out"))
    names = {os.path.relpath(path, folder) for path in found.dumps}
    first = {"2026-11-26/vmcore", "latest"} & names
    assert len(first) == 1
    assert names - first == {"2026-11-27/oddly.named", "big-endian", "flat/core"}


def test_what_is_called_a_dump_and_cannot_be_opened_is_named(folder: Path) -> None:
    skipped = dict(find_dumps([str(folder)], leave_out=str(folder / "out")).skipped)
    assert "gunzip" in skipped.pop(str(folder / "old/vmcore.gz"))
    assert "empty" in skipped.pop(str(folder / "old/vmcore-incomplete"))
    assert not skipped


def test_what_is_named_is_taken_as_it_is(folder: Path) -> None:
    path = str(folder / "old/dump.1")
    assert find_dumps([path, path], leave_out="/nowhere").dumps == (path,)


def test_a_name_of_nothing_is_an_error(folder: Path) -> None:
    with pytest.raises(DumpFileError, match="No such file"):
        find_dumps([str(folder / "vmcoer")], leave_out="/nowhere")


def test_what_is_no_file_is_not_taken_for_a_dump(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named pipe was skipped with "Illegal seek"."""
    monkeypatch.chdir(folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name in (str(folder / "vmcore.fifo"), str(folder / "socket"), "/dev/full"):
            with pytest.raises(DumpFileError) as caught:
                find_dumps([name], leave_out="/nowhere")
            assert str(caught.value) == f"{name}: not a regular file; save the dump to a file first"


def test_a_file_is_known_again_by_both_its_ends(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(b"a" * (3 << 20))
    os.utime(path, ns=(1, 1))
    before = identity_of(str(path))
    for offset in (0, (3 << 20) - 1):
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"b")
        os.utime(path, ns=(1, 1))
        assert identity_of(str(path)) != before
        before = identity_of(str(path))
    os.utime(path, ns=(2, 2))
    assert identity_of(str(path)) != before


def test_names_of_files_are_plain_and_differ() -> None:
    names = [name_of(path) for path in ("/a/b c/vmcore", "/a/b;c/vmcore", "/x/../\x1b[31m", "/-")]
    assert len(set(names)) == 4
    for name in names:
        assert all(c.isalnum() or c in "._-" for c in name)
        assert not name.startswith((".", "-"))
