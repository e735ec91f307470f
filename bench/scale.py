# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
``python -m bench.scale [FOLDER]``: how time and memory grow with the machine: the large guest's
dump and those that ``make bench-dump SIZE=512G`` and ``SIZE=6T`` made of it, each command in a
process of its own, beside drgn opening the same file.
"""

import json
from pathlib import Path
import re
import statistics
import subprocess
import sys

from tabulate import tabulate

from bench.dump import ROOT, find_dump
from bench.opening import DRGN, WITHOUT_PLUGIN

_LINES = ("pmem-coverage", "pmem-usage", "pmem-pages", "pmem-rmap 0x150000")
_ROUNDS = 3
_PEAK = """
with open("/proc/self/status") as file:
    peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
print(time.process_time(), peak * 1024)
"""


def _drgn(path: Path, vmlinux: Path) -> tuple[float, float]:
    """CPU seconds of drgn opening the file with its debug info, and its peak memory."""
    runs = [
        subprocess.run(
            [sys.executable, "-c", DRGN + _PEAK, str(path), str(vmlinux)],
            check=True, capture_output=True, text=True, env=WITHOUT_PLUGIN,
        ).stdout.split()
        for _ in range(_ROUNDS)
    ]  # fmt: skip
    return statistics.median(float(r[0]) for r in runs), max(float(r[1]) for r in runs)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else find_dump().parent
    vmlinux = folder / "vmlinux"
    sizes = {folder / "vmcore.lzo": 64 << 30}
    for path in folder.glob("vmcore.*"):
        if match := re.fullmatch(r"vmcore\.(\d+)([GT])", path.name):
            sizes[path] = int(match[1]) << {"G": 30, "T": 40}[match[2]]
    rows = []
    for path, size in sorted(sizes.items(), key=lambda item: item[1]):
        if not path.exists():
            continue
        cpu, peak = _drgn(path, vmlinux)
        cells = [f"{size >> 30:,}", f"{size / 4096 / 1e6:,.0f}", f"{cpu * 1e3:,.0f}"]
        for line in _LINES:
            runs = [
                json.loads(
                    subprocess.run(
                        [sys.executable, "-m", "bench.child", line, str(path), str(vmlinux)],
                        cwd=ROOT, check=True, capture_output=True, text=True,
                    ).stdout
                )
                for _ in range(_ROUNDS)
            ]  # fmt: skip
            if line == _LINES[0]:
                cells.append(f"{statistics.median(r['open_cpu'] for r in runs) * 1e3:,.0f}")
            cells.append(f"{statistics.median(r['cpu'] for r in runs) * 1e3:,.0f}")
            most = max(r["peak"] for r in runs)
        rows.append([*cells, f"{peak / 2**20:,.0f}", f"{most / 2**20:,.0f}"])
    print(
        tabulate(
            rows,
            headers=("pmem GiB", "M struct pages", "drgn opens", "we open",
                     *(line.split()[0] for line in _LINES), "drgn MiB", "our MiB"),
            tablefmt="pipe",
            disable_numparse=True,
            colalign=["right"] * (5 + len(_LINES) + 1),
        )
    )  # fmt: skip
    print("\nmilliseconds of CPU; commands beyond opening; MiB: peak memory, of the last command")


if __name__ == "__main__":
    main()
