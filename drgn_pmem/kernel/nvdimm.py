# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
NVDIMM buses and DIMMs
----------------------

The machine's NVDIMM buses and DIMMs, as ``ndctl list -BD`` shows them. Regions stand in
:mod:`drgn_pmem.kernel.region`, namespaces in :mod:`drgn_pmem.kernel.namespace`. Sources:
drivers/nvdimm/nd-core.h, include/linux/libnvdimm.h, drivers/acpi/nfit/nfit.h.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from drgn import Object, Program, cast, container_of
from drgn.helpers.linux.list import list_for_each_entry

from drgn_pmem.kernel.debuginfo import find_type, find_variable, has_type
from drgn_pmem.kernel.device import device_name, driver_name, for_each_nd_device, kernel_string
from drgn_pmem.kernel.walk import bounded

__all__ = ("Bus", "Dimm", "for_each_bus", "for_each_dimm")

_MEMDEV_FLAGS = (
    (1 << 6, "flag_failed_map"),
    (1 << 0, "flag_failed_save"),
    (1 << 3, "flag_failed_arm"),
    (1 << 1, "flag_failed_restore"),
    (1 << 2, "flag_failed_flush"),
    (1 << 4, "flag_smart_event"),
)
"""``ACPI_NFIT_MEM_*`` (include/acpi/actbl2.h) -> ndctl's key, in ndctl's order."""


@dataclass(frozen=True)
class Bus:
    """``struct nvdimm_bus``."""

    dev: str
    provider: str
    object: Object = field(repr=False, compare=False)
    """``struct nvdimm_bus *``"""

    def to_json(self) -> dict[str, Any]:
        return {"provider": self.provider, "dev": self.dev}


@dataclass(frozen=True)
class Dimm:
    """``struct nvdimm``."""

    dev: str
    bus: str
    id: str | None
    handle: int | None
    """NFIT device handle; None without debug info of nfit, or for another kind of DIMM."""
    phys_id: int | None
    flags: tuple[str, ...]
    enabled: bool
    object: Object = field(repr=False, compare=False)
    """``struct nvdimm *``"""

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"dev": self.dev}
        for key in ("id", "handle", "phys_id"):
            if getattr(self, key) is not None:
                value[key] = getattr(self, key)
        if not self.enabled:
            value["state"] = "disabled"
        value.update((flag, True) for flag in self.flags)
        return value


def for_each_bus(prog: Program) -> Iterator[Bus]:
    """
    NVDIMM buses.

    :raises MissingDebugInfo: without debug info of libnvdimm
    :raises WalkError: after what could be read
    """
    head = find_variable(prog, "nvdimm_bus_list", "libnvdimm").address_of_()
    find_type(prog, "struct nvdimm_bus", "libnvdimm")
    for bus in bounded(list_for_each_entry("struct nvdimm_bus", head, "list"), "nvdimm_bus_list"):
        yield Bus(
            device_name(bus.dev.address_of_()),
            kernel_string(bus.nd_desc.provider_name),
            bus,
        )


def for_each_dimm(prog: Program) -> Iterator[Dimm]:
    """
    DIMMs (``nmemN``) of every bus.

    :raises MissingDebugInfo: without debug info of libnvdimm
    :raises WalkError: after what could be read
    """
    find_type(prog, "struct nvdimm", "libnvdimm")
    for device in for_each_nd_device(prog, "nmem"):
        nvdimm = container_of(device, "struct nvdimm", "dev")
        memdev = _nfit_memdev(nvdimm)
        yield Dimm(
            device_name(device),
            device_name(device.parent),
            kernel_string(nvdimm.dimm_id) if nvdimm.dimm_id else None,
            None if memdev is None else memdev.device_handle.value_(),
            None if memdev is None else memdev.physical_id.value_(),
            ()
            if memdev is None
            else tuple(key for bit, key in _MEMDEV_FLAGS if memdev.flags.value_() & bit),
            driver_name(device) is not None,
            nvdimm,
        )


def _nfit_memdev(nvdimm: Object) -> Object | None:
    """``struct acpi_nfit_memory_map *`` of a DIMM that the NFIT describes."""
    prog = nvdimm.prog_
    if not has_type(prog, "struct nfit_mem"):
        return None
    bus = container_of(nvdimm.dev.parent, "struct nvdimm_bus", "dev")
    if kernel_string(bus.nd_desc.provider_name) != "ACPI.NFIT":
        return None
    nfit_mem = cast("struct nfit_mem *", nvdimm.provider_data)
    if nfit_mem.nvdimm != nvdimm:
        return None
    memdev = nfit_mem.memdev_dcr or nfit_mem.memdev_pmem
    return memdev if memdev else None
