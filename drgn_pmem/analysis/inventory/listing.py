# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Inventory
---------

Everything that ``ndctl list`` shows, in one record.
"""

from collections.abc import Sequence
from dataclasses import replace
import re
from typing import Any, TypeVar

from drgn import Program

from drgn_pmem.analysis.inventory.names import namespace_called
from drgn_pmem.errors import NotFound
from drgn_pmem.kernel.dax import DaxRegion, for_each_dax_region
from drgn_pmem.kernel.debuginfo import has_type, has_variable
from drgn_pmem.kernel.iomem import for_each_persistent_memory
from drgn_pmem.kernel.kmod import has_kernel_debug_info, has_no_module
from drgn_pmem.kernel.namespace import Namespace, for_each_namespace
from drgn_pmem.kernel.nvdimm import Bus, Dimm, for_each_bus, for_each_dimm
from drgn_pmem.kernel.pgmap import for_each_pgmap
from drgn_pmem.kernel.region import Region, for_each_region
from drgn_pmem.partial import Cause, Partial, Problems, WalkError
from drgn_pmem.record import Record

__all__ = ("Inventory", "Selection", "placed", "read_inventory")

_ELFCORE_ADDR_MAX = (1 << 64) - 1

T = TypeVar("T", Bus, Dimm, Region, Namespace)


class Selection(Record):
    """What to show, as ndctl's options name it."""

    bus: str | None = None
    region: str | None = None
    namespace: str | None = None
    dimm: str | None = None
    mode: str | None = None
    idle: bool = False


class Inventory(Record):
    """The persistent memory of a machine."""

    buses: list[Bus]
    dimms: list[Dimm]
    regions: list[Region]
    namespaces: list[Namespace]
    dax_regions: list[DaxRegion]


def _named(devices: Sequence[T], wanted: str, prefix: str) -> list[T]:
    """Devices of a name, as ndctl takes them: ``region0`` or ``0``; of a bus its provider, too; of
    a namespace all that :mod:`drgn_pmem.analysis.inventory.names` knows."""
    found = [
        device
        for device in devices
        if wanted
        in (device.dev, device.dev.removeprefix(prefix), getattr(device, "provider", None))
    ]
    all_devices: Sequence[Any] = devices
    namespaces = [device for device in all_devices if isinstance(device, Namespace)]
    if not found and namespaces:
        called = namespace_called(namespaces, wanted)
        found = [device for device in devices if device is called]
    return found


