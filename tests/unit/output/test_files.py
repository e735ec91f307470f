# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files of the user's are written as a whole or not at all, and nothing beside them."""

import mmap
import os
from pathlib import Path
import socket
import stat

import pytest

from drgn_pmem.output.files import append_to, replacing, write_file


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_and_nothing_beside_it(tmp_path: Path) -> None:
    write_file(tmp_path / "file", "größe")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "größe"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "file") == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_file_that_was_there_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    path.chmod(mode)
    write_file(path, "after")
    assert (path.read_text(), mode_of(path)) == ("after", mode)


def test_what_stands_beside_it_is_neither_written_nor_followed(tmp_path: Path) -> None:
    """FILE.part of the user's was overwritten, through a symbolic link too."""
    other = tmp_path / "other"
    other.write_text("not yours")
    (tmp_path / "report.part").symlink_to(other)
    write_file(tmp_path / "report", "text")
    assert other.read_text() == "not yours"
    assert (tmp_path / "report.part").is_symlink()


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_a_file_that_is_read_from_is_not_replaced(how: str, tmp_path: Path) -> None:
    """``pmem-report -o VMCORE`` destroyed the dump that it was about."""
    dump, link = tmp_path / "vmcore", tmp_path / "link"
    dump.write_bytes(b"dump" * 4096)
    link.symlink_to(dump)
    with dump.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        if how == "mapped":
            file.close()
        for path in (dump, link):
            with pytest.raises(OSError, match="dump or debug info that is open"):
                write_file(path, b"report")
        assert mapped[:4] == b"dump"
    write_file(dump, b"report")
    assert dump.read_bytes() == b"report"


def test_a_named_pipe_is_written_to_if_it_has_a_reader(tmp_path: Path) -> None:
    """It was waited for, for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="named pipe that no process reads: start the reader first"):
        write_file(pipe, "text")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_file(pipe, "text")
        assert os.read(reader, 10) == b"text"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_what_cannot_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        with pytest.raises(OSError, match="it is a socket"):
            write_file("socket", "text")
    with pytest.raises(OSError, match="No space left on device"):
        write_file("/dev/full", "text")
    with pytest.raises(IsADirectoryError):
        write_file(tmp_path, "text")


def test_a_log_is_its_owners_and_a_plain_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for text in ("one ", "two"):
        with append_to(path) as file:
            file.write(text)
    assert path.read_text() == "one two"
    assert mode_of(path) == 0o600
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(OSError, match="not a plain file"):
            append_to(tmp_path / "pipe")
    finally:
        os.close(reader)
