#!/usr/bin/env python3
# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Answer the guest's requests: control.py GUEST_SOCKET MONITOR_SOCKET DUMP_DIRECTORY.

The guest writes one line to its second serial port and waits for one line.  Requests:
``mce ADDRESS`` (a memory error in the page at that physical address), ``add-memory MIB`` (plug a
DIMM), ``dump FORMAT`` (QEMU's dump-guest-memory: elf, zlib, lzo or snappy; ``capture`` is
elf, asked for by the capture kernel).
"""

from collections.abc import Iterator
import pathlib
import re
import socket
import sys
import time

# An uncorrected memory error, found by the scrubber, of the page at ADDRESS (Intel SDM 3B, machine
# check): status VAL UC EN MISCV ADDRV S and 0xc0, mcg_status RIPV MCIP, misc "physical, 4 KiB".
MACHINE_CHECK = "mce -b 1 9 0xbd000000000000c0 0x5 {address:#x} 0x8c"
DUMP_OPTIONS = {"elf": "", "capture": "", "zlib": "-z ", "lzo": "-l ", "snappy": "-s "}


def connect(path: str) -> socket.socket:
    """Connect to a socket that QEMU is about to make."""
    for _ in range(100):
        try:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(path)
            return connection
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"control.py: no socket {path}")


class Monitor:
    """QEMU's human monitor."""

    def __init__(self, path: str) -> None:
        self._connection = connect(path)
        self._read_prompt()

    def _read_prompt(self) -> str:
        text = b""
        while not text.rstrip().endswith(b"(qemu)"):
            part = self._connection.recv(65536)
            if not part:
                break
            text += part
        return text.decode(errors="replace")

    def run(self, command: str) -> None:
        """Run a command; what it prints beyond the echo is an error."""
        self._connection.sendall(command.encode() + b"\n")
        answer = self._read_prompt()
        error = re.search(r"(?:Error|unknown command).*", answer)
        if error:
            raise ValueError(" ".join(error[0].split())[:200])


def commands_for(request: list[str], dumps: pathlib.Path, plugged: Iterator[int]) -> list[str]:
    """The monitor commands that a request stands for."""
    name, argument = request
    if name == "mce":
        return [MACHINE_CHECK.format(address=int(argument, 16))]
    if name == "add-memory":
        number = next(plugged)
        return [
            f"object_add memory-backend-ram,id=hot{number},size={int(argument)}M",
            f"device_add pc-dimm,id=dimm-hot{number},memdev=hot{number},node=0",
        ]
    if name == "dump":
        return [f"dump-guest-memory {DUMP_OPTIONS[argument]}{dumps / ('vmcore.qemu-' + argument)}"]
    raise ValueError(f"unknown request {name}")


def main() -> None:
    guest_path, monitor_path, directory = sys.argv[1:]
    guest = connect(guest_path)
    monitor = Monitor(monitor_path)
    plugged = iter(range(100))
    with guest.makefile("rb") as lines:
        for line in lines:
            request = line.decode(errors="replace").split()
            if not request:
                continue
            try:
                for command in commands_for(request, pathlib.Path(directory), plugged):
                    print(command, flush=True)
                    monitor.run(command)
                answer = "ok"
            except (KeyError, ValueError) as error:
                answer = f"error: {error}"
            print(answer, flush=True)
            guest.sendall(answer.encode() + b"\n")


if __name__ == "__main__":
    main()
