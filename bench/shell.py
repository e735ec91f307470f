# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
``python -m bench.shell DUMP VMLINUX``: how long the first prompt takes beside drgn's on the same
dump, and how long a key takes to be on the screen, in a pseudo-terminal. Exits 1 if a figure is
above its limit.
"""

import argparse
import os
from pathlib import Path
import statistics
import sys
import tempfile
import time

import pexpect

_WHERE = "\x1b[6n"
_SHOW_CURSOR = "\x1b[?25h"
"""Written at the end of every redraw."""
_KEYS = "pmem-namespaces namespace1.0 --json\x15prog['init_task'].mm.pgd\x15pmem-list -BDRNX -u"

FIRST_PROMPT_FACTOR, FIRST_PROMPT_EXTRA = 1.15, 0.150
KEY = 0.050
"""Limit, in seconds."""


class Terminal:
    """A program in a pseudo-terminal that answers where the cursor is."""

    def __init__(self, command: str, arguments: list[str], folder: str) -> None:
        environment = {
            **os.environ,
            "TERM": "xterm",
            "LANG": "C.UTF-8",
            "XDG_CONFIG_HOME": folder,
            "XDG_STATE_HOME": folder,
        }
        self.start = time.perf_counter()
        self.child = pexpect.spawn(
            command,
            arguments,
            env=environment,  # type: ignore[arg-type]
            dimensions=(40, 120),
            encoding="utf-8",
            timeout=300,
        )
        self.child.delaybeforesend = None

    def prompt(self) -> float:
        """Seconds from the start to the first prompt."""
        self.child.expect_exact(">>> ")
        return time.perf_counter() - self.start

    def read_redraw(self) -> float | None:
        """When the next redraw was done; None if there is none within half a second."""
        seen = ""
        end = time.perf_counter() + 0.5
        while time.perf_counter() < end:
            try:
                seen += self.child.read_nonblocking(4096, timeout=0.05)
            except pexpect.TIMEOUT:
                continue
            if _WHERE in seen:
                self.child.send("\x1b[1;1R")
                seen = seen.replace(_WHERE, "")
            if _SHOW_CURSOR in seen:
                return time.perf_counter()
        return None

    def settle(self, seconds: float) -> None:
        """Wait for its idle work."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self.read_redraw()

    def key(self, key: str) -> float | None:
        """Seconds from a key to the end of the redraw that it causes."""
        start = time.perf_counter()
        self.child.send(key)
        done = self.read_redraw()
        return None if done is None else done - start

    def close(self) -> None:
        self.child.close(force=True)


def first_prompts(dump: str, vmlinux: str, rounds: int) -> tuple[float, float]:
    """:return: Medians of drgn's and ours, in turns, under the same load."""
    python = Path(sys.executable)
    arguments = ["-c", dump, "-s", vmlinux, "--main-symbols"]
    programs = (
        (str(python.with_name("drgn")), arguments),
        (str(python.with_name("drgn-pmem")), arguments),
    )
    times: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        for round in range(rounds + 1):
            for (command, words), results in zip(programs, times, strict=True):
                terminal = Terminal(command, words, folder)
                seconds = terminal.prompt()
                terminal.close()
                if round:  # the first one fills the caches
                    results.append(seconds)
    return statistics.median(times[0]), statistics.median(times[1])


def keys(dump: str, vmlinux: str, rounds: int) -> list[float]:
    """:return: Seconds of every key, sorted; completion while typing is on."""
    python = Path(sys.executable)
    times = []
    with tempfile.TemporaryDirectory() as folder:
        terminal = Terminal(
            str(python.with_name("drgn-pmem")),
            ["-c", dump, "-s", vmlinux, "--main-symbols"],
            folder,
        )
        terminal.prompt()
        terminal.settle(6)
        for _ in range(rounds):
            for key in _KEYS + "\x15":
                seconds = terminal.key(key)
                if seconds is not None:
                    times.append(seconds)
                terminal.settle(0.1)
        terminal.close()
    return sorted(times)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.shell", description=__doc__)
    parser.add_argument("dump")
    parser.add_argument("vmlinux")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    theirs, ours = first_prompts(arguments.dump, arguments.vmlinux, arguments.rounds)
    limit = theirs * FIRST_PROMPT_FACTOR + FIRST_PROMPT_EXTRA
    print(f"first prompt   drgn {theirs:.3f} s   drgn-pmem {ours:.3f} s   at most {limit:.3f} s")
    times = keys(arguments.dump, arguments.vmlinux, max(1, arguments.rounds // 3))
    p95 = times[int(len(times) * 0.95)]
    print(
        f"key to redraw  median {statistics.median(times) * 1000:.1f} ms   95% {p95 * 1000:.1f} ms"
        f"   worst {times[-1] * 1000:.1f} ms of {len(times)} keys   at most {KEY * 1000:.0f} ms"
    )
    return 0 if ours <= limit and p95 <= KEY else 1


if __name__ == "__main__":
    sys.exit(main())
