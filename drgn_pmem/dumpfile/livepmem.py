# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Persistent memory of the running machine
----------------------------------------

``/proc/kcore`` has none. Where the user asks for it, and the kernel allows it, persistent memory is
read through ``/dev/mem``, which has all of it, or through the block devices of the namespaces,
which have their data only: neither info blocks nor struct pages. Bad blocks are left out: reading
one through ``/dev/mem`` is a machine check.

Sources: drivers/char/mem.c, kernel/resource.c (``resource_is_exclusive()``), drivers/nvdimm/pmem.c,
drivers/nvdimm/badrange.c.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
import errno
import mmap
import os
from pathlib import Path
import re

import drgn

from drgn_pmem.dumpfile.coverage import State
from drgn_pmem.dumpfile.live import is_local, readable_coverage
from drgn_pmem.dumpfile.opener import dump_of, set_dump
from drgn_pmem.errors import UsageError
from drgn_pmem.ranges import Range, RangeSet

__all__ = ("Machine", "add_live_pmem")

Read = Callable[[int, int], bytes]

_PAGE = 4096
_SECTOR = 512
_LINE = re.compile(r"\s*([0-9a-f]+)-([0-9a-f]+) : (.*)")
_PMEM = re.compile(r"Persistent Memory|(namespace|dax)\d+\.\d+$")
_DISK = re.compile(r"pmem\d+(\.\d+)?$")
"""Linear block devices; pmem0s (sector mode) is not."""


