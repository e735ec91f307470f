# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Live targets: what can be read of the running kernel, of a guest, and of persistent memory."""

from collections.abc import Iterator
import json
from pathlib import Path
import socket
import threading

import drgn
import pytest

from drgn_pmem.dumpfile import DumpFormat, State, coverage_of, set_dump
from drgn_pmem.dumpfile.live import kcore_dump, memory_of_guest, qemu_dump
from drgn_pmem.dumpfile.livepmem import Machine, add_live_pmem
from drgn_pmem.errors import DumpFileError, UsageError
from drgn_pmem.ranges import Range

from .writers import Elf, Load

NO_PHYSICAL = (1 << 64) - 1
RAM = Load(0x100000, 0x3FF00000, virtual=0xFFFF888000100000)
VMALLOC = Load(NO_PHYSICAL, 1 << 45, virtual=0xFFFFC90000000000)


@pytest.fixture
def kcore(tmp_path: Path) -> Path:
    """Its program headers; the file system says nothing of the memory after them."""
    path = tmp_path / "kcore"
    path.write_bytes(Elf([VMALLOC, RAM]).bytes())
    return path


def live_program(kcore: Path) -> drgn.Program:
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    set_dump(prog, kcore_dump(str(kcore)))
    return prog


def test_the_running_kernel_has_what_kcore_has_and_no_persistent_memory(kcore: Path) -> None:
    """By the program headers, whatever the size of the file: a read error is not the file's end."""
    dump = kcore_dump(str(kcore))
    assert dump.format is DumpFormat.LIVE
    assert dump.coverage.saved(RAM.physical, RAM.size)
    assert dump.coverage.state(RAM.physical + RAM.size) is State.ABSENT
    assert dump.coverage.state(0x100000000) is State.ABSENT
    assert not dump.coverage.has(State.TRUNCATED)
    assert not dump.truncated


MAP = """FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-000000000000ffff (prio 0, ram): not-memory

FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): ram0
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
  00000000000c0000-00000000000fffff (prio 0, rom): ram0 @00000000000c0000 KVM
  0000000100000000-000000010fffffff (prio 0, nv-ram): backend0
  0000000200000000-00000002ffffffff (prio 0, i/o): cxl-fixed-memory-region

FlatView #2
 AS "virtio-blk", root: none
 Root memory region: none
  0000000400000000-00000004ffffffff (prio 0, ram): not-of-the-machine
"""


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[str]:
    """Answers as QEMU does, an event among the replies."""
    path = str(tmp_path / "qmp.sock")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(1)

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rwb") as file:
            file.write(b'{"QMP": {}}\r\n')
            file.flush()
            for line in file:
                command = json.loads(line)["execute"]
                file.write(b'{"event": "RTC_CHANGE"}\r\n')
                reply = MAP if command == "human-monitor-command" else {}
                file.write(json.dumps({"return": reply}).encode() + b"\r\n")
                file.flush()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield path
    thread.join(10)
    server.close()


def test_a_guest_has_ram_nvdimms_and_cxl_memory(monitor: str) -> None:
    memory = memory_of_guest(monitor)
    assert memory.ranges == (
        Range(0, 0xA0000),
        Range(0xC0000, 0x100000),
        Range(0x100000000, 0x110000000),
        Range(0x200000000, 0x300000000),
    )
    coverage = qemu_dump(monitor, memory).coverage
    assert coverage.state(0xA0000) is State.ABSENT
    assert coverage.state(0x100000000) is State.SAVED


def test_no_guest_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DumpFileError, match=r"its map of memory cannot be read: .*No such file"):
        memory_of_guest(str(tmp_path / "nothing"))


PMEM = Range(0x100000, 0x180000)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The files of a machine with one region, 4 KiB of it bad, and a namespace whose data begin at
    its half."""
    half = PMEM.start + PMEM.size // 2
    for name, text in {
        "proc/iomem": (
            "00001000-0009ffff : System RAM\n"
            "00100000-0017ffff : Persistent Memory\n"
            "  00100000-0017ffff : namespace0.0\n"
        ),
        "sys/bus/nd/devices/region0/resource": f"{PMEM.start:#x}\n",
        "sys/bus/nd/devices/region0/badblocks": "8 1\n",
        "sys/block/pmem0/size": f"{PMEM.size // 2 // 512}\n",
        "sys/block/pmem0/device/resource": f"{half:#x}\n",
        "sys/block/pmem0s/size": "8\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "dev").mkdir()
    pages = b"".join(bytes([page]) * 4096 for page in range(PMEM.size // 4096))
    (tmp_path / "dev/pmem0").write_bytes(pages[PMEM.size // 2 :])
    (tmp_path / "dev/mem").write_bytes(bytes(PMEM.start) + pages)
    return tmp_path


def test_persistent_memory_is_read_through_dev_mem_but_for_bad_blocks(
    machine: Path, kcore: Path
) -> None:
    prog = live_program(kcore)
    notes = add_live_pmem(prog, Machine(str(machine)))
    assert any("are read through /dev/mem" in note for note in notes)
    assert "--live-pmem: 4096 bytes with bad blocks are not read" in notes
    assert prog.read(PMEM.start + 0x2FFF, 2, True) == bytes([2, 3])
    assert coverage_of(prog).state(PMEM.start) is State.SAVED
    with pytest.raises(drgn.FaultError):
        prog.read(PMEM.start + 0x1000, 1, True)


def test_bad_blocks_stay_absent(machine: Path, tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(Elf([VMALLOC, Load(0x1000, 0x9F000)]).bytes())
    prog = live_program(path)
    add_live_pmem(prog, Machine(str(machine)))
    states = [coverage_of(prog).state(PMEM.start + at) for at in (0xFFF, 0x1000, 0x2000)]
    assert states == [State.SAVED, State.ABSENT, State.SAVED]
    assert coverage_of(prog).state(0x1000) is State.SAVED


def test_where_dev_mem_is_refused_the_block_device_gives_the_data(
    machine: Path, tmp_path: Path
) -> None:
    (machine / "dev/mem").unlink()
    path = tmp_path / "small"
    path.write_bytes(Elf([VMALLOC, Load(0x1000, 0x9F000)]).bytes())
    prog = live_program(path)
    notes = add_live_pmem(prog, Machine(str(machine)))
    half = PMEM.start + PMEM.size // 2
    assert prog.read(half + 4095, 2, True) == bytes([64, 65])
    assert coverage_of(prog).state(half) is State.SAVED
    assert coverage_of(prog).state(half - 1) is State.ABSENT
    assert any("are read through" in note and "/dev/pmem0" in note for note in notes)
    assert any("iomem=relaxed" in note for note in notes)


def test_only_the_running_kernel_has_devices(kcore: Path) -> None:
    with pytest.raises(UsageError, match="--live-pmem"):
        add_live_pmem(live_program(kcore))
