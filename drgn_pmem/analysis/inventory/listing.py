# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Inventory
---------

Everything that ``ndctl list`` shows, in one record: what could be read and, in words, what could
not.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from drgn import Program

from drgn_pmem.errors import MissingDebugInfo, NotFound
from drgn_pmem.kernel.dax import DaxRegion, for_each_dax_region
from drgn_pmem.kernel.iomem import for_each_persistent_memory
from drgn_pmem.kernel.kmod import has_kernel_debug_info
from drgn_pmem.kernel.namespace import Namespace, for_each_namespace
from drgn_pmem.kernel.nvdimm import Bus, Dimm, for_each_bus, for_each_dimm
from drgn_pmem.kernel.pgmap import for_each_pgmap
from drgn_pmem.kernel.region import Region, for_each_region
from drgn_pmem.kernel.walk import collect

__all__ = ("Inventory", "Selection", "read_inventory")


@dataclass(frozen=True)
class Selection:
    """What to show, as ndctl's options name it."""

    bus: str | None = None
    region: str | None = None
    namespace: str | None = None
    dimm: str | None = None
    mode: str | None = None
    idle: bool = False


@dataclass(frozen=True)
class Inventory:
    """The persistent memory of a machine."""

    buses: list[Bus]
    dimms: list[Dimm]
    regions: list[Region]
    namespaces: list[Namespace]
    dax_regions: list[DaxRegion]
    problems: list[str] = field(default_factory=list)
    """What could not be read, in words."""
    all_namespaces: bool = True
    """Whether these are all namespaces: none is missing for want of debug info or a broken list."""

    def select(self, selection: Selection) -> "Inventory":
        """
        The part that a selection names; devices are named as ndctl does (``region0`` or ``0``).

        :raises NotFound: if it names a device that there is not
        """

        def matching(devices: list[Any], wanted: str | None, prefix: str) -> list[Any]:
            if wanted is None or wanted == "all":
                return devices
            names = {wanted, prefix + wanted}
            found = [d for d in devices if d.dev in names or getattr(d, "provider", None) == wanted]
            if not found:
                known = ", ".join(d.dev for d in devices) or (
                    "none that can be read" if self.problems else "none"
                )
                raise NotFound(f"no {prefix} {wanted!r}; there are: {known}")
            return found

        buses = matching(self.buses, selection.bus, "ndbus")
        names = {bus.dev for bus in buses}
        regions = matching([r for r in self.regions if r.bus in names], selection.region, "region")
        dimms = matching([d for d in self.dimms if d.bus in names], selection.dimm, "nmem")
        if selection.dimm is not None:
            wanted = {d.dev for d in dimms}
            regions = [r for r in regions if wanted & {m.dimm for m in r.mappings}]
        if selection.region is not None:
            wanted = {m.dimm for r in regions for m in r.mappings}
            dimms = [d for d in dimms if d.dev in wanted]
        names = {region.dev for region in regions}
        namespaces = matching(
            [n for n in self.namespaces if n.region in names or not self.buses],
            selection.namespace,
            "namespace",
        )
        if selection.namespace is not None:
            names = {n.region for n in namespaces}
            regions = [r for r in regions if r.dev in names]
        if selection.mode is not None:
            namespaces = [n for n in namespaces if n.mode == selection.mode]
        if not selection.idle:
            dimms = [d for d in dimms if d.enabled]
            regions = [r for r in regions if r.enabled]
            if selection.namespace is None:
                namespaces = [n for n in namespaces if not n.idle]
        return replace(self, buses=buses, dimms=dimms, regions=regions, namespaces=namespaces)


def read_inventory(prog: Program) -> Inventory:
    """
    All buses, DIMMs, regions, namespaces and DAX regions that can be read.

    Without debug info of a module its part is empty and :attr:`Inventory.problems` names the
    module.

    :raises NotFound: if the machine had no persistent memory at all
    """
    problems: list[str] = []
    unfinished: list[Callable[[Program], Iterable[Any]]] = []

    def read(walk: Callable[[Program], Iterable[Any]]) -> list[Any]:
        try:
            records, stopped = collect(walk(prog))
        except MissingDebugInfo as error:
            records, stopped = [], [str(error)]
        problems.extend(line for line in stopped if line not in problems)
        if stopped:
            unfinished.append(walk)
        return sorted(records, key=_natural)

    inventory = Inventory(
        read(for_each_bus),
        read(for_each_dimm),
        read(for_each_region),
        read(for_each_namespace),
        read(for_each_dax_region),
        problems,
        for_each_namespace not in unfinished,
    )
    if not has_kernel_debug_info(prog):
        del problems[1:]  # each walk says the same
    for devices in (inventory.regions, inventory.namespaces):
        problems.extend(line for device in devices for line in device.problems)
    if not problems and not inventory.buses and not inventory.dax_regions:
        memory, _ = collect(for_each_persistent_memory(prog))
        pgmaps, _ = collect(for_each_pgmap(prog))
        if not memory and not pgmaps:
            raise NotFound(
                "this machine had no persistent memory: no NVDIMM bus, no DAX region, "
                "no Persistent Memory in iomem"
            )
    return inventory


def _natural(record: Any) -> list[Any]:
    """Device names in the order of their numbers: region2 before region10."""
    import re

    name = str(getattr(record, "dev", None) or getattr(record, "path", ""))
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
