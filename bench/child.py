# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Measures that need a process of their own: ``python -m bench.child WHAT DUMP VMLINUX``. Prints one
JSON object: seconds of the work (and of CPU time), seconds of opening (CPU: with Python's start),
peak memory in bytes.
"""

import contextlib
import io
import json
import shlex
import sys
import time


def _peak() -> int:
    """Most memory of this process (bytes). ru_maxrss would begin with what the parent had."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def main() -> None:
    line, path, vmlinux = sys.argv[1:4]
    start = time.perf_counter()
    import drgn_pmem
    from drgn_pmem.ahead import importing
    from drgn_pmem.commands import load_command
    from drgn_pmem.spec import run

    words = shlex.split(line)
    spec = load_command(words[0])
    # As the command line does.
    with importing(spec.imports):
        prog = drgn_pmem.open(path, [vmlinux])
    # Needed once by every use: the types and the first symbol.
    prog.type("struct page")
    prog["init_mm"]
    # Every answer needs it: what the dump holds.
    drgn_pmem.coverage_of(prog)
    opened, open_cpu = time.perf_counter(), time.process_time()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        answer = run(spec, prog, words[1:])
    done, cpu = time.perf_counter(), time.process_time() - open_cpu
    print(
        json.dumps(
            {
                "open": opened - start,
                "open_cpu": open_cpu,
                "seconds": done - opened,
                "cpu": cpu,
                "peak": _peak(),
                "records": len(answer.records) if answer is not None else 0,
            }
        )
    )


main()
