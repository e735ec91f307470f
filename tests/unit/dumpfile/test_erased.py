# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dumps from which makedumpfile erased data."""

import dataclasses
import struct

from drgn import container_of
import pytest

from drgn_pmem.dumpfile import dump_of, open_dump, set_dump
from drgn_pmem.dumpfile.opener import is_erased
from drgn_pmem.errors import DumpFileError
from drgn_pmem.kernel.tasks import tasks_of
from drgn_pmem.session import open_core
from tests.samples import CASES, open_crash
from tests.synthetic import poke
from tests.unit.dumpfile.writers import PAGE, VMCOREINFO, Elf, Kdump, Load, note, page_bytes

COMMANDS = b"erase task_struct.comm 16\nerase \x1b[31mkey 32\n"
INFO = note(b"VMCOREINFO", 0, VMCOREINFO)


def elf(path, commands=COMMANDS):
    notes = INFO + note(b"ERASEINFO", 0, commands)
    return Elf([Load(0x1000, PAGE, page_bytes(1))], notes).write(path / "vmcore")


def kdump(path, commands=COMMANDS):
    data = bytearray(Kdump({1}, {1}, 100).bytes())
    # offset_eraseinfo, size_eraseinfo of a 64-bit sub header
    struct.pack_into("<QQ", data, PAGE + 64, len(data), len(commands))
    path = path / "vmcore"
    path.write_bytes(data + commands)
    return path


@pytest.mark.parametrize("make", [elf, kdump])
def test_erase_commands_are_said_when_a_dump_is_opened(tmp_path, make):
    path = make(tmp_path)
    assert open_dump(path).erased == ("erase task_struct.comm 16", "erase \\x1b[31mkey 32")
    prog, lines = open_core(str(path))
    (line,) = [line for line in lines if "erased" in line]
    assert "erase task_struct.comm 16; erase \\x1b[31mkey 32" in line
    assert is_erased(prog, b"X" * 16)
    assert not is_erased(prog, b"XXXY")
    assert not is_erased(prog, b"")


def test_a_name_of_x_is_one_where_nothing_was_erased(tmp_path):
    path = elf(tmp_path, b"")
    prog, lines = open_core(str(path))
    assert not any("erased" in line for line in lines)
    assert not is_erased(prog, b"XXXX")


@pytest.mark.parametrize("make", [elf, kdump])
def test_longer_commands_than_any_config_are_refused(tmp_path, make):
    with pytest.raises(DumpFileError, match=r"damaged headers: .* of 1048577 bytes"):
        open_dump(make(tmp_path, b"x" * ((1 << 20) + 1)))


def test_the_name_of_a_process_that_was_erased_reads_erased():
    sample = CASES[0].sample
    for erased, comm in (((), "X" * 16), (("erase task_struct.comm 16",), "erased")):
        prog = open_crash(sample, sample.dump("elf"))
        dump = dataclasses.replace(dump_of(prog), erased=erased)
        set_dump(prog, dump)
        task = prog["init_task"].tasks.next
        first = container_of(task, "struct task_struct", "tasks")
        poke(prog, first.comm.address_, b"X" * 16)
        names = {task.pid: task.comm for task in tasks_of(prog).value.tasks}
        assert names[first.pid.value_()] == comm
