# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules about persistent memory that is used as RAM (system-ram, kmem)."""

from drgn_pmem.analysis.findings.case import Case, rule
from drgn_pmem.analysis.findings.model import Heading, Severity
from drgn_pmem.analysis.findings.words import few, plural
from drgn_pmem.analysis.pages.filter import Filter
from drgn_pmem.analysis.pages.groups import PageGroup, PageRange
from drgn_pmem.analysis.pages.ramblocks import RamScan, ram_devices

__all__ = ()

_KEPT = 1 << 12
_EVIDENCE = 20


@rule(
    "kmem-held",
    Heading.ODD,
    "pages that keep pmem as RAM from going offline",
    "pmem-pages --busy --ranges",
)
def kmem_held(case: Case) -> None:
    """Memory blocks of DAX devices with pages that the kernel cannot move, and which these are."""
    for name, device in case.take(lambda: ram_devices(case.prog)):
        scan = RamScan(case.prog, name, device, Filter(busy=True), case.problems)
        for block in scan.blocks:
            groups: list[PageGroup] = []
            ranges: list[PageRange] = []
            scan.scan_block(block, groups, ranges, _KEPT)
            if not groups:
                continue
            pages = sum(group.pages for group in groups)
            counts: dict[str, int] = {}
            for group in groups:
                counts[_kind(group)] = counts.get(_kind(group), 0) + group.pages
            case.found(
                Severity.INFO,
                f"{block.name} of {device.chardev}",
                f"cannot go offline: {plural(pages, 'page')} cannot be moved ("
                + ", ".join(f"{count} {kind}" for kind, count in counts.items())
                + f"): {few(_place(item) for item in ranges)}",
                evidence=[_evidence(item) for item in ranges[:_EVIDENCE]],
                more=f"pmem-pages {name} --busy --ranges",
            )


def _kind(group: PageGroup) -> str:
    held = group.status in ("page cache", "anonymous")
    return f"{group.status} with extra references" if held else group.status


def _place(item: PageRange) -> str:
    owner = f" of {item.group.owner}" if item.group.owner else ""
    return f"pfn:{item.pfn:#x}{owner}"


def _evidence(item: PageRange) -> str:
    """``"pfn:0x160000, 2 pages: page cache of /a/b (ino 3), 1 extra reference each"``"""
    group = item.group
    owner = f" of {group.owner}" if group.owner else ""
    extra = f", {plural(group.extra, 'extra reference')} each" if group.extra else ""
    return f"pfn:{item.pfn:#x}, {plural(group.pages, 'page')}: {group.status}{owner}{extra}"