class Machine:
    """
    The files of the running kernel that describe and give persistent memory.

    :param root: ``"/"``; another folder for tests.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = Path(root)

    def pmem(self) -> RangeSet:
        """
        Physical ranges of persistent memory by ``/proc/iomem``, without what is used as RAM.

        :raises OSError: if it cannot be read
        """
        pmem, ram = [], []
        for line in (self._root / "proc/iomem").read_text().splitlines():
            found = _LINE.match(line)
            if found is None:
                continue
            part = Range(int(found[1], 16), int(found[2], 16) + 1)
            if found[3].startswith("System RAM"):
                ram.append(part)
            elif _PMEM.match(found[3]) and part.end > 1:  # not root: all addresses are 0
                pmem.append(part)
        return RangeSet(pmem).subtract(RangeSet(ram))

    def bad(self) -> RangeSet:
        """Pages with bad blocks, of all regions."""
        return RangeSet(
            part
            for folder in self._folders("sys/bus/nd/devices", "region")
            for part in _bad_blocks(folder)
        )

    def disks(self) -> Iterator[tuple[str, Range]]:
        """Block devices of namespaces, and the physical range that each one gives."""
        for folder in self._folders("sys/block", "pmem"):
            device = folder / "device"
            start, sectors = _number(device / "resource"), _number(folder / "size")
            if _DISK.match(folder.name) and start and sectors:
                yield str(self._root / "dev" / folder.name), Range(start, start + sectors * _SECTOR)

    def memory(self) -> str:
        """Path of the device for all physical memory."""
        return str(self._root / "dev/mem")

    def _folders(self, path: str, prefix: str) -> list[Path]:
        folder = self._root / path
        return sorted(folder.glob(f"{prefix}[0-9]*")) if folder.is_dir() else []


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(), 0)
    except (OSError, ValueError):
        # not a problem: a device without such a file is not read
        return None


def _bad_blocks(region: Path) -> Iterator[Range]:
    start = _number(region / "resource")
    if start is None:
        return
    for line in (region / "badblocks").read_text().splitlines():
        first, count = map(int, line.split()[:2])
        low, high = start + first * _SECTOR, start + (first + count) * _SECTOR
        yield Range(low // _PAGE * _PAGE, -(-high // _PAGE) * _PAGE)


def add_live_pmem(prog: drgn.Program, machine: Machine | None = None) -> list[str]:
    """
    Let a program of the running kernel read persistent memory, as far as the kernel allows it.

    :param machine: The files to use; those of this machine if None.
    :return: What is read through what, and what is not, one sentence each.
    :raises UsageError: if the program is not the running kernel
    """
    if machine is None:
        if not (prog.flags & drgn.ProgramFlags.IS_LIVE and is_local(prog)):
            raise UsageError(
                "--live-pmem: only the running kernel (-k) has it; a dump has no devices"
            )
        machine = Machine()
    try:
        wanted = machine.pmem()
        bad = machine.bad()
    except (OSError, ValueError) as error:
        return [f"--live-pmem: cannot find persistent memory: {error}"]
    if not wanted:
        return ["--live-pmem: /proc/iomem names no persistent memory"]
    notes = []
    readable: list[Range] = []
    refused: dict[str, list[Range]] = {}
    for part in wanted.contiguous().subtract(bad):
        read = _memory_reader(machine.memory())
        reason = _try(read, part)
        if reason is None:
            _add(prog, part, read)
            readable.append(part)
        else:
            refused.setdefault(reason, []).append(part)
    if readable:
        what = f"{_bytes(readable)} of persistent and DAX memory"
        notes.append(f"--live-pmem: {what} are read through /dev/mem")
    rest = RangeSet(part for parts in refused.values() for part in parts)
    for path, place in machine.disks():
        for part in rest.overlap(place.start, place.end):
            read = _disk_reader(path, place)
            reason = _try(read, part)
            if reason is not None:
                notes.append(f"--live-pmem: {path} cannot be read: {reason}")
                break
            _add(prog, part, read)
            readable.append(part)
            notes.append(
                f"--live-pmem: {part.size} bytes of data are read through {path}; its info block "
                "and struct pages on pmem are not"
            )
    for reason, parts in refused.items():
        notes.append(
            f"--live-pmem: /dev/mem does not give {_bytes(parts)} of persistent memory: {reason}"
            f"{_ADVICE}"
        )
    if bad:
        notes.append(f"--live-pmem: {bad.total} bytes with bad blocks are not read")
    dump = dump_of(prog)
    covered = [r for r in dump.coverage.extent() if r.state is State.SAVED]
    coverage = readable_coverage(RangeSet([*covered, *readable]))
    set_dump(prog, replace(dump, coverage_builder=lambda: coverage))
    return notes


_ADVICE = (
    " (kernels with CONFIG_IO_STRICT_DEVMEM allow it when booted with iomem=relaxed and without "
    "lockdown)"
)


def _bytes(parts: list[Range]) -> str:
    return f"{sum(part.size for part in parts)} bytes"


def _try(read: Read, part: Range) -> str | None:
    """Why a range cannot be read; None if it can."""
    try:
        for address in (part.start, part.end - 1):
            read(address, 1)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def _add(prog: drgn.Program, part: Range, read: Read) -> None:
    def segment(address: int, count: int, offset: int, physical: bool) -> bytes:
        try:
            return read(address, count)
        except OSError as error:
            raise drgn.FaultError(f"persistent memory: {error.strerror}", address) from error

    prog.add_memory_segment(part.start, part.size, segment, True)


def _memory_reader(path: str) -> Read:
    """read() of /dev/mem ends with RAM; mmap() does not."""

    def read(address: int, count: int) -> bytes:
        first = address // mmap.PAGESIZE * mmap.PAGESIZE
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = address + count - first
            with mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ, offset=first) as data:
                return data[address - first :]
        except ValueError as error:  # beyond the end of a file
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO)) from error
        finally:
            os.close(descriptor)

    return read


def _disk_reader(path: str, place: Range) -> Read:
    """Past the page cache, whose copy may be older than what DAX mappings wrote."""

    def read(address: int, count: int) -> bytes:
        first = (address - place.start) // _PAGE * _PAGE
        end = -(-(address - place.start + count) // _PAGE) * _PAGE
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        try:
            with mmap.mmap(-1, end - first) as buffer:
                if os.preadv(descriptor, [buffer], first) < address - place.start + count - first:
                    raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
                return buffer[address - place.start - first :][:count]
        finally:
            os.close(descriptor)

    return read
