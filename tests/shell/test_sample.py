# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Samples are unpacked once, sparse and whole, or not at all."""

import concurrent.futures
import hashlib
import json
import lzma
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from drgn_pmem.errors import DumpFileError, FormatError, NotFound
from drgn_pmem.output.progress import show_with
from drgn_pmem.shell import folders, sample as module
from drgn_pmem.shell.sample import find_sample, load_index, samples_directory

CONTENTS = b"head" + bytes(8 << 20) + os.urandom(1 << 16) + bytes(3 << 20) + b"x" + bytes(12345)


def make_samples(folder: Path, contents: bytes = CONTENTS) -> Path:
    """A vmcores/ with one sample."""
    files = {}
    (folder / "one").mkdir(parents=True)
    for name, data in (("vmcore", contents), ("vmlinux", b"\x7fELF" + bytes(100))):
        packed = lzma.compress(data)
        (folder / "one" / f"{name}.xz").write_bytes(packed)
        files[name] = {
            "file": f"one/{name}.xz",
            "size": len(data),
            "sha256": hashlib.sha256(packed).hexdigest(),
        }
    index = {
        "version": 1,
        "default": "one",
        "samples": {
            "one": {
                "description": "a test",
                "release": "6.1",
                "formats": {"raw": files["vmcore"]},
                "vmlinux": files["vmlinux"],
            }
        },
    }
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = make_samples(tmp_path / "vmcores")
    monkeypatch.setenv("DRGN_PMEM_VMCORES", str(folder))
    return folder


def parts(folder: Path) -> list[Path]:
    """Unfinished files in the cache."""
    return list(folder.rglob("*.part"))


def test_the_unpacked_file_is_the_packed_one_and_sparse(samples: Path) -> None:
    path = find_sample().dump()
    assert path.read_bytes() == CONTENTS
    assert path.stat().st_blocks * 512 < len(CONTENTS) // 4
    assert path.name == "vmcore"


