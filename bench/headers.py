# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Seconds that an elfcorehdr of a large machine takes."""

import dataclasses
import time

from drgn_pmem.formats.elfcompare import compare_elfcorehdr
from drgn_pmem.formats.elfcorehdr import (
    CrashHeader,
    HeaderSource,
    ProgramHeader,
    build_elfcorehdr,
    parse_elfcorehdr,
)

__all__ = ("COUNT", "header_seconds")

COUNT = 70_001
"""Program headers: more than e_phnum can say."""


def header_seconds(rounds: int) -> dict[str, float]:
    """CPU time to build, parse and compare a header, the best of some rounds."""
    load = ProgramHeader(type=1, flags=7, physical=0, file_size=4096, memory_size=4096)
    loads = [dataclasses.replace(load, physical=i << 13, offset=i << 13) for i in range(COUNT)]
    header = CrashHeader(source=HeaderSource.FOUND, phdrs=tuple(loads), machine=62)
    rebuilt = dataclasses.replace(header, source=HeaderSource.REBUILT)
    data = build_elfcorehdr(header)
    work = {
        "build": lambda: build_elfcorehdr(header),
        "parse": lambda: parse_elfcorehdr(data),
        "compare": lambda: compare_elfcorehdr(header, rebuilt),
    }
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, run in work.items():
            start = time.process_time()
            run()
            best[name] = min(time.process_time() - start, best.get(name, float("inf")))
    return best
