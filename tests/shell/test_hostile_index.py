# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""An index.json from anyone: nothing outside the cache, one clear line, soon."""

from collections.abc import Callable
import json
import os
from pathlib import Path
from typing import Any

import pytest

from drgn_pmem.errors import DumpFileError, FormatError
from drgn_pmem.shell.sample import find_sample, load_index
from drgn_pmem.shell.unpack import MAX_SIZE

from .test_sample import CONTENTS, make_samples


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = make_samples(tmp_path / "vmcores")
    monkeypatch.setenv("DRGN_PMEM_VMCORES", str(folder))
    return folder


def change(samples: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = samples / "index.json"
    index = json.loads(path.read_text())
    edit(index)
    path.write_text(json.dumps(index))


def renamed(name: str) -> Callable[[dict[str, Any]], object]:
    def edit(index: dict[str, Any]) -> None:
        index["samples"][name] = index["samples"].pop("one")
        index["default"] = name

    return edit


def of_dump(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda index: index["samples"]["one"]["formats"]["raw"].update(values)


def of_sample(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda index: index["samples"]["one"].update(values)


@pytest.mark.parametrize(
    "edit",
    [
        *map(renamed, ["../out", "/out", "a/b", ".", "..", "", "a\0b", "a\nb", "\x1b[31m"]),
        renamed("x" * 999),
        *(of_dump(sha256=digest) for digest in ["", "../../../out", "/etc", "g" * 64, None, 5]),
        *(of_dump(file=file) for file in ["../out.xz", "/out.xz", "a/../../b.xz", "", 3, "\0.xz"]),
        *(of_dump(size=size) for size in [-1, 0, 1.5, True, "1", None, MAX_SIZE + 1, 1 << 62]),
        of_sample(formats={}),
        of_sample(formats=[]),
        of_sample(formats={"../elf": {}}),
        of_sample(release=5),
        of_sample(description=["x"]),
        of_sample(truth="../../etc"),
        of_sample(debug_directories=["/usr/lib/debug"]),
        of_sample(vmlinux={"file": "/etc/passwd", "size": 1}),
    ],
)  # fmt: skip
def test_what_is_no_name_path_or_size_is_one_line(
    samples: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    change(samples, edit)
    with pytest.raises(FormatError) as error:
        find_sample()
    said = str(error.value)
    assert said.isprintable()
    assert len(said) < 400 + len(str(samples))
    assert not (samples.parent / "cache").exists()


@pytest.mark.parametrize(
    "text",
    [
        '{"version": Infinity}',
        '{"version": NaN}',
        '{"version": 1, "samples": {"a\\u0000": {}}, "default": "a"}',
        "[" * 100_000,
        '{"a":' * 50_000,
        "[]",
        "5",
        "",
        "\0",
        '{"version": 1, "default": [], "samples": {}}',
        '{"version": 1, "default": "a", "samples": []}',
        '{"version": "\\u001b[31m"}',
    ],
)
def test_what_is_no_index_is_one_line(samples: Path, text: str) -> None:
    (samples / "index.json").write_text(text)
    with pytest.raises(FormatError) as error:
        load_index()
    assert str(error.value).isprintable()


def test_an_index_that_is_not_utf_8_or_too_large_is_refused(samples: Path) -> None:
    (samples / "index.json").write_bytes(b'"\xff"')
    with pytest.raises(FormatError):
        load_index()
    with open(samples / "index.json", "wb") as file:
        file.truncate(1 << 32)
    with pytest.raises(FormatError, match="larger than"):
        load_index()


def test_a_long_chain_of_bases_is_refused(samples: Path) -> None:
    def edit(index: dict[str, Any]) -> None:
        formats = index["samples"]["one"]["formats"]
        last = "raw"
        for number in range(20):
            formats[f"f{number}"] = formats["raw"] | {"base": [last]}
            last = f"f{number}"

    change(samples, edit)
    with pytest.raises(FormatError, match="too many bases"):
        load_index()


def test_a_file_that_cannot_fit_is_not_begun(
    samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: type("", (), {"f_bavail": 2, "f_frsize": 512})())
    with pytest.raises(DumpFileError, match=f"1024 bytes free, .* may need {len(CONTENTS)}"):
        find_sample().dump()


def test_the_cache_is_the_users_own(samples: Path) -> None:
    cache = samples.parent / "cache" / "drgn-pmem"
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    path = find_sample().dump()
    for folder in (cache, path.parent.parent, path.parent):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_folder_of_the_cache_that_is_a_link_is_refused(samples: Path, depth: int) -> None:
    folder = find_sample().dump().parents[2 - depth]
    outside = samples.parent / "outside"
    folder.rename(outside)
    folder.symlink_to(outside)
    before = sorted(outside.rglob("*"))
    with pytest.raises(DumpFileError, match="is not your own folder"):
        find_sample().dump()
    assert sorted(outside.rglob("*")) == before


def test_a_link_in_place_of_the_file_is_not_followed(samples: Path) -> None:
    path = find_sample().dump()
    outside = samples.parent / "outside"
    outside.write_bytes(bytes(len(CONTENTS)))
    path.unlink()
    path.symlink_to(outside)
    with pytest.raises(DumpFileError, match="is not a plain file of yours"):
        find_sample().dump()
    assert outside.read_bytes() == bytes(len(CONTENTS))


def test_a_file_that_was_changed_or_replaced_is_unpacked_again(samples: Path) -> None:
    path = find_sample().dump()
    with open(path, "r+b") as file:
        file.write(b"evil")
    os.utime(path, ns=(1, 1))
    assert find_sample().dump().read_bytes() == CONTENTS
    path.unlink()
    path.write_bytes(bytes(len(CONTENTS)))
    assert find_sample().dump().read_bytes() == CONTENTS


def test_a_file_of_an_older_version_is_taken_over(samples: Path) -> None:
    path = find_sample().dump()
    before = path.stat().st_ino
    (path.parent / f".{path.name}.json").unlink()
    assert find_sample().dump().stat().st_ino == before
    assert (path.parent / f".{path.name}.json").exists()
