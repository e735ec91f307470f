# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Sources of poison
-----------------

Which sources report a page as bad: the bad ranges and badblocks of libnvdimm, the last poison lists
of CXL devices, the kernel log, its struct page. What it hits is the matter of
:mod:`drgn_pmem.analysis.findings.poison`.
"""

import bisect
from collections.abc import Iterable
import itertools

from drgn import Program

from drgn_pmem.kernel.badblocks import BadRange, read_bad_ranges
from drgn_pmem.kernel.devicepoison import read_device_poison
from drgn_pmem.kernel.failurelog import FailureEvent, for_each_failure_line
from drgn_pmem.kernel.memory import cached
from drgn_pmem.kernel.pagestate import PageState
from drgn_pmem.partial import Partial, Problems

__all__ = ("bad_sources",)


class _Ranges:
    """The bad ranges of one source, to look addresses up in."""

    def __init__(self, ranges: Iterable[BadRange]) -> None:
        self.ranges = sorted((bad.start, bad.end) for bad in ranges)
        self.furthest = list(itertools.accumulate((end for _, end in self.ranges), max))

    def overlap(self, start: int, end: int) -> bool:
        """Whether any of them is in ``[start, end)``."""
        number = bisect.bisect_left(self.ranges, (end, 0)) - 1
        return number >= 0 and self.furthest[number] > start


def _ranges(prog: Program) -> Partial[dict[str, _Ranges]]:
    def read() -> Partial[dict[str, _Ranges]]:
        problems = Problems()
        found: dict[str, list[BadRange]] = {}
        listed = problems.take(read_device_poison(prog)).ranges
        for bad in [*problems.take(read_bad_ranges(prog)), *listed]:
            found.setdefault(bad.source or "badblocks of an unnamed disk", []).append(bad)
        return problems.partial({source: _Ranges(ranges) for source, ranges in found.items()})

    ranges: Partial[dict[str, _Ranges]] = cached(prog, "bad ranges by source", read)
    return ranges


def _logged(prog: Program) -> Partial[dict[int, list[str]]]:
    """PFN -> sources of the lines of the log about an error that was not corrected."""

    def read() -> Partial[dict[int, list[str]]]:
        problems = Problems()
        found: dict[int, list[str]] = {}
        for line in problems.take(for_each_failure_line(prog)):
            if line.event is not FailureEvent.CORRECTED:
                found.setdefault(line.pfn, []).append(line.source.value)
        return problems.partial(found)

    lines: Partial[dict[int, list[str]]] = cached(prog, "bad pages of the log", read)
    return lines


def bad_sources(prog: Program, state: PageState, ram: bool) -> Partial[tuple[str, ...] | None]:
    """
    The sources that report a page as bad.

    :param state: Its struct page.
    :param ram: Whether it is a page of RAM, which libnvdimm knows nothing of.
    :return: ``("pmem1 badblocks", "HWPoison", "kernel log")``; empty if no source does, None if
        that is not known.
    """
    problems = Problems()
    start = state.physical
    end = start + (1 << int(prog["PAGE_SHIFT"]))
    found: list[str] = []
    if not ram:
        ranges = problems.take(_ranges(prog), "bad ranges and badblocks")
        found += [source for source, own in ranges.items() if own.overlap(start, end)]
    if state.hwpoison:
        found.append("HWPoison")
    found += problems.take(_logged(prog), "kernel log").get(state.pfn, [])
    sources = tuple(dict.fromkeys(found))
    known = not problems and (state.trusted or not state.initialised)
    return problems.partial(sources if sources or known else None)
