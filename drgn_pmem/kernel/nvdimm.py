# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
NVDIMM buses and DIMMs
----------------------

The machine's NVDIMM buses and DIMMs, as ``ndctl list -BD`` shows them. Regions are in
:mod:`drgn_pmem.kernel.region`, namespaces in :mod:`drgn_pmem.kernel.namespace`. Sources:
drivers/nvdimm/nd-core.h, include/linux/libnvdimm.h, drivers/acpi/nfit/nfit.h,
arch/powerpc/platforms/pseries/papr_scm.c.
"""

from collections.abc import Iterator
from typing import Any

from drgn import Object, Program, cast, container_of
from drgn.helpers.linux.list import list_for_each_entry

from drgn_pmem.kernel.debuginfo import find_type, find_variable, has_type, optional_member
from drgn_pmem.kernel.device import device_name, driver_name, for_each_nd_device
from drgn_pmem.kernel.strings import kernel_string
from drgn_pmem.kernel.walk import bounded
from drgn_pmem.partial import Partial, Problems, WalkError
from drgn_pmem.record import Record, Show, shown

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

_FLUSH_FAILED = 1 << 2

_PAPR = "ibm,persistent-memory"
_PAPR_FLAGS = (
    (1 << 63 | 1 << 57, "flag_failed_arm"),
    (1 << 60, "flag_failed_restore"),
    (1 << 62, "flag_failed_flush"),
    (1 << 59 | 1 << 58 | 1 << 57, "flag_smart_event"),
)
"""Masks of ``health_bitmap`` (``PAPR_PMEM_*`` of arch/powerpc/platforms/pseries/papr_scm.c) -> the
key that ndctl makes of what ``flags_show()`` prints for it, in ndctl's order."""


class Bus(Record):
    """``struct nvdimm_bus``."""

    dev: str
    provider: str | None
    """``"ACPI.NFIT"``; None if the dump does not hold it."""
    object: Object = shown(Show.HIDDEN)
    """``struct nvdimm_bus *``"""

    def to_json(self) -> dict[str, Any]:
        return {"provider": self.provider, "dev": self.dev}


class Dimm(Record):
    """``struct nvdimm``."""

    dev: str
    bus: str
    id: str | None
    """None also for kernels before v4.20, whose DIMMs have none."""
    handle: int | None
    """NFIT device handle; None without debug info of nfit, or for another kind of DIMM."""
    phys_id: int | None
    flags: tuple[str, ...] | None
    """Failures, by ndctl's keys; None if not known (nfit without debug info, or not saved)."""
    shutdown_state: str | None
    """``"dirty"`` if the firmware said so at boot; None where it did not, and if not known."""
    shutdown_count: int | None
    """Dirty shutdowns that the firmware counted; None for firmware that does not count, and if not
    known."""
    enabled: bool
    security: str | None = None
    """``"disabled"``, ``"unlocked"``, ``"locked"`` or ``"overwrite"``; None for a DIMM without
    security commands, and for kernels before v5.4."""
    frozen: bool = False
    """Whether its security state cannot be changed until it is reset."""
    object: Object = shown(Show.HIDDEN)
    """``struct nvdimm *``"""

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"dev": self.dev}
        for key in ("id", "handle", "phys_id"):
            if getattr(self, key) is not None:
                value[key] = getattr(self, key)
        if not self.enabled:
            value["state"] = "disabled"
        value.update((flag, True) for flag in self.flags or ())
        if self.security is not None:
            value["security"] = self.security
        if self.frozen:
            value["security_frozen"] = True
        return value

    def health_json(self) -> dict[str, Any]:
        """What the kernel keeps of the object ``health`` of ``ndctl list -H``, by its keys."""
        values = {"shutdown_state": self.shutdown_state, "shutdown_count": self.shutdown_count}
        known = {key: value for key, value in values.items() if value is not None}
        return {"health": known} if known else {}


def for_each_bus(prog: Program) -> Partial[list[Bus]]:
    """NVDIMM buses."""
    problems = Problems()
    found = []
    for bus in problems.collect(_buses(prog)):
        with problems.trying(f"NVDIMM bus at {bus.value_():#x}"):
            found.append(_read_bus(bus, problems))
    return problems.partial(found)


def _read_bus(bus: Object, problems: Problems) -> Bus:
    name = device_name(bus.dev.address_of_())
    provider = problems.attempt(
        f"{name}: provider", lambda: kernel_string(bus.nd_desc.provider_name)
    )
    return Bus(dev=name, provider=provider, object=bus)


def _buses(prog: Program) -> Iterator[Object]:
    head = find_variable(prog, "nvdimm_bus_list", "libnvdimm").address_of_()
    find_type(prog, "struct nvdimm_bus", "libnvdimm")
    yield from bounded(list_for_each_entry("struct nvdimm_bus", head, "list"), "nvdimm_bus_list")


def for_each_dimm(prog: Program) -> Partial[list[Dimm]]:
    """DIMMs (``nmemN``) of every bus."""
    problems = Problems()
    found = []
    with problems.trying(""):
        find_type(prog, "struct nvdimm", "libnvdimm")
        for device in problems.take(for_each_nd_device(prog, "nmem")):
            with problems.trying(device_name(device)):
                found.append(_read_dimm(device, problems))
    return problems.partial(found)


