# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
I/O memory
----------

The resource tree behind ``/proc/iomem``, with the descriptors that ``/proc/iomem`` does not show.
Source: ``struct resource`` in include/linux/ioport.h.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from drgn import FaultError, Object, Program

from drgn_pmem.kernel.debuginfo import find_variable
from drgn_pmem.kernel.walk import LIMIT, bounded
from drgn_pmem.partial import WalkError
from drgn_pmem.ranges import Range

__all__ = (
    "DEVICE_BACKED_VMEMMAP",
    "IORESOURCE_BUSY",
    "IORESOURCE_SYSTEM_RAM",
    "PERSISTENT_MEMORY",
    "Resource",
    "for_each_iomem",
    "for_each_persistent_memory",
    "iomem_at",
)

IORESOURCE_BUSY = 0x80000000
IORESOURCE_SYSTEM_RAM = 0x01000200
"""``IORESOURCE_MEM | IORESOURCE_SYSRAM``"""

DEVICE_BACKED_VMEMMAP = "Device Backed Vmemmap"
"""Name of the resource that the 2024 "device backed vmemmap" series inserts below a namespace."""

PERSISTENT_MEMORY = ("IORES_DESC_PERSISTENT_MEMORY", "IORES_DESC_PERSISTENT_MEMORY_LEGACY")

_MAX_DEPTH = 32


@dataclass(frozen=True)
class Resource:
    """One line of ``/proc/iomem``."""

    name: str
    start: int
    """First byte, physical."""
    end: int
    """Last byte, physical: inclusive, as the kernel has it."""
    flags: int
    desc: str
    """``IORES_DESC_...`` without the number, e.g. ``"IORES_DESC_PERSISTENT_MEMORY"``."""
    depth: int
    object: Object = field(repr=False, compare=False)
    """``struct resource *``"""

    @property
    def size(self) -> int:
        """bytes"""
        return self.end - self.start + 1

    @property
    def range(self) -> Range:
        """The same, end exclusive."""
        return Range(self.start, self.end + 1)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "start": f"{self.start:#x}",
            "end": f"{self.end:#x}",
            "size": self.size,
            "desc": self.desc,
            "depth": self.depth,
        }


# include/linux/ioport.h. struct resource::desc is an unsigned long, so debug info does not tie
# these names to it; the values never moved (4.6 to 7.x).
_DESC_NAMES = {
    0: "IORES_DESC_NONE",
    1: "IORES_DESC_CRASH_KERNEL",
    2: "IORES_DESC_ACPI_TABLES",
    3: "IORES_DESC_ACPI_NV_STORAGE",
    4: "IORES_DESC_PERSISTENT_MEMORY",
    5: "IORES_DESC_PERSISTENT_MEMORY_LEGACY",
    6: "IORES_DESC_DEVICE_PRIVATE_MEMORY",
    7: "IORES_DESC_RESERVED",
    8: "IORES_DESC_SOFT_RESERVED",
    9: "IORES_DESC_CXL",
}


def for_each_iomem(prog: Program) -> Iterator[Resource]:
    """
    Every resource of ``iomem_resource``, parents before children, in address order.

    :raises WalkError: after what could be read
    :raises MissingDebugInfo: without debug info of vmlinux
    """
    root = find_variable(prog, "iomem_resource", "vmlinux").address_of_()
    yield from _for_each_below(root, 0, set())


def _for_each_below(parent: Object, depth: int, seen: set[int]) -> Iterator[Resource]:
    if depth >= _MAX_DEPTH:
        raise WalkError(f"iomem_resource: nested deeper than {_MAX_DEPTH}: not a sound tree")
    for entry in bounded(_siblings(parent.child), "iomem_resource"):
        if entry.value_() in seen or len(seen) >= LIMIT:
            raise WalkError(f"iomem_resource: cyclic at {entry.value_():#x}")
        seen.add(entry.value_())
        yield _resource(entry, depth)
        yield from _for_each_below(entry, depth + 1, seen)


def _siblings(first: Object) -> Iterator[Object]:
    entry = first.read_()
    while entry:
        yield entry
        entry = entry.sibling.read_()


def _resource(entry: Object, depth: int) -> Resource:
    desc = entry.desc.value_()
    try:
        name = entry.name.string_().decode("utf-8", "backslashreplace")
    except FaultError:
        # The name of a removed module's resource, say: the range still counts.
        name = "<unreadable>"
    return Resource(
        name,
        entry.start.value_(),
        entry.end.value_(),
        entry.flags.value_(),
        _DESC_NAMES.get(desc, str(desc)),
        depth,
        entry,
    )


def for_each_persistent_memory(prog: Program) -> Iterator[Resource]:
    """
    The "Persistent Memory" resources: one per region of NFIT and CXL memory, or e820 type 12.

    papr_scm, of_pmem and virtio-pmem insert none.
    """
    return (resource for resource in for_each_iomem(prog) if resource.desc in PERSISTENT_MEMORY)


def iomem_at(resources: "list[Resource]", start: int, end: int) -> list[Resource]:
    """
    Resources that overlap a physical range.

    :param start: first byte
    :param end: end, exclusive
    """
    return [r for r in resources if r.start < end and start <= r.end]
