# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Live targets
------------

What of a running machine's memory can be read. ``/proc/kcore`` has RAM only: its program headers
say which, and persistent memory is in none of them. QEMU reads all memory of its guest, whose map
it prints.

Sources: fs/proc/kcore.c (``kcore_ram_list()``, ``read_kcore_iter()``); QEMU's system/memory.c
(``mtree_print_flatview()``).
"""

import json
import os
import re
import socket
from typing import Any

import drgn
import numpy as np

from drgn_pmem.dumpfile.coverage import Coverage, CoverageRange, State
from drgn_pmem.dumpfile.elf import PT_LOAD, read_elf_headers
from drgn_pmem.dumpfile.records import DumpFile, DumpFormat
from drgn_pmem.dumpfile.segments import SegmentTable
from drgn_pmem.dumpfile.source import FileSource
from drgn_pmem.errors import DumpFileError
from drgn_pmem.ranges import Range, RangeSet

__all__ = ("KCORE", "kcore_dump", "live_dump", "memory_of_guest", "qemu_dump", "readable_coverage")

KCORE = "/proc/kcore"

_MAX_REPLY = 1 << 24
"""bytes of one reply of QEMU; its map of memory is a few kilobytes"""
_TIMEOUT = 10
"""seconds"""
_REGION = re.compile(r"\s*([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, ([\w/-]+)\): (.*)")
_MEMORY = frozenset({"ram", "rom", "romd", "nv-ram", "nv-rom", "nv-romd"})
_CXL = "cxl-fixed-memory"
"""QEMU emulates CXL memory as an I/O region of this name."""


def kcore_dump(path: str = KCORE) -> DumpFile:
    """
    The running kernel: what ``/proc/kcore`` has of physical memory.

    :raises DumpFileError: if it cannot be read
    """
    source = FileSource(path)
    # Offsets follow from virtual addresses, whatever size the kernel gives the file.
    source.size = (1 << 63) - 1
    structs, header, table = read_elf_headers(source)
    index = np.flatnonzero(table["p_type"] == PT_LOAD).astype(np.int64)
    loads = SegmentTable(table, index, structs.elfclass)
    # vmalloc memory, modules and vmemmap have no physical address: p_paddr is -1.
    ram = RangeSet(
        Range(segment.physical, segment.physical + segment.memory_size)
        for segment in loads
        if segment.physical is not None
    )
    source.close()
    return DumpFile(
        path=path,
        format=DumpFormat.LIVE,
        contained=DumpFormat.LIVE,
        segments=loads,
        notes=(),
        vmcoreinfo=None,
        incomplete=False,
        machine=header.e_machine if isinstance(header.e_machine, str) else None,
        byteorder="little" if structs.little_endian else "big",
        bits=structs.elfclass,
        summary=f"live memory: RAM by {path}",
        coverage_builder=lambda: readable_coverage(ram),
    )


def live_dump(path: str = "(live)") -> DumpFile:
    """A live target whose readable memory is unknown: every read is tried."""
    return _live(path, "live memory", Coverage.everywhere(State.SAVED), hypervisor=False)


def qemu_dump(address: str, memory: RangeSet) -> DumpFile:
    """
    A running guest.

    :param address: The address of QEMU's monitor.
    :param memory: Its memory, as :func:`memory_of_guest` has it.
    """
    return _live(
        f"QEMU at {address}", "live memory of a guest", readable_coverage(memory), hypervisor=True
    )


def _live(path: str, summary: str, coverage: Coverage, *, hypervisor: bool) -> DumpFile:
    return DumpFile.without_headers(
        path, DumpFormat.LIVE, summary, lambda: coverage, hypervisor=hypervisor
    )


def readable_coverage(memory: RangeSet) -> Coverage:
    """Coverage of a live target: what can be read counts as saved, all else is absent."""
    return Coverage.from_ranges(
        [CoverageRange(r.start, r.end, State.SAVED) for r in memory.contiguous()]
    )


def memory_of_guest(address: str) -> RangeSet:
    """
    Physical memory of a running guest: RAM, ROM, NVDIMMs and CXL memory.

    :param address: Of the QEMU Machine Protocol: path of a Unix socket, or ``host:port``.
    :raises DumpFileError: if QEMU does not answer as expected
    """
    try:
        with _connect(address) as connection, connection.makefile("rwb") as file:
            _reply(file)
            _execute(file, "qmp_capabilities")
            line = {"command-line": "info mtree -f"}
            text = _execute(file, "human-monitor-command", line)
    except (OSError, ValueError) as error:
        raise DumpFileError(
            f"QEMU at {address}: its map of memory cannot be read: {error}"
        ) from error
    memory = _parse_map(str(text))
    if not memory:
        raise DumpFileError(f"QEMU at {address}: its map of memory has no RAM")
    return memory


def _connect(address: str) -> socket.socket:
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and not address.startswith(("/", ".")):
        return socket.create_connection((host or "localhost", int(port)), _TIMEOUT)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_TIMEOUT)
        connection.connect(os.fspath(address))
    except OSError:
        connection.close()
        raise
    return connection


def _execute(file: Any, command: str, arguments: "dict[str, str] | None" = None) -> object:
    request: dict[str, object] = {"execute": command}
    if arguments is not None:
        request["arguments"] = arguments
    file.write(json.dumps(request).encode() + b"\r\n")
    file.flush()
    while True:
        reply = _reply(file)
        if "return" in reply:
            return reply["return"]
        if "error" in reply:
            raise ValueError(f"{command}: {reply['error']}")


def _reply(file: Any) -> dict[str, Any]:
    reply = json.loads(file.readline(_MAX_REPLY))
    if not isinstance(reply, dict):
        raise ValueError("not a reply of the QEMU Machine Protocol")
    return reply


def _parse_map(text: str) -> RangeSet:
    """Memory in the flat view of the address space ``memory``."""
    found: list[Range] = []
    ours = False
    for line in text.splitlines():
        if line.startswith("FlatView"):
            if found:
                break
            ours = False
        elif line.strip().startswith('AS "memory"'):
            ours = True
        elif ours and (region := _REGION.match(line)):
            start, last, kind, name = region.groups()
            if kind in _MEMORY or name.startswith(_CXL):
                found.append(Range(int(start, 16), int(last, 16) + 1))
    return RangeSet(found)


def is_local(prog: drgn.Program) -> bool:
    """Whether a live program is the running kernel (else a guest)."""
    return bool(prog.flags & drgn.ProgramFlags.IS_LOCAL)