def _read_dimm(device: Object, problems: Problems) -> Dimm:
    name = device_name(device)
    nvdimm = container_of(device, "struct nvdimm", "dev")
    firmware = problems.attempt(f"{name}: NFIT", lambda: _read_firmware(nvdimm))
    security = problems.attempt(f"{name}: security", lambda: _security(nvdimm))
    # Since Linux kernel commit d6548ae4d16d ("acpi/nfit, libnvdimm: Store dimm id as a member to
    # struct nvdimm") (in v4.20).
    dimm_id = optional_member(nvdimm, "dimm_id")
    nothing: dict[str, Any] = dict.fromkeys(
        ("handle", "phys_id", "flags", "shutdown_state", "shutdown_count")
    )
    return Dimm(
        dev=name,
        bus=device_name(device.parent),
        id=None
        if dimm_id is None
        else problems.attempt(f"{name}: id", lambda: kernel_string(dimm_id) if dimm_id else None),
        **(nothing if firmware is None else firmware),
        enabled=driver_name(device) is not None,
        security=None if security is None else security[0],
        frozen=security is not None and security[1],
        object=nvdimm,
    )


def _read_firmware(nvdimm: Object) -> dict[str, Any]:
    """What the NFIT and the firmware say of a DIMM; only empty flags for a DIMM of another kind."""
    values: dict[str, Any] = {
        "handle": None,
        "phys_id": None,
        "flags": (),
        "shutdown_state": None,
        "shutdown_count": None,
    }
    bus = container_of(nvdimm.dev.parent, "struct nvdimm_bus", "dev")
    provider = kernel_string(bus.nd_desc.provider_name)
    if provider.startswith(_PAPR):
        return values | {"flags": _papr_flags(nvdimm)}
    if provider != "ACPI.NFIT":
        return values
    if not has_type(nvdimm.prog_, "struct nfit_mem"):  # named by pmem-list
        return values | {"flags": None}
    nfit_mem = cast("struct nfit_mem *", nvdimm.provider_data)
    if nfit_mem.nvdimm != nvdimm:
        raise WalkError("provider_data points to no struct nfit_mem of this DIMM")
    memdev = nfit_mem.memdev_dcr or nfit_mem.memdev_pmem
    if not memdev:
        return values
    flags = memdev.flags.value_()
    state, count = _shutdowns(nfit_mem)
    if state == "dirty":
        flags |= _FLUSH_FAILED  # flags_show() of drivers/acpi/nfit/core.c
    return values | {
        "handle": memdev.device_handle.value_(),
        "phys_id": memdev.physical_id.value_(),
        "flags": tuple(key for bit, key in _MEMDEV_FLAGS if flags & bit),
        "shutdown_state": state,
        "shutdown_count": count,
    }


_SECURITY = ("OVERWRITE", "DISABLED", "UNLOCKED", "LOCKED")
"""``NVDIMM_SECURITY_*``, in the order that ``security_show()`` asks for them."""


def _security(nvdimm: Object) -> tuple[str | None, bool]:
    """The state that sysfs shows, and whether it is frozen."""
    security = optional_member(nvdimm, "sec")
    # Since Linux kernel commit d78c620a2e82 ("libnvdimm/security: Introduce a 'frozen' attribute")
    # (in v5.4) flags; before, one state.
    flags = None if security is None else optional_member(security, "flags")
    bits = 0 if flags is None else flags.value_()
    if not bits:
        return None, False
    prog = nvdimm.prog_

    def has(name: str) -> bool:
        return bool(bits >> prog.constant(f"NVDIMM_SECURITY_{name}").value_() & 1)

    return next((name.lower() for name in _SECURITY if has(name)), None), has("FROZEN")


def _papr_flags(nvdimm: Object) -> tuple[str, ...] | None:
    """Of a DIMM of a POWER hypervisor; None without debug info of papr_scm."""
    if not has_type(nvdimm.prog_, "struct papr_scm_priv"):  # named by pmem-list
        return None
    priv = cast("struct papr_scm_priv *", nvdimm.provider_data)
    if priv.nvdimm != nvdimm:
        raise WalkError("provider_data points to no struct papr_scm_priv of this DIMM")
    # Since Linux kernel commit b5f38f09e12c ("powerpc/papr_scm: Fetch nvdimm health information
    # from PHYP") (in v5.9).
    health = optional_member(priv, "health_bitmap")
    bits = 0 if health is None else health.value_()
    return tuple(key for mask, key in _PAPR_FLAGS if bits & mask)


def _shutdowns(nfit_mem: Object) -> tuple[str | None, int | None]:
    """
    State of the last shutdown and number of dirty ones, as far as the firmware reported them
    (``nfit_intel_shutdown_status()``): that a shutdown was clean is not kept.
    """
    # Since Linux kernel commit 0ead11181fe0 ("acpi, nfit: Collect shutdown status") (in v4.20).
    count = optional_member(nfit_mem, "dirty_shutdown")
    if count is None:
        return None, None
    prog = nfit_mem.prog_
    flags = nfit_mem.flags.value_()
    dirty, counted = (
        flags >> prog.constant(name).value_() & 1
        for name in ("NFIT_MEM_DIRTY", "NFIT_MEM_DIRTY_COUNT")
    )
    return "dirty" if dirty else None, count.value_() if counted else None
