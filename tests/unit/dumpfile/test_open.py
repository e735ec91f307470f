# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that are no dump, or hardly one: one clear line each."""

import bz2
import gzip
import lzma
import os
import socket
import struct
import sys

import pytest

from drgn_pmem.dumpfile import DumpFormat, State, live_dump, open_dump, opener
from drgn_pmem.errors import DumpFileError
from drgn_pmem.symbols import check_readable
from tests.unit.dumpfile.writers import (
    PAGE,
    VMCOREINFO,
    Elf,
    Kdump,
    Load,
    flatten,
    note,
    opened_or_said,
    page_bytes,
)

ELF = Elf([Load(0x1000, PAGE, page_bytes(1))], note(b"VMCOREINFO", 0, VMCOREINFO)).bytes()
KDUMP = Kdump({1}, {1}, 100).bytes()


def xen_dump_core() -> bytes:
    """The headers of ``xl dump-core``: no program headers, sections."""
    names = b"\0.shstrtab\0.note.Xen\0.xen_pages\0"
    sections = bytes(64) + struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, 64 + 128, len(names), 0, 0, 0, 0)
    header = ELF[:16] + struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 0, 64, 0, 64, 56, 0, 64, 2, 1)
    return header + sections + names


def message(path) -> str:
    with pytest.raises(DumpFileError) as caught:
        open_dump(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\x7fEL", "not a dump"),
        (b"\x7fELF", "cut short"),
        (ELF[:40], "cut short"),
        (ELF[:70], "cut short"),
        (ELF[:4] + b"\x03" + ELF[5:], "damaged"),
        (ELF[:16] + b"\x02" + ELF[17:], "executable.*vmlinux"),
        (ELF[:16] + b"\x03" + ELF[17:], "not a dump.*program or library"),
        (ELF[:56] + b"\0\0" + ELF[58:], "no program headers"),
        (ELF[:54] + b"\x37" + ELF[55:], "program headers of 55 bytes"),
        (gzip.compress(ELF, mtime=0), "gunzip"),
        (lzma.compress(ELF), "unxz"),
        (bz2.compress(ELF), "bunzip2"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "unzstd"),
        (b"LibvirtQemudSavePart" + bytes(100), "virsh dump --memory-only"),
        (b"KDUMP   " + bytes(100), "cut short"),
        (KDUMP[:464], "sub header.*cut short"),
        (KDUMP[:424] + bytes(100) + KDUMP[524:], "damaged kdump header"),
        (b"makedumpfile" + bytes(10), "flattened header"),
        (flatten(ELF)[:4096], "no data"),
        (b"makedumpfile\0\0\0\0" + struct.pack(">qq", 2, 1) + bytes(5000), "type 2, version 1"),
        (flatten(b"hello" * 100), "what it holds is not a dump"),
        (
            flatten(ELF)[:4096] + struct.pack(">qq", -7, 10) + bytes(100),
            "first record has offset -7",
        ),
        (b"hello, world\n" * 100, "not a dump"),
        (b"LibvirtQemudPart" + bytes(100), "not finished.*virsh dump --memory-only"),
        (b"\xed\x23\x8f\x61\x73\x01\x19\xa8" + bytes(100), "LKCD.*crash opens"),
        (b"\xa8\x19\x01\x73\x61\x8f\x23\xfd" + bytes(100), "s390.*zgetdump -f elf"),
        (b"sadump\0\0" + bytes(100), "sadump.*makedumpfile"),
        (b"\xd2\xbe\xd2\xbe" + bytes(100), "VMware.*vmss2core"),
        (b"PAGEDU64" + bytes(100), "Windows"),
        (b"EMiL" + bytes(100), "LiME"),
        (b"DISKDUMP" + bytes(1000), "never written"),
        (b"KDUMP   " + bytes(1000), "never written"),
        (xen_dump_core(), "Xen guest.*crash opens"),
        # makedumpfile -F -E writes the program headers last
        (flatten(ELF, record=64)[:4096] + flatten(ELF, record=64)[4096 : 4096 + 80], "writes last"),
        (flatten(bytes(200) + ELF, record=64, end=False), "before its headers"),
    ],
)
def test_what_is_not_a_dump_is_named(tmp_path, content, says):
    path = tmp_path / "vmcore"
    path.write_bytes(content)
    text = message(path)
    with pytest.raises(DumpFileError, match=says):
        raise DumpFileError(text)


def test_missing_directory_and_device(tmp_path):
    assert "no such file" in message(tmp_path / "nothing")
    assert "directory" in message(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in message(tmp_path / "pipe")
    assert "not a regular file" in message("/dev/zero")


def test_a_named_pipe_or_socket_given_for_a_file_is_named(tmp_path, monkeypatch):
    """``-c PIPE`` and ``-s PIPE`` waited for a writer, for ever."""
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name in ("pipe", "socket", "/dev/zero"):
            with pytest.raises(DumpFileError, match=f"^{name}: not a regular file; save what"):
                check_readable(name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path):
    path = tmp_path / "vmcore"
    path.write_bytes(ELF)
    path.chmod(0)
    assert "permission denied" in message(path)


def test_an_executable_is_not_a_dump():
    assert "not a dump" in message(os.path.realpath(sys.executable))


@pytest.mark.parametrize("data", [ELF, KDUMP, flatten(KDUMP), flatten(ELF)])
def test_cut_at_1_kib(tmp_path, data):
    path = tmp_path / "vmcore"
    path.write_bytes(data[:1024])
    dump = opened_or_said(path, "cut short", "not a dump")
    if dump is not None:
        assert dump.truncated
        assert dump.coverage.count().get(State.SAVED, 0) < PAGE


def test_proc_kcore_is_live(monkeypatch):
    monkeypatch.setattr(opener, "kcore_dump", live_dump)
    dump = open_dump("/proc/kcore")
    assert dump.format is DumpFormat.LIVE
    assert dump.path == "/proc/kcore"
