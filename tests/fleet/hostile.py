# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dumps that a reader should not be alone with: whatever is bounded can still be long, or large."""

from pathlib import Path

from tests.unit.dumpfile.writers import PAGE, Elf, Kdump, Load

_MIB = 1 << 20


def write_endless(path: Path) -> Path:
    """An ELF core without VMCOREINFO whose 60,000 segments are the same 64 MiB of the file: 256 GiB
    of them are searched, which takes minutes."""
    data = b"\1" * (64 * _MIB)
    size = len(data)
    loads = [Load(0, size, data)]
    loads += [Load(i * size, size, file_size=size, offset=4 * _MIB) for i in range(1, 60_000)]
    path.write_bytes(Elf(loads).bytes())
    return path


def write_hungry(path: Path) -> Path:
    """A kdump-compressed dump of which every second page was dumped: 16 million runs."""
    pfns = 1 << 25
    size = pfns // 8
    with path.open("wb") as file:
        file.write(Kdump(set(), set(), pfns).bytes())
        file.seek(2 * PAGE)
        file.write(b"\xff" * size + b"\x55" * size)
        file.truncate(2 * PAGE + 2 * size + 24 * pfns // 2)
    return path
