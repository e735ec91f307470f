# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debug info is found by build ID, whatever the files are called."""

import os
from pathlib import Path
import struct

import pytest

from drgn_pmem.errors import DumpFileError
from drgn_pmem.fleet.debuginfo import find_debug_info, link_debug_info
from tests.unit.dumpfile.writers import note

ONE, OTHER = bytes(range(20)), bytes(range(1, 21))


def elf(build_id: bytes, *, kind: int = 2, more: bytes = b"") -> bytes:
    """An ELF file with one section, its build ID."""
    notes = note(b"GNU", 3, build_id)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\2\1\1" + bytes(9),
        kind,
        62,
        1,
        0,
        0,
        64,
        0,
        64,
        0,
        0,
        64,
        1,
        0,
    )
    section = struct.pack("<IIQQQQIIQQ", 0, 7, 0, 0, 128, len(notes), 0, 0, 4, 0)
    return header + section + notes + more


def test_the_largest_file_of_a_build_id_counts(tmp_path: Path) -> None:
    for name, data in {
        "a/vmlinux-6.1": elf(ONE, more=bytes(1000)),
        "b/stripped": elf(ONE),
        "b/nfit.ko.debug": elf(OTHER, kind=1),
        "b/vmcore": elf(ONE, kind=4, more=bytes(9000)),
        "b/text": b"not ELF",
        "b/cut": elf(ONE)[:70],
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    found = find_debug_info([str(tmp_path / "a"), str(tmp_path / "b")])
    assert found == {
        ONE.hex(): str(tmp_path / "a/vmlinux-6.1"),
        OTHER.hex(): str(tmp_path / "b/nfit.ko.debug"),
    }


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DumpFileError, match="no such folder"):
        find_debug_info([str(tmp_path / "vmlinuxes")])


def test_links_are_where_drgn_looks_and_old_ones_go(tmp_path: Path) -> None:
    links = tmp_path / "debug-info"
    first = link_debug_info({"aabb": "/one", "ccdd": "/two"}, links)
    assert os.readlink(links / ".build-id/aa/bb.debug") == "/one"
    again = link_debug_info({"aabb": "/other"}, links)
    assert os.readlink(links / ".build-id/aa/bb.debug") == "/other"
    assert not os.path.lexists(links / ".build-id/cc/dd.debug")
    assert first != again
    assert link_debug_info({"aabb": "/moved"}, links) == again
