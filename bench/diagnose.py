# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
``python -m bench.diagnose [SAMPLE...]``: how long pmem-diagnose takes beyond opening, on every
sample in every format. Exits 1 if one takes longer than :data:`LIMIT` seconds of CPU time.
"""

import argparse
import json
import subprocess
import sys

from tabulate import tabulate

from drgn_pmem.shell.sample import load_index

LIMIT = 3.0
"""seconds"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.diagnose", description=__doc__)
    parser.add_argument("samples", nargs="*", help="default: all")
    args = parser.parse_args()
    rows, worst = [], 0.0
    for name, sample in load_index()[0].items():
        if args.samples and name not in args.samples:
            continue
        for format in sample.formats:
            words = ["pmem-diagnose", str(sample.dump(format)), str(sample.debug_info()[0])]
            done = subprocess.run(
                [sys.executable, "-m", "bench.child", *words],
                capture_output=True,
                text=True,
                check=True,
            )
            best = json.loads(done.stdout)
            worst = max(worst, best["cpu"])
            rows.append(
                (f"{name}:{format}", f"{best['seconds']:.2f}", f"{best['cpu']:.2f}",
                 f"{best['open_cpu']:.2f}", f"{best['peak'] / 2**20:.0f}", best["records"])
            )  # fmt: skip
    headers = ("sample", "s beyond opening", "CPU s", "opening CPU s", "peak MiB", "findings")
    print(tabulate(rows, headers=headers, tablefmt="plain", disable_numparse=True))
    print(f"\nworst: {worst:.2f} s of CPU time; limit {LIMIT:.0f} s")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
