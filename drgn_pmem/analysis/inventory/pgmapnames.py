# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Names of page maps
------------------

Whose ``struct dev_pagemap`` it is: of a namespace, a DAX device, or something else that has device
memory with struct pages: virtiofs' DAX window, PCI peer-to-peer memory, device-private and
-coherent memory, famfs. Those have no name of their own in common; their iomem resource, their
operations or their owner name them.

Sources: include/linux/memremap.h; fs/fuse/virtio_fs.c, drivers/pci/p2pdma.c, lib/test_hmm.c;
arch/x86/kernel/e820.c, arch/arm64/kernel/setup.c for the names of the firmware's memory map.
"""

from collections.abc import Iterable
import re

from drgn import Program

from drgn_pmem.analysis.inventory.daxonly import dax_without_namespace
from drgn_pmem.kernel.debuginfo import optional_member
from drgn_pmem.kernel.iomem import Resource, for_each_iomem
from drgn_pmem.kernel.namespace import for_each_namespace, pgmap_of
from drgn_pmem.kernel.page import pages_pgmap
from drgn_pmem.kernel.pgmap import Pgmap, is_driver_type
from drgn_pmem.partial import Partial, Problems

__all__ = ("pgmap_name", "pgmap_names", "whose_device_memory")

_PCI_DEVICE = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")

_OF_FIRMWARE = re.compile(
    r"reserved|soft reserved|system ram|persistent memory( \(legacy\))?|unusable memory"
    r"|unknown e820 type|acpi tables|acpi non-volatile storage|pci (bus|mem) .*",
    re.IGNORECASE,
)
"""What the firmware or a bus calls memory, whoever uses it: coherent memory of a device is often
"Reserved"."""


def pgmap_names(prog: Program, pgmaps: Iterable[Pgmap]) -> Partial[dict[int, str]]:
    """
    A name of each page map, by its address.

    :param pgmaps: All of ``pgmap_array``.
    """
    problems = Problems()
    pgmaps = list(pgmaps)
    what = "names of namespaces"
    namespaces, devices = for_each_namespace(prog), dax_without_namespace(prog)
    known = namespaces.complete and devices.complete
    named = [*problems.take(namespaces, what), *problems.take(devices, what)]
    names: dict[int, str] = {}
    for namespace in named:
        pgmap = pgmap_of(namespace, pgmaps)
        if pgmap is not None:
            names.setdefault(pgmap.address, namespace.dev)
    others = [pgmap for pgmap in pgmaps if pgmap.address not in names]
    # One that has no namespace or device so far may be that of one that could not be read.
    resources = problems.take(for_each_iomem(prog)) if others and known else []
    for pgmap in others:
        name = None
        if known:
            name = _by_resource(pgmap, resources) or _by_symbol(prog, pgmap, problems)
        names[pgmap.address] = name or f"pgmap {pgmap.address:#x}"
    return problems.partial(names)


def pgmap_name(prog: Program, pfn: int) -> Partial[str | None]:
    """What the page map of a page belongs to; None if it has none that could be read."""
    problems = Problems()
    # not a problem: that there may be more page maps is one of the page's state
    pgmaps = Problems().take(pages_pgmap(prog))
    own = next((pgmap for pgmap in pgmaps if pgmap.has_pfn(pfn)), None)
    if own is None:
        return problems.partial(None)
    return problems.partial(problems.take(pgmap_names(prog, pgmaps))[own.address])


def _by_resource(pgmap: Pgmap, resources: Iterable[Resource]) -> str | None:
    """
    The PCI device whose memory it is, or the innermost resource around it: the name of a device or
    a driver. A driver of a PCI device takes all of a BAR by its own name ("nvme"), which does not
    say which device it is.
    """
    start, end = pgmap.ranges[0].start, pgmap.ranges[0].end
    around = sorted(
        (r for r in resources if r.name and r.start <= start and end <= r.end + 1),
        key=lambda r: -r.depth,
    )
    names = [r.name for r in around if r.name and not _OF_FIRMWARE.fullmatch(r.name)]
    return next((name for name in names if _PCI_DEVICE.fullmatch(name)), next(iter(names), None))


def _by_symbol(prog: Program, pgmap: Pgmap, problems: Problems) -> str | None:
    """The symbol of its ``struct dev_pagemap_ops``, or of what its driver says that owns it."""
    found = [pgmap.owner or 0]
    # Since Linux kernel commit 1e240e8d4a7d ("memremap: move dev_pagemap callbacks into a separate
    # structure") (in v5.3).
    with problems.trying(f"operations of the page map at {pgmap.address:#x}"):
        operations = optional_member(pgmap.object, "ops")
        found.insert(0, 0 if operations is None else operations.value_())
    for address in filter(None, found):
        try:
            return prog.symbol(address).name
        except LookupError:
            # not a problem: a module's, whose symbols are not loaded, or memory of its own
            continue
    return None


def whose_device_memory(name: str | None, type_: str) -> str:
    """
    A sentence about memory of a page map that is not of DAX.

    :param name: Whose it is; None if that is not known.
    """
    own = f"memory of {name} ({type_})" if name else f"{type_} memory"
    if is_driver_type(type_):
        return f"{own}: a driver's own, not persistent memory"
    return f"{own}: a type that is not known, so whose memory it is, is not known either"
