# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
I/O memory
----------

The resource tree that ``/proc/iomem`` shows, with the descriptors that ``/proc/iomem`` leaves out.
Source: ``struct resource`` in include/linux/ioport.h.
"""

from collections.abc import Iterator
from typing import Any

from drgn import FaultError, Object, Program

from drgn_pmem.kernel.debuginfo import find_variable, member
from drgn_pmem.kernel.strings import kernel_string
from drgn_pmem.kernel.walk import LIMIT, bounded
from drgn_pmem.partial import Partial, Problems, WalkError
from drgn_pmem.ranges import Range
from drgn_pmem.record import Record, Show, shown

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


class Resource(Record):
    """One line of ``/proc/iomem``."""

    name: str | None
    """None if the dump does not hold it."""
    start: int = shown(Show.ADDRESS)
    """First byte, physical."""
    end: int = shown(Show.ADDRESS)
    """Last byte, physical: inclusive, as the kernel has it."""
    flags: int = shown(Show.ADDRESS, json=False)
    desc: str
    """``IORES_DESC_...`` without the number, e.g. ``"IORES_DESC_PERSISTENT_MEMORY"``."""
    depth: int
    object: Object = shown(Show.HIDDEN)
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
        return super().to_json() | {"size": self.size}


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


def for_each_iomem(prog: Program) -> Partial[list[Resource]]:
    """
    Every resource of ``iomem_resource``, parents before children, in address order.
    """
    problems = Problems()
    resources: list[Resource] = []
    with problems.trying("iomem_resource"):
        root = find_variable(prog, "iomem_resource", "vmlinux").address_of_()
        _read_below(root, 0, set(), resources, problems)
    return problems.partial(resources)


def _read_below(
    parent: Object, depth: int, seen: set[int], resources: list[Resource], problems: Problems
) -> None:
    """Append the resources below one; a branch that cannot be read leaves the others."""
    if depth >= _MAX_DEPTH:
        raise WalkError(f"nested deeper than {_MAX_DEPTH}: the tree is damaged")
    for entry in problems.collect(bounded(_siblings(parent), "iomem_resource")):
        if entry.value_() in seen or len(seen) >= LIMIT:
            raise WalkError(f"cyclic at {entry.value_():#x}")
        seen.add(entry.value_())
        with problems.trying(f"iomem_resource: resource at {entry.value_():#x}"):
            resources.append(_resource(entry, depth, problems))
        _read_below(entry, depth + 1, seen, resources, problems)


def _siblings(parent: Object) -> Iterator[Object]:
    entry = member(parent, "child").read_()
    while entry:
        yield entry
        entry = member(entry, "sibling").read_()


def _resource(entry: Object, depth: int, problems: Problems) -> Resource:
    start, end = entry.start.value_(), entry.end.value_()
    desc = member(entry, "desc").value_()
    try:
        name = kernel_string(entry.name) if entry.name else None
    except (FaultError, WalkError) as error:
        # The range matters, even if the name is gone with a removed module.
        name = None
        problems.add(error, f"iomem_resource: name of {start:#x}-{end:#x}")
    return Resource(
        name=name,
        start=start,
        end=end,
        flags=entry.flags.value_(),
        desc=_DESC_NAMES.get(desc, str(desc)),
        depth=depth,
        object=entry,
    )


def for_each_persistent_memory(prog: Program) -> Partial[list[Resource]]:
    """
    The "Persistent Memory" resources: one per region of NFIT and CXL memory, or e820 type 12.

    papr_scm, of_pmem and virtio-pmem insert none.
    """
    return for_each_iomem(prog).map(
        lambda resources: [r for r in resources if r.desc in PERSISTENT_MEMORY]
    )


def iomem_at(resources: "list[Resource]", start: int, end: int) -> list[Resource]:
    """
    Resources that overlap a physical range.

    :param start: first byte
    :param end: end, exclusive
    """
    return [r for r in resources if r.start < end and start <= r.end]
