# SPDX-License-Identifier: LGPL-2.1-or-later
"""
drive.py SHARED INSIDE: take a guest of run.sh through its crash.

SHARED holds QEMU's sockets, the console log and the dumps; INSIDE is what QEMU calls that
directory.
"""

import pathlib
import socket
import sys
import time

PATIENCE = 400.0
"""Seconds for each step; a boot takes 10 on an idle machine."""


def connect(path: pathlib.Path) -> socket.socket:
    deadline = time.monotonic() + PATIENCE
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class Console:
    """The guest's console: a log of all it says, and what it is told."""

    def __init__(self, path: pathlib.Path, log: pathlib.Path) -> None:
        self._connection = connect(path)
        self._log = log.open("wb", buffering=0)
        self._said = b""

    def wait_for(self, line: str) -> None:
        """Read on until the guest has said something. QEMU stops a guest whose console nobody
        reads."""
        deadline = time.monotonic() + PATIENCE
        while line.encode() not in self._said:
            self._connection.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                received = self._connection.recv(65536)
            except TimeoutError:
                received = b""
            if not received:
                tail = self._said.decode(errors="replace")[-2000:]
                sys.exit(f"{tail}\nthe guest never said {line!r}")
            self._log.write(received)
            self._said += received
        print(line, flush=True)

    def tell(self, word: str) -> None:
        self._connection.sendall(word.encode() + b"\n")


def monitor(connection: socket.socket, command: str) -> None:
    """Run a command of QEMU's monitor to its end."""
    connection.sendall(command.encode() + b"\n")
    answer = b""
    # the prompt comes back once the command is done; it is also echoed before it starts
    while not answer.rstrip().endswith(b"(qemu)") or command.encode()[-12:] not in answer:
        received = connection.recv(65536)
        if not received:
            sys.exit(f"QEMU is gone after {command!r}")
        answer += received
    if b"rror" in answer:
        sys.exit(answer.decode(errors="replace"))


def main() -> None:
    shared, inside = pathlib.Path(sys.argv[1]), sys.argv[2]
    console = Console(shared / "console.sock", shared / "console")
    control = connect(shared / "monitor.sock")
    console.wait_for("LAB: READY")
    monitor(control, f"dump-guest-memory {inside}/vmcore.qemu-elf")
    console.tell("crash")
    console.wait_for("LAB: CAPTURE")
    monitor(control, f"dump-guest-memory {inside}/vmcore.qemu-capture")
    console.tell("save")
    console.wait_for("LAB: DONE")


main()