def _select(found: Partial[Inventory], selection: Selection) -> Partial[Inventory]:
    """
    The part of an inventory that a selection names.

    :raises NotFound: if it names a device that does not exist or could not be read
    """
    problems = Problems()
    inventory = problems.take(found)

    def matching(devices: Sequence[T], wanted: str | None, prefix: str) -> list[T]:
        if wanted is None or wanted == "all":
            return list(devices)
        chosen = _named(devices, wanted, prefix)
        if not chosen:
            known = ", ".join(d.dev for d in devices) or "none"
            if problems:
                raise WalkError(
                    f"whether there is a {prefix} {wanted!r} is not known; could be read: {known}; "
                    f"{next(iter(problems))}"
                )
            raise NotFound(f"no {prefix} {wanted!r}; there are: {known}")
        return chosen

    buses = matching(inventory.buses, selection.bus, "ndbus")
    names = {bus.dev for bus in buses}
    if selection.bus is None:  # some may be on a bus that could not be read
        names |= {r.bus for r in inventory.regions} | {d.bus for d in inventory.dimms}
    regions = matching([r for r in inventory.regions if r.bus in names], selection.region, "region")
    dimms = matching([d for d in inventory.dimms if d.bus in names], selection.dimm, "nmem")
    if selection.dimm is not None:
        wanted = {d.dev for d in dimms}
        regions = [r for r in regions if wanted & {m.dimm for m in r.mappings or ()}]
    if selection.region is not None:
        wanted = {m.dimm for r in regions for m in r.mappings or ()}
        dimms = [d for d in dimms if d.dev in wanted]
    names = {region.dev for region in regions}
    # Without a choice also those whose region could not be read.
    chosen = selection.bus or selection.region or selection.dimm
    everything = not chosen or not inventory.buses
    namespaces = matching(
        [n for n in inventory.namespaces if everything or n.region in names],
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
    return problems.partial(
        replace(inventory, buses=buses, dimms=dimms, regions=regions, namespaces=namespaces)
    )


def placed(prog: Program, inventory: Inventory) -> Inventory:
    """The inventory without namespaces whose bus is not known because it was lost: ndctl's shape
    has no place for them. Without debug info of libnvdimm no bus is known, and all have one."""
    if not has_type(prog, "struct nd_namespace_common"):
        return inventory
    regions = {region.dev for region in inventory.regions}
    found = [n for n in inventory.namespaces if n.bus is not None or n.region in regions]
    return replace(inventory, namespaces=found)


def read_inventory(prog: Program, selection: Selection | None = None) -> Partial[Inventory]:
    """
    Buses, DIMMs, regions, namespaces and DAX regions; without debug info of a module, its part is
    empty and a problem names the module.

    :param selection: Which of them; all, idle ones included, for None.
    :raises NotFound: if the kernel knew of no persistent memory at all, or the selection names a
        device that is not there, or that could not be read
    """
    found = _read_all(prog)
    return found if selection is None else _select(found, selection)


def _read_all(prog: Program) -> Partial[Inventory]:
    problems = Problems()
    inventory = Inventory(
        buses=sorted(problems.take(for_each_bus(prog)), key=_natural),
        dimms=sorted(problems.take(for_each_dimm(prog)), key=_natural),
        regions=sorted(problems.take(for_each_region(prog)), key=_natural),
        namespaces=sorted(problems.take(for_each_namespace(prog)), key=_natural),
        dax_regions=sorted(problems.take(for_each_dax_region(prog)), key=_natural),
    )
    if not has_kernel_debug_info(prog):
        # Each walk has the same problem.
        kernel = [p for p in problems if p.cause is Cause.NO_DEBUG_INFO and p.module == "vmlinux"]
        return Partial(inventory, tuple(kernel[:1]))
    if not problems and not inventory.buses and not inventory.dax_regions:
        memory = problems.take(for_each_persistent_memory(prog))
        pgmaps = problems.take(for_each_pgmap(prog))
        whose = problems.attempt("elfcorehdr_addr", lambda: _capture_words(prog))
        if not memory and not pgmaps and not problems:
            raise NotFound(
                "this kernel knew of no persistent memory: no NVDIMM bus, no DAX region, no "
                f"Persistent Memory in iomem{_driver_words(prog)}{whose}"
            )
    return problems.partial(inventory)


def _driver_words(prog: Program) -> str:
    """Why a kernel without libnvdimm cannot know: papr_scm, of_pmem and virtio-pmem add nothing to
    iomem, and without it no driver of NVDIMMs runs."""
    if not has_no_module(prog, "libnvdimm", "nvdimm_bus_register"):
        return ""
    return "; it had no libnvdimm, so NVDIMMs that the machine may have were not known to it"


def _capture_words(prog: Program) -> str:
    """Of a capture kernel, which machine was meant. Source: kernel/crash_dump.c."""
    if not has_variable(prog, "elfcorehdr_addr"):
        return ""  # built without CONFIG_CRASH_DUMP
    if prog["elfcorehdr_addr"].value_() % (1 << 64) == _ELFCORE_ADDR_MAX:
        return ""
    return ". This memory is that of a capture kernel: --crashed opens the kernel that crashed"


def _natural(record: Any) -> list[Any]:
    """Device names in the order of their numbers: region2 before region10."""
    name = str(getattr(record, "dev", None) or getattr(record, "path", ""))
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
