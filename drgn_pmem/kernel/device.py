# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
Devices
-------

What the driver core knows of a device beyond :mod:`drgn.helpers.linux.device`: its driver, its
parent, the devices of a bus with every walk bounded. Source: include/linux/device.h,
drivers/base/base.h.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

from drgn import FaultError, Object, Program
from drgn.helpers.linux.device import bus_for_each_dev, dev_name

from drgn_pmem.kernel.debuginfo import find_variable
from drgn_pmem.kernel.walk import bounded

__all__ = (
    "attempt",
    "device_name",
    "driver_name",
    "for_each_device",
    "for_each_nd_device",
    "kernel_string",
    "uuid_text",
)

T = TypeVar("T")


def for_each_device(prog: Program, bus: str, module: str) -> Iterator[Object]:
    """
    Devices of a bus, as ``/sys/bus/NAME/devices`` lists them.

    :param bus: Variable: ``"nvdimm_bus_type"``, ``"dax_bus_type"``.
    :param module: Kernel module that defines it.
    :return: ``struct device *`` objects
    :raises WalkError: after what could be read
    :raises MissingDebugInfo: naming the module
    """
    bus_type = find_variable(prog, bus, module).address_of_()
    return bounded(bus_for_each_dev(bus_type), f"devices of {bus}")


def for_each_nd_device(prog: Program, prefix: str) -> Iterator[Object]:
    """
    Devices of the NVDIMM bus of one kind.

    :param prefix: What their names begin with, before the number: ``"nmem"``, ``"namespace"``.
    :return: ``struct device *`` objects
    :raises WalkError: after what could be read
    :raises MissingDebugInfo: without debug info of libnvdimm
    """
    for device in for_each_device(prog, "nvdimm_bus_type", "libnvdimm"):
        name = device_name(device)
        if name.startswith(prefix) and name[len(prefix) : len(prefix) + 1].isdigit():
            yield device


def kernel_string(pointer: Object) -> str:
    """
    Text of a kernel string, as it stands in the dump (not escaped).

    :param pointer: ``char *`` or ``char []``
    """
    return pointer.string_().decode("utf-8", "backslashreplace")


def device_name(device: Object) -> str:
    """
    Name of a device: ``"namespace0.0"``.

    :param device: ``struct device *``
    """
    return dev_name(device).decode("utf-8", "backslashreplace")


def driver_name(device: Object) -> str | None:
    """
    Name of the driver that is bound to a device; None if none is.

    :param device: ``struct device *``
    """
    driver = device.driver.read_()
    return kernel_string(driver.name) if driver else None


def uuid_text(pointer: Object) -> str | None:
    """
    UUID as ndctl prints it; None for a NULL pointer.

    :param pointer: ``uuid_t *`` (``u8 *`` before v5.16)
    """
    if not pointer:
        return None
    import uuid

    return str(uuid.UUID(bytes=pointer.prog_.read(pointer.value_(), 16)))


def attempt(problems: list[str], what: str, read: Callable[[], T]) -> T | None:
    """
    One value that the dump may not hold: None and a line in *problems* where reading it faults.

    :param what: Named in the message.
    """
    try:
        return read()
    except FaultError as error:
        problems.append(f"{what}: {error}")
        return None