def test_a_file_is_unpacked_once(samples: Path) -> None:
    first = find_sample().dump()
    before = first.stat()
    assert find_sample().dump() == first
    assert (first.stat().st_mtime_ns, first.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_progress_is_told_up_to_the_end(samples: Path) -> None:
    import contextlib

    reports: list[tuple[int, int]] = []

    @contextlib.contextmanager
    def show(label: str, total: int):  # type: ignore[no-untyped-def]
        assert label == "unpacking one vmcore"
        yield lambda done, total: reports.append((done, total))

    show_with(show)
    try:
        find_sample().dump()
    finally:
        show_with(None)
    assert reports == sorted(reports)
    assert reports[-1] == (len(CONTENTS), len(CONTENTS))


def test_damage_is_told_and_leaves_nothing(samples: Path) -> None:
    packed = samples / "one" / "vmcore.xz"
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 0xFF
    packed.write_bytes(data)
    with pytest.raises(DumpFileError, match="damaged"):
        find_sample().dump()
    assert [p for p in (samples.parent / "cache").rglob("*") if p.name.startswith("vmcore")] == []
    assert parts(samples.parent) == []


@pytest.mark.parametrize("cut", [0, 100, 60000])
def test_a_packed_file_cut_short_is_told(samples: Path, cut: int) -> None:
    packed = samples / "one" / "vmcore.xz"
    packed.write_bytes(packed.read_bytes()[:cut])
    with pytest.raises(DumpFileError, match="damaged"):
        find_sample().dump()


def test_another_file_of_the_same_size_is_told(samples: Path) -> None:
    (samples / "one" / "vmcore.xz").write_bytes(lzma.compress(bytes(len(CONTENTS))))
    with pytest.raises(DumpFileError, match="damaged"):
        find_sample().dump()


def test_a_bomb_stops_at_the_promised_size(samples: Path) -> None:
    (samples / "one" / "vmcore.xz").write_bytes(lzma.compress(bytes(1 << 26)))
    start = time.monotonic()
    with pytest.raises(DumpFileError, match="damaged"):
        find_sample().dump()
    assert time.monotonic() - start < 60


SLOW = """
import sys, time
from drgn_pmem.output import progress
import contextlib
@contextlib.contextmanager
def show(label, total):
    def report(done, total):
        print("unpacking", flush=True)
        time.sleep(float(sys.argv[1]))
    yield report
progress.show_with(show)
from drgn_pmem.shell.sample import find_sample
print(find_sample().dump().read_bytes()[:4])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_unpack_never_counts(samples: Path, number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "unpacking\n"
    process.send_signal(number)
    process.wait(timeout=30)
    found = [path for path in (samples.parent / "cache").rglob("vmcore") if path.is_file()]
    assert found == []
    # The next one starts over, and clears away what the first left.
    assert find_sample().dump().read_bytes() == CONTENTS
    assert parts(samples.parent) == []


def test_two_processes_at_once_get_the_same_whole_file(samples: Path) -> None:
    def unpack(_: int) -> str:
        return subprocess.run(
            [sys.executable, "-c", SLOW, "0.02"],
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout.splitlines()[-1]

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert list(pool.map(unpack, range(3))) == ["b'head'"] * 3
    assert find_sample().dump().read_bytes() == CONTENTS
    assert parts(samples.parent) == []


def test_a_cache_that_cannot_be_written_is_told(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DumpFileError, match="cannot be unpacked into"):
        find_sample().dump()


def test_a_relative_cache_folder_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", "/nowhere")
    assert str(folders.cache_directory()) == "/nowhere/.cache/drgn-pmem"


def test_an_index_that_makes_no_sense_is_told(samples: Path) -> None:
    for text in ("", "[]", "{}", '{"version": 2}', '{"version": 1, "samples": {"a": 3}}'):
        (samples / "index.json").write_text(text)
        with pytest.raises(FormatError):
            load_index()


def test_no_samples_says_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DRGN_PMEM_VMCORES", str(tmp_path))
    with pytest.raises(NotFound, match=r"has no index\.json"):
        samples_directory()
    monkeypatch.delenv("DRGN_PMEM_VMCORES")
    monkeypatch.setattr(module.drgn_pmem, "__file__", str(tmp_path / "drgn_pmem" / "__init__.py"))
    with pytest.raises(NotFound, match="source tree"):
        samples_directory()


def test_further_folders_are_read_in_place(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DRGN_PMEM_SAMPLES: dumps that are not packed, and directories in which drgn finds debug
    info."""
    further = tmp_path / "further"
    (further / "two").mkdir(parents=True)
    (further / "two" / "vmcore").write_bytes(CONTENTS)
    index = {
        "version": 1,
        "default": "two",
        "samples": {
            "two": {
                "release": "6.12",
                "formats": {"raw": {"file": "two/vmcore", "size": len(CONTENTS)}},
                "debug_directories": ["debug"],
                "kernel_directories": ["debug/lib/modules/6.12"],
            }
        },
    }
    (further / "index.json").write_text(json.dumps(index))
    monkeypatch.setenv("DRGN_PMEM_SAMPLES", f"{further}{os.pathsep}")
    assert set(load_index()[0]) == {"one", "two"}
    assert load_index()[1] == "one"
    assert set(load_index(samples)[0]) == {"one"}
    two = find_sample("two")
    assert two.dump() == further / "two" / "vmcore"
    assert two.debug_info() == []
    assert two.debug_directories == (further / "debug",)
    assert two.kernel_directories == (further / "debug/lib/modules/6.12",)
    assert two.truth == further / "two" / "truth"


def test_a_further_folder_that_is_not_there_is_told(
    samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRGN_PMEM_SAMPLES", "/no/such/folder")
    with pytest.raises(NotFound, match=r"/no/such/folder/index\.json: No such file"):
        load_index()
