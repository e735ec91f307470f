# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A dump of a machine with 16 TiB: time and memory."""

import json
import os
import struct
import subprocess
import sys

import pytest

from tests.unit.dumpfile.writers import PAGE, Kdump, page_bytes

PAGES = (16 << 40) // PAGE
BITMAP = PAGES // 8

MEASURE = """
import json, sys, time
import numpy, drgn
from drgn_pmem.dumpfile import State, open_dump
def peak():
    # Not ru_maxrss: that begins with what the process that started this one had.
    return next(int(line.split()[1]) for line in open("/proc/self/status") if "VmHWM" in line)
base = peak()
begin = time.process_time()
dump = open_dump(sys.argv[1])
count = dump.coverage.count()
print(json.dumps({
    "seconds": time.process_time() - begin,
    "kib": peak(),
    "base": base,
    "runs": len(dump.coverage),
    "count": {state.value: size for state, size in count.items()},
    "truncated": dump.truncated,
    "probe": [dump.coverage.state(int(pfn) * 4096).value for pfn in sys.argv[2:]],
}))
"""


def measure(path, *pfns) -> dict:
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, path, *map(str, pfns)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "DRGN_DISABLE_PLUGINS": "*"},
    )
    return json.loads(out.stdout)


@pytest.fixture
def dump_of_16_tib(tmp_path):
    """Sparse: RAM at both ends, fragmented in the middle; a few thousand pages were dumped."""
    path = tmp_path / "vmcore"
    small = Kdump(set(), set(), PAGES - 1, vmcoreinfo=None)
    blocks = 2 * BITMAP // PAGE
    with open(path, "wb") as file:
        file.write(small._header(blocks).ljust(PAGE, b"\0"))
        file.write(small._sub_header(0, 0, 0).ljust(PAGE, b"\0"))
        exists, dumped = 2 * PAGE, 2 * PAGE + BITMAP
        ones = b"\xff" * (1 << 20)
        for at in (0, BITMAP // 2, BITMAP - (1 << 20)):
            os.pwrite(file.fileno(), ones, exists + at)
        # 1 MiB of bitmap, two runs a byte
        os.pwrite(file.fileno(), b"\x3c" * (1 << 20), exists + BITMAP // 4)
        picks = bytes([1, 0, 0, 0]) * 1024
        os.pwrite(file.fileno(), picks, dumped)
        os.pwrite(file.fileno(), picks, dumped + BITMAP // 2)
        table = dumped + BITMAP
        data = table + 24 * 2048
        os.pwrite(file.fileno(), struct.pack("<QIIQ", data, PAGE, 0, 0) * 2048, table)
        os.pwrite(file.fileno(), page_bytes(0), data)
    return path


def test_16_tib_in_less_than_300_mib(dump_of_16_tib):
    middle = BITMAP // 2 * 8
    quarter = BITMAP // 4 * 8
    result = measure(dump_of_16_tib, 0, 1, 32, middle, middle + 31, quarter + 2, quarter, PAGES - 1)
    assert result["probe"] == [
        "saved",
        "excluded",
        "saved",
        "saved",
        "excluded",
        "excluded",
        "absent",
        "absent",
    ]
    mib = 1 << 20
    existing = 3 * 8 * mib + 4 * mib - 1
    assert result["count"]["saved"] == 2048 * PAGE
    assert result["count"]["excluded"] == (existing - 2048) * PAGE
    assert result["runs"] > 2 * mib
    assert not result["truncated"]
    assert result["kib"] < 300 << 10
    assert result["seconds"] < 10
